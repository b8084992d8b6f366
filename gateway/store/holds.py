"""What is held back in the queue: put aside after claims that led nowhere, or held by an operator
after a restore. Nothing of it is sent, and nothing of it is lost, until it is released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.store.batcher import Operation
from gateway.store.ledger import Ledger, MessageKey
from gateway.store.tx import Tx

HELD = "held"  # the code of what an operator held; `quarantined` is that of the worker
RESTORED = "restored"  # of what waited when the database had gone back in time
CODES = frozenset({HELD, RESTORED, "quarantined"})

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hold:
    """Asks to hold these messages, where they wait and nobody has claimed them."""

    keys: tuple[MessageKey, ...]
    reason: str = "held by an operator"


@dataclass(frozen=True, slots=True)
class Free:
    """Asks to let these held messages go."""

    keys: tuple[MessageKey, ...]


def hold(tx: Tx, items: Sequence[Hold]) -> Sequence[int | Exception]:
    """Holds what waits; how many."""
    ledger = Ledger(tx, [key for item in items for key in item.keys])
    done = [sum(_hold(ledger, key, item.reason) for key in item.keys) for item in items]
    ledger.write()
    return done


def _hold(ledger: Ledger, key: MessageKey, reason: str) -> bool:
    thread = ledger.get(key)
    entry = thread.entry if thread else None
    if thread is None or entry is None or entry["lease_until"] or entry["quarantined"]:
        return False
    thread.change_entry(quarantined=1)
    thread.change(error_code=HELD, error_message=reason)
    thread.note()
    return True


def free(tx: Tx, items: Sequence[Free]) -> Sequence[int | Exception]:
    """Lets held messages go, with as many claims before them as at first; how many. What has no
    time left expires with the next look."""
    ledger = Ledger(tx, [key for item in items for key in item.keys])
    done = [sum(_free(tx, ledger, key) for key in item.keys) for item in items]
    ledger.write()
    return done


def _free(tx: Tx, ledger: Ledger, key: MessageKey) -> bool:
    thread = ledger.get(key)
    entry = thread.entry if thread else None
    if thread is None or entry is None or not entry["quarantined"]:
        return False
    thread.change_entry(quarantined=0, claims=0)
    if thread.message["error_code"] in CODES:
        thread.change(error_code=None, error_message=None)
    thread.note()
    tx.topics.add("queue")
    return True


def waiting(tx: Tx, *, held: bool, limit: int) -> list[Row]:
    """What waits in the queue and nobody has claimed, oldest first; only what is held, or only
    what is not."""
    found = tx.run(
        "SELECT q.tenant_id, q.message_id, q.lane, q.route, q.due_at, q.attempts, m.channel, "
        "m.status, m.error_code, m.created_at FROM queue AS q "
        "JOIN messages AS m ON m.tenant_id = q.tenant_id AND m.id = q.message_id "
        "WHERE q.lease_until = 0 AND q.quarantined = ? ORDER BY q.message_id LIMIT ?",
        (int(held), limit),
    )
    return [dict(row._mapping) for row in found.fetchall()]


def _repeatable(tx: Tx, items: Sequence[Any]) -> bool:
    return False  # doing it again changes nothing more


HOLD: Operation[Hold, int] = Operation("hold", 48, hold, _repeatable)
FREE: Operation[Free, int] = Operation("free", 49, free, _repeatable)
