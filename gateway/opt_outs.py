"""Who does not want to be written to: which event says so, and which word counts. Pure decisions.

A doubt ends in a block: words to stop are taken as people write them, words to start only as they
are, and an order that cannot be known is read as the later stop. Knows no database and no vendor.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.domain import Channel, Engagement, Event, InboundMessage, MessageType

REASON = "opted_out"  # of an error, ours or a vendor's
BOUNCED = "bounced"  # of a vendor's error: there is no such mailbox
TEXT = "the person has opted out of this channel"
SUPPRESSED = "suppressed"  # of an error of ours: not for what the person wants
TEXTS = {REASON: TEXT, SUPPRESSED: "the address is suppressed: mail to it does harm"}
LONGEST = 32  # characters of a body that may be a keyword and nothing else
DETAIL = 64  # characters that are kept of what was said


class State(StrEnum):
    """Whether a person may be written to on a channel."""

    OUT = "out"
    IN = "in"


class Source(StrEnum):
    """Who said so."""

    KEYWORD = "keyword"  # the person, in a message
    UNSUBSCRIBE = "unsubscribe"  # the person, at the address of an email of ours
    VENDOR = "vendor"  # a vendor, of a message of ours or of what the person told it
    API = "api"
    CLI = "cli"


OPERATORS = frozenset({Source.API, Source.CLI})


class Verdict(StrEnum):
    """What became of a word."""

    APPLIED = "applied"
    REPEATED = "repeated"  # said already
    OLDER = "older"  # a newer word stands


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants, as one event tells. `weak`: also an ordinary answer, so that it lifts
    only what the person, or a vendor, began."""

    state: State
    said: str
    weak: bool = False


# "Messaging Principles and Best Practices" (CTIA) and 47 CFR 64.1200(a)(10): the words of text
# messages. Some are ordinary words of a chat, so in chats they do not count.
STOPS = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "OPTOUT"})
SMS_STOPS = STOPS | {"END", "QUIT", "CANCEL", "REVOKE"}
STARTS = frozenset({"START", "UNSTOP"})
WEAK_STARTS = frozenset({"YES"})  # carriers lift their own block by it
SPOKEN = frozenset({MessageType.TEXT, MessageType.BUTTON, MessageType.INTERACTIVE})
WISHES = {"stop": State.OUT, "start": State.IN}
ENGAGEMENTS = {
    "unsubscribed": State.OUT,
    "resubscribed": State.IN,
    "complained": State.OUT,  # to their mail's provider: they called it spam
    BOUNCED: State.OUT,  # for good: there is no such mailbox
}


def wish_of(event: Event) -> Wish | None:
    """What an event says about being written to, if anything. What the adapter says stands above
    our own reading of the text."""
    if isinstance(event, Engagement):
        state = ENGAGEMENTS.get(event.kind)
        return Wish(state, event.kind) if state is not None else None
    if not isinstance(event, InboundMessage) or event.echo:
        return None
    content = event.content
    if "opt_out" in content or "opt_out_type" in content:
        state = WISHES.get(str(content.get("opt_out")))
        said = event.body.strip() or str(content.get("opt_out_type") or content.get("opt_out"))
        return Wish(state, said[:DETAIL]) if state is not None else None
    if len(event.body) > LONGEST or event.type not in SPOKEN or event.channel is Channel.EMAIL:
        return None
    return _keyword(event.body.strip(), event.channel is Channel.SMS)


def _keyword(said: str, sms: bool) -> Wish | None:
    """A message that is nothing but a keyword."""
    word = said.upper()
    if "".join(filter(str.isalnum, word)) in (SMS_STOPS if sms else STOPS):
        return Wish(State.OUT, said)
    if word in STARTS:
        return Wish(State.IN, said)
    return Wish(State.IN, said, weak=True) if sms and word in WEAK_STARTS else None


class Why(StrEnum):
    """Why an email address is not written to."""

    BOUNCE = "bounce"  # there is no such mailbox
    COMPLAINT = "complaint"  # the person called it spam
    UNSUBSCRIBE = "unsubscribe"
    MANUAL = "manual"  # an operator or an application said so


# By the detail of the word that blocks; operators say it in the same words as vendors.
DETAILS = {
    BOUNCED: Why.BOUNCE,
    "complained": Why.COMPLAINT,
    "unsubscribed": Why.UNSUBSCRIBE,
    SUPPRESSED: Why.MANUAL,
}
SAID = {why: detail for detail, why in DETAILS.items()}


def detail_of(reason: str, code: str) -> str | None:
    """What is kept of a vendor's refusal of a message that speaks of its person; None: it does
    not. Mail's own reasons are known by their words."""
    return {REASON: code, BOUNCED: BOUNCED}.get(reason)


def why_blocked(source: Source, detail: str | None) -> Why:
    """Why an email address is blocked, by the word that did it."""
    if detail in DETAILS:
        return DETAILS[detail]
    return Why.MANUAL if source in OPERATORS else Why.UNSUBSCRIBE


def code_of(channel: str, detail: str | None) -> str:
    """The code of a message that is refused because of a word."""
    known = DETAILS.get(detail or "", Why.UNSUBSCRIBE)
    return REASON if channel != Channel.EMAIL or known is Why.UNSUBSCRIBE else SUPPRESSED


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a person: the state, since whose word, and the newest word's time."""

    state: State
    source: Source
    said_at: int
    detail: str | None = None


def decide(
    known: Known | None, state: State, source: Source, said_at: int, now: int, *, weak: bool = False
) -> Verdict | None:
    """What a word changes; None: it is not worth keeping. Times in milliseconds.

    What an operator says is always the newest word. A vendor's word dates from the attempt that
    it is about. A clock that was set back cannot keep a person from stopping.
    """
    if known is None:
        return None if weak else Verdict.APPLIED
    if weak and (known.state is State.IN or known.source in OPERATORS):
        return None
    newest = min(known.said_at, now) if state is State.OUT else known.said_at
    if source not in OPERATORS and said_at < newest:
        return Verdict.OLDER
    return Verdict.REPEATED if state is known.state else Verdict.APPLIED


def same_person(channel: str, address: str) -> str:
    """An address as it is compared: mail for Ada@ and for ada@ comes to the same person."""
    return address.lower() if channel == Channel.EMAIL else address
