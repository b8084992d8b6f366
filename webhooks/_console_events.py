"""The console's JSON: events as objects with the names of the domain. Reads it and writes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

from gateway.domain import (
    Channel,
    Engagement,
    Event,
    InboundMessage,
    MediaReference,
    MessageType,
    Money,
    Simulated,
    Status,
    StatusUpdate,
    Unrecognised,
    VendorError,
)
from gateway.errors import Malformed

T = TypeVar("T")

# Members that hold nothing but our own words.
SPOKEN = frozenset(
    {"channel", "type", "status", "vendor_status", "content_type", "currency", "code", "reason"}
)
LIMIT = 512  # of an id or an address
ATTEMPT = re.compile(r"[?&]attempt=(att_[0-9A-Za-z]{20,40})(?=&|#|$)")
AMOUNT = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
CURRENCY = re.compile(r"[A-Z]{3}")
REPORTED = {
    s.value: s
    for s in (
        Status.ACCEPTED,
        Status.SENT,
        Status.UNDELIVERED,
        Status.FAILED,
        Status.DELIVERED,
        Status.READ,
        Status.BOUNCED,
    )
}


def message(facts: Mapping[str, Any], key: str) -> InboundMessage:
    """An inbound message. `key` names it where it has no id of its own."""
    identity = _short(facts, "id")
    return InboundMessage(
        dedupe_key=f"in:{identity or key}",
        channel=_member(Channel, _short(facts, "channel") or "sms"),
        from_address=_needed(_short(facts, "from"), "from"),
        to_address=_short(facts, "to"),
        provider_message_id=identity,
        pool=_short(facts, "pool"),
        account=_short(facts, "account"),
        type=_member(MessageType, _short(facts, "type") or "text"),
        body=_typed(facts, "body", str) or "",
        content=_typed(facts, "content", dict) or {},
        reply_to=_short(facts, "reply_to"),
        media=tuple(_file(item) for item in _typed(facts, "media", list) or ()),
        segments=_count(facts),
        name=_short(facts, "name"),
        aliases=tuple(_alias(item) for item in _typed(facts, "aliases", list) or ()),
        occurred_at=_when(facts),
    )


def status(facts: Mapping[str, Any], url: str, key: str) -> Iterator[Event]:
    """What became of a message. The attempt stands in it, or in the URL that was called. An email
    that bounced did so for good, unless its error says otherwise."""
    word = _needed(_short(facts, "status"), "status")
    known = REPORTED.get(word)
    if known is None:
        yield Unrecognised(dedupe_key=f"un:{key}", kind=f"status:{word[:40]}")
        return
    in_url = ATTEMPT.search(url)
    attempt = _short(facts, "attempt_id") or (in_url[1] if in_url else None)
    identity = _short(facts, "id")
    error = _error(facts)
    channel = _short(facts, "channel")
    update = StatusUpdate(
        dedupe_key=f"st:{identity or attempt or key}:{word}:{error.code if error else ''}",
        status=known,
        vendor_status=_short(facts, "vendor_status") or word,
        attempt_id=attempt,
        provider_message_id=identity,
        account=_short(facts, "account"),
        channel=_member(Channel, channel) if channel else None,
        sender=_short(facts, "from"),
        recipient=_short(facts, "to"),
        error=error,
        segments=_count(facts),
        cost=_cost(facts),
        occurred_at=_when(facts),
    )
    yield update
    if known is Status.BOUNCED and update.channel is Channel.EMAIL and not _for_now(error):
        yield Engagement(
            dedupe_key=f"bo:{update.dedupe_key}",
            kind="bounced",
            channel=Channel.EMAIL,
            attempt_id=attempt,
            provider_message_id=identity,
            recipient=update.recipient,
            content={"code": error.code} if error else {},
            occurred_at=update.occurred_at,
        )


def _for_now(error: VendorError | None) -> bool:
    """Whether it may arrive another time, as with a mailbox that is full."""
    return error is not None and ("transient" in error.code or error.reason == "unreachable")


def _typed(facts: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    value = facts.get(name)
    if value is None or isinstance(value, kind):
        return value
    raise Malformed(f"{name} is not a {kind.__name__}")


def _short(facts: Mapping[str, Any], name: str) -> str | None:
    value = _typed(facts, name, str)
    if value is not None and len(value) > LIMIT:
        raise Malformed(f"{name} is too long")
    return value or None


def _needed(value: str | None, name: str) -> str:
    if value is None:
        raise Malformed(f"{name} is missing")
    return value


def _member(kind: type[T], value: str) -> T:
    try:
        return kind(value)  # type: ignore[call-arg]
    except ValueError:
        raise Malformed(f"there is no {kind.__name__} of that name") from None


def _count(facts: Mapping[str, Any]) -> int | None:
    value = _typed(facts, "segments", int)
    if isinstance(value, bool) or (value is not None and not 0 <= value < 10000):
        raise Malformed("segments is not a small number")
    return value


def _when(facts: Mapping[str, Any]) -> datetime | None:
    text = _short(facts, "occurred_at")
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("occurred_at is not a time") from None
    if when.tzinfo is None:
        raise Malformed("occurred_at has no zone")
    return when


def _file(item: object) -> MediaReference:
    if not isinstance(item, dict):
        raise Malformed("a file is not an object")
    return MediaReference(
        reference=_needed(_typed(item, "reference", str), "reference"),
        content_type=_short(item, "content_type"),
        filename=_short(item, "filename"),
        fetchable=_typed(item, "fetchable", bool) or False,
    )


def _alias(item: object) -> str:
    if not isinstance(item, str) or len(item) > LIMIT:
        raise Malformed("an alias is not an address")
    return item


def _error(facts: Mapping[str, Any]) -> VendorError | None:
    given = _typed(facts, "error", dict)
    if given is None:
        return None
    return VendorError(
        code=_needed(_short(given, "code"), "code"),
        message=_short(given, "message"),
        reason=_short(given, "reason"),
    )


def _cost(facts: Mapping[str, Any]) -> Money | None:
    given = _typed(facts, "cost", dict)
    if given is None:
        return None
    amount, currency = _short(given, "amount") or "", _short(given, "currency") or ""
    if AMOUNT.fullmatch(amount) is None or CURRENCY.fullmatch(currency) is None:
        raise Malformed("cost is not an amount and a currency")
    return Money(amount=Decimal(amount), currency=currency)


def body(simulated: Simulated) -> bytes:
    """The JSON of an event."""
    if simulated.message is not None:
        return _written("message", _of_message(simulated.message))
    if simulated.status is not None:
        return _written("status", _of_status(simulated.status))
    raise ValueError("there is neither a message nor a status to simulate")


def _written(kind: str, facts: Mapping[str, Any]) -> bytes:
    return json.dumps({kind: {n: v for n, v in facts.items() if v not in (None, [], {})}}).encode()


def _of_message(event: InboundMessage) -> dict[str, Any]:
    return {
        "id": event.provider_message_id,
        "channel": event.channel.value,
        "from": event.from_address,
        "to": event.to_address,
        "pool": event.pool,
        "account": event.account,
        "type": event.type.value,
        "body": event.body,
        "content": dict(event.content),
        "reply_to": event.reply_to,
        "media": [
            {
                "reference": file.reference,
                "content_type": file.content_type,
                "filename": file.filename,
                "fetchable": file.fetchable,
            }
            for file in event.media
        ],
        "segments": event.segments,
        "name": event.name,
        "aliases": list(event.aliases),
        "occurred_at": event.occurred_at.isoformat() if event.occurred_at else None,
    }


def _of_status(event: StatusUpdate) -> dict[str, Any]:
    error, cost = event.error, event.cost
    return {
        "id": event.provider_message_id,
        "attempt_id": event.attempt_id,
        "status": event.status.value,
        "vendor_status": event.vendor_status,
        "account": event.account,
        "channel": event.channel.value if event.channel else None,
        "from": event.sender,
        "to": event.recipient,
        "error": {"code": error.code, "message": error.message, "reason": error.reason}
        if error
        else None,
        "segments": event.segments,
        "cost": {"amount": str(cost.amount), "currency": cost.currency} if cost else None,
        "occurred_at": event.occurred_at.isoformat() if event.occurred_at else None,
    }
