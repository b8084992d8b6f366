"""The rows behind inbound files: which to fetch next, and what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.store.batcher import Operation
from gateway.store.rows import update
from gateway.store.tx import Tx
from gateway.store.vendor_tables import media


@dataclass(frozen=True, slots=True)
class Wanted:
    """Asks for files to fetch; they are not given to anybody else for `lease` milliseconds."""

    limit: int
    lease: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one fetch. `retry_in` in milliseconds where it is to be tried again."""

    tenant_id: str
    id: str
    state: str
    content_type: str | None = None
    size: int | None = None
    detail: str | None = None
    retry_in: int | None = None


def want(tx: Tx, items: Sequence[Wanted]) -> Sequence[list[dict[str, Any]] | Exception]:
    """Takes pending files that are due; a crash gives them back after the lease."""
    return [_want(tx, item) for item in items]


def _want(tx: Tx, item: Wanted) -> list[dict[str, Any]]:
    skip = "FOR UPDATE SKIP LOCKED" if tx.postgres else ""
    rows = tx.run(
        "WITH free (owner, one) AS MATERIALIZED ("
        "SELECT tenant_id, id FROM media WHERE state = 'pending' AND due_at <= ? "
        f"ORDER BY due_at LIMIT ? {skip}) "
        "UPDATE media SET due_at = ?, tries = tries + 1 FROM free "
        "WHERE tenant_id = free.owner AND id = free.one "
        "RETURNING tenant_id, id, message_id, connection, reference, declared_type, tries",
        (tx.now, item.limit, tx.now + item.lease),
    )
    return [dict(row._mapping) for row in rows.fetchall()]


def done(tx: Tx, items: Sequence[Fetched]) -> Sequence[None | Exception]:
    """Stores what became of fetches."""
    rows = [
        {
            "tenant_id": item.tenant_id,
            "id": item.id,
            "state": item.state,
            "content_type": item.content_type,
            "size": item.size,
            "detail": item.detail,
            "due_at": tx.now + (item.retry_in or 0),
        }
        for item in sorted(items, key=lambda i: (i.tenant_id, i.id))
    ]
    update(tx, media, ("tenant_id", "id"), rows)
    return [None] * len(items)


WANT: Operation[Wanted, list[dict[str, Any]]] = Operation(
    "want media", 45, want, lambda t, i: False
)
DONE: Operation[Fetched, None] = Operation("store media", 24, done, lambda t, i: False)
