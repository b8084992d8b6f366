"""Every normalised word of the gateway, and the protocols that adapters fulfil.

Values are frozen and carry no behaviour beyond describing themselves. Imports the standard
library only; names no vendor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable


class Channel(StrEnum):
    """How a message travels."""

    SMS = "sms"  # plain or with media (MMS)
    WHATSAPP = "whatsapp"
    RCS = "rcs"
    EMAIL = "email"


# Seconds after a person's last message in which anything may be said to them on a channel; later,
# or before they have written, its network takes templates alone.
WINDOWS: Mapping[Channel, int] = {Channel.WHATSAPP: 24 * 3600}


class Direction(StrEnum):
    """Which way a message goes, seen from the application."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


class Priority(StrEnum):
    """Lane of the queue; a higher lane is served first."""

    URGENT = "urgent"  # one-time codes, alarms
    HIGH = "high"  # somebody waits for it
    NORMAL = "normal"
    LOW = "low"  # campaigns


LANES = {Priority.URGENT: 0, Priority.HIGH: 1, Priority.NORMAL: 2, Priority.LOW: 3}


LARGEST_EMAIL = 25 * 1024 * 1024  # bytes of files in one email: more is taken by no provider
LARGEST_FILE = 100 * 1024 * 1024  # bytes of a file in any other message: WhatsApp's documents

RESENDS = 3  # attempts at a message whose answers are lost, whatever its policy


class OnUnknown(StrEnum):
    """What to do when nobody can say whether the vendor took a message."""

    HOLD = "hold"  # never send twice; wait for evidence
    RESEND = "resend"  # a second copy harms nobody


class Status(StrEnum):
    """Where a message, or one attempt at it, stands."""

    SCHEDULED = "scheduled"  # waits for its send_at
    QUEUED = "queued"  # ours, due
    HELD = "held"  # ours, stopped until somebody looks
    SENDING = "sending"  # written to a vendor, or about to be
    UNKNOWN = "unknown"  # written, and no believable answer came
    ACCEPTED = "accepted"  # the vendor has it
    SENT = "sent"  # the vendor handed it to the network
    UNDELIVERED = "undelivered"  # the network gave it back
    FAILED = "failed"
    DELIVERED = "delivered"
    READ = "read"
    BOUNCED = "bounced"  # email: came back after it was delivered or accepted
    REJECTED = "rejected"  # by us: opted out, suppressed, bad address
    CANCELED = "canceled"
    EXPIRED = "expired"
    RECEIVED = "received"  # inbound


