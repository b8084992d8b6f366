"""The log of what was sent, newest first: a page of the view `communication_logs`."""

from __future__ import annotations

from typing import Any

from gateway.store.message_lists import Asked, condition, unheard_of
from gateway.store.tx import Tx

COLUMNS = (
    *("message_id", "conversation_id", "channel", "type", "recipient", "sender", "purpose"),
    *("status", "provider", "provider_message_id", "attempts", "segments"),
    *("cost", "currency", "cost_estimated"),
    *("created_at", "send_at", "sent_at", "delivered_at", "read_at"),
    *("error_code", "error_message", "error_provider", "metadata"),
)

# A message that nobody was asked to send names who would be asked: that is no provider of it.
USED = (
    "(dedupe_key IS NOT NULL OR EXISTS (SELECT 1 FROM attempts AS a "
    "WHERE a.tenant_id = messages.tenant_id AND a.message_id = messages.id))"
)

Row = dict[str, Any]


def listed(tx: Tx, tenant_id: str, asked: Asked, older: str | None, limit: int) -> list[Row]:
    """What was sent, older than the message `older`. The page is found by the indexes of the
    messages; only its own rows are read through the view."""
    if unheard_of(tx, tenant_id, asked):
        return []
    where, values = condition(tx, tenant_id, asked)
    if "provider" in asked.filters:
        where = f"{where} AND {USED}"
    if older is not None:
        where, values = f"{where} AND id < ?", [*values, older]
    found = tx.run(
        f"SELECT id FROM messages WHERE {where} ORDER BY id DESC LIMIT ?", [*values, limit]
    ).fetchall()
    if not found:
        return []
    marks = ", ".join("?" * len(found))
    rows = tx.run(
        f"SELECT {', '.join(COLUMNS)} FROM communication_logs "
        f"WHERE tenant_id = ? AND message_id IN ({marks}) ORDER BY message_id DESC",
        [tenant_id, *(row.id for row in found)],
    )
    return [dict(row._mapping) for row in rows.fetchall()]
