"""The numbered feed and its followers: nothing is lost, and what cannot be told is said."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from random import Random
from typing import Any

import pytest

from gateway import events
from gateway.events import Hub, Lagging, Opened, Reset
from gateway.store import feed
from gateway.store.database import Database, finish
from gateway.store.feed import Frame
from gateway.store.reader import Reader
from tests.stored import TENANT, Store, keyed, new_message, person, said

pytestmark = pytest.mark.anyio


def tell(database: Database, *kinds: str, tenant: str = TENANT) -> None:
    """Adds events, in one transaction."""
    with database.write() as tx:
        for kind in kinds:
            tx.emit(tenant, kind, change={"said": kind})


def numbered(store: Store) -> list[int]:
    """The numbers of the feed, in order."""
    return [int(row.id) for row in store.rows("SELECT id FROM events ORDER BY id")]


def forget_until(store: Store, number: int) -> None:
    """Takes old events away, as the retention does."""
    store.change("DELETE FROM events WHERE id <= ?", number)


@asynccontextmanager
async def hub_of(store: Store, poll: float = 0.05) -> AsyncIterator[Hub]:
    """A running hub."""
    reader = Reader(store.database)
    hub = Hub(reader, poll)
    await hub.start()
    yield hub
    await hub.stop()
    reader.close()


async def take(stream: Any, count: int) -> list[Frame]:
    """The next frames of a follower."""
    found: list[Frame] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            frames = await anext(stream)
            assert not isinstance(frames, Reset), frames
            found += frames
    return found


@asynccontextmanager
async def following(
    hub: Hub, after: int | None, tenant: str = TENANT, beat: float = 30
) -> AsyncIterator[Any]:
    """A follower that is registered and has been told where it stands."""
    async with aclosing(hub.follow(tenant, after, beat)) as stream:
        first = await anext(stream)
        if after is None:
            assert isinstance(first, Opened)
        else:
            assert first == Opened(after)
        yield stream


def kinds(frames: list[Frame]) -> list[str]:
    """What was said."""
    return [frame.type for frame in frames]


async def test_a_number_is_never_seen_before_a_smaller_one(store: Store, url: str) -> None:
    other, done = Database(url), threading.Event()

    def second() -> None:
        tell(other, "second")
        done.set()

    with store.database.connect() as connection:
        transaction = connection.begin()
        tx = store.database.begun(connection)
        tx.emit(TENANT, "first")
        finish(tx)
        thread = threading.Thread(target=second)
        thread.start()
        if store.database.sqlite:  # its lock is around the whole transaction
            assert not done.wait(0.2)
        else:
            waiting = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while not store.value(waiting):
                assert not done.is_set()
        with store.database.read() as reading:
            assert feed.after(reading, 0) == []
        transaction.commit()
    thread.join(10)
    with store.database.read() as reading:
        frames = feed.after(reading, 0)
    assert kinds(frames) == ["first", "second"]
    assert frames[0].id < frames[1].id
    other.close()


async def test_every_reader_sees_a_beginning_of_the_feed_while_three_write(
    store: Store, url: str
) -> None:
    seen: list[list[int]] = []
    writing = threading.Event()

    def write(me: int) -> None:
        own, random = Database(url), Random(me)
        for _ in range(40):
            tell(own, *("x" for _ in range(random.randrange(1, 6))))
        own.close()

    def read() -> None:
        while not writing.is_set():
            seen.append(numbered(store))

    with ThreadPoolExecutor(4) as pool:
        reader = pool.submit(read)
        for done in [pool.submit(write, me) for me in range(3)]:
            done.result(timeout=60)
        writing.set()
        reader.result()
    end = numbered(store)
    assert len(end) == len(set(end)) > 120
    assert seen
    for ids in seen:
        assert ids == end[: len(ids)]


async def test_a_live_follower_sees_all_that_three_write_in_order(store: Store, url: str) -> None:
    def write(me: int) -> None:
        own = Store(Database(url))
        for n in range(25):
            own.accept_all(new_message(to=person(n % 5)), new_message(to=person(me)))
        own.database.close()

    async with hub_of(store) as hub, following(hub, 0) as stream:
        async with asyncio.timeout(60):
            await asyncio.gather(*(asyncio.to_thread(write, me) for me in range(3)))
        end = numbered(store)
        frames = await take(stream, len(end))
    assert [frame.id for frame in frames] == end
    assert kinds(frames).count("message.queued") == 150


async def test_a_frame_has_what_it_is_about(store: Store) -> None:
    store.receive("k1", said("m1", body="hello"))
    store.settle(store.begun(), "SM1")
    with store.database.read() as tx:
        frames = feed.after(tx, 0)
    data = [json.loads(frame.data) for frame in frames]
    assert [one["type"] for one in data][:2] == ["conversation.created", "message.received"]
    assert [one["id"] for one in data] == [frame.id for frame in frames]
    assert data[1]["data"]["message"]["body"] == "hello"
    assert data[2]["data"]["conversation"]["unread_count"] == 1
    assert [one["data"]["message"]["status"] for one in data[3:]] == [
        "queued",
        "sending",
        "accepted",
    ]
    assert data[0]["created_at"].endswith("Z")


@pytest.mark.parametrize("written", ['{"a": ', '{"a": "\\ud800"}', "7"])
async def test_a_row_that_cannot_be_shown_does_not_stop_the_feed(
    written: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [store.accept(to=person(number)) for number in (1, 2)]
    store.change(
        "UPDATE messages SET content = ?, extra = ? WHERE id = ?", written, written, ids[0]
    )
    tell(store.database, "last")
    async with hub_of(store) as hub, following(hub, 0) as stream:
        frames = await take(stream, 5)
    told = [json.loads(f.data)["data"]["message"]["id"] for f in frames if f.type.startswith("m")]
    assert (told, frames[-1].type) == (ids, "last")
    assert "hi" not in caplog.text


async def test_a_page_has_at_most_as_many_as_it_may_and_is_one_tenants(store: Store) -> None:
    tell(store.database, "a", "b", "c")
    tell(store.database, "x", tenant="other")
    tell(store.database, "d")
    with store.database.read() as tx:
        assert kinds(feed.after(tx, 0, limit=2)) == ["a", "b"]
        first = feed.after(tx, 0)[0].id
        assert kinds(feed.after(tx, first, TENANT)) == ["b", "c", "d"]
        assert kinds(feed.after(tx, 0, "other")) == ["x"]


async def test_bounds_are_known_even_when_nothing_is_kept(store: Store) -> None:
    def bounds() -> tuple[int, int]:
        with store.database.read() as tx:
            return feed.bounds(tx)

    assert bounds() == (1, 0)
    tell(store.database, "a", "b", "c")
    first, *_, last = numbered(store)
    assert bounds() == (first, last)
    forget_until(store, last)
    assert bounds() == (last + 1, last)


async def test_a_follower_resumes_after_its_number(store: Store) -> None:
    tell(store.database, *(f"e{n}" for n in range(1200)))
    ids = numbered(store)
    async with hub_of(store) as hub:
        for place in (0, 1, 500, 1000, 1199):
            async with following(hub, ids[place]) as stream:
                tell(store.database, f"live{place}")
                hub.poke()
                wanted = numbered(store)[place + 1 :]
                frames = await take(stream, len(wanted))
            assert [frame.id for frame in frames] == wanted


async def test_a_follower_without_a_number_begins_now(store: Store) -> None:
    tell(store.database, "old")
    async with hub_of(store) as hub, following(hub, None, beat=0.01) as stream:
        assert await anext(stream) == []
        tell(store.database, "new")
        hub.poke()
        assert kinds(await take(stream, 1)) == ["new"]


async def test_a_follower_that_knows_everything_waits_without_a_reset(store: Store) -> None:
    tell(store.database, "a", "b")
    last = numbered(store)[-1]
    forget_until(store, last)
    async with hub_of(store) as hub:
        for known in (last, None):
            async with following(hub, known, beat=0.01) as stream:
                assert await anext(stream) == []


@pytest.mark.parametrize("known", [0, 1])
async def test_a_number_that_is_no_longer_kept_is_reset(store: Store, known: int) -> None:
    tell(store.database, *"abcdef")
    ids = numbered(store)
    forget_until(store, ids[3])
    async with hub_of(store) as hub:
        async with aclosing(hub.follow(TENANT, ids[known])) as stream:
            assert await anext(stream) == Reset(ids[-1])
            assert await anext(stream) == Opened(ids[-1])
            tell(store.database, "g")
            assert kinds(await take(stream, 1)) == ["g"]
        async with following(hub, ids[3]) as stream:
            assert kinds(await take(stream, 3)) == ["e", "f", "g"]


async def test_a_number_from_before_a_restore_is_reset(store: Store) -> None:
    tell(store.database, "a")
    (newest,) = numbered(store)
    async with hub_of(store) as hub, aclosing(hub.follow(TENANT, newest + 5)) as stream:
        assert await anext(stream) == Reset(newest)


async def test_a_tenant_hears_of_its_own_only(store: Store) -> None:
    async with hub_of(store) as hub, following(hub, 0, "other") as stream:
        tell(store.database, "mine", "mine")
        tell(store.database, "theirs", tenant="other")
        tell(store.database, "mine")
        tell(store.database, "theirs", tenant="other")
        hub.poke()
        frames = await take(stream, 2)
    assert kinds(frames) == ["theirs", "theirs"]
    assert {frame.tenant_id for frame in frames} == {"other"}


@pytest.mark.parametrize("bound", ["RING", "RING_BYTES"])
async def test_a_follower_that_falls_behind_is_cut_off_and_can_resume(
    store: Store, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(events, bound, 30 if bound == "RING" else 3000)
    async with hub_of(store) as hub:
        async with following(hub, 0) as quick, following(hub, 0) as slow:
            tell(store.database, "first")
            seen = (await take(slow, 1))[-1].id
            assert len(await take(quick, 1)) == 1
            for n in range(50):
                tell(store.database, f"e{n}")
                hub.poke()
                await take(quick, 1)
            assert len(hub._ring) <= events.RING
            assert sum(len(frame.data) for frame in hub._ring) == hub._size <= events.RING_BYTES
            with pytest.raises(Lagging):
                await anext(slow)
        async with following(hub, seen) as again:
            assert kinds(await take(again, 50)) == [f"e{n}" for n in range(50)]


async def test_followers_share_frames(store: Store) -> None:
    async with hub_of(store) as hub:
        async with following(hub, 0) as one, following(hub, 0) as two:
            tell(store.database, "a")
            hub.poke()
            (first,), (second,) = await take(one, 1), await take(two, 1)
            assert first is second
        assert not hub._followers


async def test_streams_end_when_the_hub_says_so(store: Store) -> None:
    async with hub_of(store) as hub:
        async with following(hub, 0) as stream:
            waiting = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            hub.end_streams()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(waiting, 5)
        async with following(hub, 0) as late:
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(anext(late), 5)


async def test_a_follower_does_not_miss_what_comes_while_it_arrives(store: Store) -> None:
    async with hub_of(store, poll=30) as hub:
        for n in range(30):
            known = max(numbered(store), default=0)
            async with aclosing(hub.follow(TENANT, known, beat=30)) as stream:
                arriving = asyncio.create_task(anext(stream))
                for _ in range(n % 3):
                    await asyncio.sleep(0)
                await asyncio.to_thread(tell, store.database, f"e{n}")
                hub.poke()
                assert await arriving == Opened(known)
                assert kinds(await take(stream, 1)) == [f"e{n}"]


async def test_a_follower_need_not_wait_for_news_to_hear_what_was_said(store: Store) -> None:
    async with hub_of(store, poll=30) as hub, following(hub, 0) as one:
        tell(store.database, "a", "b")
        async with following(hub, 0) as two:
            assert kinds(await take(two, 2)) == ["a", "b"]
        assert kinds(await take(one, 2)) == ["a", "b"]


class Held(Reader):
    """A reader whose next answer is held back."""

    gate: asyncio.Event | None = None

    async def call(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """Reads, and answers when it may."""
        found = await super().call(query, *args, **kwargs)
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate.wait()
        return found


async def test_a_follower_that_arrives_slowly_takes_nothing_from_a_quicker_one(
    store: Store,
) -> None:
    tell(store.database, "a")
    (first,) = numbered(store)
    reader = Held(store.database)
    hub = Hub(reader, poll=30)
    await hub.start()
    tell(store.database, "b", "c")
    bounds, page = asyncio.Event(), asyncio.Event()
    reader.gate = bounds
    async with aclosing(hub.follow(TENANT, None, 30)) as slow:
        arriving = asyncio.create_task(anext(slow))
        while reader.gate is not None:
            await asyncio.sleep(0)
        async with following(hub, first) as quick:
            reader.gate = page
            taking = asyncio.create_task(take(quick, 2))
            while reader.gate is not None:  # until the hub's own reading is under way
                await asyncio.sleep(0)
            bounds.set()
            assert isinstance(await arriving, Opened)
            page.set()
            assert kinds(await taking) == ["b", "c"]
    await hub.stop()
    reader.close()


async def test_a_reading_transaction_sees_one_moment(store: Store) -> None:
    tell(store.database, "a")
    with store.database.read() as tx:
        before = feed.bounds(tx)
        await asyncio.to_thread(tell, store.database, "b")
        assert feed.bounds(tx) == before
        assert kinds(feed.after(tx, 0)) == ["a"]
    assert len(numbered(store)) == 2


async def test_the_feed_goes_on_after_the_database_was_away(store: Store) -> None:
    async with hub_of(store) as hub, following(hub, 0) as stream:
        store.change("ALTER TABLE events RENAME TO gone")
        hub.poke()
        await asyncio.sleep(0)
        store.change("ALTER TABLE gone RENAME TO events")
        tell(store.database, "after")
        assert kinds(await take(stream, 1)) == ["after"]


async def test_a_replayed_accept_is_not_told_again(store: Store) -> None:
    for _ in range(3):
        store.accept(idempotency=keyed("k"))
    assert len(store.rows("SELECT id FROM events WHERE type = 'message.queued'")) == 1
