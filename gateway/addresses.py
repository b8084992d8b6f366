"""Addresses of people and of ours: E.164 by `phonenumbers`, short codes, WhatsApp user ids, email.

Never `is_valid_number`: networks open ranges before the library knows them.
"""

from __future__ import annotations

import re
from functools import lru_cache

from gateway.domain import Channel

NUMBER_CHARACTERS = re.compile(r"[+0-9 ().\-/\u00a0]{3,40}")
SHORT_CODE = re.compile(r"[0-9]{3,8}")
ALPHANUMERIC_SENDER = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 _&.+\-]{1,11}")
WHATSAPP_USER = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
EMAIL = re.compile(r"[^\x00-\x20\x7f\s@<>\"(),:;\[\]\\]{1,64}@(?=.{1,253}$)(?:[^\s@<>\"(),:;\[\]\\.]{1,63}\.)+[^\s@.]{2,63}")


class AddressError(ValueError):
    """An address that cannot be used; the text names the fix."""


@lru_cache(maxsize=65536)
def phone(text: str, region: str | None = None) -> str:
    """A phone number in E.164.

    Raises:
        AddressError: it cannot be a phone number.
    """
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


def person(channel: Channel, text: str, region: str | None = None) -> str:
    """The address of a person on a channel, normalised."""
    if channel is Channel.EMAIL:
        return email(text)
    if channel is Channel.WHATSAPP and WHATSAPP_USER.fullmatch(text):
        return text
    return phone(text, region)


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


def email(text: str) -> str:
    """An email address; the domain in lower case."""
    if len(text) > 254 or EMAIL.fullmatch(text) is None:
        raise AddressError("must be an email address such as ada@example.com")
    local, _, domain = text.rpartition("@")
    return f"{local}@{domain.lower()}"
