"""How many messages, what became of them and what they cost, over a bounded time.

Reads a few days at a time, one question at a time, so that a long range holds up nobody who reads
beside it; what has settled long ago is remembered for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gateway.clock import to_ms
from gateway.domain import Channel, Clock, Direction, Status
from gateway.store.reader import Reader
from gateway.store.tallies import MICRO, WIDTHS, Tally, tally

DAY = WIDTHS["day"]
PIECE = 4 * DAY  # read at once
SETTLED = 4 * DAY  # after which little changes: what nobody settled has failed by then
REMEMBERED = 600.0  # seconds
MOST = 5000  # hours or days that are remembered

ARRIVED = frozenset({Status.DELIVERED, Status.READ})
LOST = frozenset(
    {
        Status.FAILED,
        Status.UNDELIVERED,
        Status.BOUNCED,
        Status.REJECTED,
        Status.EXPIRED,
    }
)

Place = tuple[str, str, str, int]  # tenant, channel, width, bucket


@dataclass(eq=False)
class Analytics:
    """Counts messages."""

    reader: Reader
    clock: Clock
    _known: dict[Place, tuple[float, tuple[Tally, ...]]] = field(default_factory=dict)
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    async def tallies(
        self, tenant_id: str, channel: Channel, width: str, since: int, until: int
    ) -> list[Tally]:
        """What was written from one moment to another, by hour or by day.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        found: list[Tally] = []
        async with self._turn:
            for start, end in self._pieces(tenant_id, channel, width, since, until, found):
                read = await self.reader.call(tally, tenant_id, channel.value, width, start, end)
                found += read
                self._remember((tenant_id, channel.value, width), read, start, end)
        return found

    def _pieces(
        self,
        tenant_id: str,
        channel: Channel,
        width: str,
        since: int,
        until: int,
        found: list[Tally],
    ) -> Iterator[tuple[int, int]]:
        """The times that have to be read; what is remembered goes to `found`."""
        size, start = WIDTHS[width], since
        now = time.monotonic()
        for bucket in range(since // size, -(-until // size)):
            known = self._known.get((tenant_id, channel.value, width, bucket))
            begins, ends = max(since, bucket * size), min(until, (bucket + 1) * size)
            whole = ends - begins == size
            if known is not None and whole and now - known[0] < REMEMBERED:
                found += known[1]
                if start < begins:
                    yield start, begins
                start = ends
            elif ends - start >= PIECE:
                yield start, ends
                start = ends
        if start < until:
            yield start, until

    def _remember(
        self, what: tuple[str, str, str], read: Iterable[Tally], start: int, end: int
    ) -> None:
        """Keeps the whole hours or days that have settled, the empty ones too."""
        size, now = WIDTHS[what[2]], time.monotonic()
        end = min(end, to_ms(self.clock.now()) - SETTLED)
        by_bucket: dict[int, list[Tally]] = {n: [] for n in range(-(-start // size), end // size)}
        for one in read:
            if one.bucket in by_bucket:
                by_bucket[one.bucket].append(one)
        if len(self._known) + len(by_bucket) > MOST:
            self._known.clear()
        for bucket, tallies in by_bucket.items():
            self._known[*what, bucket] = (now, tuple(tallies))


def summary(tallies: Iterable[Tally]) -> dict[str, Any]:
    """Tallies in sum."""
    by: dict[str, Counter[str]] = {
        "status": Counter(),
        "direction": Counter(),
        "provider": Counter(),
    }
    segments, costs, ended = 0, Counter[str](), Counter[str]()
    for one in tallies:
        by["status"][one.status] += one.messages
        by["direction"][one.direction] += one.messages
        by["provider"][one.provider or "unknown"] += one.messages
        segments += one.segments
        if one.currency is not None:
            costs[one.currency] += one.cost
        if one.direction == Direction.OUTBOUND:
            ended["arrived"] += one.messages * (one.status in ARRIVED)
            ended["lost"] += one.messages * (one.status in LOST)
    return {
        "total": by["direction"].total(),
        **{f"by_{name}": dict(sorted(counts.items())) for name, counts in by.items()},
        "success_rate": _share(ended["arrived"], ended["lost"]),
        "segments": segments,
        "cost": [{"amount": _amount(costs[c]), "currency": c} for c in sorted(costs)],
    }


def series(tallies: Iterable[Tally], width: str, since: int, until: int) -> list[tuple[int, Any]]:
    """A sum for each hour or day, the empty ones too: its beginning, in milliseconds, and it."""
    size = WIDTHS[width]
    by_bucket: dict[int, list[Tally]] = {n: [] for n in range(since // size, -(-until // size))}
    for one in tallies:
        by_bucket[one.bucket].append(one)
    return [(bucket * size, summary(found)) for bucket, found in by_bucket.items()]


def _share(arrived: int, lost: int) -> float | None:
    """Of what has an end, how much arrived; nothing is said of what has none yet."""
    return round(arrived / (arrived + lost), 4) if arrived + lost else None


def _amount(micros: int) -> str:
    return format((Decimal(micros) / MICRO).normalize(), "f")
