"""An email as MIME, by the standard library, for vendors that take it whole; and its files.

Nothing that was given ends a header and begins another. Lines are of ASCII and at most 998 octets,
so that no mail server has to change them.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import partial
from html.parser import HTMLParser
from secrets import token_bytes

from gateway.domain import FetchedMedia, OutboundEmail, OutboundMedia, OutboundMessage
from gateway.errors import (
    NO_ROOM,
    Ambiguous,
    Breaker,
    ProviderError,
    Rejected,
    Unreachable,
    Unsupported,
)
from providers._fetch import TOO_LARGE, fetch

BLOCKS = frozenset(
    {"p", "div", "br", "tr", "li", "h1", "h2", "h3", "h4", "table", "ul", "ol", "hr"}
)
UNSEEN = frozenset({"script", "style", "head", "title", "template"})
KIND = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
PLAIN = re.compile(r"[ -~]*")
SMALL = 20_000  # characters and bytes: a millisecond
LINE = 57  # bytes of a file in a line of base64 (RFC 2045, 6.8)
# The field of a message that a refusal is about, by its code.
AT = {"template": "template", "type": "type", "media": "media", "empty": "body", "text": "body"}
WORD = 75  # characters of an encoded word at most
ONE_CLICK = "List-Unsubscribe=One-Click"  # RFC 8058


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file of an email, read."""

    data: bytes
    content_type: str
    filename: str


async def _read(file: OutboundMedia, limit: int, timeout: float) -> FetchedMedia:
    """A file from its address on the web, unless it is our own."""
    if file.read is not None:
        return FetchedMedia(data=await file.read(limit), content_type=file.content_type)
    return await fetch(file.url, limit=limit, timeout=timeout)


def files(message: OutboundMessage) -> tuple[OutboundMedia, ...]:
    """Every file of an email."""
    attached = message.email.attachments if message.email is not None else ()
    return (*message.media, *attached)


async def attachments(
    message: OutboundMessage, *, limit: int, within: float
) -> tuple[Attachment, ...]:
    """The files of an email, of at most `limit` bytes in all, before anything is written.

    Raises:
        Rejected: one is gone, or may not be visited.
        Unsupported: together they are too large.
        Unreachable: it may be had later, or they need more room than they were given.
    """
    room = limit if message.room is None else min(limit, message.room)
    found, left, number = [], room, 0
    try:
        async with asyncio.timeout(within):
            for number, file in enumerate(files(message), start=1):
                got = await _read(file, left, within)
                left -= len(got.data)
                if left < 0:
                    raise _too_large(limit)
                found.append(Attachment(got.data, _kind(file, got), _named(file, got, number)))
    except TimeoutError:
        failure: ProviderError = _away(message, number, "no time was left to bring it")
    except (Ambiguous, Unreachable) as error:
        failure = _away(message, number, error.text)
    except ProviderError as error:
        # What was left for this file is no limit that anybody knows. Others may take more.
        failure = error
        if error.code == TOO_LARGE:
            failure = _over(message, number, room - left, error.size, limit, room)
    else:
        return tuple(found)
    failure.breaker = Breaker.IGNORES
    failure.__context__ = None
    raise failure


def _too_large(limit: int) -> Unsupported:
    text = f"the files of an email may have {limit} bytes together: send links to larger ones"
    return Unsupported(text, code=TOO_LARGE)


def _over(
    message: OutboundMessage, number: int, read: int, size: int | None, limit: int, room: int
) -> ProviderError:
    """Too large for us to send, or only for the room that there is by now: what the files need is
    what was read and what this one has, where that is known and nothing else is to come."""
    if room == limit or (size is not None and read + size > limit):
        return _too_large(limit)
    last = number == len(files(message))
    error = Unreachable("its files wait for room", code=NO_ROOM)
    error.size = limit if size is None or not last else read + size
    error.next_provider = False
    return error


def _away(message: OutboundMessage, number: int, text: str) -> Unreachable:
    """A file that may be had later. Nobody else could bring it now, either: the next provider is
    not asked because of it."""
    first, place = len(message.media), f"media[{number - 1}]"
    if number > first:
        place = f"attachments[{number - first - 1}]"
    error = Unreachable(f"{place} could not be had: {text}", code="attachment_unreachable")
    error.next_provider = False
    return error


def _kind(file: OutboundMedia, got: FetchedMedia) -> str:
    kind = (file.content_type or got.content_type or "").partition(";")[0].strip().lower()
    return kind if KIND.fullmatch(kind) else "application/octet-stream"


def _named(file: OutboundMedia, got: FetchedMedia, number: int) -> str:
    given = file.filename or got.filename or f"attachment-{number}"
    name = given.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable() and c not in '"<>|:*?').strip(" .")[:150]


def storable(message: OutboundMessage) -> bool:
    """Whether it has no half of a surrogate pair, which no wire carries."""
    try:
        (message.body + (message.html or "") + (message.subject or "")).encode()
    except UnicodeEncodeError:
        return False
    return True


