"""What Twilio's answers mean: the tables of its codes and statuses, and the reading of a reply.

What Twilio says of an error is never repeated, as it names the recipient. Its code is, with our
words. An answer counts as a yes only if it says so and names the message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from gateway.domain import Money, Receipt, Status
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unsupported,
)
from providers._retry_after import retry_after

if TYPE_CHECKING:
    from providers._http import HttpAnswer

# "Messages resource", Status. What Twilio has, it has accepted until it says more.
STATUSES = {"sent": Status.SENT, "delivered": Status.DELIVERED, "read": Status.READ}
FAILURES = ("failed", "undelivered", "canceled")

SID = re.compile(r"[A-Za-z0-9_-]{1,64}")

# "Error and Warning Dictionary" (twilio.com/docs/api/errors). 3xxxx and 63xxx normally come in
# status callbacks; an answer has them when Twilio fails a message in the moment it takes it.
# fmt: off
_CODES: Mapping[type[ProviderError], tuple[int, ...]] = {
    AccountRefused: (
        10001, 20005, 30002,  # not active, suspended
        20003, 20006, 20008,  # wrong or test credentials, access denied
        20403, 20404,  # forbidden; no such account or path
        21609,  # StatusCallback: every message has it, and PUBLIC_URL must change
    ),
    SenderRefused: (
        21212, 21601, 21603, 21606, 21661,  # From: not valid, missing, or cannot send this
        21659, 21660,  # From is not ours
        21701, 21702, 21703, 21704, 21705,  # Messaging Service: missing, empty or not valid
        30018, 30024, 30032, 30034,  # not registered: carrier, toll-free, US A2P 10DLC
        # These are about one WhatsApp sender; SMS of the same account goes on.
        63001, 63002, 63007,  # the channel does not know it
        63020, 63062, 63112,  # its Business account: error, terms not accepted, disabled
    ),
    Rejected: (
        20001, 21602, 21604, 21619, 21620, 21623,  # parameters, body, media
        21211, 21214, 21217, 21614,  # To: not valid, not reachable, not mobile
        21608,  # To is not verified, and this is a trial account
        21610, 63014,  # opted out; blocked us
        21655, 21656, 63027, 63028, 63030, 63041,  # templates
        30003, 30004, 30005, 30006, 30011, 63003, 63024,  # the handset, the number
        30007, 30450, 30500, 63013, 63032,  # filtered: content, pumping, risk, policy
        30010, 30019, 30036, 63019,  # price, size, validity, media could not be loaded
        63005, 63006, 63021, 63049,  # WhatsApp or Meta refused the content
        63016,  # outside the 24 hours in which free text may be sent
    ),
    # Twilio cannot, and somebody else may.
    Unsupported: (
        21408, 21612,  # region not enabled; no route from this From to this To
        21617, 63036,  # too long; not reachable by RCS
    ),
    Throttled: (
        14107, 20429, 21611, 30001,  # too many requests or messages, a queue is full
        30017, 30022, 30023, 30027,  # carrier congestion, US A2P rate and daily caps
        63017, 63018, 63038,  # channel rate, daily limit of the account
    ),
    # Nobody can say. "20500: Internal Server Error" has it in so many words: a POST that sends,
    # got this and is repeated may reach a customer twice. "20503: Service unavailable" does not
    # say that nothing was done. The others: handed on, and no report came back.
    Ambiguous: (20500, 20503, 30008, 30410, 63009, 63010, 63012),
}
# fmt: on
ERRORS: Mapping[int, type[ProviderError]] = {
    code: kind for kind, codes in _CODES.items() for code in codes
}
OPTED_OUT = frozenset({21610, 63014})

# Words for what people ask about most; the others are named by their code.
MEANINGS: Mapping[int, str] = {
    20003: "the account SID or the auth token is wrong",
    20404: "no such account: check TWILIO_ACCOUNT_SID and TWILIO_API_URL",
    21211: "the recipient's number is not valid",
    21212: "the sender is not valid",
    21408: "this region is not enabled for the account",
    21606: "the sender cannot send to this destination",
    21608: "a trial account can only send to verified numbers",
    21609: "the callback address was refused: PUBLIC_URL must be reachable from the internet",
    21610: "the recipient has opted out",
    21611: "the queue of this sender is full",
    21614: "the recipient's number is not a mobile number",
    63007: "no WhatsApp sender with this number: check TWILIO_WHATSAPP_NUMBER",
    63016: "outside the 24 hours in which free text may be sent; use a template",
}


def judge(answer: HttpAnswer) -> Mapping[str, Any]:
    """The message as Twilio has it, if the answer says that it has it, and by which id."""
    payload = _json(answer.body)
    if not 200 <= answer.status < 300:
        raise failure(answer, payload)
    sid = payload.get("sid")
    if not (isinstance(sid, str) and SID.fullmatch(sid)):
        raise Ambiguous("a success without a readable id", code=f"http_{answer.status}")
    if str(payload.get("status")) in FAILURES:
        code = _code(payload.get("error_code"))
        raise error_of(ERRORS.get(code, Rejected), code, None)
    return payload


def failure(answer: HttpAnswer, payload: Mapping[str, Any]) -> ProviderError:
    """The error for an answer that is not a success: by its code if it is Twilio's, then by its
    status. Whatever is left is `Ambiguous`."""
    status, code = answer.status, _code(payload.get("code"))
    after = retry_after(answer.headers.get("Retry-After", ""), answer.headers.get("Date", ""))
    if 400 <= status < 500 and status != 408:
        if code in ERRORS:
            return error_of(ERRORS[code], code, after)
        if status == 401:  # also with another body: {"error": …}, a proxy's page
            return AccountRefused(MEANINGS[20003], code="http_401")
        if status == 429:
            return Throttled("too many requests", code="http_429", retry_after=after)
        if code:  # Twilio's own word that it did not create the message
            return error_of(Rejected, code, after)
    return Ambiguous(f"HTTP {status} proves nothing", code=str(code or f"http_{status}"))


def error_of(kind: type[ProviderError], code: int, after: float | None) -> ProviderError:
    """An error of Twilio's in our words."""
    where = f"see twilio.com/docs/api/errors/{code}" if code else "without a code"
    text = f"Twilio: {MEANINGS.get(code, where)}"
    if code in OPTED_OUT:
        return Rejected(text, code=str(code), because="opted_out")
    return kind(text, code=str(code or ""), retry_after=after if kind is Throttled else None)


def receipt(payload: Mapping[str, Any]) -> Receipt:
    """What Twilio said when it took the message."""
    segments, sender = str(payload.get("num_segments")), payload.get("from")
    return Receipt(
        provider_message_id=payload["sid"],
        status=STATUSES.get(str(payload.get("status")), Status.ACCEPTED),
        sender=sender.removeprefix("whatsapp:") or None if isinstance(sender, str) else None,
        # "0" until a Messaging Service has picked a sender.
        segments=int(segments) or None if re.fullmatch(r"\d{1,4}", segments, re.ASCII) else None,
        cost=_cost(payload.get("price"), payload.get("price_unit")),
    )


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


def _code(value: object) -> int:
    """A code of Twilio's, which has five digits; 0 for anything else."""
    digits = str(value) if isinstance(value, int | str) else ""
    return int(digits) if re.fullmatch(r"[1-9]\d{4}", digits, re.ASCII) else 0


def _cost(price: object, unit: object) -> Money | None:
    if price is None:
        return None
    try:
        amount = Decimal(str(price))
    except InvalidOperation:
        return None
    if not amount.is_finite() or not isinstance(unit, str):
        return None
    return Money(amount=abs(amount), currency=unit.upper())
