"""The live event feed: one reader for a process, any number of followers, each bounded.

Frames of the last moments are kept once, in a ring that all followers share; a follower is only
a cursor. One that falls out of the ring while it is live is cut off, and can resume by number.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from gateway.patience import woken
from gateway.store import feed
from gateway.store.feed import Frame
from gateway.store.reader import Reader
from gateway.store.tx import Tx

log = logging.getLogger("gateway.events")

RING = 10_000  # frames
RING_BYTES = 32 * 1024 * 1024
BATCH = 200  # frames given to a follower at once


class Lagging(Exception):
    """The follower is too slow; it may come back with the last number it saw."""


@dataclass(frozen=True, slots=True)
class Reset:
    """The number asked for is not in the feed: too old, or from before a restore."""

    newest: int


@dataclass(frozen=True, slots=True)
class Opened:
    """Where a follower stands before its first event, so that it can resume from there."""

    cursor: int


Batches = AsyncIterator[list[Frame] | Reset | Opened]


@dataclass(eq=False)
class Hub:
    """Reads the feed as it grows and tells the followers."""

    reader: Reader
    poll: float = 1.0
    _ring: deque[Frame] = field(default_factory=deque)
    _size: int = 0
    _newest: int = 0  # the last number read
    _floor: int = 0  # the ring has everything after this number, up to the newest
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None
    _turns: int = 0  # how often the feed has gone back
    _followers: set[asyncio.Event] = field(default_factory=set)
    # What comes next in the ring, for those of a tenant who stand at the same place: made once.
    _next: dict[tuple[str, int], tuple[list[Frame], int]] = field(default_factory=dict)
    closed: bool = False

    async def start(self) -> None:
        """Begins at the end of the feed."""
        _, newest = await self.reader.call(feed.bounds)
        self._forget(newest)
        self._task = asyncio.create_task(self._run(), name="gateway-feed")

    async def stop(self) -> None:
        """Ends the reader, after the followers."""
        self.end_streams()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def end_streams(self) -> None:
        """Lets every follower end; they can resume elsewhere."""
        self.closed = True
        self._tell()

    def poke(self) -> None:
        """Something was committed."""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await woken(self._wake, self.poll)
            if not self._followers:
                continue  # nobody listens
            try:
                while await self._read():
                    pass
            except Exception:
                log.warning("the feed cannot be read for the moment", exc_info=True)
                await asyncio.sleep(self.poll)

    async def _read(self) -> bool:
        """Reads one page; whether there may be more."""
        frames = await self.reader.call(feed.after, self._newest)
        if not frames:
            return False
        for frame in frames:
            self._ring.append(frame)
            self._size += len(frame.data)
        while len(self._ring) > RING or self._size > RING_BYTES:
            gone = self._ring.popleft()
            self._size -= len(gone.data)
            self._floor = gone.id
        self._newest = frames[-1].id
        self._next.clear()
        self._tell()
        return len(frames) == feed.PAGE

    def _forget(self, newest: int) -> None:
        self._ring.clear()
        self._next.clear()
        self._size, self._newest, self._floor = 0, newest, newest

    def turned(self, newest: int) -> None:
        """The feed has gone back to this number, after a restore: who follows it is cut off, comes
        back and is told."""
        self._turns += 1
        self._forget(newest)
        self._tell()

    def _tell(self) -> None:
        for follower in self._followers:
            follower.set()

    def _since(self, cursor: int) -> list[Frame]:
        """Frames of the ring after a cursor that is before its end.

        Raises:
            Lagging: some of them are not in the ring any more.
        """
        if cursor < self._floor:
            raise Lagging(f"{cursor} is before {self._floor}")
        low, high = 0, len(self._ring)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._ring[middle].id <= cursor else (low, middle)
        return [self._ring[i] for i in range(low, min(low + BATCH, len(self._ring)))]

    def _ahead(self, tenant_id: str, cursor: int) -> tuple[list[Frame], int]:
        """A tenant's frames of the next page of the ring, and where that ends."""
        if cursor >= self._newest:
            return [], cursor
        known = self._next.get((tenant_id, cursor))
        if known is None:
            frames = self._since(cursor)
            mine = [frame for frame in frames if frame.tenant_id == tenant_id]
            known = self._next[tenant_id, cursor] = (mine, frames[-1].id)
        return known

    async def follow(self, tenant_id: str, after: int | None, beat: float = 15.0) -> Batches:
        """The events of a tenant after a number, or from now on, in lists; an empty list when
        nothing happened for `beat` seconds. Ends when the hub does.

        Raises:
            Lagging: the follower is too slow, or the database was restored.
        """
        signal = asyncio.Event()
        first = not self._followers
        self._followers.add(signal)
        try:
            oldest, newest, there = await self._opening(after)
            alone = first and len(self._followers) == 1
            if alone and newest > self._newest:
                self._forget(newest)  # nobody needed what was said since it last read
            cursor = newest if after is None else after
            if cursor > newest or cursor < oldest - 1 or not there:
                yield Reset(newest)
                cursor = newest
            yield Opened(cursor)
            self._wake.set()
            while cursor < self._floor and not self.closed:
                frames, oldest, newest = await self.reader.call(_page, cursor, tenant_id)
                if cursor < oldest - 1:
                    yield Reset(newest)
                    cursor = newest
                    continue
                if frames:
                    yield frames
                cursor = frames[-1].id if len(frames) == feed.PAGE else max(cursor, newest)
            async for frames in self._live(tenant_id, cursor, signal, beat):
                yield frames
        finally:
            self._followers.discard(signal)

    async def _opening(self, after: int | None) -> tuple[int, int, bool]:
        """Where the feed begins and ends. Of an empty one that is asked until it says the same
        again: what was under way while it was asked is there the next time."""
        found = await self.reader.call(feed.opening, after)
        before = None
        while found[0] > found[1] and found != before:
            before, found = found, await self.reader.call(feed.opening, after)
        return found

    async def _live(
        self, tenant_id: str, cursor: int, signal: asyncio.Event, beat: float
    ) -> AsyncIterator[list[Frame]]:
        turns = self._turns
        while not self.closed:
            if turns != self._turns:
                raise Lagging("the database was restored")
            signal.clear()
            frames, reached = self._ahead(tenant_id, cursor)
            if reached > cursor:
                cursor = reached
                if frames:
                    yield frames
                continue
            try:
                async with asyncio.timeout(beat):
                    await signal.wait()
            except TimeoutError:
                yield []


def _page(tx: Tx, cursor: int, tenant_id: str) -> tuple[list[Frame], int, int]:
    """A page of a tenant's events, and the feed's bounds at the same moment."""
    return feed.after(tx, cursor, tenant_id), *feed.bounds(tx)
