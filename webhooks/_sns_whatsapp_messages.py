"""What people say by WhatsApp, and what we said by Meta's own application: Meta's `messages` and
`message_echoes`. Pure; raises nothing but `Malformed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gateway.domain import Channel, InboundMessage, MediaReference, MessageType
from gateway.errors import Malformed
from webhooks._forms import read_json
from webhooks._sns_whatsapp_exact import (
    MEDIA_ID,
    Facts,
    address,
    errors,
    given,
    identity,
    mime,
    moment,
    number,
    objects,
    part,
    plain,
    text,
)
from webhooks._sns_whatsapp_tables import CHOICES, FILES


@dataclass(frozen=True, slots=True)
class Side:
    """Our side of what is told: the number, and what sends from it at AWS."""

    number: str | None
    pool: str | None
    published: datetime


@dataclass(slots=True)
class Said:
    """What a message says, as it is read."""

    type: MessageType
    body: str = ""
    content: dict[str, Any] = field(default_factory=dict)
    media: tuple[MediaReference, ...] = ()
    reply_to: str | None = None
    new_address: str | None = None


def said(facts: Facts, value: Facts, side: Side, key: str) -> InboundMessage:
    """What a person said. Who it is stands in the message: the list of contacts is in another
    order, and may name somebody else."""
    contact = _contact(facts, value)
    person = _person(
        [
            address(facts, "from"),
            address(contact or {}, "wa_id"),
            address(facts, "from_user_id"),
            address(contact or {}, "user_id"),
        ]
    )
    contacts = objects(value, "contacts")
    named = contact or (contacts[0] if len(contacts) == 1 else {})
    told = _read(facts, side.pool)
    moved = (told.new_address,) if told.new_address else ()
    id_ = identity(facts)
    return InboundMessage(
        dedupe_key=f"in:{id_ or key}",
        channel=Channel.WHATSAPP,
        from_address=person[0],
        to_address=side.number,
        provider_message_id=id_,
        pool=side.pool,
        type=told.type,
        body=told.body,
        content=told.content,
        reply_to=told.reply_to,
        media=told.media,
        name=given(part(named, "profile"), "name"),
        aliases=tuple(a for a in (*person[1:], *moved) if a != person[0]),
        new_address=told.new_address,
        occurred_at=moment(facts) or side.published,
    )


def echoed(facts: Facts, value: Facts, side: Side, key: str) -> InboundMessage:
    """What we said ourselves, by the WhatsApp Business app on the same number."""
    person = _person([address(facts, "to"), address(facts, "to_user_id")])
    told, id_ = _read(facts, side.pool), identity(facts)
    return InboundMessage(
        dedupe_key=f"echo:{id_ or key}",
        channel=Channel.WHATSAPP,
        from_address=address(facts, "from") or side.number or "",
        to_address=person[0],
        provider_message_id=id_,
        pool=side.pool,
        type=told.type,
        body=told.body,
        content=told.content,
        reply_to=told.reply_to,
        media=told.media,
        echo=True,
        aliases=tuple(person[1:]),
        occurred_at=moment(facts) or side.published,
    )


def _person(known: list[str | None]) -> list[str]:
    found = list(dict.fromkeys(one for one in known if one))
    if not found:
        raise Malformed("the message names nobody")
    return found


def _contact(facts: Facts, value: Facts) -> Facts | None:
    """Who of the contacts said it; where it says nothing of itself, the only one."""
    contacts = objects(value, "contacts")
    sender, user = facts.get("from"), facts.get("from_user_id")
    if not sender and not user:
        return contacts[0] if len(contacts) == 1 else None
    for contact in contacts:
        if contact.get("wa_id", "") == sender or contact.get("user_id", "") in (sender, user):
            return contact
    return None


def _read(facts: Facts, pool: str | None) -> Said:
    """A message's kind and content, with what may come with any kind."""
    kind = text(facts, "type")
    told = _KINDS.get(kind, _unknown)(facts, kind, pool)
    context = part(facts, "context")
    told.reply_to = told.reply_to or identity(context)
    for name in ("forwarded", "frequently_forwarded"):
        if context.get(name) is True:
            told.content |= {"forwarded": True, name: True}
    if product := plain(part(context, "referred_product")):
        told.content["referred_product"] = product
    if referral := _referral(part(facts, "referral")):
        told.content["referral"] = referral
    if group := identity(facts, "group_id"):
        told.content["group_id"] = group
    if faults := errors(facts):
        told.content["errors"] = faults
    return told


def _referral(facts: Facts) -> dict[str, Any]:
    """The advertisement that a person came from; its picture is not theirs."""
    told = plain(facts)
    media = next((told[n] for n in ("image_url", "video_url") if n in told), None)
    return {**told, "media_url": media} if media else told


def _text(facts: Facts, kind: str, pool: str | None) -> Said:
    return Said(MessageType.TEXT, text(part(facts, "text"), "body"))


def _file(facts: Facts, kind: str, pool: str | None) -> Said:
    """A file: Meta's id of it, and which number may ask for it. Its URL is of use to Meta only."""
    file = part(facts, kind)
    flags = {name: True for name in ("voice", "animated") if file.get(name) is True}
    flags |= {"voice": True} if kind == "voice" else {}
    told = Said(FILES[kind], text(file, "caption"), dict(flags))
    id_ = text(file, "id")
    if MEDIA_ID.fullmatch(id_):
        told.media = (
            MediaReference(
                reference=f"{pool}/{id_}" if pool else id_,
                content_type=mime(file),
                filename=given(file, "filename"),
                fetchable=pool is not None,
            ),
        )
    return told


