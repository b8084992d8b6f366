"""The one client for what SNS names by URL: a certificate, a confirmation. One GET each.

Follows no redirect, uses no proxy, checks the TLS certificate, and reads a bounded answer in
bounded time, in a thread of its own. Checks no URL: that was done before.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Fetch: TypeAlias = Callable[[str], bytes]

EACH = 5.0  # seconds for a connection, and between two bytes
TOTAL = 10.0
LIMIT = 64 * 1024
PIECE = 16 * 1024


class Unanswered(Exception):
    """There is no answer of use; `status` where there was one at all, and `body` of a 4xx."""

    def __init__(self, text: str, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(text)
        self.status = status
        self.body = body


class Deadline:
    """Ends a request wherever it is: a host that drips its headers would hold it for ever, as
    time-outs count between two bytes only."""

    def __init__(self, total: float) -> None:
        self.over = False
        self._wires: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(total, self._end)
        self._timer.name, self._timer.daemon = "gateway-sns", True

    def watch(self, wire: socket.socket) -> None:
        """Watches a connection by a second handle, which stays when TLS takes the first over."""
        with self._lock:
            self._wires.append(wire.dup())
        if self.over:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self.over = True
            for wire in self._wires:
                with suppress(OSError):
                    wire.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def running(self) -> Iterator[Deadline]:
        """The time in which a request has to end."""
        self._timer.start()
        try:
            yield self
        finally:
            self._timer.cancel()
            with self._lock:
                while self._wires:
                    self._wires.pop().close()


def fetch(url: str, *, each: float = EACH, total: float = TOTAL) -> bytes:
    """The body of a 200, of at most `LIMIT` bytes.

    Raises:
        Unanswered: whatever else came, or nothing. The text holds no URL.
    """
    import requests
    from urllib3.exceptions import HTTPError

    with Deadline(total).running() as deadline:
        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy, no netrc
                _watched(session, deadline)
                with session.get(
                    url,
                    headers={"Accept-Encoding": "identity"},
                    timeout=(each, each),
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    return _answer(response, deadline)
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            failure = Unanswered("too slow" if deadline.over else type(error).__name__)
    raise failure  # not from the library's: its text holds the URL, and a URL may hold a token


def warm() -> None:
    """Loads the library, which takes longer than all else of a first webhook. Asks nobody."""
    import requests  # noqa: F401
    from urllib3 import connection, connectionpool  # noqa: F401


def _watched(session: Any, deadline: Deadline) -> None:
    """Lets a session make connections that the deadline ends."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            deadline.watch(made := super()._new_conn())
            return made

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            deadline.watch(made := super()._new_conn())
            return made

    plain = type("Pool", (HTTPConnectionPool,), {"ConnectionCls": Plain})
    secure = type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": Secure})
    for adapter in session.adapters.values():
        adapter.poolmanager.pool_classes_by_scheme = {"http": plain, "https": secure}


def _answer(response: Any, deadline: Deadline) -> bytes:
    status = response.status_code
    if status == 200:
        return _body(response, deadline)
    told = b""
    if 400 <= status < 500:  # says why; without that it is an answer all the same
        with suppress(Exception):
            told = _body(response, deadline)
    raise Unanswered(f"HTTP {status}", status, told)


def _body(response: Any, deadline: Deadline) -> bytes:
    found = bytearray()
    while piece := response.raw.read1(PIECE, decode_content=False):
        found += piece
        if len(found) > LIMIT:
            raise Unanswered(f"more than {LIMIT} bytes")
    if deadline.over:  # without a declared length, what was cut off looks whole
        raise Unanswered("too slow")
    return bytes(found)


async def in_thread(work: Callable[[], T], within: float = TOTAL) -> T:
    """Runs something that blocks, in a thread that nobody waits for at the end of the process.

    Raises:
        TimeoutError: it takes too long. It goes on by itself, and its result is dropped; `fetch`
            does not go on for longer than its `total`.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failed = None, None
        try:
            result = work()
        except Exception as error:
            failed = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, name="gateway-sns", daemon=True).start()
    async with asyncio.timeout(within):
        return await future
