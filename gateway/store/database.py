"""The engine of both databases, transactions, and statements over many rows at once.

Everything that SQLite and PostgreSQL do differently is named here; the rest of the store is one
code path. A transaction collects what it has to say in the feed and says it last.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from gateway.routing import Retry
from gateway.store import tables
from gateway.store.checkpoints import AUTOCHECKPOINT
from gateway.store.rows import insert
from gateway.store.tx import Tx

FEED_LOCK = 0x6D736777  # PostgreSQL's advisory lock around the feed's numbers
MIGRATION_LOCK = FEED_LOCK + 1
CHANNEL = "gateway"  # of LISTEN and NOTIFY
TIMEOUT = 5  # seconds, of everything that waits for the database
ASK_AFTER = 1.0  # seconds that a connection rests until it is asked whether it is still there
SEEN = 10_000  # tenants' providers that are remembered
STARTING = 60  # seconds that a start waits for others that start


class Again(Exception):
    """Another process was quicker; the whole batch is to be repeated and will see it."""


class Database:
    """Connections to one database. `write` gives one transaction at a time on SQLite."""

    def __init__(self, url: str, *, readers: int = 4, retry: Retry | None = None) -> None:
        self.url = make_url(url)
        self._retry = retry or Retry()
        self.dialect = self.url.get_backend_name()
        if self.dialect not in ("sqlite", "postgresql"):
            raise ValueError("DATABASE_URL must be a SQLite or a PostgreSQL URL")
        self._forgotten = 0  # how often
        self._seen: dict[tuple[str, str], int] = {}  # written by the thread that commits
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
        engine = self._pooled(size, **postgres)
        event.listen(engine, "connect", self._known)
        event.listen(engine, "checkout", self._current)
        event.listen(engine, "checkin", _rests)
        return engine

    def _known(self, _: Any, entry: ConnectionPoolEntry) -> None:
        entry.info["forgotten"] = self._forgotten
        _rests(None, entry)

    def _current(self, connection: Any, entry: ConnectionPoolEntry, _: Any) -> None:
        """Has a connection that was forgotten closed and replaced, when it is wanted again: to
        close it at once could only be done to those that nobody uses at the moment."""
        if entry.info.get("forgotten") != self._forgotten:
            raise DisconnectionError
        rested = time.monotonic() - entry.info["rests"]
        if not self.sqlite and rested > ASK_AFTER and not self._answers(connection):
            raise DisconnectionError

    def _answers(self, connection: Any) -> bool:
        """Whether the server still has a connection that nobody used for a while. One that was
        used a moment ago is not asked: that would cost a round trip each time."""
        dialect = self._writer.dialect
        try:
            return bool(dialect.do_ping(connection))
        except dialect.loaded_dbapi.Error:
            return False

    def _pooled(self, size: int, **postgres: Any) -> Engine:
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
    def migrate(self) -> Iterator[Tx]:
        """A transaction that writes, and waits longer for whoever migrates at the same moment."""
        with self._writer.connect() as connection:
            raw = connection.connection.driver_connection
            if self.sqlite and raw is not None:
                raw.execute(f"PRAGMA busy_timeout={STARTING * 1000}")
            try:
                with connection.begin():
                    tx = self._tx(connection)
                    if tx.postgres:
                        tx.run("SET LOCAL statement_timeout = 0")
                        tx.run("SET LOCAL lock_timeout = 0")
                        tx.run("SELECT pg_advisory_xact_lock(?)", (MIGRATION_LOCK,))
                    yield tx
                    finish(tx)
            finally:
                connection.invalidate()  # so that nobody else has its patience

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
        tx = Tx(connection, self.dialect, 0, retry=self._retry, seen=self._seen)
        with tx.together():  # PostgreSQL's BEGIN goes with it
            now = tx.run(NOW[self.dialect])
        tx.now = int(now.scalar())
        return tx

    def committed(self, tx: Tx) -> None:
        """Remembers what need not be written again for a while."""
        if len(self._seen) > SEEN:
            self._seen.clear()
        self._seen.update(dict.fromkeys(tx.noted, tx.now))

    def forget(self) -> None:
        """Uses no connection again that there is now, after the database was away."""
        self._forgotten += 1

    def close(self) -> None:
        """Closes every connection."""
        self._writer.dispose()
        self._reader.dispose()


def _rests(_: Any, entry: ConnectionPoolEntry) -> None:
    entry.info["rests"] = time.monotonic()


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
        # Each statement takes a few rows by their keys: to compile it takes longer than to run it.
        "options": f"-c jit=off -c random_page_cost=1.1 "
        f"-c statement_timeout={bound} -c lock_timeout={bound} "
        f"-c idle_in_transaction_session_timeout={bound * 4} -c timezone=UTC",
    }


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun by us, not guessed by the driver
    connection.execute(f"PRAGMA busy_timeout={TIMEOUT * 1000}")
    _write_ahead(connection)
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        "temp_store=MEMORY",
        "cache_size=-32768",
        f"wal_autocheckpoint={AUTOCHECKPOINT}",
        "journal_size_limit=67108864",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: Any) -> None:
    """Changing a new file's journal takes the file for oneself. Of several that try at the same
    moment all but one are refused, at once: no time-out waits for that ("The busy handler is not
    always invoked", `sqlite3_busy_handler`)."""
    until = time.monotonic() + STARTING
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)


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
        tx.topics.add("events")
    elif not tx.topics:
        return
    with tx.together():
        if tx.events:
            if tx.postgres:
                tx.run("SELECT pg_advisory_xact_lock(?)", (FEED_LOCK,))
            insert(tx, tables.events, tx.events)
        if tx.postgres:
            tx.run("SELECT pg_notify(?, ?)", (CHANNEL, ",".join(sorted(tx.topics))))
