"""Work that is done in rounds beside everything else: at once while there is some, else when
somebody says that there may be, and from time to time in any case."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.patience import woken

log = logging.getLogger("gateway.rounds")


class Rounds:
    """Calls `turn` again and again; it says whether there may be more to do at once. What fails is
    logged, and tried again after `poll` seconds."""

    def __init__(self, name: str, turn: Callable[[], Awaitable[bool]], *, poll: float) -> None:
        self.name = name
        self._turn = turn
        self._poll = poll
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._run(), name=f"gateway-{self.name}")

    async def stop(self) -> None:
        """Ends, in the middle of a turn if need be: what is not stored is done again later."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def poke(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                if not await self._turn():
                    await woken(self._wake, self._poll)
            except (StoreUnavailable, OutcomeUnknown) as error:
                log.warning("%s: the database is away: %s", self.name, error)
                await asyncio.sleep(self._poll)
            except Exception:
                log.exception("%s failed", self.name)
                await asyncio.sleep(self._poll)
