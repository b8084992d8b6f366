"""Breakers, pins and switches in the database: one truth, whoever writes it and when."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from alembic import command
from alembic.config import Config

from gateway.breaker import Policy, Sign, State
from gateway.clock import new_id
from gateway.errors import Throttled
from gateway.store import pins
from gateway.store.breakers import ASK, HEAR, HURRY, Ask, Heard, Hurry, Place, Standing
from gateway.store.claims import CLAIM, RELEASE, Claim, Release
from gateway.store.database import Database
from gateway.store.migrate import SCRIPTS
from gateway.store.retention import PRUNE, Kept
from tests.stored import DAY, HOUR, TENANT, Store, new_message, person

POLICY = Policy(failures=3, messages=2, open_for=60_000, successes=2, probe=60_000)
HERE = Place(TENANT, "c1", "test")
OURS = Place(TENANT, "c1", "test", "+15005550006")


def told(
    store: Store, sign: Sign, number: int = 0, token: str | None = None, place: Place = HERE
) -> Standing:
    """One answer about one of several messages."""
    error = None if sign is Sign.WELL else ("unreachable", "dns")
    heard = Heard(place, sign, f"msg_{number}", 0.5, POLICY, token, error)
    return store.do(HEAR, heard)[0]


def opened(store: Store, place: Place = HERE) -> Standing:
    """A breaker that was just opened."""
    standing = told(store, Sign.REFUSED, place=place)
    assert standing.circuit.state is State.OPEN
    return standing


def let_time_pass(store: Store) -> None:
    """What is not asked now may be."""
    store.change("UPDATE breakers SET retry_at = 1, probe_until = 1")


def asked(store: Store, place: Place = HERE) -> str | None:
    """The token of a probe, if it was granted."""
    token = new_id("probe")
    standing = store.do(ASK, Ask(place, token, POLICY))[0]
    return token if standing.circuit.probe_token == token else None


def switches(store: Store) -> list[str]:
    """What was switched, in order."""
    return [str(row.what) for row in store.rows("SELECT what FROM provider_switches ORDER BY id")]


def test_failures_of_different_messages_open_it_and_the_cause_is_kept(store: Store) -> None:
    for number in range(2):
        assert told(store, Sign.FAILED, number).circuit.state is State.CLOSED
    standing = told(store, Sign.FAILED, 0)
    assert (standing.circuit.state, standing.switched) == (State.OPEN, "opened")
    (row,) = store.rows("SELECT * FROM provider_switches")
    assert (row.what, row.provider, row.error_reason, row.error_code) == (
        "opened",
        "test",
        "unreachable",
        "dns",
    )
    assert row.until == standing.circuit.retry_at


def test_one_batch_is_as_many(store: Store) -> None:
    items = [Heard(HERE, Sign.FAILED, f"msg_{n}", 0.5, POLICY) for n in range(3)]
    results = store.do(HEAR, *items)
    assert [r.circuit.state for r in results] == [State.OPEN] * 3  # as it stands in the end
    assert [r.switched for r in results] == [None, None, "opened"]


def test_a_good_answer_between_them_is_the_end_of_a_row(store: Store) -> None:
    for sign in (Sign.FAILED, Sign.FAILED, Sign.WELL, Sign.FAILED, Sign.FAILED):
        standing = told(store, sign, sign is Sign.FAILED)
    assert standing.circuit.state is State.CLOSED
    assert switches(store) == []


def test_breakers_of_two_connections_are_two(store: Store) -> None:
    opened(store)
    other = Place(TENANT, "c2", "test")
    assert told(store, Sign.FAILED, place=other).circuit.state is State.CLOSED


def test_nobody_probes_before_its_time_and_then_one(store: Store) -> None:
    opened(store)
    assert asked(store) is None
    let_time_pass(store)
    first = asked(store)
    assert first is not None
    assert asked(store) is None
    told(store, Sign.WELL, token=first)
    second = asked(store)
    assert second is not None
    told(store, Sign.WELL, token=second)
    assert told(store, Sign.WELL).circuit.state is State.CLOSED
    assert switches(store) == ["opened", "half_open", "closed"]


def test_of_many_processes_one_may_probe(store: Store, url: str) -> None:
    opened(store)
    let_time_pass(store)
    ready = Barrier(4)

    def prober(_: int) -> str | None:
        mine = Store(Database(url))
        ready.wait()
        try:
            return asked(mine)
        finally:
            mine.database.close()

    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(prober, range(4)))
    assert len([token for token in tokens if token]) == 1


def test_failures_that_processes_store_at_the_same_moment_all_count(store: Store, url: str) -> None:
    ready = Barrier(3)

    def failing(number: int) -> None:
        mine = Store(Database(url))
        ready.wait()
        told(mine, Sign.FAILED, number)
        mine.database.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(failing, range(3)))
    assert store.value("SELECT state FROM breakers") == "open"
    assert switches(store) == ["opened"]


def test_a_probe_that_crashed_holds_nobody_up_for_ever(store: Store) -> None:
    opened(store)
    let_time_pass(store)
    crashed = asked(store)
    assert asked(store) is None
    let_time_pass(store)
    assert asked(store) is not None
    late = told(store, Sign.WELL, token=crashed)
    assert (late.circuit.state, late.circuit.successes) == (State.HALF_OPEN, 0)


def test_asking_twice_with_one_token_is_asking_once(store: Store) -> None:
    opened(store)
    let_time_pass(store)
    for _ in range(2):
        standing = store.do(ASK, Ask(HERE, "same", POLICY))[0]
        assert standing.circuit.probe_token == "same"
    assert switches(store) == ["opened", "half_open"]


def test_what_changes_nothing_writes_nothing(store: Store) -> None:
    before = opened(store)
    for sign in (Sign.WELL, Sign.FAILED, Sign.NOTHING):
        assert told(store, sign).version == before.version
    _, topics = store.batcher.write(HEAR, [Heard(HERE, Sign.WELL, "m", 0.5, POLICY)])
    assert topics == set()
    fresh = Place(TENANT, "c1", "another")
    _, topics = store.batcher.write(HEAR, [Heard(fresh, Sign.REFUSED, "m", 0.5, POLICY)])
    assert topics == {"breakers"}


def test_after_a_start_what_refused_us_may_be_asked_at_once(store: Store) -> None:
    items = {
        "refused": ("account_refused", "20003"),
        "down": ("unreachable", "dns"),
        "elsewhere": ("account_refused", "20003"),
    }
    for name, error in items.items():
        place = Place(TENANT, "c1", name)
        store.do(HEAR, Heard(place, Sign.REFUSED, "m", 0.5, POLICY, error=error))
    ((standing,),) = store.do(HURRY, Hurry(providers=("refused", "down")))
    assert standing.place.provider == "refused"
    assert asked(store, standing.place) is not None
    assert asked(store, Place(TENANT, "c1", "down")) is None


def put_off(store: Store, place: Place = OURS) -> tuple[str, int]:
    """A message that waits for a blocked sender, and until when."""
    standing = opened(store, place)
    id_ = store.accept()
    (due,) = store.claim()
    until = standing.circuit.retry_at
    assert store.do(RELEASE, Release(due, until, blocked=True)) == [True]
    return id_, until


def test_a_lease_that_is_given_back_counts_for_nothing(store: Store) -> None:
    id_ = store.accept()
    for _ in range(5):
        (due,) = store.claim()
        assert store.do(RELEASE, Release(due)) == [True]
    entry = store.queued(id_)
    assert entry is not None
    assert (entry["claims"], entry["attempts"], entry["lease_until"]) == (0, 0, 0)
    (again,) = store.claim()
    assert store.do(RELEASE, Release(due)) == [False]  # an older lease
    assert store.begin(again) is not None
    assert store.do(RELEASE, Release(due), Release(again)) == [False, False]  # it is begun


def test_what_waits_for_a_sender_is_due_when_that_may_be_asked(store: Store) -> None:
    id_, until = put_off(store)
    entry = store.queued(id_)
    assert entry is not None
    assert entry["due_at"] == until
    assert store.claim() == []


def test_what_waits_for_a_sender_is_looked_at_when_somebody_unblocks_it(store: Store) -> None:
    id_, _ = put_off(store)
    other = store.accept(to=person(2), send_at=store.value("SELECT due_at FROM queue") + 1)
    ((standing,),) = store.do(HURRY, Hurry(places=(OURS,)))
    assert standing.circuit.retry_at <= store.value("SELECT updated_at FROM breakers")
    assert store.claimed() == [id_]
    assert store.status(other) == "scheduled"
    assert switches(store) == ["blocked", "hurried"]


def test_who_has_not_heard_that_a_sender_is_free_puts_a_message_off_for_a_moment_only(
    store: Store,
) -> None:
    standing = opened(store, OURS)
    store.do(HURRY, Hurry(places=(OURS,)))
    id_ = store.accept()
    (due,) = store.claim()
    store.do(RELEASE, Release(due, standing.circuit.retry_at, blocked=True))
    entry = store.queued(id_)
    assert entry is not None
    now = store.value("SELECT updated_at FROM breakers")
    assert now < entry["due_at"] < now + 10_000 < standing.circuit.retry_at


def test_what_waits_behind_a_probe_of_a_sender_goes_on_when_that_went_well(store: Store) -> None:
    opened(store, OURS)
    let_time_pass(store)
    once = Policy(successes=1)
    token = new_id("probe")
    (probing,) = store.do(ASK, Ask(OURS, token, once))
    id_ = store.accept()
    (due,) = store.claim()
    store.do(RELEASE, Release(due, probing.circuit.probe_until))
    assert store.claim() == []
    _, topics = store.batcher.write(HEAR, [Heard(OURS, Sign.WELL, "m", 0.5, once, token)])
    assert topics == {"breakers", "queue"}
    assert store.claimed() == [id_]
    assert switches(store) == ["blocked", "half_open", "unblocked"]


def test_a_message_is_claimed_by_whoever_may_be_asked_of_its_route(store: Store) -> None:
    def claim(*providers: str) -> list[str]:
        (found,) = store.do(CLAIM, Claim(new_id("lease"), 10, 60_000, providers))
        for due in found:
            store.do(RELEASE, Release(due))
        return [due.message_id for due in found]

    items = [new_message(to=person(n)) for n in range(4)]
    for item, route in zip(items, ("one", "one,two", "two,one", "three"), strict=True):
        item.route = route
    first, second, third, fourth = store.accept_all(*items)
    assert claim("one") == sorted([first, second, third])
    assert claim("two") == sorted([second, third])
    assert claim("one", "three") == sorted([first, second, third, fourth])
    assert claim("on", "thre", "") == []


def test_the_lanes_of_all_routes_are_one_line(store: Store) -> None:
    order = [("low", "one"), ("normal", "two"), ("urgent", "one,two"), ("normal", "one")]
    items = [new_message(to=person(n), priority=p) for n, (p, _) in enumerate(order)]
    for item, (_, route) in zip(items, order, strict=True):
        item.route = route
    ids = store.accept_all(*items)
    claimed = [
        store.do(CLAIM, Claim(new_id("lease"), 1, 60_000, ("one", "two")))[0][0].message_id
        for _ in ids
    ]
    assert [ids.index(id_) for id_ in claimed] == [2, 1, 3, 0]


def test_a_claim_tells_whom_a_message_was_sent_by_so_far(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, Throttled("x", code="429", retry_after=9), retry_in=0)
    (due,) = store.claim()
    (tried,) = due.tried
    assert (tried.provider, tried.reason, tried.code) == ("test", "throttled", "429")
    assert due.attempts == 1


@pytest.fixture
def empty(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without a table."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    if dialect == "postgresql":
        url = str(request.getfixturevalue("postgres").empty())
    database = Database(url)
    yield database
    database.close()


def migrated(database: Database, revision: str) -> None:
    """Brings a schema to a revision, forwards or back."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    with database.write() as tx:
        config.attributes["connection"] = tx.connection
        move = command.upgrade if revision == "head" else command.downgrade
        move(config, revision)


