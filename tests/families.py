"""Every vendor that has a wire, in one shape: what it is sent, what it answers, what it posts.

A stand-in plays its vendor on loopback and signs as it does, apart from the code under test. The
table is by the names of `tests/cases`; a test compares it with the catalogue.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any, ClassVar, NoReturn, Protocol
from urllib.parse import parse_qs, urlencode, urlsplit

import requests

from gateway.domain import Status
from tests.aws_account import KEY_ID, REGION, SECRET
from tests.aws_servers import LoopbackAws, query_error, refusal
from tests.aws_social import NUMBER as NUMBER_ID, LoopbackSocial, refusal as social_refusal
from tests.outbound_cases import entry_of
from tests.running import ACCOUNT, OURS, PUBLIC, TOKEN, Client, inbound_form, sid, twilio
from tests.sns_signing import TOPIC, headers, laid_out, notification, signer, stamp
from tests.vendors import LoopbackVendor, Reply, Request

PERSON = "+15550100001"
PEOPLE = (PERSON, "+15550100002")
WAIT = 1  # seconds that a vendor asks for when it throttles
SIGNER = signer("emulated", datetime(2020, 1, 1, tzinfo=UTC), datetime(2049, 1, 1, tzinfo=UTC))
CERTIFICATE = "/_aws/sns/SimpleNotificationService-6c6f.pem"


@dataclass(frozen=True)
class Post:
    """A webhook's request as its vendor makes it."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    def to(self, client: Client) -> requests.Response:
        """Posts it."""
        return client.session.post(
            client.url + self.path, data=self.body, headers=dict(self.headers), timeout=20
        )


@dataclass(frozen=True)
class Sent:
    """A sending request. `attempt` is what the vendor echoes, if it does."""

    to: str
    body: str
    sender: str | None
    attempt: str | None = None
    callback: str = ""


class Family(Protocol):
    """One vendor on loopback."""

    provider: str  # as the API names it
    channel: str  # on which it sends here
    reports: bool  # what became of a message
    hears: bool  # posts to us
    people: tuple[str, str]  # whom it reaches
    asks: Mapping[str, Any]  # what a message has beside its text
    vendor: LoopbackVendor
    throttled: Reply
    refused: Reply  # the message
    unauthorised: Reply

    def variables(self) -> dict[str, str]:
        """The settings of a gateway that uses it."""
        ...

    def sent(self) -> list[Sent]:
        """Every sending request so far."""
        ...

    def new_id(self) -> str:
        """An id as it gives them to messages."""
        ...

    def known_as(self, id_: str) -> str:
        """The id that a message shows once the vendor has told of it."""
        ...

    def taken(self, id_: str) -> Reply:
        """Its answer when it has taken a message."""
        ...

    def said(self, body: str, id_: str, to: str = OURS) -> Post:
        """What a person writes to us."""
        ...

    def happened(self, status: Status, sent: Sent, id_: str, *, named: bool = True) -> Post:
        """What became of a message of ours; `named`: with the attempt that it was told."""
        ...

    def forged(self, post: Post) -> Post:
        """The same with a signature that does not hold."""
        ...

    def bare(self, post: Post) -> Post:
        """The same without a signature."""
        ...


