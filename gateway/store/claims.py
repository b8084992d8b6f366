"""Claims: what is due is leased, by lane, then by age, one at a time of each conversation.

A route is the names of the providers that may send a message, in their order. What is due is looked
for route by route: what waits for a provider that may not be asked costs the rest nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gateway.routing import Tried
from gateway.store.batcher import Operation
from gateway.store.ledger import QUEUE_KEY, MessageKey
from gateway.store.rows import select
from gateway.store.tables import attempts, messages
from gateway.store.tx import Tx

# Each route that stands in the queue, by a look at the index for each, however much waits.
ROUTES = """
known (route) AS (
  SELECT (SELECT q.route FROM queue AS q WHERE q.lease_until = 0 ORDER BY q.route LIMIT 1)
  UNION ALL
  SELECT (
    SELECT q.route FROM queue AS q
    WHERE q.lease_until = 0 AND q.route > known.route ORDER BY q.route LIMIT 1)
  FROM known WHERE known.route IS NOT NULL)"""
WAITING = f"""
WITH RECURSIVE {ROUTES}, lanes (lane) AS (VALUES (0), (1), (2), (3))
SELECT known.route, lanes.lane, (
  SELECT q.due_at FROM queue AS q
  WHERE q.route = known.route AND q.lane = lanes.lane
    AND q.lease_until = 0 AND q.due_at <= ? AND q.quarantined = 0
  ORDER BY q.due_at LIMIT 1) AS due_at
FROM known, lanes WHERE known.route IS NOT NULL
"""  # in an order, and not by EXISTS, which PostgreSQL would make a join over all that waits
DUE = """
  SELECT q.tenant_id, q.message_id, q.lane, q.due_at FROM queue AS q
  WHERE q.route = ? AND q.lane = ?
    AND q.lease_until = 0 AND q.quarantined = 0 AND q.due_at <= ?
    AND NOT EXISTS (
      SELECT 1 FROM queue AS e
      WHERE e.tenant_id = q.tenant_id AND e.conversation_id = q.conversation_id
        AND e.lane = q.lane AND e.message_id < q.message_id AND e.quarantined = 0
        AND (e.attempts > 0 OR e.due_at <= ?))
    AND NOT EXISTS (
      SELECT 1 FROM queue AS l
      WHERE l.tenant_id = q.tenant_id AND l.conversation_id = q.conversation_id
        AND l.lane = q.lane AND l.lease_until > 0)
  ORDER BY q.due_at, q.message_id LIMIT ?"""
SOON = 1000  # milliseconds
CLAIMED_COLUMNS = (
    "tenant_id",
    "id",
    "conversation_id",
    "channel",
    "type",
    "from_address",
    "to_address",
    "body",
    "content",
    "reply_to",
    "subject",
    "extra",
    "media",
    "segments",
    "provider",
    "connection",
    "on_unknown",
    "created_at",
    "send_at",
    "expires_at",
)
TRIED_COLUMNS = (*QUEUE_KEY, "number", "provider", "error_reason", "error_code", "retry_at")


@dataclass(frozen=True, slots=True)
class Claim:
    """Asks for up to `limit` due messages, leased for `lease` milliseconds."""

    token: str
    limit: int
    lease: int
    providers: tuple[str, ...]  # that may be asked: what only others can send is left to them
    kept: tuple[str, ...] = ()  # others, whose claims of their own get what is meant for them first


@dataclass(frozen=True, slots=True)
class Due:
    """A leased message with what a send needs. `route` names who may send it; `tried` are the
    attempts so far."""

    tenant_id: str
    message_id: str
    token: str
    attempts: int
    message: dict[str, Any]
    route: str = ""
    tried: tuple[Tried, ...] = ()

    @property
    def key(self) -> MessageKey:
        """The message."""
        return self.tenant_id, self.message_id


def lanes_due(tx: Tx) -> dict[str, list[int]]:
    """The lanes in which something is due, of each route."""
    found: dict[str, list[int]] = {}
    for row in tx.run(WAITING, (tx.now,)).fetchall():
        if row.due_at is None:
            continue
        found.setdefault(row.route, []).append(int(row.lane))
    return found


@lru_cache(maxsize=4096)
def names(route: str) -> tuple[str, ...]:
    """The providers of a route, in their order."""
    return tuple(route.split(",")) if route else ()


def claim(tx: Tx, items: Sequence[Claim]) -> Sequence[list[Due] | Exception]:
    """Leases due messages."""
    waits = lanes_due(tx)
    return [_claim(tx, item, waits) for item in items]


def _gets(item: Claim, route: str) -> bool:
    """Whether the first of a route that may be asked is one of a claim's own."""
    first = (name for name in names(route) if name in item.providers or name in item.kept)
    return next(first, None) in item.providers


