"""`GET /api/events`: the feed as server-sent events, resumable by number.

A stream takes no key in its query string, checks its key again every 30 s, and ends, instead of
growing, when its reader is too slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from datetime import datetime

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.api.context import Context
from gateway.api.operation import Operation
from gateway.api.problems import Problem, unprocessable
from gateway.clock import show, to_ms
from gateway.events import Lagging, Opened, Reset
from gateway.store.feed import Frame
from gateway.store.keys import Identity

log = logging.getLogger("gateway.events")

BEAT = 15.0  # seconds between comments that keep proxies from closing the stream
RECHECK = 30.0  # seconds between looks at the key
BUFFER = 128 * 1024  # bytes of the kernel for one stream
LARGEST = 2**63 - 1


def cursor_of(request: Request) -> int | None:
    """Where to go on: `Last-Event-ID`, else `?after=`; None: from now on."""
    for name, text in (
        ("Last-Event-ID", request.headers.get("last-event-id")),
        ("after", request.query_params.get("after")),
    ):
        if text is None or text == "":
            continue
        if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= LARGEST):
            raise unprocessable([(name, "must be the number of an event")])
        return int(text)
    return None


def sse(frame: Frame) -> bytes:
    """One event on the wire. JSON has no bare line breaks, so one data line is enough."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (frame.id, frame.type.encode(), frame.data)


def sse_reset(reset: Reset, now: datetime) -> bytes:
    """Tells a client that events it asked for are gone: it should load its state anew."""
    data = to_json(
        {
            "id": reset.newest,
            "type": "feed.reset",
            "created_at": show(to_ms(now)),
            "data": {"newest": reset.newest},
        }
    )
    return b"id: %d\nevent: feed.reset\ndata: %s\n\n" % (reset.newest, data)


async def stream(request: Request, context: Context, identity: Identity) -> Response:
    """Opens a stream, within the caps of the key and of the process."""
    after = cursor_of(request)
    presented = context.keys.presented(request) or ""
    open_ = context.streams
    if sum(open_.values()) >= context.bounds.streams:
        raise Problem(429, "Too many streams are open.", headers={"retry-after": "5"})
    if open_.get(identity.key_id, 0) >= context.bounds.streams_per_key:
        raise Problem(429, "Too many streams are open with this key.", headers={"retry-after": "5"})
    return EventStream(context, identity, presented, after)


class EventStream(Response):
    """A response that follows the hub until its reader goes, lags or loses its key."""

    media_type = "text/event-stream"

    def __init__(
        self, context: Context, identity: Identity, presented: str, after: int | None
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        self.context = context
        self.identity = identity
        self.presented = presented
        self.after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until something ends it; a HEAD has nothing to stream and holds no place."""
        headers = [h for h in self.raw_headers if h[0] != b"content-length"]
        start: Message = {"type": "http.response.start", "status": 200, "headers": headers}
        if scope["method"] == "HEAD":
            await send(start)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        open_, key = self.context.streams, self.identity.key_id
        open_[key] = open_.get(key, 0) + 1
        _bound(scope)
        try:
            await send(start)
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self._pump(send))
                group.create_task(self._watch(receive, pump))
        except* (Lagging, TimeoutError):
            log.info("a slow reader of the feed was cut off; it can resume")
            _cut_off(scope)
            await asyncio.sleep(0.01)  # the server takes note that the connection has gone
        finally:
            open_[key] -= 1
            if not open_[key]:
                del open_[key]

    async def _watch(self, receive: Receive, pump: asyncio.Task[None]) -> None:
        """Ends the stream when the client has gone or its key no longer holds."""
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            while not pump.done():
                done, _ = await asyncio.wait(
                    {gone, pump}, timeout=RECHECK, return_when=asyncio.FIRST_COMPLETED
                )
                if gone in done or not await self._holds():
                    pump.cancel()
                    return
        finally:
            gone.cancel()

    async def _holds(self) -> bool:
        try:
            return await self.context.keys.holds(self.presented, fresh=True) is not None
        except Exception:
            log.warning("a stream's key cannot be checked at the moment")
            return True

    async def _pump(self, send: Send) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            async for chunk in self._chunks():
                async with asyncio.timeout(self.context.bounds.stall):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            async with asyncio.timeout(1.0):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _chunks(self) -> AsyncIterator[bytes]:
        follow = self.context.hub.follow(self.identity.tenant_id, self.after, BEAT)
        async with contextlib.aclosing(follow) as batches:  # type: ignore[type-var]
            async for batch in batches:
                if isinstance(batch, Reset):
                    yield sse_reset(batch, self.context.clock.now())
                elif isinstance(batch, Opened):
                    yield b"retry: 1000\nid: %d\n\n" % batch.cursor
                else:
                    yield b"".join(map(sse, batch)) if batch else b": still here\n\n"


def _bound(scope: Scope) -> None:
    """Keeps the kernel from buffering megabytes for a reader that does not read."""
    transport = scope.get("gateway.transport")
    wire = transport.get_extra_info("socket") if transport is not None else None
    if wire is not None:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)


def _cut_off(scope: Scope) -> None:
    """Ends the connection at once; a server that cannot closes it when its buffer is empty."""
    transport = scope.get("gateway.transport")
    if transport is not None:
        transport.abort()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/events",
        handler=stream,
        summary="Follow the event feed as server-sent events",
        answer="text/event-stream",
        query=("after",),
        headers=("Last-Event-ID",),
        errors=(422, 429),
        tag="Events",
    ),
)
