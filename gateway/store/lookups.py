"""Attempts whose outcome is unknown: whom to ask the vendor about next, and what a look proves.

A look can prove that the vendor has a message, and only by exactly one that nobody else claims;
it never proves that the vendor has not. A vendor's id belongs to one attempt for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.domain import Status, StatusUpdate
from gateway.store import inbox
from gateway.store.batcher import Operation
from gateway.store.inbox import Delivery
from gateway.store.rows import present, select, update
from gateway.store.tables import attempts
from gateway.store.tx import Tx
from gateway.store.vendor_tables import lookups

NOTED = 500  # attempts that are noted in one go
OPEN = (Status.SENDING, Status.UNKNOWN)
ATTEMPT = (
    "tenant_id",
    "id",
    "message_id",
    "connection",
    "recipient",
    "status",
    "provider_message_id",
    "started_at",
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Asks for attempts to look up, which these providers made. `first` is when to look first
    after an outcome became unknown; `lease` is for how long nobody else gets the same ones; what
    is settled is forgotten, but what is not known is asked for again after `later`. Times in
    milliseconds."""

    limit: int
    lease: int
    first: int
    later: int
    providers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A message that the vendor has, with when it was created by the vendor's clock."""

    provider_message_id: str
    created_at: int
    delivery: Delivery  # what it says, with one `StatusUpdate`


@dataclass(frozen=True, slots=True)
class Looked:
    """One look at an attempt: what there is that says the same to the same person. It may be the
    attempt if it was created between `low` and `high` milliseconds after that began."""

    tenant_id: str
    attempt_id: str
    tries: int
    next_in: int
    found: tuple[Found, ...] = ()
    low: int = 0
    high: int = 0


def want(tx: Tx, items: Sequence[Wanted]) -> Sequence[list[Row] | Exception]:
    """Takes the attempts that are due; a crash gives them back after the lease."""
    return [_want(tx, item) for item in items]


def _want(tx: Tx, item: Wanted) -> list[Row]:
    if not item.providers:
        return []
    marks = ", ".join("?" * len(item.providers))
    _note(tx, item, marks)
    skip = "FOR UPDATE SKIP LOCKED" if tx.postgres else ""
    taken = tx.run(
        "WITH free (owner, one) AS MATERIALIZED ("
        f"SELECT tenant_id, attempt_id FROM lookups WHERE due_at <= ? AND provider IN ({marks}) "
        f"ORDER BY due_at LIMIT ? {skip}) "
        "UPDATE lookups SET due_at = ? FROM free "
        "WHERE tenant_id = free.owner AND attempt_id = free.one "
        "RETURNING tenant_id, attempt_id, tries",
        (tx.now, *item.providers, item.limit, tx.now + item.lease),
    ).fetchall()
    tries = {(row.tenant_id, row.attempt_id): row.tries for row in taken}
    rows = [row for key in sorted(tries) for row in _asked(tx, *key, tries[key])]
    over = [row for row in rows if row["status"] != Status.UNKNOWN]
    _forget(tx, over, item.later)
    return [row for row in rows if row["status"] == Status.UNKNOWN]


def _note(tx: Tx, item: Wanted, marks: str) -> None:
    """Notes the attempts that have become unknown since."""
    tx.run(
        "INSERT INTO lookups (tenant_id, attempt_id, provider, tries, due_at, created_at) "
        "SELECT a.tenant_id, a.id, a.provider, 0, COALESCE(a.finished_at, a.started_at) + ?, ? "
        f"FROM attempts AS a WHERE a.status = 'unknown' AND a.provider IN ({marks}) "
        "AND NOT EXISTS (SELECT 1 FROM lookups AS l "
        "WHERE l.tenant_id = a.tenant_id AND l.attempt_id = a.id) "
        f"ORDER BY a.id LIMIT {NOTED} ON CONFLICT DO NOTHING",
        (item.first, tx.now, *item.providers),
    )


def _asked(tx: Tx, tenant_id: str, attempt_id: str, tries: int) -> list[Row]:
    """An attempt with what was written to the vendor, and what time it is."""
    found = tx.run(
        "SELECT a.tenant_id, a.id, a.status, a.provider, a.account, a.sender, a.recipient, "
        "a.started_at, a.provider_message_id, m.channel, m.body, m.media FROM attempts AS a "
        "JOIN messages AS m ON m.tenant_id = a.tenant_id AND m.id = a.message_id "
        "WHERE a.tenant_id = ? AND a.id = ?",
        (tenant_id, attempt_id),
    ).fetchall()
    return [{**row._mapping, "tries": tries, "now": tx.now} for row in found]


