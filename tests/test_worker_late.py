"""Answers that come after their send was given up: always applied, and never a second request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable

import pytest

from gateway import sending, worker as working
from gateway.domain import OutboundMessage, Receipt
from gateway.errors import Ambiguous, ProviderError, Rejected, Throttled
from gateway.routing import Retry
from tests.outbound_cases import entry_of, provider
from tests.stored import Store
from tests.vendors import LoopbackVendor, Reply
from tests.working import Answer, Vendor, at_work, ended, until

pytestmark = pytest.mark.anyio


def giving_up(late: Awaitable[Receipt]) -> Answer:
    """Gives the first message up, and takes what comes then."""

    async def answer(vendor: Vendor, message: OutboundMessage) -> Receipt:
        if len(vendor.calls) == 1:
            raise Ambiguous("no answer in time", code="timeout", late=late)
        return Receipt(provider_message_id=f"SM-{message.attempt_id}")

    return answer


async def test_a_late_yes_is_applied_and_the_vendor_saw_one_request(store: Store) -> None:
    late: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    id_ = store.accept()
    vendor = Vendor(giving_up(late))
    async with at_work(store, vendor):
        await ended(store, id_, status="unknown")
        late.set_result(Receipt(provider_message_id="SM-late"))
        await ended(store, id_)
    assert vendor.times(id_) == 1
    (attempt,) = store.attempts(id_)
    assert (attempt["status"], attempt["provider_message_id"]) == ("accepted", "SM-late")
    assert store.queued(id_) is None


async def test_a_late_yes_calls_off_the_copy_that_was_planned(store: Store) -> None:
    late: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    id_ = store.accept(on_unknown="resend")
    vendor = Vendor(giving_up(late))
    async with at_work(store, vendor, retry=Retry(base=900, cap=900, limit=4)):
        await until(lambda: len(store.attempts(id_)) == 1 and store.status(id_) == "queued")
        late.set_result(Receipt(provider_message_id="SM-late"))
        await ended(store, id_)
    assert vendor.times(id_) == 1
    assert store.queued(id_) is None


async def test_a_late_no_ends_what_was_unknown(store: Store) -> None:
    late: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    id_ = store.accept()
    vendor = Vendor(giving_up(late))
    async with at_work(store, vendor):
        await ended(store, id_, status="unknown")
        late.set_exception(Rejected("opted out", code="OptedOut"))
        await ended(store, id_, status="failed")
    assert vendor.times(id_) == 1
    assert store.message(id_)["error_code"] == "OptedOut"


async def test_a_late_not_now_is_tried_again(store: Store) -> None:
    late: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    id_ = store.accept()
    vendor = Vendor(giving_up(late))
    async with at_work(store, vendor):
        await ended(store, id_, status="unknown")
        late.set_exception(Throttled("too fast", code="Throttling"))
        await ended(store, id_)
    assert vendor.times(id_) == 2


@pytest.mark.parametrize(
    "error", [Ambiguous("dropped", code="no_answer"), ProviderError("of no class"), ValueError()]
)
async def test_a_late_silence_tells_nothing_new(store: Store, error: Exception) -> None:
    late: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    id_ = store.accept()
    vendor = Vendor(giving_up(late))
    async with at_work(store, vendor):
        await ended(store, id_, status="unknown")
        late.set_exception(error)
        other = await asyncio.to_thread(store.accept)
        await ended(store, other)
    assert store.status(id_) == "unknown"
    assert store.message(id_)["error_code"] == "timeout"


async def test_nobody_listens_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "LATE", 0.05)
    late: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    id_ = store.accept()
    async with at_work(store, Vendor(giving_up(late))):
        await ended(store, id_, status="unknown")
        await until(late.cancelled)
    assert store.status(id_) == "unknown"


async def test_stopping_waits_a_moment_for_what_is_late(store: Store) -> None:
    late: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    id_ = store.accept()
    async with at_work(store, Vendor(giving_up(late))) as worker:
        await ended(store, id_, status="unknown")
        stopping = asyncio.create_task(worker.stop(10))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        late.set_result(Receipt(provider_message_id="SM-late"))
        await stopping
    assert store.status(id_) == "accepted"


async def test_stopping_is_not_held_up_by_what_never_comes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "LAST_WRITES", 0.1)
    late: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    id_ = store.accept()
    async with at_work(store, Vendor(giving_up(late))) as worker:
        await ended(store, id_, status="unknown")
        async with asyncio.timeout(5):
            await worker.stop(10)
    assert store.status(id_) == "unknown"


async def test_a_vendor_that_answers_after_our_time_is_believed(store: Store) -> None:
    setup = entry_of("aws_sns", "text")
    id_ = store.accept()
    with LoopbackVendor() as vendor:
        body = b'{"MessageId": "862a8790-60c0-4430-9b2b-658bdexample"}'
        vendor.always = Reply(body=body, after=(given_up := threading.Event()))
        async with (
            provider(setup, vendor.url, timeout=1.5) as slow,
            at_work(store, slow),
        ):
            await ended(store, id_, status="unknown")
            given_up.set()
            await ended(store, id_)
        assert vendor.count == 1
    (attempt,) = store.attempts(id_)
    assert attempt["provider_message_id"] == "862a8790-60c0-4430-9b2b-658bdexample"
