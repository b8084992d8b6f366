"""The exact forms of ids and addresses in a Twilio form, and what betrays a re-cut one.

Twilio signs names and values without separators, so one signature holds for every way to cut
the same text into fields. What names a person, a message or an account is therefore believed
only in its exact form, and only where no other cut could have made it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.domain import Channel
from gateway.errors import Malformed
from webhooks._forms import Form
from webhooks._twilio_tables import KNOWN

CHANNELS = {"whatsapp": Channel.WHATSAPP, "rcs": Channel.RCS}

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]-]*")  # has no room for an address
SHORT = 40  # characters: too few to hide a sid and its name
FREE = frozenset({"Body", "ButtonPayload", "ButtonText"})  # what a person or a template says
SID = re.compile(r"[A-Za-z0-9_]{1,34}")
HIDDEN = re.compile(r"[A-Z]{2}[0-9a-f]{32}|(?:Sid|From|To)[A-Za-z0-9_]*$")
REAL_SID = re.compile(r"[A-Z]{2}[0-9a-f]{32}")
NUMBER = re.compile(r"\+[1-9][0-9]{2,15}")
DIGITS = re.compile(r"[0-9]{3,15}")  # a short code, or a number as a carrier gave it
SENDER = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 _&.+\-]{1,11}")
USER = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")  # "WhatsApp BSUIDs": no number shown
AGENT = re.compile(r"[A-Za-z0-9_-]{1,64}")

IDENTITIES = ("AccountSid", "From", "MessageSid", "SmsMessageSid", "SmsSid", "To")
SWALLOWED = re.compile(
    r"(?:AccountSid|MessageSid|SmsSid)[A-Z]{2}[0-9a-f]{32}"
    r"|(?:From|To)(?:whatsapp:|rcs:)?\+[0-9]{7}"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A bare address and the channel that its prefix names; None where we do not know it."""

    channel: Channel | None
    text: str


def check(form: Form) -> None:
    """Refuses a form that shows the marks of another cut.

    Twilio adds parameters without notice, so a name that we do not know is no mark by itself: it
    is one if it could hide an address, or a sid with its name. Only what somebody says may quote a
    field's name together with an id or a number. A name that ends in another name stands for two
    fields, unless that other is there as well.

    Raises:
        Malformed: the form must not be read.
    """
    for name, value in form.pairs:
        if name not in KNOWN:
            if NAME.fullmatch(name) is None or (len(name) > SHORT and HIDDEN.search(name)):
                raise Malformed("a field's name is not one of Twilio's")
            if any(name.endswith(known) and known not in form for known in IDENTITIES):
                raise Malformed(f"the field {name} may be two fields")
        if name not in FREE and _quotes(value):
            raise Malformed(f"the field {name} may hold other fields")


def _quotes(value: str) -> bool:
    hint = "Sid" in value or "From" in value or "To" in value  # a search costs ten times as much
    return hint and SWALLOWED.search(value) is not None


def sid(form: Form, name: str) -> str | None:
    """The id in a field. Real ones have exactly 34 characters, so they cannot grow or shrink."""
    value = form.get(name)
    if not value:
        return None
    if REAL_SID.fullmatch(value):
        return value
    if SID.fullmatch(value) is None:
        raise Malformed(f"{name} is not an id")
    return _uncut(form, name, value)


def address(form: Form, name: str) -> Address | None:
    """The address in a field, without its channel's prefix."""
    value = form.get(name)
    if not value:
        return None
    if NUMBER.fullmatch(value):
        return Address(Channel.SMS, value)
    prefix, colon, rest = value.partition(":")
    channel = CHANNELS.get(prefix) if colon else Channel.SMS
    if channel is None:
        return Address(None, prefix[:20])
    if not colon:
        if DIGITS.fullmatch(value):
            return Address(channel, value)
        return Address(channel, _loose(form, name, value, SENDER))
    if NUMBER.fullmatch(rest):
        return Address(channel, rest)
    return Address(channel, _loose(form, name, rest, USER if prefix == "whatsapp" else AGENT))


def _loose(form: Form, name: str, value: str, exact: re.Pattern[str]) -> str:
    if exact.fullmatch(value) is None:
        raise Malformed(f"{name} is not an address")
    return _uncut(form, name, value)


def _uncut(form: Form, name: str, value: str) -> str:
    if not whole(form, name, value):
        raise Malformed(f"{name} may be cut from something else")
    return value


def whole(form: Form, name: str, value: str) -> bool:
    """Whether a value without a fixed length, signed just behind `name`, is a whole one.

    Its tail could be the next field's name, and the next field could be its own tail. So the
    next field must be a known one, and the value must not hold the name of one in between.
    """
    later = (other for other, _ in form.pairs if other > name)
    following = next(later, None)
    if following is not None and following not in KNOWN:
        return False
    end = following or "\U0010ffff"
    return not any(name < other < end and other in value[1:] for other in KNOWN)
