"""T1: conversation, message, queue entry and event in one transaction, for many at once.

Where nothing is waiting, the same transaction writes T2 for the worker of this process: the
message is sent without a claim. A later crash finds a lease with an open attempt, as after T2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from gateway.domain import LANES, Connection, Estimate, Priority, Sender, Status
from gateway.store import conversations, opt_outs, seen, windows
from gateway.store.batcher import Operation
from gateway.store.claims import Due, lanes_due, names
from gateway.store.conversations import Wanted
from gateway.store.database import Again
from gateway.store.deliveries import Attempt, new_attempt
from gateway.store.rows import insert, present, select
from gateway.store.tables import attempts, idempotency, messages, queue
from gateway.store.tx import Tx
from gateway.views import View, message_view
from gateway.windows import WindowClosed

IDEMPOTENCY = ("tenant_id", "route", "key")


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A caller's own name for a request, with the hash of what it asked for."""

    route: str
    key: str
    body_hash: str
    kept: int  # milliseconds


@dataclass(slots=True)
class HandOff:
    """A seat of this process's worker that waits for a message. `attempt` is what T1 wrote of it,
    or None: then it is queued like any other, or was not written at all. `lease` is in
    milliseconds; `since` is the worker's monotonic time. `able` are the providers that may be
    asked now: what waits only for others does not go first."""

    attempt_id: str
    token: str
    lease: int
    since: float
    provider: str
    connection: Connection
    sender: str | None
    able: frozenset[str] = frozenset()
    why: str | None = None
    instead: Sender | None = None
    estimate: Estimate | None = None
    attempt: Attempt | None = None


@dataclass(slots=True)
class NewMessage:
    """A validated message. `row` has every column that does not depend on the database; `route`
    names who may send it, best first; `window` is how long (milliseconds) after the person's last
    message it may be said, where that is bound; `apart`: it comes from another address than what
    is said in its conversation; `taker`: of whom is known already that it may take it."""

    row: dict[str, Any]
    wanted: Wanted
    idempotency: IdempotencyKey | None = None
    handoff: HandOff | None = None
    view: View = field(default_factory=dict)
    route: str = ""
    window: int = 0
    apart: bool = False
    taker: str = ""

    def __post_init__(self) -> None:
        self.route = self.route or self.row["provider"]


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
    for item in items:
        if item.handoff is not None:
            item.handoff.attempt = None  # what an earlier run of this batch found is void
    if not any(item.idempotency for item in items):
        refused = _write(tx, items)
        return [refused.get(item.row["id"]) or Accepted(item.view) for item in items]
    earlier = _earlier(tx, items)
    fresh: list[NewMessage] = []
    mine: dict[tuple[str, str, str], NewMessage] = {}
    for item in items:
        for key in _keys([item]):
            if key not in earlier and key not in mine:
                mine[key] = item
        if not any(key in earlier or mine[key] is not item for key in _keys([item])):
            fresh.append(item)
    _found_handed(tx, [item for item in items if _came_through(item, earlier)])
    refused = _write(tx, fresh)
    return [_answer(item, earlier, mine, refused) for item in items]


def _came_through(item: NewMessage, earlier: dict[tuple[str, str, str], Any]) -> bool:
    """Whether its key stands there for this very message: a lost commit was none."""
    return any(
        key in earlier and earlier[key].message_id == item.row["id"] for key in _keys([item])
    )


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
    item: NewMessage,
    earlier: dict[tuple[str, str, str], Any],
    mine: dict[Any, NewMessage],
    refused: Mapping[str, WindowClosed],
) -> Accepted | Exception:
    if item.idempotency is None:
        return refused.get(item.row["id"]) or Accepted(item.view)
    (key,) = _keys([item])
    if key in earlier:
        row = earlier[key]
        same = row.body_hash == item.idempotency.body_hash
        repeated = row.message_id != item.row["id"]
        return Accepted(json.loads(row.response), replayed=repeated, conflict=not same)
    first = mine[key]
    assert first.idempotency is not None
    if first.row["id"] in refused:
        return refused[first.row["id"]]
    same = first.idempotency.body_hash == item.idempotency.body_hash
    return Accepted(first.view, replayed=first is not item, conflict=not same)


def _write(tx: Tx, items: Sequence[NewMessage]) -> Mapping[str, WindowClosed]:
    """Writes what may be said; the rest is the result, and leaves no trace."""
    refused = windows.closed(tx, items)
    said = [item for item in items if item.row["id"] not in refused] if refused else items
    if said:
        _write_all(tx, said)
    return refused


def _write_all(tx: Tx, items: Sequence[NewMessage]) -> None:
    conversations.resolve(tx, [item.wanted for item in items])
    people = [opt_outs.people_of(item.row["tenant_id"], item.row) for item in items]
    out = opt_outs.blocked(tx, chain.from_iterable(people))
    for item, mine in zip(items, people, strict=True):
        _complete(tx, item, opt_outs.refusal(mine, out))
    _claim_keys(tx, items)
    handed = _hand_over(tx, items)
    rows = sorted((item.row for item in items), key=lambda row: str(row["id"]))
    made = insert(tx, messages, rows, "ON CONFLICT DO NOTHING RETURNING id")
    if len(made) < len(rows):  # a commit that was thought to be lost came through after all
        there = {row.id for row in made}
        rows = [row for row in rows if row["id"] in there]
        _found_handed(tx, [item for item in items if item.row["id"] not in there])
        handed = {id_: item for id_, item in handed.items() if id_ in there}
    seen.note(tx, rows)
    waiting = [row for row in rows if row["status"] != Status.REJECTED.value]
    routes = {item.row["id"]: item.route for item in items}
    entries = [_entry(row, routes[row["id"]], tx.now, handed.get(row["id"])) for row in waiting]
    insert(tx, queue, entries, "ON CONFLICT DO NOTHING")
    begun = [handed[id_] for id_ in sorted(handed)]
    insert(tx, attempts, [new_attempt(tx, attempt, 1) for attempt in begun])
    older = [item.row for item in items if not item.wanted.created]
    conversations.touch_outbound(tx, [(r["tenant_id"], r["conversation_id"]) for r in older])
    for row in rows:
        first = Status.QUEUED.value if row["id"] in handed else row["status"]
        _tell(tx, row, first)
        if row["id"] in handed:
            _tell(tx, row, Status.SENDING.value)
    if len(handed) < len(waiting):
        tx.topics.add("queue")


