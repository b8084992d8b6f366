"""Golden requests of webhooks: raw bytes and headers in files, and the events they must become.

A case is `cases/<name>/inbound/<case>.json` with `<case>.body` beside it; `_settings.json` holds
the variables that the adapter is built from, `_served` the files that it may fetch, by the last
part of their URL, and `_simulated.json` what the vendor has no way to say.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from gateway.domain import Event, Verified, Webhook, WebhookRequest

CASES = Path(__file__).parent / "cases"
WHEN = datetime.fromisoformat("2026-03-01T12:00:00+00:00")


@dataclass(frozen=True)
class Case:
    """A request, and `events`, `malformed` or `refused` as what must come of it."""

    webhook: str
    name: str
    request: WebhookRequest
    expect: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.webhook}-{self.name}"


def settings_of(name: str) -> dict[str, str]:
    """The variables that a webhook's cases are signed with."""
    path = CASES / name / "inbound" / "_settings.json"
    return dict(json.loads(path.read_text()))


def cases_of(name: str) -> list[Case]:
    """A webhook's golden cases."""
    folder = CASES / name / "inbound"
    return [_case(name, path) for path in sorted(folder.glob("[!_]*.json"))]


def _case(name: str, path: Path) -> Case:
    data = json.loads(path.read_text())
    request = WebhookRequest(
        method=data.get("method", "POST"),
        url=data["url"],
        headers=data["headers"],
        body=path.with_suffix(".body").read_bytes(),
        received_at=datetime.fromisoformat(data["received_at"]) if "received_at" in data else WHEN,
    )
    return Case(name, path.stem, request, data["expect"])


def made(kind: type[Any], variables: Mapping[str, str], connection: str = "c1") -> Webhook:
    """A webhook of a class, from variables."""
    fetches = "fetch" in inspect.signature(kind).parameters
    more = {"fetch": served(kind.name)} if fetches else {}
    webhook = kind(kind.Settings.model_validate(variables), connection=connection, **more)
    assert isinstance(webhook, Webhook)
    return webhook


def served(name: str) -> Callable[[str], bytes]:
    """Fetches what a vendor serves, from a folder of its cases."""
    folder = CASES / name / "inbound" / "_served"
    return lambda url: (folder / url.rpartition("/")[2]).read_bytes()


@dataclass(frozen=True)
class Sayable:
    """What a vendor cannot say: whole events by their names in the tests, and facts of others."""

    refused: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def sayable(name: str) -> Sayable:
    """What a vendor's simulation has to leave out."""
    path = CASES / name / "inbound" / "_simulated.json"
    return Sayable(**json.loads(path.read_text())) if path.is_file() else Sayable()


def without_proof(request: WebhookRequest, headers: Mapping[str, str]) -> WebhookRequest:
    """The same request with other headers; and where its body is a signed envelope, unsigned."""
    try:
        envelope = json.loads(request.body)
        del envelope["Signature"]
    except (ValueError, TypeError, KeyError):
        return changed(request, headers=headers)
    return changed(request, headers=headers, body=json.dumps(envelope).encode())


def secrets_of(kind: type[Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Those of a webhook's variables that nobody may see."""
    fields = kind.Settings.model_fields.values()
    hidden = {field.alias for field in fields if field.annotation is SecretStr}
    return {name: value for name, value in variables.items() if name in hidden}


async def events_of(webhook: Webhook, request: WebhookRequest) -> list[Event]:
    """What a request becomes."""
    return list(webhook.parse(await webhook.verify(request)))


def changed(request: WebhookRequest, **changes: Any) -> WebhookRequest:
    """The same request, with something else in it."""
    return dataclasses.replace(request, **changes)


def unproved(webhook: Webhook, request: WebhookRequest) -> Verified:
    """A request given to `parse` as if it had been verified."""
    return Verified(
        webhook=webhook.name, connection="c1", request=request, key="0" * 64, verdict="none"
    )
