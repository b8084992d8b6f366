"""One simulated process: the product's worker, breakers, accepts and webhooks over one writer, put
together as `gateway.app` does. It can be dropped without a word, or paused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.breaker import Policy
from gateway.circuits import Circuits
from gateway.domain import Channel, Event, Verified, WebhookRequest
from gateway.drafts import Draft
from gateway.inbound import Inbound
from gateway.outbound import Outbound
from gateway.routing import Retry
from gateway.sending import Limits
from gateway.store.accepts import Accepted
from gateway.store.breakers import TOPIC
from gateway.switchboard import Switchboard
from gateway.worker import Worker
from tests.chaos.loop import OUTSIDE, Loop, Owner
from tests.chaos.storage import EPOCH, Storage
from tests.chaos.vendors import TENANT, Hook, Vendor
from tests.chaos.writing import Reading, Watching, Weather, Writer

ROUTE = "POST /api/messages"
LEASE, SEND = 12.0, 4.0
LIMITS = Limits(
    seats=64,
    send=SEND,
    lease=LEASE,
    poll=5.0,
    receipts=300.0,
    retry=Retry(base=1.0, cap=20.0, limit=6),
)
BREAKERS = Policy(failures=5, messages=3, open_for=4_000, longest=30_000, probe=int(LEASE * 1000))
SENDERS = Policy(failures=1, messages=1, open_for=8_000, longest=60_000, successes=1)


class Lost(Exception):
    """The process died while it was asked."""


class Clock:
    """A machine's clocks, of which the time of day may be off."""

    def __init__(self, loop: Loop, off: float) -> None:
        self._loop = loop
        self._begin = datetime.fromtimestamp(EPOCH / 1000 + off, UTC)

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return self._begin + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._loop.time()


class Engine(Owner):
    """A process. What is asked of it from outside ends with `Lost` if it dies."""

    def __init__(
        self,
        loop: Loop,
        luck: random.Random,
        storage: Storage,
        weather: Weather,
        watching: Watching,
        vendors: Sequence[Vendor],
        *,
        only: bool,
    ) -> None:
        super().__init__()
        self.ready = self.leaving = False
        self._loop, self._luck = loop, luck
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._count = 0
        clock = Clock(loop, luck.choice((0.0, 0.0, -1.5, 1.5)))
        routes = {vendor.name: vendor.route for vendor in vendors}
        chains = {Channel.SMS: tuple(routes.values())}
        self.writer: Any = Writer(loop, self, storage, weather, watching, self._committed)
        reading: Any = Reading(storage, weather)
        self.circuits = Circuits(
            self.writer, reading, routes, clock, policy=BREAKERS, senders=SENDERS
        )
        board = Switchboard(self.circuits, routes, chains, seats=LIMITS.seats)
        self.worker = Worker(
            self.writer,
            {vendor.name: vendor for vendor in vendors},
            board,
            clock,
            LIMITS,
            origin="https://gateway.example.com",
            only_process=only,
        )
        self.outbound = Outbound(
            self.writer,
            chains,
            clock,
            region=None,
            expiry=1800.0,
            idempotency=72 * 3600.0,
            local=self.worker,
        )
        connections = {vendor.connection.id: vendor.connection for vendor in vendors}
        self._hooks = {vendor.name: Hook(vendor.name) for vendor in vendors}
        self._inbound = Inbound(self.writer, connections, webhooks=self._hooks)
        self._clock = clock

    def _committed(self, topics: set[str]) -> None:
        self.hears(topics)
        for other in self.others:
            delay = self._luck.choice((0.0, 0.01, 1.0))  # a wake-up between processes may be late
            self._loop.call_later(delay, other.hears, topics, context=other.context)

    others: Sequence[Engine] = ()

    def hears(self, topics: set[str]) -> None:
        """Something was written, here or elsewhere."""
        if "queue" in topics:
            self.worker.poke()
        if TOPIC in topics:
            self.circuits.poke()

    async def starts(self) -> None:
        """As `Gateway.start`."""
        self.writer.start()
        await self.circuits.start()
        await self.circuits.hurry()
        await self.worker.start()
        self.ready = True

    async def stops(self) -> None:
        """As `Gateway.stop`, on SIGTERM."""
        self.ready = False
        await self.worker.stop(3.0)
        await self.circuits.stop()
        await self.writer.stop()

    def dies(self) -> None:
        """Without a word: nothing of it runs any more, and whoever waits for it is cut off."""
        self.dead, self.ready = True, False
        self.put_off.clear()
        waiting, self._asked = self._asked, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(Lost())
                future.exception()

    def ask(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Runs something inside of the process; the future is outside of it."""
        future = self._loop.create_future()
        if self.dead:
            work.close()
            future.set_exception(Lost())
            return future
        self._count += 1
        number = self._count
        self._asked[number] = future
        task = self._loop.create_task(work, context=self.context)

        def ended(done: asyncio.Task[Any]) -> None:
            self._asked.pop(number, None)
            error = None if done.cancelled() else done.exception()
            if future.done():
                return
            if done.cancelled():
                future.set_exception(Lost())
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(done.result())

        task.add_done_callback(ended, context=OUTSIDE)
        return future

    async def accept(self, draft: Draft, key: str | None) -> Accepted:
        """As a POST of a message does."""
        named = None
        if key is not None:
            named = self.outbound.idempotency(ROUTE, key, {"to": draft.to, "body": draft.body})
        return await self.outbound.accept(draft, tenant_id=TENANT, key=named)

    async def receive(self, vendor: Vendor, key: str, events: tuple[Event, ...]) -> None:
        """As a POST of a vendor does."""
        request = WebhookRequest(
            method="POST", url="https://x", headers={}, body=b"", received_at=self._clock.now()
        )
        verified = Verified(
            webhook=vendor.name,
            connection=vendor.connection.id,
            request=request,
            key=key,
            verdict="simulated",
            reading=events,
        )
        await self._inbound.receive(self._hooks[vendor.name], verified)

    async def does(self, operation: Any, item: Any) -> Any:
        """As an operator's request does."""
        return await self.writer.submit(operation, item)
