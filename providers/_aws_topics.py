"""The SNS topics that post to the gateway: how they are subscribed, and what has to be changed.

Looks for `gateway doctor` and changes for `gateway webhooks install`. Changes nothing unless told
to, and never visits a URL: subscriptions are confirmed by the webhook.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from gateway.domain import Change, Finding, Level
from gateway.errors import AccountRefused, ProviderError, Rejected, Unsupported
from providers._aws import Aws
from providers._aws_errors import Tables
from providers._aws_wire import Flight

# "Subscribe", "SetTopicAttributes", "GetCallerIdentity" and what else is asked, Errors
TABLES = Tables(
    {
        Rejected: """
            InvalidParameter ParameterValueInvalid NotFound ResourceNotFound UserError
            FilterPolicyLimitExceeded SubscriptionLimitExceeded ConflictException
            ResourceNotFoundException""",
        AccountRefused: "AuthorizationError InvalidSecurity",
    },
    meanings={
        "AuthorizationError": "the credentials may not do this",
        "AccessDenied": "the credentials may not do this",
        "AccessDeniedException": "the credentials may not do this",
        "InvalidClientTokenId": "AWS_ACCESS_KEY_ID is not known to AWS",
        "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is wrong, or this machine's clock",
        "ExpiredToken": "the credentials have expired",
        "NotFound": "there is no such topic or subscription",
    },
)
# "SNS message delivery retries": by default 3 retries in a minute, and then a message is lost.
# These take about 42 minutes; an hour is the most that there may be.
RETRIES: Mapping[str, Any] = {
    "numRetries": 50,
    "numNoDelayRetries": 3,
    "numMinDelayRetries": 5,
    "numMaxDelayRetries": 40,
    "minDelayTarget": 5,
    "maxDelayTarget": 60,
    "backoffFunction": "exponential",
}
PENDING = ("PendingConfirmation", "pending confirmation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Topics:
    """The topics of an allow-list, and where they are to post. `installed_by` is the command."""

    arns: tuple[str, ...]
    dead_letter: str = ""
    installed_by: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Need:
    """One setting that is not as it has to be, and the request that sets it."""

    setting: str
    before: str
    after: str
    request: Callable[[Any], Any] | None = field(repr=False)  # None: another one sets it, too


async def ask(aws: Aws, service: str, region: str | None, work: Callable[[Any], Any]) -> Any:
    """What a client of a service answers, or a `ProviderError`."""

    def asked(_: Flight) -> Any:
        return work(aws.client(service, region))

    return await aws.call(asked, TABLES)


def region_of(arn: str) -> str | None:
    """The region that an ARN names: a topic is asked about where it is."""
    parts = arn.split(":")
    return parts[3] or None if len(parts) >= 6 else None


async def check(aws: Aws, topics: Topics, url: str) -> list[Finding]:
    """Whether each topic posts to us, and how."""
    if not topics.arns:
        text = "AWS_SNS_TOPIC_ARNS is not set: nothing that comes in is taken"
        fix = "set it to the ARNs of the topics that post to the gateway, unless it only sends"
        return [Finding(subject="topics", level=Level.WARNING, text=text, fix=fix)]
    found: list[Finding] = []
    for arn in topics.arns:
        try:
            needs = await _needs(aws, topics, arn, url)
        except ProviderError as error:
            text = f"could not be asked about: {error.text}"
            fix = "correct AWS_SNS_TOPIC_ARNS, or allow sns:GetTopicAttributes and sns:List*"
            found.append(Finding(subject=arn, level=Level.PROBLEM, text=text, fix=fix))
        else:
            found += _findings(arn, needs, topics)
    return found


def _findings(arn: str, needs: Sequence[Need], topics: Topics) -> list[Finding]:
    if not needs:
        text = "posts what comes in here, signed with SHA-256 and with retries"
        return [Finding(subject=arn, level=Level.OK, text=text)]
    return [
        Finding(
            subject=arn,
            level=Level.PROBLEM if need.setting in MISSING else Level.WARNING,
            text=f"{need.setting} is {need.before or 'not set'}, not {need.after}",
            fix=topics.installed_by,
        )
        for need in needs
    ]


async def install(aws: Aws, topics: Topics, url: str, *, apply: bool) -> Sequence[Change]:
    """What has to be set, and is if `apply`: only what differs. A topic that is refused keeps no
    other from being set.

    Raises:
        ProviderError: for the first topic that failed, with the `changes` of all.
    """
    if urlsplit(url).scheme != "https":
        text = "set PUBLIC_URL to the public https address that AWS is to call"
        raise Unsupported(f"AWS could not call the webhook: {text}", code="public_url")
    if not topics.arns:
        text = "set AWS_SNS_TOPIC_ARNS to the topics that are to post to the gateway"
        raise Unsupported(f"there is nothing to subscribe the webhook to: {text}", code="topics")
    changes: list[Change] = []
    failed: dict[str, ProviderError] = {}
    for arn in topics.arns:
        try:
            for need in await _needs(aws, topics, arn, url):
                if apply and need.request is not None:
                    await ask(aws, "sns", region_of(arn), need.request)
                changes.append(_change(arn, need))
        except ProviderError as error:
            failed[arn] = error
            if not isinstance(error, Rejected):  # it says something of the account, or of the wire
                break
    if failed:
        raise _told(failed, changes) from None
    return changes


def _change(arn: str, need: Need) -> Change:
    return Change(subject=arn, setting=need.setting, before=need.before, after=need.after)


def _told(failed: Mapping[str, ProviderError], changes: Sequence[Change]) -> ProviderError:
    """The first failure, with its topic's name, and the names of the others."""
    (arn, first), *others = failed.items()
    also = f"; refused, too: {', '.join(other for other, _ in others)}" if others else ""
    told = type(first)(f"{arn}: {first.text}{also}", code=first.code)
    told.changes = tuple(changes)
    return told


