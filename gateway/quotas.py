"""Daily quotas of providers: how much is used, as this process knows it, and who may be asked.

A quota counts people and not messages, over the last 24 hours, as vendors do. Pure but for what it
remembers; the truth is in the database, and T2 holds to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from gateway.routing import May, Route

DAY = 86_400_000  # milliseconds
PIECE = 600_000  # what is counted together, and falls out of the day together
MOST = 50  # people of one message: who has room for so many is not thought about
SOON = 1000
USED, SHORT = "quota_used", "quota_short"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a provider was asked for in one piece of time."""

    connection: str
    provider: str
    piece: int
    people: int


@dataclass(frozen=True, slots=True)
class Share:
    """What one message takes of a quota."""

    limit: int
    people: int

    @property
    def needed(self) -> int:
        """What has to be free: a message to more people than a day has goes on an empty day."""
        return min(self.people, self.limit)


def piece_of(moment: int) -> int:
    """The piece of time that a moment is in."""
    return moment // PIECE * PIECE


def oldest(now: int) -> int:
    """The first piece that counts: that in which the last 24 hours began counts whole."""
    return piece_of(now - DAY)


class Quotas:
    """The quotas of the providers that have one here."""

    def __init__(self, routes: Iterable[Route], now: Callable[[], int]) -> None:
        self._now = now
        self._limits: dict[str, int] = {}
        self._names: dict[tuple[str, str], str] = {}
        for route in routes:
            if route.capabilities.daily:
                self._limits[route.name] = route.capabilities.daily
                self._names[route.connection.id, route.name] = route.name
        self._pieces: dict[str, dict[int, int]] = {name: {} for name in self._limits}
        self._doubted: set[str] = set()
        self.calm = not any(limit < MOST for limit in self._limits.values())

    def see(self, seen: Iterable[Usage]) -> None:
        """Takes what the database tells."""
        if not self._limits:
            return
        pieces: dict[str, dict[int, int]] = {name: {} for name in self._limits}
        for one in seen:
            name = self._names.get((one.connection, one.provider))
            if name is not None:
                pieces[name][one.piece] = one.people
        self._pieces = pieces
        self._doubted.clear()
        left = (limit - sum(self._counted(name).values()) for name, limit in self._limits.items())
        self.calm = all(each >= MOST for each in left)

    def share(self, name: str, people: int) -> Share | None:
        """What a message takes of a provider's quota, where it has one."""
        limit = self._limits.get(name)
        return None if limit is None else Share(limit, people)

    def doubt(self, name: str) -> None:
        """The database had no room, though it looked here as if it had: until it tells more."""
        self._doubted.add(name)
        self.calm = False

    def used(self, name: str) -> tuple[int, int] | None:
        """What is used, and the limit; None: it has no quota."""
        limit = self._limits.get(name)
        return None if limit is None else (sum(self._counted(name).values()), limit)

    def may(self, name: str, people: int) -> May | None:
        """Why a provider may not be asked for so many people now; None: it may."""
        limit = self._limits.get(name)
        if limit is None:
            return None
        counted, needed = self._counted(name), min(people, limit)
        left = limit - sum(counted.values())
        if name in self._doubted:
            return May(USED, self._now() + SOON)
        if left >= needed:
            return None
        return May(USED if left <= 0 else SHORT, _free_at(counted, needed - left))

    def _counted(self, name: str) -> dict[int, int]:
        now = self._now()
        first = oldest(now)
        return {piece: n for piece, n in self._pieces[name].items() if first <= piece <= now}


def _free_at(counted: Mapping[int, int], lacking: int) -> int:
    """When so many have fallen out of the last 24 hours."""
    for piece in sorted(counted):
        lacking -= counted[piece]
        if lacking <= 0:
            return piece + PIECE + DAY
    return 0
