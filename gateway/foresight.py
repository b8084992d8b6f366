"""What no vendor of a chain would take, known before anything is sent: as its adapter refuses by
itself, or by the templates that it listed. Asks nobody, and lets pass what is not certain.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway import routing
from gateway.domain import (
    Channel,
    Foresees,
    MessageType,
    OutboundEmail,
    OutboundMedia,
    OutboundMessage,
    Provider,
    Sender,
    VendorTemplate,
)
from gateway.drafts import Draft, subject_of
from gateway.errors import ProviderError, Unreachable, Unsupported
from gateway.outgoing import said
from gateway.own_files import own_id
from gateway.routing import Route
from gateway.templates import Templates

log = logging.getLogger("gateway.outbound")

Row = Mapping[str, Any]

# As long as the ids of an attempt and of a message: none is made yet.
AT_THE_DOOR, UNNAMED = "att_0000000000000000000000", "msg_0000000000000000000000"
SHORT = 400  # characters: at most 1,600 bytes, and the tightest limit that a vendor has
MOST = 3  # providers of a chain whose reasons are told


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nobody would take a message, and in which field of it; `listed`: by what vendors said of
    their templates, which may have changed meanwhile."""

    field: str
    text: str
    listed: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """Who may have a message, best first; `taker` is the first who is not known to refuse it."""

    routes: tuple[Route, ...]
    taker: str


class Foresight:
    """Asks the adapters what they know of their vendors."""

    def __init__(self, providers: Mapping[str, Provider], templates: Templates) -> None:
        self._seers = {n: one for n, one in providers.items() if isinstance(one, Foresees)}
        self._templates = templates

    def fit(self, routes: Sequence[Route], message: OutboundMessage) -> Fit | Refusal:
        """Who may have a message, without those before the first taker who are certain to refuse
        it; or why none of them would take it."""
        found: list[tuple[Unsupported, bool]] = []
        kept: list[Route] = []
        for place, route in enumerate(routes):
            asked = message if not place else _as_sent_by(route, message, routes)
            error = self._refused(route.name, asked)
            if error is None:
                return Fit((*kept, *routes[place:]), route.name)
            found.append(error)
            if error[1]:  # a list may be old, and the worker has it asked for anew
                kept.append(route)
        texts = dict.fromkeys(error.text for error, _ in found)
        return Refusal(
            found[0][0].field,
            "; ".join([*texts][:MOST]),
            any(listed for _, listed in found),
        )

    def refused(self, name: str, row: Row, sender: Sender) -> Refusal | None:
        """Why one provider would not take a stored message; None: it may."""
        if name not in self._seers:
            return None
        error = self._refused(name, _stored(row, sender))
        return None if error is None else Refusal(error[0].field, error[0].text, error[1])

    async def renewed(self, channel: Channel, template: Mapping[str, Any] | None) -> None:
        """Has vendors tell of a message's template again, unless they just did."""
        await self._templates.anew(channel, str((template or {}).get("name", "")))

    def _refused(self, name: str, message: OutboundMessage) -> tuple[Unsupported, bool] | None:
        seer = self._seers.get(name)
        if seer is None:
            return None
        error = _error(seer, message, ())
        if error is not None or message.template is None:
            return None if error is None else (error, False)
        error = _error(seer, message, self._templates.known(name))
        return None if error is None else (error, True)


def plain(draft: Draft) -> bool:
    """Whether it is a short text and nothing else, as most messages are: any vendor takes that, and
    to ask would cost half as much again as all else that is looked at."""
    if len(draft.body) > SHORT or draft.channel is Channel.EMAIL:
        return False
    more = draft.type or draft.content or draft.media or draft.template or draft.html
    return not more and draft.reply_to is None


def plain_row(row: Row) -> bool:
    """The same of a stored message."""
    if len(row["body"]) > SHORT or row["channel"] == Channel.EMAIL:
        return False
    more = row["content"] or row["media"] or row["extra"] or row["reply_to"]
    return not more and row["type"] == MessageType.TEXT


def _error(
    seer: Foresees, message: OutboundMessage, listed: Sequence[VendorTemplate]
) -> Unsupported | None:
    """What is certain: a refusal that names no field is about something else than the message."""
    try:
        seer.foresee(message, listed)
    except Unsupported as error:
        return error if error.field else None
    except ProviderError:
        return None
    except Exception:
        log.exception("an adapter failed at what it may not")  # the door stays open
    return None


def _as_sent_by(route: Route, message: OutboundMessage, routes: Sequence[Route]) -> OutboundMessage:
    sender = routing.sender_at(route, message.channel, message.sender.address, routes)
    return replace(message, sender=sender)


def foreseen(
    draft: Draft,
    kind: MessageType,
    to: str,
    email: Mapping[str, Any],
    sender: Sender,
) -> OutboundMessage:
    """A message as a provider would be given it, as far as that is known when it is accepted."""
    return OutboundMessage(
        message_id=UNNAMED,
        attempt_id=AT_THE_DOOR,
        channel=draft.channel,
        to=to,
        sender=sender,
        type=kind,
        body=draft.body,
        content=draft.content,
        media=tuple(_media(file) for file in draft.media),
        reply_to=draft.reply_to,
        template=draft.template,
        subject=subject_of(draft),
        html=draft.html,
        email=_email(email) if email else None,
    )


def _stored(row: Row, sender: Sender) -> OutboundMessage:
    """The same of a stored message."""
    extra: dict[str, Any] = json.loads(row["extra"]) if row["extra"] else {}
    files = json.loads(row["media"]) if row["media"] else ()
    email = extra.get("email")
    return OutboundMessage(
        **said(row, extra),
        message_id=row["id"],
        attempt_id=AT_THE_DOOR,
        sender=sender,
        media=tuple(_media(file) for file in files),
        email=_email(email) if email else None,
    )


def _email(parts: Mapping[str, Any]) -> OutboundEmail:
    return OutboundEmail(
        cc=tuple(parts.get("cc", ())),
        bcc=tuple(parts.get("bcc", ())),
        reply_to=parts.get("reply_to"),
        attachments=tuple(_media(file) for file in parts.get("attachments", ())),
    )


def _media(file: Mapping[str, Any]) -> OutboundMedia:
    url = str(file["url"])
    return OutboundMedia(
        url=url,
        content_type=file.get("content_type"),
        filename=file.get("filename"),
        read=_later if own_id(url) else None,
    )


async def _later(most: int) -> bytes:
    """The bytes of a file of ours, which nobody reads before it is sent."""
    raise Unreachable(f"not one of {most} bytes is read before the sending", code="media")