def _claim(tx: Tx, item: Claim, waits: dict[str, list[int]]) -> list[Due]:
    places = [
        (lane, route) for route, lanes in waits.items() if _gets(item, route) for lane in lanes
    ]
    if not places:
        return []
    values: list[Any] = []
    for lane, route in sorted(places):
        values += (route, lane, tx.now, tx.now, item.limit)
    values += (item.token, tx.now + item.lease, item.limit)
    rows = tx.run(_claims(len(places), tx.postgres), values).fetchall()
    return _leased(tx, item, {(row.tenant_id, row.message_id): row for row in rows})


@lru_cache(maxsize=64)
def _claims(places: int, postgres: bool) -> str:
    """Materialised, since PostgreSQL may run a subquery with SKIP LOCKED more than once."""
    skip = " FOR UPDATE OF q SKIP LOCKED" if postgres else ""
    arms = " UNION ALL ".join(f"SELECT * FROM ({DUE}{skip}) AS p{n}" for n in range(places))
    return f"""
WITH free (owner, one, lane, due_at) AS MATERIALIZED ({arms})
UPDATE queue SET lease_token = ?, lease_until = ?, claims = claims + 1
FROM (SELECT owner, one FROM free ORDER BY lane, due_at, one LIMIT ?) AS first
WHERE tenant_id = first.owner AND message_id = first.one
RETURNING tenant_id, message_id, attempts, route"""


def _leased(tx: Tx, item: Claim, rows: dict[MessageKey, Any]) -> list[Due]:
    again = [key for key, row in rows.items() if row.attempts]
    tried: dict[MessageKey, list[Any]] = {}
    for row in select(tx, attempts, QUEUE_KEY, again, TRIED_COLUMNS) if again else ():
        tried.setdefault((row.tenant_id, row.message_id), []).append(row)
    found = select(tx, messages, ("tenant_id", "id"), list(rows), CLAIMED_COLUMNS)
    return [
        Due(
            row.tenant_id,
            row.id,
            item.token,
            int(rows[row.tenant_id, row.id].attempts),
            dict(row._mapping),
            rows[row.tenant_id, row.id].route,
            _since(tried.get((row.tenant_id, row.id), ()), rows[row.tenant_id, row.id].attempts),
        )
        for row in found
    ]


def _since(tried: Iterable[Any], made: int) -> tuple[Tried, ...]:
    """The attempts that count: not those before somebody asked to send a message again."""
    ordered = sorted(tried, key=lambda one: int(one.number))
    counted = ordered[len(ordered) - made :] if made else ()
    return tuple(
        Tried(row.provider, row.error_reason, row.error_code, row.retry_at) for row in counted
    )


def leased(tx: Tx, items: Sequence[Claim]) -> bool:
    """Whether a batch of claims was committed, and found something."""
    sql = "SELECT 1 FROM queue WHERE lease_until > 0 AND lease_token = ? LIMIT 1"
    return any(tx.run(sql, (item.token,)).fetchone() for item in items)


@dataclass(frozen=True, slots=True)
class Release:
    """Gives a lease back: nobody may be asked just now. `due_at` where that is known to last;
    `blocked` if it is the end of a sender's block, as whoever claimed knew of it. The route may be
    shorter by those who would refuse the message."""

    due: Due
    due_at: int | None = None
    blocked: bool = False


def release(tx: Tx, items: Sequence[Release]) -> Sequence[bool | Exception]:
    """Lets messages wait again. Costs no attempt, and does not count as a claim."""
    done: dict[str, bool] = {}  # by the lease's token and the message
    over = _over(tx, {item.due_at for item in items if item.blocked and item.due_at is not None})
    for item in sorted(items, key=lambda item: item.due.key):
        due_at = over.get(item.due_at or 0, item.due_at)
        freed = tx.run(
            "UPDATE queue SET lease_token = NULL, lease_until = 0, claims = claims - 1, "
            "due_at = COALESCE(?, due_at), route = COALESCE(?, route) "
            "WHERE tenant_id = ? AND message_id = ? AND lease_until > 0 AND lease_token = ? "
            "AND claims > 0",  # none since T2: then it is not given back but settled
            (due_at, item.due.route or None, *item.due.key, item.due.token),
        )
        done[item.due.token + item.due.message_id] = freed.rowcount > 0
    return [done[item.due.token + item.due.message_id] for item in items]


def _over(tx: Tx, moments: Iterable[int]) -> dict[int, int]:
    """Ends of blocks that are none any more: somebody has unblocked the sender, and whoever claimed
    will have heard of it in a moment."""
    held = "SELECT 1 FROM breakers WHERE sender <> '' AND (retry_at = ? OR probe_until = ?)"
    gone = [at for at in moments if tx.run(held, (at, at)).fetchone() is None]
    return dict.fromkeys(gone, tx.now + SOON)


CLAIM: Operation[Claim, list[Due]] = Operation("claim", 30, claim, leased)
RELEASE: Operation[Release, bool] = Operation("release", 27, release, lambda tx, items: False)
