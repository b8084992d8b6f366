"""How much waits, for a look at the whole: bounded, however long the queue is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.store import usage
from gateway.store.claims import ROUTES
from gateway.store.tx import Tx

MOST = 100_000  # rows looked at

WAITING = f"""
SELECT lane, route, state, COUNT(*) AS many FROM (
  SELECT lane, route, CASE
    WHEN quarantined <> 0 THEN 'held'
    WHEN lease_until > 0 THEN 'sending'
    WHEN due_at > ? THEN 'later'
    ELSE 'due' END AS state
  FROM queue LIMIT {MOST}) AS seen
GROUP BY lane, route, state
"""
OLDEST = f"""
WITH RECURSIVE {ROUTES}, lanes (lane) AS (VALUES (0), (1), (2), (3))
SELECT lanes.lane, (
  SELECT q.due_at FROM queue AS q
  WHERE q.route = known.route AND q.lane = lanes.lane
    AND q.lease_until = 0 AND q.quarantined = 0 AND q.due_at <= ?
  ORDER BY q.due_at LIMIT 1) AS due_at
FROM known, lanes WHERE known.route IS NOT NULL
"""
UNKNOWN = f"""
SELECT provider, COUNT(*) AS many FROM (
  SELECT provider FROM attempts
  WHERE status IN ('sending', 'unknown') AND status = 'unknown' LIMIT {MOST}) AS seen
GROUP BY provider
"""  # its first condition is that of the index
BREAKERS = f"SELECT provider, sender, state FROM breakers WHERE state <> 'closed' LIMIT {MOST}"


@dataclass(frozen=True, slots=True)
class Depths:
    """Messages of the queue by (lane, route, state); for how many seconds the oldest of each lane
    is due; attempts by provider whose outcome is unknown; breakers that are not closed, by
    provider, the worst of each; senders by provider that are blocked; people by provider who were
    written to in the last 24 hours, where that is counted."""

    waiting: Mapping[tuple[int, str, str], int]
    oldest: Mapping[int, float]
    unknown: Mapping[str, int]
    breakers: Mapping[str, str]
    blocked: Mapping[str, int]
    used: Mapping[str, int]


def depths(tx: Tx) -> Depths:
    """What waits now."""
    breakers, blocked = _breakers(tx)
    return Depths(
        waiting={
            (row.lane, row.route, row.state): row.many
            for row in tx.run(WAITING, (tx.now,)).fetchall()
        },
        oldest=_oldest(tx),
        unknown={row.provider: row.many for row in tx.run(UNKNOWN).fetchall()},
        breakers=breakers,
        blocked=blocked,
        used=_used(tx),
    )


def _used(tx: Tx) -> dict[str, int]:
    used: Counter[str] = Counter()
    for one in usage.listed(tx):
        used[one.provider] += one.people
    return used


def _oldest(tx: Tx) -> dict[int, float]:
    waited: dict[int, float] = {}
    for row in tx.run(OLDEST, (tx.now,)).fetchall():
        if row.due_at is not None:
            seconds = (tx.now - row.due_at) / 1000
            waited[row.lane] = max(seconds, waited.get(row.lane, 0.0))
    return waited


def _breakers(tx: Tx) -> tuple[dict[str, str], dict[str, int]]:
    states: dict[str, str] = {}
    blocked: dict[str, int] = {}
    for row in tx.run(BREAKERS).fetchall():
        if row.sender:
            blocked[row.provider] = blocked.get(row.provider, 0) + 1
        elif states.get(row.provider) != "open":
            states[row.provider] = row.state
    return states, blocked
