"""What somebody asks to have sent, as it was written, and what follows from that alone."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gateway import emails, routing, segments
from gateway.domain import Channel, MessageType, OnUnknown, Priority

MEDIA_TYPES = {"image": MessageType.IMAGE, "audio": MessageType.AUDIO, "video": MessageType.VIDEO}
PURPOSE = 100  # characters


@dataclass(frozen=True, kw_only=True, slots=True)
class Thread:
    """A conversation that a message answers."""

    id: str
    channel: Channel
    address: str
    our_key: str
    our_address: str | None
    answered: emails.Answered | None = None  # the email that is answered, where it is one


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """What somebody asks to have sent, as it was written."""

    channel: Channel
    to: str
    body: str = ""
    sender: str | None = None
    type: MessageType | None = None
    content: Mapping[str, Any] = field(default_factory=dict)
    media: tuple[Mapping[str, Any], ...] = ()
    reply_to: str | None = None
    template: Mapping[str, Any] | None = None
    subject: str | None = None
    html: str | None = None
    email: Mapping[str, Any] | None = None
    priority: Priority = Priority.NORMAL
    send_at: datetime | None = None
    expires_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    on_unknown: OnUnknown = OnUnknown.HOLD
    thread: Thread | None = None
    outside_window: bool = False  # tries also where the person's window is closed


def type_of(draft: Draft) -> MessageType:
    """What it is."""
    if draft.type is not None:
        return draft.type
    if draft.channel is Channel.EMAIL:
        return MessageType.EMAIL
    if draft.template is not None:
        return MessageType.TEMPLATE
    if draft.media:
        kind = str(draft.media[0].get("content_type") or "").partition("/")[0]
        return MEDIA_TYPES.get(kind, MessageType.DOCUMENT if kind else _by_name(draft))
    return MessageType.TEXT


def _by_name(draft: Draft) -> MessageType:
    guess = mimetypes.guess_type(str(draft.media[0].get("url", "")).partition("?")[0])[0] or ""
    return MEDIA_TYPES.get(guess.partition("/")[0], MessageType.DOCUMENT)


def quotes(draft: Draft) -> bool:
    """Whether it names what it answers, as chats do."""
    return draft.reply_to is not None and draft.channel in routing.CHATS


def segments_of(draft: Draft) -> int | None:
    """How many segments an SMS is."""
    if draft.channel is not Channel.SMS or draft.media:
        return None
    return segments.count(draft.body).segments


def subject_of(draft: Draft) -> str | None:
    """Its subject: that of what it answers, where it has none."""
    answered = draft.thread.answered if draft.thread is not None else None
    if draft.subject or answered is None or not answered.subject:
        return draft.subject
    return emails.answering(answered.subject)


def files_of(draft: Draft) -> list[tuple[str, Mapping[str, Any]]]:
    """Every file, with the field that it stands in."""
    attached = draft.email.get("attachments") if draft.email else None
    if not attached and not draft.media:
        return []
    return [
        *((f"media.{number}", file) for number, file in enumerate(draft.media)),
        *((f"email.attachments.{number}", file) for number, file in enumerate(attached or ())),
    ]


def extra_of(draft: Draft, email: Mapping[str, Any]) -> dict[str, Any]:
    """What only some messages have."""
    if draft.html is None and not email and draft.template is None:
        return {}
    parts = {"html": draft.html, "email": email or None, "template": draft.template}
    return {name: value for name, value in parts.items() if value is not None}


def purpose_of(metadata: Mapping[str, Any]) -> str | None:
    """What a message is sent for, by which the log of messages is searched."""
    said = metadata.get("purpose")
    return said if isinstance(said, str) and 1 <= len(said) <= PURPOSE else None
