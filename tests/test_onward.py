"""The next provider's attempt begins in the transaction that settles the one before: with the same
checks as a T2 of its own, once, and under a lease of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from gateway.clock import new_id
from gateway.domain import Capabilities, Channel, OutboundMessage, Receipt, Status, VendorError
from gateway.errors import Ambiguous, Rejected, Throttled, Unreachable
from gateway.routing import Retry, Route, Tried
from gateway.store.deliveries import SETTLE, Attempt, Outcome
from tests.databases import locked
from tests.stored import CONNECTION, HOUR, PERSON, Store, new_message, person, said, update
from tests.working import Vendor, at_work, ended, raising, until

BUSY = Throttled("too many", code="429")


def onward(attempt: Attempt, error: Any = BUSY) -> Outcome:
    """How an attempt ended, with the one that is to follow at once."""
    due = replace(
        attempt.due,
        token=new_id("lease"),
        attempts=attempt.due.attempts + 1,
        tried=(*attempt.due.tried, Tried(attempt.provider, error.reason, error.code)),
    )
    following = Attempt(new_id("att"), due, "other", CONNECTION, attempt.sender, lease=60_000)
    return Outcome(attempt, error=error, retry_in=0, following=following)


def test_it_begins_with_the_outcome_of_the_one_before(store: Store) -> None:
    attempt = store.begun()
    outcome, id_ = onward(attempt), attempt.due.message_id
    assert store.do(SETTLE, outcome) == [True]
    one, two = store.attempts(id_)
    assert (one["status"], one["error_code"]) == ("failed", "429")
    assert (two["status"], two["number"], two["provider"]) == ("sending", 2, "other")
    entry = store.queued(id_)
    assert entry is not None and outcome.following is not None
    assert entry["lease_token"] == two["lease_token"] == outcome.following.due.token
    assert (entry["attempts"], entry["claims"]) == (2, 0)
    assert store.claim() == []
    assert store.status(id_) == "sending"
    assert store.told(id_) == ["message.queued", "message.sending"]
    store.settle(outcome.following, "V2")
    assert store.status(id_) == "accepted"
    assert store.queued(id_) is None


def test_said_again_it_has_begun_already_and_begins_no_other(store: Store) -> None:
    outcome = onward(store.begun())
    assert store.do(SETTLE, outcome) == [True]
    assert store.do(SETTLE, outcome) == [True]
    assert len(store.attempts(outcome.attempt.due.message_id)) == 2


def opted_out(store: Store, id_: str) -> None:
    """The person says STOP."""
    assert store.message(id_)["to_address"] == PERSON
    store.receive("m1", said("m1", body="STOP"))


def over(store: Store, id_: str) -> None:
    """Its time passes."""
    store.change("UPDATE messages SET expires_at = 1 WHERE id = ?", id_)


def canceled(store: Store, id_: str) -> None:
    """The application does not want it any more, though it may be too late."""
    store.change("UPDATE messages SET ended_as = 'canceled' WHERE id = ?", id_)


@pytest.mark.parametrize(
    ("happens", "status"), [(opted_out, "rejected"), (over, "failed"), (canceled, "canceled")]
)
def test_what_a_t2_would_not_send_does_not_begin(
    happens: Callable[[Store, str], None], status: str, store: Store
) -> None:
    attempt = store.begun()
    id_ = attempt.due.message_id
    happens(store, id_)
    assert store.do(SETTLE, onward(attempt)) == [False]
    assert len(store.attempts(id_)) == 1
    assert store.queued(id_) is None
    assert store.status(id_) == status


@pytest.mark.parametrize("early", [True, False])
def test_who_opts_out_in_the_same_transaction_is_not_written_to_by_the_next(
    early: bool, store: Store
) -> None:
    going, other = store.begun(), store.begun(priority="high")  # to one person
    if early:  # a callback that came before the vendor's id was known
        stop = VendorError(code="X610", message="unsubscribed", reason="opted_out")
        store.reports(update(Status.UNDELIVERED, provider_message_id="V9", error=stop))
        told = Outcome(other, receipt=Receipt(provider_message_id="V9"))
    else:
        told = Outcome(other, error=Rejected("no", code="X610", because="opted_out"))
    assert store.do(SETTLE, onward(going), told) == [False, False]
    assert len(store.attempts(going.due.message_id)) == 1
    message = store.message(going.due.message_id)
    assert (message["status"], message["error_code"]) == ("rejected", "opted_out")


def test_a_message_whose_lease_is_gone_is_not_taken_from_whom_it_went_to(store: Store) -> None:
    attempt = store.begun(on_unknown="resend")
    id_ = attempt.due.message_id
    store.lapse()
    assert store.do(SETTLE, onward(attempt)) == [False]
    assert [one["status"] for one in store.attempts(id_)] == ["failed"]
    assert store.claimed() == [id_]


def test_what_was_taken_after_all_or_is_refused_for_good_begins_nothing(store: Store) -> None:
    held, wrong = store.begun(), store.begun(to=person(2))
    assert store.do(SETTLE, onward(wrong, Rejected("no such number", code="21211"))) == [False]
    assert store.status(wrong.due.message_id) == "failed"
    store.settle(held, "V1")
    assert store.do(SETTLE, onward(held, Ambiguous("no answer"))) == [False]
    assert store.status(held.due.message_id) == "accepted"


def test_its_crash_leaves_what_a_crash_after_t2_leaves(store: Store) -> None:
    outcomes = [onward(store.begun()), onward(store.begun(to=person(2), on_unknown="resend"))]
    assert store.do(SETTLE, *outcomes) == [True, True]
    store.lapse()
    ids = [outcome.attempt.due.message_id for outcome in outcomes]
    assert [store.status(id_) for id_ in ids] == ["unknown", "queued"]
    assert [store.attempts(id_)[1]["error_code"] for id_ in ids] == ["interrupted"] * 2


BOUNDED = Capabilities(channels=frozenset({Channel.SMS}), seats=1)
FREE = Capabilities(channels=frozenset({Channel.SMS}))
ROUTES = (Route("one", BOUNDED, CONNECTION), Route("two", FREE, replace(CONNECTION, id="c-two")))


def chained(store: Store, number: int) -> str:
    """A message that both may send."""
    new = new_message(to=person(number), provider="one")
    new.route = "one,two"
    return store.accept_all(new)[0]


@pytest.mark.anyio
async def test_the_next_has_it_without_a_claim_and_the_seat_of_the_first_is_free(
    store: Store,
) -> None:
    go = asyncio.Event()

    async def slow(vendor: Vendor, message: OutboundMessage) -> Receipt:
        await go.wait()
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    one, two = Vendor(raising(BUSY)), Vendor(slow)
    async with at_work(store, one, two, routes=ROUTES, poll=HOUR, retry=Retry(900, 900, 9)) as at:
        first = chained(store, 1)
        at.poke()
        await until(lambda: len(two.calls) == 1)
        second = chained(store, 2)  # the only seat of `one` is free, while the first is at `two`
        at.poke()
        await ended(store, second)
        go.set()
        await ended(store, first)
    assert [attempt["provider"] for attempt in store.attempts(first)] == ["one", "two"]
    assert [attempt["provider"] for attempt in store.attempts(second)] == ["one"]
    assert "message.queued" not in store.told(first)[1:]
    assert (one.most, two.most) == (1, 1)


@pytest.mark.anyio
async def test_a_chain_is_gone_down_to_its_end_and_then_waits_for_its_time(store: Store) -> None:
    down = [Vendor(raising(*[Unreachable("away", code="refused")] * 9)) for _ in ROUTES]
    async with at_work(store, *down, routes=ROUTES, poll=HOUR, retry=Retry(900, 900, 9)) as at:
        id_ = chained(store, 1)
        at.poke()
        await until(lambda: store.status(id_) == "queued" and len(store.attempts(id_)) == 2)
    assert [len(vendor.calls) for vendor in down] == [1, 1]
    assert store.queued(id_) is not None
    assert store.claim() == []  # its time has not come


@pytest.mark.anyio
async def test_what_follows_while_the_process_is_being_stopped_is_left_to_the_next_one(
    store: Store, url: str
) -> None:
    answered, held = asyncio.Event(), ExitStack()

    async def busy(vendor: Vendor, message: OutboundMessage) -> Receipt:
        held.enter_context(locked(url))
        raise BUSY

    one, two = Vendor(busy), Vendor()
    patient = Retry(900, 900, 9)
    said = {"on_answer": lambda outcome, seconds: answered.set()}
    async with at_work(store, one, two, routes=ROUTES, poll=HOUR, retry=patient, **said) as at:
        id_ = chained(store, 1)
        at.poke()
        await answered.wait()
        stopping = asyncio.create_task(at.stop(0.05))  # cuts off what waits for the database
        await asyncio.sleep(0.3)
        held.close()
        await stopping
    assert two.calls == []
    assert store.status(id_) == "queued"
    assert [attempt["error_code"] for attempt in store.attempts(id_)] == ["429", "not_begun"]
    async with at_work(store, Vendor(), Vendor(), routes=ROUTES, retry=patient):
        await ended(store, id_)
    assert store.status(id_) == "accepted"
