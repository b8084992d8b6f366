"""Which provider a message goes to, and whether and when it is tried again: pure decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain import RESENDS, Capabilities, Channel, Connection, MessageType, OnUnknown
from gateway.errors import Again, Ambiguous, ProviderError, Throttled

LONGEST = (
    3600.0  # seconds that a vendor's Retry-After is believed, for it holds up a person's thread
)


@dataclass(frozen=True, slots=True)
class Route:
    """A provider that is set up, with the connection it sends over."""

    name: str
    capabilities: Capabilities
    connection: Connection


@dataclass(frozen=True, slots=True)
class Needs:
    """What a message asks of a provider."""

    channel: Channel
    type: MessageType = MessageType.TEXT
    media: int = 0
    html: bool = False
    template: bool = False


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how long between attempts. Times in seconds."""

    base: float
    cap: float
    limit: int


def lacks(capabilities: Capabilities, needs: Needs) -> str | None:
    """What a provider cannot do of what is asked, in words; None: it can."""
    if needs.channel not in capabilities.channels:
        return f"the channel {needs.channel}"
    if needs.template and not capabilities.templates:
        return "templates"
    if needs.html and not capabilities.html:
        return "HTML"
    if needs.media:
        if needs.channel not in capabilities.media:
            return f"media on {needs.channel}"
        if needs.media > capabilities.max_media:
            return f"more than {capabilities.max_media} media"
    if needs.type not in capabilities.types:
        return f"the type {needs.type}"
    return None


def choose(chain: Sequence[Route], needs: Needs) -> Route | None:
    """The first provider of the chain that can."""
    return next((route for route in chain if lacks(route.capabilities, needs) is None), None)


def retry_in(
    error: ProviderError, made: int, on_unknown: OnUnknown, policy: Retry, luck: float
) -> float | None:
    """Seconds until the same provider is asked again; None: not at all.

    `made` counts the attempts so far, this one included; `luck` is between 0 and 1: full jitter.
    """
    if made > policy.limit:
        return None
    if isinstance(error, Ambiguous):
        if on_unknown is not OnUnknown.RESEND or made >= RESENDS:
            return None
    elif error.again is Again.AFTER_CHANGE:  # somebody has to act, so there is no hurry
        return policy.cap * (0.5 + luck / 2)
    elif error.again is not Again.LATER:
        return None
    window = min(policy.cap, policy.base * 2.0 ** min(made - 1, 30))
    if isinstance(error, Throttled) and error.retry_after is not None:
        return min(max(error.retry_after, 0.0), max(policy.cap, LONGEST)) + luck * policy.base
    return window * luck
