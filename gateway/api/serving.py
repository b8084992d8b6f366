"""Answers with the bytes of a file: in pieces, by ranges, and so that no browser runs them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.api.auth import header
from gateway.api.problems import Problem
from gateway.domain import FileStore
from gateway.kinds import INLINE, TOLD, UNKNOWN

SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "private, max-age=3600",
}
RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE)
TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e]*")')
UNSAFE_IN_NAMES = re.compile(r'[^\x20-\x7e]|["\\%/]')


@dataclass(frozen=True, slots=True)
class Shown:
    """A file that is to be given: where it is kept, and what is told of it."""

    key: str
    size: int
    content_type: str
    name: str
    tag: str


def served(request: Request, store: FileStore, file: Shown) -> Response:
    """The file, a part of it, or that it has not changed (RFC 9110, sections 13 and 14)."""
    kind = file.content_type if file.content_type in TOLD else UNKNOWN
    headers = {
        **SAFE,
        "accept-ranges": "bytes",
        "content-disposition": disposition(file.name, inline=kind in INLINE),
        "etag": file.tag,
    }
    if _known(header(request, b"if-none-match"), file.tag):
        return Response(status_code=304, headers=headers)
    headers["content-type"] = f"{kind}; charset=utf-8" if kind == "text/plain" else kind
    part = _part(request, file)
    start, end = part or (0, file.size)
    headers["content-length"] = str(end - start)
    if part is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{file.size}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    pieces = _pieces(store, file.key, start, end - start)
    return StreamingResponse(pieces, status_code=status, headers=headers)


async def _pieces(store: FileStore, key: str, start: int, length: int) -> AsyncIterator[bytes]:
    async with aclosing(store.read(key, start, length)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            yield piece


def _known(wanted: str, tag: str) -> bool:
    """Whether a client has this one already: `If-None-Match`, compared weakly."""
    return wanted.strip() == "*" or tag in TAG.findall(wanted)


def _part(request: Request, file: Shown) -> tuple[int, int] | None:
    """The one range that is asked for, from here and up to there; None: all of it. What cannot be
    read is no range, and several are answered with the whole, which is allowed."""
    wanted = header(request, b"range")
    found = RANGE.fullmatch(wanted) if request.method == "GET" else None
    if found is None or found[0].count("-") != 1 or not (found[1] or found[2]):
        return None
    condition = header(request, b"if-range")
    if condition and condition.strip() != file.tag:
        return None
    first, last = found.groups()
    if not first:
        start, end = max(file.size - int(last), 0), file.size
    else:
        start, end = int(first), min(int(last) + 1, file.size) if last else file.size
        if last and int(last) < start:
            return None
    if start >= file.size or start >= end:
        raise Problem(
            416,
            f"The file has {file.size} bytes.",
            headers={"content-range": f"bytes */{file.size}"},
        )
    return start, end


def disposition(name: str, *, inline: bool) -> str:
    """`Content-Disposition` with a file's name for old clients and new ones (RFC 6266, 8187)."""
    plain = UNSAFE_IN_NAMES.sub("_", name)
    text = f'{"inline" if inline else "attachment"}; filename="{plain}"'
    if plain == name:
        return text
    return f"{text}; filename*=UTF-8''{quote(name, safe='')}"


def tag_of(row: Mapping[str, object]) -> str:
    """What tells a file's bytes from all others."""
    return f'"{row["sha256"] or row["id"]}"'
