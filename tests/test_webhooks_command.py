"""`gateway webhooks`: what it shows, and what it sets at a vendor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.commands.webhooks import without_password
from tests.aws_servers import LoopbackAws, query_error
from tests.running import OURS, PUBLIC, TOKEN, twilio, variables
from tests.twilio_account import (
    NUMBER,
    SERVICE,
    TwilioAccount,
    number,
    service,
    twilio_account,
)
from tests.typed import Typed, type_in

HOOK = f"{PUBLIC}/api/webhooks/twilio#rc=3&rp=all"
INSTALL = ("webhooks", "install")
BY_SERVICE = {"TWILIO_MESSAGING_SERVICE_SID": SERVICE}


class Shell:
    """A folder, the variables of a gateway that sends by that account, and what is typed there."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch, self._folder = patch, folder

    def run(self, account: TwilioAccount, *arguments: str, **more: str) -> Typed:
        made = variables(self._folder / "data", **{**twilio(account.url), **more})
        return type_in(self._patch, self._folder, made, *arguments)

    def run_aws(self, url: str, *arguments: str, **more: str) -> Typed:
        given = {
            "MESSAGING_PROVIDER": "aws",
            "AWS_REGION": "us-west-2",
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "s" * 40,
            "AWS_ENDPOINT_URL": url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "PUBLIC_URL": PUBLIC,
        }
        made = variables(self._folder / "data", **{**given, **more})
        return type_in(self._patch, self._folder, made, *arguments)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    return Shell(monkeypatch, tmp_path)


def test_the_changes_are_shown_and_not_made(shell: Shell) -> None:
    with twilio_account() as account:
        done = shell.run(account, *INSTALL)
        assert account.numbers == [number()]
        assert account.posts == []
    assert done.code == 0, done.err
    old = "https://demo.twilio.com/welcome/sms/reply"
    assert f"twilio: {OURS}: SmsUrl: {old} -> {HOOK}\n" in done.out
    assert f"twilio: {OURS}: SmsMethod: GET -> POST\n" in done.out
    assert f"twilio: {OURS}: SmsFallbackUrl: (not set) -> {HOOK}\n" in done.out
    assert "3 changes to make: add --apply" in done.out


def test_a_number_is_told_once_and_then_there_is_nothing_to_change(shell: Shell) -> None:
    with twilio_account() as account:
        done = shell.run(account, *INSTALL, "--apply")
        assert (done.code, done.out.splitlines()[-1]) == (0, "twilio: 3 changes made")
        assert account.numbers[0]["sms_url"] == HOOK
        assert account.numbers[0]["sms_method"] == "POST"
        assert account.numbers[0]["status_callback"] == ""  # that of a number is about calls
        assert len(account.posts) == 1
        assert f"/IncomingPhoneNumbers/{NUMBER}.json" in account.posts[0][0]
        again = shell.run(account, *INSTALL, "--apply")
        assert (again.code, again.out) == (0, "twilio: nothing to change\n")
        assert len(account.posts) == 1


def test_an_application_that_overrules_the_number_is_taken_off(shell: Shell) -> None:
    ours = {"sms_url": HOOK, "sms_method": "POST", "sms_fallback_url": HOOK}
    taken = number(**ours, sms_application_sid="AP00000000000000000000000000000001")
    with twilio_account(numbers=[taken]) as account:
        done = shell.run(account, *INSTALL, "--apply")
        assert "SmsApplicationSid: AP00000000000000000000000000000001 -> (not set)" in done.out
        assert account.numbers[0]["sms_application_sid"] == ""


def test_a_service_is_told_and_its_numbers_decide_no_longer(shell: Shell) -> None:
    with twilio_account() as account:
        done = shell.run(account, *INSTALL, "--apply", **BY_SERVICE)
        assert done.code == 0, done.err
        there = account.services[0]
        assert there["inbound_request_url"] == there["status_callback"] == HOOK
        assert there["use_inbound_webhook_on_number"] is False
        assert account.posts[0][0] == f"/v1/Services/{SERVICE}"
        assert account.numbers == [number()]
        again = shell.run(account, *INSTALL, **BY_SERVICE)
        assert again.out == "twilio: nothing to change\n"


