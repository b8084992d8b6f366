"""The worker at its limits: stopped, late, cut off, and with everything going wrong at once."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from gateway import worker as working
from gateway.clock import SystemClock, new_id
from gateway.domain import OutboundMessage, Receipt, Status
from gateway.errors import (
    Ambiguous,
    Rejected,
    SettingsError,
    Throttled,
    Unreachable,
)
from gateway.routing import Retry
from gateway.store import batcher as batching
from gateway.store.database import Database
from tests.databases import Wire
from tests.stored import Store, future, new_message, person, update
from tests.working import Vendor, at_work, ended, limits, until

pytestmark = pytest.mark.anyio


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


async def test_a_message_for_a_provider_that_is_not_set_up_is_left_to_whom_it_is(
    store: Store,
) -> None:
    elsewhere, here = store.accept(provider="gone"), store.accept(to=person(2))
    vendor = Vendor()
    async with at_work(store, vendor):
        await ended(store, here)
    assert [call.message_id for call in vendor.calls] == [here]
    entry = store.queued(elsewhere)
    assert entry is not None
    assert (entry["claims"], entry["lease_until"], store.status(elsewhere)) == (0, 0, "queued")


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

    both = asyncio.Event()

    async def together(vendor: Vendor, message: OutboundMessage) -> Receipt:
        if one.calls and two.calls:
            both.set()
        await both.wait()  # nobody takes all of it before the other has begun
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    one, two = Vendor(together), Vendor(together)
    async with at_work(store, one), at_work(other, two):
        await ended(store, *ids)
    assert sorted(call.message_id for call in (*one.calls, *two.calls)) == sorted(ids)
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
