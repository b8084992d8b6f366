"""What the API reads: lists by cursor, and single things. Always of one tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table

from gateway.store.tables import attempts, conversations, idempotency, messages
from gateway.store.tx import Tx
from gateway.store.vendor_tables import media

MESSAGE_FILTERS = {
    "status": "status",
    "channel": "channel",
    "direction": "direction",
    "to": "to_address",
    "from": "from_address",
    "conversation_id": "conversation_id",
    "provider_message_id": "provider_message_id",
}
CONVERSATION_FILTERS = {"channel": "channel", "status": "status", "address": "address"}

Row = dict[str, Any]


def _rows(tx: Tx, table: Table, where: str, values: Sequence[Any]) -> list[Row]:
    columns = ", ".join(column.name for column in table.columns)
    found = tx.run(f"SELECT {columns} FROM {table.name} WHERE {where}", values)
    return [dict(row._mapping) for row in found.fetchall()]


def message(tx: Tx, tenant_id: str, id_: str) -> Row | None:
    """One message."""
    rows = _rows(tx, messages, "tenant_id = ? AND id = ?", (tenant_id, id_))
    return rows[0] if rows else None


def attempts_of(tx: Tx, tenant_id: str, message_id: str) -> list[Row]:
    """The attempts of a message, in order."""
    where = "tenant_id = ? AND message_id = ? ORDER BY number"
    return _rows(tx, attempts, where, (tenant_id, message_id))


def place_of(tx: Tx, tenant_id: str, message_id: str) -> Row | None:
    """A message's place in the queue, and whether it stands behind another one of its thread."""
    found = tx.run(
        "SELECT q.route, q.due_at, q.lease_until, q.quarantined, EXISTS ("
        "SELECT 1 FROM queue AS e WHERE e.tenant_id = q.tenant_id "
        "AND e.conversation_id = q.conversation_id AND e.lane = q.lane "
        "AND e.message_id < q.message_id AND e.quarantined = 0 "
        "AND (e.lease_until > 0 OR e.attempts > 0 OR e.due_at <= ?)) AS behind "
        "FROM queue AS q WHERE q.tenant_id = ? AND q.message_id = ?",
        (tx.now, tenant_id, message_id),
    ).fetchone()
    return dict(found._mapping) if found is not None else None


def list_messages(
    tx: Tx, tenant_id: str, filters: Mapping[str, str], before: str | None, limit: int
) -> list[Row]:
    """Messages, newest first."""
    where, values = _where(tenant_id, filters, MESSAGE_FILTERS)
    if before is not None:
        where, values = f"{where} AND id < ?", [*values, before]
    return _rows(tx, messages, f"{where} ORDER BY id DESC LIMIT ?", [*values, limit])


def conversation(tx: Tx, tenant_id: str, id_: str) -> Row | None:
    """One conversation."""
    rows = _rows(tx, conversations, "tenant_id = ? AND id = ?", (tenant_id, id_))
    return rows[0] if rows else None


def last_email(tx: Tx, tenant_id: str, conversation_id: str) -> Row | None:
    """The last email of a conversation: the person's, if there is one."""
    found = tx.run(
        "SELECT subject, extra, direction FROM messages WHERE tenant_id = ? "
        "AND conversation_id = ? ORDER BY direction, id DESC LIMIT 1",
        (tenant_id, conversation_id),
    ).fetchone()
    return dict(found._mapping) if found is not None else None


def list_conversations(
    tx: Tx, tenant_id: str, filters: Mapping[str, str], before: tuple[int, str] | None, limit: int
) -> list[Row]:
    """Conversations, the one last written in first."""
    where, values = _where(tenant_id, filters, CONVERSATION_FILTERS)
    if before is not None:
        where, values = f"{where} AND (last_message_at, id) < (?, ?)", [*values, *before]
    order = "ORDER BY last_message_at DESC, id DESC LIMIT ?"
    return _rows(tx, conversations, f"{where} {order}", [*values, limit])


def media_file(tx: Tx, tenant_id: str, id_: str) -> Row | None:
    """One inbound file."""
    rows = _rows(tx, media, "tenant_id = ? AND id = ?", (tenant_id, id_))
    return rows[0] if rows else None


def earlier_answer(tx: Tx, tenant_id: str, route: str, key: str) -> Row | None:
    """The first answer to an idempotency key, while it is kept."""
    where = "tenant_id = ? AND route = ? AND key = ? AND expires_at > ?"
    rows = _rows(tx, idempotency, where, (tenant_id, route, key, tx.now))
    return rows[0] if rows else None


def _where(
    tenant_id: str, filters: Mapping[str, str], known: Mapping[str, str]
) -> tuple[str, list[Any]]:
    parts, values = ["tenant_id = ?"], [tenant_id]
    for name, value in filters.items():
        parts.append(f"{known[name]} = ?")
        values.append(value)
    return " AND ".join(parts), values
