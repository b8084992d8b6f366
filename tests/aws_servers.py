"""An AWS on loopback for what no emulator plays: End User Messaging SMS, and an account's set-up.
Beside them S3, as far as files are put there.

Every request of JSON is checked with botocore's own model of the service: its target, and each
member's type, length, range, pattern and words. Queries (SNS, STS) are answered from `state`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import format_datetime
from functools import cache
from typing import Any
from xml.sax.saxutils import escape

import pytest

from gateway.clock import SystemClock
from gateway.domain import FetchedMedia
from providers import _aws_media, _fetch
from tests.vendors import Behaviour, LoopbackVendor, Reply, Request

TARGET = "PinpointSMSVoiceV2."
SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/([a-z]+-[a-z]+-\d)/([a-z0-9-]+)/aws4_request"
)


@contextmanager
def files_of_others(
    monkeypatch: pytest.MonkeyPatch, kind: str, data: bytes
) -> Iterator[LoopbackVendor]:
    """Where the files are that AWS is to send, at https://files.example.com: the guarded client is
    opened to this machine, and the address is taken for one of https."""
    monkeypatch.setattr(_fetch, "SCHEMES", ("http", "https"))
    monkeypatch.setattr(_fetch, "is_public", lambda address: address == "127.0.0.1")
    with LoopbackVendor() as made:
        made.always = Reply(headers={"Content-Type": kind}, body=data)
        there = _fetch.fetch

        async def fetch(url: str, **named: Any) -> FetchedMedia:
            return await there(url.replace("https://files.example.com", made.url), **named)

        monkeypatch.setattr(_aws_media, "fetch", fetch)
        yield made


@cache
def model(service: str) -> Any:
    """Botocore's model of a service."""
    import botocore.session

    return botocore.session.Session().get_service_model(service)


def faults(shape: Any, value: Any, at: str = "") -> Iterator[str]:
    """What of a value its shape does not allow; the validator of botocore leaves patterns, words
    and greatest lengths to the service."""
    rules = shape.metadata
    if shape.type_name == "structure":
        for name, each in value.items():
            yield from faults(shape.members[name], each, f"{at}.{name}")
    elif shape.type_name == "list":
        for each in value:
            yield from faults(shape.member, each, f"{at}[]")
    elif shape.type_name == "map":
        for key, each in value.items():
            yield from faults(shape.key, key, f"{at}.{key}")
            yield from faults(shape.value, each, f"{at}.{key}")
    size = len(value) if shape.type_name in ("string", "list", "map") else value
    if isinstance(size, int) and not rules.get("min", size) <= size <= rules.get("max", size):
        yield f"{at} is out of its range"
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        yield f"{at} is not of its pattern"
    if getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{at} is none of its words"


def invalid(request: Request) -> list[str]:
    """What is wrong with a request of JSON, as far as its service's model tells."""
    from botocore.validate import ParamValidator

    service = model("pinpoint-sms-voice-v2")
    target = request.headers.get("x-amz-target", "")
    if not target.startswith(TARGET) or target[len(TARGET) :] not in service.operation_names:
        return [f"the target {target!r}"]
    shape = service.operation_model(target[len(TARGET) :]).input_shape
    found = [] if request.headers["content-type"] == "application/x-amz-json-1.0" else ["the type"]
    signed = SIGNED.match(request.headers.get("authorization", ""))
    if signed is None or signed[2] != "sms-voice":
        found.append("the signature's scope")
    report = ParamValidator().validate(request.json, shape)
    if report.has_errors():
        return [*found, report.generate_report()]
    return [*found, *faults(shape, request.json)]


def refusal(code: str, status: int = 400, **more: Any) -> Reply:
    """An error as a service of JSON tells it."""
    said = {"__type": f"com.amazonaws.pinpointsmsvoicev2#{code}", "Message": "in AWS's words"}
    return Reply(
        status=status,
        headers={"Content-Type": "application/x-amz-json-1.0"},
        body=json.dumps({**said, **more}).encode(),
    )


