"""One open transaction: statements on the driver's own cursor, and the events it ends with.

Statements go past SQLAlchemy's execution layer, which costs more than most of them; its engines,
pools, dialects and exceptions stay in charge of connections and of what went wrong.
"""

from __future__ import annotations

import json
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine import CursorResult
from sqlalchemy.exc import DBAPIError

from gateway.routing import Retry

Values = Mapping[str, Any]
SEEN_FOR = 60_000  # milliseconds that what was committed is believed: a database may be restored


@lru_cache(maxsize=1024)
def _row_type(names: tuple[str, ...]) -> Any:
    base = namedtuple("Row", names, rename=True)  # type: ignore[misc]  # noqa: PYI024
    return type("Row", (base,), {"__slots__": (), "_mapping": property(base._asdict)})


class Result:
    """What a statement gave: rows with named fields, or a count."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        return int(self._cursor.rowcount)

    def fetchall(self) -> list[Any]:
        """Every row."""
        if self._cursor.description is None:
            return []
        make = self._make()
        return [make(row) for row in self._cursor.fetchall()]

    def fetchone(self) -> Any:
        """The next row, or None."""
        row = self._cursor.fetchone()
        return None if row is None else self._make()(row)

    def scalar(self) -> Any:
        """The first value of the first row, or None."""
        row = self._cursor.fetchone()
        return None if row is None else row[0]

    def _make(self) -> Any:
        return _row_type(tuple(column[0] for column in self._cursor.description))._make


@lru_cache(maxsize=4096)
def _postgres_marks(sql: str) -> str:
    return sql.replace("?", "%s")


@lru_cache(maxsize=256)
def _only_status(status: str) -> str:
    return json.dumps({"status": status}, separators=(",", ":"))


@dataclass
class Tx:
    """One open transaction. `now` is the database's clock, in milliseconds; `retry` says how often
    a message is tried again. `seen` are the tenants' providers that this process has committed, and
    when; `noted` are those that come with this transaction."""

    connection: Connection
    dialect: str
    now: int
    events: list[Values] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)
    retry: Retry = field(default_factory=Retry)
    seen: Mapping[tuple[str, str], int] = field(default_factory=dict)
    noted: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.postgres = self.dialect == "postgresql"  # needs rows and the feed to be locked
        self._driver: Any = self.connection.connection.dbapi_connection

    @property
    def changes(self) -> int:
        """How many rows its connection has changed since it was opened; SQLite's."""
        return int(self._driver.total_changes)

    def execute(self, statement: Any, parameters: Any = None) -> CursorResult[Any]:
        """Runs a Core statement."""
        return self.connection.execute(statement, parameters)

    def run(self, sql: str, values: Sequence[Any] = ()) -> Result:
        """Runs a statement written with `?` marks.

        Raises:
            DBAPIError: what SQLAlchemy makes of the driver's error, without the values.
        """
        if self.postgres:
            sql = _postgres_marks(sql)
        cursor = self._driver.cursor()
        try:
            cursor.execute(sql, values)
        except Exception as error:
            raise self._translated(sql, error) from error
        return Result(cursor)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Statements whose results nobody looks at go to the server without waiting for each
        one's answer; what went wrong is raised at the end.

        Raises:
            DBAPIError: as `run` does.
        """
        if not self.postgres:
            yield
            return
        try:
            with self._driver.pipeline():
                yield
        except self.connection.dialect.loaded_dbapi.Error as error:
            raise self._translated("(several)", error) from error

    def _translated(self, sql: str, error: Exception) -> BaseException:
        dialect = self.connection.dialect
        base = dialect.loaded_dbapi.Error
        lost = isinstance(error, base) and dialect.is_disconnect(error, self._driver, None)
        if lost:
            self.connection.invalidate(error)
        return DBAPIError.instance(
            sql[:200],
            None,
            error,
            base,
            hide_parameters=True,
            connection_invalidated=lost,
            dialect=dialect,
        )

    def emit(
        self,
        tenant_id: str,
        kind: str,
        *,
        message_id: str | None = None,
        conversation_id: str | None = None,
        change: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds an event to the feed; it is numbered when the transaction ends."""
        text = None
        if change:
            alone = len(change) == 1 and "status" in change
            text = _only_status(change["status"]) if alone else json.dumps(change)
        self.events.append(
            {
                "tenant_id": tenant_id,
                "type": kind,
                "message_id": message_id,
                "conversation_id": conversation_id,
                "change": text,
                "created_at": self.now,
            }
        )
