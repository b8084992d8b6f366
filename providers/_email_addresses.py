"""Addresses and names as the headers of email have them: what settings may say, and what can only
be written where internationalised mail is taken (RFC 6531).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.domain import OutboundEmail, OutboundMessage
from gateway.errors import Unsupported

# What ends a line for somebody, what no header carries, and the halves of surrogate pairs.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
LONGEST_NAME = 200  # characters, as in the API
OUTSIDE = r"[^\s<>@\"(),:;\[\]\\\x00-\x1f\x7f-\x9f\ud800-\udfff]"
ADDRESS = re.compile(rf"({OUTSIDE}{{1,64}})@({OUTSIDE}+\.{OUTSIDE}+)")


def one_line(value: str) -> str:
    """A name before our address, as a setting has it."""
    value = value.strip()
    if UNPRINTABLE.search(value) or len(value) > LONGEST_NAME:
        raise ValueError(
            f"must be one line of at most {LONGEST_NAME} printable characters, such as The Shop"
        )
    return value


def our_address(name: str = "", *, ascii_only: bool = False) -> Callable[[str], str]:
    """A check of a setting that is our address; `name` is the variable of the name before it. The
    domain becomes that of DNS, in ASCII."""
    hint = f"; the name belongs to {name}" if name else ", such as shop@example.com"

    def checked(value: str) -> str:
        value = value.strip()
        found = _address(value) if value else ""
        if found is None:
            raise ValueError(f"must be an email address{hint}")
        if ascii_only and not found.isascii():
            raise ValueError("must be an email address of ASCII before the @: no other is taken")
        return found

    return checked


def _address(text: str) -> str | None:
    found = ADDRESS.fullmatch(text)
    if found is None or found[2].isascii():
        return f"{found[1]}@{found[2].lower()}" if found else None
    from email_validator import EmailNotValidError, validate_email

    try:
        known = validate_email(text, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError:
        return None
    return f"{known.local_part}@{known.ascii_domain.lower()}"


def needs_utf8(message: OutboundMessage) -> bool:
    """Whether an address of an email, in its envelope or in its headers, can only be written where
    internationalised mail is taken."""
    return beyond_ascii(message) is not None


def beyond_ascii(message: OutboundMessage) -> str | None:
    """The field of the first such address."""
    parts = message.email or OutboundEmail()
    named = {
        "to": (message.to,),
        "email.cc": parts.cc,
        "email.bcc": parts.bcc,
        "from": (message.sender.address or "",),
        "email.reply_to": (parts.reply_to or "",),
    }
    found = (name for name, each in named.items() if not all(one.isascii() for one in each))
    return next(found, None)


def bounced_by(message: OutboundMessage, vendor: str) -> None:
    """Refuses an email that a vendor cannot write the addresses of.

    Raises:
        Unsupported: one is internationalised.
    """
    field = beyond_ascii(message)
    if field is not None:
        raise Unsupported(
            f"{vendor}: no addresses beyond ASCII before the @", code="smtputf8", field="to"
        )