def written(
    message: OutboundMessage,
    attached: Sequence[Attachment] = (),
    *,
    from_name: str | None = None,
    utf8: bool = False,
) -> bytes:
    """The email as it goes over the wire, with CRLF. The blind copies stand in no header.

    Raises:
        Rejected: something cannot be written down.
    """
    parts = message.email or OutboundEmail()
    policy = SMTP.clone(utf8=utf8, cte_type="7bit")
    mail = EmailMessage(policy=policy)
    try:
        mail["From"] = mailbox(message.sender.address or "", parts.from_name or from_name)
        mail["To"] = mailbox(message.to)
        if parts.cc:
            mail["Cc"] = [mailbox(each) for each in parts.cc]
        if parts.reply_to:
            mail["Reply-To"] = mailbox(parts.reply_to)
        mail["Subject"] = message.subject or ""
        if parts.date is not None:
            mail["Date"] = format_datetime(parts.date)
        for name, value in parts.headers.items():
            if not PLAIN.fullmatch(value):
                mail[name] = value
        marks = _filled(mail, message, attached)
        text = _plain_headers(parts) + mail.as_bytes()
    except (ValueError, UnicodeError, LookupError) as error:
        failure = Rejected(
            f"it cannot be written as an email ({type(error).__name__})", code="mime"
        )
    else:
        return spliced(text, marks, (_base64(each.data) for each in attached))
    raise failure


async def composed(
    message: OutboundMessage,
    attached: Sequence[Attachment] = (),
    *,
    from_name: str | None = None,
    utf8: bool = False,
) -> bytes:
    """The same, off the event loop where it takes long."""
    size = len(message.body) + len(message.html or "") + sum(len(each.data) for each in attached)
    make = partial(written, message, attached, from_name=from_name, utf8=utf8)
    return make() if size < SMALL else await asyncio.to_thread(make)


def _filled(
    mail: EmailMessage, message: OutboundMessage, attached: Sequence[Attachment]
) -> list[bytes]:
    """The body, with a mark where each file belongs: the library would take five times as much
    memory as a file has, and as long."""
    marks = []
    text = message.body or plain_of(message.html or "")
    mail.set_content(text, charset="utf-8")
    if message.html:
        mail.add_alternative(message.html, subtype="html", charset="utf-8")
    for each in attached:
        main, _, sub = each.content_type.partition("/")
        if main in ("message", "multipart"):
            main, sub = "application", "octet-stream"  # a part of its own would have to be parsed
        mark = token_bytes(24)
        mail.add_attachment(mark, maintype=main, subtype=sub, filename=each.filename)
        marks.append(b64encode(mark) + b"\r\n")
    return marks


def spliced(text: bytes, marks: Iterable[bytes], contents: Iterable[bytes | bytearray]) -> bytes:
    """A text with a content in place of each of its marks, which stand in their order."""
    pieces: list[bytes | bytearray] = []
    for mark, content in zip(marks, contents, strict=True):
        before, _, text = text.partition(mark)
        pieces += [before, content]
    return b"".join((*pieces, text))


def _base64(data: bytes) -> bytearray:
    """A file in base64, in lines as the library makes them."""
    step, width = LINE * 1000, LINE * 4 // 3
    made, at = bytearray(-(-len(data) // 3) * 4 + -(-len(data) // LINE) * 2), 0
    for start in range(0, len(data), step):
        block = b64encode(data[start : start + step])
        text = b"\r\n".join((*(block[n : n + width] for n in range(0, len(block), width)), b""))
        made[at : at + len(text)] = text
        at += len(text)
    return made


def _plain_headers(parts: OutboundEmail) -> bytes:
    """Headers whose values are of ASCII and must not be touched: the library would encode an id
    that is longer than a line."""
    lines = [f"{name}: {value}" for name, value in parts.headers.items() if PLAIN.fullmatch(value)]
    if parts.message_id:
        lines.append(f"Message-ID: {parts.message_id}")
    if parts.in_reply_to:
        lines.append(f"In-Reply-To: {parts.in_reply_to}")
    if parts.references:
        lines.append("References: " + "\r\n ".join(parts.references))
    if parts.unsubscribe_url:
        lines += [
            f"List-Unsubscribe: <{parts.unsubscribe_url}>",
            f"List-Unsubscribe-Post: {ONE_CLICK}",
        ]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def encoded(text: str) -> str:
    """What a header says, in encoded words (RFC 2047) where it is not ASCII; on one line."""
    if text.isascii():
        return text
    from email.header import Header

    return Header(text, "utf-8", maxlinelen=WORD).encode(linesep="")


def mailbox(address: str, name: str | None = None) -> Address:
    """An address with the name before it."""
    local, _, domain = address.rpartition("@")
    return Address(display_name=name or "", username=local, domain=domain)


def plain_of(html: str) -> str:
    """What a person would read of HTML, roughly, for who reads no HTML."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.pieces).splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


class _Reader(HTMLParser):
    """Collects the text, with a line for each block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begins a line, or what is not read."""
        if tag in UNSEEN:
            self._unseen += 1
        elif tag in BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """Ends it."""
        if tag in UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag in BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        """Keeps what is read."""
        if not self._unseen:
            self.pieces.append(data)
