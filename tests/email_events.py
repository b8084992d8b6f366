"""Events about email as their vendors post them: SES inside SNS envelopes, SendGrid's batches.

`python -m tests.email_events` writes the golden cases anew.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.domain import WebhookRequest
from tests import golden
from tests.mails import received
from tests.sns_signing import laid_out, notification, posted, request, signer, write
from tests.webhook_cases import WHEN
from webhooks.sendgrid import SIGNATURE, TIMESTAMP, SendgridWebhook

ATTEMPT = "att_01jmz3x5e8q7v9k2r4t6w8y0ab"
SES_ID = "0100017fd2f875c4-c2929163-2767-49b1-8513-1a29e428e134-000000"
SENDGRID_ID = "14c5d75ce93.dfd.64b469"
ADA = "ada@example.com"
URL = "https://gateway.example.com/api/webhooks/sendgrid"


def ses(kind: str, told: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """ "Contents of event data" for event publishing; `name` is the member of the kind."""
    name = more.pop("name", kind[:1].lower() + kind[1:])
    return {
        more.pop("told_as", "eventType"): kind,
        "mail": {
            "timestamp": "2026-03-01T11:59:50.000Z",
            "source": "shop@example.com",
            "messageId": SES_ID,
            "destination": [ADA],
            "tags": {"attempt_id": [ATTEMPT], "ses:configuration-set": ["gateway"]},
            **more,
        },
        name: {"timestamp": "2026-03-01T11:59:58.000Z", **(told or {})},
    }


def bounce(sort: str = "Permanent", sub: str = "General", *people: str) -> dict[str, Any]:
    """ "Bounce object"."""
    listed = [
        {"emailAddress": p, "status": "5.1.1", "diagnosticCode": "smtp; 550 5.1.1 unknown"}
        for p in people or (ADA,)
    ]
    return {
        "feedbackId": "0100-1",
        "bounceType": sort,
        "bounceSubType": sub,
        "bouncedRecipients": listed,
    }


def ses_bodies() -> dict[str, dict[str, Any]]:
    """Each kind of event."""
    complaint = {
        "feedbackId": "0100-2",
        "complainedRecipients": [{"emailAddress": f'"Ada" <{ADA}>'}],
        "complaintFeedbackType": "abuse",
    }
    leaving = {"contactList": "all", "newTopicPreferences": {"unsubscribeAll": True}}
    return {
        "send": ses("Send"),
        "delivery": ses("Delivery", {"recipients": [ADA], "smtpResponse": "250 ok"}),
        "delay": ses("DeliveryDelay", {"delayType": "MailboxFull", "delayedRecipients": []}),
        "bounce": ses("Bounce", bounce()),
        "bounce_of_one_of_two": ses(
            "Bounce",
            bounce("Permanent", "NoEmail", "bob@example.com"),
            destination=[ADA, "bob@x.de"],
        ),
        "bounce_for_now": ses("Bounce", bounce("Transient", "MailboxFull")),
        "bounce_of_an_identity": ses("Bounce", bounce(), told_as="notificationType", tags=None),
        "complaint": ses("Complaint", complaint),
        "complaint_of_nobody": ses("Complaint", {"feedbackId": "0100-3"}),
        "reject": ses("Reject", {"reason": "Bad content"}),
        "rendering_failure": ses(
            "Rendering Failure", {"errorMessage": "no such attribute"}, name="failure"
        ),
        "open": ses("Open", {"ipAddress": "192.0.2.1", "userAgent": "Mozilla/5.0"}),
        "click": ses("Click", {"link": "https://shop.example.com/7"}),
        "subscription": ses("Subscription", leaving),
        "subscription_kept": ses("Subscription", {"newTopicPreferences": {}}),
    }


def ses_golden() -> dict[str, tuple[WebhookRequest, str]]:
    """The golden cases of SES."""
    read = {
        name: (request(notification(body, n)), "events")
        for n, (name, body) in enumerate(ses_bodies().items(), 1)
    }
    mail = b"From: Ada <ada@example.com>\r\nTo: shop@example.com\r\n\r\nHi\r\n"
    read["received"] = request(notification(received(mail), 40)), "events"
    nameless = ses("Delivery", messageId=None)
    return {
        **read,
        "no_id": (request(notification(nameless, 60)), "malformed"),
        "refused_other_key": (request(notification(ses("Send"), 80), by=signer("another")), "403"),
        "refused_unsigned": (posted(laid_out(notification(ses("Send"), 81))), "401"),
    }


@cache
def key() -> ec.EllipticCurvePrivateKey:
    """The account's key."""
    return ec.generate_private_key(ec.SECP256R1())


