"""The worker with a real store: what is due is sent once, and what happened is never forgotten.

The vendors here are doubles of a vendor, not of our code: they count what reaches them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from gateway import worker as working
from gateway.clock import SystemClock, new_id
from gateway.domain import Capabilities, Channel, OutboundMessage, Receipt, Status
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SettingsError,
    Throttled,
    Unreachable,
)
from gateway.routing import Retry, Route
from gateway.store import batcher as batching
from gateway.store.batcher import Batcher
from gateway.store.database import Database
from gateway.worker import Limits, Worker
from tests.databases import Wire
from tests.stored import CONNECTION, HOUR, Store, future, new_message, person, update

pytestmark = pytest.mark.anyio

SMS = Capabilities(channels=frozenset({Channel.SMS}))
ROUTE = Route("test", SMS, CONNECTION)
Answer = Callable[["Vendor", OutboundMessage], Awaitable[Any]]


class Vendor:
    """Takes messages, or does whatever a test wants of it."""

    name, capabilities = "test", SMS

    def __init__(self, answer: Answer | None = None) -> None:
        self._answer = answer
        self.calls: list[OutboundMessage] = []
        self.at_once = self.most = 0

    async def send(self, message: OutboundMessage) -> Receipt:
        """Counts a call, and answers."""
        self.calls.append(message)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if self._answer is None:
                return Receipt(provider_message_id=f"SM-{message.attempt_id}")
            return await self._answer(self, message)  # type: ignore[no-any-return]
        finally:
            self.at_once -= 1

    async def aclose(self) -> None:
        """Nothing to free."""

    def times(self, id_: str) -> int:
        """How often a message came."""
        return sum(call.message_id == id_ for call in self.calls)


def raising(*errors: BaseException | None) -> Answer:
    """Raises these in turn, then takes what comes."""
    waiting = list(errors)

    async def answer(vendor: Vendor, message: OutboundMessage) -> Receipt:
        error = waiting.pop(0) if waiting else None
        if error is not None:
            raise error
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    return answer


def limits(**more: Any) -> Limits:
    """Quick ones."""
    return Limits(
        **{
            "seats": 8,
            "send": 5.0,
            "lease": 60.0,
            "poll": 0.05,
            "receipts": 3600.0,
            "retry": Retry(base=0.01, cap=0.02, limit=4),
            **more,
        }
    )


@asynccontextmanager
async def at_work(
    store: Store, vendor: Vendor, *, clock: Any = None, only: bool = False, **more: Any
) -> AsyncIterator[Worker]:
    """A worker with its batcher."""

    def committed(topics: set[str]) -> None:
        if "queue" in topics:
            worker.poke()

    batcher = Batcher(store.database, committed)
    batcher.start()
    worker = Worker(
        batcher,
        {"test": vendor},
        {"test": ROUTE},
        clock or SystemClock(),
        limits(**more),
        origin="https://gateway.example.com",
        only_process=only,
    )
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop(5)
        await batcher.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something to become true."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def ended(store: Store, *ids: str, status: str = "accepted") -> None:
    """Waits until messages stand somewhere."""

    def there() -> bool:
        found = {row.id: row.status for row in store.rows("SELECT id, status FROM messages")}
        return all(found[id_] == status for id_ in ids)

    await until(there)


async def test_every_message_is_sent_exactly_once_by_at_most_so_many_at_a_time(
    store: Store,
) -> None:
    ids = store.accept_all(*(new_message(to=person(n)) for n in range(120)))

    async def slowly(vendor: Vendor, message: OutboundMessage) -> Receipt:
        for _ in range(20):
            await asyncio.sleep(0)
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    vendor = Vendor(slowly)
    async with at_work(store, vendor, seats=7):
        await ended(store, *ids)
    assert sorted(call.message_id for call in vendor.calls) == ids
    assert 1 < vendor.most <= 7
    assert store.count("queue") == 0


async def test_a_message_that_comes_later_is_sent_at_once(store: Store) -> None:
    vendor = Vendor()
    async with at_work(store, vendor, poll=30) as worker:
        id_ = await asyncio.to_thread(store.accept)
        worker.poke()
        await ended(store, id_)
    assert vendor.times(id_) == 1


async def test_a_conversation_is_sent_in_its_order(store: Store) -> None:
    ids = store.accept_all(*(new_message(body=f"{n}", to=person(n % 3)) for n in range(30)))
    random = Random(3)

    async def unevenly(vendor: Vendor, message: OutboundMessage) -> Receipt:
        await asyncio.sleep(random.random() * 0.01)
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    vendor = Vendor(unevenly)
    async with at_work(store, vendor):
        await ended(store, *ids)
    for whom in range(3):
        bodies = [int(call.body) for call in vendor.calls if call.to == person(whom)]
        assert bodies == sorted(bodies)
        assert len(bodies) == 10


async def test_a_provider_gets_all_that_was_asked_for(store: Store) -> None:
    store.accept(
        body="hello",
        content='{"a":1}',
        reply_to="SM0",
        subject="s",
        extra='{"html":"<p>","template":{"name":"t"}}',
        media=json.dumps([{"url": "/api/media/med_1"}, {"url": "https://example.com/a.png"}]),
        expires_at=future(HOUR),
    )
    vendor = Vendor()
    async with at_work(store, vendor):
        await until(lambda: len(vendor.calls) == 1)
    (call,) = vendor.calls
    assert (call.body, call.content, call.reply_to, call.html) == ("hello", {"a": 1}, "SM0", "<p>")
    assert (call.template, call.subject, call.sender.address) == (
        {"name": "t"},
        "s",
        "+15005550006",
    )
    assert [file.url for file in call.media] == [
        "https://gateway.example.com/api/media/med_1",
        "https://example.com/a.png",
    ]
    (attempt,) = store.attempts(call.message_id)
    assert call.attempt_id == attempt["id"]
    assert call.callback_url == (
        f"https://gateway.example.com/api/webhooks/test?attempt={call.attempt_id}"
    )
    assert call.validity is not None
    assert 3500 < call.validity <= 3600


async def test_a_message_without_a_sender_goes_from_the_connections_own(store: Store) -> None:
    store.accept(from_address=None)
    vendor = Vendor()
    async with at_work(store, vendor):
        await until(lambda: len(vendor.calls) == 1)
    assert vendor.calls[0].sender == CONNECTION.senders[Channel.SMS]


class Unheard(Rejected):
    """A class of an adapter's own, which nobody decided about."""


