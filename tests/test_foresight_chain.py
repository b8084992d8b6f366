"""Who is certain to refuse a message is passed over in its chain, at no cost.

The vendors are doubles of vendors; every decision, lease and statement is the real one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.domain import Channel, OutboundMessage, Receipt, VendorTemplate
from gateway.errors import AccountRefused, ProviderError, Unreachable, Unsupported
from gateway.worker import Worker
from tests.stored import Store
from tests.test_failover import accept, path, state, whys, working
from tests.working import SMS, Answer, Vendor, ended, raising, until

pytestmark = pytest.mark.anyio

LONG = "x" * 500
ORDER = {"extra": json.dumps({"template": {"name": "order", "variables": {"1": "Ada"}}})}


class Short(Vendor):
    """A vendor that takes no long texts, and says so."""

    def __init__(self, answer: Answer | None = None, *, most: int = 400) -> None:
        super().__init__(answer)
        self.longest = most

    def foresee(self, message: OutboundMessage, listed: Sequence[VendorTemplate]) -> None:
        """Refuses what is long."""
        if len(message.body) > self.longest:
            raise Unsupported(f"at most {self.longest} characters", code="body", field="body")

    async def send(self, message: OutboundMessage) -> Receipt:
        """The same again."""
        receipt = await super().send(message)
        self.foresee(message, ())
        return receipt


class Listing(Vendor):
    """A vendor that lists one template, and refuses variables that it has not."""

    capabilities = replace(SMS, lists_templates=True, templates=True)

    def __init__(self, *variables: str) -> None:
        super().__init__()
        self.variables = variables
        self.listed = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def templates(self, anew: str = "") -> Sequence[VendorTemplate]:
        """Tells of it."""
        self.listed += 1
        await self.gate.wait()
        return [VendorTemplate(name="order", body="x", variables=self.variables)]

    def foresee(self, message: OutboundMessage, listed: Sequence[VendorTemplate]) -> None:
        """Refuses what is not of it."""
        given = (message.template or {}).get("variables", {})
        if any(tuple(given) != one.variables for one in listed):
            raise Unsupported("other variables", code="template", field="template.variables")


def always(error: ProviderError) -> Answer:
    """Never anything else."""
    return raising(*[error] * 20)


async def test_what_waits_in_the_queue_is_not_asked_of_who_would_refuse_it(store: Store) -> None:
    one, two = Short(), Short(most=1000)
    id_ = accept(store, body=LONG)  # by a process that did not know
    async with working(store, one, two):
        await ended(store, id_)
    assert (one.calls, path(store, id_)) == ([], ["two"])
    reason = "would refuse: at most 400 characters"
    assert whys(store, id_) == [("next in the chain", [("one", reason)])]
    assert store.message(id_)["provider"] == "two"


async def test_after_a_restart_with_another_limit_the_first_is_asked_again(store: Store) -> None:
    first = accept(store, 1, body=LONG)
    async with working(store, Short(), Short(most=1000)):
        await ended(store, first)
    second = accept(store, 2, body=LONG)
    async with working(store, Short(most=1000), Short(most=1000)):
        await ended(store, second)
    assert (path(store, first), path(store, second)) == (["two"], ["one"])


async def test_where_all_would_refuse_the_last_says_so(store: Store) -> None:
    one, two = Short(), Short()
    id_ = accept(store, body=LONG)
    async with working(store, one, two, Short()):
        await ended(store, id_, status="failed")
    assert path(store, id_) == ["three"]
    assert store.message(id_)["error_message"] == "at most 400 characters"


async def test_a_failure_is_not_passed_on_to_who_would_refuse_it(store: Store) -> None:
    one, three = Short(always(Unreachable("x", code="dns")), most=1000), Short(most=1000)
    two = Short()
    async with working(store, one, two, three, poll=30):
        id_ = await asyncio.to_thread(accept, store, body=LONG)
    async with working(store, one, two, three, poll=30):
        await ended(store, id_)
    assert path(store, id_) == ["one", "three"]
    assert two.calls == []


async def test_a_failure_is_tried_again_where_the_others_would_refuse_it(store: Store) -> None:
    one = Short(raising(Unreachable("x", code="dns")), most=1000)
    two = Short()
    id_ = accept(store, body=LONG)
    async with working(store, one, two):
        await until(lambda: len(one.calls) == 1 and store.status(id_) == "queued")
        (row,) = store.rows("SELECT route, due_at, lease_until FROM queue")
        assert (row.route, row.lease_until) == ("one,three", 0)  # that one is not set up here
    assert path(store, id_) == ["one"]
    assert two.calls == []


async def test_it_waits_for_who_may_take_it_and_is_claimed_by_nobody_meanwhile(
    store: Store,
) -> None:
    one, two = Short(), Short(always(AccountRefused("x", code="20003")), most=1000)
    ill = accept(store, 1, body=LONG)
    async with working(store, one, two):
        await until(lambda: state(store, "two") == "open")
        id_ = await asyncio.to_thread(accept, store, 2, body=LONG)
        await until(lambda: _route(store, id_) == "two,three")
        before = store.message(id_)["updated_at"]
        well = await asyncio.to_thread(accept, store, 3)
        await ended(store, well)  # behind which every claim has been
    assert (one.times(id_), path(store, id_)) == (0, [])
    assert path(store, ill) == ["two"]
    (row,) = store.rows("SELECT claims, lease_until FROM queue WHERE message_id = ?", id_)
    assert (row.claims, row.lease_until) == (0, 0)
    assert store.message(id_)["updated_at"] == before


async def _listed(worker: Worker) -> None:
    """Has every vendor list its templates once."""
    foresight = worker._board._foresight
    assert foresight is not None
    await foresight._templates.found(Channel.SMS)


def _route(store: Store, id_: str) -> str:
    (row,) = store.rows("SELECT route FROM queue WHERE message_id = ?", id_)
    return str(row.route)


async def test_a_list_of_templates_is_asked_for_anew_before_it_passes_anybody_over(
    store: Store,
) -> None:
    one, two = Listing("1", "2"), Listing("1")
    async with working(store, one, two) as worker:
        await _listed(worker)
        id_ = await asyncio.to_thread(accept, store, **ORDER)
        await ended(store, id_)
        assert (path(store, id_), one.listed) == (["two"], 2)
        again = await asyncio.to_thread(accept, store, 2, **ORDER)
        await ended(store, again)
        assert (path(store, again), one.listed) == (["two"], 2)  # it has just told


async def test_a_template_that_fits_by_now_is_sent_by_the_first(store: Store) -> None:
    one, two = Listing("1", "2"), Listing("1")
    async with working(store, one, two) as worker:
        await _listed(worker)
        one.variables = ("1",)
        id_ = await asyncio.to_thread(accept, store, **ORDER)
        await ended(store, id_)
    assert (path(store, id_), one.listed) == (["one"], 2)


async def test_a_vendor_that_does_not_tell_of_its_templates_is_asked_to_send(
    store: Store,
) -> None:
    one, two = Listing("1", "2"), Listing("1")
    async with working(store, one, two, send=0.2, lease=3.4) as worker:
        await _listed(worker)
        one.gate.clear()
        id_ = await asyncio.to_thread(accept, store, **ORDER)
        await ended(store, id_)
    assert path(store, id_) == ["one"]
