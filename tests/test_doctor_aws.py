"""`gateway doctor` and `gateway webhooks install` on an AWS account that moto plays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.aws_account import SECRET, TOPIC, AwsAccount, aws_account
from tests.running import PUBLIC, variables
from tests.test_docs import ROOT, rows
from tests.typed import Typed, type_in
from webhooks._sns_sms_tables import STATUSES

HOOK = f"{PUBLIC}/api/webhooks/aws-sns"
DOCUMENT = ROOT / "docs" / "aws.md"
INSTALL = ("webhooks", "install", "--provider", "aws")


@pytest.fixture(scope="module")
def server() -> Iterator[AwsAccount]:
    with aws_account() as account:
        yield account


@pytest.fixture
def aws(server: AwsAccount) -> AwsAccount:
    """An account with the topic and nothing else."""
    server.reset()
    assert server.client().create_topic(Name="gateway-inbound")["TopicArn"] == TOPIC
    return server


class Shell:
    """A folder, the variables of a gateway that uses that account, and what is typed there."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path, account: AwsAccount) -> None:
        self._patch, self._folder, self._account = patch, folder, account

    def run(self, *arguments: str, **more: str) -> Typed:
        patch = self._patch
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        made = variables(self._folder / "data", **{**self._account.variables, **more})
        return type_in(patch, self._folder, made, *arguments)

    def findings(self, **more: str) -> dict[str, list[dict[str, Any]]]:
        """What doctor says of AWS, by subject."""
        done = self.run("doctor", "--json", **more)
        assert SECRET not in done.out
        found: dict[str, list[dict[str, Any]]] = {}
        for finding in json.loads(done.out)["findings"]:
            if finding["group"] in ("Vendors", "Receiving"):
                found.setdefault(finding["subject"].removeprefix("aws_sns "), []).append(finding)
        return found


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, aws: AwsAccount) -> Shell:
    return Shell(monkeypatch, tmp_path, aws)


def subscriptions(aws: AwsAccount) -> list[dict[str, Any]]:
    """Who is subscribed to the topic."""
    found: list[dict[str, Any]] = aws.client().list_subscriptions_by_topic(TopicArn=TOPIC)[
        "Subscriptions"
    ]
    return found


def untold(said: Iterable[str]) -> list[str]:
    """Without SignatureVersion, which moto takes and never tells."""
    return [text for text in said if "SignatureVersion" not in text]


def test_a_topic_is_subscribed_once_with_what_it_needs(shell: Shell, aws: AwsAccount) -> None:
    shown = shell.run(*INSTALL)
    assert shown.code == 0, shown.err
    assert f"aws_sns: {TOPIC}: subscription: (not set) -> {HOOK}" in shown.out
    assert "add --apply to make them" in shown.out
    assert subscriptions(aws) == []
    done = shell.run(*INSTALL, "--apply")
    assert done.code == 0, done.err
    assert "changes made" in done.out
    assert [each["Endpoint"] for each in subscriptions(aws)] == [HOOK]
    again = shell.run(*INSTALL, "--apply")
    assert untold(line for line in again.out.splitlines()) == ["aws_sns: 1 change made"]
    assert len(subscriptions(aws)) == 1


def test_doctor_says_what_is_not_subscribed_and_then_that_it_is(shell: Shell) -> None:
    before = shell.findings()
    assert before["credentials"][0]["level"] == "ok"
    assert before["sandbox"][0]["level"] == "warning"  # moto cannot say
    assert {f["level"] for f in before[TOPIC]} >= {"problem"}
    assert all("gateway webhooks install --provider aws" in f["fix"] for f in before[TOPIC])
    assert shell.run(*INSTALL, "--apply").code == 0
    assert untold(f["text"] for f in shell.findings()[TOPIC]) == []


def test_a_vendor_that_is_used_and_whose_webhook_is_off_is_told(shell: Shell) -> None:
    found = shell.findings(AWS_SNS_TOPIC_ARNS="")
    [off] = [f for f in found["aws_sns"] if f["group"] == "Receiving"]
    assert off["level"] == "warning"
    assert off["fix"] == "set AWS_SNS_TOPIC_ARNS"


def test_a_topic_that_is_not_there_is_told(shell: Shell, aws: AwsAccount) -> None:
    aws.client().delete_topic(TopicArn=TOPIC)
    assert shell.findings()[TOPIC][0]["level"] == "problem"
    done = shell.run(*INSTALL, "--apply")
    assert (done.code, "there is no such topic" in done.err) == (1, True)


def test_an_account_that_is_away_is_told(shell: Shell) -> None:
    found = shell.findings(AWS_ENDPOINT_URL="http://127.0.0.1:1")
    assert found["credentials"][0]["level"] == "problem"


def test_the_documented_meaning_of_events_is_that_of_the_adapter() -> None:
    listed: dict[str, str] = {}
    for words, status in rows(DOCUMENT, 2):
        if all(word in STATUSES for word in words.split(", ")):
            listed |= dict.fromkeys(words.split(", "), status.strip("`"))
    assert listed == {word: status.value for word, status in STATUSES.items()}


def test_what_aws_could_not_call_is_not_installed(shell: Shell, aws: AwsAccount) -> None:
    done = shell.run(*INSTALL, "--apply", PUBLIC_URL="http://gateway.example.com")
    assert done.code == 1
    assert "set PUBLIC_URL to the public https address" in done.err
    assert subscriptions(aws) == []
