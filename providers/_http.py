"""The one HTTP client that outbound adapters share, and the one table of what can go wrong in it.

Sends each request once: follows no redirect, keeps no cookie, uses no proxy, repeats no POST.
Knows whether a request was written, which is what tells `Unreachable` from `Ambiguous`. Never
puts an address, a header or a body into an error.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote_plus

from gateway.errors import Ambiguous, ProviderError, Rejected, Unreachable

if TYPE_CHECKING:  # aiohttp belongs to an extra: it is imported when the first session opens
    from aiohttp import ClientRequest, ClientResponse, ClientSession, ClientTimeout
    from aiohttp.connector import Connection

Form: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]
Verdict: TypeAlias = tuple[type[ProviderError], str]

CONNECT_TIMEOUT = 5.0
# Vendors close idle connections after 60 s and more (AWS load balancers 60 s, nginx 75 s). A
# request written just as the other side closes looks like a lost answer, so we close first.
KEEPALIVE = 10.0
REPLY_LIMIT = 1024 * 1024
QUOTED = {number: quote_plus(chr(number)) for number in range(128)}
HANG_UP = getattr(select, "POLLRDHUP", 0)  # where there is none, POLLHUP is told all the same
LOST: Verdict = (Ambiguous, "no_answer")


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer, read to its end. `headers` compare without regard to case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Flight:
    """One request on its way. `written` is set just before its first byte leaves; `stale` if the
    kept connection it was to leave by turned out to be closed."""

    __slots__ = ("stale", "written")

    def __init__(self) -> None:
        self.stale = False
        self.written = False


FLIGHT: ContextVar[Flight] = ContextVar("flight")


class Http:
    """One session for all adapters of one event loop, opened by the first request.

    `limit` bounds the connections; 0 is no bound. The worker's seats bound the requests already,
    and waiting for a full pool would look like a vendor that does not answer, so a limit must
    exceed the seats.
    """

    def __init__(self, *, limit: int = 0, connect_timeout: float = CONNECT_TIMEOUT) -> None:
        self._limit = limit
        self._connect_timeout = connect_timeout
        self._timeouts: dict[float, ClientTimeout] = {}
        self._session: ClientSession | None = None
        self._closed = False

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        data: bytes | Form | None = None,
        limit: int = REPLY_LIMIT,
    ) -> HttpAnswer:
        """Makes one request and reads at most `limit` bytes of its answer.

        Raises:
            Unreachable: not a byte was written.
            Ambiguous: something was written, and no whole answer came.
        """
        while True:
            flight = Flight()
            try:
                return await self._exchange(flight, method, url, headers, data, timeout, limit)
            except ProviderError:
                raise
            except Exception as error:
                failure = translate(error, written=flight.written)
            # Raised here and not above, so that it does not carry the library's exception along:
            # those hold the request's headers.
            if not flight.stale:
                raise failure

    async def _exchange(
        self,
        flight: Flight,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: bytes | Form | None,
        timeout: float,
        limit: int,
    ) -> HttpAnswer:
        FLIGHT.set(flight)
        session = self._session or self._open()
        async with session.request(
            method,
            url,
            headers=headers,
            data=data if data is None or isinstance(data, bytes) else encode(data),
            timeout=self._timeouts.get(timeout) or self._timeout(timeout),
            allow_redirects=False,
        ) as response:
            body = await _read(response, limit)
            if not flight.written:  # the mark is out of order, so nothing it says is true
                raise RuntimeError("aiohttp no longer sends through ClientRequest.send")
            return HttpAnswer(response.status, response.headers, body)

    def warm(self) -> None:
        """Loads the library, which takes as long as a hundred requests."""
        import aiohttp  # noqa: F401

    async def aclose(self) -> None:
        """Closes every connection. What is in flight ends as `Ambiguous`."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> ClientSession:
        if self._closed:
            raise Unreachable("the HTTP client is closed", code="closed")
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._limit, keepalive_timeout=KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            # A compressed answer would save nothing and could be a bomb.
            headers={"Accept-Encoding": "identity"},
            request_class=_marking(),
        )
        return self._session

    def _timeout(self, seconds: float) -> ClientTimeout:
        from aiohttp import ClientTimeout

        connect = min(self._connect_timeout, seconds)
        made = ClientTimeout(total=seconds, connect=connect, ceil_threshold=seconds + 1)
        return self._timeouts.setdefault(seconds, made)


