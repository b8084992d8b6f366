"""Where a verified webhook goes: into the database, or into the spool while that is away.

The database has two seconds. Then everything that waits for it moves to the spool, in the order in
which it came, and what comes later lines up behind. Both may end up holding the same request, which
is harmless: the inbox knows it by its key.
"""

from __future__ import annotations

import asyncio

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.spool import Spool
from gateway.store.batcher import Batcher
from gateway.store.inbox import KEPT_HEADERS, RECEIVE, Delivery, Taken

PATIENCE = 2.0  # seconds that a webhook waits for the database

Stored = asyncio.Future[Taken]


class Intake:
    """Takes deliveries; what it has taken is durable."""

    def __init__(self, batcher: Batcher, spool: Spool) -> None:
        self._batcher = batcher
        self._spool = spool
        self._waiting: dict[Stored, tuple[Delivery, float]] = {}  # since when, oldest first
        self._moved: dict[Stored, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def take(self, delivery: Delivery) -> Taken | None:
        """Stores a delivery; None if it was spooled and is stored later.

        Raises:
            StoreUnavailable: neither could be done; the vendor should repeat.
        """
        if self._spool.busy or self._batcher.failing:
            self._give_up()
            try:
                await self._spooled(delivery)
            except StoreUnavailable:
                if self._batcher.failing:
                    raise
            else:
                return None
        return await self._stored(delivery)

    def _spooled(self, delivery: Delivery) -> asyncio.Future[None]:
        return self._spool.append(delivery.verified, KEPT_HEADERS | delivery.kept_headers)

    async def _stored(self, delivery: Delivery) -> Taken | None:
        stored = self._batcher.submit(RECEIVE, delivery)
        self._wait_for(stored, delivery)
        try:
            return await stored
        except (StoreUnavailable, OutcomeUnknown):
            self._give_up()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if stored not in self._moved or (task is not None and task.cancelling()):
                self._moved.pop(stored, None)
                raise
        finally:
            self._waiting.pop(stored, None)
        await self._moved.pop(stored)
        return None

    def _wait_for(self, stored: Stored, delivery: Delivery) -> None:
        loop = asyncio.get_running_loop()
        self._waiting[stored] = (delivery, loop.time())
        if self._timer is None:
            self._timer = loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        """Ends the patience of all once that of the oldest has ended."""
        self._timer = None
        since = next((since for _, since in self._waiting.values()), None)
        if since is None:
            return
        loop = asyncio.get_running_loop()
        left = since + PATIENCE - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._look)
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Moves whatever is not stored to the spool, in the order in which it came."""
        waiting, self._waiting = self._waiting, {}
        for stored, (delivery, _) in waiting.items():
            if _movable(stored):
                self._moved[stored] = self._spooled(delivery)
                stored.cancel()


def _movable(stored: Stored) -> bool:
    """Whether it is not stored for a reason that passes, and somebody waits for it."""
    if not stored.done():
        return True
    if stored.cancelled():
        return False
    return isinstance(stored.exception(), (StoreUnavailable, OutcomeUnknown))
