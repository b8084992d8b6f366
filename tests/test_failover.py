"""Failover with a real store: whom an error sends a message on to, and whom nobody asks any more.

The vendors are doubles of vendors; every decision, lease and breaker is the real one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.breaker import Policy
from gateway.clock import SystemClock
from gateway.domain import (
    Channel,
    Connection,
    OutboundMessage,
    Receipt,
    Sender,
    Status,
    VendorError,
)
from gateway.drafts import Draft
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unreachable,
    Unsupported,
)
from gateway.outbound import Outbound
from gateway.routing import Retry, Route
from gateway.store import pins
from gateway.store.database import Database
from gateway.views import attempts_view
from gateway.worker import Worker
from tests.stored import HOUR, TENANT, Store, future, new_message, person, update
from tests.working import SMS, Answer, Vendor, at_work, ended, raising, until

pytestmark = pytest.mark.anyio

NAMES = ("one", "two", "three")
SENDERS = dict(zip(NAMES, ("+15005550001", "+15005550002", "+15005550003"), strict=True))
ROUTES = tuple(
    Route(
        name,
        SMS,
        Connection(
            id=f"c-{name}",
            tenant_id=TENANT,
            family=name,
            senders={Channel.SMS: Sender(address=SENDERS[name])},
        ),
    )
    for name in NAMES
)
PATIENT = Retry(base=900, cap=900, limit=9)  # who waits for a retry waits for ever
QUICK = Policy(failures=3, messages=2, open_for=100, longest=200, successes=2, probe=60_000)
FOR_LONG = Policy(failures=3, messages=2, open_for=600_000, successes=2, probe=60_000)


def accept(store: Store, number: int = 1, **columns: Any) -> str:
    """A message to one of many people, for the whole chain; its id."""
    new = new_message(
        to=person(number), **{"from_address": SENDERS["one"], "provider": "one", **columns}
    )
    new.route = ",".join(NAMES)
    return store.accept_all(new)[0]


def always(error: ProviderError) -> Answer:
    """Never anything else."""

    async def answer(vendor: Vendor, message: OutboundMessage) -> Receipt:
        raise error

    return answer


class Switchable(Vendor):
    """A vendor that is down until it is told to be up."""

    def __init__(self, error: ProviderError) -> None:
        super().__init__()
        self.error: ProviderError | None = error

    async def send(self, message: OutboundMessage) -> Receipt:
        """Counts a call, and answers or not."""
        receipt = await super().send(message)
        await asyncio.sleep(0.005)
        if self.error is not None:
            raise self.error
        return receipt


@asynccontextmanager
async def working(store: Store, *vendors: Vendor, **more: Any) -> AsyncIterator[Worker]:
    """A worker whose chain is as long as its vendors are many; the rest of the names never
    answer here."""
    routes = ROUTES[: len(vendors)]
    given = {"retry": PATIENT, "policy": FOR_LONG, "senders": FOR_LONG, **more}
    async with at_work(store, *vendors, routes=routes, **given) as worker:
        yield worker


def path(store: Store, id_: str) -> list[str]:
    """Who was asked for a message, in order."""
    return [attempt["provider"] for attempt in store.attempts(id_)]


def whys(store: Store, id_: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Why each, and why not those before it."""
    return [
        (told["why"], [(over["provider"], over["reason"]) for over in told["passed_over"]])
        for told in attempts_view(store.attempts(id_))
    ]


def state(store: Store, name: str = "one") -> str | None:
    """Where the shared breaker of a provider stands."""
    rows = store.rows("SELECT state FROM breakers WHERE provider = ? AND sender = ''", name)
    return str(rows[0].state) if rows else None


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("x", code="dns"),
        Throttled("x", code="429", retry_after=900),
        AccountRefused("x", code="20003"),
        SenderRefused("x", code="21606"),
        Unsupported("x", code="21408"),
    ],
    ids=lambda error: error.reason,
)
async def test_what_was_not_sent_goes_to_the_next_at_once(
    store: Store, error: ProviderError
) -> None:
    one, two = Vendor(always(error)), Vendor()
    async with working(store, one, two, poll=30):
        id_ = await asyncio.to_thread(accept, store)
    async with working(store, one, two, poll=30):  # nothing but the answer wakes it again
        await ended(store, id_)
    assert path(store, id_) == ["one", "two"]
    assert whys(store, id_) == [
        ("first of the chain", []),
        (f"failover from one ({error.reason}: {error.code})", whys(store, id_)[1][1]),
    ]
    assert [over[0] for over in whys(store, id_)[1][1]] in (["one"], [])
    assert store.message(id_)["provider"] == "two"


