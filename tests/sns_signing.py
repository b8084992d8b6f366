"""Signs envelopes as SNS does, with throw-away keys, and keeps the certificates of these.

`Source` stands where the certificates are fetched from, and counts. `python -m tests.sns_signing`
writes the golden cases anew.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from gateway.domain import WebhookRequest
from webhooks._sns_http import Unanswered
from webhooks.aws_sns import AwsSnsWebhook, AwsSnsWebhookSettings

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SINCE, UNTIL = datetime(2025, 6, 1, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC)
TOPIC = "arn:aws:sns:eu-west-1:210987654321:texts"
HOST = "https://sns.eu-west-1.amazonaws.com"
FILE = "SimpleNotificationService-a1b2c3d4e5f60718293a4b5c6d7e8f90.pem"
URL = f"{HOST}/{FILE}"
ROUTE = "https://gateway.example.com/api/webhooks/aws-sns"
TOKEN = "51b2" * 40
PERSON, OURS = "+491715550142", "+4930555500199"

ORDER = {
    "Notification": ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
    "Confirmation": [
        "Message",
        "MessageId",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ],
}


@dataclass(frozen=True)
class Signer:
    """A key and its own certificate."""

    key: Any
    pem: bytes

    def text(self, fields: Mapping[str, Any]) -> bytes:
        """What is signed: written from AWS's description, apart from the code under test."""
        order = ORDER["Notification" if fields["Type"] == "Notification" else "Confirmation"]
        return "".join(f"{n}\n{fields[n]}\n" for n in order if n in fields).encode()

    def signed(
        self, fields: Mapping[str, Any], version: str = "2", url: str = URL
    ) -> dict[str, Any]:
        """The envelope with its proof."""
        how = hashes.SHA1() if version == "1" else hashes.SHA256()
        proof = self.key.sign(self.text(fields), PKCS1v15(), how)
        return {
            **fields,
            "SignatureVersion": version,
            "Signature": base64.b64encode(proof).decode(),
            "SigningCertURL": url,
        }


@cache
def signer(
    name: str = "sns.amazonaws.com",
    since: datetime = SINCE,
    until: datetime = UNTIL,
    *,
    alternative: bool = True,
    bits: int = 2048,
) -> Signer:
    """A new key with a certificate of a name and a time."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return Signer(key, certified(key, name, since, until, alternative=alternative))


def certified(
    key: Any, name: str, since: datetime = SINCE, until: datetime = UNTIL, *, alternative: bool
) -> bytes:
    """A certificate that a key signed for itself, as PEM."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )
    if alternative:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
    made = builder.sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def elliptic() -> bytes:
    """A certificate whose key is of another kind."""
    key = ec.generate_private_key(ec.SECP256R1())
    return certified(key, "sns.amazonaws.com", alternative=True)


