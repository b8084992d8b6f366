"""What a message that is about to be sent will cost: where it goes, what is paid for, the price.

Made before the attempt is stored, by looking things up, and stored with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway import addresses
from gateway.clock import to_ms
from gateway.domain import Channel, Clock, Estimate
from gateway.prices import Prices

COPIES = ("cc", "bcc")  # vendors bill each person whom an email goes to


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates by a list of prices, at the time of sending."""

    clock: Clock
    prices: Prices = field(default_factory=Prices)

    def of(self, row: Mapping[str, Any], provider: str, at: int | None = None) -> Estimate:
        """What a stored message will cost at a provider, now or at a moment (milliseconds)."""
        channel = Channel(row["channel"])
        segments = segments_of(row)
        country = addresses.country(channel, row["to_address"])
        when = to_ms(self.clock.now()) if at is None else at
        cost = self.prices.quote(provider, channel, country, segments, when)
        return Estimate(country=country, units=segments or 1, cost=cost)


def segments_of(row: Mapping[str, Any]) -> int | None:
    """How much of a stored message is paid for; None for an SMS with files, which is one."""
    if row["channel"] == Channel.SMS:
        return None if row["media"] else row["segments"] or 1
    extra = row["extra"] if row["channel"] == Channel.EMAIL else None
    if not extra or not any(f'"{name}"' in extra for name in COPIES):
        return 1
    parts = json.loads(extra).get("email", {})
    return 1 + sum(len(parts.get(name, ())) for name in COPIES)
