"""What people of ours change about a conversation: whose it is, whether it is closed, labels, a
name, notes. Every change is told in the feed; what changes nothing is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.store.batcher import Operation
from gateway.store.conversation_tables import labels, notes
from gateway.store.conversations import COLUMNS
from gateway.store.rows import insert, select, update
from gateway.store.tables import conversations
from gateway.store.tx import Tx

KEY = ("tenant_id", "id")
MOST_LABELS = 50

Row = dict[str, Any]


class TooManyLabels(Exception):
    """A conversation has as many labels as it may have."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of a conversation. `columns` are set; labels are set, or added and
    removed."""

    tenant_id: str
    id: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    add: str | None = None
    remove: str | None = None


def change(tx: Tx, items: Sequence[Change]) -> Sequence[Row | None | Exception]:
    """Changes conversations; each as it is then. None: there is no such conversation."""
    keys = [(item.tenant_id, item.id) for item in items]
    found = select(tx, conversations, KEY, keys, COLUMNS, lock=True)
    rows = {(row.tenant_id, row.id): dict(row._mapping) for row in found}
    before = {key: dict(row) for key, row in rows.items()}
    results: list[Row | None | Exception] = []
    for item, key in zip(items, keys, strict=True):
        try:
            results.append(_changed(rows[key], item) if key in rows else None)
        except TooManyLabels as error:
            results.append(error)
    for key in sorted(rows):
        if rows[key] != before[key]:
            _write(tx, before[key], rows[key])
    return results


def _changed(row: Row, item: Change) -> Row:
    row.update(item.columns)
    known = _labels(row)
    wanted = known if item.labels is None else list(item.labels)
    if item.add is not None and item.add not in wanted:
        wanted = [*wanted, item.add]
    if item.remove is not None:
        wanted = [label for label in wanted if label != item.remove]
    if len(wanted) > max(MOST_LABELS, len(known)):
        raise TooManyLabels(f"at most {MOST_LABELS} labels")
    row["labels"] = json.dumps(wanted, ensure_ascii=False) if wanted else None
    return row


def _labels(row: Mapping[str, Any]) -> list[str]:
    return list(json.loads(row["labels"])) if row["labels"] else []


def _write(tx: Tx, before: Row, row: Row) -> None:
    row["updated_at"] = tx.now
    changed = [name for name in row if row[name] != before[name]]
    update(tx, conversations, KEY, [{name: row[name] for name in (*KEY, *changed)}])
    had, has = set(_labels(before)), set(_labels(row))
    for label in sorted(had - has):
        tx.run(
            "DELETE FROM conversation_labels "
            "WHERE tenant_id = ? AND conversation_id = ? AND label = ?",
            (row["tenant_id"], row["id"], label),
        )
    insert(tx, labels, [_label(row, label) for label in sorted(has - had)])
    tx.emit(row["tenant_id"], "conversation.updated", conversation_id=row["id"])


def _label(row: Row, label: str) -> Row:
    return {"tenant_id": row["tenant_id"], "conversation_id": row["id"], "label": label}


@dataclass(frozen=True, slots=True)
class NewNote:
    """A note to be kept."""

    tenant_id: str
    id: str
    conversation_id: str
    author: str | None
    body: str


def add_notes(tx: Tx, items: Sequence[NewNote]) -> Sequence[Row | None | Exception]:
    """Keeps notes; each as it is then. None: there is no such conversation."""
    known = _known(tx, [(item.tenant_id, item.conversation_id) for item in items])
    rows = [
        _note(tx, item) if (item.tenant_id, item.conversation_id) in known else None
        for item in items
    ]
    made = [row for row in rows if row is not None]
    there = {r.id for r in insert(tx, notes, made, "ON CONFLICT DO NOTHING RETURNING id")}
    for row in made:
        if row["id"] in there:
            _tell(tx, row)
    return rows


def _known(tx: Tx, keys: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    return {tuple(row) for row in select(tx, conversations, KEY, keys, KEY, lock=True)}


def _note(tx: Tx, item: NewNote) -> Row:
    return {
        "tenant_id": item.tenant_id,
        "id": item.id,
        "conversation_id": item.conversation_id,
        "author": item.author,
        "body": item.body,
        "created_at": tx.now,
    }


def _tell(tx: Tx, row: Row) -> None:
    """A conversation's notes are not part of it, so the event names the note."""
    tx.emit(
        row["tenant_id"],
        "conversation.updated",
        conversation_id=row["conversation_id"],
        change={"note_id": row["id"]},
    )


@dataclass(frozen=True, slots=True)
class NoteNamed:
    """One note of a conversation of a tenant."""

    tenant_id: str
    conversation_id: str
    id: str


def remove_notes(tx: Tx, items: Sequence[NoteNamed]) -> Sequence[bool | Exception]:
    """Removes notes. False: there is no such note."""
    results = []
    for item in items:
        gone = tx.run(
            "DELETE FROM conversation_notes WHERE tenant_id = ? AND conversation_id = ? AND id = ?",
            (item.tenant_id, item.conversation_id, item.id),
        )
        if gone.rowcount:
            row = {"tenant_id": item.tenant_id, "conversation_id": item.conversation_id}
            _tell(tx, {**row, "id": item.id})
        results.append(bool(gone.rowcount))
    return results


def list_notes(
    tx: Tx, tenant_id: str, conversation_id: str, before: str | None, limit: int
) -> list[Row]:
    """The notes of a conversation, newest first."""
    columns = ", ".join(column.name for column in notes.columns)
    found = tx.run(
        f"SELECT {columns} FROM conversation_notes WHERE tenant_id = ? AND conversation_id = ? "
        f"{'' if before is None else 'AND id < ? '}ORDER BY id DESC LIMIT ?",
        (tenant_id, conversation_id, *(() if before is None else (before,)), limit),
    )
    return [dict(row._mapping) for row in found.fetchall()]


def _repeatable(tx: Tx, items: Sequence[Any]) -> bool:
    return False  # doing it again changes nothing more


CHANGE: Operation[Change, Row | None] = Operation("conversation", 37, change, _repeatable)
ADD_NOTE: Operation[NewNote, Row | None] = Operation("note", 38, add_notes, _repeatable)
REMOVE_NOTE: Operation[NoteNamed, bool] = Operation("unnote", 39, remove_notes, _repeatable)