def _tell(tx: Tx, row: Mapping[str, Any], status: str) -> None:
    tx.emit(
        row["tenant_id"],
        f"message.{status}",
        message_id=row["id"],
        conversation_id=row["conversation_id"],
        change={"status": status, **opt_outs.told(row)},
    )


def _hand_over(tx: Tx, items: Sequence[NewMessage]) -> dict[str, Attempt]:
    """Gives messages to the worker that has a seat for them: only what would be claimed next all
    the same, since nothing waits in its lane or above, nor anything of its conversation."""
    if not any(item.handoff for item in items):
        return {}
    lanes = {route: min(found) for route, found in lanes_due(tx).items()}
    older = [_thread(item) for item in items if not item.wanted.created]
    busy = present(tx, queue, ("tenant_id", "conversation_id"), older)
    handed: dict[str, Attempt] = {}
    for item in sorted(items, key=lambda item: str(item.row["id"])):
        if item.row["status"] == Status.QUEUED.value:
            mine = LANES[Priority(item.row["priority"])]
            first = item.handoff is not None and mine < _first(lanes, item.handoff)
            first = first and item.row["expires_at"] > tx.now
            if first and _thread(item) not in busy:
                handed[item.row["id"]] = _hand(item)
            else:
                lanes[item.route] = min(mine, lanes.get(item.route, mine))
        busy.add(_thread(item))
    return handed


def _first(lanes: Mapping[str, int], handoff: HandOff) -> int:
    """The highest lane in which something waits for a provider that may be asked."""
    able = handoff.able or {handoff.provider}
    found = (lane for route, lane in lanes.items() if not able.isdisjoint(names(route)))
    return min(found, default=len(LANES))


def _hand(item: NewMessage) -> Attempt:
    handoff, row = item.handoff, item.row
    assert handoff is not None
    row["status"] = Status.SENDING.value
    row["provider"], row["connection"] = handoff.provider, handoff.connection.id
    if handoff.instead is not None:
        row["from_address"] = handoff.instead.address
    handoff.attempt = begun_by(item)
    return handoff.attempt


def _thread(item: NewMessage) -> tuple[str, str]:
    return item.row["tenant_id"], item.row["conversation_id"]


def begun_by(item: NewMessage) -> Attempt:
    """T2 of a message that is handed over."""
    handoff, row = item.handoff, item.row
    assert handoff is not None
    due = Due(row["tenant_id"], row["id"], handoff.token, 0, row, item.route)
    return Attempt(
        handoff.attempt_id,
        due,
        handoff.provider,
        handoff.connection,
        handoff.sender,
        handoff.lease,
        handoff.why,
        estimate=handoff.estimate,
    )


def _found_handed(tx: Tx, items: Sequence[NewMessage]) -> None:
    """A commit that was thought to be lost may have handed these over."""
    ids = {item.handoff.attempt_id: item for item in items if item.handoff is not None}
    if not ids:
        return
    there = {row.id for row in select(tx, attempts, ("id",), [(id_,) for id_ in ids], ("id",))}
    for id_, item in ids.items():
        assert item.handoff is not None
        item.handoff.attempt = begun_by(item) if id_ in there else None


def _complete(tx: Tx, item: NewMessage, refused: Mapping[str, Any] | None) -> None:
    row = item.row
    later = row["send_at"] is not None and row["send_at"] > tx.now
    row["conversation_id"] = item.wanted.found["id"]
    row["status"] = (Status.SCHEDULED if later else Status.QUEUED).value
    row.update(opt_outs.NOT_REJECTED if refused is None else {**opt_outs.REJECTED, **refused})
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


def _entry(row: dict[str, Any], route: str, now: int, begun: Attempt | None) -> dict[str, Any]:
    return {
        "tenant_id": row["tenant_id"],
        "message_id": row["id"],
        "conversation_id": row["conversation_id"],
        "route": route,
        "lane": LANES[Priority(row["priority"])],
        "due_at": max(row["send_at"] or 0, now),
        "expires_at": row["expires_at"],
        "attempts": 0 if begun is None else 1,
        "claims": 0,
        "lease_token": None if begun is None else begun.due.token,
        "lease_until": 0 if begun is None else now + begun.lease,
        "quarantined": 0,
    }


def landed(tx: Tx, items: Sequence[NewMessage]) -> bool:
    """Whether a batch of these was committed. A batch is whole or not there."""
    keys = [(item.row["tenant_id"], item.row["id"]) for item in items]
    return bool(select(tx, messages, ("tenant_id", "id"), keys, ("id",)))


ACCEPT: Operation[NewMessage, Accepted] = Operation("accept", 40, run, landed)
