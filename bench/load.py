"""The load generator: raw HTTP/1.1 over keep-alive connections, quicker than what it measures.

Closed loops ask as quickly as they are answered; an open loop asks at a fixed rate and counts
from the moment when a request was due. Counts every answer, and its own share of its core.
"""

from __future__ import annotations

import asyncio
import gc
import re
import resource
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

from uvloop import new_event_loop

LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
GRACE = 30.0  # seconds for the last answers; what is still missing then is an error

Requests: TypeAlias = Iterator[bytes]


@dataclass(kw_only=True)
class Run:
    """What a run found. `good` counts the answers with the wanted status; times in seconds."""

    good: int = 0
    bad: int = 0
    lost: int = 0  # sent, and never answered
    seconds: float = 0.0
    began: float = 0.0  # time of day of the first request
    cpu: float = 0.0  # the generator's share of its core
    latencies: array[float] = field(default_factory=lambda: array("d"))
    example: bytes = b""  # an answer that was not wanted

    @property
    def rate(self) -> float:
        """Wanted answers in a second."""
        return self.good / self.seconds if self.seconds else 0.0

    def quantile(self, share: float) -> float:
        """A latency that `share` of the requests did not exceed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A POST as it stands on the wire."""
    lines = (f"POST {path} HTTP/1.1", "Host: bench.test", *headers, f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def numbered(template: bytes, start: int = 0) -> Requests:
    """Requests without end, each with a number of its own where the template has a `%010d`.

    The number has ten digits, so that the length declared in the template is right.
    """
    return map(template.__mod__, count(2_010_000_000 + start))


class _Loop:
    """A closed loop over some connections."""

    def __init__(self, run: Run, requests: Requests, status: int, most: int, until: float) -> None:
        self.run = run
        self.requests = requests
        self.wanted = b" %d " % status
        self.left = most
        self.until = until
        self.busy = 0
        self.idle = asyncio.Event()

    def next(self) -> bytes | None:
        """The next request, or None when it was enough."""
        if self.left <= 0 or time.perf_counter() >= self.until:
            return None
        request = next(self.requests, None)
        self.left -= request is not None
        return request

    def ended(self) -> None:
        """A connection has nothing more to do."""
        self.busy -= 1
        if not self.busy:
            self.idle.set()


class _Client(asyncio.Protocol):
    """One keep-alive connection with at most one request under way."""

    def __init__(self, done: Callable[[_Client, bytes], None]) -> None:
        self.done = done
        self.buffer = b""
        self.since = 0.0
        self.waiting = False
        self.transport: Any = None
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def ask(self, request: bytes, since: float | None = None) -> None:
        """Sends a request; its time counts from `since`, else from now."""
        self.waiting = True
        self.since = time.perf_counter() if since is None else since
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.buffer = data
            return
        found = LENGTH.search(data, 0, end + 2)
        if len(data) < end + 4 + (int(found[1]) if found else 0):
            self.buffer = data
            return
        self.buffer = b""
        self.waiting = False
        self.done(self, data)

    def connection_lost(self, _: Exception | None) -> None:
        self.gone.set()
        if self.waiting:
            self.waiting = False
            self.done(self, b"")


def note(run: Run, client: _Client, answer: bytes, wanted: bytes) -> None:
    """Counts one answer."""
    if answer[8:13] == wanted:
        run.good += 1
        run.latencies.append(time.perf_counter() - client.since)
    elif answer:
        run.bad += 1
        run.example = answer[:400]
    else:
        run.lost += 1


async def _connect(port: int, done: Callable[[_Client, bytes], None]) -> _Client:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: _Client(done), "127.0.0.1", port)
    return client


async def _closed(port: int, work: _Loop, clients: int) -> None:
    def done(client: _Client, answer: bytes) -> None:
        note(work.run, client, answer, work.wanted)
        request = work.next() if answer else None
        if request is None:
            work.ended()
        else:
            client.ask(request)

    connected = [await _connect(port, done) for _ in range(clients)]
    start = time.perf_counter()
    work.until += start
    work.run.began = time.time()
    for client in connected:
        if (request := work.next()) is not None:
            work.busy += 1
            client.ask(request)
    await _settled(work)
    work.run.seconds = time.perf_counter() - start
    for client in connected:
        work.run.lost += client.waiting
        client.waiting = False
    await leave(connected)


async def leave(clients: Iterable[_Client]) -> None:
    """Ends connections, before the loop ends that they belong to."""
    for client in clients:
        client.transport.abort()
    for client in clients:
        await client.gone.wait()


async def _settled(work: _Loop) -> None:
    if not work.busy:
        return
    try:
        async with asyncio.timeout(max(0.0, work.until - time.perf_counter()) + GRACE):
            await work.idle.wait()
    except TimeoutError:
        pass  # what is under way counts as lost


def closed(
    port: int,
    requests: Requests,
    *,
    clients: int,
    seconds: float,
    most: int = 10**9,
    status: int = 202,
) -> Run:
    """Asks over `clients` connections, each as quickly as it is answered, until the time or
    the number of requests is over; ends with the last answer."""
    run = Run()
    measured(run, _closed(port, _Loop(run, requests, status, most, seconds), clients))
    return run


def measured(run: Run, work: Any) -> None:
    """Runs `work` in a loop of its own, without garbage collections, and notes its CPU share."""
    gc.collect()
    gc.disable()
    before, start = _cpu(), time.perf_counter()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(work)
    finally:
        gc.enable()
    run.cpu = (_cpu() - before) / (time.perf_counter() - start)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Pool:
    """Connections for an open loop. When none is idle a request waits, and its time counts."""

    def __init__(self, run: Run, port: int, status: int) -> None:
        self.run = run
        self.port = port
        self.wanted = b" %d " % status
        self.idle: list[_Client] = []
        self.clients: list[_Client] = []
        self.late: list[tuple[bytes, float]] = []

    @property
    def answered(self) -> int:
        """Requests of which nothing more is to come."""
        return self.run.good + self.run.bad + self.run.lost

    async def open(self, number: int) -> None:
        """Connects beforehand."""
        for _ in range(number):
            self.clients.append(await _connect(self.port, self._done))
        self.idle += self.clients

    def ask(self, request: bytes, since: float) -> None:
        """Sends at once, or as soon as a connection is free."""
        if self.idle:
            self.idle.pop().ask(request, since)
        else:
            self.late.append((request, since))

    def _done(self, client: _Client, answer: bytes) -> None:
        note(self.run, client, answer, self.wanted)
        if not answer:
            return
        if self.late:
            client.ask(*self.late.pop(0))
        else:
            self.idle.append(client)


async def steady(
    pool: Pool,
    requests: Requests,
    *,
    rate: float,
    seconds: float,
    sent: Callable[[int, float], None],
) -> None:
    """Asks `rate` times a second, whatever the answers do, and tells `sent` each number and the
    moment when it was due."""
    start = time.perf_counter()
    pool.run.began = time.time()
    total = int(rate * seconds)
    for number in range(total):
        due = start + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        request = next(requests)
        sent(number, due)
        pool.ask(request, due)
    end = time.perf_counter() + GRACE
    while pool.answered < total and time.perf_counter() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    pool.run.lost += total - pool.answered
    pool.run.seconds = time.perf_counter() - start
    await leave(pool.clients)
