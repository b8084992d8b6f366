"""Plays a vendor: dresses an event as the vendor would send it, signs it with the vendor's
secret as this gateway has it, and posts it to the gateway."""

from __future__ import annotations

import asyncio
import mimetypes
import secrets
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from gateway import catalog
from gateway.adapters import Adapters, adapters
from gateway.commands.client import Client
from gateway.commands.emulator import Stand, served
from gateway.commands.terminal import Failure
from gateway.commands.webhooks import route
from gateway.domain import (
    Channel,
    Event,
    InboundMessage,
    Mail,
    MediaReference,
    MessageType,
    Sender,
    Simulated,
    StatusUpdate,
    Webhook,
    WebhookRequest,
)
from gateway.errors import WebhookError
from gateway.kinds import UNKNOWN, sniff
from gateway.simulation import SimulatedMedia
from providers._http import Http

SHARED_ROUTES = (Channel.SMS, Channel.WHATSAPP)
KNOWN_AS = "provider_message_id"
LOOKS = 50  # at what becomes of an email, a fifth of a second apart
KINDS = {"image": MessageType.IMAGE, "audio": MessageType.AUDIO, "video": MessageType.VIDEO}


@dataclass(frozen=True, kw_only=True, slots=True)
class Posted:
    """What the gateway answered, and the vendor's id of what was posted."""

    status: int
    url: str
    provider_message_id: str | None
    later: bool = False  # it is read after the answer


class Vendor:
    """One vendor, as far as its webhooks go: by its name, its family's, or a provider's."""

    def __init__(self, api: Client, name: str) -> None:
        self._api = api
        self._made = adapters(api.env, Http())
        self._webhook = found(self._made, name)
        self.name = self._webhook.name
        self._family = next(e.family for e in catalog.CATALOG if e.name == self.name)

    def ours(self, channel: Channel, to: str | None = None) -> Sender:
        """Our side of a channel: the vendor's connection's, or else that of the first provider; or
        a number of ours that is named."""
        if to is not None:
            routes = [route.connection for route in self._made.routes.values()]
            named = (one.further.get(channel, {}).get(to) for one in routes)
            return Sender(address=to, pool=next(filter(None, named), self.ours(channel).pool))
        connection = self._made.connections.get(self._family)
        routes = [route.connection for route in self._made.chains.get(channel, ())]
        for one in ([connection] if connection else []) + routes:
            if channel in one.senders:
                return one.senders[channel]
        return Sender()

    def files(self, paths: Sequence[Path]) -> tuple[MediaReference, ...]:
        """Puts files where the gateway will fetch them as if from the vendor."""
        settings = self._api.env.settings
        if paths and (not settings.development or self._family in self._made.fetchers):
            raise typer.BadParameter(
                "files can be simulated in development only, and only for a vendor without "
                "credentials: otherwise the gateway would ask the vendor for them"
            )
        store = SimulatedMedia(settings.data_dir)
        return tuple(_file(store, path) for path in paths)

    def message(self, message: InboundMessage) -> Posted:
        """Posts what a person said; an email with a Message-ID, by which it is known afterwards
        where its vendor has no id of its own."""
        if message.channel is Channel.EMAIL and "message_id" not in message.email:
            named = f"<{uuid.uuid4()}@simulated.invalid>"
            message = replace(message, email={**message.email, "message_id": named})
        shared = message.channel in SHARED_ROUTES
        path = route(message.channel.value if shared else self.name)
        return self._post(Simulated(url=self._api.origin + path, message=message))

    def status(self, status: StatusUpdate) -> Posted:
        """Posts what became of an attempt, to the URL that the worker gave for it."""
        path = f"{route(self.name)}?attempt={status.attempt_id}"
        return self._post(Simulated(url=self._api.origin + path, status=status))

    def _post(self, simulated: Simulated) -> Posted:
        try:
            request = self._webhook.sign(simulated)
            events = self._events(request)  # before posting: the inbox keeps for good
        except ValueError as error:
            raise Failure(str(error)) from None
        except WebhookError as error:
            raise Failure(
                f"{self.name} cannot say that, so nothing was posted: {error.detail}"
            ) from None
        path = request.url.removeprefix(self._api.origin)
        with self._certificate() as stand:
            answer = self._api.post_unsigned(path, request.body, dict(request.headers))
        if answer.status_code >= 400:
            why = f"{stand.reason}. " if stand.reason and answer.status_code == 503 else ""
            raise Failure(
                f"the gateway refused it ({answer.status_code}); its log says why. {why}"
                f"The signature was made for {request.url}"
            )
        return Posted(
            status=answer.status_code,
            url=request.url,
            provider_message_id=_identity(events) or _written(simulated),
            later=any(isinstance(event, Mail) for event in events),
        )

    @contextmanager
    def _certificate(self) -> Iterator[Stand]:
        """Serves the certificate of what is posted, for a vendor that signs with one."""
        url = getattr(self._webhook, "certificate_url", "")
        if not url:
            yield Stand()
            return
        with served(url, getattr(self._webhook, "certificate", "")) as stand:
            yield stand

    def _events(self, request: WebhookRequest) -> Sequence[Event]:
        return self._webhook.parse(asyncio.run(self._webhook.verify(request)))


def found(made: Adapters, name: str) -> Webhook:
    """The webhook that is set up for a name: its own, or one of its family.

    Raises:
        BadParameter: there is none; the text names what is missing.
    """
    own = list(catalog.entries(name))
    kin = [e for e in catalog.CATALOG if e.family in {entry.family for entry in own}]
    for entry in (*own, *kin):
        if entry.name in made.webhooks:
            return made.webhooks[entry.name]
    lacking = next((made.missing[e.name] for e in (*own, *kin) if e.name in made.missing), None)
    known = ", ".join(sorted(made.webhooks))
    raise typer.BadParameter(
        f"{lacking} is not set, so nothing can be signed as {name} signs"
        if lacking
        else f"there is no webhook of {name!r}; known are {known}"
    )


def _identity(events: Sequence[Event]) -> str | None:
    ids = (
        event.order.get("id") if isinstance(event, Mail) else getattr(event, KNOWN_AS, None)
        for event in events
    )
    return next((id_ for id_ in ids if id_), None)


def _written(simulated: Simulated) -> str | None:
    message = simulated.message
    return str(message.email["message_id"]) if message and "message_id" in message.email else None


def _file(store: SimulatedMedia, path: Path) -> MediaReference:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}") from None
    account, message, name = (kind + secrets.token_hex(16) for kind in ("AC", "MM", "ME"))
    store.store(name, data)
    kind = sniff(data)
    if kind == UNKNOWN:
        kind = mimetypes.guess_type(path.name)[0] or UNKNOWN
    return MediaReference(
        reference=f"{account}/{message}/{name}", content_type=kind, filename=path.name
    )


def typed(message: InboundMessage) -> InboundMessage:
    """A message with the type that its content has."""
    if message.content.get("kind") == "button":
        return replace(message, type=MessageType.BUTTON)
    if message.media:
        family = (message.media[0].content_type or "").partition("/")[0]
        return replace(message, type=KINDS.get(family, MessageType.DOCUMENT))
    return message


def stored(api: Client, posted: Posted) -> Any:
    """The message that was made of what was posted, where the API shows it: an email soon."""
    if posted.provider_message_id is None or api.key is None:
        return None
    for _ in range(LOOKS if posted.later else 1):
        page = api.get(
            "/api/messages", provider_message_id=posted.provider_message_id, direction="inbound"
        )
        if page["items"]:
            return page["items"][0]
        time.sleep(0.2 if posted.later else 0)
    return None