class MessageType(StrEnum):
    """What was said."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    DOCUMENT = "document"
    STICKER = "sticker"
    LOCATION = "location"
    CONTACTS = "contacts"
    INTERACTIVE = "interactive"
    BUTTON = "button"
    REACTION = "reaction"
    ORDER = "order"
    SYSTEM = "system"
    EDIT = "edit"
    DELETION = "deletion"
    TEMPLATE = "template"
    EMAIL = "email"
    UNSUPPORTED = "unsupported"  # the vendor says that it cannot pass this on
    UNKNOWN = "unknown"  # a kind that the adapter does not know


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """One vendor account of one tenant. Stands in every attempt, inbox row and unique key.

    `senders` maps a channel to our own address, or pool of addresses, used when a message names
    none; `further` to others that messages may name, with what the vendor calls them. `secrets`
    never appear in `repr`.
    """

    id: str
    tenant_id: str
    family: str
    account: str = ""
    senders: Mapping[Channel, Sender] = field(default_factory=dict)
    further: Mapping[Channel, Mapping[str, str]] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sender:
    """Our side of a conversation: an address, or a vendor's pool that picks one."""

    address: str | None = None
    pool: str | None = None

    @property
    def key(self) -> str:
        """The part of a conversation's identity that is ours."""
        return self.pool or self.address or ""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboundMedia:
    """A file to send, by URL.

    Where it is one of our own, the URL is a link that needs no key and ends, and `read` gives the
    bytes without it, of a file of at most so many; or raises a `ProviderError`.
    """

    url: str
    content_type: str | None = None
    filename: str | None = None
    read: Callable[[int], Awaitable[bytes]] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboundEmail:
    """What only an email has. `message_id` is our own Message-ID, with its angle brackets;
    `unsubscribe_url` is ours and takes one click (RFC 8058); `date` is its Date.
    """

    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    reply_to: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    attachments: tuple[OutboundMedia, ...] = ()
    from_name: str | None = None
    tags: tuple[str, ...] = ()
    message_id: str | None = None
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    unsubscribe_url: str | None = None
    date: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboundMessage:
    """One message as one provider is to send it, once.

    `attempt_id` is ours and unique per call: it stands in the callback URL, so that a callback
    finds its attempt even when the vendor's answer was lost. `validity` is in seconds; `room` is
    how many bytes of its files may be in memory: who finds that they have more sends nothing
    (`NO_ROOM`).
    """

    message_id: str
    attempt_id: str
    channel: Channel
    to: str
    sender: Sender
    type: MessageType = MessageType.TEXT
    body: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)
    media: tuple[OutboundMedia, ...] = ()
    reply_to: str | None = None
    template: Mapping[str, Any] | None = None
    subject: str | None = None
    html: str | None = None
    email: OutboundEmail | None = None
    callback_url: str | None = None
    validity: int | None = None
    room: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Money:
    """A price in a currency (ISO 4217); positive is what we pay."""

    amount: Decimal
    currency: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What an attempt is expected to cost. `country` is where it goes (ISO 3166, two letters), and
    `units` is what is paid for: segments of an SMS, people of an email, else one message."""

    country: str | None
    units: int
    cost: Money | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """A vendor's yes to one sending request.

    `updates` is what a provider already knows of the message's fate, for providers that report
    at once and not by webhook.
    """

    provider_message_id: str | None
    status: Status = Status.ACCEPTED
    sender: str | None = None  # the address the vendor chose, where it says so
    segments: int | None = None
    cost: Money | None = None
    updates: tuple[StatusUpdate, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """What a provider can do. Anything else is `Unsupported` before the wire."""

    channels: frozenset[Channel]
    media: frozenset[Channel] = frozenset()  # channels on which it sends files
    max_media: int = 0
    media_from: tuple[str, ...] = ("https://",)  # how its files' URLs begin; {tenant} is whose
    holds_media: bool = False  # reads them, and has them in memory; of emails, everybody does
    html: bool = False
    templates: bool = False
    types: frozenset[MessageType] = frozenset({MessageType.TEXT})
    types_on: Mapping[Channel, frozenset[MessageType]] = field(default_factory=dict)  # further ones
    reports_delivery: bool = False
    can_look_up: bool = False
    fetches_media: bool = False
    deduplicates: bool = False
    replies: bool = False  # quotes the message that is answered
    names_later: bool = False  # answers a send with an id of its own; a status tells the network's
    user_ids: bool = False  # reaches people who show no number
    marks_read: bool = False  # `MarksRead`
    shows_typing: bool = False  # the same; no vendor shows it for what is not read
    lists_templates: bool = False  # `ListsTemplates`
    has_window: bool = True  # keeps to `WINDOWS`, as the channel's network does
    seats: int | None = None  # messages that it sends at once; None: as many as the worker does
    daily: int | None = None  # people that it writes to within 24 hours; None: no bound


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaReference:
    """A file of an inbound message as the vendor names it; fetched after the commit, if at all.

    `reference` is what the adapter needs to rebuild the address, or the vendor's own URL where
    it is not to be trusted (`fetchable` false).
    """

    reference: str
    content_type: str | None = None
    filename: str | None = None
    fetchable: bool = True
    kept: KeptFile | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptFile:
    """A file that came with its message: it lies where files are kept, under its id."""

    id: str
    content_type: str  # by its bytes
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class VendorError:
    """Why a vendor could not deliver: its own code and text, and our reading of them."""

    code: str
    message: str | None = None
    reason: str | None = None  # a class of `gateway.errors`, lower-cased, such as throttled


@dataclass(frozen=True, kw_only=True, slots=True)
class InboundMessage:
    """What a person said to us."""

    dedupe_key: str  # made of signed bytes only
    channel: Channel
    from_address: str
    to_address: str | None
    provider_message_id: str | None = None
    pool: str | None = None  # the sender pool the person wrote to, where the vendor tells
    account: str | None = None
    type: MessageType = MessageType.TEXT
    body: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)
    reply_to: str | None = None
    subject: str | None = None
    html: str | None = None  # harmless: cleaned by whoever read it
    email: Mapping[str, Any] = field(default_factory=dict)  # what only an email has, for people
    answers: tuple[str, ...] = ()  # the Message-IDs of what it answers, the nearest first
    media: tuple[MediaReference, ...] = ()
    echo: bool = False  # we said it ourselves, by an application of the vendor's
    segments: int | None = None
    name: str | None = None  # what the person calls themselves
    aliases: tuple[str, ...] = ()  # further addresses of the same person
    new_address: str | None = None  # the person's from now on, where they say that it changed
    occurred_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusUpdate:
    """What a vendor says of one attempt of ours.

    `network_id` is what the network calls the message where that is another id than the one that
    sending it answered: an attempt has at most one of each, and either finds it.
    """

    dedupe_key: str
    status: Status
    vendor_status: str  # the vendor's own word
    attempt_id: str | None = None  # ours, where the callback carries it
    provider_message_id: str | None = None
    network_id: str | None = None
    account: str | None = None
    channel: Channel | None = None
    sender: str | None = None
    recipient: str | None = None
    aliases: tuple[str, ...] = ()  # further addresses of the recipient
    error: VendorError | None = None
    segments: int | None = None
    cost: Money | None = None
    occurred_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mail:
    """An email as it came. A stranger wrote every byte, so it is read after the answer, by a
    program apart that can be killed.

    `program` is an adapter's own; it is given `order` and `data` (`gateway.mail`). What `order`
    says was signed.
    """

    dedupe_key: str
    program: Path
    order: Mapping[str, Any]
    data: bytes = field(repr=False)
    occurred_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Engagement:
    """What a person did with a message: opened, clicked, complained, unsubscribed. Not a status.

    `unsubscribed` and `resubscribed` count for the channel and the recipient that they name.
    `earlier`: of an earlier message, and the reason why this one was not sent.
    """

    dedupe_key: str
    kind: str
    channel: Channel | None = None
    attempt_id: str | None = None
    provider_message_id: str | None = None
    recipient: str | None = None
    content: Mapping[str, Any] = field(default_factory=dict)
    occurred_at: datetime | None = None
    earlier: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Unrecognised:
    """Verified, readable, and of a kind that the adapter does not know. Kept."""

    dedupe_key: str
    kind: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Handshake:
    """A confirmation to perform; a value, so that parsing stays pure."""

    dedupe_key: str
    kind: str
    content: Mapping[str, Any] = field(default_factory=dict)
    occurred_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """What a vendor tells of what is ours there, such as a template that was paused. `kind` is
    the type of the feed's event, such as `template.updated`; kept, and passed on as it is."""

    dedupe_key: str
    kind: str
    content: Mapping[str, Any] = field(default_factory=dict)
    occurred_at: datetime | None = None


