"""Whole ways through the gateway: from a webhook to the event feed, from a POST to a vendor."""

from __future__ import annotations

import asyncio
import json
import re
import time
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench import load
from bench.load import Run
from bench.machine import query
from bench.measure import BARE, LEAST, Bench, Figure, Server, Subject, accepts, in_turns, one_turn
from bench.requests import signed
from bench.servers import KEY


class Follower(asyncio.Protocol):
    """A client of the event feed that notes when each inbound message arrived."""

    FRAME = re.compile(rb'event: message\.received\ndata: [^\n]*"provider_message_id":"SM(\w{32})"')

    def __init__(self, arrived: Callable[[int, float], None]) -> None:
        self.arrived = arrived
        self.buffer = b""
        self.open = asyncio.Event()
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        lines = ("GET /api/events HTTP/1.1", "Host: bench.test", f"Authorization: Bearer {KEY}")
        transport.write("\r\n".join(lines).encode() + b"\r\n\r\n")  # type: ignore[attr-defined]

    def connection_lost(self, _: Exception | None) -> None:
        self.gone.set()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.buffer += data
        if b"retry:" in data:
            self.open.set()
        whole = self.buffer.rfind(b"\n\n") + 2
        if whole > 1:
            for found in self.FRAME.finditer(self.buffer, 0, whole):
                self.arrived(int(found[1], 16), now)
            self.buffer = self.buffer[whole:]


def _follow(bench: Bench, server: Server) -> dict[str, float]:
    """Webhooks at a fixed rate, with one client on the feed: from due to seen."""
    plan, run, first = bench.plan, Run(), server.sent
    total = int(plan.rate * plan.stream)
    requests = iter(signed(first, total))
    due: dict[int, float] = {}
    took: dict[int, float] = {}
    extra: list[int] = []

    def arrived(number: int, when: float) -> None:
        if number in took or number not in due:
            extra.append(number)
        else:
            took[number] = when - due[number]

    async def work() -> None:
        loop = asyncio.get_running_loop()
        port = server.process.port
        transport, client = await loop.create_connection(
            lambda: Follower(arrived), "127.0.0.1", port
        )
        async with asyncio.timeout(10):
            await client.open.wait()
        pool = load.Pool(run, port, 200)
        await pool.open(16)
        sent = lambda number, when: due.__setitem__(first + number, when)  # noqa: E731
        await load.steady(pool, requests, rate=plan.rate, seconds=plan.stream, sent=sent)
        end = time.perf_counter() + 5
        while len(took) < total and time.perf_counter() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        transport.abort()
        await client.gone.wait()

    load.measured(run, work())
    bench.busiest = max(bench.busiest, run.cpu)
    server.count(run)
    seen = Run(latencies=array("d", took.values()))
    return {
        "p50": seen.quantile(0.5) * 1000,
        "p99": seen.quantile(0.99) * 1000,
        "worst": seen.quantile(1.0) * 1000,
        "answered_p99": run.quantile(0.99) * 1000,
        "seen": float(len(took)),
        "failed": float(total - len(took) + len(extra) + run.bad + run.lost),
    }


def measure_stream(bench: Bench) -> list[Figure]:
    """From a webhook to a client of the event feed, at a fixed rate."""
    plan, figures = bench.plan, []
    chosen = [Subject("gateway", s, d) for d in plan.disks for s in plan.stores]
    with ExitStack() as stack:
        servers = [bench.server(subject) for subject in chosen]
        for server in servers:
            stack.callback(server.process.stop)
        bench.plan = replace(plan, stream=min(plan.stream, 0.5))
        for server in servers:
            _follow(bench, server)  # to warm up
        bench.plan = plan
        figures = [Figure(subject=subject) for subject in chosen]
        for _ in range(plan.fewer):
            for figure, server in zip(figures, servers, strict=True):
                figure.turns.append(_follow(bench, server))
                if failed := figure.turns[-1]["failed"]:
                    figure.wrong.append(f"{failed:.0f} were not seen exactly once")
        for figure, server in zip(figures, servers, strict=True):
            figure.wrong += server.check("inbound")
    return figures


def deliver(bench: Bench, server: Server, how_many: int) -> dict[str, float]:
    """Posts messages, and waits until each is settled."""
    before = server.process.cpu()
    run = bench.run(
        server,
        accepts(server, 0),
        clients=bench.plan.clients[0],
        seconds=60.0,
        most=how_many,
    )
    server.count(run)
    deadline = time.monotonic() + 60
    while query(server.database, "SELECT count(*) FROM queue") and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.05)
    settled = query(server.database, "SELECT max(updated_at) FROM messages") / 1000
    seconds = settled - run.began
    return {
        "rate": run.good / seconds,
        "accepted_rate": run.rate,
        "cpu": (server.process.cpu() - before) / how_many * 1e6,
        "failed": float(how_many - run.good),
    }


def exactly_once(log: Path, server: Server) -> list[str]:
    """Compares what the vendor was sent with what was accepted."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    wrong = []
    for name in ("attempt", "to"):
        times = Counter(line[name] for line in lines)
        if len(times) != server.good or set(times.values()) != {1} or None in times:
            wrong.append(f"the vendor saw {len(lines)} requests and {len(times)} of {name}")
    accepted = query(server.database, "SELECT count(*) FROM messages WHERE status = 'accepted'")
    if accepted != server.good:
        wrong.append(f"{accepted} of {server.good} messages are accepted")
    return wrong


def measure_end_to_end(bench: Bench) -> list[Figure]:
    """From the first POST to the last answer of a vendor, stored."""
    plan = bench.plan
    chosen = [LEAST, *(Subject("gateway", s, d) for d in plan.disks for s in plan.stores)]
    with ExitStack() as stack:
        bare = bench.server(BARE)
        stack.callback(bare.process.stop)
        servers, logs = [bare], {}
        for subject in chosen:
            vendor, log = bench.vendor()
            stack.callback(vendor.stop)
            server = bench.server(subject, "--vendor", f"http://127.0.0.1:{vendor.port}")
            stack.callback(server.process.stop)
            servers.append(server)
            logs[id(server)] = log
            deliver(bench, server, max(10, plan.messages // 10))  # to warm up

        def turn(server: Server) -> dict[str, float]:
            if server is not bare:
                return deliver(bench, server, plan.messages)
            return one_turn(bench, bare, plan.clients[0], 1.0, make=accepts, status=202)

        figures = in_turns(servers, turn, plan.fewer)
        for figure, server in zip(figures[1:], servers[1:], strict=True):
            figure.wrong += server.check("outbound") + exactly_once(logs[id(server)], server)
    return figures