def test_what_waited_before_the_migration_waits_for_the_same_provider(empty: Database) -> None:
    migrated(empty, "head")
    store = Store(empty)
    new = new_message()
    new.route = "test,vendor"
    (id_,) = store.accept_all(new)
    migrated(empty, "0002")
    assert store.value("SELECT provider FROM queue") == "test"
    migrated(empty, "head")
    assert store.value("SELECT route FROM queue") == "test"
    assert store.claimed() == [id_]


def pinned(store: Store) -> list[tuple[str, str]]:
    with store.database.read() as tx:
        return [(pin.provider, pin.channel) for pin in pins.pinned(tx)]


def test_pins_hold_until_their_time_and_the_newest_comes_first(store: Store) -> None:
    for provider, channel in (("one", ""), ("two", "sms"), ("one", "")):
        with store.database.write() as tx:
            pins.pin(tx, provider, channel, HOUR)
        store.change("UPDATE provider_pins SET created_at = created_at - 10")
    assert pinned(store) == [("one", ""), ("two", "sms")]
    store.change("UPDATE provider_pins SET until = 1 WHERE provider = 'one'")
    assert pinned(store) == [("two", "sms")]
    store.do(PRUNE, Kept(DAY, DAY, DAY))
    assert switches(store) == ["pinned", "pinned", "pinned", "unpinned"]
    with store.database.write() as tx:
        assert pins.unpin(tx, "two", "email") == 0
        assert pins.unpin(tx, "two", None) == 1
    assert pinned(store) == []


def test_switches_are_kept_for_a_while(store: Store) -> None:
    opened(store)
    store.do(PRUNE, Kept(HOUR, HOUR, HOUR))
    assert switches(store) == ["opened"]
    store.change("UPDATE provider_switches SET at = at - ?", 91 * DAY)
    store.do(PRUNE, Kept(HOUR, HOUR, HOUR))
    assert switches(store) == []


@pytest.mark.parametrize("provider", [None, "test"])
def test_the_log_is_read_newest_first(store: Store, provider: str | None) -> None:
    opened(store)
    let_time_pass(store)
    asked(store)
    with store.database.read() as tx:
        rows = pins.switched(tx, provider, 10)
        assert pins.switched(tx, "nobody", 10) == []
    assert [row["what"] for row in rows] == ["half_open", "opened"]
