"""Lists of conversations, by any filters, the one last written in first.

A list goes one of two ways. Where few conversations fulfil one of its conditions, those are read
and sorted; else the newest are looked through, since many of them will do. Neither way grows with
the table for what people ask. Which way it is, is found by a look at an index that ends early.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.store.conversations import COLUMNS
from gateway.store.tx import Tx

FEW = 2000  # conversations that are read and sorted at once

Row = dict[str, Any]
Place = tuple[int, str]  # where a list goes on: when it was last written in, and its id


@dataclass(frozen=True, slots=True)
class Condition:
    """What is asked of a conversation `c`, and where the ids of those that fulfil it stand."""

    where: str
    values: tuple[Any, ...]
    ids: str = ""
    ids_values: tuple[Any, ...] = ()
    known: tuple[str, ...] | None = None  # the ids, where they are known and few


EQUAL = {  # by the name of the filter; those that few will fulfil come first
    "address": "address",
    "assignee": "assignee",
    "our_address": "our_address",
    "status": "status",
    "channel": "channel",
}
FILTERS = (*EQUAL, "label", "unread")


def conditions(tenant_id: str, filters: dict[str, str]) -> list[Condition]:
    """The conditions that filters are, in the order in which they are worth looking at."""
    found: list[Condition] = []
    if "unread" in filters:
        found.append(_unread(tenant_id, filters["unread"] == "true"))
    if "label" in filters:
        found.append(_label(tenant_id, filters["label"]))
    found += [_equal(tenant_id, name, filters[name]) for name in EQUAL if name in filters]
    return found


def _equal(tenant_id: str, name: str, value: str) -> Condition:
    if name == "assignee" and not value:
        return Condition("c.assignee IS NULL", ())  # nobody's
    column = EQUAL[name]
    ids = f"SELECT id FROM conversations WHERE tenant_id = ? AND {column} = ?"
    return Condition(f"c.{column} = ?", (value,), ids, (tenant_id, value))


def _label(tenant_id: str, label: str) -> Condition:
    where = (
        "EXISTS (SELECT 1 FROM conversation_labels AS l WHERE l.tenant_id = c.tenant_id "
        "AND l.conversation_id = c.id AND l.label = ?)"
    )
    ids = "SELECT conversation_id FROM conversation_labels WHERE tenant_id = ? AND label = ?"
    return Condition(where, (label,), ids, (tenant_id, label))


def _unread(tenant_id: str, wanted: bool) -> Condition:
    if not wanted:
        return Condition("c.unread_count = 0", ())
    ids = "SELECT id FROM conversations WHERE tenant_id = ? AND unread_count > 0"
    return Condition("c.unread_count > 0", (), ids, (tenant_id,))


def listed(
    tx: Tx,
    tenant_id: str,
    asked: Sequence[Condition],
    before: Place | None,
    limit: int,
) -> list[Row]:
    """Conversations that fulfil every condition, the one last written in first."""
    few = next((ids for one in asked if (ids := _few(tx, one)) is not None), None)
    where = ["c.tenant_id = ?", *(one.where for one in asked)]
    values: list[Any] = [tenant_id, *(value for one in asked for value in one.values)]
    if before is not None:
        where.append("(c.last_message_at, c.id) < (?, ?)")
        values += before
    head, start = _from(tx, few)
    found = tx.run(
        f"{head} WHERE {' AND '.join(where)} ORDER BY c.last_message_at DESC, c.id DESC LIMIT ?",
        [*start, *values, limit],
    )
    return [dict(row._mapping) for row in found.fetchall()]


def _few(tx: Tx, one: Condition) -> list[str] | None:
    """The ids of all that fulfil a condition, if they are few."""
    if one.known is not None or not one.ids:
        return None if one.known is None else list(one.known)
    rows = tx.run(f"{one.ids} LIMIT {FEW + 1}", one.ids_values).fetchall()
    return [row[0] for row in rows] if len(rows) <= FEW else None


def _from(tx: Tx, few: list[str] | None) -> tuple[str, list[Any]]:
    """The head of the statement: over few conversations, or over all in the list's order. Left to
    itself, SQLite would sort all of what is open, as it knows no numbers of rows."""
    columns = ", ".join(f"c.{name}" for name in COLUMNS)
    if few is None:
        how = "" if tx.postgres else " INDEXED BY ix_conversations_recent"
        return f"SELECT {columns} FROM conversations AS c{how}", []
    source = "SELECT * FROM unnest(?::text[])" if tx.postgres else "SELECT value FROM json_each(?)"
    join = "JOIN" if tx.postgres else "CROSS JOIN"
    return (
        f"WITH few (id) AS ({source}) SELECT {columns} FROM few {join} conversations AS c "
        "ON c.id = few.id"
    ), [few if tx.postgres else json.dumps(few)]
