"""What sending cost, in sums: by provider, channel, country or day, with what vendors give away
taken off; and what it would have cost elsewhere.

Decimal all the way, each currency for itself. Reads a day at a time, one question at a time.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from gateway.clock import to_ms
from gateway.domain import Channel
from gateway.money import shown
from gateway.prices import MMS, Price, Prices
from gateway.store.reader import Reader
from gateway.store.spending import DAY, NANO, Spent, spent


class By(StrEnum):
    """What costs are added up by."""

    PROVIDER = "provider"
    CHANNEL = "channel"
    COUNTRY = "country"
    DAY = "day"


@dataclass(eq=False)
class Costs:
    """Adds up costs for the API."""

    reader: Reader
    prices: Prices
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))

    async def items(
        self, tenant_id: str, since: int, until: int, channel: str | None, by: By
    ) -> list[dict[str, Any]]:
        """Sums from one moment to another (milliseconds).

        Raises:
            StoreUnavailable: the database does not answer.
        """
        found: list[Spent] = []
        free = Free(self.prices)
        async with self._turn:
            for start, end in pieces(begins(self.prices, since), since):
                free.used(await self.reader.call(spent, tenant_id, start, end, channel))
            for start, end in pieces(since, until):
                found += await self.reader.call(spent, tenant_id, start, end, channel)
        return sums(free.billed(found), by)


def begins(prices: Prices, since: int) -> int:
    """From when on must be known what was sent, to know what of it was free."""
    periods = {price.free.period for price in prices.listed if price.free is not None}
    if "month" in periods:
        day = datetime.fromtimestamp(since / 1000, UTC)
        return to_ms(day.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    return since - since % DAY if periods else since


def pieces(since: int, until: int) -> Iterator[tuple[int, int]]:
    """A time in days, the first and the last perhaps in part."""
    while since < until:
        end = min(until, since - since % DAY + DAY)
        yield since, end
        since = end


@dataclass(frozen=True, slots=True)
class Bill:
    """What attempts of one kind cost, in billionths; `free` was taken off."""

    spent: Spent
    cost: int
    free: int = 0
    currency: str | None = None
    reported: bool = False


class Free:
    """What vendors give away, as it is used up in the order of the days. Only what we estimate gets
    less by it: what a vendor says has it taken off already."""

    def __init__(self, prices: Prices) -> None:
        self._prices = prices
        self._used: dict[tuple[Any, ...], int] = defaultdict(int)

    def used(self, before: Iterable[Spent]) -> None:
        """Takes into account what was sent before."""
        for one in before:
            self._take(one, self._price(one, one.provider))

    def billed(self, lines: Iterable[Spent]) -> list[Bill]:
        """What these cost."""
        return [self._bill(one) for one in lines]

    def _bill(self, one: Spent) -> Bill:
        left = self._take(one, self._price(one, one.provider))
        if one.reported or one.currency is None:
            return Bill(one, one.cost, 0, one.currency, one.reported)
        cost = one.cost * left // one.units if one.units else one.cost
        return Bill(one, cost, one.cost - cost, one.currency)

    def at(self, one: Spent, provider: str) -> Bill:
        """What these would have cost at a provider."""
        price = self._price(one, provider)
        if price is None:
            return Bill(one, 0)
        left = self._take(one, price)
        each = int(price.one * NANO)
        return Bill(one, each * left, each * (one.units - left), price.currency)

    def _price(self, one: Spent, provider: str) -> Price | None:
        return self._prices.find(provider, one.kind, one.country, one.day * DAY)

    def _take(self, one: Spent, price: Price | None) -> int:
        """Uses up what is free; gives how many units are left to be paid for."""
        if price is None or price.free is None:
            return one.units
        day = datetime.fromtimestamp(one.day * DAY / 1000, UTC)
        period = (day.year, day.month, day.day if price.free.period == "day" else 0)
        key = (price.provider, price.kind, price.country, *period)
        free = max(0, min(one.units, price.free.units - self._used[key]))
        self._used[key] += one.units
        return one.units - free


def channel_of(kind: str) -> str:
    """The channel of a kind of message."""
    return Channel.SMS.value if kind == MMS else kind


def _key(one: Spent, by: By) -> str | None:
    if by is By.DAY:
        return datetime.fromtimestamp(one.day * DAY / 1000, UTC).date().isoformat()
    if by is By.CHANNEL:
        return channel_of(one.kind)
    return one.country if by is By.COUNTRY else one.provider


def sums(bills: Iterable[Bill], by: By) -> list[dict[str, Any]]:
    """Bills in sum, by key; what has none comes last."""
    groups: dict[str | None, list[Bill]] = defaultdict(list)
    for bill in bills:
        groups[_key(bill.spent, by)].append(bill)
    keys = sorted(groups, key=lambda key: (key is None, key or ""))
    return [{"key": key, **total(groups[key])} for key in keys]


def total(bills: Sequence[Bill]) -> dict[str, Any]:
    """Bills in one sum, each currency for itself."""
    of = [bill.spent for bill in bills]
    money = {bill.currency for bill in bills if bill.currency is not None}
    return {
        "messages": sum(one.messages for one in of),
        "segments": sum(one.units for one in of if one.kind == Channel.SMS),
        "unpriced": sum(bill.spent.messages for bill in bills if bill.currency is None),
        "cost": [_money([b for b in bills if b.currency == each], each) for each in sorted(money)],
    }


def _money(bills: Sequence[Bill], currency: str) -> dict[str, str]:
    reported = sum(bill.cost for bill in bills if bill.reported)
    every = sum(bill.cost for bill in bills)
    return {
        "amount": _amount(every),
        "currency": currency,
        "reported": _amount(reported),
        "estimated": _amount(every - reported),
        "free": _amount(sum(bill.free for bill in bills)),
    }


def _amount(nanos: int) -> str:
    return shown(Decimal(nanos) / NANO)


def compared(lines: Sequence[Spent], prices: Prices) -> list[dict[str, Any]]:
    """What was sent on each channel, and what it would have cost with each provider first."""
    found = []
    for channel in sorted({channel_of(one.kind) for one in lines}):
        mine = [one for one in lines if channel_of(one.kind) == channel]
        kinds = {channel, MMS} if channel == Channel.SMS else {channel}
        known = {price.provider for price in prices.listed if price.kind in kinds}
        names = sorted(known | {one.provider for one in mine})
        found.append(
            {
                "channel": channel,
                "actual": total(Free(prices).billed(mine)),
                "first": [{"provider": name, **_elsewhere(mine, prices, name)} for name in names],
            }
        )
    return found


def _elsewhere(lines: Sequence[Spent], prices: Prices, provider: str) -> dict[str, Any]:
    """With the notes of the prices that are guesses."""
    free = Free(prices)
    used = (prices.find(provider, one.kind, one.country, one.day * DAY) for one in lines)
    notes = {price.note or "a guess" for price in used if price is not None and price.estimated}
    return {**total([free.at(one, provider) for one in lines]), "notes": sorted(notes)}
