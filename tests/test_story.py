"""What an operator lives through, told once from HTTP to the wire: AWS refuses our credentials,
Twilio takes over, everybody is told, and nothing is sent that should not be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Status
from tests.aws_servers import LoopbackAws, query_error
from tests.commands import Desk
from tests.families import Twilio
from tests.running import OURS, Client, eventually, in_thread, twilio, variables
from tests.test_metrics import scrape
from tests.vendors import Fault, LoopbackVendor

REFUSED = "account_refused: InvalidClientTokenId"
WELL = {"circuit_breaker": "closed", "is_healthy": True, "failure_count": 0, "last_error": None}


@dataclass
class Story:
    """A gateway with two vendors on loopback, and what its people look at."""

    client: Client
    desk: Desk
    aws: LoopbackAws
    twilio: Twilio

    def says(self, to: str, until: str) -> dict[str, Any]:
        """Sends a message by HTTP, and waits until it stands somewhere."""
        return self.client.until(self.client.send(to=to, body="Hello")["id"], until)

    def sms(self) -> dict[str, dict[str, Any]]:
        """The providers of SMS, as `/health/messaging` tells of them."""
        told = self.client.get("/health/messaging")["sms_providers"]
        return {provider.pop("name"): provider for provider in told}

    def whole(self) -> tuple[str, str | None]:
        """The whole in one word, and who is asked for an SMS."""
        told = self.client.get("/health/messaging")
        return told["overall_status"], told["active_providers"]["sms"]

    def listed(self) -> list[list[str]]:
        """The chain of SMS as `gateway providers list` shows it, with breakers and failures."""
        done = self.desk.run("providers", "list")
        assert done.code == 0, done.err
        return [line.split()[1:5] for line in done.out.splitlines() if line.startswith("sms ")]

    def breakers(self) -> dict[str, str]:
        """The breakers, as `/metrics` shows them."""
        numbers, names = scrape(self.client), ("aws_sns", "twilio")
        return {
            name: state
            for name in names
            for state in ("closed", "half_open", "open")
            if numbers.one("gateway_breaker_state", provider=name, state=state)
        }

    def texts(self, to: str) -> int:
        """How often Twilio was asked to write to somebody."""
        return [sent.to for sent in self.twilio.sent()].count(to)


def told(message: dict[str, Any]) -> list[dict[str, Any]]:
    """What the attempts at a message say of themselves: whom, with what end, why, and why not
    somebody else."""
    return [
        {
            "provider": each["provider"],
            "status": each["status"],
            "class": each["error"] and each["error"]["class"],
            "code": each["error"] and each["error"]["code"],
            "why": each["why"],
            "passed_over": each["passed_over"],
        }
        for each in message["attempts"]
    ]


@pytest.fixture
def aws() -> Iterator[LoopbackAws]:
    """An AWS on loopback, which does not know our credentials."""
    with LoopbackAws() as made:
        made.errors["Publish"] = query_error("InvalidClientTokenId", 403)
        yield made


@pytest.fixture
def environment(
    tmp_path: Path, url: str, vendor: LoopbackVendor, aws: LoopbackAws
) -> dict[str, str]:
    """AWS first, by SNS, and Twilio second, for it has credentials."""
    return variables(
        tmp_path / "data",
        url,
        **{
            **twilio(vendor.url),
            "MESSAGING_PROVIDER": "aws",
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "no-longer-good",
            "AWS_ENDPOINT_URL": aws.url,
            "BREAKER_OPEN_FOR": "1h",
            "WORKER_POLL": "50ms",
        },
    )


def test_the_story(
    tmp_path: Path, environment: dict[str, str], vendor: LoopbackVendor, aws: LoopbackAws
) -> None:
    with in_thread(environment) as client:
        story = Story(client, Desk(tmp_path, environment), aws, Twilio(vendor))
        before_anything_is_sent(story)
        aws_refuses_us_and_twilio_takes_over(story)
        everybody_is_told(story)
        the_next_message_does_not_spend_an_attempt_on_aws(story)
        a_bad_number_goes_down_no_chain(story)
        a_lost_answer_is_not_sent_again_and_a_callback_settles_it(story)
        after_the_repair_aws_is_first_again(story)


def before_anything_is_sent(story: Story) -> None:
    assert story.whole() == ("healthy", "aws_sns")
    assert story.sms() == {
        "aws_sns": {"priority": "PRIMARY", **WELL},
        "twilio": {"priority": "SECONDARY", **WELL},
    }


def aws_refuses_us_and_twilio_takes_over(story: Story) -> None:
    message = story.says("+15550100001", "accepted")
    assert told(message) == [
        {
            "provider": "aws_sns",
            "status": "failed",
            "class": "account_refused",
            "code": "InvalidClientTokenId",
            "why": "first of the chain",
            "passed_over": [],
        },
        {
            "provider": "twilio",
            "status": "accepted",
            "class": None,
            "code": None,
            "why": f"failover from aws_sns ({REFUSED})",
            "passed_over": [{"provider": "aws_sns", "reason": "tried"}],
        },
    ]
    assert (message["provider"], message["from"], message["error"]) == ("twilio", OURS, None)
    assert (story.aws.count, story.texts("+15550100001")) == (1, 1)


def everybody_is_told(story: Story) -> None:
    """One refusal is enough: credentials do not become right by asking again."""
    eventually(lambda: story.sms()["aws_sns"]["circuit_breaker"] == "open", "the open breaker")
    assert story.whole() == ("healthy", "twilio")
    assert story.sms() == {
        "aws_sns": {
            "priority": "PRIMARY",
            "circuit_breaker": "open",
            "is_healthy": False,
            "failure_count": 1,
            "last_error": REFUSED,  # class and code; what AWS wrote is for nobody else
        },
        "twilio": {"priority": "SECONDARY", **WELL},
    }
    assert story.listed() == [["1", "aws_sns", "open", "1"], ["2", "twilio", "closed", "0"]]
    assert story.breakers() == {"aws_sns": "open", "twilio": "closed"}


def the_next_message_does_not_spend_an_attempt_on_aws(story: Story) -> None:
    (attempt,) = told(story.says("+15550100002", "accepted"))
    assert (attempt["provider"], attempt["why"]) == ("twilio", "next in the chain")
    assert attempt["passed_over"] == [{"provider": "aws_sns", "reason": "breaker_open"}]
    assert story.aws.count == 1


def a_bad_number_goes_down_no_chain(story: Story) -> None:
    story.twilio.vendor.plan.append(Twilio.refused)
    message = story.says("+15550100003", "failed")
    (attempt,) = told(message)
    assert (attempt["provider"], attempt["class"]) == ("twilio", "rejected")
    assert (attempt["code"], message["error"]["code"]) == ("21211", "21211")
    assert (story.aws.count, story.texts("+15550100003")) == (1, 1)
    assert story.sms()["twilio"] == {"priority": "SECONDARY", **WELL}


def a_lost_answer_is_not_sent_again_and_a_callback_settles_it(story: Story) -> None:
    person = "+15550100004"
    story.twilio.vendor.plan.append(Fault.DROP_AFTER)
    lost = story.says(person, "unknown")
    (attempt,) = told(lost)
    assert (attempt["provider"], attempt["class"]) == ("twilio", "ambiguous")
    assert (lost["waiting_for"], lost["next_attempt_at"]) == (None, None)
    story.says("+15550100005", "accepted")  # the worker has gone on, and left it alone
    assert (story.aws.count, story.texts(person)) == (1, 1)
    written = next(sent for sent in story.twilio.sent() if sent.to == person)
    assert written.attempt == lost["attempts"][0]["id"]
    callback = story.twilio.happened(Status.DELIVERED, written, story.twilio.new_id())
    assert story.twilio.forged(callback).to(story.client).status_code == 403
    assert story.client.message(lost["id"])["status"] == "unknown"
    assert callback.to(story.client).ok
    settled = story.client.until(lost["id"], "delivered")
    (attempt,) = settled["attempts"]
    assert (attempt["status"], attempt["settled_by"]) == ("delivered", "callback")
    assert (settled["error"], settled["delivered_at"] is not None) == (None, True)
    assert (story.aws.count, story.texts(person)) == (1, 1)


def after_the_repair_aws_is_first_again(story: Story) -> None:
    """The operator repairs the credentials, and says so."""
    del story.aws.errors["Publish"]
    assert story.desk.run("providers", "unblock", "aws_sns").code == 0
    eventually(lambda: story.sms()["aws_sns"]["circuit_breaker"] == "half_open", "the news")
    (attempt,) = told(story.says("+15550100006", "accepted"))
    assert (attempt["provider"], attempt["why"]) == ("aws_sns", "probe")
    story.says("+15550100007", "accepted")
    eventually(lambda: story.sms()["aws_sns"]["is_healthy"], "the closed breaker")
    assert story.whole() == ("healthy", "aws_sns")
    (attempt,) = told(story.says("+15550100008", "accepted"))
    assert (attempt["provider"], attempt["why"]) == ("aws_sns", "first of the chain")
    assert story.texts("+15550100008") == 0