@pytest.mark.parametrize("policy", ["hold", "resend"])
async def test_a_refusal_of_the_message_goes_down_no_chain(store: Store, policy: str) -> None:
    one, two = Vendor(always(Rejected("x", code="21211"))), Vendor()
    async with working(store, one, two):
        id_ = accept(store, on_unknown=policy)
        await ended(store, id_, status="failed")
    assert (len(one.calls), two.calls) == (1, [])
    assert state(store) is None


async def test_a_lost_answer_goes_down_the_chain_only_where_a_copy_harms_nobody(
    store: Store,
) -> None:
    one, two = Vendor(always(Ambiguous("x", code="timeout"))), Vendor()
    held, again = accept(store), accept(store, 2, on_unknown="resend")
    async with working(store, one, two):
        await ended(store, held, status="unknown")
        await ended(store, again)
    assert path(store, held) == ["one"]
    assert path(store, again) == ["one", "two"]


async def test_copies_of_a_lost_message_are_bounded_over_all_providers(store: Store) -> None:
    lost = [Vendor(always(Ambiguous("x", code="timeout"))) for _ in NAMES]
    id_ = accept(store, on_unknown="resend")
    async with working(store, *lost, retry=Retry(0.001, 0.002, 99)):
        await until(lambda: store.count("queue") == 0)
    assert store.status(id_) == "unknown"
    assert path(store, id_) == ["one", "two", "three"]


async def test_what_nobody_can_send_fails(store: Store) -> None:
    errors = [Unsupported("x", code=f"cannot-{name}") for name in NAMES]
    id_ = accept(store)
    async with working(store, *(Vendor(always(error)) for error in errors)):
        await ended(store, id_, status="failed")
    assert path(store, id_) == ["one", "two", "three"]
    assert store.message(id_)["error_code"] == "cannot-three"


async def test_when_all_were_asked_the_next_round_begins_later_and_from_the_front(
    store: Store,
) -> None:
    down = [Vendor(raising(*[Unreachable("x", code="dns")] * 2)) for _ in NAMES]
    id_ = accept(store)
    async with working(store, *down):
        for made in (3, 6):
            await until(
                lambda made=made: (
                    len(store.attempts(id_)) == made  # type: ignore[misc]
                    and store.status(id_) == "queued"
                )
            )
            entry = store.queued(id_)
            assert entry is not None
            assert entry["due_at"] > store.message(id_)["updated_at"]
            store.make_due(id_)
        await ended(store, id_)
    assert path(store, id_) == ["one", "two", "three"] * 2 + ["one"]


async def test_a_vendor_that_said_when_is_not_asked_sooner_by_another_round(store: Store) -> None:
    one = Vendor(raising(Throttled("x", code="429", retry_after=900)))
    two = Vendor(raising(Unreachable("x", code="dns")))
    id_ = accept(store)
    async with working(store, one, two, retry=Retry(0.001, 0.002, 99)):
        await ended(store, id_)
    assert path(store, id_) == ["one", "two", "two"]
    assert whys(store, id_)[2] == (
        "tried again after two (unreachable: dns)",
        [("one", "throttled"), ("three", "not_set_up")],  # it is in the route, and not here
    )


def no_room(store: Store, id_: str) -> None:
    """What the vendor of the newest attempt says some time after it took the message."""
    attempt = store.attempts(id_)[-1]
    error = VendorError(code="30001", reason="throttled")
    told = {"account": "", "recipient": None, "attempt_id": attempt["id"], "error": error}
    store.reports(update(Status.FAILED, **told), connection=attempt["connection"])


def waits_for(store: Store, id_: str) -> int:
    """For how many milliseconds a message still waits; of a queue without it, none."""
    entry = store.queued(id_)
    return 0 if entry is None else int(entry["due_at"]) - future(0)


async def test_what_is_throttled_after_it_was_taken_goes_to_the_next_at_once(store: Store) -> None:
    one, two = Vendor(), Vendor()
    async with working(store, one, two):
        id_ = accept(store)
        await ended(store, id_)
        no_room(store, id_)
        await until(lambda: len(two.calls) == 1)
        await ended(store, id_)
        no_room(store, id_)
        await until(lambda: store.queued(id_) is not None)
        await until(lambda: waits_for(store, id_) > 50_000)  # all were asked: in a while
    assert path(store, id_) == ["one", "two"]
    assert whys(store, id_)[1] == ("failover from one (throttled: 30001)", [("one", "tried")])


