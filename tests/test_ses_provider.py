"""Amazon SES as moto plays it, and every error that it may answer, by the model of botocore; and
SendGrid's errors row by row."""

from __future__ import annotations

import base64
import email
import json
from collections.abc import AsyncIterator, Iterator
from email.policy import default
from typing import Any
from urllib.request import urlopen

import pytest

from gateway.breaker import Sign, sign_of
from gateway.domain import Receipt
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    Breaker,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unsupported,
)
from providers._aws_errors import COMMON
from providers._aws_ses_setup import SETUP
from providers._aws_ses_tables import SEND
from tests.aws_account import AwsAccount, aws_account
from tests.aws_servers import faults, model
from tests.outbound_cases import entry_of, outbound, provider, usual
from tests.vendors import LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

SES, SENDGRID = entry_of("aws_ses"), entry_of("sendgrid")
SHOP = "shop@example.com"


@pytest.fixture(scope="module")
def account() -> Iterator[AwsAccount]:
    with aws_account() as made:
        made.client("sesv2").create_email_identity(EmailIdentity=SHOP)
        yield made


@pytest.fixture
async def ses(account: AwsAccount) -> AsyncIterator[Any]:
    async with provider(SES, account.url, timeout=20) as made:
        yield made


def stored(account: AwsAccount, id_: str, kind: str = "Message") -> dict[str, Any]:
    """What moto keeps of an email."""
    with urlopen(f"{account.url}/moto-api/data.json", timeout=20) as page:
        found = json.load(page)["ses"][kind]
    (one,) = [each for each in found if each["id"] == id_]
    return dict(one)


async def test_an_email_in_parts_is_stored_as_it_was_said(ses: Any, account: AwsAccount) -> None:
    sent = usual(SES, body="Grüße", html="<p>Grüße</p>", email={"cc": ["b@example.com"]})
    receipt = await ses.send(sent)
    found = stored(account, receipt.provider_message_id)
    assert (found["subject"], found["body"]) == ("Hello", "<p>Grüße</p>")
    assert SHOP in found["source"]
    assert found["destinations"] == {
        "ToAddresses": ["ada@example.com"],
        "CcAddresses": ["b@example.com"],
    }


async def test_an_answer_in_a_thread_is_stored_as_its_mime(ses: Any, account: AwsAccount) -> None:
    thread = {
        "in_reply_to": "<1@x>",
        "references": ["<0@x>", "<1@x>"],
        "bcc": ["c@example.com"],
        "unsubscribe_url": "https://gateway.example.com/unsubscribe/t",
    }
    receipt = await ses.send(usual(SES, body="Grüße", email=thread))
    found = stored(account, receipt.provider_message_id, "RawMessage")
    mail = email.message_from_string(found["raw_data"], policy=default)
    body = mail.get_body()
    assert body is not None and body.get_content().strip() == "Grüße"
    assert (mail["In-Reply-To"], mail["References"]) == ("<1@x>", "<0@x> <1@x>")
    assert mail["List-Unsubscribe"] == "<https://gateway.example.com/unsubscribe/t>"
    assert mail["Bcc"] is None and "c@example.com" in found["destinations"]


async def test_a_sender_that_moto_does_not_know_is_refused(account: AwsAccount) -> None:
    async with provider(SES, account.url, timeout=20) as made:
        with pytest.raises(ProviderError) as caught:
            await made.send(usual(SES, body="x", sender={"address": "eve@example.net"}))
    assert caught.value.sent_nothing
    assert "eve@example.net" not in str(caught.value)


@pytest.mark.parametrize(("name", "case"), [c for c in outbound(SES) if "json" in c[1]])
async def test_what_we_ask_is_what_the_model_of_botocore_allows(
    name: str, case: dict[str, Any]
) -> None:
    shape = model("sesv2").operation_model("SendEmail").input_shape
    with LoopbackVendor(answer=SES.data["answer"]) as vendor:
        async with provider(SES, vendor.url) as made:
            await made.send(usual(SES, **case["message"]))
    assert list(faults(shape, vendor.requests[0].json)) == [], name


