"""What SendGrid's answers mean: "v3 API errors" and "Mail Send errors". Nothing of its texts is
repeated, as they name people; its field is, with the status."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from gateway.domain import Receipt
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unsupported,
    used_up,
)
from providers._retry_after import retry_after

if TYPE_CHECKING:
    from providers._http import HttpAnswer

ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")
FIELD = re.compile(r"[A-Za-z0-9_.\[\]]{1,80}")
OUT_OF_CREDITS = "Maximum credits exceeded"  # by 401, of a plan whose month or day is used up
HOUR = 3600.0

STATUSES: Mapping[int, type[ProviderError]] = {
    400: Rejected,
    401: AccountRefused,
    403: AccountRefused,  # the key lacks the right; of the field "from" it is the sender
    404: AccountRefused,
    405: AccountRefused,
    413: Unsupported,
    415: Unsupported,
    429: Throttled,
}
MEANINGS: Mapping[int, str] = {
    401: "the API key is wrong, or may not be used from here",
    403: "the API key may not send mail: it needs the scope mail.send",
    404: "no such address: check SENDGRID_API_URL",
    405: "no such address: check SENDGRID_API_URL",
    413: "the email is too large for SendGrid: 30 MB with its files",
    429: "too many requests",
}


def receipt(answer: HttpAnswer) -> Receipt:
    """Its yes: 202, an empty body, and the id in a header.

    Raises:
        ProviderError: it is no clear yes.
    """
    if answer.status != 202:
        raise failure(answer)
    id_ = answer.headers.get("X-Message-Id", "").strip()
    if ID.fullmatch(id_) is None:
        raise Ambiguous("a success without a readable id", code="http_202")
    return Receipt(provider_message_id=id_)


def failure(answer: HttpAnswer) -> ProviderError:
    """Its no, or what proves nothing."""
    errors = _errors(answer.body)
    # Their examples say "null" where they mean none.
    fields = (e.get("field") for e in errors)
    field = next((text for text in fields if isinstance(text, str) and text != "null"), "")
    code = f"http_{answer.status}"
    if FIELD.fullmatch(field):
        code = f"{code}:{field}"
    kind = STATUSES.get(answer.status, Ambiguous)
    if answer.status in (400, 403) and field.startswith("from"):
        return SenderRefused("the sender is not a verified identity of the account", code=code)
    if answer.status == 401 and any(OUT_OF_CREDITS in str(e.get("message")) for e in errors):
        return used_up("the plan's emails are used up", code="credits", retry_after=HOUR)
    text = MEANINGS.get(answer.status, "the email was refused")
    if kind is Ambiguous:
        return Ambiguous("an answer that proves nothing", code=code)
    if kind is Throttled:
        return Throttled(text, code=code, retry_after=_wait(answer.headers))
    return kind(text, code=code)


def _errors(body: bytes) -> list[dict[str, Any]]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return []
    errors = found.get("errors") if isinstance(found, dict) else None
    return [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []


def _wait(headers: Mapping[str, str]) -> float | None:
    """For how many seconds, by the vendor's own clock: "Rate limits", X-RateLimit-Reset."""
    date = headers.get("Date", "")
    told = retry_after(headers.get("Retry-After", ""), date)
    reset = headers.get("X-RateLimit-Reset", "")
    if told is not None or not re.fullmatch(r"\d{9,11}", reset):
        return told
    try:
        now: datetime = parsedate_to_datetime(date)
    except (TypeError, ValueError, IndexError):
        return None
    return min(max(int(reset) - now.timestamp(), 0.0), HOUR)
