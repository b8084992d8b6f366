"""Breakers, blocked senders and pins, as this process sees them.

The truth is in the database and shared by all processes; this is a view of it, fresh after each
write of ours, after each that is told of, and every second. While nothing is wrong it costs a look
into a dictionary, and writes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from gateway import breaker
from gateway.breaker import Circuit, Policy, Sign, State, sign_of
from gateway.clock import new_id, show
from gateway.domain import Clock
from gateway.errors import (
    OutcomeUnknown,
    ProviderError,
    SenderRefused,
    StoreUnavailable,
    Throttled,
)
from gateway.patience import woken
from gateway.quotas import Usage
from gateway.routing import Route
from gateway.store.batcher import Batcher
from gateway.store.breakers import ASK, HEAR, HURRY, Ask, Heard, Hurry, Place, Standing
from gateway.store.pins import Pin, Snapshot, snapshot
from gateway.store.reader import Reader

log = logging.getLogger("gateway.circuits")

POLL = 1.0  # seconds
SUSTAINED = 10  # throttled answers in a row
# A sender that was refused: blocked at once, asked again rarely, free after one good answer.
SENDERS = Policy(failures=1, messages=1, open_for=600_000, longest=3_600_000, successes=1)

OnSwitch = Callable[[Place, bool], None]  # whether it is closed now, and was not
OnUsage = Callable[[Sequence[Usage]], None]  # what is used of daily quotas


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe that is ours to make."""

    place: Place
    token: str