@dataclass
class Twilio:
    """Twilio's API, and its forms signed by its own SDK."""

    provider = "twilio"
    channel = "sms"
    reports = True
    hears = True
    people = PEOPLE
    asks: ClassVar[Mapping[str, Any]] = {}
    vendor: LoopbackVendor = field(default_factory=LoopbackVendor)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    throttled = Reply(
        status=429, headers={"Retry-After": str(WAIT)}, body=b'{"code": 20429, "status": 429}'
    )
    refused = Reply(status=400, body=b'{"code": 21211, "status": 400}')
    unauthorised = Reply(status=401, body=b'{"code": 20003, "status": 401}')

    def variables(self) -> dict[str, str]:
        return twilio(self.vendor.url)

    def sent(self) -> list[Sent]:
        return [_by_twilio(r) for r in self.vendor.requests if r.method == "POST"]

    def new_id(self) -> str:
        return sid(next(self.numbers))

    def known_as(self, id_: str) -> str:
        return id_

    def taken(self, id_: str) -> Reply:
        return Reply(status=201, body=json.dumps({"sid": id_, "status": "queued"}).encode())

    def said(self, body: str, id_: str, to: str = OURS) -> Post:
        return self._signed("/api/webhooks/sms", inbound_form(id_, body, From=PERSON, To=to))

    def overflowed(self, sent: Sent, id_: str) -> Post:
        """ "30001": it took a message, and then had no room for it."""
        return self.happened(Status.FAILED, sent, id_, code="30001")

    def happened(
        self, status: Status, sent: Sent, id_: str, *, named: bool = True, code: str = "30006"
    ) -> Post:
        path = sent.callback.removeprefix(PUBLIC).partition("#")[0]
        form = {
            "MessageSid": id_,
            "MessageStatus": status.value,
            "AccountSid": ACCOUNT,
            "From": sent.sender or "",
            "To": sent.to,
            **({"ErrorCode": code} if status is Status.FAILED else {}),
        }
        return self._signed(path if named else path.partition("?")[0], form)

    def _signed(self, path: str, form: Mapping[str, str]) -> Post:
        from twilio.request_validator import RequestValidator

        signature = RequestValidator(TOKEN).compute_signature(PUBLIC + path, form)
        kind = "application/x-www-form-urlencoded; charset=UTF-8"
        named = {"Content-Type": kind, "X-Twilio-Signature": signature}
        return Post(path, named, urlencode(form).encode())

    def forged(self, post: Post) -> Post:
        wrong = base64.b64encode(bytes(20)).decode()
        return replace(post, headers={**post.headers, "X-Twilio-Signature": wrong})

    def bare(self, post: Post) -> Post:
        return replace(post, headers={"Content-Type": post.headers["Content-Type"]})


def _by_twilio(request: Request) -> Sent:
    form = {name: values[0] for name, values in request.form.items()}
    callback = form["StatusCallback"]
    attempt = parse_qs(urlsplit(callback).query)["attempt"][0]
    return Sent(form["To"], form["Body"], form.get("From"), attempt, callback)


@dataclass
class AwsTopics:
    """What AWS posts, whichever of its products sends: envelopes of SNS."""

    vendor: LoopbackVendor
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def variables(self) -> dict[str, str]:
        """The settings of the account, of which the stand-in is all."""
        self.vendor.pages[CERTIFICATE] = Reply(body=SIGNER.pem)
        return {
            "GATEWAY_ENV": "development",  # an emulator of SNS is for that only
            "MESSAGING_PROVIDER": "aws",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.vendor.url,
            "AWS_SNS_TOPIC_ARNS": TOPIC,
            "AWS_SNS_EMULATOR_URL": self.vendor.url,
        }

    def new_id(self) -> str:
        """An id as AWS gives them to messages."""
        return f"40000000-0000-4000-8000-{next(self.numbers):012d}"

    def said(self, body: str, id_: str, to: str) -> Post:
        """ "Two-way SMS messaging"."""
        inner = {
            "originationNumber": PERSON,
            "destinationNumber": to,
            "messageKeyword": "KEYWORD_1",
            "messageBody": body,
            "inboundMessageId": id_,
        }
        return self.posted("/api/webhooks/sms", inner)

    def posted(self, path: str, inner: Mapping[str, Any]) -> Post:
        """The envelope of a notification, signed now."""
        fields = notification(inner, next(self.numbers), Timestamp=stamp(datetime.now(UTC)))
        envelope = SIGNER.signed(fields, url=self.vendor.url + CERTIFICATE)
        return Post(path, headers(), laid_out(envelope))

    def changed(self, post: Post, signature: str | None) -> Post:
        """The same envelope with another signature, or none."""
        envelope = {**json.loads(post.body), "Signature": signature}
        kept = {name: value for name, value in envelope.items() if value is not None}
        return replace(post, body=laid_out(kept))


