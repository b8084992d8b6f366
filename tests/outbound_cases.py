"""How tests build providers and messages: from the data in `cases/`, never by a vendor's name."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.catalog import CATALOG, Entry
from gateway.domain import (
    Channel,
    MessageType,
    OutboundEmail,
    OutboundMedia,
    OutboundMessage,
    Sender,
)
from gateway.settings import Environment
from providers._http import Http
from tests.vendors import Request

CASES = Path(__file__).parent / "cases"
TO = "+15557654321"
SENDER = "+15550001111"


@dataclass(frozen=True)
class Setup:
    """A provider in one of its configurations: `provider.json`, with what a variant changes."""

    entry: Entry
    variant: str
    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The provider's name, with that of the variant."""
        return f"{self.entry.name}-{self.variant}" if self.variant else self.entry.name

    @property
    def provider(self) -> type[Any]:
        """The class of the provider."""
        assert self.entry.provider is not None
        return self.entry.provider


def setups_of(entry: Entry) -> Iterator[Setup]:
    """A provider in each of its configurations; the first is the one that is usual."""
    data = json.loads((CASES / entry.name / "provider.json").read_text())
    variants = data.pop("variants", {"": {}})
    for name, changed in variants.items():
        environment = {**data["environment"], **changed.get("environment", {})}
        yield Setup(entry, name, {**data, **changed, "environment": environment})


PROVIDERS = tuple(
    setup for entry in CATALOG if entry.provider is not None for setup in setups_of(entry)
)
WIRED = tuple(setup for setup in PROVIDERS if setup.data["wire"])


def entry_of(name: str, variant: str | None = None) -> Setup:
    """A provider's usual configuration, or the one of that name."""
    return next(
        setup
        for setup in PROVIDERS
        if setup.entry.name == name and variant in (None, setup.variant)
    )


def outbound(setup: Setup) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The outbound cases of a provider in one of its configurations, by name."""
    usual = entry_of(setup.entry.name).variant
    for path in sorted((CASES / setup.entry.name / "outbound").glob("*.json")):
        case = json.loads(path.read_text())
        if case.get("variant", usual) == setup.variant:
            yield path.stem, case


def settings_of(setup: Setup, vendor: str, **more: str) -> Any:
    """A provider's settings, filled as the application fills them."""
    variables = {**setup.data["environment"], **more}
    port = str(urlsplit(vendor).port or 9)
    filled = {
        name: value.replace("{vendor}", vendor).replace("{port}", port)
        for name, value in variables.items()
    }
    return Environment(filled).fill(setup.provider.Settings)


@asynccontextmanager
async def provider(
    setup: Setup, vendor: str, *, timeout: float = 5.0, connect_timeout: float = 5.0, **more: str
) -> AsyncIterator[Any]:
    """A provider that calls a vendor at the given address."""
    http = Http(connect_timeout=connect_timeout)
    made = setup.provider(settings_of(setup, vendor, **more), http=http, timeout=timeout)
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


def usual(setup: Setup, **fields: Any) -> OutboundMessage:
    """A message as a provider usually gets it: what `provider.json` says of it is its own."""
    return message(**{**setup.data.get("message", {}), **fields})


def told(setup: Setup, request: Request) -> Mapping[str, Any]:
    """The fields of a sending request; one that holds JSON in base64 is read."""
    inside = setup.data.get("inside")
    if inside is None:
        return request.fields
    return {**request.fields, inside: json.loads(b64decode(request.fields[inside]))}


def text_of(setup: Setup, request: Request) -> Any:
    """The text of a message on the wire."""
    found: Any = told(setup, request)
    for name in setup.data["text_field"].split("."):
        found = found[int(name) if isinstance(found, list) else name]
    return found


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
            "email": _email(given.get("email")),
        }
    )


def _email(given: Mapping[str, Any] | None) -> OutboundEmail | None:
    """The parts of an email from a case."""
    if given is None:
        return None
    parts = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    files = tuple(OutboundMedia(**file) for file in given.get("attachments", ()))
    return OutboundEmail(**{**parts, "attachments": files})
