"""Asks vendors for what they said while nobody listened, and stores what of that is missing.

The vendor's list is the proof and is kept in the inbox. Whatever a webhook brought, or still
brings, is the same message and is there once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gateway.clock import new_id
from gateway.domain import (
    BACKFILL,
    Backfills,
    Clock,
    InboundMessage,
    Listing,
    Record,
    StatusUpdate,
)
from gateway.errors import OutcomeUnknown, ProviderError, StoreUnavailable
from gateway.fetched import Reading
from gateway.store.backfills import BEAT, FILLED, RECALL, Beat, Filled, Gap, Recalled
from gateway.store.batcher import Batcher
from gateway.store.inbox import Delivery

log = logging.getLogger("gateway.backfill")

MARGIN = timedelta(minutes=10)  # before a silence, for what was on its way; clocks differ, too
# Before that: what was sent then may have been reported in the silence. A vendor may try for hours.
REPORTED = timedelta(hours=10)
LONGEST = timedelta(hours=24)  # of a silence that is made up for without being asked
MESSAGES = 10_000  # that are looked at for it, the newest
PIECE = 250
BEATS = 15.0  # seconds between two notes that somebody listens
LEASE = 120_000  # milliseconds
RETRY, RETRY_CAP = 60_000, 900_000  # milliseconds


@dataclass(frozen=True, slots=True)
class Source:
    """One provider that tells what was, and who reads it."""

    provider: Backfills
    reading: Reading


@dataclass(slots=True)
class Result:
    """What came of it. `cut`: the vendor had more than was looked at, down to the time that was
    asked for."""

    seen: int = 0
    messages: int = 0
    statuses: int = 0
    unreadable: int = 0
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Backfill:
    """One run: what was said since a moment, stored if `store`."""

    batcher: Batcher
    source: Source
    clock: Clock
    since: datetime
    limit: int = MESSAGES
    store: bool = True
    result: Result = field(default_factory=Result)

    async def run(self) -> Result:
        """Asks, and stores what is missing, oldest first.

        Raises:
            ProviderError: the vendor did not tell. What was stored stays.
            StoreUnavailable, OutcomeUnknown: it can be tried again.
        """
        listing = await self.source.provider.history(self.since - REPORTED, self.limit)
        self.result.cut = self._cut(listing)
        records = list({r.provider_message_id: r for r in reversed(listing.records)}.values())
        for start in range(0, len(records), PIECE):
            await self._piece(records[start : start + PIECE])
        return self.result

    def _cut(self, listing: Listing) -> bool:
        oldest = min((record.created_at for record in listing.records), default=self.since)
        return not listing.whole and oldest >= self.since

    async def _piece(self, records: Sequence[Record]) -> None:
        read = [(record, self._read(record)) for record in records]
        asked = [(record, delivery) for record, delivery in read if self._concerns(delivery)]
        self.result.seen += len(asked)
        missing = await self._recall([delivery for _, delivery in asked], store=False)
        wanted = [pair for pair, new in zip(asked, missing, strict=True) if new]
        bad = [pair for pair in asked if pair[1].state == "malformed"]
        self.result.unreadable += len(bad)
        if self.store:
            wanted = [await self._whole(*pair) for pair in wanted]
            await self._recall([delivery for _, delivery in (*wanted, *bad)], store=True)
        for _, delivery in wanted:
            self.result.messages += isinstance(delivery.events[0], InboundMessage)
            self.result.statuses += isinstance(delivery.events[0], StatusUpdate)

    def _read(self, record: Record) -> Delivery:
        return self.source.reading.delivery(record, BACKFILL, self.clock.now())

    def _concerns(self, delivery: Delivery) -> bool:
        """What people said before that moment was not asked for; what became of ours was."""
        return not any(
            isinstance(event, InboundMessage)
            and event.occurred_at is not None
            and event.occurred_at < self.since
            for event in delivery.events
        )

    async def _whole(self, record: Record, delivery: Delivery) -> tuple[Record, Delivery]:
        if not record.partial:
            return record, delivery
        whole = await self.source.provider.complete(record)
        return whole, self._read(whole)

    async def _recall(self, deliveries: Sequence[Delivery], *, store: bool) -> list[bool]:
        waiting = [self.batcher.submit(RECALL, Recalled(d, store)) for d in deliveries]
        return list(await asyncio.gather(*waiting))


class BackfillWorker:
    """Notes that this process listens, and makes up for silences. `after` is in seconds, for how
    long a silence must last; 0: never."""

    def __init__(
        self, batcher: Batcher, sources: Mapping[str, Source], clock: Clock, *, after: float
    ) -> None:
        self._batcher = batcher
        self._sources = sources
        self._clock = clock
        self._after = after
        self._token = new_id("lease")
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Begins to note, and to ask."""
        if self._sources and self._after:
            self._tasks[""] = asyncio.create_task(self._run(), name="gateway-backfill")

    async def stop(self) -> None:
        """Stops; what was being asked for is asked for again by whoever comes next."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                for name, source in self._sources.items():
                    gap = await self._beat(name, source)
                    if gap is not None:
                        self._tasks[name] = asyncio.create_task(self._fill(name, source, gap))
            except (StoreUnavailable, OutcomeUnknown) as error:
                log.warning("cannot note that this process listens: %s", error)
            except Exception:
                log.exception("cannot note that this process listens")
            await asyncio.sleep(min(BEATS, self._after / 4))

    async def _beat(self, name: str, source: Source) -> Gap | None:
        connection, asking = source.reading.connection, self._tasks.get(name)
        noted = Beat(
            connection.tenant_id,
            connection.id,
            connection.account,
            self._token,
            int(self._after * 1000),
            LEASE,
            asking is not None and not asking.done(),
        )
        return await self._batcher.submit(BEAT, noted)

    async def _fill(self, name: str, source: Source, gap: Gap) -> None:
        retry_in: int | None = min(RETRY_CAP, RETRY * 2 ** min(gap.tries, 10))
        heard = datetime.fromtimestamp(gap.since / 1000, UTC)
        bound = datetime.fromtimestamp(gap.now / 1000, UTC) - LONGEST
        since = max(heard - MARGIN, bound)
        log.warning("nobody listened to %s since %s: asking for what was said", name, shown(heard))
        try:
            run = Backfill(self._batcher, source, self._clock, since)
            told(name, since, await run.run(), heard < bound)
            retry_in = None
        except ProviderError as error:
            log.warning("%s does not tell what was said: %s; asking later", name, error)
        except (StoreUnavailable, OutcomeUnknown) as error:
            log.warning("what %s said cannot be stored yet: %s", name, error)
        except asyncio.CancelledError:
            await self._end(source, 0)  # so that whoever comes next need not wait for a lease
            raise
        except Exception:
            log.exception("what %s said cannot be stored", name)
        await self._end(source, retry_in)

    async def _end(self, source: Source, retry_in: int | None) -> None:
        connection = source.reading.connection
        ended = Filled(
            connection.tenant_id, connection.id, connection.account, self._token, retry_in
        )
        try:
            await self._batcher.submit(FILLED, ended)
        except (StoreUnavailable, OutcomeUnknown) as error:
            log.warning("the end of a backfill was not noted, so it is repeated: %s", error)


def told(name: str, since: datetime, result: Result, late: bool) -> None:
    """Says what came of it, and what was left out."""
    log.info(
        "%s: %d messages and %d statuses were missing since %s, of %d",
        name,
        result.messages,
        result.statuses,
        shown(since),
        result.seen,
    )
    if late or result.cut:
        log.error(
            "%s: the silence was longer than is made up for by itself (%s, %d messages): run "
            "`gateway inbox backfill --since`",
            name,
            "24 h",
            MESSAGES,
        )


def shown(moment: datetime) -> str:
    """A moment for people."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
