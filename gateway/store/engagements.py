"""What people did with messages of ours: opened, clicked, complained. Each word is kept once, as a
notice, and passed on by the feed; none changes a status. A bounce is a status, which the feed
tells as such, and what was said of an earlier message is no news: here they only say of whom."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
About = tuple[str, str]  # a message and its attempt
Known = Mapping[tuple[str, str | None], About]
NOBODY = (None, None)


def keep(tx: Tx, said: Sequence[Said]) -> Known:
    """Stores what is new, and tells it of messages that we know, which are given back."""
    if not said:
        return {}
    known = _messages(tx, said)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for tenant_id, connection, inbox_id, event in said:
        message_id, _ = about(known, connection, event)
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
    quiet = {f"en:{event.dedupe_key}" for *_, event in said if event.earlier}
    made = {r.id for r in insert(tx, notices, [rows[key] for key in sorted(rows)], ONCE)}
    for row in rows.values():
        told = json.loads(row["content"])
        message_id = told.pop("message_id")
        news = row["kind"] not in STATUSES and row["dedupe_key"] not in quiet
        if row["id"] in made and message_id and news:
            change = {"engagement": told}
            tx.emit(row["tenant_id"], row["kind"], message_id=message_id, change=change)
    return known


def about(known: Known, connection: str, event: Engagement) -> About | tuple[None, None]:
    """The message that an event is about, and its attempt, if we know it."""
    by_ours = known.get((connection, event.attempt_id))
    return by_ours or known.get((connection, event.provider_message_id)) or NOBODY


def _messages(tx: Tx, said: Sequence[Said]) -> Known:
    """Messages, by connection and our attempt or the vendor's id; of the same tenant only."""
    ours = {(e.attempt_id,): (tenant, c) for tenant, c, _, e in said if e.attempt_id}
    theirs = {(c, e.provider_message_id): tenant for tenant, c, _, e in said}
    found: dict[tuple[str, str | None], About] = {}
    for row in select(tx, attempts, ("id",), list(ours), FOUND):
        if ours[(row.id,)] == (row.tenant_id, row.connection):
            found[row.connection, row.id] = row.message_id, row.id
    keys = [key for key in theirs if key[1]]
    for row in select(tx, attempts, ("connection", "provider_message_id"), keys, FOUND):
        if theirs[row.connection, row.provider_message_id] == row.tenant_id:
            about_it = row.message_id, row.id
            found.setdefault((row.connection, row.provider_message_id), about_it)
    return found