Event: TypeAlias = (
    InboundMessage | Mail | StatusUpdate | Engagement | Notice | Unrecognised | Handshake
)


@dataclass(frozen=True, kw_only=True, slots=True)
class WebhookRequest:
    """One HTTP request of a vendor. `headers` have lower-case names; repeated ones are joined
    by a comma, as RFC 9110 has it. `url` is what the vendor was told to call, never a forwarded
    header's idea of it."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    received_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """A request whose signature held: made by a `verify`, or read from where one put it.

    `key` is made of what was signed and names the request in the inbox: the same signed bytes,
    however they are cut, have the same key. `verdict` says which secret held, without it.
    `reading` is what the adapter had to read to verify it, so that its `parse` need not do that
    again; what comes back from the inbox has none.
    """

    webhook: str
    connection: str
    request: WebhookRequest
    key: str
    verdict: str
    reading: object = field(default=None, repr=False, compare=False)


# Verdicts of what nobody posted: we asked the vendor for it, over TLS and with our credentials.
LOOK_UP = "look_up"
BACKFILL = "backfill"
FETCHED = frozenset({LOOK_UP, BACKFILL})


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a vendor wants to hear."""

    status: int = 204
    content_type: str | None = None
    body: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sought:
    """A message whose answer was lost, as it was written to the vendor `age` seconds ago."""

    channel: Channel
    to: str
    sender: Sender
    body: str
    media: int
    age: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A message as the vendor's API tells it. `body` is for the webhook of the same name to read,
    with a verdict of `FETCHED`; `partial` if there is more to ask for (`Backfills.complete`)."""

    provider_message_id: str
    created_at: datetime  # by the vendor's clock
    url: str
    body: bytes = field(repr=False)
    partial: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What a vendor listed. `whole` is false where there is more than was read; `vendor_time` is
    the vendor's clock at that moment, where it told."""

    records: tuple[Record, ...]
    whole: bool
    vendor_time: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchedMedia:
    """The bytes of an inbound file and what the vendor said they are."""

    data: bytes = field(repr=False)
    content_type: str | None = None
    filename: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """An unsigned event for `Webhook.sign` to dress as the vendor would send it."""

    url: str
    message: InboundMessage | None = None
    status: StatusUpdate | None = None