def query_error(code: str, status: int = 400) -> Reply:
    """An error as a service of queries tells it."""
    said = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>in AWS's words</Message></Error>"
    body = f"<ErrorResponse>{said}<RequestId>1</RequestId></ErrorResponse>"
    return Reply(status=status, headers={"Content-Type": "text/xml"}, body=body.encode())


def s3_error(code: str, status: int, **headers: str) -> Reply:
    """An error as S3 tells it."""
    body = f"<Error><Code>{code}</Code><Message>in AWS's words</Message></Error>"
    return Reply(
        status=status, headers={"Content-Type": "application/xml", **headers}, body=body.encode()
    )


class LoopbackAws(LoopbackVendor):
    """An account in one region. What was refused by the model stands in `refused`."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.refused: list[str] = []
        self.errors: dict[str, Reply] = {}  # by operation
        self.date: str | None = None  # of every answer
        self.state: dict[str, Any] = {
            "DescribeSpendLimits": {"SpendLimits": []},
            "DescribeAccountAttributes": {
                "AccountAttributes": [{"Name": "ACCOUNT_TIER", "Value": "PRODUCTION"}]
            },
            "DescribeConfigurationSets": {"ConfigurationSets": []},
            "sandbox": "false",
            "sms": {"MonthlySpendLimit": "200"},
            "topics": {},  # ARN -> attributes
            "subscriptions": {},  # ARN -> attributes, with TopicArn and Endpoint
        }
        self.files: dict[str, tuple[str, bytes]] = {}  # path -> type and content

    @property
    def sent(self) -> list[dict[str, Any]]:
        """What was asked to be sent."""
        targets = [f"{TARGET}Send{kind}Message" for kind in ("Text", "Media")]
        return [r.json for r in self.requests if r.headers.get("x-amz-target") in targets]

    def behave(self, request: Request) -> Behaviour | None:
        """By the plan first; then as the service would."""
        planned = super().behave(request)
        if planned is not None:
            return planned
        if request.headers.get("authorization", "").find("/s3/aws4_request") > 0:
            return self.dated(self.storage(request))
        target = request.headers.get("x-amz-target")
        operation = target.partition(".")[2] if target else request.form["Action"][0]
        if operation in self.errors:
            return self.dated(self.errors[operation])
        return self.dated(self.voice(operation, request) if target else self.query(request))

    def dated(self, reply: Reply) -> Reply:
        """With the server's own clock."""
        date = self.date or format_datetime(SystemClock().now(), usegmt=True)
        return Reply(status=reply.status, headers={**reply.headers, "Date": date}, body=reply.body)

    def voice(self, operation: str, request: Request) -> Reply:
        """End User Messaging SMS."""
        wrong = invalid(request)
        if wrong:
            self.refused += wrong
            return refusal("ValidationException", Reason="FIELD_VALIDATION_FAILED")
        said = self.state.get(operation, {"MessageId": f"message-{self.count}"})
        return Reply(body=json.dumps(said).encode())

    def storage(self, request: Request) -> Reply:
        """S3, by paths. Every bucket is there, and in the region."""
        name = request.path.partition("?")[0].rstrip("/")
        bucket = name.count("/") == 1
        operation = "HeadBucket" if bucket else f"{request.method.capitalize()}Object"
        if operation in self.errors:
            return self.errors[operation]
        if operation == "PutObject":
            return self.put(request)
        if operation == "DeleteObject":
            self.files.pop(request.path, None)
            return Reply(status=204)
        if operation == "GetObject":
            kind, data = self.files[request.path]
            return Reply(headers={"Content-Type": kind}, body=data)
        signed = SIGNED.match(request.headers["authorization"])
        assert signed is not None
        return Reply(headers={"x-amz-bucket-region": signed[1]})

    def put(self, request: Request) -> Reply:
        """S3's PutObject, with what it is to be checked by."""
        named = request.headers
        signed = SIGNED.match(named.get("authorization", ""))
        digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        if signed is None or signed[2] != "s3" or named.get("x-amz-checksum-sha256") != digest:
            self.refused.append("the file's signature, or its checksum")
            return s3_error("BadDigest", 400)
        self.files[request.path] = (named["content-type"], request.body)
        return Reply(headers={"Content-Type": "application/xml"})

    def query(self, request: Request) -> Reply:
        """SNS and STS."""
        from botocore import xform_name

        given = {name: values[0] for name, values in request.form.items()}
        operation = given["Action"]
        said = getattr(self, xform_name(operation))(given)
        if isinstance(said, Reply):
            return said
        inner = f"<{operation}Result>{said}</{operation}Result>"
        body = f"<{operation}Response>{inner}</{operation}Response>".encode()
        return Reply(headers={"Content-Type": "text/xml"}, body=body)

    def get_caller_identity(self, given: Mapping[str, str]) -> str:
        return "<Account>123456789012</Account><Arn>arn:aws:iam::123456789012:user/u</Arn>"

    def publish(self, given: Mapping[str, str]) -> str:
        return f"<MessageId>40000000-0000-4000-8000-{self.count:012d}</MessageId>"

    def get_sms_sandbox_account_status(self, given: Mapping[str, str]) -> str:
        return f"<IsInSandbox>{self.state['sandbox']}</IsInSandbox>"

    def get_sms_attributes(self, given: Mapping[str, str]) -> str:
        return entries("attributes", self.state["sms"])

    def get_topic_attributes(self, given: Mapping[str, str]) -> str | Reply:
        topic = self.state["topics"].get(given["TopicArn"])
        return query_error("NotFound", 404) if topic is None else entries("Attributes", topic)

    def set_topic_attributes(self, given: Mapping[str, str]) -> str:
        self.state["topics"][given["TopicArn"]][given["AttributeName"]] = given["AttributeValue"]
        return ""

    def list_subscriptions_by_topic(self, given: Mapping[str, str]) -> str:
        found = [
            (arn, one)
            for arn, one in self.state["subscriptions"].items()
            if one["TopicArn"] == given["TopicArn"]
        ]
        start = int(given.get("NextToken", "0"))
        members = "".join(
            f"<member><SubscriptionArn>{one.get('Shown', arn)}</SubscriptionArn><Protocol>https"
            f"</Protocol><Endpoint>{escape(one['Endpoint'])}</Endpoint></member>"
            for arn, one in found[start : start + 2]
        )
        more = f"<NextToken>{start + 2}</NextToken>" if len(found) > start + 2 else ""
        return f"<Subscriptions>{members}</Subscriptions>{more}"

    def get_subscription_attributes(self, given: Mapping[str, str]) -> str:
        return entries("Attributes", self.state["subscriptions"][given["SubscriptionArn"]])

    def set_subscription_attributes(self, given: Mapping[str, str]) -> str:
        one = self.state["subscriptions"][given["SubscriptionArn"]]
        one[given["AttributeName"]] = given["AttributeValue"]
        return ""

    def subscribe(self, given: Mapping[str, str]) -> str:
        assert given["Protocol"] == "https"
        arn = f"{given['TopicArn']}:subscription-{len(self.state['subscriptions'])}"
        named = {
            given[f"Attributes.entry.{n}.key"]: given[f"Attributes.entry.{n}.value"]
            for n in range(1, 9)
            if f"Attributes.entry.{n}.key" in given
        }
        known = {"TopicArn": given["TopicArn"], "Endpoint": given["Endpoint"]}
        made = self.state["subscriptions"]
        arn = next((a for a, one in made.items() if known.items() <= one.items()), arn)
        made.setdefault(arn, {**named, **known})
        return f"<SubscriptionArn>{arn}</SubscriptionArn>"


def entries(name: str, values: Mapping[str, str]) -> str:
    """A map as queries are answered with."""
    inner = "".join(
        f"<entry><key>{key}</key><value>{escape(value)}</value></entry>"
        for key, value in values.items()
    )
    return f"<{name}>{inner}</{name}>"
