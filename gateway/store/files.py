"""The rows behind files: which to fetch next and what became of them, uploads, and what is too old
to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.store.batcher import Operation
from gateway.store.rows import insert, select, update
from gateway.store.tx import Tx
from gateway.store.vendor_tables import media

KEY = ("tenant_id", "id")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Asks for files to fetch; they are not given to anybody else for `lease` milliseconds.
    `begun`: of those that were begun at most so often the leases are ended first, for whoever is
    the only process and has just started. The others may be why the last one died, and wait."""

    limit: int
    lease: int
    begun: int = 0


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
    sha256: str | None = None
    filename: str | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that the application gave us; it lies where files are kept."""

    tenant_id: str
    id: str
    content_type: str
    filename: str | None
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Old:
    """Asks for files that are older than `age` milliseconds; they are nobody else's to delete for
    `lease` milliseconds."""

    age: int
    limit: int
    lease: int


def want(tx: Tx, items: Sequence[Wanted]) -> Sequence[list[dict[str, Any]] | Exception]:
    """Takes pending files that are due; a crash gives them back after the lease."""
    return [_want(tx, item) for item in items]


def _want(tx: Tx, item: Wanted) -> list[dict[str, Any]]:
    if item.begun:  # one that failed, and waits to be tried again, says why
        tx.run(
            "UPDATE media SET due_at = ? WHERE state = 'pending' AND due_at > ? "
            "AND tries BETWEEN 1 AND ? AND detail IS NULL",
            (tx.now, tx.now, item.begun),
        )
    skip = "FOR UPDATE SKIP LOCKED" if tx.postgres else ""
    rows = tx.run(
        "WITH free (owner, one) AS MATERIALIZED ("
        "SELECT tenant_id, id FROM media WHERE state = 'pending' AND due_at <= ? "
        f"ORDER BY due_at LIMIT ? {skip}) "
        "UPDATE media SET due_at = ?, tries = tries + 1, detail = NULL FROM free "
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
            "sha256": item.sha256,
            "filename": item.filename,
            "detail": item.detail,
            "due_at": tx.now + (item.retry_in or 0),
        }
        for item in sorted(items, key=lambda i: (i.tenant_id, i.id))
    ]
    own = {"filename": "COALESCE(t.filename, v.filename)"}
    update(tx, media, KEY, rows, how=own)
    return [None] * len(items)


def keep(tx: Tx, items: Sequence[Upload]) -> Sequence[int | Exception]:
    """Stores uploads. Returns when that was, in milliseconds."""
    rows = [
        {
            "tenant_id": item.tenant_id,
            "id": item.id,
            "position": 0,
            "content_type": item.content_type,
            "filename": item.filename,
            "size": item.size,
            "sha256": item.sha256,
            "state": "stored",
            "tries": 0,
            "due_at": tx.now,
            "created_at": tx.now,
        }
        for item in sorted(items, key=lambda i: (i.tenant_id, i.id))
    ]
    insert(tx, media, rows, "ON CONFLICT DO NOTHING")
    return [tx.now] * len(items)


def kept(tx: Tx, items: Sequence[Upload]) -> bool:
    """Whether a batch of uploads was committed."""
    return bool(select(tx, media, KEY, [(item.tenant_id, item.id) for item in items], ("id",)))


def drop(tx: Tx, items: Sequence[Old]) -> Sequence[list[tuple[str, str]] | Exception]:
    """Takes files that are too old out of use; a crash gives them back after the lease, so that
    what is left of them is deleted all the same."""
    return [_drop(tx, item) for item in items]


def _drop(tx: Tx, item: Old) -> list[tuple[str, str]]:
    skip = "FOR UPDATE SKIP LOCKED" if tx.postgres else ""
    rows = tx.run(
        "WITH old (owner, one) AS MATERIALIZED ("
        "SELECT tenant_id, id FROM media WHERE state IN ('stored', 'dropping') "
        "AND created_at < ? AND (state = 'stored' OR due_at <= ?) "
        f"ORDER BY created_at LIMIT ? {skip}) "
        "UPDATE media SET state = 'dropping', due_at = ? FROM old "
        "WHERE tenant_id = old.owner AND id = old.one RETURNING tenant_id, id",
        (tx.now - item.age, tx.now, item.limit, tx.now + item.lease),
    )
    return [(row.tenant_id, row.id) for row in rows.fetchall()]


def gone(tx: Tx, items: Sequence[tuple[str, str]]) -> Sequence[None | Exception]:
    """Says of files that their bytes are deleted."""
    rows = [
        {"tenant_id": tenant_id, "id": id_, "state": "gone", "detail": "it is too old"}
        for tenant_id, id_ in sorted(items)
    ]
    update(tx, media, KEY, rows)
    return [None] * len(items)


WANT: Operation[Wanted, list[dict[str, Any]]] = Operation(
    "want media", 45, want, lambda t, i: False
)
DONE: Operation[Fetched, None] = Operation("store media", 24, done, lambda t, i: False)
KEEP: Operation[Upload, int] = Operation("store upload", 31, keep, kept)
DROP: Operation[Old, list[tuple[str, str]]] = Operation("drop media", 61, drop, lambda t, i: False)
GONE: Operation[tuple[str, str], None] = Operation("media gone", 62, gone, lambda t, i: False)