@runtime_checkable
class Provider(Protocol):
    """An outbound adapter: one vendor product."""

    name: str
    capabilities: Capabilities

    async def send(self, message: OutboundMessage) -> Receipt:
        """Makes one sending request on the wire, in bounded time, or raises a `ProviderError`."""
        ...

    async def aclose(self) -> None:
        """Frees what the provider holds. May be called twice."""
        ...


@runtime_checkable
class Warms(Protocol):
    """An adapter that leaves what its work needs for later, so that a start does not wait."""

    def warm(self) -> None:
        """Loads it, on a thread, and asks nobody: the first send, or the first webhook, would load
        it, and others would wait for that."""
        ...


class Level(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARNING = "warning"  # works, and will surprise somebody
    PROBLEM = "problem"  # does not work until it is fixed


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that `gateway doctor` looked at; `fix` says what to do where it is not `ok`."""

    subject: str  # such as a variable, a number or a topic
    level: Level
    text: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One setting at a vendor that `gateway webhooks install` makes, or would make."""

    subject: str  # a number, a service, a topic
    setting: str
    before: str
    after: str


@runtime_checkable
class Checks(Protocol):
    """A provider that can look at its own set-up, for `gateway doctor`."""

    async def check(self, webhook_url: str) -> Sequence[Finding]:
        """Asks the vendor about credentials, limits and where it posts; never raises for what
        the vendor says. `webhook_url` is where it should post."""
        ...


@runtime_checkable
class Installs(Protocol):
    """A provider that can tell its vendor where to post."""

    async def install(self, webhook_url: str, *, apply: bool) -> Sequence[Change]:
        """The changes that are needed; made only if `apply`. Raises a `ProviderError`."""
        ...


@runtime_checkable
class MediaFetcher(Protocol):
    """A provider whose `capabilities.fetches_media` is true."""

    async def fetch_media(self, reference: str, limit: int) -> FetchedMedia:
        """Fetches one inbound file of at most `limit` bytes, or raises a `ProviderError`."""
        ...


@runtime_checkable
class MarksRead(Protocol):
    """A provider whose `capabilities.marks_read` is true, or `shows_typing`."""

    async def mark_read(
        self, provider_message_id: str, *, typing: bool = False, ours: str | None = None
    ) -> None:
        """Tells the vendor that an inbound message was read, and, with `typing`, that an answer
        is being written, as far as the capabilities say. `ours` is the address that it came to.
        In bounded time; raises a `ProviderError`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class VendorTemplate:
    """A template as its vendor knows it. `name` is what a message's `template` names; `variables`
    are the names, or numbers, of what it leaves open."""

    name: str
    language: str | None = None
    status: str = "approved"  # the vendor's own word, in lower case
    category: str | None = None
    body: str = ""
    variables: tuple[str, ...] = ()
    id: str | None = None
    title: str | None = None  # what people call it, where that is not its name


@runtime_checkable
class ListsTemplates(Protocol):
    """A provider whose `capabilities.lists_templates` is true."""

    async def templates(self, anew: str = "") -> Sequence[VendorTemplate]:
        """Every template of the account, at most 1,000; in bounded time; raises a
        `ProviderError`. Of the one named `anew`, nothing is told from memory."""
        ...


@runtime_checkable
class Foresees(Protocol):
    """A provider that knows of what its vendor would never take, before anybody is asked."""

    def foresee(self, message: OutboundMessage, listed: Sequence[VendorTemplate]) -> None:
        """Raises the `Unsupported` that `send` would, or that the templates which the vendor
        listed make certain; its `field` names what is at fault. Quick, and asks nobody. Whatever
        the vendor might take passes."""
        ...


@runtime_checkable
class LooksUp(Protocol):
    """A provider whose `capabilities.can_look_up` is true."""

    async def look_up(self, sought: Sought) -> Listing:
        """Every message at the vendor that may be this one: to and from the same, with the same
        text, created by the vendor's clock at any time. Raises a `ProviderError`."""
        ...


@runtime_checkable
class Backfills(Protocol):
    """A provider whose vendor keeps what it had to tell, and lists it."""

    async def history(self, since: datetime, limit: int) -> Listing:
        """What was said since then, both ways, newest first: at most `limit`. Raises a
        `ProviderError`."""
        ...

    async def complete(self, record: Record) -> Record:
        """A record that was `partial`, whole. Raises a `ProviderError`."""
        ...


@runtime_checkable
class Webhook(Protocol):
    """An inbound adapter: bytes in, events out."""

    name: str
    answer: Answer
    kept_headers: frozenset[str]  # kept in the inbox beside the usual ones; never a secret
    claimed_by: str  # the header that `claims` looks for, as its vendor writes it

    def claims(self, headers: Mapping[str, str]) -> bool:
        """Says whether a request on a shared route is this vendor's."""
        ...

    async def verify(self, request: WebhookRequest) -> Verified:
        """Proves who sent it, or raises `SignatureInvalid` or `CannotVerifyNow`."""
        ...

    def parse(self, request: Verified) -> Sequence[Event]:
        """Reads the events, purely; raises `Malformed`. Unknown kinds are `Unrecognised`."""
        ...

    def sign(self, simulated: Simulated) -> WebhookRequest:
        """Makes the request that the vendor would send, for `gateway simulate` and tests."""
        ...


Fake: TypeAlias = Callable[[str, Any], Any]  # the name of a field, and what to put for its value


@runtime_checkable
class Admits(Protocol):
    """A webhook whose vendor signs nothing, and is told an address that nobody else knows: what
    follows its name in the path is a secret. It stands under its own name alone."""

    def admit(self, request: WebhookRequest) -> int:
        """How many bytes its body may have, which is not read yet; or raises
        `SignatureInvalid`."""
        ...


@runtime_checkable
class Resigns(Protocol):
    """A webhook that can make a request of the inbox anew, with other facts in it."""

    spoken: frozenset[str]  # names of the fields that hold nothing but the vendor's own words

    def resign(self, request: Verified, fake: Fake) -> WebhookRequest:
        """The same request with every value given through `fake`, signed by this webhook's own
        secret. Raises `ValueError` with a sentence where it cannot be done."""
        ...


@runtime_checkable
class Confirms(Protocol):
    """A webhook whose vendor wants an address to be confirmed before it posts there."""

    async def confirm(self, handshake: Handshake) -> str | None:
        """Performs a confirmation, in bounded time. Returns the vendor's name for what it made.

        Raises `Rejected` where trying again is of no use, `Unreachable` where it may be."""
        ...


class FileStore(Protocol):
    """Where files are kept. A key is `<tenant>/<name>`, and nothing that a sender said. Everything
    may raise `FilesUnavailable`."""

    async def put(self, key: str, source: bytes | Path, content_type: str) -> None:
        """Keeps a file durably; one that is given by its path is taken away from there."""
        ...

    async def size(self, key: str) -> int | None:
        """The bytes of a file; None where there is none."""
        ...

    def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """A part of a file, in pieces of bounded size."""
        ...

    async def delete(self, key: str) -> None:
        """Takes a file away, if it is there."""
        ...

    async def aclose(self) -> None:
        """Frees what is held. May be called twice."""
        ...


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...
