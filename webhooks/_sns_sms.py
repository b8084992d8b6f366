"""Text messages as SNS brings them: what people say, what became of ours, and the delivery log.

Recognises each by its members and reads it, purely; raises nothing but `Malformed`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from gateway.domain import (
    Channel,
    Event,
    InboundMessage,
    Money,
    Status,
    StatusUpdate,
    Unrecognised,
    VendorError,
)
from gateway.errors import Malformed, clean
from webhooks._sns_sms_tables import (
    CHANNELS,
    FALLEN_BACK,
    LOGGED,
    NOT_FINAL,
    OPTED_OUT,
    REASONS,
    RESPONSES,
    STATUSES,
)

Facts = Mapping[str, Any]

ADDRESS = re.compile(r"[+A-Za-z0-9][A-Za-z0-9 _&.+-]{0,63}")  # a number, a short code, a sender id
BARE_NUMBER = re.compile(r"[1-9][0-9]{9,14}")  # too long for a short code
ID = re.compile(r"[!-~]{1,200}")
ATTEMPT_ID = re.compile(r"att_[0-9A-Za-z]{20,40}")
WORD = re.compile(r"[A-Z][A-Z0-9_]{0,59}")
LOG_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}(\.[0-9]{1,6})?")
IN_SECONDS = 10**11  # smaller numbers are seconds: as milliseconds they would be of 1973
LATEST = 4 * 10**12
DEAREST = 10_000


def is_message(facts: Facts) -> bool:
    """AWS End User Messaging SMS, "Two-way SMS messaging": it has no type, only its members."""
    return "inboundMessageId" in facts or {"originationNumber", "messageBody"} <= facts.keys()


def message(facts: Facts, published: datetime, key: str) -> InboundMessage:
    """What a person said. `messageKeyword` is the keyword that it was matched with, and words to
    opt out are words like others."""
    sender = _address(facts.get("originationNumber"))
    body = facts.get("messageBody", "")
    if sender is None or not isinstance(body, str):
        raise Malformed("the message has no sender, or no text")
    identity, keyword = _id(facts, "inboundMessageId"), facts.get("messageKeyword")
    return InboundMessage(
        dedupe_key=f"in:{identity or key}",
        channel=Channel.SMS,
        from_address=sender,
        to_address=_address(facts.get("destinationNumber")),
        provider_message_id=identity,
        body=body,
        content={"keyword": keyword} if keyword and isinstance(keyword, str) else {},
        reply_to=_id(facts, "previousPublishedMessageId"),
        occurred_at=published,
    )


def is_event(facts: Facts) -> bool:
    """The same product, "Example event data": SES has the same first member, and a mail."""
    kind = facts.get("eventType")
    known = isinstance(kind, str) and kind.partition("_")[0] in CHANNELS
    return known and "messageId" in facts and "mail" not in facts


def event(facts: Facts, published: datetime, key: str) -> Event:
    """What became of a message of ours."""
    kind = str(facts["eventType"])
    prefix, _, word = kind.partition("_")
    status = STATUSES.get(word)
    if status is None or WORD.fullmatch(kind) is None:
        name = kind.lower() if WORD.fullmatch(kind) else "unreadable"
        return Unrecognised(dedupe_key=f"un:{key}", kind=f"status:{name}")
    final = facts.get("isFinal") is True
    if not final:
        status = NOT_FINAL.get(word, status)
    identity = _id(facts, "messageId")
    if identity is None:
        raise Malformed("the event names no message")
    return StatusUpdate(
        dedupe_key=f"st:{identity}:{kind}:{_stamp(facts)}" + ("" if final else ":not_final"),
        status=status,
        vendor_status=kind,
        attempt_id=_attempt(facts),
        provider_message_id=identity,
        channel=Channel.SMS if word == FALLEN_BACK else CHANNELS[prefix],
        sender=_address(facts.get("originationPhoneNumber")),
        recipient=_address(facts.get("destinationPhoneNumber")),
        error=_error(kind, word, facts) if status is Status.FAILED else None,
        segments=_count(facts.get("totalMessageParts")),
        cost=_cost(facts.get("totalMessagePrice"), facts.get("totalCarrierFee")),
        occurred_at=_moment(facts.get("eventTimestamp")) or published,
    )


def is_log(facts: Facts) -> bool:
    """SNS, "Viewing Amazon CloudWatch metrics and logs for SMS deliveries": an entry of that log,
    which somebody forwards to a topic. Of a plain Publish there is no other word."""
    return isinstance(facts.get("notification"), dict) and isinstance(facts.get("delivery"), dict)


def log(facts: Facts, published: datetime, key: str) -> Event:
    """What the log says of a message of ours."""
    notification, delivery = facts["notification"], facts["delivery"]
    word, identity = facts.get("status"), _id(notification, "messageId")
    if identity is None:
        raise Malformed("the log's entry names no message")
    if not isinstance(word, str) or word not in LOGGED:
        return Unrecognised(dedupe_key=f"un:{key}", kind="status:log")
    said = delivery.get("providerResponse")
    text = clean(said) if isinstance(said, str) else None
    failed = VendorError(code=word, message=text, reason=RESPONSES.get(text or ""))
    return StatusUpdate(
        dedupe_key=f"st:{identity}:{word}:log",
        status=LOGGED[word],
        vendor_status=word,
        provider_message_id=identity,
        channel=Channel.SMS,
        recipient=_address(delivery.get("destination")),
        error=failed if LOGGED[word] is Status.FAILED else None,
        segments=_count(delivery.get("numberOfMessageParts")),
        cost=_cost(delivery.get("priceInUSD"), None),
        occurred_at=_log_time(notification.get("timestamp")) or published,
    )


def _error(kind: str, word: str, facts: Facts) -> VendorError:
    """Why it failed. A carrier's "opted out" comes under several types, so there the sentence
    decides."""
    said = facts.get("messageStatusDescription")
    text = clean(said) if isinstance(said, str) else None
    reason = RESPONSES[OPTED_OUT] if text == OPTED_OUT else REASONS.get(word)
    return VendorError(code=kind, message=text, reason=reason)


def _address(value: Any) -> str | None:
    if not isinstance(value, str) or ADDRESS.fullmatch(value) is None:
        return None
    return f"+{value}" if BARE_NUMBER.fullmatch(value) else value


def _id(facts: Facts, name: str) -> str | None:
    value = facts.get(name)
    return value if isinstance(value, str) and ID.fullmatch(value) else None


def _attempt(facts: Facts) -> str | None:
    """Our id of the attempt, from what we gave AWS to echo."""
    context = facts.get("context")
    value = context.get("attempt_id") if isinstance(context, dict) else None
    return value if isinstance(value, str) and ATTEMPT_ID.fullmatch(value) else None


def _stamp(facts: Facts) -> str:
    value = facts.get("eventTimestamp")
    return str(value) if isinstance(value, int) and 0 <= value <= LATEST else ""


def _moment(value: Any) -> datetime | None:
    """A time in milliseconds; some senders of the same format write seconds."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LATEST:
        return None
    return datetime.fromtimestamp(value if value < IN_SECONDS else value / 1000, UTC)


def _log_time(value: Any) -> datetime | None:
    """The log's time, which has no zone: CloudWatch is in UTC."""
    if not isinstance(value, str) or LOG_TIME.fullmatch(value) is None:
        return None
    try:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    except ValueError:
        return None


def _count(value: Any) -> int | None:
    known = isinstance(value, int) and not isinstance(value, bool)
    return value if known and 0 < value < 1000 else None


def _cost(price: Any, fee: Any) -> Money | None:
    """AWS bills in US dollars; the carrier's fee comes on top."""
    amount = _amount(price)
    if amount is None:
        return None
    return Money(amount=amount + (_amount(fee) or Decimal(0)), currency="USD")


def _amount(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return Decimal(str(value)) if 0 <= value < DEAREST else None
