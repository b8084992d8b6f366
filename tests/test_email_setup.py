"""`gateway ses` and what `gateway doctor` says of email: SES as moto plays it, and as its reference
has it where moto does not; SendGrid and SMTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Finding
from tests.aws_account import KEY_ID, REGION, SECRET, AwsAccount, aws_account
from tests.outbound_cases import entry_of, provider
from tests.running import variables
from tests.smtp_servers import PASSWORD, USER, smtp_server
from tests.typed import Typed, type_in
from tests.vendors import LoopbackVendor, Reply

SHOP = "shop@example.com"
ACCOUNT, IDENTITIES = "/v2/email/account", "/v2/email/identities"
DESTINATIONS = "/v2/email/configuration-sets/gateway/event-destinations"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:gateway"
TOKENS = ["abc2xyz", "def3xyz", "ghi4xyz"]


class Shell:
    """A folder with the variables of a gateway that sends email."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch, self._folder = patch, folder
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def run(self, *arguments: str, **more: str) -> Typed:
        made = variables(self._folder / "data", **more)
        return type_in(self._patch, self._folder, made, *arguments)

    def ses(self, url: str, *arguments: str, **more: str) -> Typed:
        done = self.run(*arguments, **{**amazon(url), **more})
        assert SECRET not in done.out + done.err
        return done

    def findings(self, **more: str) -> dict[str, dict[str, Any]]:
        """What doctor says of vendors, by subject."""
        done = self.run("doctor", "--json", **more)
        found = json.loads(done.out)["findings"]
        return {f["subject"]: f for f in found if f["group"] == "Vendors"}