@pytest.mark.parametrize(
    "error",
    [
        Ambiguous("lost", code="timeout"),
        ValueError("a bug of the adapter"),
        TimeoutError(),
        ProviderError("of no class"),
        Unheard("of a new class", code="x"),
        ExceptionGroup("several", [ValueError("x")]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_unknown_outcome_is_held_and_never_sent_again(
    store: Store, error: Exception
) -> None:
    id_ = store.accept()
    vendor = Vendor(raising(error))
    async with at_work(store, vendor):
        await ended(store, id_, status="unknown")
        other = await asyncio.to_thread(store.accept, to=person(2))
        await ended(store, other)
    assert vendor.times(id_) == 1
    assert store.queued(id_) is None


@pytest.mark.parametrize(
    "garbage",
    [
        None,
        "SM1",
        {"sid": "SM1"},
        Receipt(provider_message_id="\ud800"),
        Receipt(provider_message_id="SM1", status=Status.QUEUED),
        Receipt(provider_message_id=object()),  # type: ignore[arg-type]
    ],
    ids=["none", "text", "object", "surrogate", "status", "type"],
)
async def test_an_answer_that_is_no_receipt_proves_nothing(store: Store, garbage: Any) -> None:
    async def answer(vendor: Vendor, message: OutboundMessage) -> Any:
        return garbage

    id_ = store.accept()
    vendor = Vendor(answer)
    async with at_work(store, vendor):
        await ended(store, id_, status="unknown")
    assert len(vendor.calls) == 1
    assert store.message(id_)["error_code"] in ("adapter", "unstorable")


async def test_an_unknown_outcome_is_repeated_where_a_copy_harms_nobody(store: Store) -> None:
    id_ = store.accept(on_unknown="resend")
    vendor = Vendor(raising(Ambiguous("x"), Ambiguous("x")))
    async with at_work(store, vendor):
        await ended(store, id_)
    assert vendor.times(id_) == 3
    assert len({call.attempt_id for call in vendor.calls}) == 3


async def test_what_was_not_sent_is_tried_again(store: Store) -> None:
    id_ = store.accept()
    vendor = Vendor(raising(Unreachable("x"), Throttled("x", retry_after=0.01)))
    async with at_work(store, vendor):
        await ended(store, id_)
    assert vendor.times(id_) == 3
    assert [a["status"] for a in store.attempts(id_)] == ["failed", "failed", "accepted"]


async def test_it_is_given_up_after_so_many_tries(store: Store) -> None:
    id_ = store.accept()
    vendor = Vendor(raising(*(Unreachable("x") for _ in range(9))))
    async with at_work(store, vendor, retry=Retry(0.001, 0.002, 2)):
        await ended(store, id_, status="failed")
    assert vendor.times(id_) == 3


async def test_a_vendor_that_says_when_is_not_asked_sooner(store: Store) -> None:
    id_ = store.accept()
    vendor = Vendor(raising(Throttled("x", retry_after=120)))
    async with at_work(store, vendor):
        await until(lambda: len(store.attempts(id_)) == 1 and store.status(id_) == "queued")
        entry, row = store.queued(id_), store.message(id_)
        assert entry is not None
        assert entry["due_at"] - row["updated_at"] >= 120_000
        assert vendor.times(id_) == 1
        store.make_due(id_)
        await ended(store, id_)
    assert vendor.times(id_) == 2


@pytest.mark.parametrize("error", [Rejected("x", code="21211"), AccountRefused("x", code="20003")])
async def test_what_cannot_succeed_is_not_repeated(store: Store, error: ProviderError) -> None:
    id_ = store.accept()
    vendor = Vendor(raising(error))
    async with at_work(store, vendor):
        await ended(store, id_, status="failed")
    assert vendor.times(id_) == 1
    assert store.message(id_)["error_code"] == error.code


async def test_a_vendor_that_does_not_answer_is_left_in_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "GRACE", 0.05)

    async def never(vendor: Vendor, message: OutboundMessage) -> Receipt:
        await asyncio.Event().wait()
        raise AssertionError

    id_ = store.accept()
    async with at_work(store, Vendor(never), send=0.05):
        await ended(store, id_, status="unknown")
    assert store.message(id_)["error_code"] == "timeout"


async def test_stopping_waits_for_what_is_in_flight(store: Store) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(vendor: Vendor, message: OutboundMessage) -> Receipt:
        entered.set()
        await leave.wait()
        return Receipt(provider_message_id="SM1")

    first, second = store.accept_all(new_message(), new_message())
    vendor = Vendor(slow)
    async with at_work(store, vendor) as worker:
        await entered.wait()
        stopping = asyncio.create_task(worker.stop(10))
        await asyncio.sleep(0)
        assert not stopping.done()
        leave.set()
        await stopping
    assert (store.status(first), store.status(second)) == ("accepted", "queued")
    assert vendor.times(second) == 0


async def test_what_stopping_cuts_off_is_unknown_at_once(store: Store) -> None:
    entered = asyncio.Event()

    async def never(vendor: Vendor, message: OutboundMessage) -> Receipt:
        entered.set()
        await asyncio.Event().wait()
        raise AssertionError

    id_ = store.accept()
    async with at_work(store, Vendor(never)) as worker:
        await entered.wait()
        await worker.stop(0.05)
    assert (store.status(id_), store.message(id_)["error_code"]) == ("unknown", "stopped")


async def test_what_was_claimed_when_the_stop_came_is_sent(store: Store) -> None:
    vendor = Vendor()
    for n in range(10):
        id_ = store.accept(to=person(n))
        async with at_work(store, vendor):
            for _ in range(n):
                await asyncio.sleep(0)
        assert store.status(id_) in ("queued", "accepted")
        entry = store.queued(id_)
        assert entry is None or entry["lease_until"] == 0
    assert all(vendor.times(call.message_id) == 1 for call in vendor.calls)


async def test_the_vendors_answer_is_kept_until_the_database_is_back(
    postgres_url: str, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PATIENCE", 0.2)
    near, far = Store(Database(postgres_url)), Store(Database(wire.url(postgres_url)))

    async def away(vendor: Vendor, message: OutboundMessage) -> Receipt:
        wire.go_down()
        return Receipt(provider_message_id="SM1")

    id_ = near.accept()
    vendor = Vendor(away)
    async with at_work(far, vendor):
        await until(lambda: wire.refused > 3)
        assert near.status(id_) == "sending"
        wire.come_back()
        await ended(near, id_)
    assert vendor.times(id_) == 1
    assert near.message(id_)["provider_message_id"] == "SM1"
    for store in (near, far):
        store.database.close()


async def test_stopping_ends_even_if_the_database_stays_away(
    postgres_url: str, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PATIENCE", 0.1)
    monkeypatch.setattr(working, "LAST_WRITES", 0.1)
    far = Store(Database(wire.url(postgres_url)))
    entered = asyncio.Event()

    async def away(vendor: Vendor, message: OutboundMessage) -> Receipt:
        wire.go_down()
        entered.set()
        return Receipt(provider_message_id="SM1")

    far.accept()
    async with at_work(far, Vendor(away)) as worker:
        await entered.wait()
        async with asyncio.timeout(10):
            await worker.stop(0.1)
    far.database.close()


class Jumping(SystemClock):
    """A monotonic clock that jumps ahead once, as a machine does that slept."""

    def __init__(self, call: int) -> None:
        self._left, self._ahead = call, 0.0

    def monotonic(self) -> float:
        """Seconds."""
        self._left -= 1
        if self._left == 0:
            self._ahead = 1000.0
        return super().monotonic() + self._ahead


async def test_a_message_whose_lease_is_nearly_over_is_not_sent_but_due_again(
    store: Store,
) -> None:
    id_ = store.accept()
    vendor = Vendor()
    async with at_work(store, vendor, clock=Jumping(call=2), poll=30):
        await ended(store, id_)
    assert vendor.times(id_) == 1
    late, sent = store.attempts(id_)
    assert (late["status"], late["error_code"]) == ("failed", "late")
    assert sent["id"] == vendor.calls[0].attempt_id


def test_a_lease_that_cannot_outlive_a_send_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError, match="LEASE_TIME"):
        limits(send=60.0, lease=60.0)


async def test_a_message_that_expired_meanwhile_is_not_sent(store: Store) -> None:
    id_ = store.accept()
    store.change("UPDATE messages SET expires_at = 1")
    vendor = Vendor()
    async with at_work(store, vendor):
        await ended(store, id_, status="expired")
    assert vendor.calls == []


async def test_a_scheduled_message_is_sent_when_its_time_comes(store: Store) -> None:
    id_ = store.accept(send_at=future(300))
    assert store.status(id_) == "scheduled"
    vendor = Vendor()
    async with at_work(store, vendor):
        assert vendor.calls == []
        await ended(store, id_)
    sent = store.attempts(id_)[0]["started_at"]
    assert sent >= store.message(id_)["send_at"]


async def test_the_only_process_finds_at_its_start_what_the_last_one_left(store: Store) -> None:
    begun = store.begun()
    waiting = store.accept(to=person(2))
    store.claim()
    vendor = Vendor()
    async with at_work(store, vendor, only=True):
        await ended(store, waiting)
    assert store.status(begun.due.message_id) == "unknown"
    assert [call.message_id for call in vendor.calls] == [waiting]


async def test_a_message_for_a_provider_that_is_not_set_up_is_put_aside(store: Store) -> None:
    id_ = store.accept(provider="gone")
    vendor = Vendor()
    async with at_work(store, vendor):
        for _ in range(3):
            await until(lambda: (store.queued(id_) or {})["lease_until"] > 0)
            store.lapse()
        await ended(store, id_, status="held")
    assert vendor.calls == []


async def test_a_provider_may_say_at_once_what_became_of_it(store: Store) -> None:
    async def told(vendor: Vendor, message: OutboundMessage) -> Receipt:
        said = tuple(
            update(status, attempt_id=message.attempt_id, recipient=message.to)
            for status in (Status.SENT, Status.DELIVERED)
        )
        return Receipt(provider_message_id="SM1", updates=said)

    id_ = store.accept()
    async with at_work(store, Vendor(told)):
        await ended(store, id_, status="delivered")
    kinds = ["queued", "sending", "accepted", "sent", "delivered"]
    assert store.told(id_) == [f"message.{kind}" for kind in kinds]


async def test_two_workers_share_the_work(store: Store, url: str) -> None:
    other = Store(Database(url))
    ids = store.accept_all(*(new_message(to=person(n % 40)) for n in range(120)))

    async def slowly(vendor: Vendor, message: OutboundMessage) -> Receipt:
        await asyncio.sleep(0.002)
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    one, two = Vendor(slowly), Vendor(slowly)
    async with at_work(store, one), at_work(other, two):
        await ended(store, *ids)
    assert sorted(call.message_id for call in (*one.calls, *two.calls)) == sorted(ids)
    assert one.calls
    assert two.calls
    other.database.close()


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_goes_wrong_nothing_is_lost_and_nothing_is_taken_twice(
    store: Store, seed: int
) -> None:
    random, taken = Random(seed), list[str]()
    ids = [
        store.accept(to=person(n % 15), on_unknown="resend" if n % 4 == 0 else "hold")
        for n in range(60)
    ]
    harmless = set(ids[::4])

    async def anything(vendor: Vendor, message: OutboundMessage) -> Receipt:
        await asyncio.sleep(random.random() * 0.004)
        luck = random.random()
        if luck < 0.15:
            raise Unreachable("x")
        if luck < 0.25:
            raise Throttled("x", retry_after=random.random() * 0.02)
        if luck < 0.30:
            raise Rejected("x")
        if luck < 0.35:
            raise Ambiguous("x")
        taken.append(message.message_id)
        if luck < 0.45:
            raise Ambiguous("x")
        if luck < 0.50:
            raise OSError("garbage")
        if luck < 0.55:
            await asyncio.Event().wait()  # the process is stopped meanwhile
        return Receipt(provider_message_id=new_id("SM"))

    vendor, ends = Vendor(anything), {"accepted", "failed", "unknown"}
    for _ in range(40):
        async with at_work(store, vendor, retry=Retry(0.001, 0.004, 6), only=True) as worker:
            for _ in range(50):
                await asyncio.sleep(0.002)
                if store.count("queue") == 0:
                    break
            await worker.stop(0.01)
        if store.count("queue") == 0:
            break
    assert {store.status(id_) for id_ in ids} <= ends
    assert store.count("queue") == 0
    for id_ in ids:
        if id_ not in harmless:
            assert taken.count(id_) <= 1
        if store.status(id_) == "accepted":
            assert id_ in taken
        if id_ in taken:
            assert store.status(id_) in ("accepted", "unknown")
