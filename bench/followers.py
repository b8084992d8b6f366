"""Many clients of the event feed at once, as server-sent events and by WebSocket: when each event
reached them, and what a client costs in memory."""

from __future__ import annotations

import asyncio
import re
import resource
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from bench import load
from bench.load import Run
from bench.measure import Bench, Figure, Server, Subject
from bench.requests import signed
from bench.servers import KEY

KINDS = {
    "sse": ("/api/events", (), b"retry:"),
    "ws": (
        "/api/events/ws",
        (
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        b"HTTP/1.1 101 ",
    ),
}
SAID = b'"type":"message.received"'
FRAME = re.compile(SAID + rb'.*?"provider_message_id":"SM(\w{32})"')
EVENTS = 2  # of each webhook: a conversation, and what was said in it
SAMPLE = 20  # clients of which each event's time is taken; the others' events are counted
GRACE = 30.0  # seconds for the last events
FILES = 16_384

Arrived = Callable[[int, float], None]


class Follower(asyncio.Protocol):
    """A client that counts what people said. Where `arrived` is given, it hears when."""

    def __init__(self, kind: str, arrived: Arrived | None) -> None:
        path, headers, self.mark = KINDS[kind]
        lines = (f"GET {path} HTTP/1.1", "Host: bench.test", f"Authorization: Bearer {KEY}")
        self.request = "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n"
        self.arrived = arrived
        self.seen = 0
        self.rest = b""
        self.open, self.gone = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self.request)

    def connection_lost(self, _: Exception | None) -> None:
        self.gone.set()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.open.is_set() and self.mark in data:
            self.open.set()
        if self.arrived is None:
            self.seen += (self.rest + data).count(SAID)
            self.rest = data[1 - len(SAID) :]
            return
        whole, end = self.rest + data, 0
        for found in FRAME.finditer(whole):
            self.arrived(int(found[1], 16), now)
            self.seen, end = self.seen + 1, found.end()
        self.rest = whole[end:]


@contextmanager
def _many_files() -> Iterator[None]:
    """As many connections as that takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _turn(bench: Bench, server: Server, kind: str, events: float) -> dict[str, float]:
    """Webhooks at a fixed rate, with a crowd on the feed: from due to seen."""
    plan, run = bench.plan, Run()
    rate = events / EVENTS
    total = max(1, int(rate * plan.stream))
    requests = iter(signed(server.sent, total))
    due: dict[int, float] = {}
    took, first = array("d"), server.sent
    held: list[float] = []
    crowd: list[Follower] = []

    def arrived(number: int, when: float) -> None:
        took.append(when - due[number])

    async def work() -> None:
        pool = load.Pool(run, server.process.port, 200)
        await pool.open(16)
        held.append(server.process.memory())
        every = max(1, plan.followers // SAMPLE)
        for number in range(plan.followers):
            make = partial(Follower, kind, None if number % every else arrived)
            crowd.append(await _opened(server.process.port, make))
        held.append(server.process.memory())
        before, began = server.process.cpu(), time.perf_counter()
        sent = lambda number, when: due.__setitem__(first + number, when)  # noqa: E731
        await load.steady(pool, requests, rate=rate, seconds=total / rate, sent=sent)
        end = time.perf_counter() + GRACE
        while any(f.seen < total for f in crowd) and time.perf_counter() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        lasted = time.perf_counter() - began
        held.extend([server.process.memory(), server.process.cpu() - before, lasted])
        for follower in crowd:
            follower.transport.abort()
        for follower in crowd:
            await follower.gone.wait()

    with _many_files():
        load.measured(run, work())
    bench.busiest = max(bench.busiest, run.cpu)
    server.count(run)
    seen = Run(latencies=took)
    wrong = sum(abs(follower.seen - total) for follower in crowd)
    before, opened, after, used, lasted = held
    told = sum(follower.seen for follower in crowd) * EVENTS
    return {
        "asked": events,
        "rate": told / lasted,
        "p50": seen.quantile(0.5) * 1000,
        "p99": seen.quantile(0.99) * 1000,
        "worst": seen.quantile(1.0) * 1000,
        "opened": (opened - before) * 1024 / plan.followers,
        "after": (after - before) * 1024 / plan.followers,
        "share": used / lasted,
        "cpu": used / told * 1e6 if told else float("nan"),
        "generator": run.cpu,
        "failed": float(wrong + run.bad + run.lost),
    }


async def _opened(port: int, make: Callable[[], Follower]) -> Follower:
    _, follower = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)
    async with asyncio.timeout(10):
        await follower.open.wait()
    return follower


def measure_followers(bench: Bench) -> list[Figure]:
    """A crowd on the feed of a process with SQLite, once for each way to follow it: at a rate that
    is much for a process, and at a tenth of it."""
    rates = (bench.plan.rate, bench.plan.rate / 10)
    return [_measured(bench, kind, rate) for rate in rates for kind in KINDS]


def _measured(bench: Bench, kind: str, rate: float) -> Figure:
    figure = Figure(subject=Subject(kind, "sqlite"), clients=bench.plan.followers)
    for _ in range(bench.plan.fewer):
        server = bench.server(Subject("gateway", "sqlite"), "--idle")
        try:
            figure.turns.append(_turn(bench, server, kind, rate))
            figure.wrong += server.check("inbound")
        finally:
            server.process.stop()
        if failed := figure.turns[-1]["failed"]:
            figure.wrong.append(f"{failed:.0f} were not seen exactly once")
    return figure
