"""Emails of the inbox that are not read yet: which is next, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.store import inbox as receiving
from gateway.store.batcher import Operation
from gateway.store.inbox import DEDUPE, Delivery
from gateway.store.rows import select, update
from gateway.store.tables import inbox, messages
from gateway.store.tx import Tx


@dataclass(frozen=True, slots=True)
class Wanted:
    """Asks for emails to read; they are not given to anybody else for `lease` milliseconds.
    `begun`: of those that were begun less often the leases are ended first, for whoever is the only
    process and has just started. The others may be why the last one died, and wait."""

    limit: int
    lease: int
    begun: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """A request of the inbox, and what its emails say. The delivery has no id: it is there."""

    id: str
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Unread:
    """One that could not be read: to be tried again after `retry_in` milliseconds, or given up.
    `blameless`: it was not its own fault, and does not count."""

    id: str
    webhook: str
    state: str
    detail: str
    retry_in: int = 0
    blameless: bool = False


def want(tx: Tx, items: Sequence[Wanted]) -> Sequence[list[dict[str, Any]] | Exception]:
    """Takes emails that are due; a crash gives them back after the lease, and counts as a try."""
    return [_want(tx, item) for item in items]


def _want(tx: Tx, item: Wanted) -> list[dict[str, Any]]:
    if item.begun:
        tx.run(
            "UPDATE inbox SET due_at = ? "
            "WHERE state = 'pending' AND due_at > ? AND COALESCE(tries, 0) < ?",
            (tx.now, tx.now, item.begun),
        )
    skip = "FOR UPDATE SKIP LOCKED" if tx.postgres else ""
    rows = tx.run(
        "WITH free (one) AS MATERIALIZED ("
        "SELECT id FROM inbox WHERE state = 'pending' AND due_at <= ? "
        f"ORDER BY COALESCE(tries, 0), due_at LIMIT ? {skip}) "
        "UPDATE inbox SET due_at = ?, tries = COALESCE(tries, 0) + 1 FROM free "
        "WHERE id = free.one RETURNING id, tries",
        (tx.now, item.limit, tx.now + item.lease),
    )
    return [dict(row._mapping) for row in rows.fetchall()]


def read(tx: Tx, items: Sequence[Read]) -> Sequence[None | Exception]:
    """Stores what emails say, once."""
    receiving.run(tx, [item.delivery for item in items])
    rows = [
        {"id": item.id, "state": item.delivery.state, "detail": item.delivery.detail}
        for item in sorted(items, key=lambda item: item.id)
    ]
    update(tx, inbox, ("id",), rows)
    return [None] * len(items)


def unread(tx: Tx, items: Sequence[Unread]) -> Sequence[None | Exception]:
    """Stores that emails were not read."""
    rows = [
        {
            "id": item.id,
            "state": item.state,
            "detail": item.detail,
            "due_at": tx.now + item.retry_in,
            "tries": 0 if item.blameless else None,
        }
        for item in sorted(items, key=lambda item: item.id)
    ]
    update(tx, inbox, ("id",), rows, how={"tries": "COALESCE(v.tries, t.tries)"})
    return [None] * len(items)


def known(tx: Tx, connection: str, keys: Sequence[str]) -> frozenset[str]:
    """Which of these messages are stored already, by their dedupe keys."""
    found = select(tx, messages, DEDUPE, [(connection, key) for key in keys], DEDUPE)
    return frozenset(row.dedupe_key for row in found)


WANT: Operation[Wanted, list[dict[str, Any]]] = Operation("want mail", 46, want, lambda t, i: False)
READ: Operation[Read, None] = Operation("store mail", 25, read, lambda t, i: False)
UNREAD: Operation[Unread, None] = Operation("mail unread", 26, unread, lambda t, i: False)
