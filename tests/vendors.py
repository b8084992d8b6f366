"""A vendor on loopback: plays Twilio's Messages.json, or whatever it is told, and its faults.

What it says when all is well can be given as data: `{id}` in it becomes one that nobody else has.

`LoopbackVendor` runs in a thread of its own; `python -m tests.vendors --port N --file LOG` in a
process of its own, where it writes one flushed line for each request it was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, partial
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qs, unquote_plus

try:
    import uvloop as loops
except ImportError:
    import asyncio as loops  # type: ignore[no-redef]

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
FIELD = {name: re.compile(rf"(?:^|&){name}=([^&]*)".encode()) for name in ("To", "From", "Body")}
ATTEMPT = re.compile(rb"att_[0-9A-Za-z]+")
REASONS = {200: b"OK", 201: b"Created", 307: b"Temporary Redirect", 429: b"Too Many Requests"}
ANSWER = (
    b'{"account_sid":"AC00000000000000000000000000000001","api_version":"2010-04-01","body":"",'
    b'"date_created":"Thu, 24 Aug 2023 05:01:45 +0000","date_sent":null,'
    b'"date_updated":"Thu, 24 Aug 2023 05:01:45 +0000","direction":"outbound-api",'
    b'"error_code":null,"error_message":null,"from":%b,"messaging_service_sid":null,'
    b'"num_media":"0","num_segments":"1","price":null,"price_unit":null,"sid":"%b",'
    b'"status":"queued","subresource_uris":{},"to":%b,"uri":"/2010-04-01/Messages.json"}'
)


class Fault(StrEnum):
    """What goes wrong below HTTP."""

    DROP_BEFORE = "drop_before"  # closes a connection as it is made, and reads nothing
    DROP_AFTER = "drop_after"  # reads the request, then closes
    STALL = "stall"  # reads the request and never answers


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer. `declared` is a Content-Length that lies; `drip` is the seconds per byte; `after`
    is waited for."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    declared: int | None = None
    drip: float | None = None
    close: bool = False
    after: threading.Event | None = None

    def wire(self) -> bytes:
        """The bytes of the answer."""
        length = len(self.body) if self.declared is None else self.declared
        named = {"Content-Type": "application/json", "Content-Length": str(length), **self.headers}
        head = b"".join(f"{name}: {value}\r\n".encode() for name, value in named.items())
        reason = REASONS.get(self.status, b"Because")
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (self.status, reason, head, self.body)


Behaviour: TypeAlias = Reply | Fault | bytes  # bytes stand on the wire as they are


class Request:
    """A request as it stood on the wire; read only when somebody asks. `given` is the id that its
    ordinary answer named."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head = head
        self.body = body
        self.given = ""

    @cached_property
    def line(self) -> list[str]:
        """Method, path and version."""
        return self.head.partition(b"\r\n")[0].decode("latin-1").split(" ")

    @property
    def method(self) -> str:
        """Such as POST."""
        return self.line[0]

    @property
    def path(self) -> str:
        """With its query."""
        return self.line[1]

    @cached_property
    def headers(self) -> dict[str, str]:
        """By lower-case name."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return {name.lower(): value.strip() for name, _, value in pairs}

    @cached_property
    def json(self) -> Any:
        """A body of JSON."""
        return json.loads(self.body)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The fields of the body, whichever of the two it is; those of a form are lists."""
        found: Mapping[str, Any] = self.json if self.body.startswith(b"{") else self.form
        return found

    @cached_property
    def form(self) -> dict[str, list[str]]:
        """The fields of a form body."""
        return parse_qs(self.body.decode(), keep_blank_values=True, strict_parsing=True)

    def field(self, name: str) -> str | None:
        """One of To, From and Body, found quickly."""
        found = FIELD[name].search(self.body)
        return None if found is None else unquote_plus(found[1].decode())


