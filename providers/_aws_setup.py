"""An AWS account's own set-up for SMS: credentials, clock, sandbox, limits, and its topics.

Looks for `gateway doctor` and changes for `gateway webhooks install`. Never shows a credential,
and never repeats AWS's error texts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from gateway.domain import Change, Finding, Level
from gateway.errors import ProviderError
from providers import _aws_topics
from providers._aws import Aws
from providers._aws_topics import TABLES, Topics, ask
from providers._aws_wire import Flight

SKEW = (30.0, 300.0)  # seconds: worth a word; more than AWS takes ("Signature Version 4")
VOICE = "pinpoint-sms-voice-v2"
INSTALL = "run `gateway webhooks install --provider aws_sns --apply`"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sms:
    """What is set up: whether by End User Messaging SMS, with which configuration set, and the
    topics that post to us."""

    texting: bool
    configuration_set: str
    topics: Topics


async def check(aws: Aws, sms: Sms, webhook_url: str) -> Sequence[Finding]:
    """The account, then what of it sends, then where its topics post."""
    found, usable = await _credentials(aws)
    if not usable:
        return found
    if sms.texting:
        found += await _looked("sandbox", _texting_tier(aws))
        found += await _looked("spending limit", _texting_limit(aws))
        found += await _looked("delivery reports", _reports(aws, sms))
    else:
        found += await _looked("sandbox", _publishing_tier(aws))
        found += await _looked("spending limit", _publishing_limit(aws))
        text = "SNS reports nothing about a message after it was accepted"
        fix = "set AWS_SMS_ORIGINATION_IDENTITY and AWS_SMS_CONFIGURATION_SET to get reports"
        found.append(_warning("delivery reports", text, fix))
    return found + await _aws_topics.check(aws, sms.topics, webhook_url)


def usable(found: Sequence[Finding]) -> bool:
    """Whether the credentials hold, by what was found: else there is no more to be asked."""
    return all(f.level is Level.OK for f in found if f.subject == "credentials")


async def install(aws: Aws, sms: Sms, webhook_url: str, *, apply: bool) -> Sequence[Change]:
    """What has to be set at the topics; set if `apply`."""
    return await _aws_topics.install(aws, sms.topics, webhook_url, apply=apply)


def _ok(subject: str, text: str) -> Finding:
    return Finding(subject=subject, level=Level.OK, text=text)


def _warning(subject: str, text: str, fix: str) -> Finding:
    return Finding(subject=subject, level=Level.WARNING, text=text, fix=fix)


def _problem(subject: str, text: str, fix: str) -> Finding:
    return Finding(subject=subject, level=Level.PROBLEM, text=text, fix=fix)


async def _looked(subject: str, looking: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        return await looking
    except ProviderError as error:
        fix = "allow the credentials to ask, or look at it in the AWS console"
        return [_warning(subject, f"could not be asked about: {error.text}", fix)]


async def _credentials(aws: Aws) -> tuple[list[Finding], bool]:
    """ "GetCallerIdentity", which every valid credential may ask; and the two clocks."""
    flights: list[Flight] = []

    def whoami(flight: Flight) -> Any:
        flights.append(flight)
        return aws.client("sts").get_caller_identity()

    try:
        said = await aws.call(whoami, TABLES)
    except ProviderError as error:
        fix = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL"
        return [_problem("credentials", error.text, fix), *_clock(flights)], False
    text = f"they hold, for the account {said.get('Account', '(not told)')}"
    return [_ok("credentials", text), *_clock(flights)], True


def _clock(flights: Sequence[Flight]) -> list[Finding]:
    """How far the clock that signed is from that of the answer."""
    try:
        signed = datetime.strptime(flights[0].signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        theirs = parsedate_to_datetime(flights[0].headers["date"])
        apart = abs((theirs - signed).total_seconds())
    except (IndexError, KeyError, ValueError, TypeError):
        return []
    fix = "let this machine's clock be set by NTP"
    text = f"this machine's clock is {apart:.0f} s from AWS's"
    if apart > SKEW[1]:
        return [_problem("clock", f"{text}: AWS refuses what is signed by it", fix)]
    return [_warning("clock", text, fix)] if apart > SKEW[0] else []


async def _publishing_tier(aws: Aws) -> list[Finding]:
    said = await ask(aws, "sns", None, lambda sns: sns.get_sms_sandbox_account_status())
    return [_tier(sandbox=bool(said.get("IsInSandbox")))]


async def _texting_tier(aws: Aws) -> list[Finding]:
    said = await ask(aws, VOICE, None, lambda voice: voice.describe_account_attributes())
    tiers = {each.get("Name"): each.get("Value") for each in said.get("AccountAttributes", ())}
    return [_tier(sandbox=tiers.get("ACCOUNT_TIER") == "SANDBOX")]


def _tier(*, sandbox: bool) -> Finding:
    if not sandbox:
        return _ok("sandbox", "the account has left it")
    text = "the account is in the SMS sandbox: it sends to its verified numbers only"
    return _warning("sandbox", text, "ask AWS for production access in the console")


async def _publishing_limit(aws: Aws) -> list[Finding]:
    """ "SetSMSAttributes", MonthlySpendLimit: where nothing is set it is 1 US dollar."""
    said = await ask(aws, "sns", None, lambda sns: sns.get_sms_attributes())
    limit = str(said.get("attributes", {}).get("MonthlySpendLimit") or "1")
    return [_limit(limit, low=limit in ("0", "1"))]


async def _texting_limit(aws: Aws) -> list[Finding]:
    said = await ask(aws, VOICE, None, lambda voice: voice.describe_spend_limits())
    limits = {each.get("Name"): each for each in said.get("SpendLimits", ())}
    mine = limits.get("TEXT_MESSAGE_MONTHLY_SPEND_LIMIT", {})
    limit = mine.get("EnforcedLimit")
    if limit is None:
        return [_ok("spending limit", "AWS tells none for SMS")]
    return [_limit(str(limit), low=limit <= 1)]


def _limit(limit: str, *, low: bool) -> Finding:
    text = f"{limit} US dollars a month for SMS"
    if low:
        return _warning("spending limit", text, "raise it in the console: then AWS sends nothing")
    return _ok("spending limit", text)


async def _reports(aws: Aws, sms: Sms) -> list[Finding]:
    """Whether the configuration set tells one of our topics what becomes of a text."""
    name, subject = sms.configuration_set, "delivery reports"
    if not name:
        text = "AWS_SMS_CONFIGURATION_SET is not set: none come, unless AWS has a default one"
        return [_warning(subject, text, "set it to one with an SNS event destination")]
    names = [name.rpartition("/")[2]]
    said = await ask(
        aws, VOICE, None, lambda v: v.describe_configuration_sets(ConfigurationSetNames=names)
    )
    places = [each for found in said.get("ConfigurationSets", ())
              for each in found.get("EventDestinations", ())]  # fmt: skip
    topics = [str(p.get("SnsDestination", {}).get("TopicArn", "")) for p in places if _tells(p)]
    listed = [topic for topic in topics if topic in sms.topics.arns]
    if listed:
        return [_ok(subject, f"{name} sends them to {listed[0]}")]
    if any(topics):
        text = f"{name} sends them to a topic that AWS_SNS_TOPIC_ARNS does not list"
        return [_problem(subject, text, "add that topic to AWS_SNS_TOPIC_ARNS")]
    text = f"{name} has no enabled SNS event destination for texts"
    return [_problem(subject, text, "add one for all events (TEXT_ALL, MEDIA_ALL) in the console")]


def _tells(place: Any) -> bool:
    wanted = {"ALL", "TEXT_ALL", "TEXT_DELIVERED"}
    return bool(place.get("Enabled")) and bool(wanted & set(place.get("MatchingEventTypes", ())))