async def test_what_is_throttled_afterwards_waits_where_the_next_may_not_be_asked(
    store: Store,
) -> None:
    one, two = Vendor(), Vendor(always(AccountRefused("x", code="20003")))
    async with working(store, one, two):
        other = accept(store, 2)
        store.change("UPDATE queue SET route = 'two' WHERE message_id = ?", other)
        await until(lambda: state(store, "two") == "open")
        id_ = accept(store)
        await ended(store, id_)
        no_room(store, id_)
        await until(lambda: waits_for(store, id_) > 50_000)
    assert (path(store, id_), store.status(id_)) == (["one"], "queued")


async def test_a_provider_that_fails_is_passed_over_at_no_cost(store: Store) -> None:
    one, two = Vendor(always(Unreachable("x", code="dns"))), Vendor()
    async with working(store, one, two, poll=30) as worker:
        first = [accept(store, number) for number in range(3)]
        worker.poke()
        await ended(store, *first)
        await until(lambda: state(store) == "open")
        asked = len(one.calls)
        later = [await asyncio.to_thread(accept, store, number) for number in range(10, 20)]
        worker.poke()
        await ended(store, *later)
    assert len(one.calls) == asked == 3
    for id_ in later:
        assert path(store, id_) == ["two"]
        assert whys(store, id_) == [("next in the chain", [("one", "breaker_open")])]
    assert [row.claims for row in store.rows("SELECT claims FROM queue")] == []


async def test_one_message_takes_no_provider_down(store: Store) -> None:
    poisonous = accept(store, 0)

    async def answer(vendor: Vendor, message: OutboundMessage) -> Receipt:
        if message.message_id == poisonous:
            raise Unreachable("x", code="dns")
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    one = Vendor(answer)
    async with working(store, one, retry=Retry(0.001, 0.002, 12)):
        await ended(store, poisonous, status="failed")
        await ended(store, accept(store, 2))
    assert one.times(poisonous) == 13
    assert state(store) == "closed"


async def test_a_refused_account_is_not_asked_again_by_anybody(store: Store, url: str) -> None:
    one, two = Vendor(always(AccountRefused("x", code="20003"))), Vendor()
    async with working(store, one, two):
        await ended(store, accept(store, 0))
        await until(lambda: state(store) == "open")
    other = Store(Database(url))
    again, standby = Vendor(), Vendor()
    async with working(other, again, standby):
        await ended(store, *(accept(store, number) for number in range(1, 5)))
    assert (len(one.calls), again.calls, len(standby.calls)) == (1, [], 4)
    (row,) = store.rows("SELECT * FROM provider_switches")
    assert (row.what, row.error_reason, row.error_code) == ("opened", "account_refused", "20003")
    other.database.close()


async def test_a_blocked_sender_is_not_a_broken_provider(store: Store) -> None:
    bad = "+15005559999"

    async def answer(vendor: Vendor, message: OutboundMessage) -> Receipt:
        if message.sender.address == bad:
            raise SenderRefused("x", code="21606")
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    one, two = Vendor(answer), Vendor()
    async with working(store, one, two):
        await ended(store, accept(store, 0, from_address=bad))
        await until(lambda: bool(store.rows("SELECT 1 FROM breakers WHERE sender <> ''")))
        blocked, free = accept(store, 1, from_address=bad), accept(store, 2)
        await ended(store, blocked, free)
    assert path(store, blocked) == ["two"]
    assert whys(store, blocked) == [("next in the chain", [("one", "sender_blocked")])]
    assert path(store, free) == ["one"]
    assert state(store) is None


async def test_what_only_a_blocked_sender_may_send_waits_without_an_attempt(store: Store) -> None:
    one = Vendor(raising(SenderRefused("x", code="21606")))
    first = accept(store, 0)
    async with working(store, one, retry=Retry(0.001, 0.002, 99)) as worker:
        await until(lambda: bool(store.rows("SELECT 1 FROM queue WHERE due_at > ?", HOUR)))
        await until(lambda: state_of_sender(store) == "open")
        second = accept(store, 1)
        until_ = store.value("SELECT retry_at FROM breakers WHERE sender <> ''")
        both = "SELECT COUNT(*) FROM queue WHERE due_at = ?"
        await until(lambda: store.value(both, until_) == 2)
        assert (len(one.calls), store.attempts(second)) == (1, [])
        store.change("UPDATE breakers SET retry_at = 1, version = version + 1")
        store.make_due(first, second)
        await asyncio.sleep(0)
        worker.poke()
        await ended(store, first, second)
    assert path(store, second) == ["one"]
    kinds = [row.what for row in store.rows("SELECT what FROM provider_switches ORDER BY id")]
    assert kinds == ["blocked", "half_open", "unblocked"]


