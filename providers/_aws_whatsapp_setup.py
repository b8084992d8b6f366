"""WhatsApp numbers at AWS, as `gateway doctor` looks at it. Changes nothing, and never repeats
AWS's error texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from gateway.domain import Finding, Level
from gateway.errors import AccountRefused, ProviderError, SenderRefused
from providers._aws import Aws
from providers._aws_whatsapp_tables import SOCIAL

NUMBERS = "AWS_WHATSAPP_NUMBERS"
NUMBER, ACCOUNT = "AWS_WHATSAPP_PHONE_NUMBER_ID", "AWS_WHATSAPP_BUSINESS_ACCOUNT_ID"
SERVICE = "socialmessaging"
POOR = ("RED", "LOW")


async def check(aws: Aws, number: str, named: Mapping[str, str], account: str) -> list[Finding]:
    """The numbers; then, where the account is known, the topic that it posts to."""
    found = await _looked(aws, "WhatsApp number", lambda social: _number(social, number), NUMBER)
    for shown, id_ in named.items():
        found += await _looked(aws, f"WhatsApp number {shown}", _is(shown, id_), NUMBERS)
    if not account:
        text = "templates cannot be listed, and where it posts is not known"
        return [*found, _warning("WhatsApp account", text, f"set {ACCOUNT}")]
    subject = "WhatsApp account"
    return found + await _looked(aws, subject, lambda social: _account(social, account), ACCOUNT)


def _warning(subject: str, text: str, fix: str) -> Finding:
    return Finding(subject=subject, level=Level.WARNING, text=text, fix=fix)


async def _looked(
    aws: Aws, subject: str, look: Callable[[Any], Finding], variable: str
) -> list[Finding]:
    try:
        return [await aws.call(lambda _: look(aws.client(SERVICE)), SOCIAL)]
    except SenderRefused:
        text, fix = "it is not in this account and region", f"correct {variable}, or AWS_REGION"
        return [Finding(subject=subject, level=Level.PROBLEM, text=text, fix=fix)]
    except AccountRefused as error:
        fix = "allow the credentials to ask: see docs/aws.md"
        return [_warning(subject, f"could not be asked about: {error.text}", fix)]
    except ProviderError as error:
        fix = "try again; if it stays, look at AWS_REGION, DNS and the firewall"
        return [_warning(subject, f"could not be asked about: {error.text}", fix)]


def _number(social: Any, number: str) -> Finding:
    """ "GetLinkedWhatsAppBusinessAccountPhoneNumber" """
    said = social.get_linked_whatsapp_business_account_phone_number(id=number)
    told = said.get("phoneNumber", {})
    shown = told.get("displayPhoneNumber") or told.get("phoneNumber") or "(not told)"
    quality = str(told.get("qualityRating") or "")
    text = f"{shown} sends as {told.get('displayPhoneNumberName') or '(without a name)'}"
    if quality.upper() in POOR:
        fix = "look at it in the WhatsApp Manager: people block or report it"
        return _warning("WhatsApp number", f"{text}; its quality is {quality}", fix)
    return Finding(subject="WhatsApp number", level=Level.OK, text=text)


def _is(shown: str, id_: str) -> Callable[[Any], Finding]:
    """Whether an id is that of the number that it is listed for: else answers come from another."""

    def look(social: Any) -> Finding:
        said = social.get_linked_whatsapp_business_account_phone_number(id=id_)
        told = re.sub(r"\D", "", str(said.get("phoneNumber", {}).get("displayPhoneNumber") or ""))
        subject, level = f"WhatsApp number {shown}", Level.OK
        if not told or told == shown[1:]:
            return Finding(subject=subject, level=level, text="it sends what is answered from it")
        text, fix = f"its id is that of +{told}", f"correct {NUMBERS}"
        return Finding(subject=subject, level=Level.PROBLEM, text=text, fix=fix)

    return look


def _account(social: Any, account: str) -> Finding:
    """ "GetLinkedWhatsAppBusinessAccount": registrationStatus, eventDestinations"""
    told = social.get_linked_whatsapp_business_account(id=account).get("account", {})
    subject = "WhatsApp account"
    if told.get("registrationStatus") == "INCOMPLETE":
        text = "its registration is not complete: it sends nothing"
        return Finding(subject=subject, level=Level.PROBLEM, text=text, fix="complete it at AWS")
    places = [str(each.get("eventDestinationArn", "")) for each in told.get("eventDestinations")]
    topics = [arn for arn in places if ":sns:" in arn]
    if not topics:
        text = "it has no SNS event destination: nothing comes in, and nothing is reported"
        fix = "give it a topic of AWS_SNS_TOPIC_ARNS as its event destination"
        return Finding(subject=subject, level=Level.PROBLEM, text=text, fix=fix)
    return Finding(subject=subject, level=Level.OK, text=f"it posts to {topics[0]}")
