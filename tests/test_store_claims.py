"""Claims: leases, lanes, the order within a conversation, and what is due when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from gateway.clock import new_id
from gateway.store import queries
from gateway.store.claims import CLAIM, Claim
from gateway.store.database import Database
from tests.stored import HOUR, TENANT, Store, future, new_message, person


def test_a_message_is_leased_once(store: Store) -> None:
    id_ = store.accept()
    (due,) = store.claim()
    assert due.message_id == id_
    assert store.claim() == []
    entry = store.queued(id_)
    assert entry is not None
    assert (entry["lease_token"], entry["claims"]) == (due.token, 1)


def test_a_claim_carries_what_a_send_needs(store: Store) -> None:
    store.accept(body="hello", media='[{"url":"https://example.com/a.png"}]')
    (due,) = store.claim()
    row = store.message(due.message_id)
    wanted = ("body", "media", "to_address", "from_address", "provider", "expires_at")
    assert {name: due.message[name] for name in wanted} == {name: row[name] for name in wanted}
    assert due.attempts == 0


def test_claimers_at_the_same_moment_never_share_a_message(store: Store, url: str) -> None:
    ids = store.accept_all(*(new_message(to=person(n)) for n in range(200)))
    ready = Barrier(4)

    def claimer() -> list[str]:
        mine = Store(Database(url))
        found: list[str] = []
        ready.wait()
        while got := mine.claim(limit=7):
            found += [due.message_id for due in got]
        mine.database.close()
        return found

    with ThreadPoolExecutor(4) as pool:
        found = [f.result() for f in [pool.submit(claimer) for _ in range(4)]]
    everything = sorted(id_ for part in found for id_ in part)
    # One that another held locked for a moment is passed over, and found by the next claim.
    everything += store.claimed()
    assert sorted(everything) == sorted(ids)


def test_a_claim_never_takes_more_than_it_asked_for(store: Store) -> None:
    store.accept_all(*(new_message(to=person(n)) for n in range(50)))
    store.change("DELETE FROM attempts")  # statistics of an empty table are what fools planners
    assert [len(store.claim(limit=n)) for n in (1, 7, 20)] == [1, 7, 20]


def test_a_higher_lane_goes_first_and_age_decides_within_it(store: Store) -> None:
    order = ["low", "normal", "urgent", "high", "normal", "urgent"]
    ids = [store.accept(to=person(n), priority=p) for n, p in enumerate(order)]
    claimed = [store.claimed(limit=1)[0] for _ in ids]
    assert [ids.index(id_) for id_ in claimed] == [2, 5, 3, 1, 4, 0]


def test_nothing_is_claimed_before_its_time(store: Store) -> None:
    id_ = store.accept(send_at=future(HOUR))
    assert store.claim() == []
    store.make_due(id_)
    assert store.claimed() == [id_]


def test_the_second_message_of_a_conversation_waits_for_the_first(store: Store) -> None:
    first, second = store.accept_all(new_message(), new_message())
    assert store.claimed() == [first]
    assert store.claim() == []
    store.lapse()
    attempt = store.next_attempt(first)
    assert store.claim() == []
    store.settle(attempt, "SM1")
    assert store.claimed() == [second]


def test_it_waits_while_the_first_waits_for_a_retry(store: Store) -> None:
    from gateway.errors import Unreachable

    first, second = store.accept_all(new_message(), new_message())
    store.settle(store.next_attempt(first), Unreachable("x"), retry_in=HOUR)
    assert store.claim() == []
    store.make_due(first)
    store.settle(store.next_attempt(first), "SM1")
    assert store.claimed() == [second]


def test_a_message_scheduled_for_later_holds_nobody_up(store: Store) -> None:
    first, second = store.accept_all(new_message(send_at=future(HOUR)), new_message())
    attempt = store.next_attempt(second)
    store.make_due(first)
    assert store.claim() == []  # one at a time, also where the older one comes later
    store.settle(attempt, "SM1")
    assert store.claimed() == [first]


def test_an_older_message_that_is_stored_later_waits_for_the_one_under_way(store: Store) -> None:
    older, newer = new_message(), new_message()
    store.accept_all(newer)
    attempt = store.next_attempt(newer.row["id"])
    store.accept_all(older)  # of another process, or after a commit that had to be repeated
    assert store.claim() == []
    with store.database.read() as tx:
        place = queries.place_of(tx, TENANT, older.row["id"])
    assert place is not None and place["behind"]
    store.settle(attempt, "SM1")
    assert store.claimed() == [older.row["id"]]


def test_one_that_was_put_aside_holds_nobody_up(store: Store) -> None:
    first, second = store.accept_all(new_message(), new_message())
    for _ in range(3):
        assert store.claimed() == [first]
        store.lapse()
    assert store.status(first) == "held"
    assert store.claimed() == [second]


def test_lanes_of_one_conversation_do_not_wait_for_each_other(store: Store) -> None:
    _, second = store.accept_all(new_message(), new_message(priority="urgent"))
    assert store.claimed(limit=1) == [second]
    assert len(store.claim()) == 1


@pytest.mark.parametrize("others", [1, 30])
def test_other_conversations_go_on_meanwhile(store: Store, others: int) -> None:
    store.accept_all(new_message(), new_message())
    ids = store.accept_all(*(new_message(to=person(n)) for n in range(others)))
    assert set(ids) < set(store.claimed())


def test_the_same_person_in_two_tenants_does_not_wait(store: Store) -> None:
    ids = store.accept_all(new_message(), new_message(tenant_id="other"))
    assert store.claimed() == sorted(ids)


def test_a_message_is_left_to_a_process_that_has_its_provider(store: Store) -> None:
    id_ = store.accept()
    for _ in range(5):
        assert store.do(CLAIM, Claim(new_id("lease"), 10, 60_000, ("another",))) == [[]]
    assert store.status(id_) == "queued"
    assert store.claimed() == [id_]
