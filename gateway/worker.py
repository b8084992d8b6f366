"""The worker: claim, attempt, send, settle. Waits for vendors all day, hundreds at a time.

Nothing is written to a vendor before its attempt is committed, and nothing that may have been
written is written again unless the message's policy asks for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.clock import new_id
from gateway.domain import (
    Channel,
    Clock,
    MessageType,
    OnUnknown,
    OutboundMedia,
    OutboundMessage,
    Provider,
    Receipt,
    Sender,
)
from gateway.errors import (
    REASONS,
    AccountRefused,
    Ambiguous,
    OutcomeUnknown,
    ProviderError,
    SettingsError,
    StoreUnavailable,
    Unreachable,
)
from gateway.routing import Retry, Route, retry_in
from gateway.store.accepts import HandOff, NewMessage, begun_by
from gateway.store.batcher import Batcher
from gateway.store.deliveries import (
    BEGIN,
    CLAIM,
    SETTLE,
    SWEEPING,
    Attempt,
    Claim,
    Due,
    Outcome,
    Sweep,
)
from gateway.store.inbox import REPORT, Report

log = logging.getLogger("gateway.worker")

GRACE = 1.0  # seconds that a send may exceed the time of its adapter
LATE = 120.0  # seconds that an answer which outlived its send is still listened for
LAST_WRITES = 5.0  # seconds, at the very end, for what was cut off to be stored
UNSTORABLE_TRIES = 8
UNSTORABLE = Ambiguous("the vendor's answer could not be stored", code="unstorable")
CLASSES = frozenset(REASONS) - {ProviderError}  # whatever is of no class is ambiguous

Observe = Callable[[str, ProviderError | None], None]  # provider, and its error if any


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much at once and how long. Times in seconds."""

    seats: int
    send: float
    lease: float
    poll: float
    receipts: float
    retry: Retry

    def __post_init__(self) -> None:
        if self.lease < self.send + 3 * GRACE:
            raise SettingsError(
                f"LEASE_TIME ({self.lease:g} s) must exceed SEND_TIMEOUT ({self.send:g} s) "
                f"by at least {3 * GRACE:g} s, or nothing could be sent."
            )