def state_of_sender(store: Store) -> str | None:
    rows = store.rows("SELECT state FROM breakers WHERE sender <> ''")
    return str(rows[0].state) if rows else None


async def test_when_every_breaker_is_open_messages_wait_and_cost_nothing(store: Store) -> None:
    down = [Switchable(AccountRefused("x", code="401")) for _ in NAMES]
    async with working(store, *down, policy=QUICK, retry=Retry(0.001, 0.002, 99)):
        first = accept(store, 0)
        await until(lambda: all(state(store, name) in ("open", "half_open") for name in NAMES))
        waiting = [accept(store, number) for number in range(1, 30)]
        await until(lambda: sum(len(vendor.calls) for vendor in down) > 8)
        tried = sum(len(store.attempts(id_)) for id_ in waiting)
        assert tried <= sum(len(vendor.calls) for vendor in down)
        for vendor in down:
            vendor.error = None
        await ended(store, first, *waiting)
        number = iter(range(100, 100_000))
        while state(store) != "closed":  # by the messages that come: nothing else is sent
            await ended(store, accept(store, next(number)))
    assert all(store.attempts(id_)[-1]["status"] == "accepted" for id_ in waiting)


async def test_a_provider_comes_back_by_one_probe_at_a_time_of_all_processes(
    store: Store, url: str
) -> None:
    one, two = Switchable(Unreachable("x", code="dns")), Vendor()
    other = Store(Database(url))
    async with (
        working(store, one, two, policy=QUICK, retry=Retry(0.001, 0.002, 99)),
        working(other, one, two, policy=QUICK, retry=Retry(0.001, 0.002, 99)),
    ):
        number = iter(range(100_000))
        ids = [accept(store, next(number)) for _ in range(6)]
        await until(lambda: state(store) in ("open", "half_open"))
        await ended(store, *ids)
        one.most = one.at_once = 0
        probes = len(one.calls)

        async def busy() -> None:
            while True:
                ids.append(await asyncio.to_thread(accept, store, next(number)))
                await asyncio.sleep(0.002)

        working_on = asyncio.create_task(busy())
        await until(lambda: len(one.calls) >= probes + 3)
        assert one.most == 1  # many messages, two processes, one probe
        one.error = None
        await until(lambda: state(store) == "closed")
        working_on.cancel()
        await asyncio.gather(working_on, return_exceptions=True)
        await ended(store, *ids)
        await ended(store, accept(store, next(number)))
    told = [whys(store, id_)[0][0] for id_ in ids]
    assert "probe" in told
    assert path(store, ids[-1])[-1] in ("one", "two")
    other.database.close()


async def test_after_it_has_come_back_seats_grow(store: Store) -> None:
    gate, together = asyncio.Semaphore(0), list[int]()

    async def answer(vendor: Vendor, message: OutboundMessage) -> Receipt:
        if not store.rows("SELECT 1 FROM breakers WHERE state = 'closed'"):
            raise Unreachable("x", code="dns")
        await gate.acquire()
        together.append(vendor.at_once)
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    one = Vendor(answer)
    store.change(
        "INSERT INTO breakers (tenant_id, connection, provider, sender, state, failures, messages,"
        " successes, openings, retry_at, probe_until, updated_at, version) VALUES"
        " ('default', 'c-one', 'one', '', 'open', 3, '[]', 0, 1, ?, 0, 1, 1)",
        10**15,
    )
    ids = [accept(store, number) for number in range(15)]
    async with working(store, one, seats=8) as worker:
        await asyncio.sleep(0.1)
        assert one.calls == []  # the claim is closed
        store.change("UPDATE breakers SET state = 'closed', failures = 0, version = 2")
        for wave in (1, 2, 4):
            await until(lambda wave=wave: one.at_once == wave)  # type: ignore[misc]
            worker.poke()
            await asyncio.sleep(0.05)
            assert one.at_once == wave
            for _ in range(wave):
                gate.release()
        await until(lambda: one.at_once == 8)
        for _ in range(8):
            gate.release()
        await ended(store, *ids)
    assert max(together) == 8


