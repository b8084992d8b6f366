"""What attempts cost, added up by the database, within bounds: a range of the attempts' ids is read
once, as ids sort by time. No index of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.clock import first_id
from gateway.status import CHARGED
from gateway.store.tx import Tx

APART = 3_600_000  # milliseconds by which an id and its row's time may differ: two clocks
DAY = 86_400_000
NANO = 1_000_000_000  # of a unit of money: sums of whole numbers are exact on every database
PAID = ", ".join(f"'{status}'" for status in sorted(CHARGED))
COST = f"CAST(ROUND(CAST(COALESCE(a.cost, a.estimated_cost) AS NUMERIC) * {NANO}) AS BIGINT)"
UNITS = "COALESCE(a.units, CASE WHEN m.channel = 'sms' THEN m.segments END, 1)"
# SQLite, which knows no numbers of rows, is kept to the range of ids.
SQL = {False: {"join": "CROSS", "plus": "+"}, True: {"join": "", "plus": ""}}
SPENT = f"""
SELECT a.started_at / {DAY}, a.provider,
  CASE WHEN m.channel = 'sms' AND m.media IS NOT NULL THEN 'mms' ELSE m.channel END, a.country,
  CASE WHEN a.cost IS NOT NULL THEN a.currency ELSE a.estimated_currency END,
  CASE WHEN a.cost IS NOT NULL THEN 1 ELSE 0 END,
  COUNT(*), SUM({UNITS}), SUM({COST})
FROM attempts AS a {{join}} JOIN messages AS m ON m.tenant_id = a.tenant_id AND m.id = a.message_id
WHERE {{plus}}a.tenant_id = ? AND a.id >= ? AND a.id < ? AND a.started_at >= ? AND a.started_at < ?
  AND (a.status IN ({PAID}) OR a.cost IS NOT NULL) {{only}}
GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """Attempts that have everything in common but themselves. `day` is its number since 1970;
    `cost` is in billionths, `reported` if vendors told it, without a `currency` if nobody knows."""

    day: int
    provider: str
    kind: str
    country: str | None
    currency: str | None
    reported: bool
    messages: int
    units: int
    cost: int


def spent(tx: Tx, tenant_id: str, since: int, until: int, channel: str | None) -> list[Spent]:
    """What was paid for from one moment to another (milliseconds), by day in UTC."""
    only, values = ("", []) if channel is None else ("AND m.channel = ?", [channel])
    rows: list[Any] = tx.run(
        SPENT.format(**SQL[tx.postgres], only=only),
        [
            tenant_id,
            first_id("att", max(0, since - APART)),
            first_id("att", max(0, until + APART)),
            since,
            until,
            *values,
        ],
    ).fetchall()
    return [
        Spent(
            day=int(row[0]),
            provider=row[1],
            kind=row[2],
            country=row[3],
            currency=row[4],
            reported=bool(row[5]),
            messages=int(row[6]),
            units=int(row[7]),
            cost=int(row[8] or 0),
        )
        for row in rows
    ]
