"""Lists of messages, by any filters, newest first.

A list follows one index, in the order of the ids, which is that of time. Where several filters
have one, it is that whose messages are few, if there is such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.clock import first_id
from gateway.store import seen
from gateway.store.tables import messages
from gateway.store.tx import Tx

COLUMNS = tuple(column.name for column in messages.columns)
FEW = 2000
# By the name of the filter. Those that have an index come first, and of them those that few
# messages will fulfil.
EQUAL = {
    "provider_message_id": "provider_message_id",
    "conversation_id": "conversation_id",
    "to": "to_address",
    "from": "from_address",
    "purpose": "purpose",
    "type": "type",
    "status": "status",
    "channel": "channel",
    "direction": "direction",
    "provider": "provider",
}
INDEXED = tuple(EQUAL)[:-2]
NO_INDEX = ("type", "text")  # what nearly every message is has no place in an index
DRIFT = 86_400_000  # milliseconds that the clock of ids may differ from the database's

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a list is to hold. Times in milliseconds: from `after` on, up to before `before`."""

    filters: dict[str, str] = field(default_factory=dict)
    after: int | None = None
    before: int | None = None


def listed(tx: Tx, tenant_id: str, asked: Asked, older: str | None, limit: int) -> list[Row]:
    """Messages, newest first, older than the id `older`."""
    if unheard_of(tx, tenant_id, asked):
        return []
    where, values = condition(tx, tenant_id, asked)
    if older is not None:
        where, values = f"{where} AND id < ?", [*values, older]
    columns = ", ".join(COLUMNS)
    found = tx.run(
        f"SELECT {columns} FROM messages WHERE {where} ORDER BY id DESC LIMIT ?",
        [*values, limit],
    )
    return [dict(row._mapping) for row in found.fetchall()]


def unheard_of(tx: Tx, tenant_id: str, asked: Asked) -> bool:
    """Whether a provider is asked for that no message names: without an index, all of them would be
    looked at."""
    provider = asked.filters.get("provider")
    return provider is not None and not seen.ever(tx, tenant_id, provider)


def condition(tx: Tx, tenant_id: str, asked: Asked) -> tuple[str, list[Any]]:
    """What is asked, as SQL, so that the index that helps most is used."""
    first = _first(tx, tenant_id, asked)
    parts, values = ["tenant_id = ?"], [tenant_id]
    for name, value in asked.filters.items():
        if name == "provider_message_id" and (known := _sent_as(tx, tenant_id, value)):
            parts.append("id = ?")
            values.append(known)
            continue
        # On SQLite, which knows no numbers of rows, a plus keeps a column's index out of it.
        plain = tx.postgres or name == first
        parts.append(f"{'' if plain else '+'}{EQUAL[name]} = ?")
        values.append(value)
    if first == "type":
        parts.append("type <> 'text'")
    if asked.filters.get("direction") == "inbound" and first is None:
        parts.append("status = 'received'")  # as all of them are, and that has an index
    return _in_time(asked, parts, values)


def _sent_as(tx: Tx, tenant_id: str, id_: str) -> str | None:
    """The message that its vendor called so when it was sent, if it shows its network's id."""
    found = tx.run(
        "SELECT MAX(message_id) FROM attempts WHERE provider_message_id = ? "
        "AND network_id IS NOT NULL AND tenant_id || '' = ?",  # so that only one index will do
        (id_, tenant_id),
    ).scalar()
    return str(found) if found is not None else None


def _in_time(asked: Asked, parts: list[str], values: list[Any]) -> tuple[str, list[Any]]:
    """Ids hold the time, so they bound what is looked at."""
    if asked.after is not None:
        parts += ["created_at >= ?", "id >= ?"]
        values += [asked.after, first_id("msg", max(0, asked.after - DRIFT))]
    if asked.before is not None:
        parts += ["created_at < ?", "id < ?"]
        values += [asked.before, first_id("msg", max(0, asked.before + DRIFT))]
    return " AND ".join(parts), values


def _first(tx: Tx, tenant_id: str, asked: Asked) -> str | None:
    """The filter whose index is followed."""
    able = [
        name
        for name in INDEXED
        if name in asked.filters and (name, asked.filters[name]) != NO_INDEX
    ]
    if len(able) < 2:
        return able[0] if able else None
    return next((name for name in able if _few(tx, tenant_id, name, asked)), able[0])


def _few(tx: Tx, tenant_id: str, name: str, asked: Asked) -> bool:
    only = " AND type <> 'text'" if name == "type" else ""
    found: Sequence[Any] = tx.run(
        f"SELECT 1 FROM messages WHERE tenant_id = ? AND {EQUAL[name]} = ?{only} LIMIT {FEW + 1}",
        (tenant_id, asked.filters[name]),
    ).fetchall()
    return len(found) <= FEW
