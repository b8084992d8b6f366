"""What became of our WhatsApp messages: Meta's `statuses`, and what EventBridge makes of them.

Pure; raises nothing but `Malformed`.
"""

from __future__ import annotations

from datetime import datetime

from gateway.domain import (
    Channel,
    Engagement,
    Event,
    Status,
    StatusUpdate,
    Unrecognised,
    VendorError,
)
from gateway.errors import Malformed, clean
from webhooks._sns_whatsapp_exact import (
    ATTEMPT_ID,
    Facts,
    address,
    errors,
    identity,
    moment,
    part,
    shown_number,
    text,
)
from webhooks._sns_whatsapp_messages import Side
from webhooks._sns_whatsapp_tables import ASIDES, OTHERWISE, REASONS, STATUSES

BRIDGE = "aws.social-messaging"


def happened(facts: Facts, send_id: str | None, side: Side, key: str) -> Event:
    """What became of one message. `send_id` is what AWS answered when it was sent."""
    id_, word = identity(facts), text(facts, "status")
    if id_ is None:
        raise Malformed("the status names no message")
    faults = errors(facts)
    codes = ",".join(str(fault.get("code", "")) for fault in faults)
    stamp = f"{id_}:{word[:40]}:{str(facts.get('timestamp', ''))[:20]}:{codes[:80]}"
    group = text(facts, "recipient_type") == "group"
    known = [address(facts, "recipient_id"), address(facts, "recipient_user_id")]
    people = [] if group else [one for one in known if one]
    if word in ASIDES:
        return Engagement(
            dedupe_key=f"en:{stamp}",
            kind=word,
            channel=Channel.WHATSAPP,
            attempt_id=_attempt(facts),
            provider_message_id=id_,
            recipient=next(iter(people), None),
            content={"errors": faults} if faults else {},
            occurred_at=moment(facts) or side.published,
        )
    if word not in STATUSES:
        return Unrecognised(dedupe_key=f"un:{key}", kind=f"status:{_word(word)}")
    return StatusUpdate(
        dedupe_key=f"st:{stamp}",
        status=STATUSES[word],
        vendor_status=word,
        attempt_id=_attempt(facts),
        provider_message_id=send_id,
        network_id=id_,
        channel=Channel.WHATSAPP,
        sender=side.number,
        recipient=next(iter(people), None),
        aliases=tuple(people[1:]),
        error=_error(word, faults) if STATUSES[word] is Status.FAILED else None,
        occurred_at=moment(facts) or side.published,
    )


def _attempt(facts: Facts) -> str | None:
    """Our id of the attempt, from what we gave Meta to hand back."""
    value = text(facts, "biz_opaque_callback_data")
    return value if ATTEMPT_ID.fullmatch(value) else None


def _error(word: str, faults: list[dict[str, object]]) -> VendorError:
    fault = faults[0] if faults else {}
    code = str(fault.get("code", word))[:40]
    said = fault.get("details") or fault.get("message") or fault.get("title")
    return VendorError(
        code=code,
        message=clean(str(said)) if said else None,
        reason=REASONS.get(code, OTHERWISE),
    )


def _word(text: str) -> str:
    return "".join(c for c in text[:40] if c.isalnum() or c in "_-") or "unreadable"


def is_bridged(facts: Facts) -> bool:
    """End User Messaging Social, "Monitoring with Amazon EventBridge": an event of its own, which
    somebody's rule forwards to a topic."""
    return facts.get("source") == BRIDGE and "messageId" in part(facts, "detail")


def bridged(facts: Facts, published: datetime, key: str) -> Event:
    """What EventBridge says of a message, by the id that sending it answered."""
    detail = part(facts, "detail")
    id_, word = identity(detail, "messageId"), text(detail, "status")
    if id_ is None or word not in STATUSES:
        return Unrecognised(dedupe_key=f"un:{key}", kind=f"status:{_word(word)}")
    return StatusUpdate(
        dedupe_key=f"st:{id_}:{word}:{str(detail.get('eventTimestamp', ''))[:20]}:bridge",
        status=STATUSES[word],
        vendor_status=word,
        provider_message_id=id_,
        channel=Channel.WHATSAPP,
        sender=shown_number(detail, "originationPhoneNumber"),
        error=_error(word, errors(detail)) if STATUSES[word] is Status.FAILED else None,
        occurred_at=moment(detail, "eventTimestamp") or published,
    )
