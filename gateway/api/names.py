"""Other names of a request's fields. Two that say different things are refused: to believe one of
them might send to the wrong person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

SEPARATORS = re.compile(r"[\s().-]")
Told = Callable[[Any], Any]


class Contradiction(ValueError):
    """Fields that are names of one thing and differ."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        super().__init__(f"contradict each other: give one of {' and '.join(names)}")


def exactly(value: Any) -> Any:
    """A value as it is."""
    return value


def address(value: Any) -> Any:
    """A number without what it may be written with; an email's address as it is."""
    if not isinstance(value, str) or "@" in value:
        return value
    return SEPARATORS.sub("", value)


def lower(value: Any) -> Any:
    """A word in lower case."""
    return value.lower() if isinstance(value, str) else value


def under(value: dict[str, Any], name: str, others: Sequence[str], told: Told = exactly) -> None:
    """Puts what stands under other names of a field under its own. What is null or blank says
    nothing.

    Raises:
        Contradiction: two of them say different things.
    """
    given = [other for other in others if other in value]
    if not given:
        return
    known = {n: value.pop(n) for n in (name, *given) if n in value}
    said = {n: each for n, each in known.items() if each is not None and each != ""}
    first, *more = said.values() or known.values()
    if any(told(each) != told(first) for each in more):
        raise Contradiction([*said])
    value[name] = first
