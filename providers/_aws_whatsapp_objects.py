"""A message as WhatsApp's own object ("Messages", WhatsApp Cloud API), which AWS passes on to Meta
as it is. Pure: what WhatsApp does not take is refused here, before anything is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from gateway.domain import MessageType, OutboundMessage
from providers._aws_media import told
from providers._aws_whatsapp_interactive import interactive
from providers._aws_whatsapp_limits import members, optional, refused, text_of
from providers._aws_whatsapp_template import template

PRODUCT = {"messaging_product": "whatsapp"}
TEXT, CAPTION, FILENAME, NAME, PLACE, EMOJI, CONTACTS = 4096, 1024, 240, 256, 1000, 40, 257
REFERENCE = 512
LARGEST = 2_048_000  # bytes of a message ("SendWhatsAppMessage", message)

FILES = frozenset(
    {
        MessageType.IMAGE,
        MessageType.AUDIO,
        MessageType.VIDEO,
        MessageType.DOCUMENT,
        MessageType.STICKER,
    }
)
CAPTIONED = frozenset({MessageType.IMAGE, MessageType.VIDEO, MessageType.DOCUMENT})
HEADED = frozenset({MessageType.TEMPLATE, MessageType.INTERACTIVE})  # a file may stand above them

Made = Mapping[str, Any]


def kind_of(message: OutboundMessage) -> MessageType:
    """What is said: whoever names a template means it."""
    return MessageType.TEMPLATE if message.template is not None else message.type


def file_kind(message: OutboundMessage) -> MessageType:
    """What a message's file is to WhatsApp."""
    kind = kind_of(message)
    if kind in FILES:
        return kind
    start = told(message.media[0]).partition("/")[0]
    return {"image": MessageType.IMAGE, "video": MessageType.VIDEO}.get(start, MessageType.DOCUMENT)


def written(message: OutboundMessage, file: str | None = None) -> bytes:
    """The object of a message; `file` is the id that its file has at WhatsApp.

    Raises:
        Unsupported: WhatsApp does not take it; the text says why.
    """
    kind = kind_of(message)
    maker = MAKERS.get(kind)
    if maker is None:
        raise refused(f"no {kind} messages", "type", field="type")
    made = {
        **PRODUCT,
        "recipient_type": "individual",
        # People who show no number have an id of Meta's.
        ("to" if message.to.startswith("+") else "recipient"): message.to,
        **_context(message, kind),
        "type": kind.value,
        kind.value: maker(message, file),
        # The statuses of the message bring it back, also if our answer is lost.
        "biz_opaque_callback_data": message.attempt_id,
    }
    return encoded(made)


def seen(provider_message_id: str, *, typing: bool) -> bytes:
    """ "Mark messages as read", "Typing indicators": of a message that a person sent."""
    made = {**PRODUCT, "message_id": provider_message_id, "status": "read"}
    return encoded({**made, "typing_indicator": {"type": "text"}} if typing else made)


