"""Forms as Twilio would post them, signed by Twilio's own SDK, for the tests of its webhook."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import urlencode

from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from gateway.domain import (
    Event,
    WebhookRequest,
)
from gateway.errors import SignatureInvalid
from tests.webhook_cases import events_of
from webhooks.twilio import TwilioWebhook, TwilioWebhookSettings

TOKEN = "b7f04c1e9a2d4d3f8c6b5a4938271605"
HOOK = "https://gw.test.example/api/webhooks/sms"
ACCOUNT = "AC4e5f60718293a4b5c6d7e8f901234567"
SID = "SM9f8e7d6c5b4a39281706f5e4d3c2b1a0"
PERSON, OURS = "+15005550142", "+15005550199"
Pairs = list[tuple[str, str]]
FORM = "application/x-www-form-urlencoded"


def webhook(token: str = TOKEN, **more: str) -> TwilioWebhook:
    """A webhook with one token."""
    variables = {"TWILIO_AUTH_TOKEN": token, **more}
    return TwilioWebhook(TwilioWebhookSettings.model_validate(variables))


def posted(
    url: str, body: bytes, signature: str | None, kind: str = FORM, **headers: str
) -> WebhookRequest:
    """A request as it comes in."""
    signed = {} if signature is None else {"x-twilio-signature": signature}
    return WebhookRequest(
        method="POST",
        url=url,
        headers={"content-type": kind, **signed, **headers},
        body=body,
        received_at=datetime(2026, 3, 1, tzinfo=UTC),
    )


class Fields(dict[str, list[str]]):
    """Fields with repetitions, as the SDK's validator likes them."""

    def getall(self, name: str) -> list[str]:
        return self[name]


def by_sdk(url: str, pairs: Pairs, token: str = TOKEN) -> str:
    """The signature that Twilio's SDK computes."""
    fields = Fields()
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return str(RequestValidator(token).compute_signature(url, fields))


def by_hand(signed: str, token: str = TOKEN) -> str:
    """The signature of a string."""
    mac = hmac.new(token.encode(), signed.encode(), hashlib.sha1)
    return base64.b64encode(mac.digest()).decode()


def signed(pairs: Pairs, url: str = HOOK) -> WebhookRequest:
    """A form that the SDK signed."""
    return posted(url, urlencode(pairs).encode(), by_sdk(url, pairs))


async def one(fields: dict[str, str] | Pairs, url: str = HOOK) -> Event:
    """What a signed form becomes."""
    pairs = list(fields.items()) if isinstance(fields, dict) else fields
    (event,) = await events_of(webhook(), signed(pairs, url))
    return event


async def holds(request: WebhookRequest, token: str = TOKEN) -> bool:
    """Whether a request is believed."""
    try:
        await webhook(token).verify(request)
    except SignatureInvalid:
        return False
    return True


SMS: Pairs = sorted(
    {
        "AccountSid": ACCOUNT,
        "ApiVersion": "2010-04-01",
        "Body": "See You At TEN",
        "From": PERSON,
        "FromCity": "",
        "FromCountry": "US",
        "FromState": "NY",
        "FromZip": "10001",
        "MessageSid": SID,
        "MessagingServiceSid": "MG0123456789abcdef0123456789abcdef",
        "NumMedia": "0",
        "NumSegments": "1",
        "SmsMessageSid": SID,
        "SmsSid": SID,
        "SmsStatus": "received",
        "To": OURS,
        "ToCity": "",
        "ToCountry": "US",
    }.items()
)
REPLY: Pairs = sorted(
    {
        "AccountSid": ACCOUNT,
        "Body": "Yes",
        "From": "whatsapp:" + PERSON,
        "MessageSid": SID,
        "NumMedia": "0",
        "OriginalRepliedMessageSender": "whatsapp:" + OURS,
        "OriginalRepliedMessageSid": "SM" + "5" * 32,
        "ProfileName": "Ada",
        "SmsMessageSid": SID,
        "SmsSid": SID,
        "SmsStatus": "received",
        "To": "whatsapp:" + OURS,
        "WaId": PERSON[1:],
    }.items()
)
CALLBACK: Pairs = sorted(
    {
        "AccountSid": ACCOUNT,
        "ChannelToAddress": "+1500555XXXX",
        "ErrorCode": "30005",
        "From": "whatsapp:" + OURS,
        "MessageSid": SID,
        "MessageStatus": "failed",
        "SmsSid": SID,
        "SmsStatus": "failed",
        "To": "whatsapp:US.13491208655302741918",
    }.items()
)
LOOSE: Pairs = sorted(
    {
        "AccountSid": ACCOUNT,
        "Body": "Parcel On Its Way",
        "From": "RoyalMail",
        "FromCity": "",
        "FromCountry": "GB",
        "MessageSid": SID,
        "NumMedia": "0",
        "SmsMessageSid": SID,
        "SmsSid": SID,
        "SmsStatus": "received",
        "To": "rcs:MyUtility_agent",
    }.items()
)
ATTEMPT = "att_01jmz3x5e8q7v9k2r4t6w8y0ab"
FORMS = {
    "sms": (SMS, HOOK),
    "reply": (REPLY, HOOK),
    "callback": (CALLBACK, f"{HOOK}?attempt={ATTEMPT}"),
    "loose": (LOOSE, HOOK),
}
