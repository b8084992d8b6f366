"""Requests that boto3 was seen to send for SMS, with AWS's answers, in a folder beside the
repository, where there is one: ours say the same, and the answers mean what they are."""

from __future__ import annotations

import json
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
    Throttled,
)
from tests.outbound_cases import Setup, entry_of, message, provider
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
    """The recorded sends of SMS, by name."""
    found = folder()
    paths = [*found.glob("sns-publish-*.json"), *found.glob("smsvoice-*.json")] if found else []
    return {path.stem: json.loads(path.read_text()) for path in sorted(paths)}


CASES = collected()


def test_the_recordings_are_all_looked_at_where_the_folder_is() -> None:
    assert set(CASES) == (set(ANSWERS) if folder() is not None else set())


def setup_for(case: dict[str, Any]) -> Setup:
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


if CASES:

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

    @pytest.mark.parametrize("name", CASES)
    async def test_a_recorded_answer_means_what_it_is(name: str) -> None:
        case = CASES[name]
        said = case["response"]
        with LoopbackVendor() as vendor:
            vendor.always = Reply(
                status=said["status"], headers=said["headers"], body=said["body"].encode()
            )
            async with provider(setup_for(case), vendor.url) as made:
                result = await outcome(made)
            assert vendor.count == 1
        known = result.provider_message_id if isinstance(result, Receipt) else result.code
        assert (type(result), known) == ANSWERS[name]


def signed_names(authorization: str) -> set[str]:
    """The headers that a signature covers."""
    return set(authorization.partition("SignedHeaders=")[2].partition(",")[0].split(";"))


async def outcome(made: Any) -> Receipt | ProviderError:
    """The receipt, or the error instead of it."""
    try:
        receipt: Receipt = await made.send(message(body="x"))
    except ProviderError as error:
        return error
    return receipt
