"""The raw inbox as an operator sees it: of every tenant, and of what no tenant owns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.store import inbox as receiving
from gateway.store.batcher import Operation
from gateway.store.inbox import Delivery
from gateway.store.rows import update
from gateway.store.tables import inbox
from gateway.store.tx import Tx

LISTED = ("id", "received_at", "webhook", "connection", "state", "detail", "replayed_at")

Row = dict[str, Any]


def listed(tx: Tx, state: str | None, limit: int) -> list[Row]:
    """Requests, newest first, without their bodies; of one state, or of all."""
    where, values = (f"WHERE {_in(state)} ", [state]) if state is not None else ("", [])
    found = tx.run(
        f"SELECT {', '.join(LISTED)} FROM inbox {where}ORDER BY id DESC LIMIT ?", [*values, limit]
    )
    return [dict(row._mapping) for row in found.fetchall()]


def _in(state: str) -> str:
    """Of a state, by the index of those that are not the usual one."""
    return "state = ?" if state == "parsed" else "state = ? AND state <> 'parsed'"


def one(tx: Tx, id_: str) -> Row | None:
    """A request, whole."""
    columns = ", ".join(column.name for column in inbox.columns)
    row = tx.run(f"SELECT {columns} FROM inbox WHERE id = ?", (id_,)).fetchone()
    return dict(row._mapping) if row is not None else None


def page(tx: Tx, state: str | None, after: str, limit: int, since: int = 0) -> list[Row]:
    """Whole requests of a state, or of all, received since a time in milliseconds, oldest first,
    after an id."""
    where, values = (f"{_in(state)} AND ", [state]) if state is not None else ("", [])
    columns = ", ".join(column.name for column in inbox.columns)
    found = tx.run(
        f"SELECT {columns} FROM inbox WHERE {where}id > ? AND received_at >= ? ORDER BY id LIMIT ?",
        [*values, after, since, limit],
    )
    return [dict(row._mapping) for row in found.fetchall()]


@dataclass(frozen=True, slots=True)
class Replay:
    """A request of the inbox, read anew. The delivery has no id: its raw form is there."""

    id: str
    delivery: Delivery


def run(tx: Tx, items: Sequence[Replay]) -> Sequence[bool | Exception]:
    """Stores what the requests say, once, and how well they could be read this time. Emails are
    left to whoever reads them."""
    receiving.run(tx, [item.delivery for item in items])
    tx.topics.add("mail")
    rows = [
        {
            "id": item.id,
            "tenant_id": item.delivery.tenant_id,
            "state": item.delivery.state,
            "detail": item.delivery.detail,
            "replayed_at": tx.now,
            "tries": 0,
            "due_at": tx.now,
        }
        for item in sorted(items, key=lambda item: item.id)
    ]
    update(tx, inbox, ("id",), rows)
    return [True] * len(items)


REPLAY: Operation[Replay, bool] = Operation("replay", 12, run, lambda tx, items: False)
