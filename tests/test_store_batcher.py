"""Group commit: concurrent single calls become one transaction, and each gets its own answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway.errors import StoreUnavailable
from gateway.store import batcher as batching
from gateway.store.accepts import ACCEPT
from gateway.store.batcher import Batcher, Operation
from gateway.store.database import Again, Database
from gateway.store.inbox import RECEIVE
from gateway.store.tx import Tx
from tests.databases import Wire
from tests.stored import Store, delivery, keyed, new_message, person, said

pytestmark = pytest.mark.anyio


@dataclass
class Heard:
    """What was committed, and which batches were run."""

    topics: list[set[str]] = field(default_factory=list)
    batches: list[tuple[str, int]] = field(default_factory=list)


@asynccontextmanager
async def running(database: Database, heard: Heard | None = None) -> AsyncIterator[Batcher]:
    """A batcher at work."""
    batcher = Batcher(database, heard.topics.append if heard else lambda topics: None)
    batcher.start()
    yield batcher
    await batcher.stop()


class Gate:
    """An operation that holds the writing thread until it is opened."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.operation: Operation[int, int] = Operation("gate", 0, self._run, lambda t, i: False)

    def _run(self, tx: Tx, items: Sequence[int]) -> Sequence[int | Exception]:
        self.entered.set()
        assert self.open.wait(30)
        return list(items)


async def held(batcher: Batcher) -> tuple[Gate, asyncio.Future[int]]:
    """Holds the thread, so that what is submitted next waits together."""
    gate = Gate()
    future = batcher.submit(gate.operation, 1)
    await asyncio.to_thread(gate.entered.wait)
    return gate, future


def listed(name: str, rank: int, heard: Heard) -> Operation[int, int]:
    """An operation that says when it ran."""

    def run(tx: Tx, items: Sequence[int]) -> Sequence[int | Exception]:
        heard.batches.append((name, len(items)))
        return [item * 2 for item in items]

    return Operation(name, rank, run, lambda tx, items: False)


async def test_an_answer_comes_only_after_the_commit(store: Store) -> None:
    heard = Heard()
    async with running(store.database, heard) as batcher:
        answer = await batcher.submit(ACCEPT, new_message())
        assert store.message(str(answer.view["id"]))["status"] == "queued"
    assert heard.topics == [{"events", "queue"}]


async def test_what_waits_together_is_committed_together(store: Store) -> None:
    heard = Heard()
    async with running(store.database, heard) as batcher:
        gate, first = await held(batcher)
        items = [new_message(to=person(n)) for n in range(200)]
        futures = [batcher.submit(ACCEPT, item) for item in items]
        gate.open.set()
        answers = await asyncio.gather(*futures)
        await first
    assert [a.view["id"] for a in answers] == [item.row["id"] for item in items]
    assert len(heard.topics) == 1
    assert store.count("messages") == 200


async def test_a_batch_is_bounded(store: Store) -> None:
    heard = Heard()
    operation = listed("many", 50, heard)
    async with running(store.database) as batcher:
        gate, _ = await held(batcher)
        futures = [batcher.submit(operation, n) for n in range(batching.BATCH + 7)]
        gate.open.set()
        assert await asyncio.gather(*futures) == [n * 2 for n in range(batching.BATCH + 7)]
    assert heard.batches == [("many", batching.BATCH), ("many", 7)]


async def test_operations_take_turns_by_rank_and_none_starves(store: Store) -> None:
    heard = Heard()
    low, high = listed("accept", 40, heard), listed("settle", 20, heard)
    async with running(store.database) as batcher:
        gate, _ = await held(batcher)
        for n in range(batching.BATCH * 2):
            batcher.submit(low, n)
        futures = [batcher.submit(high, n) for n in range(batching.BATCH * 2)]
        gate.open.set()
        await asyncio.gather(*futures, batcher.submit(low, 1))
    assert [name for name, _ in heard.batches][:4] == ["settle", "accept", "settle", "accept"]


async def test_one_poisonous_item_fails_alone_among_many_callers(store: Store) -> None:
    async with running(store.database) as batcher:
        gate, _ = await held(batcher)
        futures = []
        for n in range(20):
            item = new_message(to=person(n))
            if n == 7:
                item.row["body"] = None
            futures.append(batcher.submit(ACCEPT, item))
        gate.open.set()
        results = await asyncio.gather(*futures, return_exceptions=True)
    assert [n for n, r in enumerate(results) if isinstance(r, BaseException)] == [7]
    assert not isinstance(results[7], StoreUnavailable)
    assert store.count("messages") == store.count("queue") == 19


async def test_webhooks_and_accepts_of_many_callers_all_get_their_answers(store: Store) -> None:
    async with running(store.database) as batcher:
        accepts = [
            batcher.submit(ACCEPT, new_message(to=person(n % 3), idempotency=keyed(f"{n % 50}")))
            for n in range(100)
        ]
        webhooks = [
            batcher.submit(RECEIVE, delivery(f"k{n % 40}", said(f"m{n % 40}"))) for n in range(80)
        ]
        accepted, taken = await asyncio.gather(*accepts), await asyncio.gather(*webhooks)
    assert sum(not a.replayed for a in accepted) == 50
    assert sum(t.new for t in taken) == 40
    assert store.count("messages") == 90


