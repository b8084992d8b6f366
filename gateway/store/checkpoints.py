"""Moves what was committed from SQLite's log into its file, on a thread of its own.

Left to itself SQLite does so in the middle of a commit, and whoever waits for that waits for the
whole of it: on a slow disk, half a second and more. A passive checkpoint holds nobody up ("PRAGMA
wal_checkpoint"); only for its last pages the writer waits, so that the log can begin anew. If this
thread cannot keep up, the writer does it after all, at `AUTOCHECKPOINT`.

A log that is all in the file is never moved once more while somebody may commit: up to 3.51.2
SQLite may lose what is committed in that very moment ("The WAL-Reset Bug").
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

AUTOCHECKPOINT = 32_000  # pages of the log; of 4 KiB
CHANGES = 4000  # rows that were written until the next checkpoint
LATEST = 5.0  # seconds until then, however few they are
REST = 0.1  # seconds at least between two

log = logging.getLogger("gateway.store")


class Checkpoints:
    """The checkpoints of one database file, for one process."""

    def __init__(self, path: Path) -> None:
        self.writing = threading.Lock()
        """Held by the thread that writes, from BEGIN until it has told of its commit."""
        self._path = path
        self._written = threading.Event()
        self._many = threading.Event()
        self._ends = False
        self._changes = 0
        self._commits = 0
        self._moved = 0  # the number of the commit up to which all is in the file
        self._failing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._run, name="gateway-checkpoints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends it; what is left in the log is safe there."""
        self._ends = True
        self._many.set()
        self._written.set()
        if self._thread is not None:
            self._thread.join(LATEST)

    def committed(self, rows: int) -> None:
        """So many rows were committed; called while `writing` is held."""
        if not rows:
            return  # nor was anything written to the log
        self._commits += 1
        self._changes += rows
        self._written.set()
        if self._changes >= CHANGES:
            self._many.set()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while True:
            self._written.wait()
            self._many.wait(LATEST)
            self._written.clear()
            self._many.clear()
            if self._ends:
                break
            self._changes = 0
            try:
                connection = connection or self._opened()
                if not self._move(connection):
                    self._written.set()
                self._failing = False
            except sqlite3.Error as error:  # such as a full disk: the log has it all meanwhile
                level = logging.DEBUG if self._failing else logging.WARNING
                log.log(level, "the log cannot be moved into the database: %s", error)
                self._failing = True
                self._written.set()
            time.sleep(REST)
        if connection is not None:
            connection.close()

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _move(self, connection: sqlite3.Connection) -> bool:
        """Whether all of the log is in the file: not what somebody reads a version before of."""
        seen = self._commits
        if seen == self._moved:
            return True
        whole = _checkpoint(connection)  # there is something to move, so the log does not end
        with self.writing:
            if whole and self._commits != seen:
                whole = _checkpoint(connection)  # what came meanwhile; little, and nothing more
            if whole:
                self._moved = self._commits
        return whole


def _checkpoint(connection: sqlite3.Connection) -> bool:
    busy, pages, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not busy and bool(moved >= pages)
