"""Twilio's own set-up: the account, and where its numbers and services post what comes in.

Looks for `gateway doctor` and changes for `gateway webhooks install`. Never shows a credential,
and never repeats Twilio's error texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from gateway.domain import Change, Finding, Level
from gateway.errors import AccountRefused, ProviderError, Unsupported
from providers._twilio_answers import failure

if TYPE_CHECKING:
    from providers._http import Http

# Ours all take every kind of message; the names are for people.
OURS = ("webhooks/twilio", "webhooks/sms", "webhooks/whatsapp", "sms/webhook/twilio")
TIMEOUT = 10.0
INSTALL = "run `gateway webhooks install --provider twilio --apply`"
CONSOLE = "look at the account in the Twilio console"


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One account: how it is reached, and what of it we send from.

    `overrides` is the fragment that asks for retries. `reachable` says whether Twilio could reach
    the webhook's URL.
    """

    http: Http = field(repr=False)
    authorization: str = field(repr=False)
    api_url: str
    sid: str
    number: str
    whatsapp: str
    service: str
    overrides: str
    reachable: bool

    def main(self, path: str) -> str:
        """A URL of the account's main API."""
        return f"{self.api_url}/2010-04-01/Accounts/{self.sid}{path}"

    def messaging(self, path: str) -> str:
        """A URL of the API of services, which has a host of its own beside Twilio's main one."""
        parts = urlsplit(self.api_url)
        host = parts.netloc
        if host.startswith("api.") and host.endswith(".twilio.com"):
            host = "messaging." + host.removeprefix("api.")
        return f"{parts.scheme}://{host}{parts.path}{path}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A resource with webhooks: its URL to be changed by, how it is, and its fields' names."""

    subject: str
    url: str
    values: Mapping[str, Any] = field(repr=False)
    prefix: str  # of the handler's fields, which the vendor names in two ways


@dataclass(frozen=True, slots=True)
class Need:
    """One field that is not as it has to be; `level` says how much it matters."""

    field: str
    before: str
    after: str
    level: Level = Level.PROBLEM


async def check(account: Account, hook: str) -> Sequence[Finding]:
    """The account, the sender of each channel, and where they post."""
    try:
        found = _account(account, await _get(account, account.main(".json")) or {})
    except AccountRefused as error:
        fix = "copy TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN from the console's front page"
        return (Finding(subject="credentials", level=Level.PROBLEM, text=error.text, fix=fix),)
    except ProviderError as error:
        return (_unseen(account.api_url, error),)
    found += await _looked(account.service or account.number or "SMS", _sms(account, hook))
    if account.whatsapp:
        found += await _looked(account.whatsapp, _whatsapp(account, hook))
    return (*found, _callbacks(account))


async def install(account: Account, hook: str, *, apply: bool) -> Sequence[Change]:
    """What has to be set at Twilio; set if `apply`, one request a number or service."""
    if not account.reachable:
        text = "set PUBLIC_URL to the public https address that Twilio is to call"
        raise Unsupported(f"Twilio could not call the webhook: {text}", code="public_url")
    place = await _place(account)
    if place is None:
        text = "set TWILIO_PHONE_NUMBER or TWILIO_MESSAGING_SERVICE_SID to one of the account's"
        raise Unsupported(f"there is nothing to install the webhook on: {text}", code="sender")
    needs = _needs(account, place, hook)
    if apply and needs:
        await _post(account, place.url, {need.field: need.after for need in needs})
    return [
        Change(subject=place.subject, setting=n.field, before=n.before, after=n.after)
        for n in needs
    ]


async def _looked(subject: str, looking: Any) -> list[Finding]:
    try:
        return list(await looking)
    except ProviderError as error:
        return [_unseen(subject, error)]


def _unseen(subject: str, error: ProviderError) -> Finding:
    text = f"could not be asked about: {error.text}"
    fix = "try again; if it stays, look at TWILIO_API_URL, DNS and the firewall"
    return Finding(subject=subject, level=Level.PROBLEM, text=text, fix=fix)


def _account(account: Account, values: Mapping[str, Any]) -> list[Finding]:
    """ "Account resource": status is active, suspended or closed; type is Trial or Full."""
    status = _text(values.get("status")) or "not readable"
    subject = "account"
    if status != "active":
        text = f"it is {status}: Twilio sends nothing"
        return [Finding(subject=subject, level=Level.PROBLEM, text=text, fix=CONSOLE)]
    found = [Finding(subject=subject, level=Level.OK, text="the credentials hold; it is active")]
    if _text(values.get("type")).lower() == "trial":
        text = "a trial account sends to verified numbers only, and adds a sentence of its own"
        fix = "upgrade it in the Twilio console"
        found.append(Finding(subject=subject, level=Level.WARNING, text=text, fix=fix))
    return found


