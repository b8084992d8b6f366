"""A worker at its work with a real store, and a vendor that counts what reaches it.

The vendor is a double of a vendor, not of our code.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from gateway.breaker import Policy
from gateway.circuits import Circuits
from gateway.clock import SystemClock
from gateway.domain import Capabilities, Channel, OutboundMessage, Receipt
from gateway.foresight import Foresight
from gateway.routing import Retry, Route
from gateway.sending import Limits, OnAnswer
from gateway.store.batcher import Batcher
from gateway.store.breakers import TOPIC
from gateway.store.reader import Reader
from gateway.switchboard import Switchboard
from gateway.templates import Templates
from gateway.worker import Worker
from tests.stored import CONNECTION, Store

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


# A quick one, which opens late: most tests are about one message that fails again and again.
POLICY = Policy(failures=50, messages=3, open_for=50, longest=100, successes=1, probe=60_000)


@asynccontextmanager
async def at_work(
    store: Store,
    *vendors: Vendor,
    clock: Any = None,
    only: bool = False,
    on_answer: OnAnswer = lambda outcome, seconds: None,
    policy: Policy = POLICY,
    senders: Policy = POLICY,
    routes: Sequence[Route] = (ROUTE,),
    **more: Any,
) -> AsyncIterator[Worker]:
    """A worker with its batcher, and its chain of vendors for SMS."""

    def committed(topics: set[str]) -> None:
        if "queue" in topics:
            worker.poke()
        if TOPIC in topics:
            circuits.poke()

    batcher, reader = Batcher(store.database, committed), Reader(store.database)
    batcher.start()
    by_name = {route.name: route for route in routes}
    circuits = Circuits(batcher, reader, by_name, SystemClock(), policy=policy, senders=senders)
    given, chains = limits(**more), {Channel.SMS: routes}
    providers = dict(zip(by_name, vendors, strict=True))
    foresight = Foresight(providers, Templates(providers, chains, SystemClock(), within=given.send))
    worker = Worker(
        batcher,
        providers,
        Switchboard(circuits, by_name, chains, seats=given.seats, foresight=foresight),
        clock or SystemClock(),
        given,
        origin="https://gateway.example.com",
        on_answer=on_answer,
        only_process=only,
    )
    await circuits.start()
    await worker.start()
    try:
        yield worker
    finally:
        await worker.stop(5)
        await circuits.stop()
        await batcher.stop()
        reader.close()


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
