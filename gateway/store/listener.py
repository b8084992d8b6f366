"""Wake-ups between processes: LISTEN on PostgreSQL; a poll behind it covers what is missed.

On SQLite there is one serving process; the CLI's writes beside it are found by the poll.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from gateway.store.database import CHANNEL, Database, postgres_arguments

log = logging.getLogger("gateway.store")

ALL = {"events", "queue", "media", "breakers"}
POLL = 1.0  # seconds


class Listener:
    """Hears what other processes committed."""

    def __init__(self, database: Database, on_commit: Callable[[set[str]], None]) -> None:
        self._database = database
        self._on_commit = on_commit
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to listen."""
        run = self._poll if self._database.sqlite else self._listen
        self._task = asyncio.create_task(run(), name="gateway-listener")

    async def stop(self) -> None:
        """Ends listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _poll(self) -> None:
        """Asks SQLite whether another process has written."""
        seen = None
        while True:
            await asyncio.sleep(POLL)
            try:
                version = await asyncio.to_thread(self._data_version)
            except Exception:
                log.warning("cannot look for the writes of other processes", exc_info=True)
                continue
            if version != seen:
                seen = version
                self._on_commit(set(ALL))

    def _data_version(self) -> Any:
        with self._database.read() as tx:
            return tx.run("SELECT MAX(id) FROM events").scalar()

    async def _listen(self) -> None:
        import psycopg

        url = self._database.url.set(drivername="postgresql").render_as_string(hide_password=False)
        told = False  # one line for an outage, not one a second
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    url, autocommit=True, **postgres_arguments()
                )
                async with connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    told = False
                    self._on_commit(set(ALL))  # whatever happened while nobody listened
                    async for note in connection.notifies():
                        self._on_commit(set(note.payload.split(",")))
            except (psycopg.Error, OSError) as error:
                level = logging.DEBUG if told else logging.WARNING
                log.log(level, "cannot listen for the moment: %s", type(error).__name__)
                told = True
                await asyncio.sleep(POLL)
