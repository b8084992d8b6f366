"""Test cases made of stored webhooks: redacted, signed anew, with the events that they become.

Writes nothing. What cannot be redacted, or is read differently afterwards, is refused.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway.domain import (
    FETCHED,
    Event,
    Resigns,
    Unrecognised,
    Verified,
    Webhook,
    WebhookRequest,
)
from gateway.errors import CannotVerifyNow, Malformed, SignatureInvalid
from gateway.redaction import Fakes

EXACT = frozenset(
    {"status", "vendor_status", "channel", "type", "kind", "echo", "fetchable", "code", "reason"}
)


@dataclass(frozen=True, slots=True)
class Exported:
    """The two files of a case."""

    facts: Mapping[str, Any]
    body: bytes


async def exported(webhook: Webhook, stored: Verified, what: str) -> Exported:
    """A case of a stored request, for `webhook`, whose secrets are those of the tests.

    Raises:
        ValueError: it cannot be made; the text says why.
    """
    if stored.verdict in FETCHED:
        raise ValueError("it was asked for and not posted: nothing in it is signed")
    if not isinstance(webhook, Resigns):
        raise ValueError(f"{webhook.name} cannot sign it anew")
    fakes = Fakes(webhook.spoken)
    at = dataclasses.replace(stored.request, url=fakes.url(stored.request.url))
    request = webhook.resign(dataclasses.replace(stored, request=at), fakes.value)
    try:
        verified = await webhook.verify(request)
    except (SignatureInvalid, CannotVerifyNow) as error:
        raise ValueError(f"it does not verify once it is redacted: {error}") from None
    before, after = _read(webhook, stored), _read(webhook, verified)
    if _outline(before) != _outline(after):
        raise ValueError("it is read differently once it is redacted")
    facts = _facts(request, after, what)
    if fakes.leaks(json.dumps(facts)) or fakes.leaks(request.body.decode("utf-8", "replace")):
        raise ValueError("an id or a number of it is left after it was redacted")
    return Exported(facts, request.body)


def _read(webhook: Webhook, verified: Verified) -> Sequence[Event] | None:
    try:
        return webhook.parse(verified)
    except Malformed:
        return None


def _facts(request: WebhookRequest, events: Sequence[Event] | None, what: str) -> dict[str, Any]:
    said: dict[str, Any] = {"malformed": True}
    if events is not None:
        said = {"events": [described(event) for event in events]}
        for event, facts in zip(events, said["events"], strict=True):
            if isinstance(event, Unrecognised):
                del facts["dedupe_key"]  # the adapter's own business
    return {
        "what": what,
        "method": request.method,
        "url": request.url,
        "headers": dict(request.headers),
        "received_at": request.received_at.isoformat(),
        "expect": said,
    }


def _outline(value: Any, name: str = "") -> Any:
    """What has to be the same of what is read: all but the facts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return type(value), {f.name: _outline(getattr(value, f.name), f.name) for f in fields}
    if isinstance(value, Mapping):
        return {key: _outline(item, key) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_outline(item) for item in value]
    if name in EXACT:
        return value
    return type(value), value in (None, "")


def described(event: Event) -> dict[str, Any]:
    """An event as its case file has it: its class, and every fact that is not a default."""
    facts = {
        field.name: _plain(getattr(event, field.name))
        for field in dataclasses.fields(event)
        if getattr(event, field.name) not in (_default(field), None, (), {})
    }
    return {"event": type(event).__name__, **facts}


def _default(field: dataclasses.Field[Any]) -> Any:
    return None if field.default is dataclasses.MISSING else field.default


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, _plain(getattr(value, f.name))) for f in dataclasses.fields(value))
        return {name: plain for name, plain in pairs if plain is not None}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (Decimal, datetime)):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Path):  # of ours, wherever that stands
        return value.name
    return value
