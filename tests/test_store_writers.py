"""Several writers at once: nothing is lost, nothing is doubled, nobody waits for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from random import Random
from threading import Barrier
from typing import Any

from gateway.domain import Receipt, Status
from gateway.store.accepts import ACCEPT
from gateway.store.database import Database
from gateway.store.deliveries import SETTLE, Outcome
from gateway.store.inbox import RECEIVE
from tests.databases import Postgres
from tests.stored import Store, delivery, keyed, new_message, person, said, update

WRITERS, BATCHES, SIZE, PEOPLE = 3, 12, 40, 25


def write_batches(
    url: str, seed: int, ready: Any = None, batches: int = BATCHES
) -> tuple[int, int]:
    """One writer: accepts and receives for the same people as the others, in random order."""
    store, random = Store(Database(url)), Random(seed)
    if ready is not None:
        ready.wait()
    for batch in range(batches):
        people = [person(random.randrange(PEOPLE)) for _ in range(SIZE)]
        done, _ = store.batcher.write(ACCEPT, [new_message(to=to) for to in people])
        heard = [
            delivery(f"{seed}-{batch}-{n}", said(f"{seed}-{batch}-{n}", from_address=whom))
            for n, whom in enumerate(random.sample(people, SIZE))
        ]
        more, _ = store.batcher.write(RECEIVE, heard)
        assert not [r for r in (*done, *more) if isinstance(r, Exception)], done
    store.database.close()
    return batches * SIZE, batches * SIZE


def counted(store: Store) -> None:
    """Checks that all of it is there, once, and fits together."""
    each = WRITERS * BATCHES * SIZE
    assert store.count("queue") == store.count("inbox") == each
    assert store.count("messages") == 2 * each
    assert store.count("conversations") == PEOPLE
    assert store.value("SELECT SUM(unread_count) FROM conversations") == each
    events = store.rows("SELECT type, COUNT(*) AS n FROM events GROUP BY type")
    counts = {row.type: row.n for row in events}
    assert counts["message.queued"] == counts["message.received"] == each
    assert counts["conversation.created"] == PEOPLE


def test_three_threads_that_write_to_the_same_people_lose_nothing(store: Store, url: str) -> None:
    ready = Barrier(WRITERS)
    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(write_batches, url, n, ready) for n in range(WRITERS)]:
            assert done.result(timeout=60)
    counted(store)


def test_writers_wait_for_each_other_and_do_not_deadlock(
    postgres: Postgres, postgres_url: str
) -> None:
    before, ready = postgres.deadlocks(), Barrier(WRITERS)
    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(write_batches, postgres_url, n, ready, 24) for n in range(3)]:
            done.result(timeout=60)
    assert postgres.deadlocks() == before


def test_three_processes_that_write_to_the_same_people_lose_nothing(store: Store, url: str) -> None:
    with get_context("spawn").Pool(WRITERS) as pool:
        done = pool.starmap(write_batches, [(url, n) for n in range(WRITERS)])
    assert len(done) == WRITERS
    counted(store)


def settle_some(url: str, ids: list[str], ready: Barrier) -> None:
    """Claims and settles until nothing is due, while callbacks come for the same messages."""
    store = Store(Database(url))
    ready.wait()
    while got := store.claim(limit=9):
        begun = [store.begin(due) for due in got]
        outcomes = [
            Outcome(a, receipt=Receipt(provider_message_id=f"SM-{a.due.message_id}"))
            for a in begun
            if a is not None
        ]
        store.do(SETTLE, *outcomes)
    store.database.close()


def call_back(url: str, ids: list[str], ready: Barrier) -> None:
    """Says `delivered` of every message, whether it was sent already or not."""
    store, random = Store(Database(url)), Random(5)
    ready.wait()
    said_of = [
        delivery(
            f"cb-{id_}",
            update(Status.DELIVERED, provider_message_id=f"SM-{id_}", recipient=None),
        )
        for id_ in random.sample(ids, len(ids))
    ]
    for start in range(0, len(said_of), 7):
        store.do(RECEIVE, *said_of[start : start + 7])
    store.database.close()


def test_callbacks_that_race_with_their_settlements_are_all_applied(store: Store, url: str) -> None:
    ids = store.accept_all(*(new_message(to=person(n)) for n in range(150)))
    ready = Barrier(4)
    runs = (settle_some, settle_some, call_back)
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(run, url, ids, ready) for run in runs]
        ready.wait()
        for one in done:
            one.result(timeout=60)
    settle_some(url, ids, Barrier(1))
    store.sweep()
    assert {store.status(id_) for id_ in ids} == {"delivered"}
    assert store.count("attempts") == store.count("receipts") == len(ids)
    assert set(store.verdicts()) == {"applied"}


def race_for_a_key(url: str, keys: int, me: int) -> list[tuple[str, bool]]:
    """Accepts one message under each key; the ids and whether they were another's."""
    store = Store(Database(url))
    done = []
    for number in range(keys):
        item = new_message(to=person(me), idempotency=keyed(f"k{number}"))
        (answer,) = store.accepted(item)
        done.append((str(answer.view["id"]), answer.replayed))
    store.database.close()
    return done


def test_two_processes_with_the_same_keys_make_one_message_each(store: Store, url: str) -> None:
    keys = 60
    with get_context("spawn").Pool(2) as pool:
        one, two = pool.starmap(race_for_a_key, [(url, keys, n) for n in range(2)])
    for (first, replayed), (second, also) in zip(one, two, strict=True):
        assert first == second
        assert replayed is not also
    assert store.count("messages") == store.count("queue") == keys


def test_two_threads_with_the_same_keys_in_their_batches_agree(store: Store, url: str) -> None:
    ready = Barrier(2)

    def race(me: int) -> list[str]:
        own, answers = Store(Database(url)), []
        for batch in range(15):
            order = Random(me * 100 + batch).sample(range(20), 20)
            items = {
                n: new_message(to=person(me), idempotency=keyed(f"{batch}-{n}")) for n in order
            }
            ready.wait()
            done = dict(zip(items, own.accepted(*items.values()), strict=True))
            answers += [str(done[n].view["id"]) for n in range(20)]
        own.database.close()
        return answers

    with ThreadPoolExecutor(2) as pool:
        one, two = [f.result(timeout=60) for f in [pool.submit(race, me) for me in range(2)]]
    assert one == two
    assert store.count("messages") == store.count("queue") == 300
