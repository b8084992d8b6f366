"""Vendors of a simulation: they take messages or not, tell the truth about it or nothing at all,
post what became of them, early, late, twice and out of order, and count what really came.

A vendor's answer may be lost, but it never says no to what it took: that would be its own fault.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from gateway.domain import (
    Answer,
    Capabilities,
    Channel,
    Connection,
    OutboundMessage,
    Receipt,
    Sender,
    Simulated,
    Status,
    StatusUpdate,
    VendorError,
    Verified,
    WebhookRequest,
)
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unreachable,
    Unsupported,
)
from gateway.routing import Route
from tests.chaos.loop import Loop

TENANT = "default"


class Fate(StrEnum):
    """How one send ends, and whether the vendor took the message."""

    YES = "yes"
    LOST_TAKEN = "answer lost, taken"
    LOST_NOT_TAKEN = "answer lost, not taken"
    HANGS = "no answer ever, taken"
    BROKEN = "adapter fails, taken"
    NONSENSE = "no receipt, taken"
    LATE_YES = "late yes"
    LATE_NO = "late no"
    LATE_NEVER = "late silence, taken"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    REJECTED = "rejected"
    OPTED_OUT = "rejected, opted out"
    SENDER = "sender refused"
    ACCOUNT = "account refused"
    UNSUPPORTED = "unsupported"


F = Fate
TAKEN = frozenset({F.YES, F.LOST_TAKEN, F.HANGS, F.BROKEN, F.NONSENSE, F.LATE_YES, F.LATE_NEVER})
FLAKY = {
    F.YES: 50, F.LOST_TAKEN: 6, F.LOST_NOT_TAKEN: 6, F.HANGS: 2, F.BROKEN: 2, F.NONSENSE: 1,
    F.LATE_YES: 3, F.LATE_NO: 3, F.LATE_NEVER: 1, F.THROTTLED: 8, F.UNREACHABLE: 8,
    F.REJECTED: 3, F.OPTED_OUT: 1, F.SENDER: 2, F.ACCOUNT: 1, F.UNSUPPORTED: 2,
}  # fmt: skip
MOODS: dict[str, dict[Fate, int]] = {
    "well": {F.YES: 96, F.LOST_TAKEN: 1, F.LOST_NOT_TAKEN: 1, F.REJECTED: 1, F.THROTTLED: 1},
    "flaky": FLAKY,
    "down": {F.UNREACHABLE: 30, F.LOST_NOT_TAKEN: 1, F.LOST_TAKEN: 1},
    "busy": {F.THROTTLED: 10, F.YES: 2},
    "losing": {F.LOST_TAKEN: 4, F.LOST_NOT_TAKEN: 4, F.HANGS: 1, F.LATE_NO: 1, F.YES: 4},
    "refusing": {F.ACCOUNT: 5, F.SENDER: 5, F.YES: 5},
}
# What becomes of a message that was taken, by the words of the vendor's callbacks.
S = Status
STORIES: tuple[tuple[int, tuple[Status | str, ...]], ...] = (
    (55, (S.SENT, S.DELIVERED)),
    (8, (S.SENT, S.DELIVERED, S.READ)),
    (8, (S.SENT,)),
    (8, ()),
    (5, (S.SENT, S.UNDELIVERED)),
    (5, (S.FAILED,)),
    (4, ("throttled",)),
    (2, (S.SENT, "opted_out")),
    (2, (S.FAILED, S.DELIVERED)),
    (2, (S.DELIVERED, S.FAILED)),
)


@dataclass(eq=False)
class Request:
    """What came over the wire, once."""

    attempt_id: str
    message_id: str
    vendor: str
    to: str
    fate: Fate
    vendor_id: str | None = None
    taken: bool = False
    unsent: bool = False  # nothing reached the person, and the gateway was told so
    throttled: bool = False  # taken, and given back by a callback
    named: bool = False  # whether its callbacks name the attempt
    said: set[Status] = field(default_factory=set)  # by callbacks that were posted,
    heard: set[Status] = field(default_factory=set)  # and by those that were answered 2xx


@dataclass
class Truth:
    """What really came to the vendors, and what they could tell us of it."""

    requests: dict[str, list[Request]] = field(default_factory=dict)  # by message
    taken: dict[str, Request] = field(default_factory=dict)  # by the vendor's id
    forged: set[str] = field(default_factory=set)


class _Late:
    """An answer that comes after all, if somebody still listens."""

    def __init__(self, wait: Callable[[], Generator[Any, Any, Receipt]]) -> None:
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, Receipt]:
        return self._wait()


Post = Callable[["Vendor", str, StatusUpdate], None]  # with the key of the request
Arrived = Callable[[Request], None]


class Vendor:
    """One vendor with one account. `post` sends a callback, `arrived` hears of what came."""

    def __init__(
        self,
        number: int,
        loop: Loop,
        luck: random.Random,
        truth: Truth,
        *,
        names_attempts: bool,
        seats: int | None,
    ) -> None:
        self.name = ("one", "two", "three")[number]
        self.capabilities = Capabilities(channels=frozenset({Channel.SMS}), seats=seats)
        self.connection = Connection(
            id=f"c-{self.name}",
            tenant_id=TENANT,
            family=self.name,
            account=f"AC-{self.name}",
            senders={Channel.SMS: Sender(address=f"+1500555000{number}")},
        )
        self.route = Route(self.name, self.capabilities, self.connection)
        self.mood = "well"
        self.steady = False  # then it answers, and is well
        self.post: Post = lambda vendor, key, update: None
        self.arrived: Arrived = lambda request: None
        self.fates: dict[str, int] = {}
        self._names_attempts = names_attempts
        self._loop, self._luck, self._truth = loop, luck, truth
        self._count = 0

    def bounded(self, daily: int) -> None:
        """From now on it writes to so many people within 24 hours, which no universe lasts."""
        self.capabilities = replace(self.capabilities, daily=daily)
        self.route = replace(self.route, capabilities=self.capabilities)

    async def send(self, message: OutboundMessage) -> Receipt:
        """One request. It is on its way, whatever becomes of who asked."""
        luck = self._luck
        fates = MOODS["well" if self.steady else self.mood]
        fate = luck.choices(list(fates), list(fates.values()))[0]
        self.fates[fate.value] = self.fates.get(fate.value, 0) + 1
        request = Request(message.attempt_id, message.message_id, self.name, message.to, fate)
        await asyncio.sleep(luck.choice((0.0, 0.0, 0.01, 0.05)))  # connecting
        if fate is Fate.UNREACHABLE:
            raise Unreachable("connection refused", code="refused")
        reply = self._loop.create_future()
        self._loop.outside(luck.choice((0.0, 0.01, 0.02, 0.1)), self._arrives, request, reply)
        try:
            receipt: Receipt = await reply
        except ProviderError as error:
            request.unsent |= error.sent_nothing
            raise
        return receipt

    async def aclose(self) -> None:
        """Nothing to free."""

    def _arrives(self, request: Request, reply: asyncio.Future[Any]) -> None:
        self._truth.requests.setdefault(request.message_id, []).append(request)
        self.arrived(request)
        luck, fate = self._luck, request.fate
        request.taken = fate in TAKEN
        if request.taken:
            self._count += 1
            request.vendor_id = f"{self.name}-{self._count:06d}"
            request.named = self._names_attempts
            self._truth.taken[request.vendor_id] = request
            self._tell(request)
        delay = luck.choice((0.01, 0.02, 0.05, 0.2, 1.5))
        if fate is not Fate.HANGS:
            self._loop.outside(delay, self._answers, request, reply)

    def _answers(self, request: Request, reply: asyncio.Future[Any]) -> None:
        if reply.done():
            return
        answer = self._answer(request)
        if isinstance(answer, BaseException):
            reply.set_exception(answer)
            reply.exception()  # whoever asked may be dead
        else:
            reply.set_result(answer)

    def _answer(self, request: Request) -> Any:
        fate, luck = request.fate, self._luck
        if fate is Fate.YES:
            status = luck.choice((Status.ACCEPTED, Status.ACCEPTED, Status.SENT))
            return Receipt(provider_message_id=request.vendor_id, status=status, segments=1)
        if fate in (Fate.LOST_TAKEN, Fate.LOST_NOT_TAKEN):
            return Ambiguous("the connection was closed", code="closed_early")
        if fate is Fate.BROKEN:
            return RuntimeError("an adapter's fault")
        if fate is Fate.NONSENSE:
            return None
        if fate in (Fate.LATE_YES, Fate.LATE_NO, Fate.LATE_NEVER):
            return Ambiguous("no answer in time", code="timeout", late=self._late(request))
        return {
            Fate.THROTTLED: lambda: Throttled(
                "busy", code="429", retry_after=luck.choice((None, 0.5, 3.0, 20.0))
            ),
            Fate.REJECTED: lambda: Rejected("no such number", code="21211"),
            Fate.OPTED_OUT: lambda: Rejected("stop", code="21610", because="opted_out"),
            Fate.SENDER: lambda: SenderRefused("not yours", code="21606"),
            Fate.ACCOUNT: lambda: AccountRefused("suspended", code="20003"),
            Fate.UNSUPPORTED: lambda: Unsupported("cannot", code="unsupported"),
        }[fate]()

    def _late(self, request: Request) -> _Late:
        answer = self._loop.create_future()
        self._loop.outside(self._luck.uniform(0.5, 60), self._comes_late, request, answer)

        def wait() -> Generator[Any, Any, Receipt]:
            try:
                receipt: Receipt = yield from answer
            except ProviderError as error:
                request.unsent |= error.sent_nothing
                raise
            return receipt

        return _Late(wait)

    def _comes_late(self, request: Request, answer: asyncio.Future[Any]) -> None:
        if answer.done() or request.fate is Fate.LATE_NEVER:
            return
        if request.fate is Fate.LATE_YES:
            answer.set_result(Receipt(provider_message_id=request.vendor_id))
            return
        kind = self._luck.choice((Throttled, Rejected, Unreachable))
        answer.set_exception(kind("late", code="late_no"))
        answer.exception()

    def _tell(self, request: Request) -> None:
        """Plans the callbacks of a message that was taken."""
        luck = self._luck
        story = list(luck.choices([s for _, s in STORIES], [w for w, _ in STORIES])[0])
        if luck.random() < 0.1:
            luck.shuffle(story)
        at = luck.choice((0.0, 0.0, 0.05, 0.5))
        for place, word in enumerate(story):
            update = self._said(request, word, place)
            key = f"{request.vendor_id}:{place}"
            for _ in range(2 if luck.random() < 0.1 else 1):
                self._loop.outside(at, self._posts, request, key, update)
                at += luck.choice((0.0, 0.05, 0.5, 2.0, 40.0 if luck.random() < 0.1 else 1.0))
        if luck.random() < 0.01:
            self._loop.outside(at, self._forges, request)

    def _said(self, request: Request, word: Status | str, place: int) -> StatusUpdate:
        error = None
        if not isinstance(word, Status):
            error, word = VendorError(code="30001", message="x", reason=word), Status.FAILED
        elif word in (Status.FAILED, Status.UNDELIVERED):
            error = VendorError(code="30003", message="unreachable handset")
        return StatusUpdate(
            dedupe_key=f"{request.vendor_id}:{place}",
            status=word,
            vendor_status=word.value,
            attempt_id=request.attempt_id if self._names_attempts else None,
            provider_message_id=request.vendor_id,
            account=self.connection.account,
            recipient=request.to,
            error=error,
        )

    def _posts(self, request: Request, key: str, update: StatusUpdate) -> None:
        if update.error is not None and update.error.reason == "throttled":
            request.unsent = request.throttled = True
        request.said.add(update.status)
        self.post(self, key, update)

    def _forges(self, request: Request) -> None:
        """A callback that names an attempt and contradicts it."""
        update = StatusUpdate(
            dedupe_key=f"{request.vendor_id}:forged",
            status=Status.READ,
            vendor_status="read",
            attempt_id=request.attempt_id,
            provider_message_id=request.vendor_id,
            account=self.connection.account,
            recipient="+15005559999",
        )
        self._truth.forged.add(update.dedupe_key)
        self.post(self, update.dedupe_key, update)


class Hook:
    """The webhook of a vendor: what it is given is what it reads."""

    answer, kept_headers, claimed_by = Answer(), frozenset[str](), "X-Signature"

    def __init__(self, name: str) -> None:
        self.name = name

    def claims(self, headers: Any) -> bool:
        """Yes."""
        return True

    async def verify(self, request: WebhookRequest) -> Verified:
        """Nobody posts bytes here."""
        raise NotImplementedError

    def parse(self, request: Verified) -> Sequence[Any]:
        """What the vendor said."""
        said: Sequence[Any] = request.reading  # type: ignore[assignment]
        return said

    def sign(self, simulated: Simulated) -> WebhookRequest:
        """Nobody asks for it."""
        raise NotImplementedError