@dataclass
class AwsText:
    """End User Messaging SMS: two ways, with an event for each step."""

    provider = "aws_sns"
    channel = "sms"
    reports = True
    hears = True
    people = PEOPLE
    asks: ClassVar[Mapping[str, Any]] = {}
    vendor: LoopbackAws = field(default_factory=LoopbackAws)
    throttled = replace(refusal("ThrottlingException"), headers={"Retry-After": str(WAIT)})
    refused = refusal("ValidationException", Reason="INVALID_PARAMETER")
    unauthorised = refusal("UnrecognizedClientException")

    def __post_init__(self) -> None:
        self.topics = AwsTopics(self.vendor)

    def variables(self) -> dict[str, str]:
        more = {"AWS_SMS_ORIGINATION_IDENTITY": OURS, "AWS_SMS_CONFIGURATION_SET": "gateway"}
        return {**self.topics.variables(), **more}

    def sent(self) -> list[Sent]:
        return [
            Sent(
                said["DestinationPhoneNumber"],
                said["MessageBody"],
                said["OriginationIdentity"],
                said["Context"]["attempt_id"],
            )
            for said in self.vendor.sent
        ]

    def new_id(self) -> str:
        return self.topics.new_id()

    def known_as(self, id_: str) -> str:
        return id_

    def taken(self, id_: str) -> Reply:
        return Reply(body=json.dumps({"MessageId": id_}).encode())

    def said(self, body: str, id_: str, to: str = OURS) -> Post:
        return self.topics.said(body, id_, to)

    def happened(self, status: Status, sent: Sent, id_: str, *, named: bool = True) -> Post:
        """ "Example event data"."""
        words = {Status.SENT: "SENT", Status.DELIVERED: "DELIVERED", Status.FAILED: "FAILED"}
        event = {
            "eventType": f"TEXT_{words[status]}",
            "eventVersion": "1.0",
            "eventTimestamp": int(datetime.now(UTC).timestamp() * 1000),
            "isFinal": status is not Status.SENT,
            "originationPhoneNumber": sent.sender,
            "destinationPhoneNumber": sent.to,
            "messageId": id_,
            "messageStatus": words[status],
            "context": {"attempt_id": sent.attempt} if named else {},
        }
        return self.topics.posted("/api/webhooks/aws-sns", event)

    def forged(self, post: Post) -> Post:
        return self.topics.changed(post, base64.b64encode(bytes(256)).decode())

    def bare(self, post: Post) -> Post:
        return self.topics.changed(post, None)


@dataclass
class AwsPublish:
    """SNS alone: it takes texts and tells nothing of them. People's answers come all the same,
    where a number has two-way SMS."""

    provider = "aws_sns"
    channel = "sms"
    reports = False
    hears = True
    people = PEOPLE
    asks: ClassVar[Mapping[str, Any]] = {}
    vendor: LoopbackVendor = field(
        default_factory=lambda: LoopbackVendor(answer=entry_of("aws_sns", "publish").data["answer"])
    )
    throttled = replace(query_error("Throttled"), headers={"Retry-After": str(WAIT)})
    refused = query_error("InvalidParameter")
    unauthorised = query_error("InvalidClientTokenId", 403)

    def __post_init__(self) -> None:
        self.topics = AwsTopics(self.vendor)

    def variables(self) -> dict[str, str]:
        return self.topics.variables()

    def sent(self) -> list[Sent]:
        posts = [r.form for r in self.vendor.requests if r.method == "POST"]
        return [Sent(f["PhoneNumber"][0], f["Message"][0], _number(f)) for f in posts]

    def new_id(self) -> str:
        return self.topics.new_id()

    def known_as(self, id_: str) -> str:
        return id_

    def taken(self, id_: str) -> Reply:
        said = f"<PublishResult><MessageId>{id_}</MessageId></PublishResult>"
        return Reply(body=f"<PublishResponse>{said}</PublishResponse>".encode())

    def said(self, body: str, id_: str, to: str = OURS) -> Post:
        return self.topics.said(body, id_, to)

    def happened(self, status: Status, sent: Sent, id_: str, *, named: bool = True) -> Post:
        raise AssertionError("nothing is told of what was published")

    def forged(self, post: Post) -> Post:
        return self.topics.changed(post, base64.b64encode(bytes(256)).decode())

    def bare(self, post: Post) -> Post:
        return self.topics.changed(post, None)