def amazon(url: str) -> dict[str, str]:
    return {
        "MESSAGING_PROVIDER": "aws",
        "EMAIL_PROVIDERS": "aws_ses",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": url,
        "AWS_SES_FROM_EMAIL": SHOP,
        "AWS_SES_CONFIGURATION_SET": "gateway",
    }


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    return Shell(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def moto() -> Iterator[AwsAccount]:
    with aws_account() as account:
        yield account


def said(**fields: Any) -> Reply:
    return Reply(body=json.dumps(fields).encode())


def error(code: str, status: int = 400) -> Reply:
    return Reply(status=status, headers={"x-amzn-errortype": code}, body=b'{"message":"secret"}')


def account(**more: Any) -> Reply:
    quota = {"Max24HourSend": 200.0, "MaxSendRate": 14.0, "SentLast24Hours": more.pop("sent", 3.0)}
    given = {
        "ProductionAccessEnabled": True,
        "SendingEnabled": True,
        "EnforcementStatus": "HEALTHY",
    }
    return said(SendQuota=quota, **{**given, **more})


def identity(*, verified: bool, dkim: str = "PENDING", **more: Any) -> Reply:
    return said(
        IdentityType="DOMAIN",
        VerifiedForSendingStatus=verified,
        VerificationStatus="SUCCESS" if verified else "PENDING",
        DkimAttributes={"Status": dkim, "Tokens": TOKENS, **more},
    )


@pytest.fixture
def ses() -> Iterator[LoopbackVendor]:
    """An account whose domain may send, and whose events come back."""
    with LoopbackVendor() as vendor:
        place = {"Enabled": True, "SnsDestination": {"TopicArn": TOPIC}}
        vendor.pages = {
            ACCOUNT: account(),
            f"{IDENTITIES}/shop%40example.com": error("NotFoundException", 404),
            f"{IDENTITIES}/example.com": identity(verified=True, dkim="SUCCESS"),
            DESTINATIONS: said(EventDestinations=[place]),
        }
        yield vendor


def test_an_address_is_entered_once_and_its_state_is_shown(shell: Shell, moto: AwsAccount) -> None:
    first = shell.ses(moto.url, "ses", "verify-sender", SHOP)
    assert first.code == 1 and "may send  not yet" in first.out, first.err
    assert "SES has written to it: follow the link" in first.out
    again = shell.ses(moto.url, "ses", "verify-sender", "shop@EXAMPLE.com")
    assert again.code == 1 and "SES wrote to it when it was entered" in again.out
    assert shell.ses(moto.url, "ses", "verify-sender", "example.net").code == 1
    known = moto.client("sesv2").list_email_identities()["EmailIdentities"]
    assert {each["IdentityName"] for each in known} == {SHOP, "example.net"}


def test_what_moto_does_not_play_is_no_answer(shell: Shell, moto: AwsAccount) -> None:
    done = shell.ses(moto.url, "ses", "status")
    assert done.code == 1 and "SES: " in done.err and done.out == ""


def test_a_domain_is_told_which_records_to_publish(shell: Shell, ses: LoopbackVendor) -> None:
    ses.pages[f"{IDENTITIES}/example.com"] = identity(verified=False)
    done = shell.ses(ses.url, "ses", "verify-sender", "example.com")
    assert done.code == 1
    lines = [line.split() for line in done.out.splitlines()]
    for token in TOKENS:
        assert [f"{token}._domainkey.example.com", "CNAME", f"{token}.dkim.amazonses.com"] in lines
    zone = identity(verified=False, SigningHostedZone="xy.dkim.eu-central-1.amazonses.com")
    ses.pages[f"{IDENTITIES}/example.com"] = zone
    there = shell.ses(ses.url, "ses", "verify-sender", "EXAMPLE.com").out
    assert "abc2xyz.xy.dkim.eu-central-1.amazonses.com" in there
    ses.pages[f"{IDENTITIES}/example.com"] = identity(verified=True, dkim="SUCCESS")
    done = shell.ses(ses.url, "ses", "verify-sender", "example.com")
    assert done.code == 0 and "CNAME" not in done.out
    assert {request.method for request in ses.requests} == {"GET"}


@pytest.mark.parametrize("text", ["", "shop@", "a b", "shop@example.com, eve@example.com", "com"])
def test_what_is_no_sender_is_not_asked_about(shell: Shell, ses: LoopbackVendor, text: str) -> None:
    assert shell.ses(ses.url, "ses", "verify-sender", text).code == 2
    assert ses.requests == []


def test_an_account_that_refuses_is_told_without_its_words(
    shell: Shell, ses: LoopbackVendor
) -> None:
    ses.pages[f"{IDENTITIES}/example.com"] = error("NotFoundException", 404)
    ses.pages[IDENTITIES] = error("LimitExceededException")
    done = shell.ses(ses.url, "ses", "verify-sender", "example.com")
    assert done.code == 1 and "as many identities as it may" in done.err
    assert "secret" not in done.err
    away = shell.ses("http://127.0.0.1:1", "ses", "verify-sender", "example.com")
    assert away.code == 1 and "SES:" in away.err


@pytest.mark.parametrize("command", [("status",), ("verify-sender", "example.com")])
def test_an_account_that_cannot_be_asked_is_no_success_and_the_fix_is_named(
    shell: Shell, ses: LoopbackVendor, command: tuple[str, ...]
) -> None:
    for reply, fix in (
        (error("UnrecognizedClientException", 403), "AWS_ACCESS_KEY_ID"),
        (error("InvalidSignatureException", 403), "AWS_SECRET_ACCESS_KEY"),
        (error("ExpiredTokenException", 403), "check AWS_ACCESS_KEY_ID"),
        (error("AccessDeniedException", 403), "allow ses:GetAccount"),
        (Reply(status=503), "check AWS_REGION, AWS_ENDPOINT_URL"),
    ):
        ses.pages[ACCOUNT] = ses.pages[f"{IDENTITIES}/example.com"] = reply
        done = shell.ses(ses.url, "ses", *command)
        assert (done.code, done.out) == (1, "") and fix in done.err, done.err
    away = shell.ses("http://127.0.0.1:1", "ses", *command)
    assert (away.code, away.out) == (1, "")
    assert "could not be reached" in away.err and "check AWS_REGION, AWS_ENDPOINT" in away.err


def test_without_ses_the_missing_variables_are_named(shell: Shell) -> None:
    done = shell.run("ses", "status")
    assert done.code == 1 and "AWS_SES_FROM_EMAIL" in done.err


def test_doctor_and_status_find_nothing_wrong_where_nothing_is(
    shell: Shell, ses: LoopbackVendor
) -> None:
    found = shell.findings(**amazon(ses.url))
    mine = {name: f["level"] for name, f in found.items() if name.startswith("aws_ses ")}
    assert set(mine.values()) == {"ok"}, found
    assert len(mine) == 5
    done = shell.ses(ses.url, "ses", "status")
    assert done.code == 0 and "3 of 200 emails in 24 hours; 14 a second" in done.out


@pytest.mark.parametrize(
    ("page", "reply", "subject", "level", "text"),
    [
        (ACCOUNT, account(ProductionAccessEnabled=False), "sandbox", "warning", "sandbox"),
        (ACCOUNT, account(EnforcementStatus="PROBATION"), "account", "warning", "under review"),
        (ACCOUNT, account(EnforcementStatus="SHUTDOWN"), "account", "problem", "SHUTDOWN"),
        (ACCOUNT, account(SendingEnabled=False), "account", "problem", "sends nothing"),
        (ACCOUNT, account(sent=160.0), "quota", "warning", "160 of 200"),
        (
            ACCOUNT,
            error("AccessDeniedException", 403),
            "account",
            "warning",
            "allow ses:GetAccount",
        ),
        (ACCOUNT, error("InvalidSignatureException", 403), "account", "problem", "SECRET"),
        (
            f"{IDENTITIES}/example.com",
            error("NotFoundException", 404),
            "AWS_SES_FROM_EMAIL",
            "problem",
            "is no identity",
        ),
        (
            f"{IDENTITIES}/example.com",
            identity(verified=False),
            "AWS_SES_FROM_EMAIL",
            "problem",
            "not verified yet",
        ),
        (
            f"{IDENTITIES}/example.com",
            identity(verified=True, dkim="FAILED"),
            "AWS_SES_FROM_EMAIL",
            "warning",
            "DKIM is FAILED",
        ),
        (
            DESTINATIONS,
            error("NotFoundException", 404),
            "AWS_SES_CONFIGURATION_SET",
            "problem",
            "refuses every email",
        ),
        (
            DESTINATIONS,
            said(EventDestinations=[{"Enabled": False, "SnsDestination": {"TopicArn": TOPIC}}]),
            "AWS_SES_CONFIGURATION_SET",
            "warning",
            "no topic",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) and " " in each else "",
)
@pytest.mark.anyio
async def test_what_is_wrong_with_ses_is_found(
    ses: LoopbackVendor, page: str, reply: Reply, subject: str, level: str, text: str
) -> None:
    ses.pages[page] = reply
    found = (await checked("aws_ses", ses))[subject]
    assert found.level == level and text in found.text
    assert found.fix and "secret" not in repr(found)


@pytest.mark.anyio
@pytest.mark.parametrize(("daily", "level"), [("200", "ok"), ("201", "warning")])
async def test_a_quota_of_ours_above_that_of_ses_is_told(
    ses: LoopbackVendor, daily: str, level: str
) -> None:
    found = (await checked("aws_ses", ses, AWS_SES_DAILY_QUOTA=daily))["quota"]
    assert found.level == level and "3 of 200" in found.text


async def checked(name: str, vendor: LoopbackVendor, **more: str) -> dict[str, Finding]:
    """What a provider finds, by subject."""
    async with provider(entry_of(name), vendor.url, timeout=20, **more) as made:
        return {finding.subject: finding for finding in await made.check("")}


SCOPES = said(scopes=["mail.send", "user.credits.read"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("plan", "level", "text"),
    [
        (said(remain=80, total=100, next_reset="2030-01-01"), "ok", "80 of 100"),
        (said(remain=5, total=100), "warning", "5 of 100"),
        (said(remain=0, total=100), "warning", "0 of 100"),
        (said(remain=0, total=100, is_hard_limit=True), "problem", "refuses"),
        (said(remain=None, total=None), None, ""),
        (Reply(status=403), None, ""),
        (Reply(body=b"[]"), None, ""),
    ],
)
async def test_what_is_left_of_sendgrid_s_plan_is_told(
    plan: Reply, level: str | None, text: str
) -> None:
    with LoopbackVendor() as vendor:
        vendor.pages = {"/v3/scopes": SCOPES, "/v3/user/credits": plan}
        found = await checked("sendgrid", vendor)
    assert found["SENDGRID_API_KEY"].level == "ok"
    told = found.get("credits")
    assert (told and told.level) == level
    assert told is None or text in told.text


def sendgrid(url: str) -> dict[str, str]:
    return {
        "MESSAGING_PROVIDER": "sendgrid",
        "SENDGRID_API_KEY": "SG.recognisable-8c21",
        "SENDGRID_FROM_EMAIL": SHOP,
        "SENDGRID_API_URL": url,
    }


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(status=401), "refuses the key"),
        (Reply(status=503), "does not tell what the key may do"),
        (said(scopes=["stats.read"]), "may not send mail"),
        (said(scopes=["mail.send.not"]), "may not send mail"),
        (Reply(body=b"<html>"), "may not send mail"),
    ],
)
@pytest.mark.anyio
async def test_a_key_of_sendgrid_that_may_not_send_is_a_problem(reply: Reply, text: str) -> None:
    with LoopbackVendor() as vendor:
        vendor.pages = {"/v3/scopes": reply}
        found = (await checked("sendgrid", vendor))["SENDGRID_API_KEY"]
    assert found.level == "problem" and text in found.text


def test_doctor_asks_sendgrid(shell: Shell) -> None:
    with LoopbackVendor() as vendor:
        vendor.pages = {"/v3/scopes": SCOPES, "/v3/user/credits": said(remain=1, total=100)}
        found = shell.findings(**sendgrid(vendor.url))
    assert found["sendgrid SENDGRID_API_KEY"]["level"] == "ok"
    assert found["sendgrid credits"]["level"] == "warning"


def test_the_login_of_an_smtp_server_is_tried_and_nothing_is_sent(shell: Shell) -> None:
    with smtp_server(login=True) as box:
        given = {
            "MESSAGING_PROVIDER": "smtp",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(box.port),
            "SMTP_FROM_EMAIL": SHOP,
            "SMTP_USER": USER,
        }
        subject = f"smtp SMTP 127.0.0.1:{box.port}"
        good = shell.findings(**given, SMTP_PASSWORD=PASSWORD)[subject]
        wrong = shell.findings(**given, SMTP_PASSWORD="wrong")[subject]
        assert (good["level"], good["text"]) == ("ok", "connects and logs in")
        assert wrong["level"] == "problem" and "SMTP_USER and SMTP_PASSWORD" in wrong["fix"]
        assert (box.logins, box.count) == (2, 0)