class Circuits:
    """The breakers of the providers that are set up here. `calm` while none is open and nothing is
    pinned."""

    def __init__(
        self,
        batcher: Batcher,
        reader: Reader,
        routes: Mapping[str, Route],
        clock: Clock,
        *,
        policy: Policy | None = None,
        senders: Policy = SENDERS,
    ) -> None:
        self._batcher = batcher
        self._reader = reader
        self._clock = clock
        self._policy = policy or Policy()
        self._senders = senders
        self._places = {
            route.name: Place(route.connection.tenant_id, route.connection.id, route.name)
            for route in routes.values()
        }
        self._standings: dict[tuple[str, str, str], Standing] = {}
        self._throttled: dict[str, list[str]] = {}  # messages, of answers in a row
        self._asking: set[tuple[str, str, str]] = set()
        self._ahead = clock.now().timestamp() - clock.monotonic()  # until the database has spoken
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.pins: tuple[Pin, ...] = ()
        self.calm = True
        self.on_switch: OnSwitch = lambda place, closed: None
        self.on_usage: OnUsage = lambda usage: None

    async def start(self) -> None:
        """Learns what stands, and keeps up with it."""
        await self._refresh()
        self._task = asyncio.create_task(self._follow(), name="gateway-circuits")

    async def stop(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def poke(self) -> None:
        """Somebody has switched something."""
        self._changed.set()

    async def hurry(self) -> None:
        """What refused us, or a sender, may be asked at once: this process was started, perhaps
        after a repair."""
        if not self.calm:
            item = Hurry(providers=tuple(self._places))
            for standing in await self._batcher.submit(HURRY, item):
                self._take(standing)

    async def _follow(self) -> None:
        while True:
            await woken(self._changed, POLL)
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            self._see(await self._reader.call(snapshot))
        except StoreUnavailable as error:
            log.debug("the breakers cannot be read: %s", error)
        except Exception:
            log.exception("the breakers cannot be read")

    def _see(self, seen: Snapshot) -> None:
        self._ahead = seen.now / 1000 - self._clock.monotonic()
        if self.pins != seen.pins:
            log.info("pinned now: %s", ", ".join(map(pinned, seen.pins)) or "nobody")
        self.pins = seen.pins
        self.on_usage(seen.usage)
        for standing in seen.standings:
            self._take(standing)
        self._judge()

    def _take(self, standing: Standing) -> None:
        """Takes note of how a breaker stands; what is older than what is known is no news."""
        known = self._standings.get(standing.place.key)
        if known is not None and known.version >= standing.version:
            return
        self._standings[standing.place.key] = standing
        self._judge()
        before = known.circuit.state if known is not None else State.CLOSED
        if standing.circuit.state is not before:
            self.on_switch(standing.place, standing.circuit.state is State.CLOSED)

    def _judge(self) -> None:
        closed = all(s.circuit.state is State.CLOSED for s in self._standings.values())
        self.calm = closed and not self.pins

    def now(self) -> int:
        """The database's time in milliseconds, as far as we know."""
        return int((self._ahead + self._clock.monotonic()) * 1000)

    def place(self, provider: str, sender: str = "") -> Place:
        """Whose breaker that is."""
        own = self._places[provider]
        return replace(own, sender=sender) if sender else own

    def circuit(self, place: Place) -> Circuit:
        """How a breaker stands."""
        found = self._standings.get(place.key)
        return found.circuit if found is not None else Circuit()

    def shut(self, provider: str) -> bool:
        """Whether a provider's breaker is open, and not even a probe is due."""
        return breaker.shown(self.circuit(self.place(provider)), self.now()) is State.OPEN

    def standings(self) -> list[Standing]:
        """All that ever had something to tell."""
        return list(self._standings.values())

    def may_probe(self, place: Place) -> bool:
        """Whether it is worth asking for a probe."""
        asked = place.key in self._asking
        return not asked and breaker.may_probe(self.circuit(place), self.now())

    async def probe(self, place: Place) -> Probe | None:
        """Asks for the right to probe: granted by the database, to one process at a time."""
        policy = self._senders if place.sender else self._policy
        if place.key in self._asking:
            return None
        self._asking.add(place.key)
        token = new_id("probe")
        try:
            standing = await self._batcher.submit(ASK, Ask(place, token, policy))
        except (StoreUnavailable, OutcomeUnknown) as error:
            log.warning("cannot ask to probe %s: %s", place.provider, error)
            return None
        finally:
            self._asking.discard(place.key)
        self._switched(standing)
        return Probe(place, token) if standing.circuit.probe_token == token else None

    def unused(self, probe: Probe | None) -> None:
        """A probe that was ours and is not made."""
        if probe is not None:
            self._tell(probe.place, Sign.NOTHING, "", None, probe)

    def heard(
        self, name: str, sender: str, message: str, error: ProviderError | None, probe: Probe | None
    ) -> None:
        """What an answer says about its provider, and about its sender there."""
        long = self._for_long(name, message, error)
        place = self._places[name]
        own = self.circuit(place)
        mine = probe if probe is not None and not probe.place.sender else None
        sign = sign_of(error, sustained=long or mine is not None)
        if mine is not None or (own.state is State.CLOSED and _matters(sign, own)):
            self._tell(place, sign, message, error, mine)
        refused = isinstance(error, SenderRefused)
        if probe is not None and probe.place.sender:
            sign = Sign.REFUSED if refused else Sign.WELL if sign is Sign.WELL else Sign.NOTHING
            self._tell(probe.place, sign, message, error, probe)
        elif refused and sender:
            self._tell(replace(place, sender=sender), Sign.REFUSED, message, error, None)

    def _for_long(self, name: str, message: str, error: ProviderError | None) -> bool:
        """Whether a provider has throttled us so often in a row that it counts as broken."""
        if error is None:
            self._throttled.pop(name, None)
            return False
        if not isinstance(error, Throttled) or error.code in breaker.OURS:
            return False
        row = self._throttled.setdefault(name, [])
        row.append(message)
        del row[:-SUSTAINED]
        return len(row) >= SUSTAINED and len(set(row)) >= self._policy.messages

    def _tell(
        self,
        place: Place,
        sign: Sign,
        message: str,
        error: ProviderError | None,
        probe: Probe | None,
    ) -> None:
        item = Heard(
            place,
            sign,
            message,
            random.random(),
            self._senders if place.sender else self._policy,
            probe.token if probe is not None else None,
            (error.reason, error.code) if error is not None else None,
        )
        self._batcher.submit(HEAR, item).add_done_callback(partial(self._told, item))

    def _told(self, item: Heard, done: asyncio.Future[Standing]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            log.warning("%s: what was heard of it was not stored: %s", item.place.provider, error)
            return
        self._switched(done.result())

    def _switched(self, standing: Standing) -> None:
        self._take(standing)
        if standing.switched is not None:
            log.log(loudness(standing.circuit), "%s", said(standing, self.now()))


def _matters(sign: Sign, circuit: Circuit) -> bool:
    if sign is Sign.WELL:
        return bool(circuit.failures)
    return sign is not Sign.NOTHING


def pinned(pin: Pin) -> str:
    """A pin for the log."""
    return f"{pin.provider} ({pin.channel or 'every channel'}, until {show(pin.until)})"


def loudness(circuit: Circuit) -> int:
    """Somebody has to act where we are refused; a provider that is away comes back by itself."""
    if circuit.state is not State.OPEN:
        return logging.INFO
    return logging.ERROR if circuit.error_reason == "account_refused" else logging.WARNING


def said(standing: Standing, now: int) -> str:
    """A switch in a sentence for the log: class and code, never a vendor's text or an address."""
    place, circuit = standing.place, standing.circuit
    what = f"{place.provider}, one of its senders," if place.sender else place.provider
    cause = f"{circuit.error_reason}: {circuit.error_code}"
    if circuit.state is State.OPEN:
        wait = max(0, circuit.retry_at - now) / 1000
        return f"{what} is not asked any more ({cause}); a probe in {wait:.0f} s"
    if circuit.state is State.HALF_OPEN:
        return f"{what} is probed"
    return f"{what} is asked again"
