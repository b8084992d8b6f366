"""`GET /api/events`: the feed as server-sent events, resumable by number.

A stream ends, instead of growing, when its reader is too slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.api import streams
from gateway.api.context import Context
from gateway.api.operation import Operation
from gateway.events import Lagging, Opened, Reset
from gateway.store.feed import Frame
from gateway.store.keys import Identity

log = logging.getLogger("gateway.events")

BEAT = 15.0  # seconds between comments that keep proxies from closing the stream


def sse(frame: Frame) -> bytes:
    """One event on the wire. JSON has no bare line breaks, so one data line is enough."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (frame.id, frame.type.encode(), frame.data)


WRITTEN = streams.Shared(sse)


async def stream(request: Request, context: Context, identity: Identity) -> Response:
    """Opens a stream, within the caps of the key and of the process."""
    after = streams.cursor_of(request)
    presented = context.keys.presented(request) or ""
    streams.admit(context, identity)
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
        with streams.place(self.context, self.identity):
            streams.bound(scope)
            try:
                await send(start)
                async with asyncio.TaskGroup() as group:
                    pump = group.create_task(self._pump(send))
                    gone = _disconnected(receive)
                    group.create_task(streams.watch(self.context, self.presented, gone, pump))
            except* (Lagging, TimeoutError):
                log.info("a slow reader of the feed was cut off; it can resume")
                _cut_off(scope)
                await asyncio.sleep(0.01)  # the server takes note that the connection has gone

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
                    data = streams.reset_frame(batch, self.context.clock.now())
                    yield b"id: %d\nevent: feed.reset\ndata: %s\n\n" % (batch.newest, data)
                elif isinstance(batch, Opened):
                    yield b"retry: 1000\nid: %d\n\n" % batch.cursor
                else:
                    yield WRITTEN.of(batch) if batch else b": still here\n\n"


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
        query=streams.QUERY,
        headers=("Last-Event-ID",),
        errors=(422, 429),
        tag="Events",
    ),
)
