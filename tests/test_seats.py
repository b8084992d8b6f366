"""A provider that sends only so many messages at once is given no more: what is for it waits in the
queue, in its order, at no cost, and is not passed on to who is next in its chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from gateway.breaker import Policy
from gateway.clock import SystemClock
from gateway.domain import Channel, OutboundMessage, Priority, Receipt
from gateway.drafts import Draft
from gateway.errors import Unreachable
from gateway.outbound import Outbound
from gateway.store.accepts import Accepted
from gateway.worker import Worker
from tests.stored import TENANT, Store, person
from tests.test_failover import FOR_LONG, PATIENT, ROUTES, accept, path, whys
from tests.working import SMS, Vendor, at_work, ended, until

pytestmark = pytest.mark.anyio

BOUND = replace(ROUTES[0], capabilities=replace(SMS, seats=3))
BOTH = (BOUND, ROUTES[1])


async def slowly(vendor: Vendor, message: OutboundMessage) -> Receipt:
    await asyncio.sleep(0.01)
    return Receipt(provider_message_id=f"SM-{message.attempt_id}")


@asynccontextmanager
async def working(store: Store, *vendors: Vendor) -> AsyncIterator[Worker]:
    """A worker with seats for all, and a chain whose first has three."""
    given = {"retry": PATIENT, "policy": FOR_LONG, "senders": FOR_LONG, "seats": 64}
    async with at_work(store, *vendors, routes=BOTH[: len(vendors)], **given) as worker:
        yield worker


async def test_it_never_has_more_than_it_can_carry_and_each_is_tried_once(store: Store) -> None:
    one = Vendor(slowly)
    ids = [accept(store, number) for number in range(40)]
    async with working(store, one):
        await ended(store, *ids)
    assert one.most == 3
    assert sorted(call.message_id for call in one.calls) == ids
    assert {len(path(store, id_)) for id_ in ids} == {1}


async def test_news_that_come_all_the_time_give_it_no_more(store: Store) -> None:
    async def poking(worker: Worker) -> None:
        while True:
            worker.poke()
            await asyncio.sleep(0)

    one = Vendor(slowly)
    ids = [accept(store, number) for number in range(40)]
    async with working(store, one) as worker:
        pokes = asyncio.create_task(poking(worker))
        await ended(store, *ids)
        pokes.cancel()
    assert one.most == 3


async def test_what_waits_for_a_seat_is_not_passed_on(store: Store) -> None:
    one, two = Vendor(slowly), Vendor()
    ids = [accept(store, number) for number in range(40)]
    async with working(store, one, two):
        await ended(store, *ids)
    assert (one.most, len(one.calls), two.calls) == (3, 40, [])


async def test_who_has_seats_is_not_held_up_by_who_has_none(store: Store) -> None:
    gate = asyncio.Event()

    async def stuck(vendor: Vendor, message: OutboundMessage) -> Receipt:
        await gate.wait()
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    one, two = Vendor(stuck), Vendor()
    first = [accept(store, number) for number in range(9)]
    async with working(store, one, two):
        await until(lambda: len(one.calls) == 3)
        id_ = await asyncio.to_thread(alone, store)
        await ended(store, id_)
        gate.set()
        await ended(store, *first)
    assert [call.message_id for call in two.calls] == [id_]


def alone(store: Store) -> str:
    """A message that only the second may send."""
    id_ = accept(store, 99)
    store.change("UPDATE queue SET route = 'two' WHERE message_id = ?", id_)
    return id_


async def test_what_is_urgent_has_the_next_seat(store: Store) -> None:
    one = Vendor(slowly)
    for number in range(60):
        accept(store, number, priority="low")
    async with working(store, one) as worker:
        await until(lambda: len(one.calls) >= 6)
        urgent = await asyncio.to_thread(accept, store, 99, priority="urgent")
        before = len(one.calls)
        worker.poke()
        await ended(store, urgent)
    place = [call.message_id for call in one.calls].index(urgent)
    assert place <= before + 6  # those that were claimed or on their way


def _accepting(worker: Worker) -> Outbound:
    """What accepts messages, beside a worker of the same process."""
    return Outbound(
        worker._batcher,
        {Channel.SMS: (BOUND,)},
        SystemClock(),
        region=None,
        expiry=3600,
        idempotency=3600,
        local=worker,
    )


def _drafted(outbound: Outbound, number: int) -> asyncio.Task[Accepted]:
    """A message to one of many people, which is being accepted."""
    draft = Draft(channel=Channel.SMS, to=person(number), body="hi", priority=Priority.HIGH)
    return asyncio.create_task(outbound.accept(draft, tenant_id=TENANT))


async def test_a_message_is_handed_over_only_while_there_is_a_seat(store: Store) -> None:
    one = Vendor(slowly)
    async with working(store, one) as worker:
        outbound = _accepting(worker)
        asked = [_drafted(outbound, n) for n in range(40)]
        ids = [str(done.view["id"]) for done in await asyncio.gather(*asked)]
        await ended(store, *ids)
    assert one.most == 3
    assert {len(path(store, id_)) for id_ in ids} == {1}


async def test_who_is_handed_over_while_others_are_claimed_takes_no_seat_of_theirs(
    store: Store,
) -> None:
    one = Vendor(slowly)
    async with working(store, one) as worker:
        outbound = _accepting(worker)
        for turn in range(10):
            waiting = [
                await asyncio.to_thread(accept, store, 10 * turn + n, priority="urgent")
                for n in range(3)
            ]
            worker.poke()
            asked = _drafted(outbound, 10 * turn + 9)
            await asyncio.sleep(0)  # the claim is under way
            made = await asked
            await ended(store, *waiting, str(made.view["id"]))
    assert one.most == 3
    assert len(one.calls) == 40


async def test_who_fails_over_to_it_waits_for_a_seat(store: Store) -> None:
    async def away(vendor: Vendor, message: OutboundMessage) -> Receipt:
        await asyncio.sleep(0.02)  # so that all of them come at once
        raise Unreachable("x", code="dns")

    two, one = Vendor(away), Vendor(slowly)
    patient = Policy(failures=500, messages=500, open_for=600_000, successes=2, probe=60_000)
    ids = [accept(store, number) for number in range(30)]
    store.change("UPDATE queue SET route = 'two,one'")
    given = {"retry": PATIENT, "policy": patient, "senders": FOR_LONG, "seats": 64}
    chain = (BOTH[1], BOTH[0])
    async with at_work(store, two, one, routes=chain, **given):
        await ended(store, *ids)
    assert one.most == 3
    assert {tuple(path(store, id_)) for id_ in ids} == {("two", "one")}
    again = ("failover from two (unreachable: dns)", [("two", "tried")])
    assert all(whys(store, id_) == [("first of the chain", []), again] for id_ in ids)
