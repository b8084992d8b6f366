"""What PostgreSQL knows of tables that grow fast: it looks at them once a minute, and until then
plans as if they were empty, which reads a whole tenant for each conversation. SQLite needs none.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from gateway.store.batcher import Operation
from gateway.store.tables import Base
from gateway.store.tx import Tx

CHANGED = 250  # rows, and a third of all that there are, until a table is looked at again
GROWN = 200_000  # rows of a table that is left to the database
POLL = 5.0  # seconds


class NotLookedAt(Exception):
    """A table could not be looked at, such as in the time that a statement has."""


def refresh(tx: Tx, items: Sequence[None]) -> Sequence[int | Exception]:
    """Has the tables looked at that changed most of all; says how many there were. What another
    process looks at in this moment is left to that."""
    return [_refresh(tx) for _ in items]


def _refresh(tx: Tx) -> int:
    rows = tx.run(
        "SELECT relname FROM pg_stat_user_tables WHERE schemaname = current_schema() "
        "AND n_live_tup < ? AND n_mod_since_analyze > ? AND n_mod_since_analyze * 3 > n_live_tup",
        (GROWN, CHANGED),
    ).fetchall()
    ours = sorted(row.relname for row in rows if row.relname in Base.metadata.tables)
    for name in ours:
        try:
            tx.run(f"ANALYZE (SKIP_LOCKED) {name}")
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            raise NotLookedAt(name) from error
    return len(ours)


REFRESH: Operation[None, int] = Operation("statistics", 80, refresh, lambda tx, items: False)