def encode(form: Form) -> bytes:
    """Form pairs as they stand on the wire; a list becomes a repeated key."""
    pairs = form.items() if isinstance(form, Mapping) else form
    written = [
        f"{name}={_quoted(str(each))}"
        for name, value in pairs
        for each in (value if isinstance(value, list) else (value,))
    ]
    return "&".join(written).encode("ascii")


def _quoted(text: str) -> str:
    # What quote_plus does, in a third of the time for what is ASCII: a tenth of a whole send.
    return text.translate(QUOTED) if text.isascii() else quote_plus(text)


def _stale(conn: Connection) -> bool:
    """Whether the vendor closed a kept connection, and the event loop has not seen it yet.

    A new one is never stale, so that trying again comes to an end. What asks the system is kept
    with the connection: to make it again each time costs ten times as much as to ask.
    """
    if conn.transport is None:
        return True
    asks = getattr(conn.protocol, "hang_up", None)
    if asks is not None:
        return bool(asks.poll(0))
    number = conn.transport.get_extra_info("socket").fileno()
    if number >= 0:
        poll = select.poll()
        poll.register(number, HANG_UP)
        setattr(conn.protocol, "hang_up", poll)  # noqa: B010 - aiohttp declares no such attribute
    return False


@cache
def _marking() -> type[ClientRequest]:
    """A request that marks its flight. `ClientSession(request_class=…)` is documented.

    A TraceConfig could do the same, at 45 µs of CPU for each request (of 145): it announces six
    moments of which we need one. `send` runs in the task of the caller, after a connection was
    made or found, and before the first byte.
    """
    import aiohttp

    class MarkingRequest(aiohttp.ClientRequest):
        async def send(self, conn: Connection) -> ClientResponse:
            flight = FLIGHT.get()
            flight.stale = _stale(conn)
            if flight.stale:  # it leaves the pool, and the request takes another
                raise aiohttp.ClientConnectionResetError
            flight.written = True
            return await super().send(conn)

    return MarkingRequest


async def _read(response: ClientResponse, limit: int) -> bytes:
    """The body, in pieces: a declared length may lie, and a body may have no end."""
    first = await response.content.readany()
    if response.content.at_eof() and len(first) <= limit:
        return first
    whole = bytearray(first)
    while len(whole) <= limit and (piece := await response.content.readany()):
        whole += piece
    if len(whole) > limit:
        response.close()
        raise Ambiguous("the answer is too large to be believed", code="answer_too_large")
    return bytes(whole)


@cache
def unwritten() -> Mapping[type[BaseException], Verdict]:
    """What each class of exception means while nothing has been written; subclasses inherit.

    Once something was written every one of them is `Ambiguous`, and so is, in both cases,
    whatever stands in no line here.
    """
    import aiohttp

    return {
        aiohttp.ClientConnectorDNSError: (Unreachable, "dns"),
        aiohttp.ClientSSLError: (Unreachable, "tls"),  # certificates and handshakes
        aiohttp.ServerFingerprintMismatch: (Unreachable, "tls"),
        aiohttp.ConnectionTimeoutError: (Unreachable, "connect_timeout"),
        aiohttp.ClientConnectionError: (Unreachable, "connect"),  # refused, reset, no route
        aiohttp.InvalidURL: (Unreachable, "url"),
        aiohttp.NonHttpUrlClientError: (Unreachable, "url"),
        # These speak of an answer or of a body on its way, so something was written after all.
        aiohttp.ClientResponseError: LOST,
        aiohttp.ClientPayloadError: LOST,
        aiohttp.UploadAbortedError: LOST,
        aiohttp.RedirectClientError: LOST,
        socket.gaierror: (Unreachable, "dns"),
        ssl.SSLError: (Unreachable, "tls"),
        TimeoutError: (Unreachable, "connect_timeout"),
        OSError: (Unreachable, "connect"),
        asyncio.IncompleteReadError: LOST,
        UnicodeEncodeError: (Rejected, "text"),  # half a surrogate pair, which no wire carries
    }


TEXTS: Mapping[type[ProviderError], str] = {
    Unreachable: "the vendor could not be reached",
    Rejected: "the message cannot be written down",
    Ambiguous: "the request failed in a way that proves nothing",
}


def translate(error: BaseException, *, written: bool) -> ProviderError:
    """Our error for the library's. Only the name of the class is kept of it."""
    name = type(error).__name__
    if written:
        code = "timeout" if isinstance(error, TimeoutError) else LOST[1]
        return Ambiguous(f"the request was written and no answer came ({name})", code=code)
    found = (unwritten()[base] for base in type(error).__mro__ if base in unwritten())
    kind, code = next(found, LOST)
    return kind(f"{TEXTS[kind]} ({name})", code=code)
