"""Waiting with an end: what is there already costs no timer, what is not has an end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.patience import discard, within

pytestmark = pytest.mark.anyio


async def test_what_is_there_already_needs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ready() -> str:
        event = asyncio.Event()
        event.set()
        await event.wait()
        return "there"

    def refused(seconds: float) -> Any:
        raise AssertionError("a timer was set")

    monkeypatch.setattr("asyncio.timeout", refused)
    assert await within(5, ready()) == "there"


async def test_what_comes_later_is_waited_for() -> None:
    async def later() -> list[int]:
        parts = []
        for number in range(3):
            await asyncio.sleep(0)
            parts.append(number)
        await asyncio.sleep(0.01)
        return parts

    assert await within(5, later()) == [0, 1, 2]


async def test_what_does_not_come_ends_and_is_cleaned_up() -> None:
    ended: list[str] = []

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned")

    with pytest.raises(TimeoutError):
        await within(0.01, never())
    assert ended == ["cleaned"]


@pytest.mark.parametrize("late", [False, True])
async def test_its_errors_are_passed_on(late: bool) -> None:
    async def fails() -> None:
        if late:
            await asyncio.sleep(0)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await within(5, fails())


async def test_it_is_cancelled_with_the_task_that_waits() -> None:
    begun = asyncio.Event()
    ended: list[str] = []

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    task = asyncio.create_task(within(5, work()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["cancelled"]


async def test_what_catches_an_error_inside_goes_on() -> None:
    async def stubborn() -> str:
        gate = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(gate.set_exception, KeyError("once"))
        try:
            await gate
        except KeyError:
            await asyncio.sleep(0)
        return "went on"

    assert await within(5, stubborn()) == "went on"


async def test_the_rest_of_a_refused_body_is_taken_within_bounds() -> None:
    taken = 0

    async def endless() -> dict[str, object]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 1024 * 1024, "more_body": True}

    await discard(endless)
    assert taken == 8


async def test_who_waits_to_be_asked_for_a_body_is_not_asked() -> None:
    async def asked() -> dict[str, object]:
        raise AssertionError

    await discard(asked, [(b"host", b"x"), (b"Expect", b"100-continue")])


async def test_a_refused_body_that_stops_coming_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.patience.LINGER", 0.01)

    async def stalled() -> dict[str, object]:
        await asyncio.Event().wait()
        return {}

    await discard(stalled)
