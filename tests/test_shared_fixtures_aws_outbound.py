"""Requests that boto3 was seen to send for SMS and WhatsApp, with AWS's answers, in a folder beside
the repository, where there is one: ours say the same, and the answers mean what they are."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from gateway.domain import Receipt
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
)
from tests.aws_social import invalid, parameters, refusal
from tests.outbound_cases import Setup, entry_of, message, provider, usual
from tests.vendors import LoopbackVendor, Reply, Request

pytestmark = pytest.mark.anyio

FOLDER = Path("shared/wire/fixtures/aws/outbound")
# What each recorded message was, in our words: the configuration, and the message.
SENT: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "sns-publish-sms": (
        "publish",
        {
            "AWS_SNS_SMS_MAX_PRICE": "0.50",
            "AWS_SMS_INDIA_ENTITY_ID": "1101456324675321",
            "AWS_SMS_INDIA_TEMPLATE_ID": "1107164567890",
        },
        {
            "to": "+15005550006",
            "body": "Your code is 1234 – ünïcødé",
            "sender": {"address": "+18005550100", "pool": "MYBRAND"},
        },
    ),
    "smsvoice-send-text": (
        "text",
        {"AWS_SNS_SMS_MAX_PRICE": "0.50", "AWS_SMS_INDIA_ENTITY_ID": "1101"},
        {
            "to": "+14255550156",
            "body": "Hello – 你好",
            "sender": {"address": "+12065550152"},
            "validity": 3600,
        },
    ),
    "smsvoice-send-media": (
        "text",
        {"AWS_MEDIA_BUCKET": "bucket"},
        {
            "to": "+14255550156",
            "body": "pic",
            "type": "image",
            "sender": {"address": "+12065550152"},
            "media": [{"url": "s3://bucket/a.jpg"}],
        },
    ),
}
# What the recordings say and we do not, or in other words: our ids, and options that we leave.
NUMBER = "phone-number-id-976c72a700aac43eaf573ae050000000"
READ = "wamid.HBgLMTQyNTY5ODgzMDIVAgASGCBDNzBDRjM5MDU2ODEwMDkwREY4ODBDRDE0RjVGRkexample"
MEDIA = "530339869524171"
PICTURE = {
    "to": "+14255550150",
    "type": "image",
    "media": [{"url": "s3://my-bucket/out/receipt.png"}],
}
STATEMENT = {"name": "statement", "language": "en_US", "variables": {"1": "1000"}}
# The same of WhatsApp: what is done with a provider, and which of its requests is the recorded one.
SOCIAL: dict[str, tuple[Callable[[Any], Awaitable[Any]], int]] = {
    "social-send-text": (lambda made: sending(made, to="+14255550150", body="Olá 👋"), 0),
    "social-send-template": (
        lambda made: sending(made, to="+14255550150", type="template", template=STATEMENT),
        0,
    ),
    "social-mark-read": (lambda made: made.mark_read(READ, typing=True), 0),
    "social-post-media": (lambda made: sending(made, **PICTURE), 0),
    "social-delete-media": (lambda made: sending(made, **PICTURE), 2),  # what was not sent
    "social-get-media": (lambda made: made.fetch_media(f"{NUMBER}/{MEDIA}", 100), 0),
}
OURS = {"Context", "ConfigurationSetName", "DryRun", "ProtectConfigurationId"}
HEADERS = ("content-type", "x-amz-target")
# What each recorded answer means.
ANSWERS: dict[str, tuple[type[Any], str]] = {
    "sns-publish-sms": (Receipt, "567910cd-659e-55d4-8ccb-5aaf14679dc0"),
    "sns-publish-sms-500": (Ambiguous, "InternalError"),
    "sns-publish-sms-auth": (AccountRefused, "AuthorizationError"),
    "sns-publish-sms-invalid-number": (Rejected, "InvalidParameter"),
    "sns-publish-sms-optedout": (Rejected, "OptedOut"),
    "sns-publish-sms-throttled": (Throttled, "Throttling"),
    "social-mark-read": (Ambiguous, "http_200"),  # no answer to a message: there is no id
    "social-send-dependency": (Ambiguous, "DependencyException"),
    "social-send-invalid": (Rejected, "InvalidParametersException"),
    "social-send-notfound": (SenderRefused, "ResourceNotFoundException"),
    "social-send-template": (Receipt, "6d69f07a-c317-4278-9d5c-6a84078419ec"),
    "social-send-text": (Receipt, "6d69f07a-c317-4278-9d5c-6a84078419ec"),
    "social-send-throttled": (Throttled, "ThrottledRequestException"),
    "smsvoice-optedout": (Rejected, "DESTINATION_PHONE_NUMBER_OPTED_OUT"),
    "smsvoice-quota": (AccountRefused, "MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT"),
    "smsvoice-send-media": (Receipt, "5e3b8790-60c0-4430-9b2b-658bdexample"),
    "smsvoice-send-text": (Receipt, "862a8790-60c0-4430-9b2b-658bdexample"),
    "smsvoice-throttled": (Throttled, "ThrottlingException"),
    "smsvoice-validation": (Rejected, "FIELD_VALIDATION_FAILED"),
}


def folder() -> Path | None:
    """The collection, looked for beside the repository and above."""
    above = Path(__file__).resolve().parents
    return next((each / FOLDER for each in above if (each / FOLDER).is_dir()), None)


def collected() -> dict[str, dict[str, Any]]:
    """The recorded sends of SMS, and everything of WhatsApp, by name."""
    found = folder()
    kinds = ("sns-publish-*.json", "smsvoice-*.json", "social-*.json")
    paths = [path for kind in kinds for path in found.glob(kind)] if found else []
    return {path.stem: json.loads(path.read_text()) for path in sorted(paths)}


CASES = collected()


def test_the_recordings_are_all_looked_at_where_the_folder_is() -> None:
    known = {*ANSWERS, *SOCIAL}
    assert set(CASES) == (known if folder() is not None else set())


def setup_for(case: dict[str, Any]) -> Setup:
    if case["service"] == "socialmessaging":
        return entry_of("aws_whatsapp")
    return entry_of("aws_sns", "publish" if case["service"] == "sns" else "text")


def fields_of(body: str) -> dict[str, Any]:
    return dict(json.loads(body)) if body.startswith("{") else dict(parse_qs(body))


def attributes(fields: dict[str, Any]) -> dict[str, Any]:
    """A form's fields with its attributes by name: their numbers are nobody's concern."""
    plain = {name: value for name, value in fields.items() if ".entry." not in name}
    for number in range(1, 20):
        at = f"MessageAttributes.entry.{number}."
        if f"{at}Name" in fields:
            [name] = fields[f"{at}Name"]
            plain[name] = (fields[f"{at}Value.DataType"], fields[f"{at}Value.StringValue"])
    return plain


async def sending(made: Any, **fields: Any) -> None:
    """Sends a WhatsApp message, whatever is said to it."""
    with suppress(ProviderError):
        await made.send(message(channel="whatsapp", sender={"pool": NUMBER}, **fields))


if CASES:

    @pytest.mark.parametrize("name", SOCIAL)
    async def test_our_request_about_whatsapp_is_the_recorded_one(name: str) -> None:
        setup, (act, place) = entry_of("aws_whatsapp"), SOCIAL[name]
        refused = refusal("InvalidParametersException")
        with LoopbackVendor() as vendor:
            vendor.plan.append(Reply(body=json.dumps({"mediaId": MEDIA}).encode()))
            vendor.always = refused
            if "media" not in name:
                vendor.plan.clear()
            more = {"AWS_MEDIA_BUCKET": "my-bucket", "AWS_WHATSAPP_PHONE_NUMBER_ID": NUMBER}
            async with provider(setup, vendor.url, **more) as made:
                with suppress(ProviderError):
                    await act(made)
                async with asyncio.timeout(20):
                    while len(vendor.requests) <= place:  # what is done beside
                        await asyncio.sleep(0.01)
        theirs, ours = CASES[name]["request"], vendor.requests[place]
        recorded = {key.lower(): value for key, value in theirs["headers"].items()}
        assert list(invalid(ours)) == []
        assert (ours.method, ours.path.partition("?")[0]) == (
            theirs["method"],
            theirs["path"].partition("?")[0],
        )
        assert ours.headers.get("content-type") == recorded.get("content-type")
        assert signed_names(ours.headers["authorization"]) >= signed_names(
            recorded["authorization"]
        )
        expected = said(parameters(recording(theirs)))
        if "destinationS3File" in expected:
            expected["destinationS3File"]["key"] = "default/inbound/"  # a folder of each tenant's
        assert said(parameters(ours)) == expected

    @pytest.mark.parametrize("name", SENT)
    async def test_our_request_is_the_recorded_one(name: str) -> None:
        variant, variables, fields = SENT[name]
        setup = entry_of("aws_sns", variant)
        with LoopbackVendor(answer=setup.data["answer"]) as vendor:
            async with provider(setup, vendor.url, **variables) as made:
                await made.send(message(**fields))
        ours: Request = vendor.requests[0]
        theirs = CASES[name]["request"]
        recorded = {key.lower(): value for key, value in theirs["headers"].items()}
        assert (ours.method, ours.path) == (theirs["method"], theirs["path"])
        for header in HEADERS:
            assert ours.headers.get(header) == recorded.get(header)
        assert signed_names(ours.headers["authorization"]) >= signed_names(
            recorded["authorization"]
        )
        expected = attributes(fields_of(theirs["body"]))
        given = attributes(dict(ours.fields))
        assert {k: v for k, v in given.items() if k not in OURS} == {
            k: v for k, v in expected.items() if k not in OURS
        }

    @pytest.mark.parametrize("name", ANSWERS)
    async def test_a_recorded_answer_means_what_it_is(name: str) -> None:
        case = CASES[name]
        said = case["response"]
        with LoopbackVendor() as vendor:
            vendor.always = Reply(
                status=said["status"], headers=said["headers"], body=said["body"].encode()
            )
            async with provider(setup_for(case), vendor.url) as made:
                result = await outcome(made, setup_for(case))
            assert vendor.count == 1
        known = result.provider_message_id if isinstance(result, Receipt) else result.code
        assert (type(result), known) == ANSWERS[name]


def recording(request: dict[str, Any]) -> Request:
    """A recorded request as one that was heard."""
    head = f"{request['method']} {request['path']} HTTP/1.1\r\n\r\n"
    return Request(head.encode(), request["body"].encode())


def said(given: dict[str, Any]) -> dict[str, Any]:
    """What a request about WhatsApp says, but for our own attempt."""
    if "message" not in given:
        return given
    inner = json.loads(given["message"])
    inner.pop("biz_opaque_callback_data", None)
    return {**given, "message": inner}


def signed_names(authorization: str) -> set[str]:
    """The headers that a signature covers."""
    return set(authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";"))


async def outcome(made: Any, setup: Setup) -> Receipt | ProviderError:
    """The receipt, or the error instead of it."""
    try:
        receipt: Receipt = await made.send(usual(setup, body="x"))
    except ProviderError as error:
        return error
    return receipt
