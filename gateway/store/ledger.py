"""The messages that a transaction touches: locked and loaded once, changed in memory, written once.

Every change goes through `Thread.note`, which asks `status_of` and puts a change of status into
the feed. Evidence about an attempt moves it one way only, here and in the WHERE that writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from operator import ne
from typing import Any

from gateway.domain import LANES, Priority, Status
from gateway.status import CHARGED, RANKS, TAKEN, AttemptState, Plan, furthest, moves, status_of
from gateway.store import seen
from gateway.store.rows import insert, select, update
from gateway.store.tables import attempts, messages, queue
from gateway.store.tx import Tx

KEY = ("tenant_id", "id")
QUEUE_KEY = ("tenant_id", "message_id")
ATTEMPT_COLUMNS = tuple(c.name for c in attempts.columns)
ERROR_COLUMNS = tuple(name for name in ATTEMPT_COLUMNS if name.startswith("error_"))
QUEUE_COLUMNS = tuple(c.name for c in queue.columns)
MESSAGE_COLUMNS = (
    "tenant_id",
    "id",
    "conversation_id",
    "status",
    "ended_as",
    "from_address",
    "provider",
    "connection",
    "provider_message_id",
    "segments",
    "cost",
    "currency",
    "cost_estimated",
    "priority",
    "on_unknown",
    "error_code",
    "error_message",
    "error_provider",
    "send_at",
    "expires_at",
    "sent_at",
    "delivered_at",
    "read_at",
    "updated_at",
)
SHOWN = (
    "provider",
    "connection",
    "provider_message_id",
    "sent_at",
    "delivered_at",
    "read_at",
    "error_code",
    "error_message",
)
WORDS = {status.value: status for status in Status}  # a fifth of the time that `Status(…)` takes
NO_COST: dict[str, Any] = {"cost": None, "currency": None, "cost_estimated": None}
TIMES = {Status.SENT: "sent_at", Status.DELIVERED: "delivered_at", Status.READ: "read_at"}

MessageKey = tuple[str, str]
Fields = dict[str, Any]


@dataclass(slots=True)
class Thread:
    """One message with its attempts and its place in the queue, as they are becoming."""

    tx: Tx
    message: Fields
    before: Fields  # the message as it was loaded
    attempts: list[Fields] = field(default_factory=list)
    entry: Fields | None = None
    entry_was: bool = False
    dirty_message: bool = False
    dirty_entry: bool = False
    dirty_attempts: dict[str, Fields] = field(default_factory=dict)  # as they were loaded
    new_attempts: list[Fields] = field(default_factory=list)

    @property
    def newest(self) -> Fields | None:
        """The latest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def taken(self) -> bool:
        """Whether a vendor has the message: then no next attempt is made."""
        return any(WORDS[a["status"]] in TAKEN for a in self.attempts)

    @property
    def under_way(self) -> bool:
        """Whether the queue's entry is leased for the newest attempt."""
        entry, newest = self.entry, self.newest
        if entry is None or newest is None or not entry["lease_until"]:
            return False
        return bool(entry["lease_token"] == newest["lease_token"])

    def _states(self) -> list[AttemptState]:
        return [AttemptState(a["number"], WORDS[a["status"]]) for a in self.attempts]

    def attempt(self, id_: str) -> Fields | None:
        """One attempt by its id."""
        return next((a for a in self.attempts if a["id"] == id_), None)

    def plan(self) -> Plan:
        """What is due, read from the queue."""
        ended = self.message["ended_as"]
        end = Status(ended) if ended else None
        entry = self.entry
        if entry is None:
            return Plan(end=end)
        if entry["quarantined"]:
            return Plan(waiting=Status.HELD)
        if self.under_way:
            return Plan(end=end)
        if not self.attempts and self.message["send_at"] and entry["due_at"] > self.tx.now:
            return Plan(waiting=Status.SCHEDULED)
        return Plan(waiting=Status.QUEUED)

    def note(self) -> None:
        """Brings the message's status up to date and says so in the feed."""
        status = status_of(self._states(), self.plan())
        if status == self.message["status"]:
            return
        self.change(status=status.value)
        change: Fields = {"status": status.value}
        if self.message["error_code"] is not None:
            change["error"] = {
                "code": self.message["error_code"],
                "message": self.message["error_message"],
                "provider": self.message["error_provider"],
            }
        self.tx.emit(
            self.message["tenant_id"],
            f"message.{status.value}",
            message_id=self.message["id"],
            conversation_id=self.message["conversation_id"],
            change=change,
        )

    def change(self, **values: Any) -> None:
        """Changes the message."""
        self.message.update(values)
        self.message["updated_at"] = self.tx.now
        self.dirty_message = True

    def requeue(self, due_at: int, *, attempts: int, route: str | None = None) -> None:
        """Makes a next attempt due, keeping the message's lane; by those who might send it so
        far, if nothing else is said."""
        self.entry = {
            "tenant_id": self.message["tenant_id"],
            "message_id": self.message["id"],
            "conversation_id": self.message["conversation_id"],
            "route": route or (self.entry or {}).get("route") or self.message["provider"],
            "lane": LANES[Priority(self.message["priority"])],
            "due_at": due_at,
            "expires_at": self.message["expires_at"],
            "attempts": attempts,
            "claims": 0,
            "lease_token": None,
            "lease_until": 0,
            "quarantined": 0,
        }
        self.dirty_entry = True
        self.tx.topics.add("queue")

    def change_entry(self, **values: Any) -> None:
        """Changes the queue entry."""
        assert self.entry is not None
        self.entry.update(values)
        self.dirty_entry = True

    def dequeue(self) -> None:
        """Leaves nothing due."""
        if self.entry is not None:
            self.entry, self.dirty_entry = None, True

    def begin(self, attempt: Fields) -> None:
        """Adds an attempt: what stands here may be on the wire a moment later."""
        self.attempts.append(attempt)
        self.new_attempts.append(attempt)

    def evidence(self, attempt: Fields, status: Status, at: int, **values: Any) -> bool:
        """Applies what is known of an attempt. Says whether it moved the attempt."""
        extra = {k: v for k, v in values.items() if v is not None and attempt.get(k) != v}
        if status in TIMES and attempt[TIMES[status]] is None:
            extra[TIMES[status]] = at
        moved = moves(attempt["rank"], status)
        if not moved and not extra:
            return False
        if attempt not in self.new_attempts:
            self.dirty_attempts.setdefault(attempt["id"], attempt.copy())
        if moved:
            self._move(attempt, status, values)
        else:  # old news, but perhaps with an id, a time or a price that we lacked
            extra = {k: v for k, v in extra.items() if k not in ERROR_COLUMNS}
        attempt.update(extra)
        self._copy()
        return moved

    def _move(self, attempt: Fields, status: Status, values: Mapping[str, Any]) -> None:
        attempt["status"], attempt["rank"] = status.value, RANKS[status]
        attempt.update({name: values.get(name) for name in ERROR_COLUMNS})
        if attempt["finished_at"] is None and status is not Status.SENDING:
            attempt["finished_at"] = self.tx.now

    def _copy(self) -> None:
        """The message shows what the attempt knows that speaks for it."""
        best = furthest(self._states())
        shown = next(a for a in self.attempts if best is not None and a["number"] == best.number)
        values: Fields = {name: shown[name] for name in SHOWN}
        if shown["network_id"] is not None:  # what people's answers name
            values["provider_message_id"] = shown["network_id"]
        if shown["segments"] is not None:
            values["segments"] = shown["segments"]
        values.update(self._cost(shown))
        if shown["sender"] and "+" in shown["sender"]:
            values["from_address"] = self.message["from_address"] or shown["sender"]
        values["error_provider"] = shown["provider"] if shown["error_code"] else None
        self.change(**values)

    def _cost(self, shown: Fields) -> Fields:
        """What the message costs: as its vendor says, else as we expect."""
        if shown["cost"] is not None:
            return {"cost": shown["cost"], "currency": shown["currency"], "cost_estimated": None}
        if self.message["cost"] is not None and not self.message["cost_estimated"]:
            return {}
        if shown["estimated_cost"] is None or Status(shown["status"]) not in CHARGED:
            return NO_COST
        cost, currency = shown["estimated_cost"], shown["estimated_currency"]
        return {"cost": cost, "currency": currency, "cost_estimated": 1}


