"""The group commit and the reading of one simulated process: no threads, and a database that fails
at its worst moments.

Decides as `Batcher` and `Reader` do, and in their words: what is repeated, looked up, refused. Runs
the product's own operations.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.store.batcher import BATCH, PATIENCE, REPEATS, Operation
from gateway.store.database import finish
from gateway.store.failures import settle_errors
from gateway.store.tx import Tx
from tests.chaos.loop import Loop, Owner
from tests.chaos.storage import Storage, Violation, broken

Any_ = Operation[Any, Any]
Results = tuple[Sequence[Any], set[str]]
LOOK = 0.5  # seconds between looks at what waits too long


class Fault(StrEnum):
    """What goes wrong with one batch."""

    AWAY = "error before commit"
    LONG_AWAY = "database away for long"
    SLOW = "long delay"
    AGAIN = "serialisation failure"
    ITEM = "data error in a batch"
    LOST_DONE = "commit lost, done"
    LOST_UNDONE = "commit lost, not done"
    LOST_EARLY = "commit lost, done after the look"
    UNKNOWN_DONE = "commit unknown, done"
    UNKNOWN_UNDONE = "commit unknown, not done"
    STALL = "process stalls after a commit"


COMMITTED = frozenset(
    {None, Fault.LOST_DONE, Fault.LOST_EARLY, Fault.UNKNOWN_DONE, Fault.SLOW, Fault.STALL}
)
LOST = frozenset({Fault.LOST_DONE, Fault.LOST_UNDONE, Fault.LOST_EARLY})
UNKNOWN = frozenset({Fault.UNKNOWN_DONE, Fault.UNKNOWN_UNDONE})
WEIGHTS = {
    Fault.AWAY: 6, Fault.LONG_AWAY: 1, Fault.SLOW: 1, Fault.AGAIN: 6, Fault.ITEM: 4,
    Fault.LOST_DONE: 5, Fault.LOST_UNDONE: 5, Fault.LOST_EARLY: 3,
    Fault.UNKNOWN_DONE: 2, Fault.UNKNOWN_UNDONE: 2, Fault.STALL: 4,
}  # fmt: skip


class Watching(Protocol):
    """Who checks what is written."""

    def about_to_commit(self, tx: Tx, operation: Any_, items: Sequence[Any]) -> None:
        """Looks at what a transaction is about to commit."""
        ...

    def committed(self, tx: Tx, operation: Any_, items: Sequence[Any]) -> None:
        """Takes note of what was committed."""
        ...


@dataclass
class Weather:
    """How often the database fails, for all processes."""

    luck: random.Random
    often: float
    weights: Mapping[Fault, int] = field(default_factory=lambda: WEIGHTS)
    faults: Counter[str] = field(default_factory=Counter)

    def draw(self) -> Fault | None:
        """What goes wrong with the next batch, if anything."""
        if not self.often or self.luck.random() >= self.often:
            return None
        fault = self.luck.choices(list(self.weights), list(self.weights.values()))[0]
        self.faults[fault.value] += 1
        return fault


@dataclass(eq=False, slots=True)
class _Waiting:
    item: Any
    future: asyncio.Future[Any]
    since: float


class Writer:
    """Stands in for `Batcher`."""

    def __init__(
        self,
        loop: Loop,
        owner: Owner,
        storage: Storage,
        weather: Weather,
        watching: Watching,
        on_commit: Callable[[set[str]], None],
    ) -> None:
        self.database = storage
        self.failing = False
        self.commits = 0
        self._loop, self._owner, self._weather, self._watching = loop, owner, weather, watching
        self._luck = weather.luck
        self._on_commit = on_commit
        self._queues: dict[Any_, deque[_Waiting]] = {}
        self._turns: list[Any_] = []
        self._count = 0
        self._idle: asyncio.Future[None] | None = None
        self._running: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to write."""
        self._task = self._loop.create_task(self._work())

    async def stop(self) -> None:
        """Finishes what waits, then writes no more."""
        while self._count or self._running:
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()

    def submit(self, operation: Any_, item: Any) -> asyncio.Future[Any]:
        """As `Batcher.submit`."""
        future = self._loop.create_future()
        if self._owner.dead:
            return future
        line = self._queues.get(operation)
        if line is None:
            line = self._queues[operation] = deque()
        line.append(_Waiting(item, future, self._loop.time()))
        self._count += 1
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        return future

    async def _work(self) -> None:
        while True:
            if not self._count:
                self._idle = self._loop.create_future()
                await self._idle
            # A commit takes a moment, in which the next batch gathers.
            await asyncio.sleep(self._luck.choice((0.0, 0.002, 0.005, 0.02)))
            if self._count:
                await self._batch(self._next())

    def _next(self) -> Any_:
        if self._luck.random() < 0.1:
            return self._luck.choice([o for o, line in self._queues.items() if line])
        while True:
            if not self._turns:
                self._turns = sorted(self._queues, key=lambda o: (o.rank, o.name))
            operation = self._turns.pop(0)
            if self._queues[operation]:
                return operation

    async def _batch(self, operation: Any_) -> None:
        line, most = self._queues[operation], BATCH
        if self._luck.random() < 0.1:
            most = self._luck.randint(1, 3)
        taken = [line.popleft() for _ in range(min(most, len(line)))]
        self._count -= len(taken)
        self._running = [w for w in taken if operation.keeps or not w.future.cancelled()]
        batch = self._running
        if not batch:
            return
        fault = self._weather.draw()
        if fault is Fault.SLOW:
            await self._pause(self._luck.uniform(1, 14))
        results: Sequence[Any]
        try:
            results, topics = await self._write(operation, [w.item for w in batch], fault)
            self.failing = False
        except (StoreUnavailable, OutcomeUnknown) as error:
            results, topics = [error] * len(batch), set()
            self.failing = True
        self._running = []
        if fault is Fault.STALL:
            self._loop.pause(self._owner, self._luck.choice((0.5, 5.0, 14.0, 30.0)))
        for waiting, result in zip(batch, results, strict=True):
            if waiting.future.done():
                continue
            if isinstance(result, Exception):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(result)
        if topics:
            self._on_commit(topics)

    async def _pause(self, seconds: float) -> None:
        while seconds > 0:
            await asyncio.sleep(min(seconds, LOOK))
            seconds -= LOOK
            self._look()

    def _look(self) -> None:
        now = self._loop.time()
        for line in self._queues.values():
            while line and now - line[0].since > PATIENCE:
                self._count -= 1
                _fail(line.popleft(), StoreUnavailable("the database did not answer in time"))
        for waiting in self._running:
            if now - waiting.since > PATIENCE * 2:
                _fail(waiting, OutcomeUnknown("the database did not answer in time"))

    async def _write(self, operation: Any_, items: Sequence[Any], fault: Fault | None) -> Results:
        deadline, repeats = self._loop.time() + PATIENCE, 0
        while True:
            if fault is Fault.ITEM and len(items) > 1:
                self._try(operation, items, keep=False)
                return await self._one_by_one(operation, items)
            if fault in (Fault.AWAY, Fault.LONG_AWAY, Fault.AGAIN, Fault.ITEM):
                self._try(operation, items, keep=False)
                if self._loop.time() > deadline:
                    raise StoreUnavailable("the database cannot be written")
                await self._pause(0.002 if fault is Fault.AGAIN else 0.1)
                fault = fault if fault is Fault.LONG_AWAY else None
                continue
            try:
                done = self._try(operation, items, keep=fault in COMMITTED)
            except Violation:
                raise
            except Exception as error:
                kind = settle_errors(error)
                if kind == "again" and repeats < REPEATS:
                    repeats += 1
                    continue
                if kind == "item" and len(items) > 1:
                    return await self._one_by_one(operation, items)
                if kind == "item":
                    return [error], set()
                raise
            if fault in LOST or fault in UNKNOWN:
                return await self._look_up(operation, items, done, fault)
            return done

    async def _look_up(
        self, operation: Any_, items: Sequence[Any], done: Results, fault: Fault | None
    ) -> Results:
        if fault in UNKNOWN:
            await self._pause(PATIENCE)
            raise OutcomeUnknown("whether it was committed could not be learned in time")
        await self._pause(self._luck.choice((0.0, 0.1, 0.5)))
        tx = self.database.begin()
        try:
            landed = operation.landed(tx, items)
        finally:
            self.database.rollback()
        if landed and fault is not Fault.LOST_EARLY:
            return done
        results, more = await self._write(operation, items, None)
        return results, done[1] | more

    async def _one_by_one(self, operation: Any_, items: Sequence[Any]) -> Results:
        results: list[Any] = []
        topics: set[str] = set()
        for item in items:
            try:
                done = await self._write(operation, [item], None)
                results.extend(done[0])
                topics |= done[1]
            except (StoreUnavailable, OutcomeUnknown) as error:
                results.append(error)
        return results, topics

    def _try(self, operation: Any_, items: Sequence[Any], *, keep: bool) -> Results:
        """One transaction, without a turn of the loop."""
        tx = self.database.begin()
        try:
            results = operation.run(tx, items)
            finish(tx)
            if keep:
                self._watching.about_to_commit(tx, operation, items)
        except BaseException as error:
            self.database.rollback()
            violation = broken(error)
            if violation is not None:
                self._loop.failure = violation
                raise violation from None
            raise
        if not keep:
            self.database.rollback()
            return results, tx.topics
        self.database.commit()
        self.commits += 1
        self._watching.committed(tx, operation, items)
        return results, tx.topics


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)


class Reading:
    """Stands in for `Reader`."""

    def __init__(self, storage: Storage, weather: Weather) -> None:
        self.database = storage
        self._weather = weather

    async def call(self, query: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As `Reader.call`."""
        luck, often = self._weather.luck, self._weather.often
        if often and luck.random() < often:
            await asyncio.sleep(luck.uniform(0, 3))
            if luck.random() < 0.3:
                raise StoreUnavailable("the database cannot be read")
        tx = self.database.begin()
        try:
            return query(tx, *args, **kwargs)
        finally:
            self.database.rollback()

    def close(self) -> None:
        """There are no threads to end."""
