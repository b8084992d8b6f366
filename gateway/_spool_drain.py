"""The way out of the spool: what waits there goes into the database, as it would have at first.

In order, in batches, dropped only after the commit. A crash between the two repeats a batch, which
changes nothing. What cannot be stored by itself is kept raw, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.inbound import Inbound
from gateway.spool import Spool
from gateway.store.batcher import Batcher
from gateway.store.inbox import RECEIVE, Delivery, Taken

log = logging.getLogger("gateway.spool")

BATCH = 100
LARGE = 8 * 1024 * 1024  # bytes of a batch
SOON, LATE = 0.5, 5.0  # seconds between two tries at a database that is away
AWAY = (StoreUnavailable, OutcomeUnknown)


def _bounded(batch: Iterable[Delivery | None]) -> Iterator[Delivery | None]:
    """The first of them, as much as the database takes at once: emails may be large."""
    size = 0
    for number, one in enumerate(batch):
        size += 0 if one is None else len(one.verified.request.body)
        if number and size > LARGE:
            return
        yield one


class Drain:
    """Runs beside the requests."""

    def __init__(self, spool: Spool, batcher: Batcher, inbound: Inbound) -> None:
        self._spool = spool
        self._batcher = batcher
        self._inbound = inbound
        self._held: list[Delivery | None] = []  # read, and not known to be stored
        self._flowing = False  # whether the last batch was stored
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts it; called inside the running loop."""
        self._task = asyncio.create_task(self._run(), name="gateway-drain")

    async def stop(self) -> None:
        """Ends it; what it was at is done again at the next start."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        pause = SOON
        while True:
            if not self._spool.depth:
                await self._idle()
            try:
                done = await self._batch()
            except Exception:
                log.exception("the spool cannot be drained for the moment")
                done = False
                self._spool.on_their_way(0)
            self._flowing = done
            if done:
                pause = SOON
            else:
                await asyncio.sleep(pause)
                pause = min(pause * 2, LATE)

    async def _idle(self) -> None:
        """Waits until something is spooled; until then it looks after a disk that is full."""
        self._flowing = False
        self._spool.filled.clear()
        while not self._spool.filled.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LATE if self._spool.failing else None):
                    await self._spool.filled.wait()
            if self._spool.failing:
                await self._spool.prepare()
        if self._spool.depth:
            log.warning("the database is away: webhooks are spooled")
        await asyncio.sleep(SOON)

    async def _batch(self) -> bool:
        """Stores the oldest webhooks; false if the database is still away."""
        if not self._held:
            read = await self._spool.oldest(BATCH)
            held = (None if one is None else self._inbound.spooled(one) for one in read)
            self._held = list(_bounded(held))
        if not self._held or not await self._store(self._held):
            return False
        count, self._held = len(self._held), []
        await self._spool.forget(count)
        if not self._spool.depth:
            log.warning("the spool is empty again: %d webhooks so far", self._spool.drained)
        return True

    async def _store(self, batch: Sequence[Delivery | None]) -> bool:
        whole = [one for one in batch if one is not None]
        futures = [self._batcher.submit(RECEIVE, one) for one in whole]
        if self._flowing:  # else nobody should wait behind what may only be a try
            self._spool.on_their_way(len(batch))
        results = await asyncio.gather(*futures, return_exceptions=True)
        done = not any(isinstance(result, AWAY) for result in results)
        if done:
            for delivery, result in zip(whole, results, strict=True):
                done = done and await self._settled(batch.index(delivery), delivery, result)
        if not done:
            self._spool.on_their_way(0)
        return done

    async def _settled(
        self, position: int, delivery: Delivery, result: Taken | BaseException
    ) -> bool:
        """Ends one; false if the database went away meanwhile."""
        if isinstance(result, Taken):
            self._inbound.taken(delivery, result)
            return True
        try:
            if not await self._raw(delivery, result):
                await self._spool.keep(position)
        except AWAY:
            return False
        return True

    async def _raw(self, delivery: Delivery, error: BaseException) -> bool:
        """Stores a webhook without what it says, which cannot be stored."""
        verified = delivery.verified
        log.error("a webhook of %s is kept raw: %s", verified.webhook, type(error).__name__)
        raw = replace(
            delivery,
            events=(),
            state="malformed",
            detail=f"what it says cannot be stored: {type(error).__name__}",
        )
        try:
            await self._batcher.submit(RECEIVE, raw)
        except AWAY:
            raise
        except Exception:
            log.exception("a webhook of %s cannot be stored", verified.webhook)
            return False
        return True
