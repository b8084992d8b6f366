"""Counting messages by what became of them, within bounds: a range of the primary key is read once,
and the database adds up. No index of its own: ids sort by time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.clock import first_id
from gateway.store.tx import Tx

APART = 3_600_000  # milliseconds by which an id and its row's time may differ: two clocks
WIDTHS = {"hour": 3_600_000, "day": 86_400_000}
TOLD = "CASE WHEN cost_estimated IS NULL THEN {} END"  # by vendors, and not by us
MICRO = 1_000_000  # of a unit of money: sums of whole numbers are exact on every database


@dataclass(frozen=True, slots=True)
class Tally:
    """Messages that have everything in common but themselves. `bucket` is the number of its hour
    or day since 1970; `cost` is in millionths."""

    bucket: int
    direction: str
    status: str
    provider: str | None
    currency: str | None
    messages: int
    segments: int
    cost: int


def tally(tx: Tx, tenant_id: str, channel: str, width: str, since: int, until: int) -> list[Tally]:
    """What was written from one moment to another, by hour or by day in UTC."""
    rows: list[Any] = tx.run(
        f"SELECT created_at / {WIDTHS[width]}, direction, status, provider, "
        f"{TOLD.format('currency')}, COUNT(*), SUM(segments), "
        f"SUM(CAST(ROUND(CAST({TOLD.format('cost')} AS NUMERIC) * {MICRO}) AS BIGINT)) "
        "FROM messages WHERE tenant_id = ? AND id >= ? AND id < ? "
        "AND channel = ? AND created_at >= ? AND created_at < ? GROUP BY 1, 2, 3, 4, 5",
        (
            tenant_id,
            first_id("msg", max(0, since - APART)),
            first_id("msg", max(0, until + APART)),
            channel,
            since,
            until,
        ),
    ).fetchall()
    return [
        Tally(
            bucket=int(row[0]),
            direction=row[1],
            status=row[2],
            provider=row[3],
            currency=row[4],
            messages=int(row[5]),
            segments=int(row[6] or 0),
            cost=int(row[7] or 0),
        )
        for row in rows
    ]
