"""Daily quotas: counted before the wire over the last 24 hours, by people, shared by all processes;
who has none left is passed over, and where nobody else can, messages wait and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import new_id
from gateway.errors import Ambiguous, Rejected, Unreachable, used_up
from gateway.quotas import DAY, MOST, PIECE, SHORT, USED, Quotas, Share, Usage, oldest, piece_of
from gateway.routing import Route
from gateway.store.database import Database
from gateway.store.deliveries import BEGIN, Attempt
from gateway.worker import Worker
from tests.outbound_cases import entry_of
from tests.running import Client, eventually, in_thread, variables
from tests.smtp_servers import Mailbox, smtp_server
from tests.stored import CONNECTION, Store, new_message, person
from tests.test_email import mailing
from tests.test_failover import FOR_LONG, PATIENT, ROUTES, accept, path
from tests.vendors import LoopbackVendor
from tests.working import SMS, Vendor, at_work, ended, raising, until

NOW = 1_900_000_000_000
ADA = "ada@example.com"


def bounded(route: Route, daily: int) -> Route:
    return replace(route, capabilities=replace(SMS, daily=daily))


class Hour:
    """A clock that is set by hand."""

    now = NOW

    def __call__(self) -> int:
        return self.now


def known(daily: int, *pieces: tuple[int, int]) -> tuple[Quotas, Hour]:
    """A quota of which something is used: so long ago, by so many people."""
    clock = Hour()
    quotas = Quotas([bounded(ROUTES[0], daily)], clock)
    quotas.see([Usage("c-one", "one", piece_of(NOW - ago), people) for ago, people in pieces])
    return quotas, clock


def test_who_has_no_quota_is_not_counted() -> None:
    quotas = Quotas([ROUTES[0]], Hour())
    assert (quotas.calm, quotas.may("one", 50), quotas.used("one")) == (True, None, None)
    assert quotas.share("one", 1) is None


def test_a_day_is_the_last_24_hours_and_not_a_date() -> None:
    quotas, clock = known(10, (23 * 3_600_000, 6), (3_600_000, 4))
    assert quotas.used("one") == (10, 10)
    first = quotas.may("one", 1)
    assert first is not None and first.word == USED
    clock.now = first.free_at - 1
    assert quotas.may("one", 1) is not None
    clock.now = first.free_at
    assert quotas.may("one", 6) is None
    assert quotas.used("one") == (4, 10)
    assert oldest(first.free_at) == piece_of(NOW - 23 * 3_600_000) + PIECE


@pytest.mark.parametrize(
    ("used", "people", "word"),
    [(0, 1, None), (7, 3, None), (7, 4, SHORT), (10, 1, USED), (12, 1, USED), (0, 25, None),
     (1, 25, SHORT)],
)  # fmt: skip
def test_a_message_needs_room_for_all_of_its_people(
    used: int, people: int, word: str | None
) -> None:
    quotas, _ = known(10, (0, used))
    found = quotas.may("one", people)
    assert (found and found.word) == word
    assert found is None or found.free_at == piece_of(NOW) + PIECE + DAY


def test_as_long_as_everybody_has_room_nobody_thinks_about_it() -> None:
    assert known(500, (0, 500 - MOST))[0].calm
    assert not known(500, (0, 500 - MOST + 1))[0].calm
    quotas, _ = known(500, (0, 1))
    quotas.doubt("one")
    assert not quotas.calm and quotas.may("one", 1) is not None
    quotas.see([])
    assert quotas.calm and quotas.may("one", 1) is None


def shared(store: Store, limit: int, *people: int) -> list[Attempt]:
    """Leased messages to so many people each, for a provider with a quota."""
    ids = [store.accept(to=person(n)) for n in range(len(people))]
    due = {one.message_id: one for one in store.claim()}
    return [
        Attempt(new_id("att"), due[id_], "test", CONNECTION, None, share=Share(limit, n))
        for id_, n in zip(ids, people, strict=True)
    ]


def used(store: Store) -> int:
    return int(store.value("SELECT COALESCE(SUM(people), 0) FROM provider_usage"))


def test_what_has_no_room_waits_again_with_nothing_spent(store: Store) -> None:
    attempts = shared(store, 5, 2, 2, 2, 1)
    assert store.do(BEGIN, *attempts) == [True, True, False, True]
    assert used(store) == 5
    id_ = attempts[2].due.message_id
    left = store.queued(id_)
    assert left is not None
    assert (left["lease_until"], left["claims"], left["attempts"]) == (0, 0, 0)
    assert (store.attempts(id_), store.status(id_)) == ([], "queued")
    assert store.claimed() == [id_]  # at once, for somebody else of its chain


def test_only_what_was_surely_not_sent_is_given_back_and_once(store: Store) -> None:
    one, two, three, four = attempts = shared(store, 9, 2, 2, 2, 3)
    assert store.do(BEGIN, *attempts) == [True] * 4
    store.settle(one, "SM1")
    store.settle(two, Ambiguous("no answer"))
    for _ in range(2):
        store.settle(three, Unreachable("nobody there"), retry_in=1000)
        store.settle(four, Rejected("no such user"))
    assert used(store) == 4


def test_a_commit_that_was_lost_counts_once(store: Store) -> None:
    (one,) = shared(store, 5, 3)
    assert store.do(BEGIN, one) == store.do(BEGIN, one) == [True]
    assert used(store) == 3


def test_two_processes_share_what_is_left(store: Store, url: str) -> None:
    other = Store(Database(url))
    mine = shared(store, 10, *[1] * 30)

    def begin(place: int) -> int:
        each = (store, other)[place % 2]
        return sum(bool(done) for n in mine[place::4] for done in each.do(BEGIN, n))

    try:
        with ThreadPoolExecutor(2) as pool:
            assert sum(pool.map(begin, range(4))) == 10
        assert used(store) == 10
    finally:
        other.database.close()


@asynccontextmanager
async def working(store: Store, *vendors: Vendor, daily: int = 3) -> AsyncIterator[Worker]:
    """A worker with a chain whose first has a quota."""
    routes = (bounded(ROUTES[0], daily), ROUTES[1])[: len(vendors)]
    given = {"retry": PATIENT, "policy": FOR_LONG, "senders": FOR_LONG, "seats": 32}
    async with at_work(store, *vendors, routes=routes, **given) as worker:
        yield worker


@pytest.mark.anyio
@pytest.mark.parametrize("daily", [3, 60])
async def test_the_next_of_the_chain_takes_over_when_it_is_used_up(
    store: Store, daily: int
) -> None:
    one, two = Vendor(), Vendor()
    ids = [accept(store, n) for n in range(daily + 7)]
    async with working(store, one, two, daily=daily) as worker:
        await ended(store, *ids)
        assert worker._board.quotas.used("one") is not None
    assert (len(one.calls), len(two.calls)) == (daily, 7)
    assert {len(path(store, id_)) for id_ in ids} == {1}


@pytest.mark.anyio
async def test_a_quota_outlives_the_process(store: Store) -> None:
    one, two = Vendor(), Vendor()
    for _ in range(2):
        ids = [accept(store, n) for n in range(2)]
        async with working(store, one, two):
            await ended(store, *ids)
    assert (len(one.calls), len(two.calls)) == (3, 1)


@pytest.mark.anyio
async def test_what_nobody_else_can_send_waits_until_there_is_room(store: Store) -> None:
    one = Vendor()
    ids = [accept(store, n) for n in range(5)]
    store.change("UPDATE queue SET route = 'one'")
    async with working(store, one):
        await until(lambda: len(one.calls) == 3)
        await asyncio.to_thread(later, store, DAY + 2 * PIECE)
        await ended(store, *ids)
    assert sorted(call.message_id for call in one.calls) == ids


@pytest.mark.anyio
async def test_what_a_clock_that_was_ahead_has_counted_does_not_count(store: Store) -> None:
    one = Vendor()
    ids = [accept(store, n) for n in range(5)]
    store.change("UPDATE queue SET route = 'one'")
    async with working(store, one):
        await until(lambda: len(one.calls) == 3)
        await asyncio.to_thread(later, store, -7 * DAY)  # the clock is set back by a week
        await ended(store, *ids)
    assert sorted(call.message_id for call in one.calls) == ids


def later(store: Store, milliseconds: int) -> None:
    """Lets time pass for what was counted."""
    store.change("UPDATE provider_usage SET piece = piece - ?", milliseconds)


@pytest.mark.anyio
async def test_a_vendor_whose_day_is_over_is_left_alone_at_the_first_word(store: Store) -> None:
    full = used_up("no more today", code="daily_quota", retry_after=600.0)
    one, two = Vendor(raising(full, full, full)), Vendor()
    first = accept(store)
    async with at_work(store, one, two, routes=ROUTES[:2], policy=FOR_LONG) as worker:
        await ended(store, first)
        await until(lambda: not worker._board.circuits.calm)
        more = [await asyncio.to_thread(accept, store, n) for n in range(2, 8)]
        await ended(store, *more)
    assert (len(one.calls), len(two.calls)) == (1, 7)
    assert path(store, first) == ["one", "two"]


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with smtp_server() as made:
        yield made


def mail(client: Client, number: int, **more: Any) -> dict[str, Any]:
    return client.send(channel="email", to=f"p{number}@example.com", subject="x", body="y", **more)


def test_from_http_to_the_wire(sqlite_url: str, tmp_path: Path, box: Mailbox) -> None:
    with LoopbackVendor(answer=entry_of("sendgrid").data["answer"]) as vendor:
        given = {
            **mailing(box),
            "SMTP_DAILY_QUOTA": "4",
            "EMAIL_PROVIDERS": "smtp,sendgrid",
            "SENDGRID_API_KEY": "SG.recognisable-8c21",
            "SENDGRID_FROM_EMAIL": "shop@example.com",
            "SENDGRID_API_URL": vendor.url,
        }
        with in_thread(variables(tmp_path, sqlite_url, **given)) as client:
            copies = {"cc": ["bob@example.com"], "bcc": ["carl@example.com"]}
            first = client.until(mail(client, 1, email=copies)["id"], "accepted")
            assert first["provider"] == "smtp"
            eventually(lambda: quota(client)["used"] == 3, "the count")
            # Two people are too many, and nobody else's turn is held up by that.
            two = client.until(mail(client, 2, email={"cc": [ADA]})["id"], "accepted")
            assert two["provider"] == "sendgrid"
            assert two["attempts"][0]["passed_over"] == [
                {"provider": "smtp", "reason": "quota_short"}
            ]
            assert client.until(mail(client, 3)["id"], "accepted")["provider"] == "smtp"
            after = client.until(mail(client, 4)["id"], "accepted")
            assert (after["provider"], len(after["attempts"])) == ("sendgrid", 1)
            metrics = client.call("GET", "/metrics").text
            assert 'gateway_daily_quota_left{provider="smtp"}' in metrics
            assert 'gateway_daily_quota_left{provider="sendgrid"}' not in metrics
            told = eventually(lambda: quota(client)["free_at"] and quota(client), "the end")
            assert (told["used"], told["limit"]) == (4, 4)
            health = client.get("/health/messaging")
            smtp, sendgrid = health["email_providers"]
            assert (smtp["is_healthy"], smtp["circuit_breaker"]) == (False, "closed")
            assert "daily_quota" not in sendgrid
            assert health["active_providers"]["email"] == "sendgrid"
    assert (len(box.taken), vendor.count) == (2, 2)


def quota(client: Client) -> dict[str, Any]:
    found = client.get("/health/messaging")["email_providers"][0]["daily_quota"]
    assert isinstance(found, dict)
    return found


def test_a_message_tells_that_it_waits_for_the_quota(
    sqlite_url: str, tmp_path: Path, box: Mailbox
) -> None:
    given = {**mailing(box), "SMTP_DAILY_QUOTA": "1"}
    with in_thread(variables(tmp_path, sqlite_url, **given)) as client:
        client.until(mail(client, 1)["id"], "accepted")
        id_ = mail(client, 2)["id"]
        eventually(lambda: client.message(id_)["waiting_for"] == "quota", "the wait")
        waits = client.message(id_)
        assert (waits["status"], waits["attempts"]) == ("queued", [])
        assert waits["next_attempt_at"] is not None
        store = Store(Database(sqlite_url))
        later(store, DAY + 2 * PIECE)
        store.database.close()
        client.until(id_, "accepted")


def test_nothing_is_counted_where_nobody_has_a_quota(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, "SM1")
    store.accept_all(new_message(to=person(2)))
    assert store.count("provider_usage") == 0