def test_what_somebody_else_set_beside_it_stays(shell: Shell) -> None:
    theirs = "https://elsewhere.example.org/status"
    there = service(status_callback=theirs, fallback_url=theirs)
    with twilio_account(services=[there]) as account:
        shell.run(account, *INSTALL, "--apply", **BY_SERVICE)
        assert account.services[0]["status_callback"] == theirs
        assert account.services[0]["fallback_url"] == theirs
        assert account.services[0]["inbound_request_url"] == HOOK


def test_another_of_our_routes_is_as_good_and_only_lacks_retries(shell: Shell) -> None:
    shared = f"{PUBLIC}/api/webhooks/sms"
    kept = number(sms_url=shared, sms_method="POST", sms_fallback_url=f"{shared}#rc=3&rp=all")
    with twilio_account(numbers=[kept]) as account:
        done = shell.run(account, *INSTALL)
    assert f"SmsUrl: {shared} -> {shared}#rc=3&rp=all" in done.out
    assert "1 change to make" in done.out


def test_a_short_code_is_told(shell: Shell) -> None:
    short = {"sid": "SC00000000000000000000000000000001", "short_code": "55501"}
    short |= {
        "sms_url": "",
        "sms_method": "POST",
        "sms_fallback_url": "",
        "sms_fallback_method": "",
    }
    with twilio_account(short_codes=[short]) as account:
        done = shell.run(account, *INSTALL, "--apply", TWILIO_PHONE_NUMBER="55501")
        assert done.code == 0, done.err
        assert account.short_codes[0]["sms_url"] == HOOK
        assert account.short_codes[0]["sms_fallback_method"] == "POST"


REFUSALS: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({"token": "another"}, {}, "the account SID or the auth token is wrong"),
    ({"numbers": []}, {}, "nothing to install the webhook on"),
    ({"services": []}, BY_SERVICE, "TWILIO_MESSAGING_SERVICE_SID"),
    ({"broken": {"IncomingPhoneNumbers.json": 503}}, {}, "HTTP 503"),
]


@pytest.mark.parametrize(("there", "more", "said"), REFUSALS)
def test_what_is_refused_is_told_without_twilio_s_words(
    shell: Shell, there: dict[str, Any], more: dict[str, str], said: str
) -> None:
    with twilio_account(**there) as account:
        done = shell.run(account, *INSTALL, "--apply", **more)
        assert account.posts == []
    assert done.code == 1
    assert said in done.err
    assert "+15550100001" not in done.err
    assert TOKEN not in done.err + done.out


@pytest.mark.parametrize(
    "public", ["", "http://gateway.example.com", "https://10.0.0.7", "https://localhost"]
)
def test_what_twilio_could_not_call_is_not_installed(shell: Shell, public: str) -> None:
    # Nothing is asked of the real Twilio before that: the test's guard would refuse it.
    made = {"TWILIO_API_URL": "https://api.twilio.com", "PUBLIC_URL": public}
    done = shell.run(TwilioAccount(), *INSTALL, "--apply", **made)
    assert done.code == 1
    assert "set PUBLIC_URL to the public https address" in done.err


def test_who_cannot_be_told_is_named(shell: Shell) -> None:
    with twilio_account() as account:
        assert shell.run(account, *INSTALL, "--provider", "nobody").code == 2
        done = shell.run(account, *INSTALL, "--provider", "console")
    assert done.code == 1
    assert "console" in done.err


def test_a_vendor_that_is_away_is_told(shell: Shell) -> None:
    with twilio_account() as account:
        pass
    done = shell.run(account, *INSTALL)
    assert done.code == 1
    assert "could not be reached" in done.err


def test_each_webhook_is_shown_with_its_url_and_what_it_lacks(shell: Shell) -> None:
    public = {"PUBLIC_URL": "https://gateway.example.com"}
    done = shell.run(TwilioAccount(url="https://api.twilio.com"), "webhooks", "list", **public)
    assert (done.code, done.err) == (0, "")
    lines = [line.split("  ") for line in done.out.splitlines()]
    shown = {cells[0]: [cell.strip() for cell in cells[1:] if cell] for cells in lines}
    at = "https://gateway.example.com/api/webhooks"
    assert shown["twilio"] == ["on", f"{at}/twilio"]
    assert shown["aws_sns"] == ["off: AWS_SNS_TOPIC_ARNS is not set", f"{at}/aws-sns"]
    assert f"also taken at {at}/sms" in done.out