class Ledger:
    """The threads of a transaction, by message."""

    def __init__(self, tx: Tx, wanted: Sequence[MessageKey]) -> None:
        self.tx = tx
        self.threads: dict[MessageKey, Thread] = {}
        self.owners: dict[tuple[str, str], str] = {}  # attempts, by connection and vendor's id
        for row in select(tx, messages, KEY, wanted, MESSAGE_COLUMNS, lock=True):
            self.threads[(row.tenant_id, row.id)] = _loaded(tx, row)
        keys = sorted(self.threads)
        for row in select(tx, queue, QUEUE_KEY, keys, QUEUE_COLUMNS, lock=True):
            thread = self.threads[(row.tenant_id, row.message_id)]
            thread.entry, thread.entry_was = _fields(QUEUE_COLUMNS, row), True
        for row in select(tx, attempts, QUEUE_KEY, keys, ATTEMPT_COLUMNS):
            self.threads[(row.tenant_id, row.message_id)].attempts.append(
                _fields(ATTEMPT_COLUMNS, row)
            )
        for thread in self.threads.values():
            thread.attempts.sort(key=lambda a: int(a["number"]))

    def get(self, key: MessageKey) -> Thread | None:
        """One thread, unless its message does not exist."""
        return self.threads.get(key)

    def __iter__(self) -> Iterator[Thread]:
        return iter(self.threads.values())

    def write(self) -> None:
        """Writes what changed, in the order of the tables and of the keys."""
        threads = [self.threads[key] for key in sorted(self.threads)]
        self._write_messages(threads)
        self._write_queue(threads)
        self._write_attempts(threads)

    def _write_messages(self, threads: Sequence[Thread]) -> None:
        dirty = [(t.message, t.before) for t in threads if t.dirty_message]
        for rows in _alike(dirty, KEY):
            update(self.tx, messages, KEY, rows)
        seen.note(self.tx, [row for row, old in dirty if row["provider"] != old["provider"]])

    def _write_queue(self, threads: Sequence[Thread]) -> None:
        dirty = [t for t in threads if t.dirty_entry]
        gone = [t for t in dirty if t.entry is None and t.entry_was]
        for thread in gone:
            thread.entry_was = False
        delete(self.tx, [(t.message["tenant_id"], t.message["id"]) for t in gone])
        kept = [t.entry for t in dirty if t.entry is not None and t.entry_was]
        update(self.tx, queue, QUEUE_KEY, kept)
        made = [t.entry for t in dirty if t.entry is not None and not t.entry_was]
        insert(self.tx, queue, made, "ON CONFLICT DO NOTHING")

    def _write_attempts(self, threads: Sequence[Thread]) -> None:
        dirty = [
            (a, t.dirty_attempts[a["id"]])
            for t in threads
            for a in t.attempts
            if a["id"] in t.dirty_attempts
        ]
        for rows in _alike(dirty, ("id", "rank")):
            update(self.tx, attempts, ("id",), rows, only="t.rank <= v.rank")
        insert(self.tx, attempts, [a for t in threads for a in t.new_attempts])


