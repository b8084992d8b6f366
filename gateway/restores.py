"""Notices that the database has gone back in time, and holds what waits in it.

What is known of the database is kept beside the spool, on this machine's own disk, so that a
restored database is found to be older than it was. Looks before anything is sent, and every few
seconds. Holds, and tells; nothing is ever released or deleted here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from gateway.clock import new_id
from gateway.errors import StoreUnavailable
from gateway.rounds import Rounds
from gateway.store.batcher import Batcher
from gateway.store.reader import Reader
from gateway.store.restores import (
    NAME,
    SETTLE,
    SUSPECT,
    TURN,
    Mark,
    Standing,
    Suspect,
    Turn,
    standing,
    went_back,
)

log = logging.getLogger("gateway.restores")

FILE = "database.json"
POLL = 2.0  # seconds


class Memory:
    """What this machine knows of the database, in a file that survives the database's restores."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def read(self) -> Mark | None:
        """What was last written; None: nothing, or nothing that can be read."""
        try:
            return Mark(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            log.warning("%s cannot be read: a restore since then would not be noticed", self.path)
            return None

    def write(self, mark: Mark) -> None:
        """Replaces it, as a whole and durably.

        Raises:
            OSError: it could not be.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self.path.with_suffix(f".{os.getpid()}")
        with draft.open("w") as file:
            json.dump(asdict(mark), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)


class Restores:
    """Looks after one database. `on_turn` is told when the feed has gone back to a number."""

    def __init__(
        self,
        batcher: Batcher,
        reader: Reader,
        folder: Path,
        *,
        on_turn: Callable[[int], None] = lambda newest: None,
        poll: float = POLL,
    ) -> None:
        self._batcher = batcher
        self._reader = reader
        self._memory = Memory(folder)
        self._on_turn = on_turn
        self._known: Mark | None = None
        self._written: Mark | None = None
        self._complained = False
        self._rounds = Rounds("restores", self._turn, poll=poll)
        self.standing: Standing | None = None

    async def start(self) -> None:
        """Looks for the first time, and holds what is to be held; then goes on looking.

        Raises:
            StoreUnavailable, OutcomeUnknown: the database is away.
        """
        self._known = self._written = await asyncio.to_thread(self._memory.read)
        await self._look()
        self._rounds.start()

    async def stop(self) -> None:
        """Looks no more, and keeps what is known by now."""
        await self._rounds.stop()
        try:
            await self._look()
        except Exception as error:
            log.debug("the database cannot be looked at any more: %s", error)

    async def _turn(self) -> bool:
        try:
            await self._look()
        except StoreUnavailable as error:
            log.debug("the database cannot be looked at: %s", error)
        return False

    async def _look(self) -> None:
        now = await seen(self._batcher, self._reader)
        if went_back(self._known, now.mark):
            await self._batcher.submit(TURN, Turn(self._known))
            now = await seen(self._batcher, self._reader)
        if now.holding:
            await hold(self._batcher, now)
            now = await seen(self._batcher, self._reader)
        elif now.restored_at is not None and not now.held:
            await self._batcher.submit(SETTLE, None)
        before, self.standing, self._known = self._known, now, now.mark
        if before is not None and before.name == now.mark.name and before.epoch < now.mark.epoch:
            self._on_turn(now.mark.number)
        await self._keep(now.mark)

    async def _keep(self, mark: Mark) -> None:
        if mark == self._written:
            return
        try:
            await asyncio.to_thread(self._memory.write, mark)
        except OSError as error:
            if not self._complained:
                log.warning("%s cannot be written: %s", self._memory.path, error.strerror)
            self._complained = True
        else:
            self._written, self._complained = mark, False


async def seen(batcher: Batcher, reader: Reader) -> Standing:
    """Where the database stands; one without a name is given one."""
    while True:
        found = await reader.call(standing)
        if found is not None:
            return found
        await batcher.submit(NAME, new_id("db"))


async def hold(batcher: Batcher, now: Standing) -> int:
    """Holds what waited when the database had gone back, and what of it an earlier process had no
    time for; how much that was."""
    assert now.restored_at is not None
    count = 0
    item: Suspect | None = Suspect(now.restored_at)
    while item is not None:
        held = await batcher.submit(SUSPECT, item)
        count, item = count + held.count, held.following
    log.error(
        "the database was restored: %d messages that waited in it are held, as they may have "
        "been sent since. See `gateway queue list`, cancel what has gone out, and let the rest "
        "go with `gateway queue release`",
        count,
    )
    return count


async def by_hand(batcher: Batcher, reader: Reader, folder: Path) -> int:
    """The same because an operator says so, whatever this machine knows; how much was held."""
    await seen(batcher, reader)
    await batcher.submit(TURN, Turn(Memory(folder).read(), sure=True))
    return await hold(batcher, await seen(batcher, reader))
