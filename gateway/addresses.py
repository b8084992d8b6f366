"""Addresses of people and of ours: E.164 by `phonenumbers`, short codes, WhatsApp user ids, email.

Never `is_valid_number`: networks open ranges before the library knows them.
"""

from __future__ import annotations

import re
from functools import lru_cache

from gateway.domain import Channel

NUMBER_CHARACTERS = re.compile(r"[+0-9 ().\-/\u00a0]{3,40}")
E164 = re.compile(r"\+[1-9][0-9]{6,14}")
E164_START = re.compile(r"\+[1-9][0-9]{0,2}")
SHORT_CODE = re.compile(r"[0-9]{3,8}")
ALPHANUMERIC_SENDER = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 _&.+\-]{1,11}")
WHATSAPP_USER = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
PLAIN_EMAIL = re.compile(  # of nearly all: what the library would give back as it is
    r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@"
    r"(?=.{1,190}$)(?:[a-z0-9](?:[a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]{2,24}"
)


class AddressError(ValueError):
    """An address that cannot be used; the text names the fix."""


@lru_cache(maxsize=1024)
def _plan(code: str) -> tuple[re.Pattern[str], frozenset[int]] | None:
    """A country's prefixes that the library would strip, and the lengths of its numbers."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

    regions = COUNTRY_CODE_TO_REGION_CODE.get(int(code))
    if regions is None:
        return None
    known = PhoneMetadata.metadata_for_region_or_calling_code(int(code), regions[0])
    if known is None or known.general_desc is None:
        return None
    strips = known.national_prefix_for_parsing
    return re.compile(rf"0|(?:{strips})" if strips else "0"), frozenset(
        known.general_desc.possible_length
    )


def already_e164(text: str) -> bool:
    """Whether this is plainly a possible number in E.164 that the library would give back as it
    is. False says nothing: then the library is asked, at ten times the cost."""
    if E164.fullmatch(text) is None:
        return False
    for width in (1, 2, 3):
        plan = _plan(text[1 : 1 + width])
        if plan is not None:
            national = text[1 + width :]
            return len(national) in plan[1] and plan[0].match(national) is None
    return False


@lru_cache(maxsize=65536)
def phone(text: str, region: str | None = None) -> str:
    """A phone number in E.164.

    Raises:
        AddressError: it cannot be a phone number.
    """
    if already_e164(text):
        return text
    import phonenumbers

    if NUMBER_CHARACTERS.fullmatch(text.strip()) is None:
        raise AddressError("must be a phone number such as +15551230001")
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        raise AddressError(
            "must be a phone number with + and its country code, such as +15551230001"
        ) from None
    if not phonenumbers.is_possible_number(number):
        raise AddressError("is not a possible phone number: check its length and country code")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


NORTH_AMERICA = ("+1", 5)  # its countries differ by their area codes
SHARED = 8  # characters of a number that tell apart the countries which share another code


def country(channel: str, address: str) -> str | None:
    """Where a person's number is of (ISO 3166, two letters), as far as its first digits tell."""
    if channel == Channel.EMAIL:
        return None
    if not address.startswith("+"):
        return address[:2] if is_user_id(Channel(channel), address) else None
    for width in (2, 3, 4):
        regions = _regions(address[:width])
        if regions:
            break
    else:
        return None
    if len(regions) == 1:
        return regions[0] if regions[0].isalpha() else None
    code, digits = NORTH_AMERICA
    return _region(address[: digits if address.startswith(code) else SHARED], len(address))


@lru_cache(maxsize=2048)
def _regions(code: str) -> tuple[str, ...]:
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

    return COUNTRY_CODE_TO_REGION_CODE.get(int(code), ()) if E164_START.fullmatch(code) else ()


@lru_cache(maxsize=65536)
def _region(start: str, length: int) -> str | None:
    """The country of the numbers that begin so; the largest one where that tells nothing."""
    import phonenumbers

    whole = start + "2345678901234"[: max(0, length - len(start))]
    number = phonenumbers.parse(whole)
    found = phonenumbers.region_code_for_number(number)
    return found or phonenumbers.region_code_for_country_code(number.country_code or 0)


def person(channel: Channel, text: str, region: str | None = None) -> str:
    """The address of a person on a channel, normalised."""
    if channel is Channel.EMAIL:
        return email(text)
    if is_user_id(channel, text):
        return text
    return phone(text, region)


def is_user_id(channel: Channel, text: str) -> bool:
    """Whether a person's address is one of those who show no number."""
    return channel is Channel.WHATSAPP and WHATSAPP_USER.fullmatch(text) is not None


def ours(channel: Channel, text: str, region: str | None = None) -> str:
    """An address of ours: a number, a short code or a sender's name."""
    if channel is Channel.EMAIL:
        return email(text)
    if channel is Channel.SMS:
        if SHORT_CODE.fullmatch(text):
            return text
        if ALPHANUMERIC_SENDER.fullmatch(text):
            return text
    return phone(text, region)


@lru_cache(maxsize=16384)
def email(text: str) -> str:
    """An email address; the domain in lower case and in ASCII, as DNS and every wire have it.

    Raises:
        AddressError: it cannot be an email address.
    """
    if PLAIN_EMAIL.fullmatch(text) is not None and text.index("@") <= 64:
        return text
    from email_validator import EmailNotValidError, validate_email

    try:
        found = validate_email(
            text, check_deliverability=False, globally_deliverable=False, allow_smtputf8=True
        )
    except EmailNotValidError:
        found = None
    if found is None or "." not in found.ascii_domain or not _fits(found.local_part, text):
        raise AddressError("must be an email address such as ada@example.com")
    return f"{found.local_part}@{found.ascii_domain.lower()}"


def _fits(local: str, text: str) -> bool:
    """By the lengths of RFC 5321, in octets."""
    return len(local.encode()) <= 64 and len(text.encode()) <= 254


def mailbox(text: str) -> tuple[str, str]:
    """An email address with the name before it, or a blank one: `Ada <ada@example.com>`.

    Raises:
        AddressError: it is not one address.
    """
    name, bracket, rest = text.strip().rpartition("<")
    if not bracket:
        return "", email(text.strip())
    if not rest.endswith(">") or any(c in name for c in "<>"):
        raise AddressError("must be an email address such as Ada <ada@example.com>")
    return name.strip().strip('"').strip(), email(rest[:-1].strip())


HEARD = 400  # characters at most of what may be an address with a name before it


@lru_cache(maxsize=16384)
def heard(text: str) -> str:
    """An email address that a vendor tells, written as every other, without a name before it.
    What is none stays as it came."""
    if "@" not in text or len(text) > HEARD:
        return text
    try:
        return mailbox(text)[1]
    except AddressError:
        return text
