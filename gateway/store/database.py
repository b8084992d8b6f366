"""The engine of both databases, transactions, and statements over many rows at once.

Everything that SQLite and PostgreSQL do differently is named here; the rest of the store is one
code path. A transaction collects what it has to say in the feed and says it last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.pool import QueuePool

from gateway.store import tables
from gateway.store.tx import Tx as Tx
from gateway.store.tx import Values

FEED_LOCK = 0x6D736777  # PostgreSQL's advisory lock around the feed's numbers
MIGRATION_LOCK = FEED_LOCK + 1
CHANNEL = "gateway"  # of LISTEN and NOTIFY
TIMEOUT = 5  # seconds, of everything that waits for the database
LARGEST = 256  # rows in one statement; within the parameter limits of both databases

class Again(Exception):
    """Another process was quicker; the whole batch is to be repeated and will see it."""


class Database:
    """Connections to one database. `write` gives one transaction at a time on SQLite."""

    def __init__(self, url: str, *, readers: int = 4) -> None:
        self.url = make_url(url)
        self.dialect = self.url.get_backend_name()
        if self.dialect not in ("sqlite", "postgresql"):
            raise ValueError("DATABASE_URL must be a SQLite or a PostgreSQL URL")
        self._writer = self._engine(2)
        self._reader = self._engine(readers, isolation_level="REPEATABLE READ")
        if self.sqlite:
            event.listen(self._writer, "begin", _begin_immediate)
            event.listen(self._reader, "begin", _begin)

    @property
    def sqlite(self) -> bool:
        """Whether this is the embedded default."""
        return self.dialect == "sqlite"

    @property
    def path(self) -> Path | None:
        """Where an embedded database lies."""
        return Path(self.url.database) if self.sqlite and self.url.database else None

    def _engine(self, size: int, **postgres: Any) -> Engine:
        if self.sqlite:
            engine = create_engine(
                self.url,
                hide_parameters=True,  # bodies and addresses do not belong into errors
                poolclass=QueuePool,
                pool_size=size,
                pool_timeout=TIMEOUT,
                connect_args={
                    "check_same_thread": False,
                    "timeout": TIMEOUT,
                    "cached_statements": 512,
                },
            )
            event.listen(engine, "connect", _prepare_sqlite)
            return engine
        return create_engine(
            self.url,
            hide_parameters=True,
            pool_size=size + 4,
            max_overflow=4,
            pool_timeout=TIMEOUT,
            pool_pre_ping=True,
            connect_args=postgres_arguments(),
            **postgres,
        )

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """A transaction that writes: committed at the end, undone by an exception."""
        with self._writer.connect() as connection, connection.begin():
            tx = self._tx(connection)
            yield tx
            finish(tx)

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A transaction that only reads; all its statements see the same moment."""
        with self._reader.connect() as connection, connection.begin():
            yield self._tx(connection)

    def connect(self) -> Connection:
        """A bare writing connection, for the group commit."""
        return self._writer.connect()

    def begun(self, connection: Connection) -> Tx:
        """The transaction that was begun on a bare connection."""
        return self._tx(connection)

    def _tx(self, connection: Connection) -> Tx:
        tx = Tx(connection, self.dialect, 0)
        tx.now = int(tx.run(NOW[self.dialect]).scalar())
        return tx

    def forget(self) -> None:
        """Drops pooled connections, after the database was away."""
        self._writer.dispose()
        self._reader.dispose()

    def close(self) -> None:
        """Closes every connection."""
        self.forget()


NOW = {
    "sqlite": "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
}


def postgres_arguments() -> dict[str, Any]:
    """What bounds every wait on PostgreSQL, for the driver and for the server."""
    bound = TIMEOUT * 1000
    return {
        "connect_timeout": TIMEOUT,
        "tcp_user_timeout": bound,
        "keepalives_idle": TIMEOUT,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "options": f"-c statement_timeout={bound} -c lock_timeout={bound} "
        f"-c idle_in_transaction_session_timeout={bound * 4} -c timezone=UTC",
    }


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun by us, not guessed by the driver
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={TIMEOUT * 1000}",
        "foreign_keys=ON",
        "temp_store=MEMORY",
        "cache_size=-32768",
        "wal_autocheckpoint=2000",
        "journal_size_limit=67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def describe(url: str) -> str:
    """A database's URL without its password, for people."""
    parts = urlsplit(url)
    if parts.scheme.startswith("sqlite"):
        return url
    return make_url(url).render_as_string(hide_password=True)


