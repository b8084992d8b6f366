"""An account of Amazon SES as `gateway doctor` and `gateway ses` look at it: its sandbox, standing,
quota and senders. Makes an identity where it is told to, and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gateway.domain import Finding, Level
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    Throttled,
    Unreachable,
)
from providers._aws import Aws
from providers._aws_errors import Tables

SERVICE = "sesv2"
FROM, SET = "AWS_SES_FROM_EMAIL", "AWS_SES_CONFIGURATION_SET"
DAILY = "AWS_SES_DAILY_QUOTA"
DKIM_ZONE = "dkim.amazonses.com"  # "DkimAttributes", Tokens; SigningHostedZone where it is another
FULL = 0.8  # of the quota: worth a word
REFUSED = "AccessDeniedException"

# "GetAccount", "CreateEmailIdentity", "GetEmailIdentity" and what else is asked, Errors
SETUP = Tables(
    {
        Rejected: """
            BadRequestException NotFoundException AlreadyExistsException
            ConcurrentModificationException""",
        Throttled: "LimitExceededException",
    },
    meanings={
        "BadRequestException": "SES does not take it for an address or a domain",
        "LimitExceededException": "the account has as many identities as it may",
        REFUSED: "the credentials may not do this: allow ses:GetAccount, ses:GetEmailIdentity, "
        "ses:CreateEmailIdentity and ses:GetConfigurationSetEventDestinations",
        "UnrecognizedClientException": "AWS_ACCESS_KEY_ID is not known to AWS",
        "InvalidSignatureException": "AWS_SECRET_ACCESS_KEY is wrong, or this machine's clock",
    },
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """An address or a domain that may send, or that waits to. `records` are the CNAMEs of DKIM to
    publish, by name."""

    name: str
    domain: bool
    verified: bool
    status: str
    dkim: str
    records: Mapping[str, str]
    new: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """ "GetAccount". Numbers of emails; -1: no bound."""

    production: bool
    sending: bool
    enforcement: str
    quota: int
    sent: int
    rate: float


async def account(aws: Aws) -> Account:
    """How the account stands.

    Raises:
        ProviderError: it cannot be asked.
    """
    said = await _call(aws, lambda ses: ses.get_account())
    quota = said.get("SendQuota") or {}
    return Account(
        production=bool(said.get("ProductionAccessEnabled")),
        sending=bool(said.get("SendingEnabled")),
        enforcement=str(said.get("EnforcementStatus") or "(not told)"),
        quota=int(quota.get("Max24HourSend") or 0),
        sent=int(quota.get("SentLast24Hours") or 0),
        rate=float(quota.get("MaxSendRate") or 0),
    )


async def identity(aws: Aws, name: str) -> Identity | None:
    """An identity, if there is one of that name.

    Raises:
        ProviderError: it cannot be asked.
    """
    said = await _call(aws, lambda ses: _known(ses, name))
    return None if said is None else _identity(name, said)


async def made(aws: Aws, name: str) -> Identity:
    """An identity; made, and verified from then on, where there was none: SES writes to an address,
    and looks for the records of a domain.

    Raises:
        ProviderError: it cannot be made.
    """

    def make(ses: Any) -> tuple[Mapping[str, Any], bool]:
        known = _known(ses, name)
        if known is not None:
            return known, False
        ses.create_email_identity(EmailIdentity=name)
        return _known(ses, name) or {}, True

    said, new = await _call(aws, make)
    return _identity(name, said, new=new)


def _known(ses: Any, name: str) -> Any:
    try:
        return ses.get_email_identity(EmailIdentity=name)
    except ses.exceptions.NotFoundException:
        return None


async def _call(aws: Aws, work: Callable[[Any], T]) -> T:
    return await aws.call(lambda _: work(aws.client(SERVICE)), SETUP)


def _identity(name: str, said: Mapping[str, Any], *, new: bool = False) -> Identity:
    dkim = said.get("DkimAttributes") or {}
    zone = dkim.get("SigningHostedZone") or DKIM_ZONE
    domain = "@" not in name
    tokens = dkim.get("Tokens") or () if domain else ()
    verified = bool(said.get("VerifiedForSendingStatus"))
    return Identity(
        name=name,
        domain=domain,
        verified=verified,
        status=str(said.get("VerificationStatus") or ("SUCCESS" if verified else "PENDING")),
        dkim=str(dkim.get("Status") or "NOT_STARTED"),
        records={f"{token}._domainkey.{name}": f"{token}.{zone}" for token in tokens},
        new=new,
    )


async def check(
    aws: Aws, address: str, configuration_set: str, daily: int = 0
) -> Sequence[Finding]:
    """The account, and whether its quota is that of AWS_SES_DAILY_QUOTA; then the sender, and where
    its events go."""
    try:
        found = _account(await account(aws), daily)
    except ProviderError as error:
        return [_unasked("account", error)]
    for subject, look in (
        (FROM, _sender(aws, address)),
        (SET, _events(aws, configuration_set)),
    ):
        try:
            found.append(await look)
        except ProviderError as error:
            found.append(_unasked(subject, error))
    return found


def fix_of(error: ProviderError) -> str:
    """What to do where SES cannot be asked; blank where the error says it."""
    if isinstance(error, AccountRefused) and error.code != REFUSED:
        return "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION"
    if isinstance(error, Unreachable | Ambiguous):
        return "check AWS_REGION, AWS_ENDPOINT_URL and this machine's network, and ask again"
    return "ask again in a minute" if isinstance(error, Throttled) else ""


def _unasked(subject: str, error: ProviderError) -> Finding:
    if isinstance(error, AccountRefused) and error.code != REFUSED:
        return _problem(subject, error.text, fix_of(error))
    fix = "allow the credentials to ask, or look at it in the SES console"
    return _warning(subject, f"could not be asked about: {error.text}", fix)


def _account(told: Account, daily: int) -> list[Finding]:
    """ "GetAccount", EnforcementStatus: HEALTHY, PROBATION, SHUTDOWN."""
    support = "answer AWS: the case stands in the support centre, and bounces are the usual reason"
    if told.enforcement == "SHUTDOWN" or not told.sending:
        found = [_problem("account", f"SES sends nothing for it: {told.enforcement}", support)]
    elif told.enforcement == "PROBATION":
        found = [_warning("account", "it is under review, and may be paused", support)]
    else:
        found = [_ok("account", f"sends; its standing is {told.enforcement}")]
    if told.production:
        found.append(_ok("sandbox", "the account has left it"))
    else:
        text = "the account is in the SES sandbox: it sends to verified addresses only"
        fix = "ask for production access in the SES console, for this region"
        found.append(_warning("sandbox", text, fix))
    return [*found, _quota(told, daily)]


def _quota(told: Account, daily: int) -> Finding:
    if told.quota < 0:
        return _ok("quota", f"no bound a day; {told.rate:g} a second")
    text = f"{told.sent} of {told.quota} emails in 24 hours; {told.rate:g} a second"
    if told.sent >= told.quota * FULL:
        fix = f"ask for more in Service Quotas; {DAILY} routes around it in time"
        return _warning("quota", text, fix)
    if daily > told.quota:
        text = f"{text}, and {DAILY} is {daily}"
        return _warning("quota", text, f"set {DAILY} to {told.quota} or less")
    return _ok("quota", text)


async def _sender(aws: Aws, address: str) -> Finding:
    """The address, or the domain that it belongs to."""
    domain = address.rpartition("@")[2]
    known = [one for name in (address, domain) if (one := await identity(aws, name)) is not None]
    good = next((one for one in known if one.verified), None)
    make = f"run `gateway ses verify-sender {domain}` (or {address}), and do what it says"
    if good is None:
        why = "is not verified yet" if known else "is no identity of this account and region"
        return _problem(FROM, f"{address} {why}: SES refuses to send from it", make)
    if good.domain and good.dkim != "SUCCESS":
        text = (
            f"the domain {domain} may send, and its DKIM is {good.dkim}: mail may be taken for spam"
        )
        return _warning(FROM, text, f"publish what `gateway ses verify-sender {domain}` prints")
    return _ok(FROM, f"{good.name} may send" + ("" if good.domain else ", without DKIM of its own"))


async def _events(aws: Aws, name: str) -> Finding:
    """ "GetConfigurationSetEventDestinations": whether a topic is told what becomes of email."""
    fix = "give it an SNS event destination for every type of event: see docs/email.md"
    if not name:
        return _warning(
            SET, "not set: nothing is told of what becomes of email", f"set {SET}; {fix}"
        )

    def look(ses: Any) -> Any:
        try:
            return ses.get_configuration_set_event_destinations(ConfigurationSetName=name)
        except ses.exceptions.NotFoundException:
            return None

    said = await _call(aws, look)
    if said is None:
        text = f"{name} is not in this account and region: SES refuses every email"
        return _problem(SET, text, f"make it, or correct {SET}")
    places = [each for each in said.get("EventDestinations", ()) if each.get("Enabled")]
    topics = [str(each["SnsDestination"].get("TopicArn")) for each in places
              if each.get("SnsDestination")]  # fmt: skip
    if not topics:
        return _warning(SET, f"{name} tells no topic what becomes of email", fix)
    return _ok(SET, f"{name} tells {topics[0]}")


def _ok(subject: str, text: str) -> Finding:
    return Finding(subject=subject, level=Level.OK, text=text)


def _warning(subject: str, text: str, fix: str) -> Finding:
    return Finding(subject=subject, level=Level.WARNING, text=text, fix=fix)


def _problem(subject: str, text: str, fix: str) -> Finding:
    return Finding(subject=subject, level=Level.PROBLEM, text=text, fix=fix)
