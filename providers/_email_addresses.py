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
    parts = message.email or OutboundEmail()
    ours = (message.sender.address or "", parts.reply_to or "")
    return not all(each.isascii() for each in (message.to, *parts.cc, *parts.bcc, *ours))


def bounced_by(message: OutboundMessage, vendor: str) -> None:
    """Refuses an email that a vendor cannot write the addresses of.

    Raises:
        Unsupported: one is internationalised.
    """
    if needs_utf8(message):
        raise Unsupported(
            f"{vendor}: no addresses beyond ASCII before the @", code="smtputf8", field="to"
        )