def encoded(made: Made) -> bytes:
    """An object as bytes."""
    try:
        data = json.dumps(made, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # half a surrogate pair is one, too
        data = b""
    if not data:
        raise refused("a character or number that no wire carries", "text", field="body")
    if len(data) > LARGEST:
        raise refused(f"a message may have {LARGEST} bytes", "too_long")
    return data


def _context(message: OutboundMessage, kind: MessageType) -> dict[str, Any]:
    if message.reply_to is None:
        return {}
    if kind is MessageType.REACTION:
        text = "a reaction names its message in content.target, not in reply_to"
        raise refused(text, "reply_to", field="reply_to")
    said_as = text_of(message.reply_to, "reply_to", REFERENCE, "reply_to")
    return {"context": {"message_id": said_as}}


def _text(message: OutboundMessage, file: str | None) -> Made:
    body = text_of(message.body, "the body", TEXT, "body")
    return {"preview_url": message.content.get("preview_url") is True, "body": body}


def _file(message: OutboundMessage, file: str | None) -> Made:
    if file is None:
        raise refused(f"a file is needed for the type {message.type}", "media", field="media")
    made = {"id": file}
    if message.type in CAPTIONED:
        if caption := optional(message.body, "a caption", CAPTION, "body"):
            made["caption"] = caption
        if message.type is MessageType.DOCUMENT:
            made["filename"] = filename(message)
    elif message.body:
        text = f"{message.type} messages have no caption: send the text by itself"
        raise refused(text, "body", field="body")
    return made


def filename(message: OutboundMessage) -> str:
    """What a document is called, by whoever sends it or by its address."""
    named = message.media[0].filename or PurePosixPath(unquote(_path(message))).name
    plain = "".join(c for c in named if c.isprintable() and c not in '/\\"')
    return plain[-FILENAME:] or "document"


def _path(message: OutboundMessage) -> str:
    return urlsplit(message.media[0].url).path


def _above(message: OutboundMessage, file: str | None) -> Made | None:
    """A file above a template or buttons."""
    if file is None:
        return None
    kind = file_kind(message).value
    named = {"filename": filename(message)} if kind == "document" else {}
    return {"type": kind, kind: {"id": file, **named}}


def _location(message: OutboundMessage, file: str | None) -> Made:
    content = message.content
    made: dict[str, Any] = {
        "latitude": degrees(content.get("latitude"), "latitude", 90),
        "longitude": degrees(content.get("longitude"), "longitude", 180),
    }
    named, field = content.get("name"), "content.name"
    name = optional(named or message.body, field, PLACE, field if named else "body")
    address = optional(content.get("address"), "content.address", PLACE, "content.address")
    return {**made, **({"name": name} if name else {}), **({"address": address} if address else {})}


def degrees(value: object, what: str, most: int) -> float:
    """A part of a place on the earth."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= most
    if not fits:
        text = f"content.{what} must be a number from -{most} to {most}"
        raise refused(text, field=f"content.{what}")
    return value  # type: ignore[return-value]


def _contacts(message: OutboundMessage, file: str | None) -> list[Made]:
    given = members(message.content.get("contacts"), "content.contacts", CONTACTS)
    return [_contact(each, f"content.contacts.{number}") for number, each in enumerate(given)]


def _contact(contact: Made, at: str) -> Made:
    """ "Contacts Messages": beside the formatted name a part of it is needed."""
    given = contact.get("name")
    if isinstance(given, str):
        given = {"formatted_name": given}
    if not isinstance(given, Mapping):
        raise refused(
            "a contact's name is needed: {formatted_name, first_name, …}", field=f"{at}.name"
        )
    told, field = given.get("formatted_name"), f"{at}.name.formatted_name"
    whole = text_of(told, "a contact's formatted_name", NAME, field)
    parts = given.keys() - {"formatted_name"}
    return {**contact, "name": dict(given) if parts else {**given, "first_name": whole}}


def _reaction(message: OutboundMessage, file: str | None) -> Made:
    content = message.content
    target = text_of(content.get("target"), "content.target", REFERENCE, "content.target")
    emoji = "" if content.get("removed") is True else content.get("emoji")
    if not isinstance(emoji, str) or len(emoji) > EMOJI:
        text = "content.emoji must be an emoji, or empty to take one away"
        raise refused(text, field="content.emoji")
    return {"message_id": target, "emoji": emoji}


def _template(message: OutboundMessage, file: str | None) -> Made:
    if message.template is None:
        text = "a template is needed for the type template"
        raise refused(text, "template", field="template")
    return template(message.template, _above(message, file))


def _interactive(message: OutboundMessage, file: str | None) -> Made:
    return interactive(message, _above(message, file))


MAKERS: Mapping[MessageType, Callable[[OutboundMessage, str | None], Any]] = {
    MessageType.TEXT: _text,
    **dict.fromkeys(FILES, _file),
    MessageType.LOCATION: _location,
    MessageType.CONTACTS: _contacts,
    MessageType.INTERACTIVE: _interactive,
    MessageType.REACTION: _reaction,
    MessageType.TEMPLATE: _template,
}
