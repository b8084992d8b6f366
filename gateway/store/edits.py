"""Small writes that people ask for: cancel, reschedule, mark as read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain import Direction, Status
from gateway.store.batcher import Operation
from gateway.store.ledger import Fields, Ledger, Thread
from gateway.store.rows import select
from gateway.store.tables import messages
from gateway.store.tx import Tx


@dataclass(frozen=True, slots=True)
class Named:
    """A message or a conversation of a tenant."""

    tenant_id: str
    id: str


def cancel(tx: Tx, items: Sequence[Named]) -> Sequence[bool | Exception]:
    """Calls off what is due and nobody has claimed: the message, or the next copy of one whose
    answer was lost. True for what is canceled already; False: too late."""
    ledger = Ledger(tx, [(item.tenant_id, item.id) for item in items])
    results = []
    for item in items:
        thread = ledger.get((item.tenant_id, item.id))
        entry = thread.entry if thread else None
        called_off = thread is not None and entry is not None and not entry["lease_until"]
        if thread is not None and called_off:
            thread.dequeue()
            thread.change(ended_as=Status.CANCELED.value)
            thread.note()
        ended = thread is not None and thread.message["status"] == Status.CANCELED
        results.append(called_off or ended)
    ledger.write()
    return results


@dataclass(frozen=True, slots=True)
class Moved:
    """Another time for a message of a tenant, in milliseconds. Without `expires_at` it stays of
    use for as long after that as it was before."""

    tenant_id: str
    id: str
    send_at: int
    expires_at: int | None = None


def reschedule(tx: Tx, items: Sequence[Moved]) -> Sequence[bool | Exception]:
    """Gives what is due, and nobody has claimed or tried to send, another time. False: too late."""
    ledger = Ledger(tx, [(item.tenant_id, item.id) for item in items])
    results = []
    for item in items:
        thread = ledger.get((item.tenant_id, item.id))
        entry = thread.entry if thread else None
        begun = entry is None or entry["lease_until"] or entry["attempts"] or entry["quarantined"]
        if thread is not None and entry is not None and not begun:
            _move(thread, entry, item)
        results.append(not begun)
    ledger.write()
    return results


def _move(thread: Thread, entry: Fields, item: Moved) -> None:
    was, due = thread.message["status"], max(item.send_at, thread.tx.now)
    expires = item.expires_at or due + entry["expires_at"] - entry["due_at"]
    thread.change(send_at=item.send_at, expires_at=expires)
    thread.change_entry(due_at=due, expires_at=expires)
    thread.note()
    if thread.message["status"] == was:  # its time is news all the same
        thread.tx.emit(
            item.tenant_id,
            f"message.{was}",
            message_id=item.id,
            conversation_id=thread.message["conversation_id"],
            change={"status": was},
        )
    thread.tx.topics.add("queue")


def read_message(tx: Tx, items: Sequence[Named]) -> Sequence[bool | Exception]:
    """Marks inbound messages as read by us. False: it is not an inbound message."""
    results = []
    for item in items:
        key = (item.tenant_id, item.id)
        rows = select(
            tx,
            messages,
            ("tenant_id", "id"),
            [key],
            ("direction", "conversation_id", "read_at"),
            lock=True,
        )
        inbound = bool(rows) and rows[0].direction == Direction.INBOUND
        if inbound and rows[0].read_at is None:
            tx.run(
                "UPDATE messages SET read_at = ?, updated_at = ? WHERE tenant_id = ? AND id = ?",
                (tx.now, tx.now, *key),
            )
            tx.run(
                "UPDATE conversations SET unread_count = unread_count - 1, updated_at = ? "
                "WHERE tenant_id = ? AND id = ? AND unread_count > 0",
                (tx.now, item.tenant_id, rows[0].conversation_id),
            )
            tx.emit(item.tenant_id, "conversation.updated", conversation_id=rows[0].conversation_id)
        results.append(inbound)
    return results


def read_conversation(tx: Tx, items: Sequence[Named]) -> Sequence[bool | Exception]:
    """Marks all that a person wrote as read by us. False: there is no such conversation."""
    results = []
    for item in items:
        key = (item.tenant_id, item.id)
        tx.run(
            "UPDATE messages SET read_at = ?, updated_at = ? WHERE tenant_id = ? "
            "AND conversation_id = ? AND direction = 'inbound' AND read_at IS NULL",
            (tx.now, tx.now, *key),
        )
        done = tx.run(
            "UPDATE conversations SET unread_count = 0, updated_at = ? "
            "WHERE tenant_id = ? AND id = ?",
            (tx.now, *key),
        )
        if done.rowcount:
            tx.emit(item.tenant_id, "conversation.updated", conversation_id=item.id)
        results.append(bool(done.rowcount))
    return results


def _repeatable(tx: Tx, items: Sequence[Named | Moved]) -> bool:
    return False  # doing it again changes nothing more


CANCEL: Operation[Named, bool] = Operation("cancel", 15, cancel, _repeatable)
RESCHEDULE: Operation[Moved, bool] = Operation("reschedule", 16, reschedule, _repeatable)
READ_MESSAGE: Operation[Named, bool] = Operation("read message", 35, read_message, _repeatable)
READ_CONVERSATION: Operation[Named, bool] = Operation(
    "read conversation", 36, read_conversation, _repeatable
)
