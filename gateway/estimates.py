"""What a message that is about to be sent will cost: where it goes, what is paid for, the price.

Made before the attempt is stored, by looking things up, and stored with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway import addresses
from gateway.clock import to_ms
from gateway.domain import Channel, Clock, Estimate
from gateway.prices import Prices
from gateway.recipients import copies

DAY = 86_400_000  # milliseconds
MOST = 10_000  # that are remembered


Kind = tuple[str, str, str | None, int | None]  # what costs the same on one day


class Estimates:
    """Estimates by a list of prices, at the time of sending. Prices change with days only, so what
    was looked up is remembered for its day."""

    def __init__(self, clock: Clock, prices: Prices | None = None) -> None:
        self._clock = clock
        self.prices = prices or Prices()
        self._day = 0
        self._known: dict[Kind, Estimate] = {}

    def of(self, row: Mapping[str, Any], provider: str, at: int | None = None) -> Estimate:
        """What a stored message will cost at a provider, now or at a moment (milliseconds)."""
        channel, segments = row["channel"], segments_of(row)
        country = addresses.country(channel, row["to_address"])
        when = to_ms(self._clock.now()) if at is None else at
        known = self._on(when // DAY)
        kind = (provider, channel, country, segments)
        found = known.get(kind)
        if found is None:
            cost = self.prices.quote(provider, channel, country, segments, when)
            found = known[kind] = Estimate(country=country, units=segments or 1, cost=cost)
        return found

    def _on(self, day: int) -> dict[Kind, Estimate]:
        if day != self._day or len(self._known) > MOST:
            self._day, self._known = day, {}
        return self._known


def segments_of(row: Mapping[str, Any]) -> int | None:
    """How much of a stored message is paid for; None for an SMS with files, which is one."""
    if row["channel"] == Channel.SMS:
        return None if row["media"] else row["segments"] or 1
    return 1 + len(copies(row))  # vendors bill each person whom an email goes to
