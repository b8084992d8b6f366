"""Reading the numbered feed: ids and changes from its rows, bodies joined from today's.

What cannot be shown, such as a row that somebody wrote by hand, is told by its id alone: nothing
stops the feed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from gateway.clock import show
from gateway.store.database import FEED_LOCK
from gateway.store.rows import select
from gateway.store.tables import conversations, messages
from gateway.store.tx import Tx
from gateway.views import conversation_view, message_view

log = logging.getLogger("gateway.store")

PAGE = 500
MESSAGE_COLUMNS = tuple(c.name for c in messages.columns)
CONVERSATION_COLUMNS = tuple(c.name for c in conversations.columns)


@dataclass(frozen=True, slots=True)
class Frame:
    """One event, ready to be streamed. `data` is the frame's JSON."""

    id: int
    tenant_id: str
    type: str
    data: bytes


def after(tx: Tx, cursor: int, tenant_id: str | None = None, limit: int = PAGE) -> list[Frame]:
    """The events after a number, in order; of one tenant, or of all."""
    only = "" if tenant_id is None else "AND tenant_id = ? "
    values: list[Any] = [cursor, limit] if tenant_id is None else [cursor, tenant_id, limit]
    rows = tx.run(
        "SELECT id, tenant_id, type, message_id, conversation_id, change, created_at "
        f"FROM events WHERE id > ? {only}ORDER BY id LIMIT ?",
        values,
    ).fetchall()
    said = _messages(tx, [r for r in rows if r.message_id])
    about = _conversations(tx, [r for r in rows if not r.message_id and r.conversation_id])
    return [_frame(row, said, about) for row in rows]


def _messages(tx: Tx, rows: list[Any]) -> dict[Any, Any]:
    keys = [(r.tenant_id, r.message_id) for r in rows]
    found = select(tx, messages, ("tenant_id", "id"), keys, MESSAGE_COLUMNS)
    return _views(found, message_view)


def _conversations(tx: Tx, rows: list[Any]) -> dict[Any, Any]:
    keys = [(r.tenant_id, r.conversation_id) for r in rows]
    found = select(tx, conversations, ("tenant_id", "id"), keys, CONVERSATION_COLUMNS)
    return _views(found, conversation_view)


def _views(rows: list[Any], view: Callable[[dict[str, Any]], Any]) -> dict[Any, Any]:
    """What can be shown of these rows, by tenant and id."""
    found = {}
    for row in rows:
        try:
            found[row.tenant_id, row.id] = view(dict(row._mapping))
        except (ValueError, TypeError, LookupError):
            log.exception("%s cannot be shown: its row is damaged", row.id)
    return found


def _frame(row: Any, said: dict[Any, Any], about: dict[Any, Any]) -> Frame:
    try:
        return _told(row, said, about)
    except (ValueError, TypeError):  # pydantic's own errors of serialising are ValueErrors
        log.exception("event %d can only be told by its ids", row.id)
        return _told(row._replace(change=None), {}, {})


def _told(row: Any, said: dict[Any, Any], about: dict[Any, Any]) -> Frame:
    change: dict[str, Any] = json.loads(row.change) if row.change else {}
    data: dict[str, Any]
    if row.message_id:
        body = said.get((row.tenant_id, row.message_id), {"id": row.message_id})
        data = {"message": {**body, **change}}
    elif row.type.startswith("contact."):
        body = about.get((row.tenant_id, row.conversation_id))
        data = {"contact": change} if body is None else {"contact": change, "conversation": body}
    elif row.conversation_id:
        body = about.get((row.tenant_id, row.conversation_id), {"id": row.conversation_id})
        data = {"conversation": {**body, **change}}
    else:
        data = change
    frame = {"id": row.id, "type": row.type, "created_at": show(row.created_at), "data": data}
    return Frame(row.id, row.tenant_id, row.type, to_json(frame))


def opening(tx: Tx, cursor: int | None) -> tuple[int, int, bool]:
    """The bounds, and whether the events up to a number are still those that were once there: not
    where a restore has taken some of them away."""
    lost = None
    if cursor is not None:
        lost = tx.run(
            "SELECT 1 FROM timelines WHERE lost_after < ? AND ? <= lost_until", (cursor, cursor)
        ).fetchone()
    return *bounds(tx), lost is None


def bounds(tx: Tx) -> tuple[int, int]:
    """The numbers of the oldest event that is kept and of the newest; (1, 0) for none at all.
    Where none is kept, PostgreSQL's sequence also counts those whose transaction has not ended:
    that is waited for, and this transaction does not see them."""
    row: Any = tx.run(
        "SELECT (SELECT MIN(id) FROM events), (SELECT MAX(id) FROM events)"
    ).fetchone()
    if row is not None and row[1] is not None:
        return int(row[0]), int(row[1])
    if tx.postgres:
        tx.run("SELECT pg_advisory_xact_lock_shared(?)", (FEED_LOCK,))
        last: Any = tx.run("SELECT last_value, is_called FROM events_id_seq").fetchone()
        newest = int(last[0]) if last is not None and last[1] else 0
    else:
        last = tx.run("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        newest = int(last[0]) if last is not None else 0
    return newest + 1, newest
