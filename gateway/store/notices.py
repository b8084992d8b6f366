"""What vendors tell of what is ours there: each word is kept once, and passed on by the feed."""

from __future__ import annotations

import json
from collections.abc import Iterable

from gateway.clock import new_id, to_ms
from gateway.domain import Notice
from gateway.store.rows import insert
from gateway.store.tx import Tx
from gateway.store.vendor_tables import notices

ONCE = "ON CONFLICT (connection, dedupe_key) DO NOTHING RETURNING id"


def keep(tx: Tx, said: Iterable[tuple[str, str, str | None, Notice]]) -> None:
    """Stores notices, by tenant, connection and request, and tells those that are new."""
    rows = {
        (connection, notice.dedupe_key): {
            "tenant_id": tenant_id,
            "id": new_id("ntc"),
            "connection": connection,
            "dedupe_key": notice.dedupe_key,
            "inbox_id": inbox_id,
            "kind": notice.kind,
            "content": json.dumps(dict(notice.content)),
            "occurred_at": to_ms(notice.occurred_at) if notice.occurred_at else None,
            "received_at": tx.now,
        }
        for tenant_id, connection, inbox_id, notice in reversed(list(said))
    }
    made = {r.id for r in insert(tx, notices, [rows[key] for key in sorted(rows)], ONCE)}
    for row in reversed(rows.values()):
        if row["id"] in made:
            content = json.loads(str(row["content"]))
            tx.emit(str(row["tenant_id"]), str(row["kind"]), change=content)
            if row["kind"] == "template.updated":
                tx.topics.add("templates")
