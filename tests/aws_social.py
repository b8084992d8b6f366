"""AWS End User Messaging Social on loopback, as far as WhatsApp messages go out by it, with S3.

Every request is read by botocore's own model of the service: its path, its parameters, and each
member's length, range and pattern; what a message holds is decoded.
"""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

from tests.aws_servers import SIGNED, LoopbackAws, faults, model, s3_error
from tests.vendors import Behaviour, Reply, Request

SERVICE = "socialmessaging"
SEND, MEDIA = "/v1/whatsapp/send", "/v1/whatsapp/media"
NUMBER = "phone-number-id-976c72a700aac43eaf573ae050000000"
ARN = "arn:aws:social-messaging:eu-central-1:123456789012"
BUCKET = "gateway-media"
KINDS = {"application/json", None}


def operation(request: Request) -> Any:
    """The operation of the service's model that a request asks for; None: there is no such."""
    service, path = model(SERVICE), urlsplit(request.path).path
    named = (service.operation_model(name) for name in service.operation_names)
    return next(
        (o for o in named if (o.http["method"], o.http["requestUri"]) == (request.method, path)),
        None,
    )


def parameters(request: Request) -> dict[str, Any]:
    """What was asked, by the names of the model: a body of JSON, or a query."""
    if request.body:
        given = dict(request.json)
        if "message" in given:
            given["message"] = base64.b64decode(given["message"], validate=True)
        return given
    query = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
    return {name: int(value) if name == "maxResults" else value for name, value in query.items()}


def invalid(request: Request) -> Iterator[str]:
    """What is wrong with a request, as far as the model tells."""
    from botocore.validate import ParamValidator

    asked = operation(request)
    if asked is None:
        yield f"no operation is {request.method} {request.path}"
        return
    signed = SIGNED.match(request.headers.get("authorization", ""))
    if signed is None or signed[2] != "social-messaging":
        yield "the signature's scope"
    if request.headers.get("content-type") not in KINDS:
        yield "the type"
    given = parameters(request)
    report = ParamValidator().validate(given, asked.input_shape)
    if report.has_errors():
        yield report.generate_report()
    else:
        yield from faults(asked.input_shape, given)


def message_of(request: Request) -> dict[str, Any]:
    """WhatsApp's own object in a sending request."""
    return dict(json.loads(parameters(request)["message"]))


def refusal(code: str, status: int = 400, **headers: str) -> Reply:
    """An error as the service tells it."""
    return Reply(
        status=status,
        headers={"Content-Type": "application/json", "x-amzn-ErrorType": code, **headers},
        body=b'{"message": "in AWS\'s words, about +15550100001"}',
    )


class LoopbackSocial(LoopbackAws):
    """An account with one number. What the model does not allow stands in `refused`."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.media: dict[str, Mapping[str, Any]] = {}  # id -> where it was read from
        self.deleted: list[str] = []
        self.sent_in: dict[str, tuple[str, str, bytes]] = {}  # id -> type, ending and content
        self.listed: list[dict[str, Any]] = []  # templates
        self.words: dict[str, Any] = defaultdict(dict)  # their definitions, by Meta's id
        self.number: dict[str, Any] = {
            "phoneNumber": {
                "arn": f"{ARN}:phone-number-id/{'0' * 32}",
                "phoneNumber": "+1 555-000-9999",
                "phoneNumberId": NUMBER,
                "metaPhoneNumberId": "7291",
                "displayPhoneNumberName": "The Shop",
                "displayPhoneNumber": "+1 555-000-9999",
                "qualityRating": "GREEN",
            }
        }
        self.account: dict[str, Any] = {
            "registrationStatus": "COMPLETE",
            "eventDestinations": [
                {"eventDestinationArn": "arn:aws:sns:eu-central-1:123456789012:gateway-inbound"}
            ],
        }

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The objects that were to be sent: messages, read receipts, typing."""
        return [message_of(r) for r in self.requests if r.path == SEND]

    def behave(self, request: Request) -> Behaviour | None:
        """By the plan first, for what is sent; then as the service would."""
        asked = operation(request)
        if asked is None and request.path.startswith(f"/{BUCKET}") and request.method != "PUT":
            return self.errors.get("s3") or self.bucket(request)
        if asked is None:
            return super().behave(request)
        wrong = list(invalid(request))
        if wrong:
            self.refused += wrong
            return refusal("ValidationException")
        if asked.name in self.errors:
            return self.dated(self.errors[asked.name])
        if asked.name == "SendWhatsAppMessage":
            planned = self.plan.popleft() if self.plan else self.always
            return planned or self.dated(self.sent_one(message_of(request)))
        return self.dated(Reply(body=json.dumps(self.said(asked.name, request)).encode()))

    def sent_one(self, message: Mapping[str, Any]) -> Reply:
        """A message gets an id; a read receipt gets none."""
        said = {} if "status" in message else {"messageId": self.new_id()}
        return Reply(body=json.dumps(said).encode())

    def new_id(self) -> str:
        """An id that nobody else has."""
        return f"{self.count:08x}-c317-4278-9d5c-{self.port:012x}"

    def said(self, name: str, request: Request) -> dict[str, Any]:
        """What everything else is answered with."""
        given = parameters(request)
        if name == "PostWhatsAppMessageMedia":
            id_ = f"5303398695{self.count:05d}"
            self.media[id_] = given["sourceS3File"]
            return {"mediaId": id_}
        if name == "GetWhatsAppMessageMedia":
            kind, ending, data = self.sent_in[given["mediaId"]]
            place = given["destinationS3File"]
            key = f"/{place['bucketName']}/{place['key']}{given['mediaId']}{ending}"
            self.files[key] = (kind, data)
            return {"mimeType": kind, "fileSize": len(data) // 1000}
        if name == "DeleteWhatsAppMessageMedia":
            self.deleted.append(given["mediaId"])
            return {"success": True}
        if name == "ListWhatsAppMessageTemplates":
            return self.page(given)
        if name == "GetWhatsAppMessageTemplate":
            return {"template": json.dumps(self.words[given["metaTemplateId"]])}
        if name == "GetLinkedWhatsAppBusinessAccount":
            return {"account": self.account}
        assert name == "GetLinkedWhatsAppBusinessAccountPhoneNumber", name
        return self.number

    def bucket(self, request: Request) -> Reply:
        """S3, as far as files are read, listed and deleted."""
        path, _, query = request.path.partition("?")
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        if asked.get("list-type") == "2":
            start = f"/{BUCKET}/{asked['prefix']}"
            found = sorted(key for key in self.files if key.startswith(start))
            rows = "".join(
                f"<Contents><Key>{escape(key.removeprefix(f'/{BUCKET}/'))}</Key>"
                f"<Size>{len(self.files[key][1])}</Size></Contents>"
                for key in found
            )
            body = f"<ListBucketResult>{rows}</ListBucketResult>".encode()
            return Reply(headers={"Content-Type": "application/xml"}, body=body)
        if request.method == "DELETE":
            self.files.pop(path, None)
            return Reply(status=204)
        if path not in self.files:
            return s3_error("NoSuchKey", 404)
        kind, data = self.files[path]
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        return Reply(
            status=206, headers={"Content-Type": kind}, body=data[int(first) : int(last) + 1]
        )

    def page(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """A page of templates."""
        start, most = int(given.get("nextToken", "0")), given["maxResults"]
        more = len(self.listed) > start + most
        token = {"nextToken": str(start + most)} if more else {}
        return {"templates": self.listed[start : start + most], **token}
