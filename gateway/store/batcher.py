"""Group commit: concurrent single calls become one call with a list, and one commit.

One thread per process writes. It drains what waits, without a delay of its own; operations take
turns in the order of their rank, so webhooks and settlements go before accepts and none starves.
Answers are given only after the commit. A commit whose outcome is not known is looked up, by ids
made beforehand, before anybody is told anything.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy.exc import DBAPIError

from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.store.checkpoints import Checkpoints
from gateway.store.database import Database, finish
from gateway.store.failures import brief, definite, settle_errors, unwritten
from gateway.store.tx import Tx, Values

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("gateway.store")

BATCH = 500  # items in one transaction
WAITING = 20_000  # items that may wait, of all operations together
GATHERING = 0.02  # seconds at most, while a busy loop goes on bringing items
PATIENCE = 5.0  # seconds to come back after a lost connection, and to wait for a turn
REPEATS = 20  # of a batch that another process was quicker than
PROOF = "UPDATE alembic_version SET version_num = version_num"  # that something can be written


@dataclass(frozen=True, eq=False)
class Operation(Generic[T, R]):
    """One kind of write. `run` does it for a list of items and gives a result, or an exception,
    for each; `landed` tells from the database whether such a batch was committed."""

    name: str
    rank: int  # lower goes first
    run: Callable[[Tx, Sequence[T]], Sequence[R | Exception]]
    landed: Callable[[Tx, Sequence[T]], bool]
    keeps: bool = True  # whether an item is written though nobody waits for it any more


# An operation, its items, a result for each, the events that were committed, and the seconds.
OnBatch = Callable[
    [Operation[Any, Any], Sequence[Any], Sequence[Any], Sequence[Values], float], None
]


@dataclass(eq=False, slots=True)
class _Waiting:
    item: Any
    future: asyncio.Future[Any]
    since: float


class _UnknownCommit(Exception):
    """The connection was lost while COMMIT was under way."""


class Batcher:
    """The writing thread of a process. `on_commit` hears the topics of each commit, in the loop;
    `on_batch` hears of each batch, in the thread, after those who wait for it were told."""

    def __init__(
        self,
        database: Database,
        on_commit: Callable[[set[str]], None],
        on_batch: OnBatch | None = None,
    ) -> None:
        self.database = database
        self._on_commit = on_commit
        self._on_batch = on_batch
        self._said: list[Values] = []  # the events of the batch that is under way
        self._queues: dict[Operation[Any, Any], deque[_Waiting]] = {}
        self._turns: list[Operation[Any, Any]] = []
        self._count = 0
        self._staged: list[tuple[Operation[Any, Any], _Waiting]] = []
        self._staged_at = 0.0
        path = database.path
        self._checkpoints = Checkpoints(path) if path is not None else None
        self._condition = threading.Condition()
        self.failing = False  # whether the last batch could not be written
        self._taking = True
        self._closing = False
        self._idle = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._running: list[_Waiting] = []
        self._watch: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts the thread; called inside the running loop."""
        self._loop = asyncio.get_running_loop()
        if self._checkpoints is not None:
            self._checkpoints.start()
        self._thread = threading.Thread(target=self._work, name="gateway-store", daemon=True)
        self._thread.start()
        self._watch = self._loop.call_later(0.5, self._look)

    async def stop(self) -> None:
        """Finishes what waits, then ends the thread."""
        self._taking = False
        while self._staged:  # noqa: ASYNC110 - handed over within a few turns of the loop
            await asyncio.sleep(0)
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._watch is not None:
            self._watch.cancel()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, PATIENCE * 3)
        if self._checkpoints is not None:
            await asyncio.to_thread(self._checkpoints.stop)

    def submit(self, operation: Operation[T, R], item: T) -> asyncio.Future[R]:
        """Queues one item; the future ends after its commit.

        Raises, through the future:
            StoreUnavailable: nothing was written.
            OutcomeUnknown: it may have been written; repeating with the same ids is safe.
        """
        assert self._loop is not None
        future: asyncio.Future[R] = self._loop.create_future()
        if not self._taking or self._count + len(self._staged) >= WAITING:
            future.set_exception(StoreUnavailable("the database is not keeping up"))
            return future
        if not self._staged:
            self._staged_at = self._loop.time()
            self._loop.call_soon(self._hand_over, 1)
        self._staged.append((operation, _Waiting(item, future, time.monotonic())))
        return future

    def _hand_over(self, seen: int) -> None:
        """Gives the thread what the loop has brought, once a turn of the loop brings nothing
        more: requests that came together become one commit, and nobody waits for a clock."""
        assert self._loop is not None
        count = len(self._staged)
        late = self._loop.time() - self._staged_at > GATHERING
        if count > seen and count < BATCH and not late:
            self._loop.call_soon(self._hand_over, count)
            return
        with self._condition:
            for operation, waiting in self._staged:
                line = self._queues.get(operation)
                if line is None:
                    line = self._queues[operation] = deque()
                line.append(waiting)
            self._count += count
            self._staged.clear()
            if self._idle:
                self._condition.notify()

    def _next(self) -> tuple[Operation[Any, Any], list[_Waiting]] | None:
        with self._condition:
            while not self._count:
                if self._closing:
                    return None
                self._idle = True
                self._condition.wait()
                self._idle = False
            while True:
                if not self._turns:
                    self._turns = sorted(self._queues, key=lambda o: o.rank)
                operation = self._turns.pop(0)
                line = self._queues[operation]
                if line:
                    break
            taken = [line.popleft() for _ in range(min(BATCH, len(line)))]
            self._count -= len(taken)
            keeps = operation.keeps
            self._running = [w for w in taken if keeps or not w.future.cancelled()]
            return operation, self._running

    def _work(self) -> None:
        while (turn := self._next()) is not None:
            operation, batch = turn
            if not batch:
                continue
            results: Sequence[Any]
            items = [w.item for w in batch]
            started = time.monotonic()
            try:
                results, topics = self.write(operation, items)
                self.failing = False
            except Exception as error:
                if not isinstance(error, (StoreUnavailable, OutcomeUnknown)):
                    log.exception("a batch of %s failed", operation.name)
                results, topics = [error] * len(batch), set()
                self.failing = isinstance(error, (StoreUnavailable, OutcomeUnknown))
            self._running = []
            took = time.monotonic() - started
            self._tell(batch, results, topics)
            self._count_batch(operation, items, results, took)

    def _count_batch(
        self,
        operation: Operation[Any, Any],
        items: Sequence[Any],
        results: Sequence[Any],
        seconds: float,
    ) -> None:
        said, self._said = self._said, []
        if self._on_batch is None:
            return
        try:
            self._on_batch(operation, items, results, said, seconds)
        except Exception:
            log.exception("a batch of %s was not counted", operation.name)

    def _tell(self, batch: list[_Waiting], results: Sequence[Any], topics: set[str]) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(self._resolve, batch, results, topics)
        except RuntimeError:  # the loop ended between the question and the call
            log.warning("%d results came after the end of the loop", len(batch))

    def _resolve(self, batch: list[_Waiting], results: Sequence[Any], topics: set[str]) -> None:
        for waiting, result in zip(batch, results, strict=True):
            if waiting.future.done():
                continue
            if isinstance(result, Exception):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(result)
        if topics:
            self._on_commit(topics)

    def _look(self) -> None:
        """Fails what has waited too long, so that no caller waits for ever."""
        assert self._loop is not None
        now = time.monotonic()
        with self._condition:
            for line in self._queues.values():
                while line and now - line[0].since > PATIENCE:
                    late = line.popleft()
                    self._count -= 1
                    _fail(late, StoreUnavailable("the database did not answer in time"))
        for waiting in list(self._running):
            if now - waiting.since > PATIENCE * 2:
                _fail(waiting, OutcomeUnknown("the database did not answer in time"))
        self._watch = self._loop.call_later(0.5, self._look)

    def write(
        self, operation: Operation[T, R], items: Sequence[T]
    ) -> tuple[Sequence[R | Exception], set[str]]:
        """Runs a batch to its end, in the calling thread: repeated whole where that is safe,
        item by item after a data error, looked up after an unknown commit."""
        deadline = time.monotonic() + PATIENCE
        repeats = lost = 0
        told: set[str] = set()  # of commits that may have come through
        while True:
            try:
                done = self._once(operation, items)
                return done[0], done[1] | told
            except _UnknownCommit as unknown:
                told |= unknown.args[1]
                if self._landed(operation, items):
                    return unknown.args[0], told
                # Ids were made before the batch and every insert ignores what is there already, so
                # to repeat it is safe even if the lost COMMIT is still under way on the server.
                lost += 1
                if lost > 1:  # such as a disk that takes no COMMIT
                    self._pause(deadline, unknown)
            except Exception as error:
                kind = settle_errors(error)
                if kind == "again" and repeats < REPEATS:
                    repeats += 1
                    time.sleep(0.002 * repeats if repeats > 1 else 0)
                elif kind == "item" and len(items) > 1:
                    one_by_one = self._one_by_one(operation, items)
                    return one_by_one[0], one_by_one[1] | told
                elif kind == "item":
                    return [error], told
                elif kind == "again":
                    raise unwritten(error, lost) from error
                else:
                    self._pause(deadline, error, lost)

    def _pause(self, deadline: float, error: Exception, lost: int = 1) -> None:
        """Waits before another try at a database that is away.

        Raises:
            StoreUnavailable, OutcomeUnknown: it has been away for too long.
        """
        if time.monotonic() > deadline:
            raise unwritten(error, lost) from error
        self.database.forget()
        time.sleep(0.1)

    def _once(
        self, operation: Operation[T, R], items: Sequence[T]
    ) -> tuple[Sequence[R | Exception], set[str]]:
        if self._checkpoints is None:
            return self._committed(operation, items)
        with self._checkpoints.writing:
            return self._committed(operation, items, self._checkpoints.committed)

    def _committed(
        self,
        operation: Operation[T, R],
        items: Sequence[T],
        tell: Callable[[int], None] | None = None,
    ) -> tuple[Sequence[R | Exception], set[str]]:
        """Runs a batch in a transaction. `tell` hears how many rows it has changed."""
        with self.database.connect() as connection:
            transaction = connection.begin()
            try:
                tx = self.database.begun(connection)
                before = tx.changes if tell is not None else 0
                results = operation.run(tx, items)
                if self.failing:  # a claim of nothing succeeds on a full disk, too
                    tx.run(PROOF)
                finish(tx)
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except DBAPIError as error:
                if not definite(error):
                    connection.invalidate()
                    raise _UnknownCommit(results, tx.topics) from error
                raise
            if tell is not None:
                tell(tx.changes - before)
            self._said += tx.events
            self.database.committed(tx)
            return results, tx.topics

    def _landed(self, operation: Operation[T, R], items: Sequence[T]) -> bool:
        """Whether a batch is there whose COMMIT nobody answered.

        Raises:
            OutcomeUnknown: it could not be learned.
        """
        log.warning("the outcome of a commit of %s is unknown; looking it up", operation.name)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                self.database.forget()
                with self.database.write() as tx:
                    return operation.landed(tx, items)
            except Exception as error:
                log.warning("still away: %s", brief(error))
                time.sleep(0.1)
        raise OutcomeUnknown("whether it was committed could not be learned in time")

    def _one_by_one(
        self, operation: Operation[T, R], items: Sequence[T]
    ) -> tuple[Sequence[R | Exception], set[str]]:
        results: list[R | Exception] = []
        topics: set[str] = set()
        for item in items:
            try:
                done = self.write(operation, [item])
                results.extend(done[0])
                topics |= done[1]
            except (StoreUnavailable, OutcomeUnknown) as error:
                results.append(error)
        return results, topics


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.future.done():
        waiting.future.set_exception(error)
