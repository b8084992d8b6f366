"""The worker with a real store: what is due is sent once, in its order, and tried again rightly."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

import pytest

from gateway import sending
from gateway.domain import Channel, OutboundMessage, Receipt, Status
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    Throttled,
    Unreachable,
    Unsupported,
)
from gateway.routing import Retry
from tests.stored import CONNECTION, HOUR, Store, future, new_message, person
from tests.working import Vendor, at_work, ended, raising, until

pytestmark = pytest.mark.anyio


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
        "/api/media/med_1",  # its link is made where files are known
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


@pytest.mark.parametrize("error", [Rejected("x", code="21211"), Unsupported("x", code="sender")])
async def test_what_cannot_succeed_is_not_repeated(store: Store, error: ProviderError) -> None:
    id_ = store.accept()
    vendor = Vendor(raising(error))
    async with at_work(store, vendor):
        await ended(store, id_, status="failed")
    assert vendor.times(id_) == 1
    assert store.message(id_)["error_code"] == error.code


async def test_a_refused_account_loses_no_message_and_is_asked_again_without_hurry(
    store: Store,
) -> None:
    id_ = store.accept()
    vendor = Vendor(raising(AccountRefused("x", code="20003")))
    async with at_work(store, vendor):
        await ended(store, id_, status="accepted")
    assert vendor.times(id_) == 2


async def test_a_vendor_that_does_not_answer_is_left_in_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "GRACE", 0.05)

    async def never(vendor: Vendor, message: OutboundMessage) -> Receipt:
        await asyncio.Event().wait()
        raise AssertionError

    id_ = store.accept()
    async with at_work(store, Vendor(never), send=0.05):
        await ended(store, id_, status="unknown")
    assert store.message(id_)["error_code"] == "timeout"