class Worker:
    """Sends what is due through the providers of this process."""

    def __init__(
        self,
        batcher: Batcher,
        providers: Mapping[str, Provider],
        routes: Mapping[str, Route],
        clock: Clock,
        limits: Limits,
        *,
        origin: str,
        observe: Observe = lambda provider, error: None,
        only_process: bool = False,
    ) -> None:
        self._batcher = batcher
        self._providers = providers
        self._routes = routes
        self._clock = clock
        self._limits = limits
        self._origin = origin
        self._observe = observe
        self._only_process = only_process
        self._wake = asyncio.Event()
        self._free = limits.seats
        self._sends: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Settles what an earlier process left, then begins to claim."""
        await self._sweep(all_leases=self._only_process)
        self._tasks = [
            asyncio.create_task(self._claiming(), name="gateway-claims"),
            asyncio.create_task(self._sweeping(), name="gateway-sweeps"),
        ]

    def poke(self) -> None:
        """Something is due."""
        self._wake.set()

    def reserve(self, new: NewMessage) -> bool:
        """Keeps a seat for a message that is about to be stored, if one is free: T1 may hand it
        over. Then `accepted` must be told how that ended."""
        route = self._routes.get(new.row["provider"])
        if route is None or self._free <= 0 or self._stopping or not self._tasks:
            return False
        self._free -= 1
        new.handoff = HandOff(
            attempt_id=new_id("att"),
            token=new_id("lease"),
            lease=int(self._limits.lease * 1000),
            since=self._clock.monotonic(),
            provider=route.name,
            connection=route.connection,
            sender=_sender(new.row, route).key or None,
        )
        return True

    def accepted(self, new: NewMessage, stored: asyncio.Future[Any]) -> None:
        """T1 has ended; sends what it handed over, and frees the seat of what it did not."""
        handoff = new.handoff
        assert handoff is not None
        error = None if stored.cancelled() else stored.exception()
        work = None
        if isinstance(error, OutcomeUnknown):
            work = self._never_begun(begun_by(new))  # perhaps it was handed over after all
        elif error is None and handoff.attempt is not None:
            work = self._begun(handoff.attempt, handoff.since)
        if work is None:
            self._free += 1
            self._wake.set()
        else:
            self._start(work)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._sends.add(task)
        task.add_done_callback(self._sent)

    async def stop(self, within: float) -> None:
        """Claims no more, and lets what is in flight end and be stored."""
        self._stopping = True
        self._wake.set()
        for task in self._tasks[1:]:
            task.cancel()
        if self._tasks:  # a claim under way is heard to its end: what it leased is ours to send
            await asyncio.wait(self._tasks, timeout=within)
        if self._sends:
            log.info("waiting for %d sends in flight", len(self._sends))
            await asyncio.wait(self._sends, timeout=within)
        if self._late:
            await asyncio.wait(self._late, timeout=min(within, LAST_WRITES))
        await _cut_off({*self._tasks, *self._sends, *self._late})

    async def _claiming(self) -> None:
        while not self._stopping:
            more = False
            try:
                if self._free > 0:
                    more = await self._claim()
            except (StoreUnavailable, OutcomeUnknown) as error:
                log.warning("cannot claim: %s", error)
                await asyncio.sleep(self._limits.poll)
            except Exception:
                log.exception("cannot claim")
                await asyncio.sleep(self._limits.poll)
            if more:
                continue
            try:
                async with asyncio.timeout(self._limits.poll):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _claim(self) -> bool:
        """Claims for the free seats; whether there may be more due for seats that are free."""
        wanted = min(self._free, 500)
        lease = int(self._limits.lease * 1000)
        self._wake.clear()
        started = self._clock.monotonic()
        due = await self._batcher.submit(
            CLAIM, Claim(new_id("lease"), wanted, lease, tuple(self._routes))
        )
        for item in due:
            self._free -= 1
            self._start(self._deliver(item, started))
        return bool(due) and self._free > 0

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        self._free += 1
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("a delivery failed", exc_info=task.exception())

    async def _deliver(self, due: Due, leased: float) -> None:
        route = self._routes.get(due.message["provider"])
        if route is None:  # the claim lapses
            log.error("%s is for %s, which is not set up", due.message_id, due.message["provider"])
            return
        sender = _sender(due.message, route).key or None
        attempt = Attempt(new_id("att"), due, route.name, route.connection, sender)
        try:
            if not await self._batcher.submit(BEGIN, attempt):
                return
        except StoreUnavailable as error:
            log.warning("%s was not begun: %s", due.message_id, error)
            return  # nothing was written, and nothing goes to the wire; the lease runs out
        except (OutcomeUnknown, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not self._stopping:
                raise
            await self._never_begun(attempt)
            return
        await self._begun(attempt, leased)

    async def _never_begun(self, attempt: Attempt) -> None:
        """Perhaps the attempt stands in the database. We know that it never reached the wire."""
        idle = Unreachable("the attempt was not begun", code="not_begun")
        await self._settle(Outcome(attempt, error=idle, retry_in=0))

    async def _begun(self, attempt: Attempt, leased: float) -> None:
        """Sends what stands in the database as an attempt under a lease of ours."""
        route = self._routes[attempt.provider]
        message = outgoing(attempt, route, self._origin, self._clock)
        spent = self._clock.monotonic() - leased
        if spent > self._limits.lease - self._limits.send - GRACE:
            late = Unreachable("the lease would not have outlived the send", code="late")
            outcome = Outcome(attempt, error=late, retry_in=0)
        else:
            sending = self._providers[route.name].send(message)
            within = self._limits.send + GRACE  # the adapter's own time is shorter
            outcome = await self._heard(route.name, sending, attempt, within)
        await self._store(route, outcome)
        if isinstance(outcome.error, Ambiguous) and outcome.error.late is not None:
            listening = asyncio.create_task(self._listen(route, attempt, outcome.error.late))
            self._late.add(listening)
            listening.add_done_callback(self._late.discard)

    async def _listen(self, route: Route, attempt: Attempt, late: Awaitable[Receipt]) -> None:
        """A late answer is always applied to its attempt; a late silence tells nothing new."""
        outcome = await self._heard(route.name, late, attempt, LATE)
        if outcome.error is None or outcome.error.sent_nothing:
            log.info("%s: an answer came late", attempt.due.message_id)
            await self._store(route, outcome)

    async def _store(self, route: Route, outcome: Outcome) -> None:
        await self._settle(outcome)
        if outcome.receipt is not None and outcome.receipt.updates:
            await self._report(outcome.attempt.due, route, outcome.receipt)

    async def _heard(
        self, name: str, answer: Awaitable[Receipt], attempt: Attempt, within: float
    ) -> Outcome:
        receipt: Receipt | None = None
        error: ProviderError | None = None
        try:
            async with asyncio.timeout(within):
                receipt = await answer
            if not isinstance(receipt, Receipt):
                raise TypeError("a receipt was expected")
        except ProviderError as raised:
            error = raised if type(raised) in CLASSES else Ambiguous(raised.text, code=raised.code)
        except TimeoutError:
            error = Ambiguous("no answer in time", code="timeout")
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            error = Ambiguous("the process was stopped before the answer", code="stopped")
        except Exception as raised:
            log.exception("%s raised what it may not", name)
            error = Ambiguous(f"the adapter failed: {type(raised).__name__}", code="adapter")
        self._observe(name, error)
        if error is None:
            return Outcome(attempt, receipt=receipt)
        level = logging.ERROR if isinstance(error, AccountRefused) else logging.WARNING
        log.log(level, "%s: %s by %s: %s", attempt.due.message_id, error.reason, name, error.code)
        policy = OnUnknown(attempt.due.message["on_unknown"])
        made = attempt.due.attempts + 1
        wait = retry_in(error, made, policy, self._limits.retry, random.random())
        return Outcome(attempt, error=error, retry_in=None if wait is None else int(wait * 1000))

    async def _settle(self, outcome: Outcome) -> None:
        """T3 is kept and repeated until it is stored: the vendor's answer is not to be lost."""
        pause, tries = 0.1, 0
        while True:
            try:
                await self._batcher.submit(SETTLE, outcome)
                return
            except (StoreUnavailable, OutcomeUnknown) as error:
                log.warning("cannot store the outcome of %s: %s", outcome.attempt.id, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
            except Exception:
                log.exception("the outcome of %s cannot be stored as it is", outcome.attempt.id)
                outcome = Outcome(outcome.attempt, error=UNSTORABLE)
                tries += 1
                if tries > UNSTORABLE_TRIES:
                    return  # the lease runs out, and the attempt is told to be unknown
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _report(self, due: Due, route: Route, receipt: Receipt) -> None:
        report = Report(due.tenant_id, route.connection.id, receipt.updates)
        try:
            await self._batcher.submit(REPORT, report)
        except (StoreUnavailable, OutcomeUnknown) as error:
            log.warning("a report of %s was not stored: %s", route.name, error)

    async def _sweep(self, *, all_leases: bool = False) -> None:
        receipts = int(self._limits.receipts * 1000)
        for _ in range(1000):
            if not await self._batcher.submit(SWEEPING, Sweep(receipts, all_leases)):
                return

    async def _sweeping(self) -> None:
        while True:
            await asyncio.sleep(min(self._limits.lease / 4, 5.0))
            try:
                await self._sweep()
            except (StoreUnavailable, OutcomeUnknown) as error:
                log.warning("cannot sweep: %s", error)
            except Exception:
                log.exception("cannot sweep")


async def _cut_off(tasks: set[asyncio.Task[None]]) -> None:
    """Cancels tasks. A send makes an outcome of it, which has a moment to be stored."""
    tasks = {task for task in tasks if not task.done()}
    for _ in range(2):
        for task in tasks:
            task.cancel()
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=LAST_WRITES)