class LoopbackVendor:
    """A vendor's HTTP API on 127.0.0.1.

    What a request gets: `pages[path]` if there is one, else the next of `plan`, else `always`,
    else `answer`, or Twilio's 201, with an id that no other request gets, also not from another
    vendor.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        latency: float = 0.0,
        keep: bool = True,
        answer: Mapping[str, Any] | None = None,
    ) -> None:
        self.answer = answer
        self.port = port
        self.latency = latency
        self.keep = keep
        self.count = 0
        self.connections = 0
        self.requests: list[Request] = []
        self.plan: deque[Behaviour] = deque()
        self.always: Behaviour | None = None
        self.pages: dict[str, Behaviour] = {}
        self.witness: Callable[[Request], None] | None = None
        self.open: set[Any] = set()  # the connections there are
        self._prefix = secrets.token_hex(8).encode()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._done: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """The origin to call."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Listens, in a thread."""
        self._ready.clear()
        self._thread = threading.Thread(target=self._run, name="vendor", daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the vendor did not start")
        return self

    def stop(self) -> None:
        """Closes the port and every connection. May be started again, on the same port."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None or self._done is None:
            return
        self._loop.call_soon_threadsafe(self._done.set)
        thread.join(10)

    def drop_all(self) -> None:
        """Closes every connection, from another thread, and returns when they are closed."""
        closed = threading.Event()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._drop_all, closed)
        if not closed.wait(10):
            raise RuntimeError("the vendor is stuck")

    def _drop_all(self, closed: threading.Event) -> None:
        for transport in list(self.open):
            transport.close()
        # A turn of the loop later the sockets are closed, too.
        asyncio.get_running_loop().call_later(0.05, closed.set)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def serve(self) -> None:
        """Listens in the running loop until `stop`."""
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        server = await self._loop.create_server(
            partial(_Conversation, self), "127.0.0.1", self.port, backlog=4096
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._done.wait()
        server.close()
        for transport in list(self.open):
            transport.abort()

    def behave(self, request: Request) -> Behaviour | None:
        """What this request gets; None is the ordinary answer."""
        page = self.pages.get(request.path.partition("?")[0]) if self.pages else None
        if page is not None:
            return page
        return self.plan.popleft() if self.plan else self.always

    def ordinary(self, request: Request) -> bytes:
        """The answer that it was given, or Twilio's 201, with a new id."""
        number = b"%b%016x" % (self._prefix, self.count)
        request.given = number.decode()
        if self.answer is not None:
            said = str(self.answer["body"]).replace("{id}", request.given)
            headers = {
                name: value.replace("{id}", request.given)
                for name, value in self.answer.get("headers", {}).items()
            }
            return Reply(status=self.answer["status"], headers=headers, body=said.encode()).wire()
        sid = b"SM" + number
        sender, to = (json.dumps(request.field(name)).encode() for name in ("From", "To"))
        body = ANSWER % (sender, sid, to)
        head = (
            b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        )
        return head % len(body) + body

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loops.new_event_loop) as runner:
            runner.run(self.serve())


class _Conversation(asyncio.Protocol):
    """One connection."""

    def __init__(self, vendor: LoopbackVendor) -> None:
        self.vendor = vendor
        self.buffer = b""
        self.tasks: set[asyncio.Task[None]] = set()

    transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.vendor.connections += 1
        self.vendor.open.add(self.transport)
        if self.vendor.plan and self.vendor.plan[0] is Fault.DROP_BEFORE:
            self.vendor.plan.popleft()
            self.transport.abort()
        elif self.vendor.always is Fault.DROP_BEFORE:
            self.transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        self.vendor.open.discard(self.transport)
        for task in self.tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        if self.buffer.startswith(b"\x16"):  # the first byte of a TLS handshake
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            self.transport.close()
            return
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self.buffer, 0, end)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self.buffer) < whole:
                return
            request = Request(self.buffer[:end], self.buffer[end + 4 : whole])
            self.buffer = self.buffer[whole:]
            self.answer(request)

    def answer(self, request: Request) -> None:
        """Notes the request first, so that it counts whatever happens to its answer."""
        vendor = self.vendor
        vendor.count += 1
        if vendor.keep:
            vendor.requests.append(request)
        if vendor.witness is not None:
            vendor.witness(request)
        behaviour = vendor.behave(request)
        if behaviour is None:
            self.write_later(vendor.ordinary(request))
        elif isinstance(behaviour, bytes):
            self.transport.write(behaviour)
            self.transport.close()
        elif isinstance(behaviour, Reply):
            self.reply(behaviour)
        elif behaviour is Fault.DROP_AFTER:
            self.transport.abort()

    def reply(self, reply: Reply) -> None:
        """An answer that somebody planned."""
        if reply.drip is not None:
            self.spawn(self.drip(reply))
            return
        if reply.after is not None:
            self.spawn(self.hold(reply, reply.after))
            return
        self.write_later(reply.wire())
        if reply.close:
            self.transport.close()

    def write_later(self, data: bytes) -> None:
        """Answers, after the latency if there is any."""
        if self.vendor.latency:
            asyncio.get_running_loop().call_later(self.vendor.latency, self.write, data)
        else:
            self.transport.write(data)

    def write(self, data: bytes) -> None:
        """Answers, if anybody still listens."""
        if not self.transport.is_closing():
            self.transport.write(data)

    async def hold(self, reply: Reply, until: threading.Event) -> None:
        """Answers once somebody lets it."""
        while not until.is_set():
            await asyncio.sleep(0.005)
        self.write(reply.wire())

    async def drip(self, reply: Reply) -> None:
        """One byte at a time."""
        for byte in reply.wire():
            self.write(bytes((byte,)))
            await asyncio.sleep(reply.drip or 0.0)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs something until the connection ends."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def log_line(request: Request) -> bytes:
    """One request, as the process writes it: the attempt of its callback, To and Body."""
    attempt = ATTEMPT.search(request.body)
    named = {
        "attempt": attempt[0].decode() if attempt else None,
        "to": request.field("To"),
        "body": request.field("Body"),
    }
    return json.dumps(named).encode() + b"\n"


def main() -> None:
    """Runs as a process, the only witness of what was really sent."""
    parser = argparse.ArgumentParser(description="A vendor on loopback.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--file", required=True, help="one line of JSON for each request")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    given = parser.parse_args()
    vendor = LoopbackVendor(port=given.port, latency=given.latency, keep=False)
    log = os.open(given.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    vendor.witness = lambda request: _append(log, log_line(request))
    vendor.start()
    print(vendor.url, flush=True)
    threading.Event().wait()


def _append(log: int, line: bytes) -> None:
    os.write(log, line)


if __name__ == "__main__":
    main()
