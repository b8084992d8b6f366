"""What is accepted where nothing waits is begun in that transaction, and sent without a claim."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.clock import SystemClock, new_id
from gateway.domain import Channel, OutboundMessage, Receipt
from gateway.drafts import Draft
from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.outbound import Outbound
from gateway.store.accepts import ACCEPT, HandOff, IdempotencyKey, NewMessage
from gateway.store.batcher import Batcher
from gateway.worker import Worker
from tests.stored import CONNECTION, PERSON, TENANT, Store, future, keyed, new_message, person
from tests.working import ROUTE, Vendor, at_work, ended, until

pytestmark = pytest.mark.anyio


def seated(**columns: object) -> NewMessage:
    """A message for which a worker keeps a seat."""
    new = new_message(**columns)  # type: ignore[arg-type]
    new.handoff = HandOff(
        new_id("att"), new_id("lease"), 60_000, 0.0, "test", CONNECTION, CONNECTION.id
    )
    return new


def handed(*items: NewMessage) -> list[bool]:
    """Which of them were handed over."""
    return [item.handoff is not None and item.handoff.attempt is not None for item in items]


def test_a_message_that_is_handed_over_is_begun_with_its_accept(store: Store) -> None:
    new = seated()
    (answer,) = store.accepted(new)
    assert answer.view["status"] == "queued"  # what it was when it was accepted
    assert handed(new) == [True]
    assert new.handoff is not None
    id_ = new.row["id"]
    (attempt,) = store.attempts(id_)
    assert (attempt["id"], attempt["status"]) == (new.handoff.attempt_id, "sending")
    assert (attempt["recipient"], attempt["lease_token"]) == (PERSON, new.handoff.token)
    assert store.told(id_) == ["message.queued", "message.sending"]
    entry = store.queued(id_)
    assert entry is not None
    assert (entry["lease_token"], entry["attempts"]) == (new.handoff.token, 1)
    assert entry["lease_until"] > future(50_000)
    assert store.claim() == []


def test_what_waits_in_its_lane_or_above_goes_first(store: Store) -> None:
    store.accept(to=person(1), priority="high")
    items = [
        seated(to=person(2), priority="normal"),
        seated(to=person(3), priority="high"),
        seated(to=person(4), priority="urgent"),
    ]
    store.accepted(*items)
    assert handed(*items) == [False, False, True]


def test_what_waits_for_its_time_holds_nobody_up(store: Store) -> None:
    store.accept(to=person(1), send_at=future(3_600_000))
    later, now = seated(to=person(2), send_at=future(60_000)), seated(to=person(3))
    store.accepted(later, now)
    assert handed(later, now) == [False, True]
    assert store.status(later.row["id"]) == "scheduled"


def test_a_person_is_written_to_in_order(store: Store) -> None:
    first, second, other = seated(), seated(), seated(to=person(9))
    store.accepted(first, second)
    store.accepted(other)
    assert handed(first, second, other) == [True, False, False]  # the second is waiting now
    third = seated(priority="urgent")
    store.accepted(third)
    assert handed(third) == [False]
    assert store.claimed() == sorted([other.row["id"], third.row["id"]])


def test_what_comes_behind_one_without_a_seat_waits_behind_it(store: Store) -> None:
    plain, eager = new_message(to=person(1)), seated(to=person(2))
    store.accepted(plain, eager)
    assert handed(plain, eager) == [False, False]
    assert sorted(store.claimed()) == sorted([plain.row["id"], eager.row["id"]])


def test_what_has_no_time_left_is_not_handed_over(store: Store) -> None:
    late = seated(expires_at=1)
    store.accepted(late)
    assert handed(late) == [False]
    store.sweep()
    assert store.status(late.row["id"]) == "expired"


@pytest.mark.parametrize("key", [None, keyed("k")])
def test_what_a_lost_commit_handed_over_is_found_again(
    store: Store, key: IdempotencyKey | None
) -> None:
    new = seated(idempotency=key)
    store.accepted(new)
    (answer,) = store.accepted(new)  # the same batch again: its commit was thought to be lost
    assert (handed(new), answer.replayed) == ([True], False)
    assert store.count("attempts") == store.count("queue") == 1


def test_a_repeated_request_is_not_handed_over_again(store: Store) -> None:
    first, second = seated(idempotency=keyed("k")), seated(idempotency=keyed("k"))
    third = seated(idempotency=keyed("k"))
    store.accepted(first, second)
    (answer,) = store.accepted(third)
    assert handed(first, second, third) == [True, False, False]
    assert answer.replayed
    assert store.count("attempts") == 1


def test_a_crash_behind_the_accept_is_ambiguous_and_never_sent_blindly(store: Store) -> None:
    new = seated()
    store.accepted(new)
    store.sweep(all_leases=True)
    assert store.status(new.row["id"]) == "unknown"
    assert store.claim() == []


@asynccontextmanager
async def accepting(
    store: Store, vendor: Vendor, **more: object
) -> AsyncIterator[tuple[Outbound, Worker, Batcher]]:
    """What accepts messages, beside a worker of the same process."""
    async with at_work(store, vendor, **more) as worker:  # type: ignore[arg-type]
        batcher = worker._batcher
        yield (
            Outbound(
                batcher,
                {Channel.SMS: (ROUTE,)},
                SystemClock(),
                region=None,
                expiry=3600,
                idempotency=3600,
                local=worker,
            ),
            worker,
            batcher,
        )


def draft(number: int) -> Draft:
    """A message to one of many people."""
    return Draft(channel=Channel.SMS, to=person(number), body="hi")


async def accept(outbound: Outbound, number: int = 1) -> str:
    """Accepts a message; its id."""
    return str((await outbound.accept(draft(number), tenant_id=TENANT)).view["id"])


async def test_it_is_sent_without_a_claim(store: Store) -> None:
    vendor = Vendor()
    async with accepting(store, vendor, poll=30) as (outbound, _, _):
        ids = [await accept(outbound, number) for number in range(5)]
        await ended(store, *ids)
    assert [call.message_id for call in vendor.calls] == ids
    assert store.value("SELECT MAX(claims) FROM queue") is None
    assert store.count("attempts") == 5


async def test_without_a_free_seat_it_waits_for_its_turn(store: Store) -> None:
    gate = asyncio.Event()

    async def slowly(vendor: Vendor, message: OutboundMessage) -> Receipt:
        await gate.wait()
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    vendor = Vendor(slowly)
    async with accepting(store, vendor, seats=2) as (outbound, _, _):
        ids = [await accept(outbound, number) for number in range(6)]
        await until(lambda: len(vendor.calls) == 2)
        assert [store.status(id_) for id_ in ids] == ["sending"] * 2 + ["queued"] * 4
        gate.set()
        await ended(store, *ids)
    assert vendor.most == 2
    assert [call.message_id for call in vendor.calls] == ids


async def test_who_asked_may_go_and_it_is_sent_all_the_same(store: Store) -> None:
    vendor = Vendor()
    async with accepting(store, vendor, poll=30) as (outbound, worker, _):
        asking = asyncio.create_task(accept(outbound))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: len(vendor.calls) == 1)
        await until(lambda: worker._free == 8)
    assert store.count("messages") == store.count("attempts") == 1


@pytest.mark.parametrize("error", [StoreUnavailable("away"), OutcomeUnknown("who knows")])
async def test_a_seat_is_free_again_when_it_was_not_stored(store: Store, error: Exception) -> None:
    vendor = Vendor()
    async with accepting(store, vendor) as (_, worker, _):
        for _ in range(3):
            new = seated()
            assert worker.reserve(new)
            stored: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            stored.set_exception(error)
            worker.accepted(new, stored)
        await until(lambda: worker._free == 8)
    assert vendor.calls == []


async def test_what_was_stored_after_all_and_never_begun_is_queued_again(store: Store) -> None:
    vendor = Vendor()
    async with accepting(store, vendor) as (_, worker, batcher):
        new = seated()
        assert worker.reserve(new)
        await batcher.submit(ACCEPT, new)
        stored: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        stored.set_exception(OutcomeUnknown("the answer was lost"))
        worker.accepted(new, stored)
        await ended(store, new.row["id"])
    assert len(vendor.calls) == 1
    statuses = [attempt["status"] for attempt in store.attempts(new.row["id"])]
    assert statuses == ["failed", "accepted"]


async def test_a_worker_that_stops_keeps_no_seat(store: Store) -> None:
    async with accepting(store, Vendor()) as (_, worker, _):
        await worker.stop(1)
        assert not worker.reserve(seated())
