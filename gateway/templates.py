"""Templates as the vendors of a channel list them, kept for a while.

Asks a vendor at most once at a time, and not again for a moment after it failed; what it said
before is shown until it can be asked again. Never holds more than one list per provider.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.domain import Channel, Clock, ListsTemplates, Provider, VendorTemplate
from gateway.errors import Ambiguous, ProviderError
from gateway.routing import Route

log = logging.getLogger("gateway.templates")

FRESH = 600.0  # seconds that a list is believed
PAUSE = 15.0  # seconds before a vendor that failed is asked again
NOW = 15.0  # seconds that what was told of a template is as good as asking anew
MOST = 1000  # templates of a provider
GRACE = 1.0  # seconds that a list may exceed the time of its adapter


@dataclass(frozen=True, slots=True)
class Listed:
    """A template of a provider."""

    provider: str
    template: VendorTemplate


@dataclass(frozen=True, slots=True)
class Found:
    """The templates of a channel, in the order of its chain. `stale`: some are older than they
    should be, or left out; `failed` is why, by provider."""

    items: tuple[Listed, ...]
    stale: bool
    failed: Mapping[str, ProviderError]
    answered: bool  # whether anything is known at all, or there is nobody to ask


@dataclass(slots=True)
class _Shelf:
    """What is known of a provider's templates. Times are monotonic."""

    items: tuple[VendorTemplate, ...] | None = None
    until: float = 0.0
    told: dict[str, float] = field(default_factory=dict)  # of templates that were asked for anew
    error: ProviderError | None = None
    rest_until: float = 0.0


class Templates:
    """Knows what the providers of `chains` list."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        chains: Mapping[Channel, Sequence[Route]],
        clock: Clock,
        *,
        within: float,
    ) -> None:
        self._clock = clock
        self._within = within + GRACE
        self._listing: dict[str, ListsTemplates] = {
            name: provider
            for name, provider in providers.items()
            if provider.capabilities.lists_templates and isinstance(provider, ListsTemplates)
        }
        self._chains = chains
        self._shelves = {name: _Shelf() for name in self._listing}
        self._asking = {name: asyncio.Lock() for name in self._listing}

    async def found(self, channel: Channel) -> Found:
        """The templates of a channel; asks whom it has to."""
        names = [r.name for r in self._chains.get(channel, ()) if r.name in self._listing]
        await asyncio.gather(*(self._renew(name) for name in names))
        shelves = {name: self._shelves[name] for name in names}
        failed = {n: shelf.error for n, shelf in shelves.items() if shelf.error is not None}
        items = tuple(
            Listed(name, template)
            for name, shelf in shelves.items()
            for template in shelf.items or ()
        )
        answered = not names or any(shelf.items is not None for shelf in shelves.values())
        return Found(items, bool(failed), failed, answered)

    def known(self, provider: str) -> tuple[VendorTemplate, ...]:
        """What a provider listed, while that is believed; nobody is asked."""
        shelf = self._shelves.get(provider)
        if shelf is None or shelf.error is not None or self._clock.monotonic() >= shelf.until:
            return ()
        return shelf.items or ()

    async def anew(self, channel: Channel, name: str) -> None:
        """Has the vendors of a channel tell of a template again, but for what was told just now.
        Who fails is not believed until it answers."""
        names = [r.name for r in self._chains.get(channel, ()) if r.name in self._listing]
        await asyncio.gather(*(self._renew(one, name) for one in names))

    def outdated(self) -> None:
        """A vendor told of a change: each list is asked for again before it is shown."""
        for shelf in self._shelves.values():
            shelf.until = 0.0

    async def _renew(self, name: str, anew: str = "") -> None:
        async with self._asking[name]:  # bounded, as whoever holds it is
            shelf, now = self._shelves[name], self._clock.monotonic()
            until = shelf.told.get(anew, -NOW) + NOW if anew else shelf.until
            if now < max(until, shelf.rest_until):
                return
            try:
                shelf.items = await self._ask(name, anew)
            except ProviderError as error:
                log.info("%s lists no templates: %s (%s)", name, error.reason, error.code)
                shelf.error, shelf.rest_until = error, self._clock.monotonic() + PAUSE
            else:
                shelf.error, shelf.until = None, self._clock.monotonic() + FRESH
                shelf.told = {n: at for n, at in shelf.told.items() if now - at < NOW}
                shelf.told |= {anew: now} if anew else {}

    async def _ask(self, name: str, anew: str) -> tuple[VendorTemplate, ...]:
        try:
            async with asyncio.timeout(self._within):
                return tuple(await self._listing[name].templates(anew))[:MOST]
        except TimeoutError:
            raise Ambiguous("no list came in time", code="timeout") from None
