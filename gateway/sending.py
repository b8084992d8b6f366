"""One send: what stands in the database as an attempt goes to the wire, and what came of it is
stored and passed on.

Nothing that may have been written is written again unless the message's policy asks for it. An
answer is kept until it is stored, and a late one is listened for.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from gateway import routing
from gateway.circuits import Probe
from gateway.clock import new_id
from gateway.domain import Clock, OnUnknown, OutboundMessage, Provider, Receipt
from gateway.errors import (
    NO_ROOM,
    REASONS,
    AccountRefused,
    Ambiguous,
    OutcomeUnknown,
    ProviderError,
    SettingsError,
    StoreUnavailable,
    Throttled,
    Unreachable,
)
from gateway.loads import Load, roomy
from gateway.outgoing import has_unsubscribe, outgoing, with_files
from gateway.own_files import OwnFiles
from gateway.routing import Retry, Tried
from gateway.store.batcher import Batcher
from gateway.store.claims import Due, names
from gateway.store.deliveries import SETTLE, Attempt, Outcome
from gateway.store.reports import REPORT, Report
from gateway.switchboard import Switchboard
from gateway.unsubscribes import Unsubscribes

log = logging.getLogger("gateway.worker")

GRACE = 1.0  # seconds that a send may exceed the time of its adapter
LATE = 120.0  # seconds that an answer which outlived its send is still listened for
UNSTORABLE_TRIES = 8
UNSTORABLE = Ambiguous("the vendor's answer could not be stored", code="unstorable")
CLASSES = frozenset(REASONS) - {ProviderError}  # whatever is of no class is ambiguous

OnAnswer = Callable[[Outcome, float | None], None]  # within so many seconds; None: late
# The attempt that may be made at once, if one may, with the room that the message has.
Follow = Callable[[Due, Load | None], Attempt | None]


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


class Sending:
    """Sends attempts through the providers of this process, each under its lease."""

    def __init__(
        self,
        batcher: Batcher,
        providers: Mapping[str, Provider],
        board: Switchboard,
        clock: Clock,
        limits: Limits,
        *,
        origin: str,
        own_files: OwnFiles | None,
        unsubscribes: Unsubscribes | None,
        on_answer: OnAnswer,
        follow: Follow,
    ) -> None:
        self._batcher = batcher
        self._providers = providers
        self._board = board
        self._clock = clock
        self._limits = limits
        self._origin = origin
        self._own_files = own_files
        self._unsubscribes = unsubscribes
        self._on_answer = on_answer
        self._follow = follow
        self.stopping = False  # then whoever is cut off is unknown
        self.late: set[asyncio.Task[None]] = set()

    async def never_begun(self, attempt: Attempt, probe: Probe | None = None) -> None:
        """Perhaps the attempt stands in the database. We know that it never reached the wire."""
        self._board.circuits.unused(probe)
        idle = Unreachable("the attempt was not begun", code="not_begun")
        await self._settle(Outcome(attempt, error=idle, retry_in=0))

    async def begun(
        self,
        attempt: Attempt,
        leased: float,
        probe: Probe | None = None,
        load: Load | None = None,
    ) -> None:
        """Sends what stands in the database as an attempt under a lease of ours; where it is the
        next provider's turn at once, by that one, too. Gives each attempt's seat back, which was
        taken for it. `load` is the room of its files, if it has any."""
        following: tuple[Attempt, float] | None = (attempt, leased)
        while following is not None:
            attempt, leased = following
            try:
                following = await self._through(attempt, leased, probe, load)
            finally:
                self._board.left(attempt.provider)
            probe = None

    async def _through(
        self, attempt: Attempt, leased: float, probe: Probe | None, load: Load | None
    ) -> tuple[Attempt, float] | None:
        """One attempt, to its end; with the one that was begun with that, and since when it is
        leased."""
        try:
            outcome = await self._asked(attempt, leased, load)
        except BaseException:
            self._board.circuits.unused(probe)
            raise
        error, id_ = outcome.error, attempt.due.message_id
        self._board.heard(attempt.provider, attempt.sender or "", id_, error, probe)
        following, since = self._following(outcome, load), self._clock.monotonic()
        if following is None:
            await self._store(outcome)
        elif not await self._handed_on(replace(outcome, following=following), following):
            following = None
        if isinstance(error, Ambiguous) and error.late is not None:
            listening = asyncio.create_task(self._listen(attempt, error.late))
            self.late.add(listening)
            listening.add_done_callback(self.late.discard)
            if load is not None:  # its files are still being written, perhaps
                load.hold()
                listening.add_done_callback(lambda _: load.free())
        return None if following is None else (following, since)

    async def _handed_on(self, outcome: Outcome, following: Attempt) -> bool:
        """Stores an outcome with the attempt that follows it; whether that is to be sent, else its
        seat is free. A process that is being stopped sends no more: it says that it did not."""
        storing = asyncio.ensure_future(self._store(outcome))
        sends = False
        try:
            try:
                begun = await asyncio.shield(storing)
            except asyncio.CancelledError:
                if not self.stopping:
                    raise
                begun = await storing  # it may be committed whoever waits for it
            sends = begun and not self.stopping
            if begun and not sends:
                await self.never_begun(following)
            return sends
        finally:
            storing.cancel()
            if not sends:
                self._board.left(following.provider)

    def _following(self, outcome: Outcome, load: Load | None) -> Attempt | None:
        """The attempt that is made at once after this one, with a seat, if one may be."""
        due, error = outcome.attempt.due, outcome.error
        if error is None or outcome.retry_in != 0 or self.stopping:
            return None
        until = None if outcome.not_before is None else self._board.now() + outcome.not_before
        before = Tried(outcome.attempt.provider, error.reason, error.code, until)
        instead = outcome.attempt.instead
        following = self._follow(
            replace(
                due,
                token=new_id("lease"),
                attempts=due.attempts + 1,
                route=outcome.route or due.route or outcome.attempt.provider,
                message={**due.message, "from_address": instead.address}
                if instead
                else due.message,
                tried=(*due.tried, before),
            ),
            load,
        )
        if following is not None:
            self._board.took(following.provider)
        return following

    async def _asked(self, attempt: Attempt, leased: float, load: Load | None) -> Outcome:
        route = self._board.routes[attempt.provider]
        sender = self._board.sender(attempt.due.message, route)
        message = outgoing(attempt, sender, self._origin, self._clock)
        while True:
            asked = self._clock.monotonic()
            if asked - leased > self._limits.lease - self._limits.send - GRACE:
                late = Unreachable("the lease would not have outlived the send", code="late")
                return Outcome(attempt, error=late, retry_in=0)
            sending = self._sent(route.name, roomy(message, load), attempt.due)
            within = self._limits.send + GRACE  # the adapter's own time is shorter
            outcome = await self._heard(sending, attempt, within)
            if load is None or not load.grown(outcome.error):
                break  # else its files were found to need more room, and now they have it
        self._on_answer(outcome, self._clock.monotonic() - asked)
        return outcome

    async def _sent(self, name: str, message: OutboundMessage, due: Due) -> Receipt:
        """Asks the provider, once the message has the addresses of ours that it needs."""
        if self._own_files is not None:
            message = await with_files(message, self._own_files, due.tenant_id)
        if self._unsubscribes is not None and has_unsubscribe(due.message):
            message = await self._unsubscribes.linked(message, due.tenant_id)
        return await self._providers[name].send(message)

    async def _listen(self, attempt: Attempt, late: Awaitable[Receipt]) -> None:
        """A late answer is always applied to its attempt; a late silence tells nothing new."""
        outcome = await self._heard(late, attempt, LATE)
        if outcome.error is None or outcome.error.sent_nothing:
            log.info("%s: an answer came late", attempt.due.message_id)
            self._on_answer(outcome, None)
            await self._store(outcome)

    async def _store(self, outcome: Outcome) -> bool:
        went_on = await self._settle(outcome)
        if outcome.receipt is not None and outcome.receipt.updates:
            await self._report(outcome.attempt, outcome.receipt)
        return went_on

    async def _heard(self, answer: Awaitable[Receipt], attempt: Attempt, within: float) -> Outcome:
        name = attempt.provider
        try:
            async with asyncio.timeout(within):
                receipt = await answer
            if not isinstance(receipt, Receipt):
                raise TypeError("a receipt was expected")
            return Outcome(attempt, receipt=receipt)
        except ProviderError as raised:
            known = type(raised) in CLASSES
            error = raised if known else Ambiguous(raised.text, code=raised.code)
        except TimeoutError:
            error = Ambiguous("no answer in time", code="timeout")
        except asyncio.CancelledError:
            if not self.stopping:
                raise
            error = Ambiguous("the process was stopped before the answer", code="stopped")
        except Exception as raised:
            log.exception("%s raised what it may not", name)
            error = Ambiguous(f"the adapter failed: {type(raised).__name__}", code="adapter")
        level = logging.ERROR if isinstance(error, AccountRefused) else logging.WARNING
        level = logging.INFO if error.code == NO_ROOM else level
        log.log(level, "%s: %s by %s: %s", attempt.due.message_id, error.reason, name, error.code)
        return self._after(attempt, error)

    def _after(self, attempt: Attempt, error: ProviderError) -> Outcome:
        """What comes next, of an attempt that did not go well."""
        due, retry = attempt.due, self._limits.retry
        route = self._board.fitting(due.message, due.route or attempt.provider, attempt.provider)
        tried = (*due.tried, Tried(attempt.provider, error.reason, error.code))
        following = routing.after(
            error,
            made=due.attempts + 1,
            rounds=routing.attempts_at(tried)[attempt.provider],
            elsewhere=self._board.elsewhere(due.message, route, tried),
            others=len(names(route)) > 1,
            on_unknown=OnUnknown(due.message["on_unknown"]),
            policy=retry,
            luck=random.random(),
        )
        wait, before = following.retry_in, None
        if isinstance(error, Throttled) and error.retry_after is not None:
            before = int(routing.patience(error, retry) * 1000)
        if following.drop:
            route = ",".join(name for name in names(route) if name != attempt.provider)
        return Outcome(
            attempt,
            error=error,
            retry_in=None if wait is None else int(wait * 1000),
            route=None if route == due.route else route,
            not_before=before,
        )

    async def _settle(self, outcome: Outcome) -> bool:
        """T3 is kept and repeated until it is stored: the vendor's answer is not to be lost. Says
        whether the next attempt was begun with it."""
        pause, tries = 0.1, 0
        while True:
            try:
                return await self._batcher.submit(SETTLE, outcome)
            except (StoreUnavailable, OutcomeUnknown) as error:
                log.warning("cannot store the outcome of %s: %s", outcome.attempt.id, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
            except Exception:
                log.exception("the outcome of %s cannot be stored as it is", outcome.attempt.id)
                if outcome.following is not None:  # perhaps that is what is wrong
                    outcome = replace(outcome, following=None)
                else:
                    outcome = Outcome(outcome.attempt, error=UNSTORABLE)
                tries += 1
                if tries > UNSTORABLE_TRIES:
                    return False  # the lease runs out, and the attempt is told to be unknown
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)

    async def _report(self, attempt: Attempt, receipt: Receipt) -> None:
        report = Report(attempt.due.tenant_id, attempt.connection.id, receipt.updates)
        try:
            await self._batcher.submit(REPORT, report)
        except (StoreUnavailable, OutcomeUnknown) as error:
            log.warning("a report of %s was not stored: %s", attempt.provider, error)