def finish(tx: Tx) -> None:
    """Numbers a transaction's events, in commit order, and wakes those who wait for them."""
    if tx.events:
        if tx.postgres:
            tx.run("SELECT pg_advisory_xact_lock(?)", (FEED_LOCK,))
        insert(tx, tables.events, tx.events)
        tx.topics.add("events")
    if tx.postgres and tx.topics:
        tx.run("SELECT pg_notify(?, ?)", (CHANNEL, ",".join(sorted(tx.topics))))


# Statements over many rows. The text is made once for each number of rows that is a power of
# two, so both databases keep it prepared; one statement releases the interpreter once, where a
# statement per row would wait for it again each time.


def _sizes(count: int) -> Iterator[int]:
    while count:
        size = min(LARGEST, 1 << (count.bit_length() - 1))
        yield size
        count -= size


def _pieces(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    start = 0
    for size in _sizes(len(rows)):
        yield rows[start : start + size]
        start += size


@lru_cache(maxsize=1024)
def _marks(columns: int, rows: int) -> str:
    one = "(" + ", ".join("?" * columns) + ")"
    return ", ".join([one] * rows)


def insert(tx: Tx, table: Table, rows: Sequence[Values], conflict: str = "") -> list[Any]:
    """Inserts rows that all have the same keys. `conflict` is an ON CONFLICT clause, which may
    end in RETURNING: then what it returns is the result."""
    if not rows:
        return []
    columns = tuple(c for c in rows[0] if any(row[c] is not None for row in rows))
    head = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES "
    found: list[Any] = []
    for piece in _pieces(rows):
        values = [row[column] for row in piece for column in columns]
        result = tx.run(f"{head}{_marks(len(columns), len(piece))} {conflict}", values)
        if "RETURNING" in conflict:
            found.extend(result.fetchall())
    return found


@lru_cache(maxsize=1024)
def _typed(table: Table, columns: tuple[str, ...], rows: int) -> str:
    """A list of rows whose first row tells the types, which PostgreSQL cannot guess."""
    kinds = ", ".join(f"CAST(? AS {table.c[column].type.compile()})" for column in columns)
    more = f", {_marks(len(columns), rows - 1)}" if rows > 1 else ""
    return f"(VALUES ({kinds}){more})"


def update(
    tx: Tx,
    table: Table,
    keys: tuple[str, ...],
    rows: Sequence[Values],
    *,
    only: str = "TRUE",
    how: Mapping[str, str] | None = None,
) -> int:
    """Sets, row by row, what each of `rows` holds beside its keys. Rows have the same keys in
    the same order. `only` narrows it and `how` gives a column another expression than its new
    value, with `t` the table and `v` the new values. Returns how many changed."""
    if not rows:
        return 0
    columns, how = tuple(rows[0]), how or {}
    sets = ", ".join(f"{c} = {how.get(c, 'v.' + c)}" for c in columns if c not in keys)
    match = " AND ".join(f"t.{key} = v.{key}" for key in keys)
    changed = 0
    for piece in _pieces(rows):
        values = [row[column] for row in piece for column in columns]
        listed = _typed(table, columns, len(piece))
        changed += tx.run(
            f"WITH v ({', '.join(columns)}) AS {listed} "
            f"UPDATE {table.name} AS t SET {sets} FROM v WHERE {match} AND {only}",
            values,
        ).rowcount
    return changed


def select(
    tx: Tx,
    table: Table,
    keys: tuple[str, ...],
    wanted: Sequence[tuple[Any, ...]],
    columns: Sequence[str],
    *,
    lock: bool = False,
) -> list[Any]:
    """The rows whose keys are among `wanted`, in the order of the keys. `lock` keeps them from
    other processes until the transaction ends."""
    unique = sorted(set(wanted))
    found: list[Any] = []
    names = ", ".join(f"t.{column}" for column in columns)
    match = " AND ".join(f"t.{key} = w.{key}" for key in keys)
    order = ", ".join(f"t.{key}" for key in keys)
    tail = " FOR NO KEY UPDATE OF t" if lock and tx.postgres else ""
    for piece in _pieces(unique):
        listed = _typed(table, keys, len(piece))
        found += tx.run(
            f"WITH w ({', '.join(keys)}) AS {listed} "
            f"SELECT {names} FROM w JOIN {table.name} AS t ON {match} ORDER BY {order}{tail}",
            [value for row in piece for value in row],
        ).fetchall()
    return found
