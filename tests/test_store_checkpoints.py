"""What was committed reaches SQLite's file beside the writer, and nobody waits for it."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.store import checkpoints
from gateway.store.accepts import ACCEPT
from gateway.store.batcher import Batcher
from gateway.store.database import Database
from gateway.store.edits import CANCEL, Named
from tests.stored import TENANT, new_message, person

pytestmark = pytest.mark.anyio


def in_the_file(url: str, said: str) -> bool:
    """Whether a text stands in the file itself. Another process looks: whoever opens and closes
    the file in this one takes SQLite's locks away from it ("How To Corrupt", section 2.2)."""
    found = subprocess.run(
        ["grep", "-q", "-a", said, url.removeprefix("sqlite:///")], check=False, timeout=30
    )
    return found.returncode == 0


def log_size(url: str) -> int:
    """How long the log is, in bytes."""
    return Path(f"{url.removeprefix('sqlite:///')}-wal").stat().st_size


async def until_in_the_file(url: str, said: str) -> None:
    """Waits for that."""
    async with asyncio.timeout(60):
        while not in_the_file(url, said):
            await asyncio.sleep(0.02)


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[tuple[Database, Batcher]]:
    """A database with a writer at work."""
    database = Database(url)
    batcher = Batcher(database, lambda topics: None)
    batcher.start()
    yield database, batcher
    await batcher.stop()
    database.close()


async def test_what_is_committed_is_in_the_file_before_anything_is_closed(sqlite_url: str) -> None:
    async with writing(sqlite_url) as (database, batcher):
        new = [new_message(to=person(n), body="many") for n in range(checkpoints.CHANGES)]
        new.append(new_message(body="the last of them"))
        await asyncio.gather(*(batcher.submit(ACCEPT, one) for one in new))
        await until_in_the_file(sqlite_url, "the last of them")
        with database.write() as tx:  # the writer itself does so only much later
            assert tx.run("PRAGMA wal_autocheckpoint").scalar() == checkpoints.AUTOCHECKPOINT


async def test_a_log_that_is_all_in_the_file_is_left_alone(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To move it once more could lose what is committed in that moment."""
    monkeypatch.setattr(checkpoints, "LATEST", 0.01)
    monkeypatch.setattr(checkpoints, "REST", 0.0)
    asked: list[str] = []
    opened = sqlite3.connect

    def listening(*given: Any, **more: Any) -> sqlite3.Connection:
        made = opened(*given, **more)
        made.set_trace_callback(asked.append)
        return made

    monkeypatch.setattr(checkpoints.sqlite3, "connect", listening)
    async with writing(sqlite_url) as (_, batcher):
        for number in range(5):
            await batcher.submit(ACCEPT, new_message(to=person(number), body=f"alone {number}"))
            await until_in_the_file(sqlite_url, f"alone {number}")
            await asyncio.sleep(0.05)
            passes = sum("wal_checkpoint" in one for one in asked)
            for _ in range(3):  # which change nothing
                await batcher.submit(CANCEL, Named(TENANT, "msg_none"))
            await asyncio.sleep(0.1)
            assert sum("wal_checkpoint" in one for one in asked) == passes
    assert passes >= 5


async def test_a_few_rows_are_moved_too_after_a_while(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LATEST", 0.2)
    async with writing(sqlite_url) as (_, batcher):
        await batcher.submit(ACCEPT, new_message(body="alone"))
        await until_in_the_file(sqlite_url, "alone")
        assert in_the_file(sqlite_url, "alone")


async def test_what_a_reader_holds_up_is_moved_after_it(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LATEST", 0.05)
    async with writing(sqlite_url) as (database, batcher):
        await batcher.submit(ACCEPT, new_message(body="before"))
        with database.read() as tx:
            assert tx.run("SELECT count(*) FROM messages").scalar() == 1
            await batcher.submit(ACCEPT, new_message(to=person(2), body="beside"))
            await asyncio.sleep(0.5)
            assert not in_the_file(sqlite_url, "beside")
        await until_in_the_file(sqlite_url, "beside")


async def test_the_log_is_written_over_and_does_not_grow_for_ever(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer's own checkpoints are out of reach here."""
    monkeypatch.setattr(checkpoints, "REST", 0.0)
    monkeypatch.setattr(checkpoints, "CHANGES", 1)
    sizes = []
    async with writing(sqlite_url) as (_, batcher):
        for turn in range(40):
            new = (new_message(to=person(turn * 50 + n)) for n in range(50))
            await asyncio.gather(*(batcher.submit(ACCEPT, one) for one in new))
            sizes.append(log_size(sqlite_url))
            await asyncio.sleep(0.02)  # nobody writes for a moment
    assert sizes[-1] < sum(sizes[:3]) * 4


def test_the_thread_ends_at_once_also_when_nothing_was_written(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    made = checkpoints.Checkpoints(tmp_path / "none.db")
    made.start()
    assert {one.name for one in set(threading.enumerate()) - before} == {"gateway-checkpoints"}
    began = time.monotonic()
    made.stop()
    assert time.monotonic() - began < checkpoints.LATEST
    assert not set(threading.enumerate()) - before
    assert not (tmp_path / "none.db").exists()
