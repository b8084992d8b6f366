"""`GET /api/events/ws`: the feed by WebSocket, one text frame an event, resumable by number.

The key is checked before the upgrade: nobody is let in to say later who they are. It stands in the
`Authorization` header or, as browsers cannot set one, in `Sec-WebSocket-Protocol`; never in a URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.api import query, streams
from gateway.api.context import Context, problem_of
from gateway.api.operation import Operation
from gateway.api.problems import Problem
from gateway.events import Batches, Lagging, Opened, Reset
from gateway.store.feed import Frame
from gateway.store.keys import Identity

log = logging.getLogger("gateway.events")

PATH = "/api/events/ws"
SUBPROTOCOL = "gateway"
BEARER = "bearer."
BEAT = 3600.0  # the protocol's own pings say that the connection lives
RESTART, SLOW, KEY = 1012, 1013, 4401
REASONS = {
    RESTART: "the gateway stops; resume here or elsewhere",
    SLOW: "too slow; resume after the last id",
    KEY: "the key is unknown, revoked or expired",
}
SHORT, LONG = 126, 65_536  # bytes from which a frame's length takes two more, and eight


def framed(data: bytes) -> bytes:
    """Text as a frame of RFC 6455, section 5.2: final, not masked, as servers send."""
    size = len(data)
    if size < SHORT:
        return struct.pack("!BB", 0x81, size) + data
    if size < LONG:
        return struct.pack("!BBH", 0x81, 126, size) + data
    return struct.pack("!BBQ", 0x81, 127, size) + data


WRITTEN = streams.Shared(lambda frame: framed(frame.data))


def presented(connection: HTTPConnection, context: Context) -> str | None:
    """The key that a client carries: in its header, else among the subprotocols it offers."""
    key = context.keys.presented(connection)
    if key is not None:
        return key
    offered = connection.scope.get("subprotocols", ())
    return next((o.removeprefix(BEARER) for o in offered if o.startswith(BEARER)), None)


async def upgrade(request: Request, context: Context, identity: Identity) -> Response:
    """Asked for without an upgrade."""
    raise Problem(
        426,
        f"Open {PATH} as a WebSocket, or follow /api/events.",
        headers={"upgrade": "websocket", "connection": "upgrade"},
    )


@dataclass(frozen=True, slots=True)
class Sockets:
    """Answers each client that wants to upgrade."""

    context: Context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Follows the feed for one client, or refuses it in plain HTTP."""
        await receive()  # that it wants to connect
        connection = HTTPConnection(scope)
        key = presented(connection, self.context)
        try:
            identity = await self.context.keys.known(key)
            query.only(connection, streams.QUERY)
            after = streams.cursor_of(connection)
            streams.admit(self.context, identity)
        except Exception as error:
            await _refuse(problem_of(error), scope, receive, send)
            return
        with streams.place(self.context, identity):
            streams.bound(scope)
            follow = self.context.hub.follow(identity.tenant_id, after, BEAT)
            async with contextlib.aclosing(follow) as batches:  # type: ignore[type-var]
                await _Socket(self.context, key or "", scope, receive, send).run(batches)


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    if "websocket.http.response" in scope.get("extensions", {}):
        await problem.response()(scope, receive, send)
        return
    await send({"type": "websocket.close", "code": 4000 + problem.status})


@dataclass(frozen=True, slots=True)
class _Socket:
    """One client that may follow."""

    context: Context
    key: str
    scope: Scope
    receive: Receive
    send: Send

    async def run(self, batches: Batches) -> None:
        """Accepts it, and streams until something ends it."""
        try:
            held = await self._accept(batches)
        except Exception as error:
            await _refuse(problem_of(error), self.scope, self.receive, self.send)
            return
        code = RESTART
        try:
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self._pump(held, batches))
                gone = _disconnected(self.receive)
                watch = group.create_task(streams.watch(self.context, self.key, gone, pump))
            if not watch.result():
                code = KEY
        except* (Lagging, TimeoutError):
            log.info("a slow reader of the feed was cut off; it can resume")
            code = SLOW
        except* OSError:
            pass  # it has gone
        with contextlib.suppress(OSError):
            await self.send({"type": "websocket.close", "code": code, "reason": REASONS[code]})

    async def _accept(self, batches: Batches) -> list[bytes]:
        """Says where it stands, so that one who has seen no event yet can resume. Gives back what
        is to be said before the first event."""
        held = []
        async for first in batches:
            if isinstance(first, Reset):
                held.append(streams.reset_frame(first, self.context.clock.now()))
            elif isinstance(first, Opened):
                await self.send(self._accepted(first.cursor))
                return held
        raise Problem(503, "The gateway stops.", headers={"retry-after": "1"})

    def _accepted(self, cursor: int) -> Message:
        offered = self.scope.get("subprotocols", ())
        return {
            "type": "websocket.accept",
            "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None,
            "headers": [(b"last-event-id", b"%d" % cursor), (b"cache-control", b"no-store")],
        }

    async def _pump(self, held: list[bytes], batches: Batches) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            for data in held:
                await self._say(data)
            async for batch in batches:
                if isinstance(batch, Reset):
                    await self._say(streams.reset_frame(batch, self.context.clock.now()))
                elif isinstance(batch, list) and batch:
                    await self._tell(batch)

    async def _tell(self, batch: list[Frame]) -> None:
        if "gateway.frames" not in self.scope.get("extensions", {}):
            for frame in batch:
                await self._say(frame.data)
            return
        async with asyncio.timeout(self.context.bounds.stall):
            await self.send({"type": "gateway.frames", "data": WRITTEN.of(batch)})

    async def _say(self, data: bytes) -> None:
        async with asyncio.timeout(self.context.bounds.stall):
            await self.send({"type": "websocket.send", "text": data.decode()})


async def _disconnected(receive: Receive) -> None:
    """Whatever it says, until it goes: there is nothing to say. The server bounds how much."""
    while (await receive())["type"] != "websocket.disconnect":
        pass


OPERATIONS = (
    Operation(
        method="GET",
        path=PATH,
        handler=upgrade,
        summary="Follow the event feed by WebSocket",
        answer="",
        status=101,
        query=streams.QUERY,
        headers=("Last-Event-ID",),
        errors=(422, 426, 429),
        tag="Events",
    ),
)
