"""The messages that a transaction touches: locked and loaded once, changed in memory, written once.

Every change goes through `Thread.note`, which asks `status_of` and puts a change of status into
the feed. Evidence about an attempt moves it one way only, here and in the WHERE that writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.domain import LANES, Priority, Status
from gateway.status import RANKS, AttemptState, Plan, moves, status_of
from gateway.store.database import Tx, insert, select, update
from gateway.store.tables import attempts, messages, queue

KEY = ("tenant_id", "id")
QUEUE_KEY = ("tenant_id", "message_id")
ATTEMPT_COLUMNS = tuple(c.name for c in attempts.columns)
QUEUE_COLUMNS = tuple(c.name for c in queue.columns)
MESSAGE_COLUMNS = (
    "tenant_id",
    "id",
    "conversation_id",
    "status",
    "end",
    "from_address",
    "provider",
    "connection",
    "provider_message_id",
    "segments",
    "cost",
    "currency",
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
FIXED_IN_ATTEMPT = ("tenant_id", "message_id", "number", "started_at", "recipient", "lease_token")
FIXED_IN_MESSAGE = ("conversation_id", "priority", "on_unknown", "send_at", "expires_at")
TIMES = {Status.SENT: "sent_at", Status.DELIVERED: "delivered_at", Status.READ: "read_at"}

MessageKey = tuple[str, str]
Fields = dict[str, Any]


@dataclass(slots=True)
class Thread:
    """One message with its attempts and its place in the queue, as they are becoming."""

    tx: Tx
    message: Fields
    attempts: list[Fields] = field(default_factory=list)
    entry: Fields | None = None
    entry_was: bool = False
    dirty_message: bool = False
    dirty_entry: bool = False
    dirty_attempts: set[str] = field(default_factory=set)
    new_attempts: list[Fields] = field(default_factory=list)

    @property
    def newest(self) -> Fields | None:
        """The latest attempt."""
        return self.attempts[-1] if self.attempts else None

    def attempt(self, id_: str) -> Fields | None:
        """One attempt by its id."""
        return next((a for a in self.attempts if a["id"] == id_), None)

    def plan(self) -> Plan:
        """What is due, read from the queue."""
        end = Status(self.message["end"]) if self.message["end"] else None
        entry = self.entry
        if entry is None:
            return Plan(end=end)
        if entry["quarantined"]:
            return Plan(waiting=Status.HELD)
        newest = self.newest
        if entry["lease_until"] and newest and newest["lease_token"] == entry["lease_token"]:
            return Plan(end=end)  # its attempt is under way
        if not self.attempts and self.message["send_at"] and entry["due_at"] > self.tx.now:
            return Plan(waiting=Status.SCHEDULED)
        return Plan(waiting=Status.QUEUED)

    def note(self) -> None:
        """Brings the message's status up to date and says so in the feed."""
        states = [AttemptState(a["number"], Status(a["status"])) for a in self.attempts]
        status = status_of(states, self.plan())
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

    def requeue(self, due_at: int, *, attempts: int) -> None:
        """Makes a next attempt due, keeping the message's lane."""
        self.entry = {
            "tenant_id": self.message["tenant_id"],
            "message_id": self.message["id"],
            "conversation_id": self.message["conversation_id"],
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
        moved = moves(Status(attempt["status"]), status)
        if not moved and not extra:
            return False
        if moved:
            self._move(attempt, status, at, values)
        else:  # old news, but perhaps with an id or a price that we lacked
            extra = {k: v for k, v in extra.items() if not k.startswith("error_")}
        attempt.update(extra)
        if attempt not in self.new_attempts:
            self.dirty_attempts.add(attempt["id"])
        self._copy(attempt, moved)
        return moved

    def _move(self, attempt: Fields, status: Status, at: int, values: Mapping[str, Any]) -> None:
        attempt["status"], attempt["rank"] = status.value, RANKS[status]
        attempt.update({k: values.get(k) for k in attempt if k.startswith("error_")})
        if attempt["finished_at"] is None and status is not Status.SENDING:
            attempt["finished_at"] = self.tx.now
        if status in TIMES and attempt[TIMES[status]] is None:
            attempt[TIMES[status]] = at

    def _copy(self, attempt: Fields, moved: bool) -> None:
        """The message shows what its furthest, else its newest attempt knows."""
        shown = max(self.attempts, key=lambda a: (a["rank"] >= 60, a["number"]))
        if shown is not attempt:
            return
        names = ("provider", "connection", "provider_message_id", "sent_at", "delivered_at")
        values: Fields = {name: attempt[name] for name in (*names, "read_at")}
        for name in ("segments", "cost", "currency"):
            if attempt[name] is not None:
                values[name] = attempt[name]
        if attempt["sender"] and "+" in attempt["sender"]:
            values["from_address"] = self.message["from_address"] or attempt["sender"]
        if moved:
            values["error_code"] = attempt["error_code"]
            values["error_message"] = attempt["error_message"]
            values["error_provider"] = attempt["provider"] if attempt["error_code"] else None
        self.change(**values)


class Ledger:
    """The threads of a transaction, by message."""

    def __init__(self, tx: Tx, wanted: Sequence[MessageKey]) -> None:
        self.tx = tx
        self.threads: dict[MessageKey, Thread] = {}
        for row in select(tx, messages, KEY, wanted, MESSAGE_COLUMNS, lock=True):
            self.threads[(row.tenant_id, row.id)] = Thread(tx, dict(row._mapping))
        keys = sorted(self.threads)
        for row in select(tx, queue, QUEUE_KEY, keys, QUEUE_COLUMNS, lock=True):
            thread = self.threads[(row.tenant_id, row.message_id)]
            thread.entry, thread.entry_was = dict(row._mapping), True
        for row in select(tx, attempts, QUEUE_KEY, keys, ATTEMPT_COLUMNS):
            self.threads[(row.tenant_id, row.message_id)].attempts.append(dict(row._mapping))
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
        rows = [
            {k: v for k, v in t.message.items() if k not in FIXED_IN_MESSAGE}
            for t in threads
            if t.dirty_message
        ]
        update(self.tx, messages, KEY, rows)

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
        insert(self.tx, attempts, [a for t in threads for a in t.new_attempts])
        rows = [
            {k: v for k, v in a.items() if k not in FIXED_IN_ATTEMPT}
            for t in threads
            for a in t.attempts
            if a["id"] in t.dirty_attempts
        ]
        update(self.tx, attempts, ("id",), rows, only="t.rank <= v.rank")


def delete(tx: Tx, keys: Sequence[MessageKey]) -> None:
    """Takes entries out of the queue."""
    for start in range(0, len(keys), 256):
        piece = keys[start : start + 256]
        marks = ", ".join(["(?, ?)"] * len(piece))
        tx.run(
            f"DELETE FROM queue WHERE (tenant_id, message_id) IN (VALUES {marks})",
            [value for key in piece for value in key],
        )
