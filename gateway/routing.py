"""Which provider a message goes to, and whether and when it is tried again: pure decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gateway.domain import (
    RESENDS,
    Capabilities,
    Channel,
    Connection,
    MessageType,
    OnUnknown,
    Sender,
)
from gateway.errors import NO_ROOM, Again, ProviderError, Throttled

WEB = "https://"
ONE_FILE = frozenset({Channel.WHATSAPP})  # channels whose messages hold no more
CHATS = frozenset({Channel.WHATSAPP})  # channels that show what is quoted, read and typed
LONGEST = (
    3600.0  # seconds that a vendor's Retry-After is believed, for it holds up a person's thread
)
# attempts that reached nobody, by our own doing
UNASKED = frozenset({"late", "not_begun", NO_ROOM})
READY, PROBE, TRIED = "ready", "probe", "tried"
# They close the claim: what waits for such a provider is not claimed, and needs no time.
BREAKERS = frozenset({"breaker_open", "breaker_half_open", "quota_used"})


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
    places: frozenset[str] = frozenset()  # of `Capabilities.media_from`: where its files are
    reply: bool = False  # it quotes what it answers
    user_id: bool = False  # the person shows no number


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how long between attempts. Times in seconds."""

    base: float = 2.0
    cap: float = 600.0
    limit: int = 1000


def lacks(capabilities: Capabilities, needs: Needs) -> str | None:
    """What a provider cannot do of what is asked, in words; None: it can."""
    found = lack(capabilities, needs)
    return None if found is None else found[1]


def lack(capabilities: Capabilities, needs: Needs) -> tuple[str, str] | None:
    """The same, behind the field of a message that asks for it."""
    if needs.channel not in capabilities.channels:
        return "type", f"the channel {needs.channel}"
    if needs.template and not capabilities.templates:
        return "template", "templates"
    if needs.html and not capabilities.html:
        return "html", "HTML"
    if needs.media and (without := _media(capabilities, needs)):
        return "media", without
    if needs.type not in types(capabilities, needs.channel):
        return "type", f"the type {needs.type}"
    if needs.reply and not capabilities.replies:
        return "reply_to", "answers that quote a message"
    if needs.user_id and not capabilities.user_ids:
        return "to", "to people who show no number"
    return None


def types(capabilities: Capabilities, channel: Channel) -> frozenset[MessageType]:
    """What can be said on a channel."""
    further = capabilities.types_on.get(channel)
    return capabilities.types | further if further else capabilities.types


def _media(capabilities: Capabilities, needs: Needs) -> str | None:
    if needs.channel not in capabilities.media:
        return f"media on {needs.channel}"
    if needs.media > capabilities.max_media:
        return f"more than {capabilities.max_media} media"
    if elsewhere := needs.places.difference(capabilities.media_from):
        return f"files from {', '.join(sorted(elsewhere))}"
    return None


def places(chain: Sequence[Route], channel: Channel) -> tuple[str, ...]:
    """Where files may be that a provider of the chain sends; on the web, in any case."""
    able = (route.capabilities for route in chain if channel in route.capabilities.media)
    return tuple(dict.fromkeys((WEB, *(each for can in able for each in can.media_from))))


def place(url: str, places: Iterable[str], tenant_id: str) -> str | None:
    """Which of the places a file is in; None: in none of them. Outside of the web a tenant's files
    are in a folder of its own, and no path leads out of that."""
    for each in places:
        start = each.replace("{tenant}", tenant_id)
        if not url.startswith(start):
            continue
        rest = unquote(url[len(start) :]).replace("\\", "/")
        if start == WEB:
            return each if _is_somewhere(url) else None
        if rest.isprintable() and not {"", ".", ".."} & {*rest.split("/")}:
            return each
    return None


def _is_somewhere(url: str) -> bool:
    """Whether a URL names a host; a vendor would say no more than that the file is away."""
    try:
        return bool(urlsplit(url).hostname) and url.isprintable()
    except ValueError:
        return False


def owns(route: Route, channel: Channel, address: str | None, key: str | None = None) -> bool:
    """Whether an address of ours, or a pool, is what a provider sends from on a channel."""
    sender = route.connection.senders.get(channel)
    if sender is None:
        return False
    if address in route.connection.further.get(channel, ()):
        return True
    return (bool(address) and sender.address == address) or (bool(key) and sender.key == key)


def candidates(
    chain: Sequence[Route], needs: Needs, address: str | None = None, key: str | None = None
) -> tuple[Route, ...]:
    """Who may send a message, best first. One that names an address of ours, or answers from one,
    is left to whom that address belongs; if it is nobody's, everybody may try."""
    able = tuple(route for route in chain if lacks(route.capabilities, needs) is None)
    owners = {route.name for route in chain if owns(route, needs.channel, address, key)}
    if owners:
        return tuple(route for route in able if route.name in owners)
    if address is not None:
        return able
    return tuple(route for route in able if needs.channel in route.connection.senders)


def nobody(
    chain: Sequence[Route], needs: Needs, ours: str | None, key: str | None
) -> tuple[str, str]:
    """Why nobody can send a message, behind the field that is at fault."""
    if not chain:
        return "channel", f"no provider is set up for {needs.channel}"
    owners = [route for route in chain if owns(route, needs.channel, ours, key)]
    lacking = {r.name: lack(r.capabilities, needs) for r in owners or chain}
    without = {name: lack for name, lack in lacking.items() if lack is not None}
    if len(without) == len(lacking):
        text = ", ".join(f"{name} cannot send {what}" for name, (_, what) in without.items())
        return next(iter(without.values()))[0], text
    able = ", ".join(name for name, what in lacking.items() if what is None)
    return "from", f"is needed: {able} has no sender of its own for {needs.channel}"


