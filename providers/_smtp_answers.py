"""What an SMTP server's answer means, by the step of sending that it answers; and what it means
that none came. Never says that nothing was sent where somebody may have it.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from typing import Any

from gateway.errors import (
    AccountRefused,
    Ambiguous,
    Breaker,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unreachable,
    Unsupported,
    used_up,
)

HOUR = 3600.0  # seconds until a server that counts by the day is asked again for a message
# RFC 5321 section 4.2, RFC 3463 and RFC 4954. By the step, then by the code; "4" and "5" are what
# is left of those. Until the dot nothing was taken; after it, these codes say that nothing was.
Verdicts = Mapping[str, type[ProviderError]]
TABLE: Mapping[str, Verdicts] = {
    "greeting": {"421": Throttled, "4": Unreachable, "5": AccountRefused},
    "hello": {"4": Unreachable, "5": Unreachable},
    "starttls": {"4": Unreachable, "5": Unreachable},
    "auth": {"421": Throttled, "454": Throttled, "4": Throttled, "5": AccountRefused},
    "sender": {
        "4": Throttled,
        "503": Unreachable,
        "530": AccountRefused,
        "535": AccountRefused,
        "552": Rejected,
        "555": Unsupported,
        "5": SenderRefused,
    },
    "recipient": {"4": Throttled, "503": AccountRefused, "530": AccountRefused, "5": Rejected},
    "data": {"4": Throttled, "530": AccountRefused, "5": Rejected},
    "message": {"4": Throttled, "5": Rejected},
}
# "Gmail SMTP errors and codes" (Google Workspace): 5.4.5, whatever comes with it, is our daily
# limit, and 4.7.28 the rate of our address. Exchange Online has 5.1.90 for it ("NDRs").
DAILY = ("5.4.5", "5.1.90")
RATE = ("4.7.28",)
# Others have no code for it: Amazon SES says "454 Throttling failure: Daily message quota exceeded"
# ("Errors related to the sending quotas").
IN_WORDS = re.compile(r"\bdaily\b.{0,40}\b(?:quota|limit)\b", re.IGNORECASE)
# RFC 3463, 3.2, and RFC 7505, 4.2: no such mailbox, moved to nowhere, a domain that takes no mail.
# 5.2.1 is none of them: Gmail says it also of a mailbox that gets too much mail at the moment. 5.7
# and 5.1.7, 5.1.8 are about us.
GONE = ("5.1.1", "5.1.6", "5.1.10")
# RFC 3463, 3.4: too big for this system, and maybe not for the next. It may be less than the SIZE.
TOO_BIG = "5.3.4"
TO = "to"  # the place of the person that an email is to


class Stale(Unreachable):
    """A connection that was lost before anything of a message was on it."""


def judged(step: str, code: int, text: str, place: str = "") -> ProviderError:
    """What an answer says that was not the wanted one."""
    known = TABLE[step]
    digits = str(code)
    kind = known.get(digits) or known.get(digits[:1])
    if kind is None:  # not an answer that RFC 5321 knows
        kind = Ambiguous if step == "message" else Unreachable
    status = text.partition(" ")[0]
    told = f"{digits} {status}" if status[:2] in ("4.", "5.") else digits
    if status in DAILY or (step != "recipient" and code >= 400 and IN_WORDS.search(text)):
        return used_up("the server's daily quota is used up", code=told, retry_after=HOUR)
    if status == TOO_BIG and kind is Rejected:
        return Unsupported(text, code=told)
    if status in RATE:
        return Throttled(text, code=told, retry_after=HOUR)
    if step != "recipient":
        return kind(text, code=told)
    return _of_a_person(kind, text, told, place)


def _of_a_person(kind: type[ProviderError], text: str, told: str, place: str) -> ProviderError:
    """What is said of a recipient. Of a copy its place is told, as the text need not name it."""
    if kind is Rejected and place == TO and told.partition(" ")[2] in GONE:
        return Rejected(text, code=told, because="bounced")
    if kind in (Rejected, Throttled) and place not in ("", TO):
        text = f"{place} was refused: {text}"
    error = kind(text, code=told)
    if isinstance(error, Throttled):
        error.breaker = Breaker.IGNORES  # greylisting, or a full mailbox: of that person alone
    return error


def translated(error: BaseException, step: str, *, stale: bool = False) -> ProviderError:
    """Our error for the library's; only the class and the server's code are kept."""
    import aiosmtplib

    name = type(error).__name__
    if isinstance(error, aiosmtplib.SMTPResponseException) and error.code > 0:
        return judged(step, error.code, str(error.message))
    if step == "message":
        code = "timeout" if isinstance(error, TimeoutError) else "no_answer"
        return Ambiguous(f"the message was written and no answer came ({name})", code=code)
    cause: Any = error.__cause__ or error
    if isinstance(cause, ssl.SSLError):
        return Unreachable(f"TLS failed ({type(cause).__name__})", code="tls")
    if isinstance(cause, OSError) and type(cause).__name__ == "gaierror":
        return Unreachable("the name of the server is not known", code="dns")
    if isinstance(error, aiosmtplib.SMTPNotSupported) or (
        isinstance(error, aiosmtplib.SMTPException)
        and step == "starttls"
        and "not supported" in str(error)
    ):
        return Unreachable(f"the server does not offer {step}", code=step)
    if isinstance(error, TimeoutError):
        return Unreachable(f"no answer in time ({step})", code="connect_timeout")
    if stale and isinstance(error, aiosmtplib.SMTPServerDisconnected):
        return Stale("the connection was closed", code="connection")
    return Unreachable(f"the server could not be reached ({name})", code="connect")
