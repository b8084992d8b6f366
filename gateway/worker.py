"""The worker: claim, attempt, send, settle. Waits for vendors all day, hundreds at a time.

Nothing is written to a vendor before its attempt is committed, and nothing that may have been
written is written again unless the message's policy asks for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from gateway import recipients
from gateway.circuits import Probe
from gateway.clock import new_id
from gateway.domain import Clock, Provider
from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.estimates import Estimates
from gateway.loads import Load, Loads
from gateway.outgoing import carries, explained
from gateway.own_files import OwnFiles
from gateway.patience import cut_off, woken
from gateway.routing import Pick, Wait
from gateway.sending import GRACE, Limits, OnAnswer, Sending
from gateway.store.accepts import HandOff, NewMessage, begun_by
from gateway.store.batcher import Batcher
from gateway.store.claims import CLAIM, RELEASE, Claim, Due, Release, names
from gateway.store.deliveries import BEGIN, Attempt
from gateway.store.sweeps import SWEEPING, Sweep
from gateway.switchboard import SOON, Switchboard
from gateway.unsubscribes import Unsubscribes

log = logging.getLogger("gateway.worker")

LAST_WRITES = 5.0  # seconds, at the very end, for what was cut off to be stored

Work = Callable[[], Coroutine[Any, Any, None]]


class Worker:
    """Sends what is due through the providers of this process."""

    def __init__(
        self,
        batcher: Batcher,
        providers: Mapping[str, Provider],
        board: Switchboard,
        clock: Clock,
        limits: Limits,
        *,
        origin: str,
        own_files: OwnFiles | None = None,
        estimates: Estimates | None = None,
        unsubscribes: Unsubscribes | None = None,
        on_answer: OnAnswer = lambda outcome, seconds: None,
        only_process: bool = False,
    ) -> None:
        self._batcher = batcher
        self._board = board
        self._clock = clock
        self._limits = limits
        self._sending = Sending(
            batcher,
            providers,
            board,
            clock,
            limits,
            origin=origin,
            own_files=own_files,
            unsubscribes=unsubscribes,
            on_answer=on_answer,
            follow=self._at_once,
        )
        self._loads = Loads(own_files)
        self._estimates = estimates or Estimates(clock)
        self._only_process = only_process
        self._wake = asyncio.Event()
        self._free = limits.seats
        self._sends: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        board.freed = self.poke

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
        """Keeps a seat for a message that is about to be stored, if one is free and somebody may
        be asked: T1 may hand it over. Then `accepted` must be told how that ended."""
        if self._free <= 0 or self._stopping or not self._tasks:
            return False
        if self._board.unfit(new.row, new.route, taker=new.taker) is not None:
            return False  # a vendor may have to be asked for its templates first
        pick = self._board.pick(new.row, new.route)
        if isinstance(pick, Wait) or pick.probe or self._board.full(pick.provider):
            return False
        if self._board.quotas.share(pick.provider, 1) is not None:
            return False  # T2 counts it, and T1 does not
        if carries(new.row) or self._board.holds(new.row, pick.provider):
            return False  # its files may have to wait for room, and after T2 nothing waits
        route = self._board.routes[pick.provider]
        sender = self._board.sender(new.row, route)
        self._free -= 1
        self._board.took(route.name)
        new.handoff = HandOff(
            attempt_id=new_id("att"),
            token=new_id("lease"),
            lease=int(self._limits.lease * 1000),
            since=self._clock.monotonic(),
            provider=route.name,
            connection=route.connection,
            sender=sender.key or None,
            able=self._board.able(),
            why=explained(pick),
            instead=sender if sender.address != new.row["from_address"] else None,
            estimate=self._estimates.of(new.row, route.name),
        )
        return True

    def accepted(self, new: NewMessage, stored: asyncio.Future[Any]) -> None:
        """T1 has ended; sends what it handed over, and frees the seat of what it did not."""
        handoff = new.handoff
        assert handoff is not None
        error = None if stored.cancelled() else stored.exception()
        work: Work | None = None
        if isinstance(error, OutcomeUnknown):  # perhaps it was handed over after all
            work = partial(self._never_begun, begun_by(new))
        elif error is None and handoff.attempt is not None:
            work = partial(self._sending.begun, handoff.attempt, handoff.since)
        if work is None:
            self._free += 1
            self._board.left(handoff.provider)
            self._wake.set()
        else:
            self._start(work())

    async def _never_begun(self, attempt: Attempt) -> None:
        try:
            await self._sending.never_begun(attempt)
        finally:
            self._board.left(attempt.provider)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._sends.add(task)
        task.add_done_callback(self._sent)

    async def stop(self, within: float) -> None:
        """Claims no more, and lets what is in flight end and be stored."""
        self._stopping = self._sending.stopping = True
        self._loads.close()
        self._wake.set()
        for task in self._tasks[1:]:
            task.cancel()
        if self._tasks:  # a claim under way is heard to its end: what it leased is ours to send
            await asyncio.wait(self._tasks, timeout=within)
        if self._sends:
            log.info("waiting for %d sends in flight", len(self._sends))
            await asyncio.wait(self._sends, timeout=within)
        late = self._sending.late
        if late:
            await asyncio.wait(late, timeout=min(within, LAST_WRITES))
        await cut_off({*self._tasks, *self._sends, *late}, LAST_WRITES)

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
            await woken(self._wake, self._limits.poll)

    async def _claim(self) -> bool:
        """Claims for the free seats; whether there may be more due for seats that are free."""
        self._wake.clear()
        claims, wide = self._claims(min(self._free, 500))
        started = self._clock.monotonic()
        asked = [self._batcher.submit(CLAIM, claim) for claim in claims]
        results = await asyncio.gather(*asked, return_exceptions=True)
        for claim, due in zip(claims, results, strict=True):
            if isinstance(due, BaseException):
                continue
            only = claim.providers[0] if len(claim.providers) == 1 else None
            for item in due:
                self._free -= 1
                if only is not None:  # the next claim may come before its delivery begins
                    self._board.took(only)
                self._start(self._deliver(item, started, only))
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return wide and bool(results[-1]) and self._free > 0

    def _claims(self, seats: int) -> tuple[list[Claim], bool]:
        """What to ask for: at most so much as those have room for who are probed or have just come
        back, the rest for those who are well, if there is any."""
        lease = int(self._limits.lease * 1000)
        rooms = self._board.rooms()
        claims = []
        for name, room in rooms.few.items():
            part = min(room, seats)
            if part > 0:
                claims.append(Claim(new_id("lease"), part, lease, (name,)))
                seats -= part
        wide = bool(rooms.free and seats)
        if wide:
            claims.append(Claim(new_id("lease"), seats, lease, rooms.free, rooms.kept))
        return claims, wide

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        self._free += 1
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("a delivery failed", exc_info=task.exception())

    async def _deliver(self, due: Due, leased: float, only: str | None) -> None:
        try:
            full = self._board.needs_room(due.message, _route(due), due.tried)
            load = await self._load(due, leased) if full else None
        finally:
            if only is not None:
                self._board.left(only)
        if isinstance(load, int):
            await self._release(Release(due, self._board.now() + load if load else None))
            return
        try:
            await self._delivered(due, leased, load, only)
        finally:
            if load is not None:
                load.free()

    async def _load(self, due: Due, leased: float) -> Load | int:
        """Room for the files of a message, as long as the lease lets it wait."""
        return await self._loads.take(due, self._patience(leased))

    def _patience(self, leased: float) -> float:
        """For how long a message may wait before its attempt, under its lease."""
        limits, spent = self._limits, self._clock.monotonic() - leased
        return limits.lease - limits.send - 2 * GRACE - spent

    async def _delivered(
        self, due: Due, leased: float, load: Load | None, only: str | None
    ) -> None:
        patience = self._patience(leased)
        fitting = await self._board.fitted(due.message, _route(due), due.tried, patience)
        due = due if fitting == _route(due) else replace(due, route=fitting)
        pick, probe = await self._picked(due, only, load)
        if pick is None:
            return
        attempt = self._attempt(due, pick)
        begun = False
        try:
            begun = await self._begin(attempt, probe)
        finally:
            if not begun:
                self._board.left(pick.provider)
        if begun:
            await self._sending.begun(attempt, leased, probe, load)

    async def _picked(
        self, due: Due, only: str | None, load: Load | None
    ) -> tuple[Pick | None, Probe | None]:
        """Who is asked, with a seat there, and the right to probe where it takes one; nobody: then
        the message waits again, at no cost. `only` is whom it was claimed for."""
        route = _route(due)
        for _ in range(len(names(route)) + 1):
            found = self._board.pick(due.message, route, due.tried)
            if isinstance(found, Wait):
                blocked = "sender_blocked" in found.words
                await self._release(Release(due, self._board.until(found), blocked))
                return None, None
            if load is None and self._board.holds(due.message, found.provider):
                break  # it was another's turn, who needs no room for its files
            if self._board.full(found.provider):  # somebody was quicker; or nobody knew whose turn
                await self._seatless(due, found.provider, only)
                return None, None
            self._board.took(found.provider)
            if not found.probe:
                return found, None
            probe = None
            try:
                probe = await self._board.probe(due.message, found.provider)
            finally:
                if probe is None:
                    self._board.left(found.provider)
            if probe is not None:
                return found, probe
        await self._release(Release(due))
        return None, None

    async def _seatless(self, due: Due, name: str, only: str | None) -> None:
        """Lets a message wait for a seat: it is not claimed again before there is one, as whoever
        keeps such messages for itself stands first in its route from now on."""
        if name != only:
            rest = (one for one in names(_route(due)) if one != name)
            due = replace(due, route=",".join((name, *rest)))
        waits = name == only or self._board.keeps(name)
        await self._release(Release(due, None if waits else self._board.now() + SOON))

    async def _release(self, release: Release) -> None:
        try:
            await self._batcher.submit(RELEASE, release)
        except (StoreUnavailable, OutcomeUnknown) as error:
            log.warning("%s was not given back: %s", release.due.message_id, error)

    def _at_once(self, due: Due, load: Load | None) -> Attempt | None:
        """The attempt that may be made of a message that has just come back: by somebody else who
        is well, has a seat and room for its files, and counts no messages."""
        if self._board.unfit(due.message, due.route, due.tried) is not None:
            return None
        found = self._board.pick(due.message, due.route, due.tried)
        if isinstance(found, Wait) or found.probe or self._board.full(found.provider):
            return None
        if load is None and self._board.holds(due.message, found.provider):
            return None
        if found.provider == due.tried[-1].provider:
            return None  # which may be known to be ill in a moment
        attempt = self._attempt(due, found)
        if attempt.share is not None:
            return None  # T2 counts it, and T3 does not
        return replace(attempt, lease=int(self._limits.lease * 1000))

    def _attempt(self, due: Due, pick: Pick) -> Attempt:
        route = self._board.routes[pick.provider]
        sender = self._board.sender(due.message, route)
        instead = sender if sender.address != due.message["from_address"] else None
        return Attempt(
            new_id("att"),
            due,
            route.name,
            route.connection,
            sender.key or None,
            why=explained(pick),
            instead=instead,
            estimate=self._estimates.of(due.message, route.name),
            share=self._board.quotas.share(route.name, recipients.count(due.message)),
        )

    async def _begin(self, attempt: Attempt, probe: Probe | None) -> bool:
        """T2. Whether it may go to the wire now."""
        try:
            begun = await self._batcher.submit(BEGIN, attempt)
        except StoreUnavailable as error:
            log.warning("%s was not begun: %s", attempt.due.message_id, error)
            begun = False  # nothing was written, and nothing goes to the wire; the lease runs out
        except (OutcomeUnknown, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not self._stopping:
                raise
            await self._sending.never_begun(attempt, probe)
            return False
        if not begun:
            self._board.circuits.unused(probe)
            if attempt.share is not None:
                self._board.crowded(attempt.provider)
        return begun

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


def _route(due: Due) -> str:
    return due.route or str(due.message["provider"])
