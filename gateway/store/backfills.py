"""Until when somebody listened to each vendor account, who makes up for an outage, and what of
that is really missing. What is there already is not touched, and stored nowhere twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.domain import Event, InboundMessage, StatusUpdate
from gateway.status import moves
from gateway.store import inbox
from gateway.store.batcher import Operation
from gateway.store.inbox import DEDUPE, Delivery
from gateway.store.rows import insert, present, select, update
from gateway.store.tables import attempts, messages
from gateway.store.tx import Tx
from gateway.store.vendor_tables import backfills

KEY = ("tenant_id", "connection", "account")
COLUMNS = tuple(column.name for column in backfills.columns)
THEIRS = ("connection", "provider_message_id")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Beat:
    """Says that somebody listens, and could store this. After a silence of more than `after`
    milliseconds one process, by its `token`, is to ask for what was said in it; nobody else is
    told so for `lease` milliseconds, nor while it says that it is `asking`."""

    tenant_id: str
    connection: str
    account: str
    token: str
    after: int
    lease: int
    asking: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """What is to be asked for: since when, in milliseconds, and how often that was tried."""

    since: int
    tries: int
    now: int


def beat(tx: Tx, items: Sequence[Beat]) -> Sequence[Gap | None | Exception]:
    """Notes the time, and hands out what is to be done."""
    return [_beat(tx, item) for item in items]


def _beat(tx: Tx, item: Beat) -> Gap | None:
    key = (item.tenant_id, item.connection, item.account)
    first = dict.fromkeys(COLUMNS) | dict(zip(KEY, key, strict=True))
    first |= {"heard_at": tx.now, "tries": 0, "due_at": 0}
    insert(tx, backfills, [first], "ON CONFLICT DO NOTHING")
    (found,) = select(tx, backfills, KEY, [key], COLUMNS, lock=True)
    row: Row = dict(found._mapping)
    if tx.now - row["heard_at"] > item.after:  # also what another process is at: it has grown
        since = min(row["heard_at"], row["missing_since"] or row["heard_at"])
        row |= {"missing_since": since, "tries": 0, "token": None, "due_at": 0}
    row["heard_at"] = tx.now
    mine = row["token"] == item.token
    asking, gap = mine and item.asking, None
    free = not asking and (mine or row["due_at"] <= tx.now)
    if row["missing_since"] is not None and free and not item.asking:
        gap = Gap(row["missing_since"], row["tries"], tx.now)
        row |= {"token": item.token, "tries": row["tries"] + 1}
    if gap is not None or asking:
        row["due_at"] = tx.now + item.lease
    update(tx, backfills, KEY, [row])
    return gap


@dataclass(frozen=True, slots=True)
class Filled:
    """How asking ended: done, or to be tried again in `retry_in` milliseconds."""

    tenant_id: str
    connection: str
    account: str
    token: str
    retry_in: int | None = None


def filled(tx: Tx, items: Sequence[Filled]) -> Sequence[None | Exception]:
    """Notes it, unless another silence has begun meanwhile."""
    for item in items:
        again = item.retry_in is not None
        tx.run(
            "UPDATE backfills SET token = NULL, due_at = ?"
            + ("" if again else ", missing_since = NULL")
            + " WHERE tenant_id = ? AND connection = ? AND account = ? AND token = ?",
            (
                tx.now + (item.retry_in or 0),
                item.tenant_id,
                item.connection,
                item.account,
                item.token,
            ),
        )
    return [None] * len(items)


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a vendor told when it was asked. `store` is false where it is only to be known
    whether it is missing."""

    delivery: Delivery
    store: bool


def recall(tx: Tx, items: Sequence[Recalled]) -> Sequence[bool | Exception]:
    """Says of each whether it was missing, and stores those."""
    said = [(item.delivery.verified.connection, e) for item in items for e in item.delivery.events]
    keys = [(c, e.dedupe_key) for c, e in said if isinstance(e, InboundMessage)]
    there = present(tx, messages, DEDUPE, keys)
    ours = _ours(tx, [(c, e) for c, e in said if isinstance(e, StatusUpdate)])
    results, missing = [], []
    for item in items:
        connection = item.delivery.verified.connection
        events = [new for e in item.delivery.events if (new := _new(connection, e, there, ours))]
        unreadable = item.delivery.state == "malformed"
        results.append(bool(events))
        if item.store and (events or unreadable):
            missing.append(replace(item.delivery, events=tuple(events)))
    inbox.run(tx, missing)
    return results


def _ours(tx: Tx, said: Sequence[tuple[str, StatusUpdate]]) -> Mapping[tuple[str, str], Any]:
    keys = [(c, e.provider_message_id) for c, e in said if e.provider_message_id is not None]
    rows = select(tx, attempts, THEIRS, keys, (*THEIRS, "id", "rank"))
    return {(row.connection, row.provider_message_id): row for row in rows}


def _new(
    connection: str,
    event: Event,
    there: set[tuple[Any, ...]],
    ours: Mapping[tuple[str, str], Any],
) -> Event | None:
    """What an event has to tell that we do not know: a message, or a further status of one that
    we sent. The same word in a callback is then the same receipt."""
    if isinstance(event, InboundMessage):
        return None if (connection, event.dedupe_key) in there else event
    if isinstance(event, StatusUpdate):
        attempt = ours.get((connection, event.provider_message_id or ""))
        if attempt is not None and moves(attempt.rank, event.status):
            return replace(event, attempt_id=attempt.id)
    return None


BEAT: Operation[Beat, Gap | None] = Operation("note who listens", 48, beat, lambda t, i: False)
FILLED: Operation[Filled, None] = Operation("end a backfill", 49, filled, lambda t, i: False)
RECALL: Operation[Recalled, bool] = Operation("recall", 38, recall, lambda t, i: False)