async def _sms(account: Account, hook: str) -> Sequence[Finding]:
    subject = account.service or account.number
    if not subject:
        text = "no sender of SMS is set"
        fix = (
            "set TWILIO_PHONE_NUMBER or TWILIO_MESSAGING_SERVICE_SID, unless only WhatsApp is used"
        )
        return [Finding(subject="SMS", level=Level.WARNING, text=text, fix=fix)]
    place = await _place(account)
    if place is None and not account.service and not re.fullmatch(r"\+?\d+", subject):
        text = "is a name: it sends where names are allowed, and nobody can answer to it"
        return [Finding(subject=subject, level=Level.OK, text=text)]
    if place is None:
        fix = "set one of this account's, or the credentials of the account that has it"
        text = "this account has no such sender"
        return [Finding(subject=subject, level=Level.PROBLEM, text=text, fix=fix)]
    pool = await _pool(account) if account.service else []
    return [*_capable(place), *pool, *_posts(account, place, hook)]


def _capable(place: Place) -> list[Finding]:
    """ "IncomingPhoneNumber resource": capabilities. Short codes and services have none."""
    able = place.values.get("capabilities")
    if not isinstance(able, Mapping) or able.get("sms") is True:
        return []
    fix = "choose a number with the SMS capability"
    text = "it is the account's, and cannot send or receive SMS"
    return [Finding(subject=place.subject, level=Level.PROBLEM, text=text, fix=fix)]


async def _pool(account: Account) -> list[Finding]:
    """Whether a service has anything to send from."""
    for kind in ("PhoneNumbers", "ShortCodes", "AlphaSenders"):
        path = f"/v1/Services/{account.service}/{kind}?PageSize=20"
        page = await _get(account, account.messaging(path)) or {}
        if any(isinstance(value, list) and value for value in page.values()):
            return []
    fix = "add a number to its sender pool in the Twilio console"
    text = "the service has no sender: Twilio refuses its messages (21704)"
    return [Finding(subject=account.service, level=Level.PROBLEM, text=text, fix=fix)]


def _posts(account: Account, place: Place, hook: str) -> list[Finding]:
    needs = _needs(account, place, hook)
    if not needs:
        text = "posts what comes in here, by POST and with retries"
        return [Finding(subject=place.subject, level=Level.OK, text=text)]
    return [
        Finding(
            subject=place.subject,
            level=need.level,
            text=f"{need.field} is {need.before or 'not set'}, not {need.after or 'unset'}",
            fix=INSTALL,
        )
        for need in needs
    ]


async def _whatsapp(account: Account, hook: str) -> Sequence[Finding]:
    """ "Senders resource" (v2). Not installed: its update replaces the webhooks of calls, too."""
    url = account.messaging("/v2/Channels/Senders?Channel=whatsapp&PageSize=1000")
    senders = _listed(await _get(account, url), "senders")
    mine = [s for s in senders if s.get("sender_id") == f"whatsapp:{account.whatsapp}"]
    subject = f"whatsapp:{account.whatsapp}"
    if not mine:
        fix = "compare TWILIO_WHATSAPP_NUMBER with Messaging, Senders, WhatsApp in the console"
        text = "this account lists no such WhatsApp sender (the sandbox is not listed)"
        return [Finding(subject=subject, level=Level.WARNING, text=text, fix=fix)]
    found = []
    status = _text(mine[0].get("status"))
    if not status.startswith("ONLINE"):
        text = f"the sender is {status or 'not readable'}"
        found.append(Finding(subject=subject, level=Level.PROBLEM, text=text, fix=CONSOLE))
    webhook = mine[0].get("webhook")
    url = _text(webhook.get("callback_url")) if isinstance(webhook, Mapping) else ""
    if _is_ours(url, hook):
        return [*found, Finding(subject=subject, level=Level.OK, text="posts what comes in here")]
    fix = f"enter {hook}{account.overrides} at the sender in the console, method POST"
    text = f"what comes in is posted to {url or 'nowhere'}"
    return [*found, Finding(subject=subject, level=Level.PROBLEM, text=text, fix=fix)]


def _callbacks(account: Account) -> Finding:
    if account.reachable:
        text = "every message asks for them, with a URL of its own"
        return Finding(subject="status callbacks", level=Level.OK, text=text)
    text = "not asked for, as Twilio could not call PUBLIC_URL: no message becomes delivered"
    fix = "set PUBLIC_URL to a public https address"
    return Finding(subject="status callbacks", level=Level.WARNING, text=text, fix=fix)


