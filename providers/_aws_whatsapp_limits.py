"""What WhatsApp allows in the parts of a message: read from what somebody wrote, or refused with a
text that names the limit. Never guesses what was meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.errors import Unsupported


def refused(text: str, code: str = "content", *, field: str = "content") -> Unsupported:
    """What WhatsApp would not take; nothing was sent. `field` is where it stands in the message."""
    return Unsupported(f"WhatsApp: {text}", code=code, field=field)


def text_of(value: object, what: str, most: int, field: str) -> str:
    """A text that is not blank and not too long."""
    if not isinstance(value, str) or not value.strip():
        raise refused(f"{what} is needed, and must be text", field=field)
    if len(value) > most:
        raise refused(f"{what} may have {most} characters", "too_long", field=field)
    return value


def optional(value: object, what: str, most: int, field: str) -> str | None:
    """The same, where it may be left out."""
    return None if value is None or value == "" else text_of(value, what, most, field)


def members(value: object, field: str, most: int) -> Sequence[Mapping[str, Any]]:
    """A list of objects, of at least one and at most so many."""
    if not isinstance(value, list) or not value:
        raise refused(f"{field} must be a list of at least one", field=field)
    if len(value) > most:
        raise refused(f"{field} may be {most} at most", "too_many", field=field)
    if not all(isinstance(each, Mapping) for each in value):
        raise refused(f"{field} must be objects", field=field)
    return value


def unlike(texts: Sequence[str], what: str, field: str) -> None:
    """Refuses what stands there twice."""
    if len(set(texts)) < len(texts):
        raise refused(f"{what} must differ from each other", field=field)