@pytest.mark.parametrize(
    "url", ["http://user:p@ss@host/x", "https://user:se/cretPW@gw", "a https://u:p@gw, b"]
)
def test_no_part_of_a_password_is_shown(url: str) -> None:
    shown = without_password(url)
    assert "…@" in shown
    assert not any(part in shown for part in ("user", "ss@", "cret", "u:p"))


ACCOUNT = "arn:aws:sns:us-west-2:123456789012"


def test_what_was_changed_is_told_beside_the_topic_that_failed(shell: Shell) -> None:
    with LoopbackAws() as aws:
        aws.state["topics"] |= {f"{ACCOUNT}:a": {}, f"{ACCOUNT}:c": {}}
        listed = ",".join(f"{ACCOUNT}:{name}" for name in ("a", "gone", "c"))
        done = shell.run_aws(aws.url, *INSTALL, "--apply", AWS_SNS_TOPIC_ARNS=listed)
        assert len(aws.state["subscriptions"]) == 2
    assert done.code == 1
    for name in ("a", "c"):
        assert f"aws_sns: {ACCOUNT}:{name}: SignatureVersion: 1 -> 2" in done.out
        assert f"aws_sns: {ACCOUNT}:{name}: subscription: (not set) -> " in done.out
    assert "6 changes made" in done.out
    assert f"aws_sns: {ACCOUNT}:gone: " in done.err
    assert "safe to run this again" in done.err


def test_what_was_changed_is_told_where_the_same_topic_then_fails(shell: Shell) -> None:
    with LoopbackAws() as aws:
        aws.state["topics"] |= {f"{ACCOUNT}:a": {}, f"{ACCOUNT}:b": {}}
        aws.errors["Subscribe"] = query_error("AuthorizationError", 403)
        listed = f"{ACCOUNT}:a,{ACCOUNT}:b"
        done = shell.run_aws(aws.url, *INSTALL, "--apply", AWS_SNS_TOPIC_ARNS=listed)
        assert aws.state["topics"][f"{ACCOUNT}:b"] == {}  # the account is refused: nobody goes on
    assert done.code == 1
    assert f"aws_sns: {ACCOUNT}:a: SignatureVersion: 1 -> 2\naws_sns: 1 change made" in done.out
    assert f"{ACCOUNT}:a: AWS: the credentials may not do this" in done.err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_CA_BUNDLE", "/nowhere/authorities.pem"),
        ("AWS_DEFAULTS_MODE", "nonsense"),
        ("AWS_STS_REGIONAL_ENDPOINTS", "nonsense"),
        ("AWS_ACCOUNT_ID_ENDPOINT_MODE", "nonsense"),
    ],
)
def test_what_the_sdk_reads_by_itself_is_refused_in_a_sentence(
    shell: Shell, variable: str, value: str
) -> None:
    done = shell.run_aws("http://127.0.0.1:9", "webhooks", "list", **{variable: value})
    assert done.code == 2
    assert ("another AWS_… variable" if "ACCOUNT_ID" in variable else variable) in done.err
    assert value not in done.err


def test_an_emulator_at_no_port_is_refused(shell: Shell) -> None:
    own = {"GATEWAY_ENV": "development", "AWS_SNS_EMULATOR_URL": "http://127.0.0.1:99999"}
    done = shell.run(TwilioAccount(url="https://api.twilio.com"), "webhooks", "list", **own)
    assert done.code == 2
    assert done.err.startswith("AWS_SNS_EMULATOR_URL must be an origin")


def test_who_is_not_set_up_has_no_webhooks(shell: Shell) -> None:
    done = shell.run(TwilioAccount(url="https://api.twilio.com"), *INSTALL, "--provider", "aws")
    assert done.code == 1
    assert "aws is not set up, or has no webhooks that can be installed" in done.err
