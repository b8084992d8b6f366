"""Asks vendors about messages whose answer was lost: whether they have them, and what became of
them. Never sends anything, and never takes silence for a no."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.clock import to_ms
from gateway.domain import LOOK_UP, Channel, Clock, Listing, LooksUp, Sender, Sought
from gateway.errors import AccountRefused, ProviderError
from gateway.fetched import Reading
from gateway.rounds import Rounds
from gateway.store.batcher import Batcher
from gateway.store.lookups import SETTLE, WANT, Found, Looked, Wanted

log = logging.getLogger("gateway.lookups")

# When to look, after an outcome became unknown, in units of LOOKUP_AFTER: by default 30 s (most
# callbacks have come by then), 2 min, 10 min, 1 h, 6 h and 24 h.
STEPS = (1, 4, 20, 120, 720, 2880)
LATER = 7 * 86_400_000  # milliseconds until what is still not known is looked up once more
MARGIN = 30_000  # milliseconds that a vendor may take to create what it was sent
SECOND = 1000  # what a vendor's times are exact to
WITHIN = 60.0  # seconds for one look, with all its pages
LEASE = 120_000  # milliseconds
AT_ONCE = 4
# Without a look at a vendor that refuses us or does not answer: a minute, ten where it does not
# take our credentials, in the same units.
PAUSE = 2
REFUSED = 20


@dataclass(frozen=True, slots=True)
class Source:
    """One provider that can be asked, and who reads what it says."""

    provider: LooksUp
    reading: Reading


@dataclass(frozen=True, slots=True)
class Moment:
    """What the database's clock said between two readings of ours."""

    now: int
    before: float
    after: float


class LookUpWorker:
    """Looks up what is due, a few at a time. `after` and `lease` are in seconds; 0: never. Who is
    `shut` is not asked, and what is due there stays so."""

    def __init__(
        self,
        batcher: Batcher,
        sources: Mapping[str, Source],
        clock: Clock,
        *,
        after: float,
        lease: float,
        shut: Callable[[str], bool] = lambda provider: False,
        poll: float = 5.0,
    ) -> None:
        self._batcher = batcher
        self._sources = sources
        self._clock = clock
        self._after = after
        self._lease = int(lease * 1000)
        self._shut = shut
        self._paused: dict[str, float] = {}
        self._rounds = Rounds("look-ups", self._turn, poll=min(poll, max(after / 2, 0.05)))

    def start(self) -> None:
        """Begins to look."""
        if self._sources and self._after:
            self._rounds.start()

    async def stop(self) -> None:
        """Stops; what was being looked up is looked up again later."""
        await self._rounds.stop()

    async def _turn(self) -> bool:
        """Looks up what is due; whether there may be more."""
        before = self._clock.monotonic()
        names = tuple(name for name in self._sources if self._asks(name, before))
        first = int(self._after * STEPS[0] * 1000)
        rows = await self._batcher.submit(WANT, Wanted(AT_ONCE, LEASE, first, LATER, names))
        after = self._clock.monotonic()
        looks = [self._look(row, Moment(row["now"], before, after)) for row in rows]
        for ended in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
        return bool(rows)

    def _asks(self, name: str, now: float) -> bool:
        return self._paused.get(name, 0.0) <= now and not self._shut(name)

    async def _look(self, row: Mapping[str, Any], moment: Moment) -> None:
        source = self._sources[row["provider"]]
        try:
            looked = await self._asked(source, row, moment)
        except ProviderError as error:
            looked = self._refused(row, error)
        except TimeoutError:
            looked = self._refused(row, None)
        said = await self._batcher.submit(SETTLE, looked)
        log.info("%s was looked up at %s: %s", row["id"], row["provider"], said)

    async def _asked(self, source: Source, row: Mapping[str, Any], moment: Moment) -> Looked:
        reading = source.reading
        if row["account"] != reading.connection.account:
            return Looked(row["tenant_id"], row["id"], len(STEPS), LATER)
        sent = self._clock.monotonic()
        age = (moment.now - row["started_at"]) / 1000 + sent - moment.before
        async with asyncio.timeout(WITHIN):
            listing = await source.provider.look_up(_sought(row, reading, age))
        heard = self._clock.monotonic()
        found: tuple[Found, ...] = ()
        low = high = 0
        if listing.whole and listing.vendor_time is not None:
            found = self._found(reading, listing)
            low, high = window(moment, sent, heard, to_ms(listing.vendor_time), self._lease)
        next_in = self._next_in(row["tries"] + 1)
        return Looked(row["tenant_id"], row["id"], row["tries"] + 1, next_in, found, low, high)

    def _found(self, reading: Reading, listing: Listing) -> tuple[Found, ...]:
        at = self._clock.now()
        return tuple(
            Found(
                record.provider_message_id,
                to_ms(record.created_at),
                reading.delivery(record, LOOK_UP, at),
            )
            for record in listing.records
        )

    def _next_in(self, tries: int) -> int:
        if tries >= len(STEPS):
            return LATER
        return int(self._after * (STEPS[tries] - STEPS[tries - 1]) * 1000)

    def _refused(self, row: Mapping[str, Any], error: ProviderError | None) -> Looked:
        """The vendor did not tell: that is no look. Nobody asks it for a while."""
        code = error.code if error is not None else "timeout"
        log.warning("%s cannot be asked about %s: %s", row["provider"], row["id"], code)
        wait = self._after * (REFUSED if isinstance(error, AccountRefused) else PAUSE)
        if error is not None and error.retry_after is not None:
            wait = max(wait, min(error.retry_after, self._after * REFUSED))
        self._paused[row["provider"]] = self._clock.monotonic() + wait
        return Looked(row["tenant_id"], row["id"], row["tries"], int(wait * 1000))


def _sought(row: Mapping[str, Any], reading: Reading, age: float) -> Sought:
    key = row["sender"] or ""
    pools = {sender.pool for sender in reading.connection.senders.values()}
    return Sought(
        channel=Channel(row["channel"]),
        to=row["recipient"],
        sender=Sender(pool=key) if key in pools else Sender(address=key),
        body=row["body"],
        media=len(json.loads(row["media"])) if row["media"] else 0,
        age=age,
    )


def window(
    moment: Moment, sent: float, heard: float, vendor_time: int, lease: int
) -> tuple[int, int]:
    """From when to when, in milliseconds after its attempt began, a message may have been created
    by the vendor's clock.

    That clock differs from the database's by some amount: the vendor told its time, in whole
    seconds, at some moment between `sent` and `heard`. Not before the attempt, then, and not
    after its lease, which is the last moment at which it may have been written.
    """
    earliest = vendor_time - (moment.now + (heard - moment.before) * 1000)
    latest = vendor_time + SECOND - (moment.now + (sent - moment.after) * 1000)
    return int(earliest) - SECOND, int(latest) + lease + MARGIN
