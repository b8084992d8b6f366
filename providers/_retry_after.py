"""How long a vendor asks us to wait, as HTTP says it."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime


def retry_after(given: str, date: str) -> float | None:
    """Seconds to wait (RFC 9110 10.2.3), from the headers Retry-After and Date of one answer: a
    date is measured by the clock of whoever gave it."""
    given = given.strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", given):
        return float(given)
    try:
        then, now = parsedate_to_datetime(given), parsedate_to_datetime(date)
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError):
        return None
