"""The spool: verified webhooks survive here while the database is away.

They are on the disk before the vendor hears a 2xx; webhooks that come together share one wait for
it. It keeps the order in which they came, and holds no signature and no key. What becomes of them
is decided elsewhere: see `Intake` and `Drain`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence, Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from gateway._spool_files import Files, Recovered, State
from gateway._spool_frames import EPOCH, LONGEST, MICROSECOND, frame
from gateway.domain import Verified
from gateway.errors import SettingsError, StoreUnavailable

T = TypeVar("T")

log = logging.getLogger("gateway.spool")

SEGMENT = 4 * 1024 * 1024  # bytes of one file


class Spool:
    """Keeps at most `most` bytes of webhooks in `folder`.

    Counters, of this process: `appended`, `drained`, `refused` (answered 503), `torn` (tails that
    were cut off), `damaged` (pieces that could not be read; their files are kept).
    """

    def __init__(self, folder: Path, most: int, *, segment: int = SEGMENT) -> None:
        _check(folder)
        self._most = most
        self._files = Files(folder, min(segment, most))
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gateway-spool")
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._pending = self._pending_bytes = 0  # accepted here, not on the disk yet
        self._flushing: asyncio.Task[None] | None = None
        self._state = State(0, 0, None)
        self._left = 0  # webhooks of an earlier process that are still to be stored
        self._leaving = 0  # the oldest, which are on their way into the database
        self._open = self._full = False
        self.failing = False  # whether the disk did not take what was last written
        self.filled = asyncio.Event()
        self.appended = self.drained = self.refused = self.torn = self.damaged = 0

    @property
    def depth(self) -> int:
        """How many webhooks wait."""
        return self._state.frames + self._pending

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return self._state.size + self._pending_bytes

    @property
    def busy(self) -> bool:
        """Whether a webhook that comes now has to wait behind others. Not behind those that are
        on their way: the database's own line keeps them before it."""
        return self.depth > self._leaving

    @property
    def recovering(self) -> bool:
        """Whether something of an earlier process is still to be stored."""
        return self._left > 0

    def age(self, now: datetime) -> float | None:
        """For how many seconds the oldest has waited."""
        if self._state.oldest is None:
            return None
        waited = (now - EPOCH - self._state.oldest * MICROSECOND).total_seconds()
        return max(0.0, round(waited, 1))

    async def start(self) -> None:
        """Finds what earlier processes left, and takes room on the disk."""
        await self.prepare()

    def _count(self, recovered: Recovered) -> None:
        self.torn += recovered.torn
        self.damaged += recovered.damaged
        self._left = self._state.frames
        if self._left:
            log.warning("the spool holds %d webhooks of an earlier process", self._left)
            self.filled.set()

    async def stop(self) -> None:
        """Ends after what is being written."""
        if self._flushing is not None:
            await self._flushing
        await self._run(self._files.close)
        self._pool.shutdown()

    async def prepare(self) -> None:
        """Takes room on the disk for what comes next; `failing` tells whether there is some."""
        try:
            if not self._open:
                recovered = await self._run(self._files.open)
                self._open = True
                self._count(recovered)
            await self._run(self._files.prepare)
        except Exception as error:
            self._failed(error)
        else:
            self._worked()

    def append(self, verified: Verified, kept: AbstractSet[str]) -> asyncio.Future[None]:
        """Keeps a webhook with those of its headers that may be kept; the future ends when it
        is on the disk.

        Raises, through the future:
            StoreUnavailable: it is not kept.
        """
        data = frame(verified, kept)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.size + len(data) > min(self._most, LONGEST):
            self._refuse(future)
            return future
        self._full = False
        self._waiting.append((data, future))
        self._pending += 1
        self._pending_bytes += len(data)
        self.filled.set()
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush(), name="gateway-spool")
        return future

    def _refuse(self, future: asyncio.Future[None]) -> None:
        self.refused += 1
        if not self._full:
            log.error(
                "the spool is full (SPOOL_MAX_BYTES=%d): webhooks are answered 503", self._most
            )
        self._full = True
        future.set_exception(StoreUnavailable("the spool is full"))

    async def _flush(self) -> None:
        """Writes what waits; what comes meanwhile waits for the next turn, together."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                done, error = await self._run(self._files.append, [data for data, _ in batch])
            except Exception:
                log.exception("the spool failed")
                done, error = 0, OSError("see above")
            self._pending -= len(batch)
            self._pending_bytes -= sum(len(data) for data, _ in batch)
            self.appended += done
            self.refused += len(batch) - done
            self._answer(batch[:done], None)
            if error is not None:
                self._failed(error)
                self._answer(batch[done:], StoreUnavailable("the spool cannot be written"))
            else:
                await self.prepare()
        self._flushing = None

    def _answer(
        self, batch: Sequence[tuple[bytes, asyncio.Future[None]]], error: Exception | None
    ) -> None:
        for _, future in batch:
            if future.done():  # nobody waits for it any more
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    async def oldest(self, most: int) -> Sequence[Verified | None]:
        """The oldest webhooks that are on the disk; None where one cannot be read any more."""
        read = await self._run(self._files.oldest, most)
        self.damaged += sum(one is None for one in read)
        return read

    def on_their_way(self, count: int) -> None:
        """So many of the oldest were handed to the database just now; 0: they came back."""
        self._leaving = count

    async def forget(self, count: int) -> None:
        """Drops the oldest webhooks, which are stored."""
        await self._run(self._files.forget, count)
        self._leaving = 0
        self.drained += count
        self._left = max(0, self._left - count)
        if not self.depth:
            self.filled.clear()

    async def keep(self, position: int) -> None:
        """One of the oldest can neither be stored nor be dropped: its file is kept aside."""
        self.damaged += 1
        await self._run(self._files.keep, position)

    async def _run(self, work: Callable[..., T], *values: object) -> T:
        """Works on the files, in their own thread, and notes what waits in them then."""

        def both() -> tuple[T, State]:
            return work(*values), self._files.state

        done, self._state = await asyncio.get_running_loop().run_in_executor(self._pool, both)
        return done

    def _failed(self, error: Exception) -> None:
        if not self.failing:
            log.error("the spool cannot be written: %s", getattr(error, "strerror", None) or error)
        self.failing = True

    def _worked(self) -> None:
        if self.failing:
            log.warning("the spool can be written again")
        self.failing = False


def _check(folder: Path) -> None:
    """Makes the folder where it is missing, for its owner only.

    Raises:
        SettingsError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingsError(f"SPOOL_DIR {folder} cannot be made: {error.strerror}.") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError(
            f"SPOOL_DIR {folder} cannot be written: give it to this user, or name another."
        )
