"""Reads an inbound message out of a verified Twilio form. Pure; raises nothing but `Malformed`.

The body stays exactly as signed. What Twilio adds beside it goes to `content`, and what nobody
knows yet stays in the inbox's raw request.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from typing import Any

from gateway.domain import Channel, InboundMessage, MediaReference, MessageType, Unrecognised
from gateway.errors import Malformed
from webhooks._forms import Form, read_json
from webhooks._twilio_exact import NUMBER, SID, USER, Address, address, sid
from webhooks._twilio_tables import (
    FLAGS,
    GEO,
    JSON_FIELDS,
    KEYWORDS,
    OPT_OUT_TYPES,
    REFERRAL,
    SMS_KEYWORDS,
    TYPES,
)

MEDIA_NAME = re.compile(r"MediaUrl(0|[1-9][0-9]?)")
CONTENT_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*")
# Most messages have none of these, and to ask for each takes a fifth of the reading.
PLACES = frozenset(GEO)
RARE = frozenset(
    {"Latitude", "Longitude", "ButtonText", "ButtonPayload", "ListId"}
    | JSON_FIELDS.keys()
    | FLAGS.keys()
    | REFERRAL.keys()
)
BASE64_LEAST = 60  # what shorter text looks like base64 is usually a word


def read(
    form: Form, ids_of: re.Pattern[str], message_sid: str, key: str
) -> InboundMessage | Unrecognised:
    """The message in a form. `ids_of` matches a media URL and groups its three ids."""
    sender = address(form, "From")
    if sender is None:
        raise Malformed("From is missing")
    if sender.channel is None:
        return Unrecognised(dedupe_key=f"un:{key}", kind=f"message:{sender.text}")
    return _message(form, ids_of, message_sid, sender, sender.channel)


def _message(
    form: Form, ids_of: re.Pattern[str], message_sid: str, sender: Address, channel: Channel
) -> InboundMessage:
    ours = address(form, "To")
    body = form.get("Body") or ""
    rich = channel is not Channel.SMS
    if rich and not body.strip():
        body = form.text("ButtonText") or body
    media = _media(form, ids_of)
    replied = form.get("OriginalRepliedMessageSid")
    reply_to = replied if replied and SID.fullmatch(replied) else None
    kind = _type(form, media, rich)
    return InboundMessage(
        dedupe_key=f"in:{message_sid}",
        channel=channel,
        from_address=sender.text,
        to_address=ours.text if ours is not None else None,
        provider_message_id=message_sid,
        pool=sid(form, "MessagingServiceSid"),
        account=sid(form, "AccountSid"),
        type=kind,
        body=body,
        content=_content(form, kind, channel, body, reply_to),
        reply_to=reply_to,
        media=media,
        segments=whole_number(form.get("NumSegments")),
        name=form.text("ProfileName"),
        aliases=_aliases(form, sender.text) if channel is Channel.WHATSAPP else (),
    )


def whole_number(text: str | None) -> int | None:
    """A small count, or None where the field does not hold one."""
    return int(text) if text and len(text) < 5 and text.isascii() and text.isdigit() else None


def _aliases(form: Form, sender: str) -> tuple[str, ...]:
    """Further addresses of the person: Meta's own digits, which in Brazil, Mexico and Argentina
    differ from the dialled number, and the id of a user who may show no number."""
    number = "+" + (form.get("WaId") or "")
    user = (form.get("ExternalUserId") or "").removeprefix("whatsapp:")
    found = [number] if NUMBER.fullmatch(number) else []
    found += [user] if USER.fullmatch(user) else []
    return tuple(alias for alias in found if alias != sender)


def _media(form: Form, ids_of: re.Pattern[str]) -> tuple[MediaReference, ...]:
    """The files, by the URLs that are there: NumMedia is not always a number."""
    if "MediaUrl" not in form.joined:  # of nearly all: one look instead of one for each field
        return ()
    names = [name for name, _ in form.pairs if name.startswith("MediaUrl")]
    numbers = sorted({int(m[1]) for name in names if (m := MEDIA_NAME.fullmatch(name))})
    return tuple(
        _reference(url, form.text(f"MediaContentType{number}"), ids_of)
        for number in numbers
        if (url := form.text(f"MediaUrl{number}"))
    )


def _reference(url: str, declared: str | None, ids_of: re.Pattern[str]) -> MediaReference:
    content_type = declared.strip().lower() if declared else None
    if content_type is not None and CONTENT_TYPE.fullmatch(content_type) is None:
        content_type = None
    match = ids_of.fullmatch(url)
    if match is None:
        return MediaReference(reference=url, content_type=content_type, fetchable=False)
    return MediaReference(reference="/".join(match.groups()), content_type=content_type)


def _type(form: Form, media: tuple[MediaReference, ...], rich: bool) -> MessageType:
    said = form.text("MessageType")
    if said is not None:
        return TYPES.get(said.strip().lower(), MessageType.UNKNOWN)
    if _location(form):
        return MessageType.LOCATION
    if media:
        return _type_of_file(media[0].content_type or "")
    if rich and (form.text("ButtonText") or form.text("ButtonPayload")):
        return MessageType.BUTTON
    if rich and form.text("ListId"):
        return MessageType.INTERACTIVE
    return MessageType.TEXT


def _type_of_file(content_type: str) -> MessageType:
    if content_type in ("text/vcard", "text/x-vcard"):
        return MessageType.CONTACTS
    family = content_type.partition("/")[0]
    return TYPES[family] if family in ("image", "audio", "video") else MessageType.DOCUMENT


def _content(
    form: Form, kind: MessageType, channel: Channel, body: str, reply_to: str | None
) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if rare := form.has_any(RARE):
        content.update({**_location(form), **_choice(form)})
    if kind is MessageType.REACTION:
        content.update(target=reply_to, emoji=body, removed=False)
    if form.has_any(PLACES) and (geo := _named(form, GEO)):
        content["geo"] = geo
    content.update(_opt_out(form, channel, body))
    if channel is Channel.SMS and (decoded := _decoded(body)) is not None:
        content["decoded"] = decoded
    if rare:
        content.update(_extras(form))
    return content


def _extras(form: Form) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    for field, name in JSON_FIELDS.items():
        if (text := form.text(field)) is not None:
            try:
                extras[name] = read_json(text)
            except ValueError:
                continue  # an addition of Twilio's, in a shape of its own: kept in the raw request
    for field, name in FLAGS.items():
        if (text := form.text(field)) is not None:
            extras[name] = text.lower() == "true"
    referral = _named(form, REFERRAL)
    if referral:  # the advertisement that the person came from; its picture is not theirs
        extras["referral"] = referral
    return extras


def _named(form: Form, names: Mapping[str, str]) -> dict[str, str]:
    return {ours: value for name, ours in names.items() if (value := form.text(name))}


def _location(form: Form) -> dict[str, Any]:
    try:
        latitude, longitude = float(form.get("Latitude") or ""), float(form.get("Longitude") or "")
    except ValueError:
        return {}
    if not (math.isfinite(latitude) and math.isfinite(longitude)):
        return {}
    if abs(latitude) > 90 or abs(longitude) > 180:
        return {}
    return {
        "latitude": latitude,
        "longitude": longitude,
        "name": form.text("Label"),
        "address": form.text("Address"),
    }


def _choice(form: Form) -> dict[str, Any]:
    """A button or a list's row that the person chose. A payload is opaque: never JSON to us."""
    title, payload = form.text("ButtonText"), form.text("ButtonPayload")
    if title is not None or payload is not None:
        return {"kind": "button", "id": payload, "title": title}
    row = form.text("ListId")
    if row is not None:
        return {"kind": "list", "id": row, "title": form.text("ListTitle")}
    return {}


def _opt_out(form: Form, channel: Channel, body: str) -> dict[str, str]:
    """OptOutType comes with Advanced Opt-Out only; else a keyword that is all that was said."""
    given = form.text("OptOutType")
    if given is not None:
        wish = given.strip().lower()
        known = {"opt_out": wish} if wish in OPT_OUT_TYPES else {}
        return {"opt_out_type": given, **known}
    if len(body) > 32:
        return {}
    keywords = SMS_KEYWORDS if channel is Channel.SMS else KEYWORDS
    word = keywords.get(body.strip().upper())
    return {"opt_out": word} if word is not None else {}


def _decoded(body: str) -> str | None:
    """What a base64 body says. Twilio sometimes hands a concatenated SMS over like this, cut
    between parts and so with a torn character at its end."""
    if len(body) < BASE64_LEAST or len(body) % 4 or not body.isascii() or " " in body:
        return None
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return None
    for torn in range(4):
        try:
            text = data[: len(data) - torn].decode()
        except UnicodeDecodeError:
            continue
        return text if _reads_well(text) else None
    return None


def _reads_well(text: str) -> bool:
    plain = sum(c.isascii() for c in text)
    return plain * 2 >= len(text) and all(c.isprintable() or c in "\r\n\t" for c in text)