def _location(facts: Facts, kind: str, pool: str | None) -> Said:
    place = part(facts, "location")
    latitude, longitude = number(place, "latitude", 90), number(place, "longitude", 180)
    names = {name: given(place, name) for name in ("name", "address")}
    content: dict[str, Any] = {"latitude": latitude, "longitude": longitude, **names}
    if latitude is None or longitude is None:
        content = {name: value for name, value in names.items() if value}
    if url := given(place, "url"):
        content["url"] = url
    return Said(MessageType.LOCATION, content=content)


def _contacts(facts: Facts, kind: str, pool: str | None) -> Said:
    cards = objects(facts, "contacts")
    names = (given(part(card, "name"), "formatted_name") for card in cards)
    body = ", ".join(name for name in names if name)
    return Said(MessageType.CONTACTS, body, {"contacts": cards} if cards else {})


def _interactive(facts: Facts, kind: str, pool: str | None) -> Said:
    """What was chosen. Meta sends this type without its object, too, where it cannot say more."""
    choice = part(facts, "interactive")
    sort = text(choice, "type")
    answer = part(choice, sort)
    if sort not in CHOICES:
        return Said(MessageType.INTERACTIVE, content={"kind": sort} if sort else {})
    content: dict[str, Any] = {"kind": CHOICES[sort]}
    if sort == "nfm_reply":
        content |= {"name": given(answer, "name"), "data": _form(answer)}
        return Said(MessageType.INTERACTIVE, text(answer, "body"), content)
    content |= {"id": given(answer, "id"), "title": given(answer, "title")}
    if description := given(answer, "description"):
        content["description"] = description
    return Said(MessageType.INTERACTIVE, text(answer, "title"), content)


def _form(answer: Facts) -> Any:
    """What was filled in: JSON in a text, of any shape."""
    said = answer.get("response_json")
    try:
        return read_json(said) if isinstance(said, str) else said
    except ValueError:
        return said


def _button(facts: Facts, kind: str, pool: str | None) -> Said:
    button = part(facts, "button")
    content = {"kind": "button", "id": given(button, "payload"), "title": given(button, "text")}
    return Said(MessageType.BUTTON, text(button, "text"), content)


def _reaction(facts: Facts, kind: str, pool: str | None) -> Said:
    """An emoji on a message; an empty one, or none, takes it back."""
    reaction = part(facts, "reaction")
    target, emoji = identity(reaction, "message_id"), text(reaction, "emoji")
    content = {"target": target, "emoji": emoji, "removed": not emoji}
    return Said(MessageType.REACTION, emoji, content, reply_to=target)


def _order(facts: Facts, kind: str, pool: str | None) -> Said:
    order = part(facts, "order")
    items = [
        {
            "id": item.get("product_retailer_id"),
            "quantity": item.get("quantity"),
            "price": item.get("item_price"),
            "currency": item.get("currency"),
        }
        for item in objects(order, "product_items")
    ]
    content = {"order": {"catalog_id": given(order, "catalog_id"), "items": items}}
    return Said(MessageType.ORDER, text(order, "text"), content)


def _system(facts: Facts, kind: str, pool: str | None) -> Said:
    """What WhatsApp itself says of the person: another number, another phone."""
    system = part(facts, "system")
    content: dict[str, Any] = {"kind": given(system, "type") or "system"}
    if identified := plain(part(facts, "identity")):
        content["identity"] = identified
    moved = address(system, "wa_id") or address(system, "new_wa_id")
    if moved:
        content["new_address"] = moved
    return Said(MessageType.SYSTEM, text(system, "body"), content, new_address=moved)


def _welcome(facts: Facts, kind: str, pool: str | None) -> Said:
    """Somebody opened the chat for the first time, and has said nothing yet."""
    return Said(MessageType.SYSTEM, content={"kind": kind})


def _revoke(facts: Facts, kind: str, pool: str | None) -> Said:
    target = identity(part(facts, kind), "original_message_id")
    return Said(MessageType.DELETION, content={"target": target})


def _edit(facts: Facts, kind: str, pool: str | None) -> Said:
    """What a message says from now on."""
    edit = part(facts, "edit")
    new = part(edit, "message")
    now = _KINDS.get(text(new, "type"), _unknown)(new, text(new, "type"), pool)
    content = {"target": identity(edit, "original_message_id"), "type": now.type.value}
    return Said(MessageType.EDIT, now.body, {**now.content, **content}, now.media)


def _unsupported(facts: Facts, kind: str, pool: str | None) -> Said:
    sort = given(part(facts, "unsupported"), "type")
    return Said(MessageType.UNSUPPORTED, content={"kind": sort} if sort else {})


def _unknown(facts: Facts, kind: str, pool: str | None) -> Said:
    """A type of tomorrow: its name, and whatever it holds."""
    held = facts.get(kind)
    content = {"kind": kind[:60], "value": held} if held else {"kind": kind[:60]}
    return Said(MessageType.UNKNOWN, content=content)


_KINDS: dict[str, Callable[[Facts, str, str | None], Said]] = {
    **dict.fromkeys(FILES, _file),
    "text": _text,
    "location": _location,
    "contacts": _contacts,
    "interactive": _interactive,
    "button": _button,
    "reaction": _reaction,
    "order": _order,
    "system": _system,
    "request_welcome": _welcome,
    "revoke": _revoke,
    "edit": _edit,
    "unsupported": _unsupported,
}
