"""A stored message as its provider is to send it, and what it needs of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway.addresses import is_user_id
from gateway.domain import (
    Channel,
    Clock,
    MessageType,
    OutboundEmail,
    OutboundMedia,
    OutboundMessage,
    Sender,
)
from gateway.own_files import OwnFiles
from gateway.routing import CHATS, Needs, Pick
from gateway.store.deliveries import Attempt

Row = Mapping[str, Any]


def outgoing(attempt: Attempt, sender: Sender, origin: str, clock: Clock) -> OutboundMessage:
    """A leased message as the provider of an attempt is to send it."""
    row = attempt.due.message
    extra: dict[str, Any] = json.loads(row["extra"]) if row["extra"] else {}
    media = json.loads(row["media"]) if row["media"] else ()
    left = (row["expires_at"] - int(clock.now().timestamp() * 1000)) // 1000
    return OutboundMessage(
        **said(row, extra),
        message_id=attempt.due.message_id,
        attempt_id=attempt.id,
        sender=sender,
        media=tuple(_media(file) for file in media),
        email=_email(attempt, sender, extra, clock),
        callback_url=f"{origin}/api/webhooks/{attempt.provider}?attempt={attempt.id}",
        validity=max(1, int(left)),
    )


def said(row: Row, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What a stored message says, as every provider is told: without its files, and what only an
    email has. `extra` is its column of that name, read."""
    return {
        "channel": Channel(row["channel"]),
        "to": row["to_address"],
        "type": MessageType(row["type"]),
        "body": row["body"],
        "content": json.loads(row["content"]) if row["content"] else {},
        "reply_to": row["reply_to"],
        "template": extra.get("template"),
        "subject": row["subject"],
        "html": extra.get("html"),
    }


def _email(
    attempt: Attempt, sender: Sender, extra: Mapping[str, Any], clock: Clock
) -> OutboundEmail | None:
    """The parts of an email; its Message-ID names the attempt, and nobody could guess it."""
    if attempt.due.message["channel"] != Channel.EMAIL:
        return None
    parts = extra.get("email", {})
    domain = (sender.address or "").rpartition("@")[2]
    return OutboundEmail(
        cc=tuple(parts.get("cc", ())),
        bcc=tuple(parts.get("bcc", ())),
        reply_to=parts.get("reply_to"),
        headers=_headers(parts),
        attachments=tuple(_media(file) for file in parts.get("attachments", ())),
        from_name=parts.get("from_name"),
        tags=tuple(parts.get("tags", ())),
        message_id=f"<{attempt.id}@{domain}>" if domain else None,
        in_reply_to=parts.get("in_reply_to"),
        references=tuple(parts.get("references", ())),
        date=clock.now(),
    )


def _headers(parts: Mapping[str, Any]) -> Mapping[str, str]:
    given: Mapping[str, str] = parts.get("headers", {})
    return given


def _media(file: dict[str, Any]) -> OutboundMedia:
    return OutboundMedia(
        url=str(file["url"]),
        content_type=file.get("content_type"),
        filename=file.get("filename"),
    )


async def with_files(message: OutboundMessage, own: OwnFiles, tenant_id: str) -> OutboundMessage:
    """The same message; its files that are ours as links that its provider can follow.

    Raises:
        ProviderError: there are none at the moment, and nothing was sent.
    """
    lasts = message.validity or 0
    email = message.email
    if email is not None and email.attachments:
        attached = await own.outbound(tenant_id, email.attachments, lasts)
        message = replace(message, email=replace(email, attachments=attached))
    if not message.media:
        return message
    return replace(message, media=await own.outbound(tenant_id, message.media, lasts))


def has_unsubscribe(row: Row) -> bool:
    """Whether a stored message is an email that people unsubscribe from with one click."""
    if row["channel"] != Channel.EMAIL or not row["extra"]:
        return False
    return bool(json.loads(row["extra"]).get("email", {}).get("unsubscribe"))


def needs_of(row: Row) -> Needs:
    """What a stored message asks of a provider, but for where its files are."""
    extra = json.loads(row["extra"]) if row["extra"] else {}
    channel = Channel(row["channel"])
    return Needs(
        channel=channel,
        type=MessageType(row["type"]),
        media=_files(row, extra),
        html="html" in extra,
        template="template" in extra,
        reply=row["reply_to"] is not None and channel in CHATS,
        user_id=is_user_id(channel, row["to_address"]),
    )


def carries(row: Row) -> bool:
    """Whether a stored message is an email with files, which whoever sends it reads."""
    return row["channel"] == Channel.EMAIL and bool(file_urls(row))


def file_urls(row: Row) -> list[str]:
    """Where the files of a stored email are."""
    extra = json.loads(row["extra"]) if row["extra"] else {}
    media = json.loads(row["media"]) if row["media"] else ()
    return [str(file["url"]) for file in (*media, *extra.get("email", {}).get("attachments", ()))]


def _files(row: Row, extra: Mapping[str, Any]) -> int:
    media = json.loads(row["media"]) if row["media"] else ()
    return len(media) + len(extra.get("email", {}).get("attachments", ()))


def explained(pick: Pick) -> str | None:
    """Why this provider and not those before it, as it is stored with the attempt; None for the
    first of a chain."""
    if pick.why is None and not pick.passed_over:
        return None
    over = [{"provider": name, "reason": reason} for name, reason in pick.passed_over]
    return json.dumps({"why": pick.why, "passed_over": over}, separators=(",", ":"))