def shown(private: ec.EllipticCurvePrivateKey) -> str:
    """A key's public half, as SendGrid shows it."""
    der = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(der).decode()


def event(word: str, number: int = 1, **more: Any) -> dict[str, Any]:
    """One event."""
    made = {
        "email": ADA,
        "timestamp": 1772366390,
        "event": word,
        "sg_event_id": f"ZXZlbnQt{number:04}",
        "sg_message_id": f"{SENDGRID_ID}.filter0001.16648.5515E0B88.0",
        "attempt_id": ATTEMPT,
        "message_id": "msg_1",
        **more,
    }
    return {name: value for name, value in made.items() if value is not None}


def batch(
    *events: Any, by: ec.EllipticCurvePrivateKey | None = None, **more: Any
) -> WebhookRequest:
    """A signed batch, laid out as SendGrid does."""
    body = ("[" + ",\r\n".join(json.dumps(e) for e in events) + "]\r\n").encode()
    return signed(body, by=by, **more)


def signed(
    body: bytes, *, by: ec.EllipticCurvePrivateKey | None = None, at: datetime = WHEN
) -> WebhookRequest:
    """A signed body."""
    stamp = str(int(at.timestamp()))
    made = (by or key()).sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return WebhookRequest(
        method="POST",
        url=URL,
        headers={
            "content-type": "application/json;charset=utf-8",
            "user-agent": "SendGrid Event API",
            TIMESTAMP: stamp,
            SIGNATURE: base64.b64encode(made).decode(),
        },
        body=body,
        received_at=WHEN,
    )


def sendgrid_golden() -> dict[str, tuple[WebhookRequest, str]]:
    """The golden cases of SendGrid."""
    good = batch(event("delivered"))
    bare = {n: v for n, v in good.headers.items() if n not in (SIGNATURE, TIMESTAMP)}
    dropped = event("dropped", 4, reason="Bounced Address", sg_message_id="filter0093p1.9128.0")
    return {
        "delivered": (good, "events"),
        "many_in_any_order": (
            batch(
                event("delivered", 2, response="250 ok ", tls=1),
                event("processed", 1, timestamp="1772366389", pool={"id": "7", "name": "p"}),
                event("deferred", 3, attempt="5", response="451 later"),
            ),
            "events",
        ),
        "one_and_no_list": (signed(json.dumps(event("open")).encode()), "events"),
        "bounce": (
            batch(
                event("bounce", type="bounce", reason="550 5.1.1 unknown",
                      bounce_classification="Invalid Address", status="5.1.1")
            ),
            "events",
        ),
        "blocked": (batch(event("bounce", type="blocked", reason="550 spam")), "events"),
        "dropped": (batch(dropped), "events"),
        "spam_report": (batch(event("spamreport", sg_message_id=f" {SENDGRID_ID}")), "events"),
        "group_unsubscribe": (batch(event("group_unsubscribe", asm_group_id=7)), "events"),
        "in_milliseconds": (
            batch(event("Open", timestamp=1772366390123, sg_machine_open=True)),
            "events",
        ),
        "of_no_message": (
            batch(event("bounce", sg_message_id=None, attempt_id=None, message_id=None)),
            "events",
        ),
        "account": (
            batch({"event": "account_status_change", "type": "suspended", "timestamp": 1772366390,
                   "sg_event_id": "YWNj"}),
            "events",
        ),
        "unheard_of": (batch(event("teleported"), 7, "text", event("delivered", 9)), "events"),
        "not_json": (signed(b'[{"event":"deliv'), "malformed"),
        "no_list": (signed(b'"text"'), "malformed"),
        "refused_other_key": (
            batch(event("delivered"), by=ec.generate_private_key(ec.SECP256R1())),
            "403",
        ),
        "refused_stale": (batch(event("delivered"), at=WHEN - timedelta(hours=26)), "403"),
        "refused_from_the_future": (
            batch(event("delivered"), at=WHEN + timedelta(minutes=16)),
            "403",
        ),
        "refused_unsigned": (
            WebhookRequest(method="POST", url=URL, headers=bare, body=good.body, received_at=WHEN),
            "401",
        ),
    }  # fmt: skip


def write_sendgrid() -> None:
    """Writes SendGrid's cases with a new key; what they become is written down, to be read."""
    variables = {"SENDGRID_WEBHOOK_PUBLIC_KEY": shown(key())}
    golden.write(SendgridWebhook, variables, sendgrid_golden())


if __name__ == "__main__":
    write("aws_ses", ses_golden())
    write_sendgrid()
