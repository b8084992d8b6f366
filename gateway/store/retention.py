"""What is not kept for ever: events, raw requests, keys, switches, and the words of vendors that
belong to no attempt of ours. A bounded piece a turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.clock import first_id
from gateway.store import pins, usage
from gateway.store.batcher import Operation
from gateway.store.tx import Tx

PIECE = 1000
# Events among which an old one is looked for: 2 ms on SQLite, 4 ms on PostgreSQL, in no memory.
SEARCHED = 10 * PIECE
HOUR = 3_600_000  # milliseconds
NOT_THE_NEWEST = "AND id < (SELECT MAX(id) FROM events)"  # its number tells how far the feed is
SWITCHES = 90 * 86_400_000  # milliseconds


@dataclass(frozen=True, slots=True)
class Kept:
    """How long things are kept, in milliseconds."""

    events: int
    inbox: int
    loose: int  # receipts of nobody's; an attempt that they are about may still become known


def prune(tx: Tx, items: Sequence[Kept]) -> Sequence[int | Exception]:
    """Deletes one piece of what is too old. Returns how many rows went."""
    return [_prune(tx, item) for item in items]


def _prune(tx: Tx, item: Kept) -> int:
    gone = _prune_events(tx, tx.now - item.events) + _prune_inbox(tx, tx.now - item.inbox)
    for name, column, before, only in (
        ("notices", "received_at", tx.now - item.inbox, ""),
        ("provider_switches", "at", tx.now - SWITCHES, ""),
    ):
        gone += tx.run(
            f"DELETE FROM {name} WHERE id IN "
            f"(SELECT id FROM {name} WHERE {column} < ? {only} ORDER BY {column} LIMIT {PIECE})",
            (before,),
        ).rowcount
    for verdict in ("parked", "foreign"):  # each by an index of its own
        gone += tx.run(
            f"DELETE FROM receipts WHERE id IN (SELECT id FROM receipts "
            f"WHERE verdict = '{verdict}' AND received_at < ? LIMIT {PIECE})",
            (tx.now - item.loose,),
        ).rowcount
    gone += tx.run(
        "DELETE FROM idempotency WHERE (tenant_id, route, key) IN (SELECT tenant_id, route, key "
        f"FROM idempotency WHERE expires_at < ? ORDER BY expires_at LIMIT {PIECE})",
        (tx.now,),
    ).rowcount
    pins.expire(tx)
    return gone + usage.prune(tx)


def _prune_events(tx: Tx, before: int) -> int:
    """By their numbers, so that no index of their times is needed. What is numbered below an old
    event is old, whatever its time says: a clock may have been ahead."""
    return tx.run(
        f"DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT {PIECE}) "
        "AND id <= (SELECT MAX(id) FROM (SELECT id, created_at FROM events ORDER BY id "
        f"LIMIT {SEARCHED}) AS first WHERE created_at < ?) {NOT_THE_NEWEST}",
        (before,),
    ).rowcount


def _prune_inbox(tx: Tx, before: int) -> int:
    """By their ids, which begin with the time; what came by a detour is kept for as long as that
    took. Ids that a clock made which was ahead are looked at by themselves."""
    sql = (
        "DELETE FROM inbox WHERE id IN (SELECT id FROM inbox WHERE id {} ? AND received_at < ? "
        f"AND state <> 'pending' ORDER BY id LIMIT {PIECE})"
    )
    ahead = first_id("inb", tx.now + HOUR)
    gone = tx.run(sql.format("<"), (first_id("inb", before), before)).rowcount
    return gone + tx.run(sql.format(">"), (ahead, before)).rowcount


PRUNE: Operation[Kept, int] = Operation("prune", 60, prune, lambda tx, items: False)
