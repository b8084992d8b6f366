"""An event loop without a clock: when nothing is ready, time jumps to the next timer.

The order of what is ready at one moment is shuffled by the seed. Work belongs to the process (the
`owner`) that began it: what is owned by a dead one never runs again, and by a paused one later.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

SHUFFLED = 0.5  # of the turns in which more than one callback is ready
OWNER: contextvars.ContextVar[Owner | None] = contextvars.ContextVar("owner", default=None)
OUTSIDE = contextvars.Context()  # of what no simulated process owns


class Stuck(Exception):
    """Nothing is ready and no timer is set: somebody waits for ever."""


class Owner:
    """A process, as far as the loop knows of it."""

    def __init__(self) -> None:
        self.dead = False
        self.paused = False
        self.put_off: list[asyncio.Handle] = []
        self.context = contextvars.Context()
        self.context.run(OWNER.set, self)


class Task(asyncio.Task[T]):
    """A task whose place in a set does not depend on where it lies in memory."""

    def __init__(self, coro: Coroutine[Any, Any, T], *, number: int, **more: Any) -> None:
        self.number = number
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class Loop(asyncio.AbstractEventLoop):
    """Runs callbacks at virtual times. `steps` counts them."""

    def __init__(self, luck: random.Random) -> None:
        self.steps = 0
        self.expects = 0  # what is on its way outside of every process
        self.failure: BaseException | None = None
        self._luck = luck
        self._now = 0.0
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._number = 0
        self._tasks: list[Task[Any]] = []
        self._running = False

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._now

    def call_soon(
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Runs it in the next turn."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # there are no threads

    def call_at(
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Runs it then."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._number += 1
        heapq.heappush(self._timers, (when, self._number, timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Runs it in so many seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def outside(self, delay: float, callback: Callable[..., Any], *args: Any) -> None:
        """Runs it in so many seconds, whoever has died by then."""
        self.expects += 1
        self.call_at(self._now + delay, self._comes, callback, args, context=OUTSIDE)

    def _comes(self, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.expects -= 1
        callback(*args)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Any,
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **more: Any,
    ) -> Any:
        """A task that belongs to whoever begins it."""
        self._number += 1
        task = Task(coro, number=self._number, loop=self, name=name or "", context=context)
        self._tasks.append(task)
        if len(self._tasks) > 4096:
            self._tasks = [one for one in self._tasks if not one.done()]
        return task

    def get_debug(self) -> bool:
        """No."""
        return False

    def is_running(self) -> bool:
        """Whether `run` is under way."""
        return self._running

    def is_closed(self) -> bool:
        """Never: there is nothing to close."""
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What a callback raised ends the run; what nobody asked for is no fault of a crash."""
        error = context.get("exception")
        if isinstance(error, BaseException) and "never retrieved" not in context["message"]:
            self.failure = self.failure or error

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs until `work` has ended, or a callback has failed."""
        main = self.create_task(work, context=OUTSIDE)
        asyncio._set_running_loop(self)
        self._running = True
        try:
            while not main.done() and self.failure is None:
                self._turn()
        finally:
            self._running = False
            asyncio._set_running_loop(None)
        if self.failure is not None:
            raise self.failure
        result: T = main.result()
        return result

    def _turn(self) -> None:
        timers = self._timers
        if not self._ready:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Stuck
            self._now = max(self._now, timers[0][0])
        while timers and timers[0][0] <= self._now:
            self._ready.append(heapq.heappop(timers)[2])
        ready, self._ready = self._ready, []
        if len(ready) > 1 and self._luck.random() < SHUFFLED:
            self._luck.shuffle(ready)
        for handle in ready:
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)
            if owner is None:
                pass
            elif owner.dead:
                continue
            elif owner.paused:
                owner.put_off.append(handle)
                continue
            self.steps += 1
            handle._run()

    def pause(self, owner: Owner, seconds: float) -> None:
        """Stops a process for a while, as a machine does that swaps, or is moved."""
        if not owner.paused:
            owner.paused = True
            self.outside(seconds, self.resume, owner)

    def resume(self, owner: Owner) -> None:
        """Lets a paused process go on with what it was about to do."""
        owner.paused = False
        self._ready += owner.put_off
        owner.put_off.clear()

    def close(self) -> None:
        """Lets go of what will never run again, in the order it began."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False
                coro = task.get_coro()
                try:
                    coro.close()
                except (RuntimeError, GeneratorExit):
                    continue
        self._tasks.clear()
        self._timers.clear()
        self._ready.clear()
