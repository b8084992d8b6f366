"""Work in rounds: at once while there is some, when poked, and again after a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from gateway.errors import StoreUnavailable
from gateway.rounds import Rounds

pytestmark = pytest.mark.anyio
FAR = 3600.0


class Turns:
    """Answers of a turn, in order; after the last one there is nothing more to do."""

    def __init__(self, *answers: bool | Exception) -> None:
        self._answers: Iterator[bool | Exception] = iter(answers)
        self.made = 0
        self._changed = asyncio.Event()

    async def turn(self) -> bool:
        self.made += 1
        self._changed.set()
        answer = next(self._answers, False)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def reach(self, number: int) -> None:
        async with asyncio.timeout(10):
            while self.made < number:
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def started(turns: Turns, poll: float) -> AsyncIterator[Rounds]:
    rounds = Rounds("testing", turns.turn, poll=poll)
    rounds.start()
    try:
        yield rounds
    finally:
        await rounds.stop()


async def test_it_goes_on_at_once_while_there_is_more() -> None:
    turns = Turns(True, True, False)
    async with started(turns, FAR):
        await turns.reach(3)
        await asyncio.sleep(0)
    assert turns.made == 3


async def test_a_poke_wakes_it_long_before_its_time() -> None:
    turns = Turns(False, False)
    async with started(turns, FAR) as rounds:
        await turns.reach(1)
        rounds.poke()
        await turns.reach(2)


async def test_it_looks_again_without_a_poke() -> None:
    turns = Turns()
    async with started(turns, 0.01):
        await turns.reach(3)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ValueError("a defect")])
async def test_what_fails_is_tried_again(error: Exception) -> None:
    turns = Turns(error, False)
    async with started(turns, 0.01):
        await turns.reach(2)


async def test_one_that_never_began_can_be_stopped() -> None:
    await Rounds("testing", Turns().turn, poll=FAR).stop()
