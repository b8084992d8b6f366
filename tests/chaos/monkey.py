"""The monkey of a universe: kills, pauses, stops and starts processes, sends the database away, and
asks of messages what operators ask."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any, Protocol

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.store.edits import CANCEL, RESCHEDULE, Moved, Named
from gateway.store.holds import HOLD, Hold
from tests.chaos.engine import Engine, Lost
from tests.chaos.loop import Loop
from tests.chaos.storage import Storage
from tests.chaos.vendors import TENANT
from tests.chaos.writing import Weather

AWAY = (Lost, StoreUnavailable, OutcomeUnknown, TimeoutError)


class World(Protocol):
    """What a monkey can lay its hands on."""

    luck: random.Random
    loop: Loop
    storage: Storage
    weather: Weather
    events: Counter[str]
    sent: list[str]
    several: bool

    def note(self, what: str, *more: object) -> None:
        """One line of the trace."""
        ...

    def ready(self) -> list[Engine]:
        """The processes that answer."""
        ...

    async def start(self) -> Engine:
        """Starts a process."""
        ...


class Monkey:
    """Plays until it is stopped."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def plays(self) -> None:
        """Kills, pauses, stops and starts processes; cancels, moves and holds messages."""
        deeds = (
            self._crash, self._crash, self._pause, self._stop, self._second,
            self._cancel, self._cancel, self._move, self._hold, self._storm,
        )  # fmt: skip
        while True:
            await asyncio.sleep(self.world.luck.expovariate(1.6))
            await self.world.luck.choice(deeds)()

    async def _crash(self) -> None:
        ready = self.world.ready()
        if not ready:
            return
        engine = self.world.luck.choice(ready)
        engine.dies()
        self.world.note("crash")
        if not self.world.ready():
            await asyncio.sleep(self.world.luck.choice((0.0, 0.1, 3.0, 20.0)))
            await self.world.start()

    async def _pause(self) -> None:
        ready = [engine for engine in self.world.ready() if not engine.paused]
        if ready:
            engine = self.world.luck.choice(ready)
            seconds = self.world.luck.choice((0.2, 3.0, 9.0, 30.0))
            self.world.note("pause", seconds)
            self.world.loop.pause(engine, seconds)

    async def _stop(self) -> None:
        ready = [engine for engine in self.world.ready() if not engine.paused]
        if not ready:
            return
        engine = self.world.luck.choice(ready)
        self.world.note("stop")
        try:
            async with asyncio.timeout(30):
                await engine.ask(engine.stops())
        except AWAY:
            pass
        engine.dies()
        if not self.world.ready():
            await self.world.start()

    async def _second(self) -> None:
        if self.world.several and len(self.world.ready()) < 2:
            await self.world.start()

    async def _storm(self) -> None:
        """The database is mostly away for a while."""
        before, self.world.weather.often = self.world.weather.often, 0.6
        self.world.note("storm")
        await asyncio.sleep(self.world.luck.choice((0.5, 4.0, 12.0)))
        self.world.weather.often = before

    async def _cancel(self) -> None:
        if self.world.sent:
            id_ = self.world.luck.choice(self.world.sent)
            await self._try(CANCEL, Named(TENANT, id_))
            self.world.note("cancel", id_)

    async def _move(self) -> None:
        if self.world.sent:
            id_, by = (
                self.world.luck.choice(self.world.sent),
                self.world.luck.choice((0, 5_000, 60_000)),
            )
            await self._try(RESCHEDULE, Moved(TENANT, id_, self.world.storage.now() + by))
            self.world.note("move", id_, by)

    async def _hold(self) -> None:
        if self.world.sent:
            id_ = self.world.luck.choice(self.world.sent)
            await self._try(HOLD, Hold(((TENANT, id_),)))
            self.world.note("hold", id_)

    async def _try(self, operation: Any, item: Any) -> None:
        ready = self.world.ready()
        if ready:
            engine = self.world.luck.choice(ready)
            try:
                await engine.ask(engine.does(operation, item))
            except AWAY:
                self.world.events["not done"] += 1