def test_every_error_of_sending_is_in_the_table_and_every_word_of_the_table_exists() -> None:
    service = model("sesv2")
    sending = {shape.name for shape in service.operation_model("SendEmail").error_shapes}
    assert sending <= set(SEND.codes)
    known = {n for n in service.shape_names if service.shape_for(n).metadata.get("exception")}
    assert set(SEND.codes) - set(COMMON) <= known
    assert set(SEND.meanings) - set(COMMON) <= known


@pytest.mark.parametrize(
    "operation",
    [
        "GetAccount",
        "GetEmailIdentity",
        "CreateEmailIdentity",
        "GetConfigurationSetEventDestinations",
    ],
)
def test_every_error_of_the_set_up_is_in_its_table(operation: str) -> None:
    errors = {shape.name for shape in model("sesv2").operation_model(operation).error_shapes}
    assert errors <= set(SETUP.codes)


# "SendEmail", Errors, and "Common Errors", as the reference has them: code, status, our class.
ERRORS: list[tuple[str, int, type[ProviderError]]] = [
    ("AccountSuspendedException", 400, AccountRefused),
    ("SendingPausedException", 400, AccountRefused),
    ("MailFromDomainNotVerifiedException", 400, SenderRefused),
    ("NotFoundException", 404, SenderRefused),
    ("BadRequestException", 400, Rejected),
    ("MessageRejected", 400, Rejected),
    ("LimitExceededException", 400, Throttled),
    ("TooManyRequestsException", 429, Throttled),
    ("ThrottlingException", 400, Throttled),
    ("InternalServiceErrorException", 500, Ambiguous),
    ("ServiceUnavailable", 503, Ambiguous),
    ("AccessDeniedException", 403, AccountRefused),
    ("UnrecognizedClientException", 403, AccountRefused),
    ("InvalidSignatureException", 403, AccountRefused),
    ("ExpiredTokenException", 403, AccountRefused),
    ("SomethingNew", 400, Ambiguous),
]


async def refused(reply: Reply, setup: Any = SES, **fields: Any) -> ProviderError:
    with LoopbackVendor() as vendor:
        vendor.always = reply
        async with provider(setup, vendor.url) as made:
            with pytest.raises(ProviderError) as caught:
                await made.send(usual(setup, **{"body": "x", **fields}))
        assert vendor.count == 1
    assert "ada@example.com" not in str(caught.value) and "s3cret" not in str(caught.value)
    return caught.value


def error(code: str, status: int, text: str = "s3cret") -> Reply:
    body = json.dumps({"message": text}).encode()
    return Reply(status=status, headers={"x-amzn-errortype": code}, body=body)


def test_every_word_of_the_table_has_a_row_here() -> None:
    assert set(SEND.codes) - set(COMMON) <= {code for code, _, _ in ERRORS}


async def test_each_error_of_ses_is_in_its_class() -> None:
    found: list[tuple[str, type[ProviderError]]] = []
    with LoopbackVendor() as vendor:
        async with provider(SES, vendor.url) as made:
            for code, status, _ in ERRORS:
                vendor.always = error(code, status)
                with pytest.raises(ProviderError) as caught:
                    await made.send(usual(SES, body="x"))
                assert "s3cret" not in str(caught.value)
                found.append((caught.value.code, type(caught.value)))
    assert found == [(code, kind) for code, _, kind in ERRORS]
    assert vendor.count == len(ERRORS)


@pytest.mark.parametrize("code", ["TooManyRequestsException", "ThrottlingException"])
@pytest.mark.parametrize(
    ("text", "over"),
    [
        ("Daily message quota exceeded", True),
        ("Daily sending quota exceeded.", True),
        ("Maximum sending rate exceeded.", False),
    ],
)
async def test_a_day_that_is_over_is_told_from_a_rate(code: str, text: str, over: bool) -> None:
    failed = await refused(error(code, 429, text))
    assert type(failed) is Throttled
    assert (failed.code, failed.retry_after) == (("daily_quota", 600.0) if over else (code, None))
    assert sign_of(failed) is (Sign.REFUSED if over else Sign.NOTHING)


