"""The requests that are made, as bytes: messages to send, and webhooks signed beforehand."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from bench import load
from bench.servers import ACCOUNT, KEY, NUMBER, ORIGIN, TOKEN

BODY = b"Your table is booked for eight o'clock this evening."
REPLY = "Thank you, see you then! Could we have a table near the window?"
HOOK = "/api/webhooks/twilio"


def accept_template() -> bytes:
    """A `POST /api/messages` with a place for a number."""
    body = b'{"channel":"sms","to":"+1%010d","body":"' + BODY + b'"}'
    authorization = f"Authorization: Bearer {KEY}"
    filled = body % 2_010_000_000
    whole = load.post("/api/messages", filled, authorization, "Content-Type: application/json")
    return whole.removesuffix(filled) + body


def sid(number: int) -> str:
    """A message's id as Twilio makes them."""
    return f"SM{number:032x}"


def signed(first: int, how_many: int) -> list[bytes]:
    """Webhooks of people who write for the first time, signed by Twilio's own SDK."""
    from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

    validator = RequestValidator(TOKEN)
    return [_webhook(validator, number) for number in range(first, first + how_many)]


def _webhook(validator: Any, number: int) -> bytes:
    id_ = sid(number)
    fields = {
        "ToCountry": "US",
        "ToState": "",
        "SmsMessageSid": id_,
        "NumMedia": "0",
        "ToCity": "",
        "FromZip": "94105",
        "SmsSid": id_,
        "FromState": "CA",
        "SmsStatus": "received",
        "FromCity": "SAN FRANCISCO",
        "Body": REPLY,
        "FromCountry": "US",
        "To": NUMBER,
        "ToZip": "",
        "NumSegments": "1",
        "MessageSid": id_,
        "AccountSid": ACCOUNT,
        "From": f"+1{2_010_000_000 + number}",
        "ApiVersion": "2010-04-01",
    }
    return load.post(
        HOOK,
        urlencode(fields).encode(),
        "Content-Type: application/x-www-form-urlencoded; charset=UTF-8",
        f"X-Twilio-Signature: {validator.compute_signature(ORIGIN + HOOK, fields)}",
        "User-Agent: TwilioProxy/1.1",
        "I-Twilio-Idempotency-Token: 6f5a6c1e-0000-4000-8000-000000000000",
    )
