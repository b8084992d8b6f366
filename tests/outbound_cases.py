"""How tests build providers and messages: from the data in `cases/`, never by a vendor's name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.catalog import CATALOG, Entry
from gateway.domain import Channel, MessageType, OutboundMedia, OutboundMessage, Sender
from gateway.settings import Environment
from providers._http import Http

CASES = Path(__file__).parent / "cases"
PROVIDERS = tuple(entry for entry in CATALOG if entry.provider is not None)
TO = "+15557654321"
SENDER = "+15550001111"


def entry_of(name: str) -> Entry:
    """The catalogue's entry of a name."""
    return next(entry for entry in CATALOG if entry.name == name)


def data_of(entry: Entry) -> Mapping[str, Any]:
    """What `cases/<name>/provider.json` says of a provider."""
    found: Mapping[str, Any] = json.loads((CASES / entry.name / "provider.json").read_text())
    return found


def speaks_to(entry: Entry) -> bool:
    """Whether a provider has a wire at all."""
    return bool(data_of(entry)["wire"])


WIRED = tuple(entry for entry in PROVIDERS if speaks_to(entry))


def outbound(entry: Entry) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The outbound cases of a provider, by name."""
    for path in sorted((CASES / entry.name / "outbound").glob("*.json")):
        yield path.stem, json.loads(path.read_text())


def settings_of(entry: Entry, vendor: str, **more: str) -> Any:
    """A provider's settings, filled as the application fills them."""
    variables = {**data_of(entry)["environment"], **more}
    filled = {name: value.replace("{vendor}", vendor) for name, value in variables.items()}
    assert entry.provider is not None
    return Environment(filled).fill(entry.provider.Settings)


@asynccontextmanager
async def provider(
    entry: Entry, vendor: str, *, timeout: float = 5.0, connect_timeout: float = 5.0, **more: str
) -> AsyncIterator[Any]:
    """A provider that calls a vendor at the given address."""
    http = Http(connect_timeout=connect_timeout)
    assert entry.provider is not None
    made = entry.provider(settings_of(entry, vendor, **more), http=http, timeout=timeout)
    try:
        yield made
    finally:
        await made.aclose()
        await http.aclose()


def expanded(value: Any) -> Any:
    """A value of a case, with `{"repeat": [text, times]}` written out."""
    if isinstance(value, dict) and set(value) == {"repeat"}:
        return value["repeat"][0] * value["repeat"][1]
    return [expanded(each) for each in value] if isinstance(value, list) else value


def message(**fields: Any) -> OutboundMessage:
    """A message from the fields of a case; what is not given is ordinary."""
    given = {name: expanded(value) for name, value in fields.items()}
    return OutboundMessage(
        **{
            "message_id": "msg_1",
            "attempt_id": "att_1",
            "to": TO,
            **given,
            "channel": Channel(given.get("channel", "sms")),
            "type": MessageType(given.get("type", "text")),
            "sender": Sender(**given.get("sender", {"address": SENDER})),
            "media": tuple(OutboundMedia(**file) for file in given.get("media", ())),
        }
    )
