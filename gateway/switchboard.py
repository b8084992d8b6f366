"""Who is asked next, by what this process knows: chains, pins, breakers, who has just come back.

Decides nothing by itself: `routing` does, purely. While nothing is wrong it takes the first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway import breaker, recipients, routing
from gateway.breaker import Sign, State, sign_of
from gateway.circuits import Circuits, Probe
from gateway.domain import Channel, Sender
from gateway.errors import ProviderError
from gateway.foresight import Foresight, Refusal, plain_row
from gateway.outgoing import carries, file_urls, needs_of
from gateway.own_files import own_id
from gateway.quotas import PIECE, SHORT, USED, Quotas
from gateway.routing import PROBE, READY, TRIED, May, Pick, Route, Tried, Wait
from gateway.store.breakers import Place
from gateway.store.claims import names

SOON = 1000  # milliseconds
QUOTA = frozenset({USED, SHORT})

Row = Mapping[str, Any]
YES, NOT_HERE = May(READY), May("not_set_up")


@dataclass(slots=True)
class Ramp:
    """How many may be sent at once by a provider that has just come back: 1, 2, 4 …"""

    most: int = 1
    good: int = 0


@dataclass(frozen=True, slots=True)
class Rooms:
    """Who may be asked without a bound, and who for so many more messages. What is meant for one
    of `kept` waits for a seat there, and is not passed on to who is next in its chain."""

    free: tuple[str, ...]
    few: Mapping[str, int] = field(default_factory=dict)
    kept: tuple[str, ...] = ()


class Switchboard:
    """Knows whom to ask. `chains` are those of the settings, `routes` all that is set up here."""

    def __init__(
        self,
        circuits: Circuits,
        routes: Mapping[str, Route],
        chains: Mapping[Channel, Sequence[Route]],
        *,
        seats: int = 256,
        foresight: Foresight | None = None,
    ) -> None:
        self.circuits = circuits
        self.routes = routes
        self.chains = chains
        self._seats = seats
        self._foresight = foresight
        self._bounds = {
            route.name: bound
            for route in routes.values()
            if (bound := route.capabilities.seats) is not None and bound < seats
        }
        self._ramps: dict[str, Ramp] = {}
        self._flying: dict[str, int] = dict.fromkeys(routes, 0)
        self._all = frozenset(routes)
        self._picks = {name: Pick(name) for name in routes}
        self.freed: Callable[[], None] = lambda: None  # called when more may be sent than before
        circuits.on_switch = self._switched
        self.quotas = Quotas(routes.values(), circuits.now)
        circuits.on_usage = self.quotas.see

    def _switched(self, place: Place, closed: bool) -> None:
        if not place.sender:
            self._ramps.pop(place.provider, None)
        if closed:
            if not place.sender and place.provider in self.routes:
                self._ramps[place.provider] = Ramp()
            self.freed()

    @property
    def _calm(self) -> bool:
        return self.circuits.calm and self.quotas.calm and not self._ramps

    def order(self, channel: str, candidates: Sequence[str]) -> tuple[str, ...]:
        """The candidates with those that an operator has pinned first."""
        first = [name for name in self.pinned(channel) if name in candidates]
        return (*first, *(name for name in candidates if name not in first))

    def pinned(self, channel: str) -> tuple[str, ...]:
        """What is pinned on a channel, the newest first."""
        now = self.circuits.now()
        held = (pin for pin in self.circuits.pins if pin.channel in ("", channel))
        return tuple(dict.fromkeys(pin.provider for pin in held if pin.until > now))

    def may(self, name: str, sender: str, people: int = 1) -> May:
        """Whether a provider, and a sender at it, may be asked now for so many people."""
        if name not in self.routes:
            return NOT_HERE
        short = self.quotas.may(name, people)
        if short is not None:
            return short
        whole = self._unless_open(self.circuits.place(name))
        if whole is not None:
            return whole
        ramp = self._ramps.get(name)
        if ramp is not None and self._flying[name] >= ramp.most:
            return May("busy", self.circuits.now() + SOON)
        ours = self._unless_open(self.circuits.place(name, sender)) if sender else None
        if ours is None or ours.word == PROBE:
            return ours or YES
        return May("sender_blocked", ours.free_at)

    def _unless_open(self, place: Place) -> May | None:
        circuit, now = self.circuits.circuit(place), self.circuits.now()
        if circuit.state is State.CLOSED:
            return None
        if self.circuits.may_probe(place):
            return May(PROBE)
        free_at = breaker.free_at(circuit, now)
        if circuit.state is State.OPEN:
            return May("breaker_open", free_at)
        return May("breaker_half_open", free_at if place.sender else min(free_at, now + SOON))

    def pick(self, row: Row, route: str, tried: Sequence[Tried] = ()) -> Pick | Wait:
        """Who is asked next for a message."""
        able = names(route)
        if self._calm and not tried and able[0] in self._picks and self._leads(row, able[0]):
            return self._picks[able[0]]
        order, may = self._asked(row, able)
        pinned = self.pinned(row["channel"]) if self.circuits.pins else ()
        found = routing.pick(order, tried, may, self.circuits.now(), pinned)
        if isinstance(found, Wait):
            return found
        left = self._left_out(row, able, found, tried)
        if left and found.why is None:
            found = replace(found, why="next in the chain")
        return replace(found, passed_over=(*left, *found.passed_over)) if left else found

    def _asked(self, row: Row, able: Sequence[str]) -> tuple[tuple[str, ...], Callable[[str], May]]:
        people = recipients.count(row)

        def may(name: str) -> May:
            known = self.routes.get(name)
            return self.may(name, self.sender(row, known).key if known else "", people)

        return self.order(row["channel"], able), may

    def sender(self, row: Row, route: Route) -> Sender:
        """Our side of a message at a provider."""
        known = self.routes.values()
        return routing.sender_at(route, Channel(row["channel"]), row["from_address"], known)

    def _leads(self, row: Row, name: str) -> bool:
        chain = self.chains.get(row["channel"])
        return not chain or chain[0].name == name

    def _left_out(
        self, row: Row, able: Sequence[str], found: Pick, tried: Sequence[Tried]
    ) -> list[tuple[str, str]]:
        """Those of the chain before the chosen one that this message was never meant for; or that
        stand behind it in its route, as it waited for a seat there after it was tried elsewhere."""
        left: list[tuple[str, str]] = []
        told = {name for name, _ in found.passed_over}
        asked = {one.provider for one in tried}
        for route in self.chains.get(row["channel"], ()):
            if route.name == found.provider:
                break
            if route.name not in able:
                left.append((route.name, self.why_never(row, route, found.provider)))
            elif route.name in asked and route.name not in told:
                left.append((route.name, TRIED))
        return left

    def why_never(self, row: Row, route: Route, chosen: str) -> str:
        """Why a message was never meant for a provider of its chain, but for the chosen one."""
        lacking = routing.lacks(route.capabilities, needs_of(row))
        if lacking is not None:
            return f"cannot send {lacking}"
        refusal = self._refusal(row, route.name)
        if refusal is not None:
            return f"would refuse: {refusal.text}"
        ours = routing.owns(self.routes[chosen], Channel(row["channel"]), row["from_address"])
        return "another_sender" if ours else "not_in_route"

    def _refusal(self, row: Row, name: str) -> Refusal | None:
        route = self.routes.get(name)
        if self._foresight is None or route is None or plain_row(row):
            return None
        return self._foresight.refused(name, row, self.sender(row, route))

    def unfit(
        self, row: Row, route: str, tried: Sequence[Tried] = (), taker: str = ""
    ) -> tuple[str, Refusal] | None:
        """Who is asked next and is known to refuse a message, with why; None: nobody, or there is
        nobody else. `taker` is known to do no such thing."""
        if self._foresight is None or "," not in route or plain_row(row):
            return None
        found = self.pick(row, route, tried)
        if isinstance(found, Wait) or found.provider == taker:
            return None
        refusal = self._refusal(row, found.provider)
        return None if refusal is None else (found.provider, refusal)

    def fitting(self, row: Row, route: str, kept: str) -> str:
        """A route without those who are certain to refuse a message, but for one who was asked."""
        if self._foresight is None or "," not in route or plain_row(row):
            return route
        fit = (n for n in names(route) if n == kept or not self._certainly_refuses(row, n))
        return ",".join(fit)

    def _certainly_refuses(self, row: Row, name: str) -> bool:
        refusal = self._refusal(row, name)
        return refusal is not None and not refusal.listed

    async def fitted(self, row: Row, route: str, tried: Sequence[Tried], within: float) -> str:
        """A route without those whose turn it is and who are certain to refuse a message, while
        others may have it. A list of templates is asked for anew first, in so many seconds."""
        renewed = False
        while (found := self.unfit(row, route, tried)) is not None:
            name, refusal = found
            if not refusal.listed or renewed:
                route = ",".join(one for one in names(route) if one != name)
                continue
            renewed = True
            try:
                async with asyncio.timeout(within):
                    await self._renewed(row)
            except TimeoutError:
                break  # then it may be old, and is not believed
        return route

    async def _renewed(self, row: Row) -> None:
        """Has vendors tell of a message's template again, unless they just did."""
        if self._foresight is not None:
            template = json.loads(row["extra"] or "{}").get("template")
            await self._foresight.renewed(Channel(row["channel"]), template)

    def elsewhere(self, row: Row, route: str, tried: Sequence[Tried]) -> bool:
        """Whether, after the last attempt, another provider may be asked at once."""
        order, may = self._asked(row, names(route))
        return len(order) > 1 and routing.elsewhere(order, tried, may, self.circuits.now())

    def holds(self, row: Row, name: str) -> bool:
        """Whether a provider has the files of a message in memory as it sends it, which is no
        email."""
        route = self.routes.get(name)
        if not row["media"] or route is None or row["channel"] == Channel.EMAIL:
            return False
        return route.capabilities.holds_media and any(
            own_id(url) or url.startswith(routing.WEB) for url in file_urls(row)
        )

    def needs_room(self, row: Row, route: str, tried: Sequence[Tried]) -> bool:
        """Whether whoever sends a message now has its files in memory."""
        if carries(row):
            return True
        if not row["media"] or row["channel"] == Channel.EMAIL:
            return False
        found = self.pick(row, route, tried)
        return isinstance(found, Pick) and self.holds(row, found.provider)

    def able(self) -> frozenset[str]:
        """The providers that may be asked now."""
        if self._calm:
            return self._all
        rooms = self.rooms()
        return frozenset((*rooms.free, *rooms.few))

    def rooms(self) -> Rooms:
        """Who may be asked now, and for how many more messages."""
        if self._calm and not self._bounds:
            return Rooms(tuple(self.routes))
        free: list[str] = []
        few: dict[str, int] = {}
        for name in self.routes:
            word, most = self.may(name, "").word, self._most(name)
            if word == PROBE:
                few[name] = 1
            elif word == READY and most is not None:
                few[name] = most - self._flying[name]
            elif word == READY:
                free.append(name)
        return Rooms(tuple(free), few, tuple(name for name in few if self.keeps(name)))

    def keeps(self, name: str) -> bool:
        """Whether what is meant for a provider waits for a seat there."""
        return name in self._bounds and name not in self._ramps

    def _most(self, name: str) -> int | None:
        """How many messages it may be sent at once, where that is bounded."""
        bound, ramp = self._bounds.get(name), self._ramps.get(name)
        if ramp is None:
            return bound
        return ramp.most if bound is None else min(bound, ramp.most)

    def full(self, name: str) -> bool:
        """Whether a provider has no seat for one more message."""
        bound = self._bounds.get(name)
        return bound is not None and self._flying[name] >= bound

    def now(self) -> int:
        """The database's time, in milliseconds, as far as it is known here."""
        return self.circuits.now()

    def took(self, name: str) -> None:
        """A message is being sent by a provider."""
        self._flying[name] += 1

    def left(self, name: str) -> None:
        """It is not any more."""
        self._flying[name] -= 1

    def until(self, found: Wait) -> int | None:
        """When a message is looked at again for which nobody may be asked now. A quota may be
        raised before a day is over."""
        if found.until is None or not QUOTA.intersection(found.words):
            return found.until
        return min(found.until, self.circuits.now() + PIECE)

    def crowded(self, name: str) -> None:
        """T2 may have found no room in a provider's daily quota: what is known here is old."""
        self.quotas.doubt(name)
        self.circuits.poke()

    async def probe(self, row: Row, name: str) -> Probe | None:
        """Asks for the right to probe a provider, or, where that is well, our sender at it."""
        place = self.circuits.place(name)
        if self.circuits.circuit(place).state is State.CLOSED:
            place = self.circuits.place(name, self.sender(row, self.routes[name]).key)
        return await self.circuits.probe(place)

    def heard(
        self, name: str, sender: str, message: str, error: ProviderError | None, probe: Probe | None
    ) -> None:
        """What an answer says about its provider, and about its sender there."""
        if self._ramps:
            self._grow(name, error)
        self.circuits.heard(name, sender, message, error, probe)

    def _grow(self, name: str, error: ProviderError | None) -> None:
        """After a breaker has closed, as many are sent at once as went well, twice over."""
        ramp = self._ramps.get(name)
        if ramp is None:
            return
        if sign_of(error) is Sign.WELL:
            ramp.good += 1
            if ramp.good >= ramp.most:
                ramp.most, ramp.good = ramp.most * 2, 0
        elif sign_of(error) is not Sign.NOTHING:
            ramp.most, ramp.good = 1, 0
        if ramp.most >= self._seats:
            del self._ramps[name]
        self.freed()
