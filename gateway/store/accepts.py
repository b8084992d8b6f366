"""T1: conversation, message, queue entry and event in one transaction, for many at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.domain import LANES, Priority, Status
from gateway.store import conversations
from gateway.store.batcher import Operation
from gateway.store.conversations import Wanted
from gateway.store.database import Again
from gateway.store.rows import insert, select
from gateway.store.tables import idempotency, messages, queue
from gateway.store.tx import Tx
from gateway.views import View, message_view

IDEMPOTENCY = ("tenant_id", "route", "key")


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's own name for a request, with the hash of what it asked for."""

    route: str
    key: str
    body_hash: str
    kept: int  # milliseconds


@dataclass(slots=True)
class NewMessage:
    """A validated message. `row` has every column that does not depend on the database."""

    row: dict[str, Any]
    wanted: Wanted
    idempotency: IdempotencyKey | None = None
    view: View = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to an accept. `conflict`: the key was used for another request."""

    view: View
    replayed: bool = False
    conflict: bool = False


def _keys(items: Sequence[NewMessage]) -> list[tuple[str, str, str]]:
    return [
        (item.row["tenant_id"], item.idempotency.route, item.idempotency.key)
        for item in items
        if item.idempotency is not None
    ]


def run(tx: Tx, items: Sequence[NewMessage]) -> Sequence[Accepted | Exception]:
    """Writes the messages that are new, and finds the first answer of those that are repeated."""
    earlier = _earlier(tx, items)
    fresh: list[NewMessage] = []
    mine: dict[tuple[str, str, str], NewMessage] = {}
    for item in items:
        for key in _keys([item]):
            if key not in earlier and key not in mine:
                mine[key] = item
        if not any(key in earlier or mine[key] is not item for key in _keys([item])):
            fresh.append(item)
    _write(tx, fresh)
    return [_answer(item, earlier, mine) for item in items]


def _earlier(tx: Tx, items: Sequence[NewMessage]) -> dict[tuple[str, str, str], Any]:
    columns = (*IDEMPOTENCY, "body_hash", "message_id", "response", "expires_at")
    rows = select(tx, idempotency, IDEMPOTENCY, _keys(items), columns)
    stale = [row for row in rows if row.expires_at <= tx.now]
    for row in stale:
        tx.run(
            "DELETE FROM idempotency WHERE tenant_id = ? AND route = ? AND key = ?", tuple(row[:3])
        )
    return {tuple(row[:3]): row for row in rows if row not in stale}


def _answer(
    item: NewMessage, earlier: dict[tuple[str, str, str], Any], mine: dict[Any, NewMessage]
) -> Accepted:
    if item.idempotency is None:
        return Accepted(item.view)
    (key,) = _keys([item])
    if key in earlier:
        row = earlier[key]
        same = row.body_hash == item.idempotency.body_hash
        repeated = row.message_id != item.row["id"]
        return Accepted(json.loads(row.response), replayed=repeated, conflict=not same)
    first = mine[key]
    assert first.idempotency is not None
    same = first.idempotency.body_hash == item.idempotency.body_hash
    return Accepted(first.view, replayed=first is not item, conflict=not same)


def _write(tx: Tx, items: Sequence[NewMessage]) -> None:
    if not items:
        return
    conversations.resolve(tx, [item.wanted for item in items])
    for item in items:
        _complete(tx, item)
    _claim_keys(tx, items)
    rows = sorted((item.row for item in items), key=lambda row: str(row["id"]))
    made = insert(tx, messages, rows, "ON CONFLICT DO NOTHING RETURNING id")
    if len(made) < len(rows):  # a commit that was thought to be lost came through after all
        there = {row.id for row in made}
        rows = [row for row in rows if row["id"] in there]
    insert(tx, queue, [_entry(row, tx.now) for row in rows], "ON CONFLICT DO NOTHING")
    older = [item.row for item in items if not item.wanted.created]
    conversations.touch_outbound(tx, [(r["tenant_id"], r["conversation_id"]) for r in older])
    for row in rows:
        tx.emit(
            row["tenant_id"],
            f"message.{row['status']}",
            message_id=row["id"],
            conversation_id=row["conversation_id"],
            change={"status": row["status"]},
        )
    tx.topics.add("queue")


def _complete(tx: Tx, item: NewMessage) -> None:
    row = item.row
    later = row["send_at"] is not None and row["send_at"] > tx.now
    row["conversation_id"] = item.wanted.found["id"]
    row["status"] = (Status.SCHEDULED if later else Status.QUEUED).value
    row["created_at"] = row["updated_at"] = tx.now
    item.view = message_view(row)


def _claim_keys(tx: Tx, items: Sequence[NewMessage]) -> None:
    rows = [
        {
            "tenant_id": item.row["tenant_id"],
            "route": item.idempotency.route,
            "key": item.idempotency.key,
            "body_hash": item.idempotency.body_hash,
            "message_id": item.row["id"],
            "response": json.dumps(item.view, separators=(",", ":")),
            "created_at": tx.now,
            "expires_at": tx.now + item.idempotency.kept,
        }
        for item in items
        if item.idempotency is not None
    ]
    rows.sort(key=lambda row: tuple(row[c] for c in IDEMPOTENCY))
    done = insert(tx, idempotency, rows, "ON CONFLICT DO NOTHING RETURNING key")
    if len(done) < len(rows):
        raise Again  # another process took one of the keys a moment ago


def _entry(row: dict[str, Any], now: int) -> dict[str, Any]:
    return {
        "tenant_id": row["tenant_id"],
        "message_id": row["id"],
        "conversation_id": row["conversation_id"],
        "provider": row["provider"],
        "lane": LANES[Priority(row["priority"])],
        "due_at": max(row["send_at"] or 0, now),
        "expires_at": row["expires_at"],
        "attempts": 0,
        "claims": 0,
        "lease_token": None,
        "lease_until": 0,
        "quarantined": 0,
    }


def landed(tx: Tx, items: Sequence[NewMessage]) -> bool:
    """Whether a batch of these was committed. A batch is whole or not there."""
    keys = [(item.row["tenant_id"], item.row["id"]) for item in items]
    return bool(select(tx, messages, ("tenant_id", "id"), keys, ("id",)))


ACCEPT: Operation[NewMessage, Accepted] = Operation("accept", 40, run, landed)
