"""How a request of boto3 leaves: once, marked before its first byte, its answer bounded.

boto3 signs and reads; this sends, as the handler of botocore's event `before-send`. Follows no
redirect, uses no proxy, repeats nothing. Never puts an address, a header or a body into an error.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from io import BytesIO
from time import monotonic
from typing import TYPE_CHECKING, Any

from providers._http import KEEPALIVE, REPLY_LIMIT

if TYPE_CHECKING:  # urllib3 comes with boto3, which belongs to an extra
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.response import BaseHTTPResponse

PIECE = 64 * 1024
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]


class CalledOff(Exception):
    """Nothing was written, and nothing may be any more: whoever waited has gone."""


class TooLarge(Exception):
    """An answer without an end in sight."""


class Flight:
    """One call on its way, seen from its thread and from the event loop.

    `signed` once its request stands; `written` just before its first byte leaves. `status` and
    `headers` (in lower case) are those of the answer, once it was read whole.
    """

    def __init__(self) -> None:
        self.signed = False
        self.written = False
        self.signed_at = ""
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._called_off = False
        self._connection: HTTPConnection | None = None

    def depart(self, connection: HTTPConnection) -> None:
        """Its bytes leave by a connection; refused once it was called off."""
        with self._lock:
            if self._called_off:
                raise CalledOff
            self.written = True
            self._connection = connection

    def land(self) -> None:
        """Its connection is not its own any more."""
        with self._lock:
            self._connection = None

    def call_off(self) -> bool:
        """Keeps it from leaving; whether that came in time."""
        with self._lock:
            self._called_off = True
            return not self.written

    def hang_up(self) -> None:
        """Ends it, wherever it is: a thread that reads comes back with nothing."""
        with self._lock:
            self._called_off = True
            wire = getattr(self._connection, "sock", None)
            if wire is not None:
                with suppress(OSError):  # below TLS: its own shutdown is not made for two threads
                    socket.socket.shutdown(wire, socket.SHUT_RDWR)


FLIGHT: ContextVar[Flight] = ContextVar("aws_flight")


class Wire:
    """The connections to one vendor, kept for the next request. Used from many threads."""

    def __init__(self, *, connect: float, read: float, connections: int, bundle: str) -> None:
        from urllib3 import PoolManager, Timeout

        self._pools = PoolManager(
            num_pools=16,
            maxsize=connections,
            timeout=Timeout(connect=connect, read=read),
            retries=False,
            socket_options=SOCKET_OPTIONS,
            ssl_context=ssl.create_default_context(cafile=bundle),
        )
        self._pools.pool_classes_by_scheme = dict(_pools())

    def attach(self, client: Any) -> None:
        """Sends what a client of boto3 signs from now on."""
        client.meta.events.register("before-send", self.send)
        client.meta.events.register_last("request-created", _signed)

    def send(self, request: Any, **_: Any) -> Any:
        """Botocore's `before-send`: what a handler gives back is taken for the answer."""
        from botocore.awsrequest import AWSResponse  # type: ignore[import-untyped]

        flight = FLIGHT.get()
        response = self._pools.urlopen(
            request.method,
            request.url,
            body=request.body,
            headers={name: _text(value) for name, value in request.headers.items()},
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        body = _read(response)
        flight.land()
        flight.headers = {name.lower(): value for name, value in response.headers.items()}
        flight.status = response.status
        return AWSResponse(request.url, response.status, response.headers, _Body(body))

    def close(self) -> None:
        """Closes what is kept. `clear` alone leaves that to the garbage collector."""
        for key in self._pools.pools.keys():  # noqa: SIM118 - it is no mapping to iterate over
            pool = self._pools.pools.get(key)
            if pool is not None:
                pool.close()
        self._pools.clear()


def _signed(request: Any, **_: Any) -> None:
    """The last handler of `request-created`: the credentials are there, and were used."""
    flight = FLIGHT.get()
    flight.signed = True
    flight.signed_at = _text(request.headers.get("X-Amz-Date", ""))


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _read(response: BaseHTTPResponse) -> bytes:
    if not 200 <= response.status <= 599:  # the answer is still to come: not to the next request
        response.close()
        return b""
    whole = bytearray()
    try:
        while piece := response.read(PIECE):
            whole += piece
            if len(whole) > REPLY_LIMIT:
                raise TooLarge
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return bytes(whole)


class _Body(BytesIO):
    """An answer's body in the shapes that botocore reads: at once, or, of a file, as a stream."""

    def stream(self) -> Iterator[bytes]:
        """The whole of it."""
        yield self.getvalue()


def _depart(connection: HTTPConnection) -> float:
    """Connects if need be, marks the flight, and gives the moment."""
    if connection.sock is None:
        connection.connect()
    FLIGHT.get().depart(connection)
    return monotonic()


@cache
def _pools() -> Mapping[str, type[HTTPConnectionPool]]:
    """Pools whose connections mark the flight that leaves by them, and are not kept for long."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Plain(HTTPConnection):
        used = 0.0

        def send(self, data: Any) -> None:
            self.used = _depart(self)
            super().send(data)

        @property
        def is_connected(self) -> bool:
            return super().is_connected and monotonic() - self.used < KEEPALIVE

    class Secure(HTTPSConnection):
        used = 0.0

        def send(self, data: Any) -> None:
            self.used = _depart(self)
            super().send(data)

        @property
        def is_connected(self) -> bool:
            return super().is_connected and monotonic() - self.used < KEEPALIVE

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