@dataclass
class AwsWhatsapp:
    """End User Messaging Social: WhatsApp's own objects, both ways. AWS's id stands for our number,
    which only what comes in tells."""

    provider = "aws_whatsapp"
    channel = "whatsapp"
    reports = True
    hears = True
    people = PEOPLE
    asks: ClassVar[Mapping[str, Any]] = {}
    vendor: LoopbackSocial = field(default_factory=LoopbackSocial)
    throttled = social_refusal("ThrottledRequestException", 429, **{"Retry-After": str(WAIT)})
    refused = social_refusal("InvalidParametersException")
    unauthorised = social_refusal("UnrecognizedClientException", 403)
    number = OURS  # as people see it

    def __post_init__(self) -> None:
        self.topics = AwsTopics(self.vendor)

    def variables(self) -> dict[str, str]:
        return {**self.topics.variables(), "AWS_WHATSAPP_PHONE_NUMBER_ID": NUMBER_ID}

    def sent(self) -> list[Sent]:
        return [
            Sent(said["to"], said["text"]["body"], self.number, said["biz_opaque_callback_data"])
            for said in self.vendor.messages
            if "text" in said
        ]

    def new_id(self) -> str:
        return self.topics.new_id()

    def known_as(self, id_: str) -> str:
        return f"wamid.{id_}"  # the network's: what people's answers name

    def taken(self, id_: str) -> Reply:
        return Reply(body=json.dumps({"messageId": id_}).encode())

    def said(self, body: str, id_: str, to: str = OURS) -> Post:
        """ "Messages", of one person to our number."""
        self.number = to
        message = {
            "from": PERSON.removeprefix("+"),
            "id": id_,
            "timestamp": str(int(datetime.now(UTC).timestamp())),
            "type": "text",
            "text": {"body": body},
        }
        contact = {"profile": {"name": "Ada"}, "wa_id": PERSON.removeprefix("+")}
        return self._posted({"contacts": [contact], "messages": [message]})

    def happened(self, status: Status, sent: Sent, id_: str, *, named: bool = True) -> Post:
        """ "Statuses"; AWS's own id stands in the event's header."""
        told = {
            "id": f"wamid.{id_}",
            "status": status.value,
            "timestamp": str(int(datetime.now(UTC).timestamp())),
            "recipient_id": sent.to.removeprefix("+"),
        }
        if status is Status.FAILED:
            told["errors"] = [{"code": 131026, "title": "in Meta's words"}]  # type: ignore[assignment]
        if named:
            told["biz_opaque_callback_data"] = sent.attempt or ""
        return self._posted({"statuses": [told]}, messageId=id_)

    def _posted(self, value: Mapping[str, Any], **more: str) -> Post:
        metadata = {
            "display_phone_number": self.number.removeprefix("+"),
            "phone_number_id": "7291",
        }
        inner = {"messaging_product": "whatsapp", "metadata": metadata, **value}
        entry = {"id": "1393", "changes": [{"value": inner, "field": "messages"}]}
        arn = "arn:aws:social-messaging:eu-central-1:123456789012"
        event = {
            "context": {
                "MetaWabaIds": [{"wabaId": "1393", "arn": f"{arn}:waba/{'1' * 32}"}],
                "MetaPhoneNumberIds": [
                    {
                        "metaPhoneNumberId": "7291",
                        "arn": f"{arn}:phone-number-id/{NUMBER_ID.rpartition('-')[2]}",
                    }
                ],
            },
            "whatsAppWebhookEntry": json.dumps(entry),
            "aws_account_id": "123456789012",
            "message_timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.684321927Z",
            **more,
        }
        return self.topics.posted("/api/webhooks/aws-whatsapp", event)

    def forged(self, post: Post) -> Post:
        return self.topics.changed(post, base64.b64encode(bytes(256)).decode())

    def bare(self, post: Post) -> Post:
        return self.topics.changed(post, None)


def _number(form: Mapping[str, list[str]]) -> str | None:
    """The number that it is to come from, of a Publish's attributes."""
    for at in range(1, 9):
        name = form.get(f"MessageAttributes.entry.{at}.Name")
        if name == ["AWS.MM.SMS.OriginationNumber"]:
            return form[f"MessageAttributes.entry.{at}.Value.StringValue"][0]
    return None


@dataclass
class Silent:
    """What a vendor does not do here: it posts nothing."""

    hears = False

    def said(self, body: str, id_: str, to: str = OURS) -> NoReturn:
        raise AssertionError("it posts nothing")

    def happened(self, status: Status, sent: Sent, id_: str, *, named: bool = True) -> NoReturn:
        raise AssertionError("it posts nothing")

    def forged(self, post: Post) -> NoReturn:
        raise AssertionError("it posts nothing")

    bare = forged