SUBSCRIPTION, CONFIRMATION, RAW = "subscription", "confirmation", "RawMessageDelivery"
MISSING = (SUBSCRIPTION, CONFIRMATION, RAW)  # without these nothing that comes in is taken


async def _needs(aws: Aws, topics: Topics, arn: str, url: str) -> list[Need]:
    region = region_of(arn)
    topic = await ask(aws, "sns", region, lambda sns: sns.get_topic_attributes(TopicArn=arn))
    version = str(topic.get("Attributes", {}).get("SignatureVersion", "1"))
    needs = []
    if version != "2":
        to_two = partial(_set_topic, arn, "SignatureVersion", "2")
        needs.append(_need("SignatureVersion", version, "2", to_two))
    mine = await ask(aws, "sns", region, partial(_subscription, arn, url))
    if mine is None:
        return [*needs, *_subscribing(topics, arn, url)]
    if mine in PENDING:
        again = partial(_subscribe, arn, url, {})
        return [*needs, _need(CONFIRMATION, "pending", "confirmed by the gateway", again)]
    return [*needs, *await ask(aws, "sns", region, partial(_differing, topics, mine))]


def _need(setting: str, before: str, after: str, request: Callable[[Any], Any] | None) -> Need:
    return Need(setting=setting, before=before, after=after, request=request)


def _subscription(arn: str, url: str, sns: Any) -> str | None:
    """The ARN of our subscription of a topic."""
    for page in sns.get_paginator("list_subscriptions_by_topic").paginate(TopicArn=arn):
        for each in page.get("Subscriptions", ()):
            if _same(str(each.get("Endpoint", "")), url):
                return str(each.get("SubscriptionArn", ""))
    return None


def _same(endpoint: str, url: str) -> bool:
    """Whether two URLs are the same route of ours; `-` and `_` are alike."""
    one, other = urlsplit(endpoint), urlsplit(url)
    return one.netloc == other.netloc and one.path.replace("_", "-") == other.path.replace("_", "-")


def _wanted(topics: Topics) -> dict[str, str]:
    """What a subscription of ours is to have ("SetSubscriptionAttributes")."""
    wanted = {"DeliveryPolicy": json.dumps({"healthyRetryPolicy": RETRIES})}
    if topics.dead_letter:
        wanted["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": topics.dead_letter})
    return wanted


def _subscribing(topics: Topics, arn: str, url: str) -> list[Need]:
    wanted = _wanted(topics)
    subscribe = _need(SUBSCRIPTION, "", url, partial(_subscribe, arn, url, wanted))
    return [subscribe, *(_need(name, "", value, None) for name, value in wanted.items())]


def _differing(topics: Topics, mine: str, sns: Any) -> list[Need]:
    now = sns.get_subscription_attributes(SubscriptionArn=mine).get("Attributes", {})
    needs = []
    if str(now.get(RAW, "false")).lower() == "true":  # then nothing is signed
        needs.append(_need(RAW, "true", "false", partial(_set, mine, RAW, "false")))
    for name, value in _wanted(topics).items():
        before = str(now.get(name) or "")
        if not _enough(before, value):
            needs.append(_need(name, before, value, partial(_set, mine, name, value)))
    return needs


def _enough(before: str, wanted: str) -> bool:
    """Whether a policy is as good as ours: one that tries more often was made by somebody."""
    try:
        now, ours = json.loads(before), json.loads(wanted)
        if "deadLetterTargetArn" in ours:
            return bool(now["deadLetterTargetArn"] == ours["deadLetterTargetArn"])
        return int(now["healthyRetryPolicy"]["numRetries"]) >= int(RETRIES["numRetries"])
    except (ValueError, KeyError, TypeError):
        return False


def _subscribe(arn: str, url: str, attributes: Mapping[str, str], sns: Any) -> Any:
    return sns.subscribe(
        TopicArn=arn,
        Protocol="https",
        Endpoint=url,
        Attributes=dict(attributes),
        ReturnSubscriptionArn=True,
    )


def _set(mine: str, name: str, value: str, sns: Any) -> Any:
    return sns.set_subscription_attributes(
        SubscriptionArn=mine, AttributeName=name, AttributeValue=value
    )


def _set_topic(arn: str, name: str, value: str, sns: Any) -> Any:
    return sns.set_topic_attributes(TopicArn=arn, AttributeName=name, AttributeValue=value)