async def _place(account: Account) -> Place | None:
    """The service or number that messages come in by; None where the account has none such."""
    if account.service:
        url = account.messaging(f"/v1/Services/{account.service}")
        values = await _get(account, url)
        if values is None:
            return None
        return Place(subject=account.service, url=url, values=values, prefix="")
    if re.fullmatch(r"\+?\d{3,8}", account.number):
        kind, key, name = "/SMS/ShortCodes", "short_codes", "short_code"
    else:
        kind, key, name = "/IncomingPhoneNumbers", "incoming_phone_numbers", "phone_number"
    if not re.fullmatch(r"\+?\d+", account.number):
        return None
    asked = "ShortCode" if name == "short_code" else "PhoneNumber"
    page = await _get(account, account.main(f"{kind}.json?{asked}={quote(account.number)}"))
    for values in _listed(page, key):
        sid = _text(values.get("sid"))
        if values.get(name) == account.number and re.fullmatch(r"\w{1,64}", sid):
            url = account.main(f"{kind}/{sid}.json")
            return Place(subject=account.number, url=url, values=values, prefix="Sms")
    return None


def _needs(account: Account, place: Place, hook: str) -> list[Need]:
    """What is to be changed, so that everything that comes in is posted to us.

    A fallback or a status callback that somebody has set is left alone: messages carry their own
    callback. (A number's StatusCallback is about calls.)
    """
    wanted = hook + account.overrides
    url = "SmsUrl" if place.prefix else "InboundRequestUrl"
    method = "SmsMethod" if place.prefix else "InboundMethod"
    needs = [*_handler(place, url, method, hook, wanted)]
    if place.prefix and (application := _value(place, "SmsApplicationSid")):
        needs.append(Need("SmsApplicationSid", application, ""))  # it overrules SmsUrl
    if not place.prefix and _value(place, "UseInboundWebhookOnNumber") == "true":
        needs.append(Need("UseInboundWebhookOnNumber", "true", "false"))
    fallback = f"{place.prefix}FallbackUrl"
    if not _value(place, fallback) or _is_ours(_value(place, fallback), hook):
        needs += _handler(place, fallback, f"{place.prefix}FallbackMethod", hook, wanted, mild=True)
    if not place.prefix and not _value(place, "StatusCallback"):
        needs.append(Need("StatusCallback", "", wanted, Level.WARNING))
    return needs


def _handler(
    place: Place, url: str, method: str, hook: str, wanted: str, *, mild: bool = False
) -> list[Need]:
    needs = []
    there, level = _value(place, url), Level.WARNING if mild else Level.PROBLEM
    if not _is_ours(there, hook):
        needs.append(Need(url, there, wanted, level))
    elif "#" not in there:  # posted once only: a 503 of ours would lose it
        needs.append(Need(url, there, there + wanted.removeprefix(hook), Level.WARNING))
    if (by := _value(place, method)).upper() != "POST":
        needs.append(Need(method, by, "POST", level))
    return needs


def _is_ours(url: str, hook: str) -> bool:
    bare, base = url.partition("#")[0], hook.rpartition("/api/webhooks/")[0]
    return bare == hook or bare in {f"{base}/api/{route}" for route in OURS}


def _value(place: Place, name: str) -> str:
    """A field's value by the name that it is set by: SmsUrl stands in answers as sms_url."""
    value = place.values.get(re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower())
    return str(value).lower() if isinstance(value, bool) else _text(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _listed(page: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    rows = (page or {}).get(key)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


async def _get(account: Account, url: str) -> Mapping[str, Any] | None:
    """A resource; None where there is none."""
    return await _request(account, "GET", url, None)


async def _post(account: Account, url: str, form: Mapping[str, str]) -> None:
    if await _request(account, "POST", url, form) is None:
        raise Unsupported("what was to be changed is not there any more", code="http_404")


async def _request(
    account: Account, method: str, url: str, form: Mapping[str, str] | None
) -> Mapping[str, Any] | None:
    headers = {"Authorization": account.authorization, "Accept": "application/json"}
    answer = await account.http.request(method, url, headers=headers, data=form, timeout=TIMEOUT)
    try:
        said = json.loads(answer.body)
    except ValueError:
        said = None
    values: Mapping[str, Any] = said if isinstance(said, dict) else {}
    missing = answer.status == 404 and url != account.main(".json")
    if missing or (answer.status == 200 and values):
        return None if missing else values
    raise failure(answer, values)
