"""A message as the parameters of Twilio's "Messages resource", and what Twilio cannot do, which is
refused before anything is written. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from gateway.domain import Capabilities, Channel, MessageType, OutboundMessage
from gateway.errors import Unsupported

# "Messages resource": Body, MediaUrl, ValidityPeriod, PersistentAction
BODY_LIMIT = 1600
MEDIA_LIMIT = {Channel.SMS: 10, Channel.WHATSAPP: 1}
VALIDITY = (1, 36000)
STICKER = "image/webp"  # "WhatsApp media messages": what shows as a sticker
# "Content API": a template is of one language, and may be of any kind, with buttons or a list.
CONTENT = re.compile(r"HX[0-9a-fA-F]{32}")
VARIABLES = 100
VARIABLE_LIMIT = 1600
# The field that a refusal is about, by its code.
AT = {name: name for name in ("type", "html", "media", "reply_to", "template")}
AT |= {"21617": "body", "empty": "body"}

CAPABILITIES = Capabilities(
    channels=frozenset(MEDIA_LIMIT),
    media=frozenset(MEDIA_LIMIT),
    max_media=max(MEDIA_LIMIT.values()),
    templates=True,
    types=frozenset(
        {
            MessageType.TEXT,
            MessageType.IMAGE,
            MessageType.AUDIO,
            MessageType.VIDEO,
            MessageType.DOCUMENT,
            MessageType.TEMPLATE,
        }
    ),
    types_on={Channel.WHATSAPP: frozenset({MessageType.STICKER, MessageType.LOCATION})},
    reports_delivery=True,
    can_look_up=True,
    fetches_media=True,
    user_ids=True,
    shows_typing=True,
    lists_templates=True,
)


def check(message: OutboundMessage) -> None:
    """Refuses what Twilio cannot do.

    Raises:
        Unsupported: the text says what.
    """
    most, known = MEDIA_LIMIT.get(message.channel), CAPABILITIES.types
    known = known | CAPABILITIES.types_on.get(message.channel, frozenset())
    said = message.body or message.media or message.template
    quotes = message.reply_to is not None and message.channel is Channel.WHATSAPP
    refusals = (
        (most is None, "channel", f"no {message.channel}"),
        (message.type not in known, "type", _no_type(message)),
        (bool(message.html), "html", "no HTML"),
        (len(message.media) > (most or 0), "media", f"at most {most} files"),
        (len(message.body) > BODY_LIMIT, "21617", f"at most {BODY_LIMIT} characters"),
        (not said and message.type is not MessageType.LOCATION, "empty", "nothing to send"),
        (not message.sender.key, "sender", "no sender is configured for this channel"),
        (quotes, "reply_to", "no answers that quote a message"),
        (not _is_sticker(message), "media", f"a sticker is a file of the type {STICKER}"),
    )
    for refused, code, text in refusals:
        if refused:
            raise _refused(text, code)
    if message.template is None and message.type is MessageType.TEMPLATE:
        raise _refused("a template is needed for the type template", "template")


def _refused(text: str, code: str, field: str | None = None) -> Unsupported:
    return Unsupported(
        f"Twilio: {text}", code=code, field=AT.get(code, "") if field is None else field
    )


def _no_type(message: OutboundMessage) -> str:
    if message.type is MessageType.INTERACTIVE:
        return "buttons and lists are sent by a content template that has them"
    return f"no {message.type} messages on {message.channel}"


def _is_sticker(message: OutboundMessage) -> bool:
    kinds = {file.content_type or STICKER for file in message.media}
    return message.type is not MessageType.STICKER or kinds == {STICKER}


def fields(message: OutboundMessage, callback: str | None) -> dict[str, Any]:
    """The parameters of a message that was checked, by the SDK's names."""
    prefix = "whatsapp:" if message.channel is Channel.WHATSAPP else ""
    sender = message.sender
    made = {
        "to": prefix + message.to.removeprefix(prefix),
        "messaging_service_sid": sender.pool or None,
        "from_": prefix + sender.address.removeprefix(prefix) if sender.address else None,
        **said(message),
        "status_callback": callback,
        "validity_period": _validity(message.validity),
    }
    return {name: value for name, value in made.items() if value is not None}


def said(message: OutboundMessage) -> dict[str, Any]:
    """What a message that was checked says."""
    if message.template is not None:
        return _content(message, message.template)
    if message.type is MessageType.LOCATION:
        return _location(message)
    return {
        "body": message.body or None,
        "media_url": [file.url for file in message.media] or None,
    }


def _content(message: OutboundMessage, template: Mapping[str, Any]) -> dict[str, Any]:
    """A content template: its words and files are Twilio's, and the body is for our own reading."""
    sid = str(template.get("name") or "")
    if not CONTENT.fullmatch(sid):
        raise _refused(
            "a template's name is its ContentSid, HX and 32 characters", "template", "template.name"
        )
    if message.media:
        raise _refused("the file of a content template is one of its variables", "media")
    variables = _variables(template.get("variables"))
    written = json.dumps(variables, ensure_ascii=False) if variables else None
    return {"content_sid": sid, "content_variables": written}


def _variables(given: object) -> dict[str, str]:
    """Twilio wants text for each, by number or name."""
    if isinstance(given, list):
        given = {str(number): value for number, value in enumerate(given, 1)}
    if given is None:
        return {}
    if not isinstance(given, Mapping) or len(given) > VARIABLES:
        text = f"template.variables has at most {VARIABLES} members"
        raise _refused(text, "template", "template.variables")
    return {str(name): _text(value, str(name)) for name, value in given.items()}


def _text(value: object, name: str) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number or isinstance(value, str)) or len(str(value)) > VARIABLE_LIMIT:
        text = f"a variable of a template is text of at most {VARIABLE_LIMIT} characters"
        raise _refused(text, "template", f"template.variables.{name[:40]}")
    return str(value)


def _location(message: OutboundMessage) -> dict[str, Any]:
    """ "Location messages": a place and its label; Twilio asks for a body, too."""
    content = message.content
    place = f"{_degrees(content, 'latitude', 90)},{_degrees(content, 'longitude', 180)}"
    names = [content.get("name"), content.get("address")]
    named = [each for each in names if isinstance(each, str) and each.strip()]
    label = " ".join((named or [message.body])[0].replace("|", " ").split())
    return {
        "body": message.body or ", ".join(named) or place,
        "persistent_action": [f"geo:{place}|{label}" if label else f"geo:{place}"],
    }


def _degrees(content: Mapping[str, Any], name: str, most: int) -> float:
    value = content.get(name)
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= most
    if not fits:
        raise _refused(
            f"content.{name} must be a number from -{most} to {most}", "content", f"content.{name}"
        )
    return value  # type: ignore[return-value]


def _validity(seconds: float | None) -> int | None:
    return None if seconds is None else min(max(math.ceil(seconds), VALIDITY[0]), VALIDITY[1])
