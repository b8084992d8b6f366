"""Whether the database has gone back in time, as it does when it is restored from a backup.

What waits in it may have been sent since. So it is held, leases and all, until somebody lets it
go; the numbers of the feed go on behind those that were lost, and never mean two things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import first_id
from gateway.store import feed
from gateway.store.batcher import Operation
from gateway.store.database import FEED_LOCK, Again
from gateway.store.holds import RESTORED
from gateway.store.ledger import Ledger, MessageKey
from gateway.store.restore_tables import timelines
from gateway.store.rows import insert
from gateway.store.sweeps import release
from gateway.store.tx import Tx

PIECE = 500  # messages held in one go
MOST = 10_000  # held messages that are counted
GAP = 1_000_000  # numbers that are left out: nobody knows how many were given after the last look
TEXT = "the database was restored: it may have been sent since the backup"


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a database at some moment: which one it is, its span, and the number of its
    newest event. It never goes back by itself."""

    name: str
    epoch: int
    number: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a database stands. `restored_at`: when it was found to be restored, if what waited
    then is not all settled; it is all held but for `holding`, and so many messages are `held`."""

    mark: Mark
    restored_at: int | None = None
    holding: bool = False
    held: int = 0


def went_back(known: Mark | None, now: Mark) -> bool:
    """Whether a database is older than it is known to have been. A later span means that somebody
    has seen to it; of another database nothing is known."""
    if known is None or known.name != now.name:
        return False
    return (known.epoch, known.number) > (now.epoch, now.number)


def standing(tx: Tx) -> Standing | None:
    """Where it stands; None for one that was not named yet."""
    row = tx.run(
        "SELECT epoch, name, began_at, held_at, settled_at FROM timelines "
        "ORDER BY epoch DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    mark = Mark(row.name, row.epoch, feed.bounds(tx)[1])
    if row.settled_at is not None:
        return Standing(mark)
    return Standing(mark, row.began_at, row.held_at is None, _held(tx))


def _held(tx: Tx) -> int:
    return int(
        tx.run(
            "SELECT COUNT(*) FROM (SELECT 1 FROM queue AS q JOIN messages AS m "
            "ON m.tenant_id = q.tenant_id AND m.id = q.message_id "
            f"WHERE q.quarantined = 1 AND m.error_code = ? LIMIT {MOST}) AS seen",
            (RESTORED,),
        ).scalar()
    )


def name(tx: Tx, items: Sequence[str]) -> Sequence[None | Exception]:
    """Names a database that has no name."""
    row = _span(tx, 0, items[0], held_at=tx.now, settled_at=tx.now)
    insert(tx, timelines, [row], "ON CONFLICT DO NOTHING")
    return [None] * len(items)


def _span(tx: Tx, epoch: int, name: str, **more: int | None) -> dict[str, Any]:
    given = {"lost_after": 0, "lost_until": 0, "held_at": None, "settled_at": None, **more}
    return {"tenant_id": "", "epoch": epoch, "name": name, "began_at": tx.now, **given}


@dataclass(frozen=True, slots=True)
class Turn:
    """Asks to begin a new span, where the database is older than `known`; `sure`: in any case,
    since an operator says so. What waits is to be held then, whoever begins or ends it."""

    known: Mark | None
    sure: bool = False


def turn(tx: Tx, items: Sequence[Turn]) -> Sequence[bool | Exception]:
    """Begins a new span. False: another process was quicker."""
    return [_turn(tx, item) for item in items]


def _turn(tx: Tx, item: Turn) -> bool:
    now = standing(tx)
    assert now is not None
    if not item.sure and not went_back(item.known, now.mark):
        return False
    known = item.known if item.known is not None and item.known.name == now.mark.name else now.mark
    lost_until = max(known.number, now.mark.number) + GAP
    epoch = max(known.epoch, now.mark.epoch) + 1
    row = _span(tx, epoch, now.mark.name, lost_after=now.mark.number, lost_until=lost_until)
    if not insert(tx, timelines, [row], "ON CONFLICT DO NOTHING RETURNING epoch"):
        raise Again
    _go_on_behind(tx, lost_until)
    return True


def _go_on_behind(tx: Tx, number: int) -> None:
    """Lets the feed's numbers go on there; whoever numbers at this moment is waited for."""
    if tx.postgres:
        tx.run("SELECT pg_advisory_xact_lock(?)", (FEED_LOCK,))
        tx.run("SELECT setval('events_id_seq', ?)", (number,))
        return
    tx.run("DELETE FROM sqlite_sequence WHERE name = 'events'")
    tx.run("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (number,))


@dataclass(frozen=True, slots=True)
class Suspect:
    """Asks to hold a piece of what waited before a moment (milliseconds): messages after a key."""

    before: int
    after: MessageKey = ("", "")


@dataclass(frozen=True, slots=True)
class Held:
    """How many were held, and what to ask for next; None: there was none any more."""

    count: int
    following: Suspect | None


def hold(tx: Tx, items: Sequence[Suspect]) -> Sequence[Held | Exception]:
    """Holds what waits, also what somebody had claimed: nobody knows what came of that."""
    return [_hold(tx, item) for item in items]


def _hold(tx: Tx, item: Suspect) -> Held:
    rows = tx.run(
        "SELECT tenant_id, message_id FROM queue WHERE quarantined = 0 AND message_id < ? "
        "AND (tenant_id, message_id) > (?, ?) ORDER BY tenant_id, message_id "
        f"LIMIT {PIECE}",
        (first_id("msg", item.before), *item.after),
    ).fetchall()
    keys = [(row.tenant_id, row.message_id) for row in rows]
    ledger, count = Ledger(tx, keys), 0
    for thread in ledger:
        release(tx, thread, everything=True)
        if thread.entry is not None and not thread.entry["quarantined"]:
            thread.change_entry(quarantined=1)
            thread.change(error_code=RESTORED, error_message=TEXT)
            thread.note()
            count += 1
    ledger.write()
    if not keys:
        tx.run("UPDATE timelines SET held_at = ? WHERE held_at IS NULL", (tx.now,))
    return Held(count, Suspect(item.before, keys[-1]) if keys else None)


def settle(tx: Tx, items: Sequence[None]) -> Sequence[bool | Exception]:
    """Ends a restore of which nothing is held any more; whether it was so."""
    ended = not _held(tx)
    if ended:
        tx.run(
            "UPDATE timelines SET settled_at = ? WHERE settled_at IS NULL AND held_at IS NOT NULL",
            (tx.now,),
        )
    return [ended] * len(items)


def _repeatable(tx: Tx, items: Sequence[Any]) -> bool:
    return False  # doing it again changes nothing more


NAME: Operation[str, None] = Operation("name", 51, name, _repeatable)
SUSPECT: Operation[Suspect, Held] = Operation("suspect", 52, hold, _repeatable)
TURN: Operation[Turn, bool] = Operation("turn", 53, turn, _repeatable)
SETTLE: Operation[None, bool] = Operation("settle a restore", 54, settle, _repeatable)