def stamp(at: datetime = NOW) -> str:
    """A time as SNS writes it."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def notification(message: Any, number: int = 1, **more: Any) -> dict[str, Any]:
    """A notification, not signed yet. What is not text becomes JSON."""
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False)
    return {
        "Type": "Notification",
        "MessageId": f"00000000-0000-5000-8000-{number:012d}",
        "TopicArn": TOPIC,
        "Message": text,
        "Timestamp": stamp(),
        **more,
    }


def confirmation(
    kind: str = "SubscriptionConfirmation", number: int = 1, **more: Any
) -> dict[str, Any]:
    """A confirmation of either kind, not signed yet."""
    topic, token = more.get("TopicArn", TOPIC), more.get("Token", TOKEN)
    return {
        "Type": kind,
        "MessageId": f"00000000-0000-5000-9000-{number:012d}",
        "Token": token,
        "TopicArn": topic,
        "Message": f"This is about a subscription to {topic}.\nVisit the SubscribeURL.",
        "SubscribeURL": f"{HOST}/?Action=ConfirmSubscription&TopicArn={topic}&Token={token}",
        "Timestamp": stamp(),
        **more,
    }


def laid_out(envelope: Mapping[str, Any], *, ascii_only: bool = False) -> bytes:
    """An envelope as SNS lays it out on the wire."""
    pairs = ((json.dumps(n), json.dumps(v, ensure_ascii=ascii_only)) for n, v in envelope.items())
    lines = [f"  {name} : {value}" for name, value in pairs]
    return ("{\n" + ",\n".join(lines) + "\n}").encode()


def headers(kind: str = "Notification") -> dict[str, str]:
    """The headers that come along."""
    return {
        "content-type": "text/plain; charset=UTF-8",
        "user-agent": "Amazon Simple Notification Service Agent",
        "x-amz-sns-message-type": kind,
        "x-amz-sns-topic-arn": TOPIC,
    }


def posted(body: bytes, at: datetime = NOW, **more: str) -> WebhookRequest:
    """A request with a body."""
    return WebhookRequest(
        method="POST", url=ROUTE, headers={**headers(), **more}, body=body, received_at=at
    )


def request(fields: Mapping[str, Any], by: Signer | None = None, **more: Any) -> WebhookRequest:
    """The signed request of an envelope."""
    return posted(laid_out((by or signer()).signed(fields, **more)))


def said(body: str = "Hello", number: int = 1, **more: Any) -> dict[str, Any]:
    """What a person says, as it stands in a notification."""
    return {
        "originationNumber": PERSON,
        "destinationNumber": OURS,
        "messageKeyword": "HELLO",
        "messageBody": body,
        "inboundMessageId": f"10000000-0000-4000-8000-{number:012d}",
        **more,
    }


def happened(kind: str = "TEXT_DELIVERED", number: int = 1, **more: Any) -> dict[str, Any]:
    """What became of a message of ours, as it stands in a notification."""
    return {
        "eventType": kind,
        "eventVersion": "1.0",
        "eventTimestamp": int(NOW.timestamp() * 1000) - 1500,
        "isFinal": True,
        "originationPhoneNumber": OURS,
        "destinationPhoneNumber": PERSON,
        "messageId": f"20000000-0000-4000-8000-{number:012d}",
        "messageStatus": kind.partition("_")[2],
        "messageStatusDescription": "As it stands",
        **more,
    }


@dataclass
class Source:
    """Where certificates are: by their URL, with the requests counted."""

    pages: dict[str, bytes | Exception | Callable[[], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    gate: threading.Event | None = None  # requests wait for it

    def __call__(self, url: str) -> bytes:
        """The page of a URL, as `fetch` gives it."""
        self.asked.append(url)
        if self.gate is not None:
            assert self.gate.wait(10)
        page = self.pages.get(url, Unanswered("HTTP 403", 403))
        if isinstance(page, Exception):
            raise page
        return page if isinstance(page, bytes) else page()


def source(*more: tuple[str, bytes]) -> Source:
    """A source with the usual certificate, and others."""
    return Source({URL: signer().pem, **dict(more)})


def hook(fetch: Callable[[str], bytes], topics: str = TOPIC, **more: str) -> AwsSnsWebhook:
    """A webhook for some topics."""
    settings = AwsSnsWebhookSettings.model_validate({"AWS_SNS_TOPIC_ARNS": topics, **more})
    return AwsSnsWebhook(settings, fetch=fetch)


def golden() -> dict[str, tuple[WebhookRequest, str]]:
    """The golden cases: requests, and `events`, `malformed`, `401` or `403`."""
    event = happened(
        "TEXT_CARRIER_UNREACHABLE",
        2,
        messageStatusDescription="Phone carrier is currently unreachable/unavailable",
        context={"attempt_id": "att_01jmz3x5e8q7v9k2r4t6w8y0ab", "message_id": "msg_1"},
        totalMessageParts=2,
        totalMessagePrice=0.0151,
        totalCarrierFee=0.0049,
    )
    opted_out = happened(
        "TEXT_CARRIER_UNREACHABLE", 3, messageStatusDescription="Phone number is opted out"
    )
    entry = {
        "notification": {"messageId": "30000000-0000-4000-8000-000000000001"}
        | {"timestamp": "2026-03-01 11:59:58.250"},
        "delivery": {"destination": PERSON, "priceInUSD": 0.0642, "smsType": "Transactional"}
        | {"providerResponse": "Phone carrier has blocked this message"},
        "status": "FAILURE",
    }
    other = signer("another")
    far = notification(said(), 22, Timestamp="2026-03-01T10:40:00.000Z")
    events = {
        "sms": request(notification(said('Grüße 👋\n"quoted" \\ & <b>'), 1)),
        "sms_v1_subject": request(
            notification(said("", 2, previousPublishedMessageId="20-1"), 2, Subject="a: b"),
            version="1",
        ),
        "sms_ascii": posted(
            laid_out(
                signer().signed(notification(said("é😀\u2028", 3, unheard="of"), 3)),
                ascii_only=True,
            )
        ),
        "failed": request(notification(event, 4)),
        "opted_out": request(notification(opted_out, 5)),
        "carrier_accepted": request(notification(happened("TEXT_SUCCESSFUL", 4, isFinal=False), 6)),
        "rcs_read": request(notification(happened("RCS_READ", 5, isFinal=False), 7)),
        "unheard_of_type": request(notification(happened("TEXT_PONDERED", 6), 8)),
        "log": request(notification(entry, 9)),
        "plain_text": request(notification("The lights are on.\n", 10, Subject="Hello")),
        "number": request(notification("17", 11)),
        "subscription": request(confirmation()),
        "unsubscribed": request(confirmation("UnsubscribeConfirmation", 2)),
    }
    refused = {
        "refused_other_key": (request(notification(said(), 20), by=other), "403"),
        "refused_other_topic": (
            request(notification(said(), 21, TopicArn=f"{TOPIC}-of-others")),
            "403",
        ),
        "refused_stale": (request(far), "403"),
        "refused_raw": (
            posted(json.dumps(said()).encode(), **{"x-amz-sns-rawdelivery": "true"}),
            "401",
        ),
        "refused_unsigned": (posted(laid_out(notification(said(), 23))), "401"),
    }
    malformed = request(notification(said(originationNumber=None), 30))
    return (
        {name: (made, "events") for name, made in events.items()}
        | refused
        | {"nobody_said_it": (malformed, "malformed")}
    )


def main() -> None:
    """Writes the cases with a new key."""
    write("aws_sns", golden())


def write(name: str, cases: Mapping[str, tuple[WebhookRequest, str]]) -> None:
    """Writes a webhook's golden cases; what they become is written down, to be read."""
    from gateway.cases import described
    from tests.webhook_cases import CASES

    folder = CASES / name / "inbound"
    (folder / "_served").mkdir(parents=True, exist_ok=True)
    (folder / "_served" / FILE).write_bytes(signer().pem)
    written(folder / "_settings.json", {"AWS_SNS_TOPIC_ARNS": TOPIC})
    for case, (made, outcome) in cases.items():
        expect: dict[str, Any] = {outcome: True}
        if outcome == "events":
            webhook = hook(source())
            expect = {"events": [described(e) for e in asyncio.run(events_of(webhook, made))]}
            for event in expect["events"]:
                if event["event"] == "Unrecognised":
                    del event["dedupe_key"]
        elif outcome.isdecimal():
            expect = {"refused": int(outcome)}
        (folder / f"{case}.body").write_bytes(made.body)
        written(
            folder / f"{case}.json",
            {"url": made.url, "headers": dict(made.headers), "expect": expect},
        )


async def events_of(webhook: AwsSnsWebhook, made: WebhookRequest) -> Any:
    """What a request becomes."""
    return webhook.parse(await webhook.verify(made))


def written(path: Path, data: Any) -> None:
    """A JSON file."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
