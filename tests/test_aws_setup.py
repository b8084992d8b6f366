"""What AWS's set-up is looked at for, and what is changed: on an account of our own making."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Checks, Finding, Installs, Level
from gateway.errors import AccountRefused, Rejected, Unsupported
from tests.aws_servers import LoopbackAws, model, query_error, refusal
from tests.outbound_cases import entry_of, provider

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[1] / "docs"
HOOK = "https://gateway.example.com/api/webhooks/aws-sns"
TOPIC = "arn:aws:sns:us-west-2:123456789012:in"
DEAD = "arn:aws:sqs:us-west-2:123456789012:dead"
SETUPS = {name: entry_of("aws_sns", name) for name in ("publish", "text")}


@pytest.fixture
def aws() -> Iterator[LoopbackAws]:
    with LoopbackAws() as made:
        made.state["topics"][TOPIC] = {"SignatureVersion": "1"}
        yield made


def using(aws: LoopbackAws, name: str = "publish", **more: str) -> Any:
    return provider(SETUPS[name], aws.url, **{"AWS_SNS_TOPIC_ARNS": TOPIC, **more})


async def looked(aws: LoopbackAws, name: str = "publish", **more: str) -> dict[str, Finding]:
    """The last finding about each subject; every one that is not well says what to do."""
    async with using(aws, name, **more) as made:
        found = await made.check(HOOK)
    for finding in found:
        assert bool(finding.fix) == (finding.level is not Level.OK)
        for secret in SETUPS[name].data["secrets"]:
            assert secret not in finding.text + finding.fix
    return {finding.subject: finding for finding in found}


async def installed(aws: LoopbackAws, *, apply: bool, **more: str) -> list[tuple[str, str, str]]:
    async with using(aws, **more) as made:
        changes = await made.install(HOOK, apply=apply)
    assert {change.subject for change in changes} <= {TOPIC}
    return [(change.setting, change.before, change.after) for change in changes]


def called(aws: LoopbackAws) -> list[str]:
    """The operations that change something."""
    actions = [r.form["Action"][0] for r in aws.requests if "x-amz-target" not in r.headers]
    return [action for action in actions if action.startswith(("Set", "Subscribe"))]


@pytest.mark.parametrize("name", SETUPS)
async def test_it_can_be_asked_and_told(name: str, aws: LoopbackAws) -> None:
    async with using(aws, name) as made:
        assert isinstance(made, Checks)
        assert isinstance(made, Installs)


# --- looking


async def test_everything_as_it_should_be(aws: LoopbackAws) -> None:
    await installed(aws, apply=True)
    found = await looked(aws)
    assert found["credentials"].text == "they hold, for the account 123456789012"
    levels = {subject: finding.level for subject, finding in found.items()}
    assert levels == {
        "credentials": Level.OK,
        "sandbox": Level.OK,
        "spending limit": Level.OK,
        "delivery reports": Level.WARNING,  # a Publish has none
        TOPIC: Level.OK,
    }
    assert len(aws.requests) == aws.count


async def test_credentials_that_do_not_hold_are_all_that_is_said(aws: LoopbackAws) -> None:
    aws.errors["GetCallerIdentity"] = query_error("InvalidClientTokenId", 403)
    found = await looked(aws)
    assert set(found) == {"credentials"}
    assert found["credentials"].level is Level.PROBLEM
    assert "AWS_ACCESS_KEY_ID is not known to AWS" in found["credentials"].text


@pytest.mark.parametrize("held", [True, False])
async def test_a_clock_that_is_wrong_is_told(aws: LoopbackAws, held: bool) -> None:
    aws.date = "Wed, 21 Oct 2020 07:28:00 GMT"
    if not held:
        aws.errors["GetCallerIdentity"] = query_error("SignatureDoesNotMatch", 403)
    found = await looked(aws)
    assert found["clock"].level is Level.PROBLEM
    assert "NTP" in found["clock"].fix


async def test_an_account_that_is_away_is_told(aws: LoopbackAws) -> None:
    aws.stop()
    assert (await looked(aws))["credentials"].level is Level.PROBLEM


@pytest.mark.parametrize("name", SETUPS)
async def test_the_sandbox_and_a_small_limit_are_told(name: str, aws: LoopbackAws) -> None:
    aws.state["sandbox"], aws.state["sms"] = "true", {}
    aws.state["DescribeAccountAttributes"]["AccountAttributes"][0]["Value"] = "SANDBOX"
    aws.state["DescribeSpendLimits"]["SpendLimits"] = [
        {"Name": "TEXT_MESSAGE_MONTHLY_SPEND_LIMIT", "EnforcedLimit": 1, "MaxLimit": 1}
    ]
    found = await looked(aws, name)
    assert found["sandbox"].level is Level.WARNING
    assert found["spending limit"].text == "1 US dollars a month for SMS"
    assert aws.refused == []


@pytest.mark.parametrize("name", SETUPS)
async def test_what_may_not_be_asked_is_a_warning(name: str, aws: LoopbackAws) -> None:
    for operation in ("GetSMSAttributes", "GetSMSSandboxAccountStatus", "GetTopicAttributes"):
        aws.errors[operation] = query_error("AuthorizationError", 403)
    for operation in ("AccountAttributes", "SpendLimits", "ConfigurationSets"):
        aws.errors[f"Describe{operation}"] = refusal("AccessDeniedException")
    found = await looked(aws, name)
    levels = {subject: finding.level for subject, finding in found.items()}
    assert levels == {
        "credentials": Level.OK,
        "sandbox": Level.WARNING,
        "spending limit": Level.WARNING,
        "delivery reports": Level.WARNING,
        TOPIC: Level.PROBLEM,
        **({"AWS_MEDIA_BUCKET": Level.OK} if name == "text" else {}),
    }


def destination(topic: str = TOPIC, **more: Any) -> dict[str, Any]:
    place = {"Enabled": True, "MatchingEventTypes": ["ALL"], "SnsDestination": {"TopicArn": topic}}
    return {"EventDestinationName": "x", **place, **more}


@pytest.mark.parametrize(
    ("places", "level", "text"),
    [
        ([destination()], Level.OK, f"gateway sends them to {TOPIC}"),
        ([destination("arn:aws:sns:us-west-2:123456789012:other")], Level.PROBLEM, "does not list"),
        ([destination(Enabled=False)], Level.PROBLEM, "no enabled SNS event destination"),
        ([destination(MatchingEventTypes=["VOICE_ALL"])], Level.PROBLEM, "no enabled SNS event"),
        ([], Level.PROBLEM, "no enabled SNS event destination"),
    ],
)
async def test_delivery_reports_need_a_topic_of_ours(
    places: list[Any], level: Level, text: str, aws: LoopbackAws
) -> None:
    aws.state["DescribeConfigurationSets"]["ConfigurationSets"] = [{"EventDestinations": places}]
    found = (await looked(aws, "text"))["delivery reports"]
    assert found.level is level
    assert text in found.text
    asked = [r for r in aws.requests if "DescribeConf" in r.headers.get("x-amz-target", "")]
    assert [request.json for request in asked] == [{"ConfigurationSetNames": ["gateway"]}]


async def test_without_a_configuration_set_there_are_none(aws: LoopbackAws) -> None:
    found = await looked(aws, "text", AWS_SMS_CONFIGURATION_SET=" ")
    assert found["delivery reports"].level is Level.WARNING


async def test_without_topics_nothing_comes_in(aws: LoopbackAws) -> None:
    found = await looked(aws, AWS_SNS_TOPIC_ARNS=" ")
    assert found["topics"].level is Level.WARNING


async def test_a_topic_is_asked_about_in_its_own_region(aws: LoopbackAws) -> None:
    await looked(aws)
    scopes = {
        request.form["Action"][0]: request.headers["authorization"].split("/")[2]
        for request in aws.requests
    }
    assert scopes["GetCallerIdentity"] == scopes["GetSMSAttributes"] == "eu-central-1"
    assert scopes["GetTopicAttributes"] == scopes["ListSubscriptionsByTopic"] == "us-west-2"


# --- changing


async def test_a_dry_run_changes_nothing(aws: LoopbackAws) -> None:
    shown = await installed(aws, apply=False)
    assert [setting for setting, _, _ in shown] == [
        "SignatureVersion", "subscription", "DeliveryPolicy",
    ]  # fmt: skip
    assert called(aws) == []


async def test_what_differs_is_set_once(aws: LoopbackAws) -> None:
    await installed(aws, apply=True, AWS_SNS_DEAD_LETTER_ARN=DEAD)
    assert called(aws) == ["SetTopicAttributes", "Subscribe"]
    (made,) = aws.state["subscriptions"].values()
    assert (made["Endpoint"], aws.state["topics"][TOPIC]) == (HOOK, {"SignatureVersion": "2"})
    assert json.loads(made["RedrivePolicy"]) == {"deadLetterTargetArn": DEAD}
    policy = json.loads(made["DeliveryPolicy"])["healthyRetryPolicy"]
    phases = sum(policy[f"num{name}Retries"] for name in ("NoDelay", "MinDelay", "MaxDelay"))
    assert phases <= policy["numRetries"] <= 100
    longest = policy["numRetries"] * policy["maxDelayTarget"]
    assert 3 * 60 < longest <= 3600  # "SNS message delivery retries": an hour at most
    assert await installed(aws, apply=True, AWS_SNS_DEAD_LETTER_ARN=DEAD) == []
    assert len(called(aws)) == 2


async def test_a_subscription_that_is_there_is_repaired_and_not_made_twice(
    aws: LoopbackAws,
) -> None:
    other = "https://gateway.example.com/elsewhere"
    same = "https://gateway.example.com/api/webhooks/aws_sns"
    for number, url in enumerate((other, other + "?", other + "/", same)):
        mine = {"TopicArn": TOPIC, "Endpoint": url, "RawMessageDelivery": "true"}
        aws.state["subscriptions"][f"{TOPIC}:{number}"] = mine
    aws.state["topics"][TOPIC] = {"SignatureVersion": "2"}
    assert [setting for setting, *_ in await installed(aws, apply=True)] == [
        "RawMessageDelivery", "DeliveryPolicy",
    ]  # fmt: skip
    assert called(aws) == ["SetSubscriptionAttributes"] * 2
    assert aws.state["subscriptions"][f"{TOPIC}:3"]["RawMessageDelivery"] == "false"
    assert await installed(aws, apply=True) == []


async def test_a_policy_that_tries_more_often_is_left_alone(aws: LoopbackAws) -> None:
    await installed(aws, apply=True)
    (made,) = aws.state["subscriptions"].values()
    made["DeliveryPolicy"] = json.dumps({"healthyRetryPolicy": {"numRetries": 100}})
    assert await installed(aws, apply=False) == []
    made["DeliveryPolicy"] = json.dumps({"healthyRetryPolicy": {"numRetries": 3}})
    assert len(await installed(aws, apply=False)) == 1


async def test_a_subscription_that_waits_is_asked_to_be_confirmed_again(aws: LoopbackAws) -> None:
    await installed(aws, apply=True)
    (made,) = aws.state["subscriptions"].values()
    made["Shown"] = "PendingConfirmation"
    assert (await looked(aws))[TOPIC].level is Level.PROBLEM
    assert await installed(aws, apply=True) == [
        ("confirmation", "pending", "confirmed by the gateway")
    ]
    assert called(aws)[-1] == "Subscribe"
    assert len(aws.state["subscriptions"]) == 1


@pytest.mark.parametrize(
    ("hook", "topics", "fix"),
    [
        ("http://gateway.example.com/api/webhooks/aws-sns", TOPIC, "PUBLIC_URL"),
        (HOOK, " ", "AWS_SNS_TOPIC_ARNS"),
    ],
)
async def test_what_cannot_be_installed_says_why(
    hook: str, topics: str, fix: str, aws: LoopbackAws
) -> None:
    async with using(aws, AWS_SNS_TOPIC_ARNS=topics) as made:
        with pytest.raises(Unsupported, match=fix):
            await made.install(hook, apply=True)
    assert aws.count == 0


async def test_a_refusal_is_an_error(aws: LoopbackAws) -> None:
    aws.errors["Subscribe"] = query_error("AuthorizationError", 403)
    async with using(aws) as made:
        with pytest.raises(AccountRefused):
            await made.install(HOOK, apply=True)
    async with using(aws, AWS_SNS_TOPIC_ARNS=TOPIC + "-gone") as made:
        with pytest.raises(Rejected, match="no such topic"):
            await made.install(HOOK, apply=False)


async def test_a_spending_limit_that_aws_does_not_tell_is_not_shown_as_one(
    aws: LoopbackAws,
) -> None:
    finding = (await looked(aws, "text"))["spending limit"]
    assert (finding.level, finding.text) == (Level.OK, "AWS tells none for SMS")


@pytest.mark.parametrize(
    ("prefix", "service"),
    [
        ("sns", "sns"),
        ("sms-voice", "pinpoint-sms-voice-v2"),
        ("social-messaging", "socialmessaging"),
        ("ses", "sesv2"),
    ],
)
def test_every_right_of_the_documented_policies_is_that_of_an_operation(
    prefix: str, service: str
) -> None:
    said = "".join((DOCS / name).read_text("utf-8") for name in ("aws.md", "email.md"))
    rights = set(re.findall(rf"\b{prefix}:([A-Z]\w+)", said))
    assert rights
    assert rights <= set(model(service).operation_names)
