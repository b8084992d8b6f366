"""What the API reads of single things. Always of one tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table

from gateway.store.rows import select
from gateway.store.tables import attempts, conversations, idempotency, messages
from gateway.store.tx import Tx
from gateway.store.vendor_tables import media

Row = dict[str, Any]


def _rows(tx: Tx, table: Table, where: str, values: Sequence[Any]) -> list[Row]:
    columns = ", ".join(column.name for column in table.columns)
    found = tx.run(f"SELECT {columns} FROM {table.name} WHERE {where}", values)
    return [dict(row._mapping) for row in found.fetchall()]


def message(tx: Tx, tenant_id: str, id_: str) -> Row | None:
    """One message."""
    rows = _rows(tx, messages, "tenant_id = ? AND id = ?", (tenant_id, id_))
    return rows[0] if rows else None


def newest_inbound(tx: Tx, tenant_id: str, conversation_id: str) -> Row | None:
    """What the person of a conversation said last."""
    where = (
        "tenant_id = ? AND conversation_id = ? AND direction = 'inbound' ORDER BY id DESC LIMIT 1"
    )
    rows = _rows(tx, messages, where, (tenant_id, conversation_id))
    return rows[0] if rows else None


def message_of_provider(
    tx: Tx, tenant_id: str, channel: str, provider_message_id: str
) -> Row | None:
    """The message that a provider calls so; the newest, if several do."""
    # SQLite believes that a tenant has ten messages, and would read them all; so it may not use an
    # index that begins with the tenant.
    where = "provider_message_id = ? AND tenant_id || '' = ? AND channel = ?"
    rows = _rows(tx, messages, where, (provider_message_id, tenant_id, channel))
    return max(rows, key=lambda row: str(row["id"]), default=None)


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
        "AND e.message_id <> q.message_id AND (e.lease_until > 0 OR (e.message_id < q.message_id "
        "AND e.quarantined = 0 AND (e.attempts > 0 OR e.due_at <= ?)))) AS behind "
        "FROM queue AS q WHERE q.tenant_id = ? AND q.message_id = ?",
        (tx.now, tenant_id, message_id),
    ).fetchone()
    return dict(found._mapping) if found is not None else None


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


def media_file(tx: Tx, tenant_id: str, id_: str) -> Row | None:
    """One file."""
    rows = _rows(tx, media, "tenant_id = ? AND id = ?", (tenant_id, id_))
    return rows[0] if rows else None


def media_files(tx: Tx, tenant_id: str, ids: Sequence[str]) -> dict[str, Row]:
    """Some files of a tenant, by their ids."""
    if not ids:
        return {}
    where = f"tenant_id = ? AND id IN ({', '.join('?' * len(ids))})"
    return {row["id"]: row for row in _rows(tx, media, where, (tenant_id, *ids))}


def linked_file(tx: Tx, id_: str) -> Row | None:
    """One file of whomever: its link proves that they gave it out. Ids are unique in all."""
    rows = _rows(tx, media, "id = ?", (id_,))
    return rows[0] if rows else None


def earlier_answer(tx: Tx, tenant_id: str, route: str, key: str) -> Row | None:
    """The first answer to an idempotency key, while it is kept."""
    where = "tenant_id = ? AND route = ? AND key = ? AND expires_at > ?"
    rows = _rows(tx, idempotency, where, (tenant_id, route, key, tx.now))
    return rows[0] if rows else None


def earlier_answers(tx: Tx, tenant_id: str, route: str, keys: Sequence[str]) -> list[Row]:
    """The first answers to some idempotency keys, as far as they are kept."""
    columns = ("key", "body_hash", "response", "expires_at")
    wanted = [(tenant_id, route, key) for key in keys]
    found = select(tx, idempotency, ("tenant_id", "route", "key"), wanted, columns)
    return [dict(row._mapping) for row in found if row.expires_at > tx.now]