NOT_VERIFIED = (
    "Email address is not verified. The following identities failed the check in region "
    "EU-CENTRAL-1: {}"
)


@pytest.mark.parametrize(
    ("who", "kind"),
    [
        (SHOP, SenderRefused),
        ("Shop@Example.com, ada@example.com", SenderRefused),
        ("example.com", SenderRefused),
        ("ada@example.com", Unsupported),
        ("ada@example.com, bob@shop@example.org", Unsupported),
    ],
)
async def test_who_is_not_verified_is_no_fault_of_the_message(
    who: str, kind: type[ProviderError]
) -> None:
    failed = await refused(error("MessageRejected", 400, NOT_VERIFIED.format(who)))
    assert (type(failed), failed.code) == (kind, "MessageRejected")
    assert failed.next_provider and failed.sent_nothing and SHOP not in str(failed)


async def test_a_file_is_handed_over_as_its_bytes() -> None:
    data = b"%PDF-1.4"

    async def read(limit: int) -> bytes:
        return data

    file = {"url": "https://x.example/a.pdf", "content_type": "application/pdf", "read": read}
    with LoopbackVendor(answer=SES.data["answer"]) as vendor:
        async with provider(SES, vendor.url) as made:
            sent = await made.send(usual(SES, body="x", media=[{**file, "filename": "a.pdf"}]))
    assert isinstance(sent, Receipt)
    (attached,) = vendor.requests[0].json["Content"]["Simple"]["Attachments"]
    assert base64.b64decode(attached["RawContent"]) == data
    assert (attached["FileName"], attached["ContentType"]) == ("a.pdf", "application/pdf")


def said(message: str, field: Any = None) -> bytes:
    return json.dumps({"errors": [{"message": message, "field": field, "help": None}]}).encode()


# "Mail Send", Responses, and "v3 API errors": status, body, our class and code.
ROWS: list[tuple[int, bytes, type[ProviderError], str]] = [
    (400, said("bad", "personalizations.0.to"), Rejected, "http_400:personalizations.0.to"),
    (400, said("bad"), Rejected, "http_400"),
    (400, said("bad", "null"), Rejected, "http_400"),
    (400, said("not verified", "from.email"), SenderRefused, "http_400:from.email"),
    (401, said("authorization required"), AccountRefused, "http_401"),
    (401, said("Maximum credits exceeded"), Throttled, "credits"),
    (403, said("not verified", "from"), SenderRefused, "http_403:from"),
    (403, said("access forbidden"), AccountRefused, "http_403"),
    (404, said("not found"), AccountRefused, "http_404"),
    (405, said("method not allowed"), AccountRefused, "http_405"),
    (413, b"<html><h1>413</h1></html>", Unsupported, "http_413"),
    (415, said("unsupported"), Unsupported, "http_415"),
    (429, said("too many requests"), Throttled, "http_429"),
    (500, said("internal"), Ambiguous, "http_500"),
    (503, b"", Ambiguous, "http_503"),
    (200, b"{}", Ambiguous, "http_200"),  # the sandbox mode: nothing is sent
    (202, b"", Ambiguous, "http_202"),  # without an id
    (302, b"", Ambiguous, "http_302"),
    (418, b"[]", Ambiguous, "http_418"),
    (400, b'{"errors":"s3cret"}', Rejected, "http_400"),
    (400, said("x", "a b"), Rejected, "http_400"),
]


@pytest.mark.parametrize(("status", "body", "kind", "code"), ROWS, ids=str)
async def test_an_error_of_sendgrid_is_in_its_class(
    status: int, body: bytes, kind: type[ProviderError], code: str
) -> None:
    failed = await refused(Reply(status=status, body=body), SENDGRID)
    assert (type(failed), failed.code) == (kind, code)
    if code == "credits":
        assert (failed.breaker, failed.retry_after) == (Breaker.OPENS, 3600.0)
