"""Waiting with an end, at no cost where nothing has to be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")

DISCARDED = 8 * 1024 * 1024  # bytes of a body that nobody wants, and
LINGER = 2.0  # seconds, in which its sender may come to the answer


class _Begun(Generic[T]):
    """A coroutine that was run up to its first wait, to be awaited from there."""

    def __init__(self, work: Coroutine[Any, Any, T], waits: Any) -> None:
        self._work = work
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, T]:
        waits = self._waits
        try:
            while True:
                try:
                    given = yield waits
                except BaseException as error:
                    waits = self._work.throw(error)
                else:
                    waits = self._work.send(given)
        except StopIteration as done:
            result: T = done.value
            return result


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. A timer is only set if `work` has to wait: most bodies of requests
    are there already, and a timer costs as much as reading one.

    Raises:
        TimeoutError: it took longer.
    """
    try:
        waits = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _Begun(work, waits)


async def woken(event: asyncio.Event, seconds: float) -> None:
    """Waits until somebody sets the event, but no longer than that; then it is not set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass  # its time has come all the same
    event.clear()


async def discard(
    receive: Callable[[], Awaitable[Mapping[str, Any]]],
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Takes the rest of a body that is refused, within bounds: a connection that is closed with
    bytes unread is reset, and the refusal may be lost with it. Who waits to be asked for the body
    (`Expect: 100-continue`) has sent none, and asking is what a first read does."""
    if any(name.lower() == b"expect" for name, _ in headers):
        return
    left, more = DISCARDED, True
    try:
        async with asyncio.timeout(LINGER):
            while more and left > 0:
                part = await receive()
                left -= len(part.get("body", b""))
                more = part.get("more_body", False)
    except TimeoutError:
        return


async def cut_off(tasks: set[asyncio.Task[None]], within: float) -> None:
    """Cancels tasks. A send makes an outcome of it, which has a moment to be stored."""
    tasks = {task for task in tasks if not task.done()}
    for _ in range(2):
        for task in tasks:
            task.cancel()
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=within)