def _sender(row: Mapping[str, Any], route: Route) -> Sender:
    """Our side of a message: the address it names, else the connection's own."""
    if row["from_address"]:
        return Sender(address=row["from_address"])
    return route.connection.senders.get(Channel(row["channel"]), Sender())


def outgoing(attempt: Attempt, route: Route, origin: str, clock: Clock) -> OutboundMessage:
    """A leased message as its provider is to send it."""
    row = attempt.due.message
    extra: dict[str, Any] = json.loads(row["extra"]) if row["extra"] else {}
    media = json.loads(row["media"]) if row["media"] else ()
    left = (row["expires_at"] - int(clock.now().timestamp() * 1000)) // 1000
    return OutboundMessage(
        message_id=attempt.due.message_id,
        attempt_id=attempt.id,
        channel=Channel(row["channel"]),
        to=row["to_address"],
        sender=_sender(row, route),
        type=MessageType(row["type"]),
        body=row["body"],
        content=json.loads(row["content"]) if row["content"] else {},
        media=tuple(_media(file, origin) for file in media),
        reply_to=row["reply_to"],
        template=extra.get("template"),
        subject=row["subject"],
        html=extra.get("html"),
        callback_url=f"{origin}/api/webhooks/{route.name}?attempt={attempt.id}",
        validity=max(1, int(left)),
    )


def _media(file: dict[str, Any], origin: str) -> OutboundMedia:
    url = str(file["url"])
    return OutboundMedia(
        url=origin + url if url.startswith("/") else url,
        content_type=file.get("content_type"),
        filename=file.get("filename"),
    )