async def test_a_pinned_provider_is_first_until_it_is_not(store: Store) -> None:
    one, two = Vendor(), Vendor(raising(None, AccountRefused("x", code="401")))

    def pin(duration: int) -> None:
        with store.database.write() as tx:
            pins.pin(tx, "two", "sms", duration)

    async with working(store, one, two) as worker:
        pin(HOUR)
        await until(lambda: bool(worker._board.pinned("sms")))
        pinned = accept(store, 1)
        await ended(store, pinned)
        refused = accept(store, 2)
        await ended(store, refused)
        await until(lambda: state(store, "two") == "open")
        over = accept(store, 3)
        await ended(store, over)
        store.change("UPDATE provider_pins SET until = 1")
        await until(lambda: not worker._board.pinned("sms"))
        plain = accept(store, 4)
        await ended(store, plain)
    assert whys(store, pinned) == [("pinned", [])]
    assert path(store, refused) == ["two", "one"]
    assert path(store, over) == ["one"]
    assert whys(store, over) == [("next in the chain", [("two", "breaker_open")])]
    assert whys(store, plain) == [("first of the chain", [])]


async def test_each_provider_sends_from_its_own_number_and_the_message_tells(store: Store) -> None:
    one, two = Vendor(always(Unreachable("x", code="dns"))), Vendor()
    id_ = accept(store)
    async with working(store, one, two):
        await ended(store, id_)
    assert [call.sender.address for call in one.calls] == [SENDERS["one"]]
    assert [call.sender.address for call in two.calls] == [SENDERS["two"]]
    assert store.message(id_)["from_address"] == SENDERS["two"]
    assert [a["sender"] for a in store.attempts(id_)] == [SENDERS["one"], SENDERS["two"]]
    assert [a["connection"] for a in store.attempts(id_)] == ["c-one", "c-two"]


async def test_what_was_accepted_is_handed_over_to_whoever_may_be_asked(store: Store) -> None:
    one, two = Vendor(always(AccountRefused("x", code="401"))), Vendor()
    waits = new_message(to=person(90))
    waits.route = "one"
    async with working(store, one, two, poll=30) as worker:
        outbound = Outbound(
            worker._batcher,
            {Channel.SMS: ROUTES[:2]},
            SystemClock(),
            region=None,
            expiry=3600,
            idempotency=3600,
            local=worker,
        )

        async def send(number: int, **more: Any) -> str:
            draft = Draft(channel=Channel.SMS, to=person(number), body="hi", **more)
            return str((await outbound.accept(draft, tenant_id=TENANT)).view["id"])

        first = await send(1)
        await ended(store, first)
        await until(lambda: state(store) == "open")
        await asyncio.to_thread(store.accept_all, waits)  # for the first alone: in nobody's way
        ids = [await send(number) for number in range(2, 6)]
        await ended(store, *ids)
        mine = await send(7, sender=SENDERS["one"])
        await asyncio.sleep(0.05)
    assert [path(store, id_) for id_ in ids] == [["two"]] * 4
    assert whys(store, ids[0]) == [("next in the chain", [("one", "breaker_open")])]
    assert store.message(ids[0])["from_address"] == SENDERS["two"]
    assert store.value("SELECT MAX(claims) FROM queue") == 0
    assert (store.status(mine), store.attempts(mine)) == ("queued", [])
    assert len(one.calls) == 1


async def test_sustained_throttling_counts_in_the_end(store: Store) -> None:
    one, two = Vendor(always(Throttled("x", code="429"))), Vendor()
    ids = [accept(store, number) for number in range(40)]
    async with working(store, one, two, seats=2):
        await ended(store, *ids)
        await until(lambda: state(store) == "open")
    assert 10 <= len(one.calls) < 20


async def test_what_the_chain_cannot_send_is_told(store: Store) -> None:
    one, two = Vendor(), Vendor()
    new = new_message(type="image", media='[{"url":"https://example.com/a.png"}]')
    new.route = "two"
    (id_,) = store.accept_all(new)
    async with working(store, one, two):
        await ended(store, id_)
    assert whys(store, id_) == [
        ("next in the chain", [("one", "cannot send media on sms")]),
    ]
