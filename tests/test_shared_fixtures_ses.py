"""Requests that boto3 was seen to send for email, with the answers of SES, and answers of SendGrid,
in a folder beside the repository, where there is one: ours say the same, and mean what they are."""

from __future__ import annotations

import json
from base64 import b64decode
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Receipt
from gateway.errors import (
    AccountRefused,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unsupported,
)
from tests.conftest import COLLECTED
from tests.outbound_cases import entry_of, provider, usual
from tests.vendors import LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

SES, SENDGRID = entry_of("aws_ses"), entry_of("sendgrid")
ID = "0100017fd2f875c4-c2929163-2767-49b1-8513-1a29e428e13{}-000000"
# What each recorded answer means; for the sender that the recording has.
ANSWERS: dict[str, tuple[type[Any], str]] = {
    "sesv2-rejected": (SenderRefused, "MessageRejected"),
    "sesv2-send-raw": (Receipt, ID.format(5)),
    "sesv2-send-simple": (Receipt, ID.format(4)),
    "sesv2-send-template": (Receipt, ID.format(6)),
    "sesv2-throttled": (Throttled, "TooManyRequestsException"),
}
OUTCOMES: dict[str, tuple[type[Any], str]] = {
    "api_sg_202": (Receipt, "14c5d75ce93.dfd.64b469"),
    "api_sg_400": (Rejected, "http_400"),
    "api_sg_401": (AccountRefused, "http_401"),
    "api_sg_413": (Unsupported, "http_413"),
    "api_sg_413_nginx_html": (Unsupported, "http_413"),
}
AWS, TWILIO = COLLECTED / "aws" / "outbound", COLLECTED / "twilio-sendgrid" / "cases"


def loaded(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def test_the_recordings_are_all_looked_at() -> None:
    assert {path.stem for path in AWS.glob("sesv2-*.json")} == set(ANSWERS)
    assert {path.stem for path in TWILIO.glob("api_sg_*.json")} == set(OUTCOMES)


async def outcome(setup: Any, reply: Reply, **fields: Any) -> tuple[type[Any], Any]:
    with LoopbackVendor() as vendor:
        vendor.always = reply
        async with provider(setup, vendor.url) as made:
            try:
                receipt: Receipt = await made.send(usual(setup, body="x", **fields))
            except ProviderError as error:
                return type(error), error.code
    return Receipt, receipt.provider_message_id


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_recorded_answer_of_ses_means_what_it_is(name: str) -> None:
    given = loaded(AWS / f"{name}.json")["response"]
    reply = Reply(status=given["status"], headers=given["headers"], body=given["body"].encode())
    assert await outcome(SES, reply, sender={"address": "a@example.com"}) == ANSWERS[name]


@pytest.mark.parametrize("name", OUTCOMES)
async def test_a_recorded_answer_of_sendgrid_means_what_it_is(name: str) -> None:
    given = loaded(TWILIO / f"{name}.json")["response"]
    body = (TWILIO / f"{name}.body").read_bytes()
    reply = Reply(status=given["status"], headers=given["headers"], body=body)
    assert await outcome(SENDGRID, reply) == OUTCOMES[name]


async def asked(**fields: Any) -> Any:
    """Our request."""
    with LoopbackVendor(answer=SES.data["answer"]) as vendor:
        async with provider(SES, vendor.url) as made:
            await made.send(usual(SES, **fields))
    return vendor.requests[0]


async def test_our_request_in_parts_says_what_the_recorded_one_says() -> None:
    theirs = loaded(AWS / "sesv2-send-simple.json")["request"]

    async def pdf(limit: int) -> bytes:
        return b"%PDF-1.4"

    file = {"url": "https://x.example/a.pdf", "filename": "a.pdf", "read": pdf}
    ours = await asked(
        sender={"address": "asa@example.com"},
        to="bob@example.com",
        subject="Hej på dig",
        body="text",
        html="<p>html</p>",
        media=[{**file, "content_type": "application/pdf"}],
        email={
            "cc": ["c@example.com"],
            "bcc": ["d@example.com"],
            "reply_to": "r@example.com",
            "from_name": "Åsa",
            "unsubscribe_url": "https://gateway.example.com/unsubscribe/t",
        },
    )
    assert (ours.method, ours.path) == (theirs["method"], theirs["path"])
    assert ours.headers["content-type"] == theirs["headers"]["Content-Type"]
    recorded, given = json.loads(theirs["body"]), ours.json
    for name in ("Destination", "ReplyToAddresses", "ConfigurationSetName"):
        assert given[name] == recorded[name]
    mine, other = given["Content"]["Simple"], recorded["Content"]["Simple"]
    for name in ("Subject", "Body", "Attachments"):
        assert mine[name] == other[name]
    assert all(header in mine["Headers"] for header in other["Headers"])
    assert given["FromEmailAddress"].endswith("<asa@example.com>")  # the name is an encoded word
    assert given["FromEmailAddress"].isascii()


async def test_our_mime_goes_where_the_recorded_one_does() -> None:
    theirs = loaded(AWS / "sesv2-send-raw.json")["request"]
    ours = await asked(
        sender={"address": "a@example.com"},
        to="b@example.com",
        subject="x",
        body="body",
        email={"in_reply_to": "<1@x>"},
    )
    recorded, given = json.loads(theirs["body"]), ours.json
    assert given["Destination"] == recorded["Destination"]
    assert given["FromEmailAddress"].endswith("<a@example.com>")
    mails = [
        message_from_bytes(b64decode(each["Content"]["Raw"]["Data"])) for each in (recorded, given)
    ]
    for header in ("To", "Subject"):
        assert mails[0][header] == mails[1][header]
    texts = [mail.get_payload(decode=True) for mail in mails]
    assert texts[0] == b"body" and texts[1].strip() == b"body"  # type: ignore[union-attr]