@dataclass
class Sendgrid(Silent):
    """SendGrid's v3 API: a yes has its id in a header."""

    provider = "sendgrid"
    channel = "email"
    reports = True
    people = ("ada@example.com", "bob@example.com")
    asks: ClassVar[Mapping[str, Any]] = {"subject": "Hello"}
    vendor: LoopbackVendor = field(
        default_factory=lambda: LoopbackVendor(answer=entry_of("sendgrid").data["answer"])
    )
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    throttled = Reply(status=429, headers={"Retry-After": str(WAIT)}, body=b'{"errors": []}')
    refused = Reply(status=400, body=b'{"errors": [{"message": "x", "field": "personalizations"}]}')
    unauthorised = Reply(status=401, body=b'{"errors": [{"message": "x", "field": null}]}')

    def variables(self) -> dict[str, str]:
        return {
            "MESSAGING_PROVIDER": "sendgrid",
            "SENDGRID_API_KEY": "SG.recognisable-8c21",
            "SENDGRID_FROM_EMAIL": "shop@example.com",
            "SENDGRID_API_URL": self.vendor.url,
        }

    def sent(self) -> list[Sent]:
        found = [request.fields for request in self.vendor.requests]
        return [
            Sent(
                mail["personalizations"][0]["to"][0]["email"],
                mail["content"][0]["value"],
                mail["from"]["email"],
                mail["custom_args"]["attempt_id"],
            )
            for mail in found
        ]

    def new_id(self) -> str:
        return f"14c5d75ce93.dfd.64b{next(self.numbers):03}"

    def taken(self, id_: str) -> Reply:
        return Reply(status=202, headers={"X-Message-Id": id_})


@dataclass
class AwsSes(Silent):
    """Amazon SES v2: an email in parts."""

    provider = "aws_ses"
    channel = "email"
    reports = True
    people = ("ada@example.com", "bob@example.com")
    asks: ClassVar[Mapping[str, Any]] = {"subject": "Hello"}
    vendor: LoopbackVendor = field(
        default_factory=lambda: LoopbackVendor(answer=entry_of("aws_ses").data["answer"])
    )
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    throttled = Reply(
        status=429,
        headers={"x-amzn-errortype": "TooManyRequestsException", "Retry-After": str(WAIT)},
        body=b'{"message": "Maximum sending rate exceeded"}',
    )
    refused = Reply(
        status=400, headers={"x-amzn-errortype": "MessageRejected"}, body=b'{"message": "x"}'
    )
    unauthorised = Reply(
        status=403,
        headers={"x-amzn-errortype": "UnrecognizedClientException"},
        body=b'{"message": "x"}',
    )

    def variables(self) -> dict[str, str]:
        return {
            "MESSAGING_PROVIDER": "aws",
            "EMAIL_PROVIDERS": "aws_ses",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.vendor.url,
            "AWS_SES_FROM_EMAIL": "shop@example.com",
        }

    def sent(self) -> list[Sent]:
        return [
            Sent(
                mail["Destination"]["ToAddresses"][0],
                mail["Content"]["Simple"]["Body"]["Text"]["Data"],
                mail["FromEmailAddress"],
                next(t["Value"] for t in mail["EmailTags"] if t["Name"] == "attempt_id"),
            )
            for mail in (request.fields for request in self.vendor.requests)
        ]

    def new_id(self) -> str:
        return f"0100017fd2f875c4-c2929163-2767-49b1-8513-{next(self.numbers):012}-000000"

    def taken(self, id_: str) -> Reply:
        return Reply(body=json.dumps({"MessageId": id_}).encode())


STAND_INS: Mapping[str, Callable[[], Family]] = {
    "aws_ses": AwsSes,
    "aws_sns-publish": AwsPublish,
    "aws_sns-text": AwsText,
    "aws_whatsapp": AwsWhatsapp,
    "sendgrid": Sendgrid,
    "twilio": Twilio,
}


@contextmanager
def at_hand(name: str) -> Iterator[Family]:
    """A vendor that listens until the block ends."""
    family = STAND_INS[name]()
    with family.vendor:
        yield family
