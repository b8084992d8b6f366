"""The parts of an email: MIME, read within bounds of depth, number and length.

What lies too deep, or is too much, is given as a file and not read. Copies nothing but heads and
what a part holds; raises nothing.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from webhooks._mail_words import from_base64, kind_of, text_of, words_of

HEAD = 512 * 1024  # bytes of a head that are looked at,
LINES = 5000  # of it,
VALUE = 8000  # characters of a header
DEPTH = 30
PARTS = 500
MARKS = 5000  # lines that look like a boundary
BLANK = re.compile(rb"\r?\n\r?\n|\r\r")
NAME = re.compile(rb"[!-9;-~]{1,200}[ \t]*")


class Headers:
    """The headers of an email or a part, by lower-case name."""

    def __init__(self, head: bytes) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in _fields(head[:HEAD]):
            self._values.setdefault(name, []).append(value)

    def get(self, name: str) -> str:
        """The first of a name as it stands there, 8-bit text read; blank: there is none."""
        return self._values.get(name, [""])[0][:VALUE]

    def last(self, name: str) -> str:
        """The end of it: of references the newest."""
        return self._values.get(name, [""])[0][-VALUE:]

    def words(self, name: str) -> str:
        """The first of a name, for people."""
        return words_of(self.get(name))

    def parameter(self, name: str, of: str = "content-type") -> str | None:
        """A parameter of a header, also one in pieces or in a charset (RFC 2231)."""
        shim = Message()
        try:
            shim["x"] = self.get(of)
            found = shim.get_param(name, header="x")
            if isinstance(found, tuple):
                return text_of(found[2].encode("latin-1", "replace"), found[0])
        except (ValueError, LookupError, TypeError, IndexError):
            return None
        return found if isinstance(found, str) else None


def _fields(head: bytes) -> Iterator[tuple[str, str]]:
    name, held = "", list[bytes]()
    for line in head.replace(b"\r", b"\n").split(b"\n")[:LINES]:
        if line[:1] in (b" ", b"\t"):
            held.append(line.strip())
            continue
        before, colon, after = line.partition(b":")
        if colon and NAME.fullmatch(before):
            if name:
                yield name, text_of(b" ".join(held))
            name, held = before.strip().decode("ascii").lower(), [after.strip()]
    if name:
        yield name, text_of(b" ".join(held))


@dataclass(frozen=True, slots=True)
class Part:
    """One part that holds no others, or is not looked into: where it lies in the email."""

    whole: bytes
    headers: Headers
    start: int
    body: int
    end: int
    opaque: bool = False  # too deep, or too many

    @property
    def kind(self) -> str:
        """Its type."""
        told = self.headers.get("content-type")
        return kind_of(told) if told else "text/plain"

    @property
    def filename(self) -> str | None:
        """What the sender calls it, as it stands there."""
        told = self.headers.parameter("filename", "content-disposition")
        return told or self.headers.parameter("name")

    @property
    def attached(self) -> bool:
        """Whether it is a file, and not what is read."""
        how = self.headers.get("content-disposition").partition(";")[0].strip().lower()
        return self.opaque or how == "attachment" or bool(self.filename)

    @property
    def content_id(self) -> str:
        """What HTML calls it."""
        return self.headers.get("content-id").strip().strip("<>")

    @property
    def data(self) -> bytes:
        """What it holds, decoded; with its head where it is not looked into."""
        if self.opaque:
            return self.whole[self.start : self.end]
        data = self.whole[self.body : self.end]
        how = self.headers.get("content-transfer-encoding").strip().lower()
        if how == "base64":
            return from_base64(data)
        return binascii.a2b_qp(data) if how == "quoted-printable" else data


def headers_of(whole: bytes) -> Headers:
    """The headers of an email."""
    return Headers(whole[: head_end(whole, 0, len(whole))])


def parts_of(whole: bytes) -> Iterator[Part]:
    """What an email holds, in its order."""
    budget = Budget(PARTS)
    yield from _parts(whole, 0, len(whole), 0, budget)
    if budget.unread is not None:
        yield Part(whole, Headers(b""), budget.unread, budget.unread, len(whole), opaque=True)


@dataclass(slots=True)
class Budget:
    """How many parts are still looked at, and where the first begins that was not."""

    left: int
    unread: int | None = None


def _parts(whole: bytes, start: int, end: int, depth: int, budget: Budget) -> Iterator[Part]:
    budget.left -= 1
    if budget.left < 0:
        budget.unread = start if budget.unread is None else budget.unread
        return
    body = head_end(whole, start, end)
    headers = Headers(whole[start:body])
    multiple = headers.get("content-type").strip().lower().startswith("multipart/")
    boundary = headers.parameter("boundary") if multiple else None
    if boundary and depth == DEPTH:
        yield Part(whole, headers, start, body, end, opaque=True)
        return
    mark = b"--" + (boundary or "").encode("utf-8", "replace").rstrip()
    found = list(between(whole, mark, body, end)) if boundary else []
    if not found:
        yield Part(whole, Headers(b"") if multiple else headers, start, body, end)
    for one, other in found:
        yield from _parts(whole, one, other, depth + 1, budget)


def head_end(whole: bytes, start: int, end: int) -> int:
    """Where the head ends; one without a blank line is all head if it begins like one."""
    if whole[start : start + 1] == b"\n" or whole[start : start + 2] == b"\r\n":
        return start + (1 if whole[start : start + 1] == b"\n" else 2)
    found = BLANK.search(whole, start, end)
    if found is not None:
        return found.end()
    line = whole[start : min(end, start + 200)].partition(b"\n")[0]
    return end if NAME.fullmatch(line.partition(b":")[0]) and b":" in line else start


def between(whole: bytes, mark: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """What lies between the lines of a boundary. One that does not end, ends where all does."""
    began: int | None = None
    for at in _marks(whole, mark, start, end):
        after = at + len(mark)
        near = min(end, after + 200)
        stop = whole.find(b"\n", after, near)
        rest = whole[after : stop if stop >= 0 else near].strip()
        if rest not in (b"", b"--"):
            continue  # another boundary, which begins like this one
        if began is not None:
            yield began, max(began, at - (2 if whole[at - 2 : at] == b"\r\n" else 1))
        if rest:
            return
        began = stop + 1 if stop >= 0 else end
    if began is not None:
        yield began, end


def _marks(whole: bytes, mark: bytes, start: int, end: int) -> Iterator[int]:
    """Where a line begins with a boundary."""
    at = start if whole.startswith(mark, start, end) else _next(whole, mark, start, end)
    for _ in range(MARKS):
        if at < 0:
            return
        yield at
        at = _next(whole, mark, at + len(mark), end)


def _next(whole: bytes, mark: bytes, at: int, end: int) -> int:
    found = whole.find(b"\n" + mark, max(0, at - 1), end)
    return found + 1 if found >= 0 else -1