async def test_stopping_finishes_what_waits_and_takes_no_more(store: Store) -> None:
    batcher = Batcher(store.database, lambda topics: None)
    batcher.start()
    gate, _ = await held(batcher)
    futures = [batcher.submit(ACCEPT, new_message(to=person(n))) for n in range(30)]
    stopping = asyncio.create_task(batcher.stop())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await batcher.submit(ACCEPT, new_message())
    gate.open.set()
    await stopping
    assert len(await asyncio.gather(*futures)) == 30
    assert store.count("messages") == 30


async def test_what_waits_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "WAITING", 10)
    async with running(store.database) as batcher:
        gate, _ = await held(batcher)
        futures = [batcher.submit(ACCEPT, new_message()) for _ in range(12)]
        late = [f for f in futures if f.done()]
        assert late == futures[10:]
        for future in late:
            assert isinstance(future.exception(), StoreUnavailable)
        gate.open.set()
        assert len(await asyncio.gather(*futures[:10])) == 10
        await batcher.submit(ACCEPT, new_message())


async def test_nobody_waits_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "PATIENCE", 0.1)
    async with running(store.database) as batcher:
        gate, first = await held(batcher)
        waiting = batcher.submit(ACCEPT, new_message())
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(waiting, 5)
        with pytest.raises(batching.OutcomeUnknown):
            await asyncio.wait_for(first, 5)
        gate.open.set()
        monkeypatch.undo()
        await batcher.submit(ACCEPT, new_message())
    assert store.count("messages") == 1


async def test_a_caller_that_went_away_does_not_disturb_the_others(store: Store) -> None:
    async with running(store.database) as batcher:
        gate, _ = await held(batcher)
        gone, stays = (batcher.submit(ACCEPT, new_message()) for _ in range(2))
        gone.cancel()
        gate.open.set()
        assert (await stays).view["status"] == "queued"
    assert store.count("messages") == 2


async def test_a_batch_that_another_process_overtook_is_repeated_whole(store: Store) -> None:
    tries: list[int] = []

    def run(tx: Tx, items: Sequence[int]) -> Sequence[int | Exception]:
        tries.append(len(items))
        tx.emit("default", "once")
        if len(tries) < 4:
            raise Again
        return list(items)

    results, _ = store.batcher.write(Operation("again", 1, run, lambda t, i: False), [1, 2])
    assert (results, tries) == ([1, 2], [2, 2, 2, 2])
    assert store.count("events") == 1


async def test_a_batch_that_is_always_overtaken_is_given_up(store: Store) -> None:
    def run(tx: Tx, items: Sequence[int]) -> Sequence[int | Exception]:
        raise Again

    with pytest.raises(StoreUnavailable):
        store.batcher.write(Operation("never", 1, run, lambda t, i: False), [1])


async def test_an_error_of_ours_is_given_to_the_caller_and_undone(store: Store) -> None:
    def run(tx: Tx, items: Sequence[int]) -> Sequence[int | Exception]:
        tx.emit("default", "undone")
        if 3 in items:
            raise ZeroDivisionError
        return list(items)

    results, _ = store.batcher.write(Operation("odd", 1, run, lambda t, i: False), [1, 3, 5])
    assert isinstance(results[1], ZeroDivisionError)
    assert [results[0], results[2]] == [1, 5]
    assert store.count("events") == 2


async def test_the_database_away_is_an_answer_in_bounded_time_and_it_comes_back(
    postgres_url: str, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PATIENCE", 0.4)
    database = Database(wire.url(postgres_url))
    async with running(database) as batcher:
        await batcher.submit(ACCEPT, new_message())
        wire.go_down()
        started = time.monotonic()
        futures = [batcher.submit(ACCEPT, new_message()) for _ in range(5)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert {type(result) for result in results} == {StoreUnavailable}
        assert time.monotonic() - started < 5
        wire.come_back()
        await batcher.submit(ACCEPT, new_message())
    assert Store(database).count("messages") == 2
    database.close()


async def test_a_locked_sqlite_file_is_waited_for(sqlite_url: str) -> None:
    store, other = Store(Database(sqlite_url)), Database(sqlite_url)
    async with running(store.database) as batcher:
        with other.connect() as connection:
            transaction = connection.begin()
            future = batcher.submit(ACCEPT, new_message())
            await asyncio.to_thread(time.sleep, 0.1)
            assert not future.done()
            transaction.rollback()
        await future
    assert store.count("messages") == 1
    for database in (store.database, other):
        database.close()


async def test_a_database_that_only_reads_for_a_moment_is_waited_for(postgres_url: str) -> None:
    store, turns = Store(Database(postgres_url)), []

    def run(tx: Tx, items: Sequence[str]) -> Sequence[str | Exception]:
        turns.append(len(items))
        if len(turns) < 4:  # as a standby answers until it is promoted
            tx.run("SET TRANSACTION READ ONLY")
        for item in items:
            tx.run("UPDATE messages SET body = body WHERE id = ?", (item,))
        return list(items)

    touch: Operation[str, str] = Operation("touch", 0, run, lambda tx, items: False)
    async with running(store.database) as batcher:
        futures = [batcher.submit(touch, f"msg_{n}") for n in range(3)]
        assert await asyncio.gather(*futures) == ["msg_0", "msg_1", "msg_2"]
        assert batcher.failing is False
    assert turns == [3, 3, 3, 3]
    store.database.close()
