"""The HTTP server: uvicorn, started by us, with bounds on what a client may send before it asks
for anything, and an end that lets streams go first."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import socket
import time
from collections.abc import Callable
from threading import Thread
from types import FrameType
from typing import Any

from starlette.types import ASGIApp
from uvicorn import Config, Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.api.sockets import PATH as SOCKET
from gateway.commands.sockets import MESSAGE_MOST, PING, Frames
from gateway.commands.terminal import Failure

HEAD_MOST = 64 * 1024  # bytes of a request's line and headers
HEAD_TIME = 10.0  # seconds until they must be there
KEEP_ALIVE = 75  # seconds; longer than a reverse proxy keeps its idle connections (nginx: 60)
BACKLOG = 2048
COPIED = 64 * 1024  # bytes of a body that is copied behind its head
WARM_AFTER = 0.1  # seconds; whoever waited for the start is answered first
FILES = 65536  # open at once: connections, streams, the database

log = logging.getLogger("gateway")


class Whole:
    """A connection as answers are written to it: an answer's head goes out together with the
    beginning of its body. uvloop writes at once whatever it is given, so that each answer would
    take two system calls and two packets. A head whose body takes longer goes alone."""

    __slots__ = ("_alone", "_head", "_loop", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None
        self._alone: asyncio.Handle | None = None
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Writes, or keeps a head until the next turn of the loop."""
        if self._head is not None:
            self._join(data)
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
            self._alone = self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def _join(self, data: bytes) -> None:
        head, self._head = self._head or b"", None
        if self._alone is not None:
            self._alone.cancel()
        if len(data) > COPIED:
            self._transport.writelines([head, data])
        else:
            self._transport.write(head + data)

    def _flush(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)

    def close(self) -> None:
        """Writes what is kept, then closes."""
        self._flush()
        self._transport.close()


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 with an end to a request's head: uvicorn bounds neither its size nor its time. Only
    where WebSockets are spoken may a connection change to them; elsewhere the wish is passed over,
    as RFC 9110, section 7.8, allows."""

    _timer: asyncio.TimerHandle | None = None
    _open = False  # between a request's first byte and the end of its headers
    _size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client may connect, and then has to ask for something."""
        super().connection_made(transport)
        self._whole = Whole(transport, self.loop)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._disarm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._open, self._size = True, 0
        super().on_message_begin()
        # So that a stream can bound what is buffered for it, and cut a slow reader off: a close
        # would wait for it.
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope["gateway.transport"] = self.transport

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._open = False
        self._disarm()
        super().on_headers_complete()
        upgrade = self.parser.should_upgrade()
        if upgrade and self._should_upgrade():
            return
        if self.scope["method"] != "HEAD":  # whose answer is a head alone
            self.cycle.transport = self._whole  # type: ignore[assignment]
        if upgrade:
            self.cycle.keep_alive = False  # httptools reads no more of this connection

    def _should_upgrade(self) -> bool:
        path = self.url.partition(b"?")[0]
        return (
            self.scope["method"] == "GET" and path == SOCKET.encode() and super()._should_upgrade()
        )

    def _unsupported_upgrade_warning(self) -> None:
        """Anybody could fill the log with it."""

    def data_received(self, data: bytes) -> None:
        """Parses, and counts what belongs to a head that is not complete."""
        super().data_received(data)
        if not self._open:
            return
        self._size += len(data)
        if self._size > HEAD_MOST:
            self.send_400_response("The request's headers are too large.")
        elif self._timer is None:
            self._arm()

    def send_400_response(self, msg: str) -> None:
        """Says what is no HTTP in the form of every other problem."""
        problem = {"type": "about:blank", "title": "Bad request", "status": 400, "detail": msg}
        body = json.dumps(problem).encode()
        headers = (
            *self.server_state.default_headers,
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        )
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + lines + b"\r\n" + body)
        self.transport.close()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(HEAD_TIME, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()


class Serving(Server):
    """A server that says when it is ready, and ends in order: streams, requests, the rest."""

    def __init__(
        self, config: Config, *, ready: Callable[[], None], leaving: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._leaving = leaving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then says so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends streams, which would otherwise hold up the drain."""
        self._leaving()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server in order, the second at once: nothing that was
        accepted is only in memory."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True


def bound(host: str, port: int) -> socket.socket:
    """A socket on the address, before anything else is done; port 0 takes a free one.

    Raises:
        Failure: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise Failure(
            f"cannot listen on {host}:{port}: {error.strerror}. "
            "Give another --port (or PORT), or --port 0 for any that is free."
        ) from None
    return listener


def configured(app: ASGIApp, stop_within: float) -> Config:
    """How uvicorn serves the application."""
    return Config(
        app,
        http=Protocol,
        loop="uvloop",
        ws=Frames,
        ws_max_size=MESSAGE_MOST,
        ws_ping_interval=PING,
        ws_ping_timeout=PING,
        ws_per_message_deflate=False,  # it costs each client more memory than all the rest
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(stop_within)),
    )


def run(
    app: ASGIApp,
    listener: socket.socket,
    *,
    stop_within: float,
    ready: Callable[[], None],
    leaving: Callable[[], None],
) -> None:
    """Serves until a signal comes.

    Raises:
        Failure: it did not start; the log says why.
    """
    config = configured(app, stop_within)
    server = Serving(config, ready=ready, leaving=leaving)
    _allow_files()
    try:
        server.run(sockets=[listener])
    except SystemExit:  # uvicorn's way to say that the lifespan did not start
        raise Failure("the gateway did not start; the log above says why") from None


def settled(then: Callable[[], None] | None = None) -> None:
    """What a start made stays, so the garbage collector need not look at it again, nor as often
    as by default: a fifth less time for a send than with its 700. `then` is what a start did not
    wait for: it runs on a thread."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    if then is not None:
        Thread(target=_meanwhile, args=(then,), name="gateway-warm").start()
    gc.enable()


def _meanwhile(work: Callable[[], None]) -> None:
    time.sleep(WARM_AFTER)
    try:
        work()
    except Exception:  # whoever needs it will say the same
        log.debug("loading in advance failed", exc_info=True)
    gc.freeze()


def _allow_files() -> None:
    """Lets the process have as many connections as the system allows, within reason."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