def _loaded(tx: Tx, row: Any) -> Thread:
    message = _fields(MESSAGE_COLUMNS, row)
    return Thread(tx, message, message.copy())


def _fields(names: Sequence[str], row: Any) -> Fields:
    return dict(zip(names, row, strict=True))


def _alike(dirty: Sequence[tuple[Fields, Fields]], kept: tuple[str, ...]) -> list[list[Fields]]:
    """What changed of each row, in groups that change the same columns: a column that is not
    named costs nothing, nor do the indexes that it stands in."""
    groups: dict[tuple[str, ...], list[Fields]] = {}
    for row, before in dirty:
        differ = compress(row, map(ne, row.values(), before.values()))  # the same names, in order
        changed = tuple([name for name in differ if name not in kept])
        if changed:
            part = {name: row[name] for name in (*kept, *changed)}
            groups.setdefault(changed, []).append(part)
    return list(groups.values())


def delete(tx: Tx, keys: Sequence[MessageKey]) -> None:
    """Takes entries out of the queue."""
    for start in range(0, len(keys), 256):
        piece = keys[start : start + 256]
        marks = ", ".join(["(?, ?)"] * len(piece))
        tx.run(
            f"DELETE FROM queue WHERE (tenant_id, message_id) IN (VALUES {marks})",
            [value for key in piece for value in key],
        )