def _forget(tx: Tx, rows: Sequence[Row], later: int) -> None:
    """An attempt that a vendor's id proves needs no more looks, nor does one that was given up
    long ago; one that was given up just now may still be what a look for another one finds."""
    waiting: list[Row] = []
    for row in rows:
        key = {"tenant_id": row["tenant_id"], "attempt_id": row["id"]}
        if row["provider_message_id"] is None and tx.now - row["started_at"] < later * 2:
            waiting.append({**key, "due_at": tx.now + later})
        else:
            _delete(tx, **key)
    update(tx, lookups, ("tenant_id", "attempt_id"), waiting)


def _delete(tx: Tx, tenant_id: str, attempt_id: str) -> None:
    tx.run(
        "DELETE FROM lookups WHERE tenant_id = ? AND attempt_id = ?",
        (tenant_id, attempt_id),
    )


def settle(tx: Tx, items: Sequence[Looked]) -> Sequence[str | Exception]:
    """Applies what looks have proved. Says of each how it ended: `settled`, `absent`,
    `ambiguous` (it could be one of several, or of several attempts) or `over`."""
    ordered = sorted(items, key=lambda item: (item.tenant_id, item.attempt_id))
    said = {id(item): _settle(tx, item) for item in ordered}
    return [said[id(item)] for item in items]


def _settle(tx: Tx, item: Looked) -> str:
    rows = select(tx, attempts, ("id",), [(item.attempt_id,)], ATTEMPT)
    attempt: Row = dict(rows[0]._mapping) if rows else {}
    if not attempt or attempt["status"] != Status.UNKNOWN:
        said = "over"  # somebody else knew, a callback or another process
    else:
        said = _judge(tx, attempt, item)
    if said == "settled":
        _delete(tx, item.tenant_id, item.attempt_id)
        return said
    row = {
        "tenant_id": item.tenant_id,
        "attempt_id": item.attempt_id,
        "tries": item.tries,
        "due_at": tx.now + item.next_in,
    }
    update(tx, lookups, ("tenant_id", "attempt_id"), [row])
    return said


def _judge(tx: Tx, attempt: Row, item: Looked) -> str:
    free = [
        found
        for found in _unclaimed(tx, attempt, item.found)
        if item.low <= found.created_at - attempt["started_at"] <= item.high
    ]
    if not free:
        return "absent"
    if len(free) > 1 or _rivals(tx, attempt, item, free[0]):
        return "ambiguous"
    return _apply(tx, attempt, free[0])


def _unclaimed(tx: Tx, attempt: Row, found: Sequence[Found]) -> list[Found]:
    keys = [(attempt["connection"], one.provider_message_id) for one in found]
    taken = present(tx, attempts, ("connection", "provider_message_id"), keys)
    return [one for one, key in zip(found, keys, strict=True) if key not in taken]


def _rivals(tx: Tx, attempt: Row, item: Looked, found: Found) -> bool:
    """Whether another attempt says the same to the same person and may be what was found: one
    that is on its way, or one whose outcome nobody knows, also if it was given up."""
    same = (
        "JOIN messages AS m ON m.tenant_id = a.tenant_id AND m.id = a.message_id "
        "JOIN messages AS o ON o.tenant_id = ? AND o.id = ? "
        "WHERE a.tenant_id = o.tenant_id AND a.connection = ? AND a.recipient = ? AND a.id <> ? "
        "AND a.provider_message_id IS NULL AND m.channel = o.channel AND m.body = o.body"
    )
    values = (
        attempt["tenant_id"],
        attempt["message_id"],
        attempt["connection"],
        attempt["recipient"],
        attempt["id"],
    )
    rows = tx.run(
        f"SELECT a.started_at FROM attempts AS a {same} AND a.status IN ('sending', 'unknown') "
        "UNION ALL SELECT a.started_at FROM lookups AS l JOIN attempts AS a "
        f"ON a.tenant_id = l.tenant_id AND a.id = l.attempt_id {same}",
        (*values, *values),
    ).fetchall()
    return any(item.low <= found.created_at - row.started_at <= item.high for row in rows)


def _apply(tx: Tx, attempt: Row, found: Found) -> str:
    events = [
        replace(event, attempt_id=attempt["id"])
        for event in found.delivery.events
        if isinstance(event, StatusUpdate)
    ]
    if len(events) != 1:
        return "ambiguous"  # it cannot be read, so it says nothing
    inbox.run(tx, [replace(found.delivery, events=tuple(events))])
    (row,) = select(tx, attempts, ("id",), [(attempt["id"],)], ("status",))
    return "settled" if row.status != Status.UNKNOWN else "ambiguous"


WANT: Operation[Wanted, list[Row]] = Operation("want look-ups", 47, want, lambda t, i: False)
SETTLE: Operation[Looked, str] = Operation("settle look-ups", 23, settle, lambda t, i: False)
