"""What SES would tell of an email, for `gateway simulate`: one that came in, and what became of
one of ours. Written, never read, here."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.domain import InboundMessage, Status, StatusUpdate
from webhooks._mail_written import mime_of

WORDS: Mapping[Status, str] = {
    Status.SENT: "Send",
    Status.DELIVERED: "Delivery",
    Status.BOUNCED: "Bounce",
    Status.FAILED: "Reject",
}
PASSED = {"status": "PASS"}


def said(message: InboundMessage, now: datetime) -> dict[str, Any]:
    """ "Contents of notifications for Amazon SES email receiving".

    Raises:
        ValueError: it has files.
    """
    if message.media:
        raise ValueError("SES can be simulated for emails without files only")
    people = [message.to_address or ""]
    return {
        "notificationType": "Received",
        "mail": {
            "timestamp": _stamp(now),
            "source": message.from_address,
            "messageId": message.provider_message_id or uuid.uuid4().hex,
            "destination": people,
        },
        "receipt": {
            "timestamp": _stamp(now),
            "recipients": people,
            **{f"{name}Verdict": PASSED for name in ("spam", "virus", "spf", "dkim", "dmarc")},
            "action": {"type": "SNS", "encoding": "BASE64"},
        },
        "content": base64.b64encode(mime_of(message, now)).decode(),
    }


def happened(status: StatusUpdate, now: datetime) -> dict[str, Any]:
    """ "Contents of event data".

    Raises:
        ValueError: SES has no word for that.
    """
    word = WORDS.get(status.status)
    if word is None:
        raise ValueError(
            f"{status.status.value} cannot be simulated: SES tells of an email that it was sent, "
            "delivered, bounced or failed"
        )
    told: dict[str, Any] = {"timestamp": _stamp(now)}
    person = status.recipient or ""
    if word == "Bounce":
        sort = "Transient" if status.error and "transient" in status.error.code else "Permanent"
        told |= {"feedbackId": uuid.uuid4().hex, "bounceType": sort, "bounceSubType": "General"}
        told["bouncedRecipients"] = [{"emailAddress": person}]
    elif word == "Delivery":
        told["recipients"] = [person]
    elif word == "Reject":
        told["reason"] = "Bad content"
    return {
        "eventType": word,
        "mail": {
            "timestamp": _stamp(now),
            "source": status.sender,
            "messageId": status.provider_message_id or uuid.uuid4().hex,
            "destination": [person],
            "tags": {"attempt_id": [status.attempt_id]} if status.attempt_id else {},
        },
        word.lower(): told,
    }


def _stamp(now: datetime) -> str:
    moment = now.astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
