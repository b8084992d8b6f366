"""Plays AWS End User Messaging Social: what people say by WhatsApp, and what became of ours.

Only for `gateway simulate` and tests; whoever calls says what time it is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from datetime import datetime
from typing import Any

from gateway.domain import InboundMessage, MessageType, StatusUpdate
from webhooks._sns_whatsapp import ENTRY
from webhooks._sns_whatsapp_tables import FILES, STATUSES, WORDS

WABA, NUMBER = "100000000000001", "100000000000002"
ACCOUNT = "arn:aws:social-messaging:us-east-1:000000000000"
POOL = "phone-number-id-"
CHOICES = {"button": "button_reply", "list": "list_reply"}
KINDS = {type_: kind for kind, type_ in reversed(FILES.items())} | {MessageType.AUDIO: "audio"}


def said(message: InboundMessage, now: datetime) -> dict[str, Any]:
    """What AWS would publish of what a person said.

    Raises:
        ValueError: WhatsApp has no way to say that.
    """
    numbers = [a for a in (message.from_address, *message.aliases) if a.startswith("+")]
    users = [a for a in (message.from_address, *message.aliases) if not a.startswith("+")]
    sender = message.from_address if message.from_address in numbers else None
    contact = {
        "profile": {"name": message.name} if message.name else {},
        "wa_id": _digits(numbers[-1]) if numbers else None,
        "user_id": users[0] if users else None,
    }
    context: dict[str, Any] = {"id": message.reply_to} if message.reply_to else {}
    context |= {n: True for n in ("forwarded", "frequently_forwarded") if message.content.get(n)}
    entry = {
        "from": _digits(sender) if sender else None,
        "from_user_id": users[0] if users else None,
        "id": message.provider_message_id or f"wamid.{uuid.uuid4().hex}",
        "timestamp": str(int(now.timestamp())),
        **_kind(message),
        "context": context or None,
        "referral": message.content.get("referral"),
    }
    value = {"contacts": [_whole(contact)], "messages": [_whole(entry)]}
    return _published(value, message.to_address, message.pool, now)


def _kind(message: InboundMessage) -> dict[str, Any]:
    """The members that a type has of its own."""
    content, kind = message.content, message.type
    if message.media:
        return _file(message)
    if kind is MessageType.TEXT:
        return {"type": "text", "text": {"body": message.body}}
    if kind is MessageType.BUTTON:
        return {"type": "button", "button": {"payload": content.get("id"), "text": message.body}}
    if kind is MessageType.LOCATION:
        names = ("latitude", "longitude", "name", "address")
        return {"type": "location", "location": _whole({n: content.get(n) for n in names})}
    if kind is MessageType.REACTION:
        reaction = {"message_id": content.get("target"), "emoji": message.body}
        return {"type": "reaction", "reaction": reaction}
    sort = CHOICES.get(str(content.get("kind")))
    if kind is MessageType.INTERACTIVE and sort:
        answer = _whole({"id": content.get("id"), "title": content.get("title")})
        return {"type": "interactive", "interactive": {"type": sort, sort: answer}}
    raise ValueError(f"a message of the type {kind} cannot be simulated through AWS")


def _file(message: InboundMessage) -> dict[str, Any]:
    """A file, by the id at the end of its reference."""
    kind = KINDS.get(message.type)
    if kind is None or len(message.media) > 1:
        raise ValueError("a WhatsApp message with several files cannot be simulated: it holds one")
    (file,) = message.media
    facts = {
        "id": file.reference.rpartition("/")[2],
        "mime_type": file.content_type,
        "filename": file.filename,
        "caption": message.body or None,
    }
    return {"type": kind, kind: _whole(facts)}


def happened(status: StatusUpdate, now: datetime) -> dict[str, Any]:
    """What AWS would publish of what became of a message of ours.

    Raises:
        ValueError: Meta has no such status.
    """
    word = WORDS.get(status.status)
    if word is None:
        raise ValueError(
            f"{status.status.value} cannot be simulated: Meta reports no such status of WhatsApp, "
            f"only {', '.join(STATUSES)}"
        )
    recipient = status.recipient or ""
    number = recipient.startswith("+")
    error = status.error
    told = {
        "id": status.network_id or _network_id(status.provider_message_id),
        "status": word,
        "timestamp": str(int(now.timestamp())),
        "recipient_id": _digits(recipient) if number else None,
        "recipient_user_id": recipient if recipient and not number else None,
        "biz_opaque_callback_data": status.attempt_id,
        "errors": [_whole({"code": _code(error.code), "title": error.message})] if error else None,
    }
    published = _published({"statuses": [_whole(told)]}, status.sender, None, now)
    return {**published, "messageId": status.provider_message_id}


def _network_id(send_id: str | None) -> str:
    """Meta's id of a message, always the same for what AWS answered when it was sent."""
    made = hashlib.sha256((send_id or uuid.uuid4().hex).encode()).digest()
    return f"wamid.{base64.b64encode(made[:24]).decode()}"


def _code(code: str) -> int:
    if not code.isdecimal():
        raise ValueError(f"{code} cannot be simulated: Meta's error codes are numbers")
    return int(code)


def _published(
    value: dict[str, Any], ours: str | None, pool: str | None, now: datetime
) -> dict[str, Any]:
    metadata = {"display_phone_number": _digits(ours or ""), "phone_number_id": NUMBER}
    change = {
        "value": {"messaging_product": "whatsapp", "metadata": metadata, **value},
        "field": "messages",
    }
    hexadecimal = (pool or "").removeprefix(POOL) or "0" * 32
    number = {
        "metaPhoneNumberId": NUMBER,
        "arn": f"{ACCOUNT}:phone-number-id/{hexadecimal}",
    }
    return {
        "context": {
            "MetaWabaIds": [{"wabaId": WABA, "arn": f"{ACCOUNT}:waba/{'0' * 32}"}],
            "MetaPhoneNumberIds": [number],
        },
        ENTRY: json.dumps({"id": WABA, "changes": [change]}, ensure_ascii=False),
        "aws_account_id": "000000000000",
        "message_timestamp": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}000Z",
    }


def _digits(number: str) -> str:
    return number.removeprefix("+")


def _whole(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