def sender_at(
    route: Route, channel: Channel, address: str | None, known: Iterable[Route]
) -> Sender:
    """Our side of a message at a provider: the address it has so far, unless that is another
    provider's own; then this one's."""
    own = route.connection.senders.get(channel)
    if own is None:
        return Sender(address=address)
    if address is None or own.address == address:
        return own
    if owns(route, channel, address):
        return Sender(address=address)
    foreign = any(owns(other, channel, address) for other in known)
    return own if foreign else Sender(address=address)


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt so far: at whom, what came of it, and before when (milliseconds) its vendor does
    not want to be asked again."""

    provider: str
    reason: str | None = None
    code: str | None = None
    retry_at: int | None = None


@dataclass(frozen=True, slots=True)
class May:
    """Whether a provider may be asked now: READY, PROBE, or why not, and until when."""

    word: str
    free_at: int = 0


@dataclass(frozen=True, slots=True)
class Pick:
    """Who is asked, and why not those before. `why` is None for the first of a chain."""

    provider: str
    probe: bool = False
    why: str | None = None
    passed_over: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Nobody may be asked now: `words` say why not. `until` is None where only breakers are in the
    way, as they let messages through by themselves; `soonest` is when the first may."""

    until: int | None = None
    words: tuple[str, ...] = ()
    soonest: int | None = None


def attempts_at(tried: Iterable[Tried]) -> Counter[str]:
    """How often each was asked."""
    return Counter(one.provider for one in tried if one.code not in UNASKED)


def pick(
    order: Sequence[str],
    tried: Sequence[Tried],
    may: Callable[[str], May],
    now: int,
    pinned: Collection[str] = (),
) -> Pick | Wait:
    """Who of a message's candidates is asked next: of those that may be, the one that was asked
    least often; of equals the first of the chain."""
    asked, over = attempts_at(tried), dict[str, str]()
    until: list[int] = []
    for name in sorted(order, key=lambda name: asked[name]):
        found = _not_before(name, tried, may(name), now)
        if found.word in (READY, PROBE):
            probe = found.word == PROBE
            busier = dict.fromkeys(order[: order.index(name)], TRIED)
            passed = tuple({**busier, **over}.items())
            why = _why(name, order, tried, asked, probe, name in pinned)
            return Pick(name, probe, why, passed)
        over[name] = found.word
        if found.free_at:
            until.append(found.free_at)
    only_breakers = all(word in BREAKERS for word in over.values())
    soonest = min(until, default=None)
    return Wait(None if only_breakers else soonest, tuple(over.values()), soonest)


def _not_before(name: str, tried: Sequence[Tried], found: May, now: int) -> May:
    """A vendor that said when is not asked sooner."""
    said = max((one.retry_at or 0 for one in tried if one.provider == name), default=0)
    if said > now and found.word in (READY, PROBE):
        return May("throttled", said)
    return found


def _why(
    name: str,
    order: Sequence[str],
    tried: Sequence[Tried],
    asked: Counter[str],
    probe: bool,
    pinned: bool,
) -> str | None:
    if probe:
        return "probe"
    if tried:
        last = tried[-1]
        again = asked[name] or last.provider == name
        text = "tried again after" if again else "failover from"
        return f"{text} {last.provider} ({last.reason}: {last.code})"
    if name == order[0]:
        return "pinned" if pinned else None
    return "next in the chain"


def elsewhere(
    order: Sequence[str], tried: Sequence[Tried], may: Callable[[str], May], now: int
) -> bool:
    """Whether, after the last attempt, another provider may be asked that was asked less often."""
    asked, last = attempts_at(tried), tried[-1].provider
    return any(
        asked[name] < asked[last] and _not_before(name, tried, may(name), now).word == READY
        for name in order
    )


def fresher(order: Iterable[str], tried: Sequence[Tried]) -> bool:
    """Whether there is a provider that was asked less often than the last one."""
    asked = attempts_at(tried)
    return any(asked[name] < asked[tried[-1].provider] for name in order)


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of a message after an error: tried again in so many seconds, or not (None).
    `drop`: not by this provider."""

    retry_in: float | None
    drop: bool = False


def after(
    error: ProviderError,
    *,
    made: int,
    rounds: int,
    elsewhere: bool,
    others: bool,
    on_unknown: OnUnknown,
    policy: Retry,
    luck: float,
) -> Next:
    """Whether and when a message is tried again after an error.

    `made` counts its attempts, `rounds` those at this provider, this one included in both.
    `elsewhere`: another one, that was asked less often, may be asked now; `others`: there is
    another one at all. `luck` is between 0 and 1: full jitter.
    """
    if error.ends_message or made > policy.limit:
        return Next(None)
    if error.again is Again.NO:
        return Next(0.0 if others else None, drop=True)
    ambiguous = error.again is Again.BY_POLICY
    if ambiguous and (on_unknown is not OnUnknown.RESEND or made >= RESENDS):
        return Next(None)
    if elsewhere and (error.next_provider or ambiguous):
        return Next(0.0)
    if isinstance(error, Throttled) and error.retry_after is not None:
        return Next(patience(error, policy) + luck * policy.base)
    window = min(policy.cap, policy.base * 2.0 ** min(max(rounds, 1) - 1, 30))
    return Next(window * luck)


def patience(error: Throttled, policy: Retry) -> float:
    """For how many seconds a vendor that said so is not asked for this message."""
    return min(max(error.retry_after or 0.0, 0.0), max(policy.cap, LONGEST))
