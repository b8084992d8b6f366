"""The forms of what Meta tells: ids, addresses, times, numbers; and its loose JSON, read safely.

What is not of its form counts as absent. Raises nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

Facts = Mapping[str, Any]

ID = re.compile(r"[!-~]{1,250}")
ADDRESS = re.compile(r"[!-~]{1,150}")  # digits, a user id such as US.1349…, or something newer
DIGITS = re.compile(r"\+?([0-9]{1,20})")
MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
MIME = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*(; ?[a-z0-9=._+-]+)*")
ARN = re.compile(r"arn:aws[a-z-]*:social-messaging:[!-~]*:phone-number-id/([A-Za-z0-9]{1,99})")
ATTEMPT_ID = re.compile(r"att_[0-9A-Za-z]{20,40}")
SECONDS = re.compile(r"[0-9]{1,10}")


def part(facts: Facts, name: str) -> Facts:
    """An object within an object; an empty one where there is none."""
    value = facts.get(name)
    return value if isinstance(value, dict) else {}


def parts(facts: Facts, name: str) -> Iterator[Any]:
    """The elements of a list, whatever they are."""
    value = facts.get(name)
    return iter(value if isinstance(value, list) else ())


def objects(facts: Facts, name: str) -> list[Facts]:
    """The objects of a list."""
    return [value for value in parts(facts, name) if isinstance(value, dict)]


def text(facts: Facts, name: str) -> str:
    """A text, exactly."""
    value = facts.get(name)
    return value if isinstance(value, str) else ""


def given(facts: Facts, name: str) -> str | None:
    """A text that is not blank."""
    return text(facts, name).strip() or None


def plain(facts: Facts, *but: str) -> dict[str, Any]:
    """What an object tells in single words, without what is empty."""
    found = {n: v for n, v in facts.items() if isinstance(v, (str, int, float)) and n not in but}
    return {name: value for name, value in found.items() if value != ""}


def identity(facts: Facts, name: str = "id") -> str | None:
    """An id of Meta's or AWS's."""
    value = facts.get(name)
    return value if isinstance(value, str) and ID.fullmatch(value) else None


def address(facts: Facts, name: str) -> str | None:
    """A person's address. Meta writes numbers without their plus."""
    value = facts.get(name)
    if not isinstance(value, str) or ADDRESS.fullmatch(value) is None:
        return None
    number = DIGITS.fullmatch(value)
    return f"+{number[1]}" if number else value


def shown_number(facts: Facts, name: str) -> str | None:
    """A number of ours, which Meta writes as people do: +1 555-078-3881."""
    digits = "".join(c for c in text(facts, name) if c in "0123456789")
    return f"+{digits}" if 0 < len(digits) <= 20 else None


def moment(facts: Facts, name: str = "timestamp") -> datetime | None:
    """A time in seconds, as text or as a number."""
    value = facts.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    if SECONDS.fullmatch(str(value)) is None:
        return None
    return datetime.fromtimestamp(int(value), UTC)


def number(facts: Facts, name: str, most: float) -> float | int | None:
    """A number between `-most` and `most`."""
    value = facts.get(name)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) and abs(value) <= most else None


def mime(facts: Facts) -> str | None:
    """A file's type, as Meta says it."""
    value = text(facts, "mime_type").strip().lower()
    return value if MIME.fullmatch(value) else None


def errors(facts: Facts) -> list[dict[str, Any]]:
    """Meta's errors, each with its code, its words, and what they mean where it tells."""
    found: list[dict[str, Any]] = []
    for error in objects(facts, "errors"):
        details = given(part(error, "error_data"), "details")
        told = {**plain(error), **({"details": details} if details else {})}
        found.append({n: told[n] for n in ("code", "title", "message", "details") if n in told})
    return found
