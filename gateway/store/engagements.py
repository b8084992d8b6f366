"""What people did with messages of ours: opened, clicked, complained. Each word is kept once, as a
notice, and passed on by the feed; none changes a status. A bounce is a status, which the feed
tells as such: here it only says of whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from gateway.clock import new_id, to_ms
from gateway.domain import Engagement, Status
from gateway.store.rows import insert, select
from gateway.store.tables import attempts
from gateway.store.tx import Tx
from gateway.store.vendor_tables import notices

ONCE = "ON CONFLICT (connection, dedupe_key) DO NOTHING RETURNING id"
FOUND = ("tenant_id", "message_id", "id", "connection", "provider_message_id")
STATUSES = frozenset(f"message.{status}" for status in Status)

Said = tuple[str, str, str | None, Engagement]  # by tenant, connection and request


def keep(tx: Tx, said: Sequence[Said]) -> None:
    """Stores what is new of messages that we know, and tells it."""
    if not said:
        return
    known = _messages(tx, said)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for tenant_id, connection, inbox_id, event in said:
        message_id = known.get((connection, event.attempt_id)) or known.get(
            (connection, event.provider_message_id)
        )
        told = {"recipient": event.recipient, **event.content}
        rows.setdefault(
            (connection, f"en:{event.dedupe_key}"),
            {
                "tenant_id": tenant_id,
                "id": new_id("ntc"),
                "connection": connection,
                "dedupe_key": f"en:{event.dedupe_key}",
                "inbox_id": inbox_id,
                "kind": f"message.{event.kind}",
                "content": json.dumps({"message_id": message_id, **told}),
                "occurred_at": to_ms(event.occurred_at) if event.occurred_at else None,
                "received_at": tx.now,
            },
        )
    made = {r.id for r in insert(tx, notices, [rows[key] for key in sorted(rows)], ONCE)}
    for row in rows.values():
        told = json.loads(row["content"])
        message_id = told.pop("message_id")
        if row["id"] in made and message_id and row["kind"] not in STATUSES:
            change = {"engagement": told}
            tx.emit(row["tenant_id"], row["kind"], message_id=message_id, change=change)


def _messages(tx: Tx, said: Sequence[Said]) -> dict[tuple[str, str | None], str]:
    """Messages, by connection and our attempt or the vendor's id; of the same tenant only."""
    ours = {(e.attempt_id,): (tenant, c) for tenant, c, _, e in said if e.attempt_id}
    theirs = {(c, e.provider_message_id): tenant for tenant, c, _, e in said}
    found: dict[tuple[str, str | None], str] = {}
    for row in select(tx, attempts, ("id",), list(ours), FOUND):
        if ours[(row.id,)] == (row.tenant_id, row.connection):
            found[row.connection, row.id] = row.message_id
    keys = [key for key in theirs if key[1]]
    for row in select(tx, attempts, ("connection", "provider_message_id"), keys, FOUND):
        if theirs[row.connection, row.provider_message_id] == row.tenant_id:
            found.setdefault((row.connection, row.provider_message_id), row.message_id)
    return found
