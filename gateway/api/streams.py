"""What every stream of the feed has, whatever carries it: where it goes on, its place within the
caps, its key, which is checked again every 30 s, and the bytes that its followers share.

A stream takes no key in its query string.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from starlette.requests import HTTPConnection
from starlette.types import Scope

from gateway.api.context import Context
from gateway.api.problems import Problem, unprocessable
from gateway.clock import show, to_ms
from gateway.events import Reset
from gateway.store.feed import Frame
from gateway.store.keys import Identity

log = logging.getLogger("gateway.events")

RECHECK = 30.0  # seconds between looks at the key
BUFFER = 128 * 1024  # bytes of the kernel for one stream
LARGEST = 2**63 - 1
QUERY = ("after", "lastEventId")
SHARED = 4  # batches whose bytes are kept: of those who follow at the same place


def cursor_of(connection: HTTPConnection) -> int | None:
    """Where to go on: `Last-Event-ID`, else `?lastEventId=`, which clients of event streams add to
    their address where they cannot set a header, else `?after=`; None: from now on."""
    for name, text in (
        ("Last-Event-ID", connection.headers.get("last-event-id")),
        ("lastEventId", connection.query_params.get("lastEventId")),
        ("after", connection.query_params.get("after")),
    ):
        if text is None or text == "":
            continue
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= LARGEST):
            raise unprocessable([(name, "must be the number of an event")])
        return int(text)
    return None


def admit(context: Context, identity: Identity) -> None:
    """Whether there is a place for one more: within the caps of the key and of the process.

    Raises:
        Problem: 429.
    """
    open_ = context.streams
    if sum(open_.values()) >= context.bounds.streams:
        raise Problem(429, "Too many streams are open.", headers={"retry-after": "5"})
    if open_.get(identity.key_id, 0) >= context.bounds.streams_per_key:
        raise Problem(429, "Too many streams are open with this key.", headers={"retry-after": "5"})


@contextlib.contextmanager
def place(context: Context, identity: Identity) -> Iterator[None]:
    """Holds a place."""
    open_, key = context.streams, identity.key_id
    open_[key] = open_.get(key, 0) + 1
    try:
        yield
    finally:
        open_[key] -= 1
        if not open_[key]:
            del open_[key]


async def watch(
    context: Context, presented: str, gone: Coroutine[Any, Any, None], pump: asyncio.Task[None]
) -> bool:
    """Ends the pump when the client has gone or its key no longer holds; whether the key holds."""
    leaving = asyncio.ensure_future(gone)
    try:
        while not pump.done():
            done, _ = await asyncio.wait(
                {leaving, pump}, timeout=RECHECK, return_when=asyncio.FIRST_COMPLETED
            )
            holds = bool(done) or await _holds(context, presented)
            if leaving in done or not holds:
                pump.cancel()
                return holds
        return True
    finally:
        leaving.cancel()


async def _holds(context: Context, presented: str) -> bool:
    try:
        return await context.keys.holds(presented, fresh=True) is not None
    except Exception:
        log.warning("a stream's key cannot be checked at the moment")
        return True


def reset_frame(reset: Reset, now: datetime) -> bytes:
    """Tells a client that events it asked for are gone: it should load its state anew."""
    return to_json(
        {
            "id": reset.newest,
            "type": "feed.reset",
            "created_at": show(to_ms(now)),
            "data": {"newest": reset.newest},
        }
    )


class Shared:
    """The bytes of a batch, made once for all who follow at the same place."""

    def __init__(self, write: Callable[[Frame], bytes]) -> None:
        self._write = write
        self._made: deque[tuple[Frame, Frame, int, bytes]] = deque(maxlen=SHARED)

    def of(self, batch: Sequence[Frame]) -> bytes:
        """A batch on the wire. The same frames are the same objects: each was read once."""
        first, last, count = batch[0], batch[-1], len(batch)
        for one in self._made:
            if one[0] is first and one[1] is last and one[2] == count:
                return one[3]
        made = b"".join(map(self._write, batch))
        self._made.append((first, last, count, made))
        return made


def bound(scope: Scope) -> None:
    """Keeps the kernel from buffering megabytes for a reader that does not read."""
    transport = scope.get("gateway.transport")
    wire = transport.get_extra_info("socket") if transport is not None else None
    if wire is not None:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
