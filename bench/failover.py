"""What failover costs: from a provider's refusal until the next one has the request, and what it
takes to pass over a provider whose breaker is open."""

from __future__ import annotations

import asyncio
import re
import time
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench import load, machine
from bench.load import Run
from bench.measure import Bench, Figure, Server, Subject, accepts

RATE = 20.0  # messages in a second: what a way takes, not how many go along it
GRACE = 20.0  # seconds for the last of them
NUMBER = re.compile(rb"(?:To|PhoneNumber)=%2B1(\d{10})")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
BUSY = b'{"code":20429,"message":"Too many requests","status":429}'
WRONG = b'{"code":20003,"message":"Authenticate","status":401}'
TAKEN = b'{"sid":"SM%032x","status":"queued","num_segments":"1","error_code":null}'
PUBLISHED = (
    b'<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult>'
    b"<MessageId>00000000-0000-4000-8000-%012x</MessageId></PublishResult><ResponseMetadata>"
    b"<RequestId>r</RequestId></ResponseMetadata></PublishResponse>"
)
Answer = Callable[[int], tuple[int, bytes]]
CHAINS = {  # the providers, and what the first of them says
    "failover": ("twilio,aws_sns", lambda number: (429, BUSY) if number % 2 else _taken(number)),
    "passed": ("twilio,aws_sns", lambda _: (401, WRONG)),
    "alone": ("aws_sns", lambda _: (401, WRONG)),
}


def _taken(number: int) -> tuple[int, bytes]:
    return 201, TAKEN % number


@dataclass(eq=False)
class Seen:
    """When each message came to a vendor, and when it was answered."""

    answer: Answer
    came: dict[int, float] = field(default_factory=dict)
    told: dict[int, float] = field(default_factory=dict)
    times: Counter[int] = field(default_factory=Counter)
    open: set[Vendor] = field(default_factory=set)

    async def hang_up(self) -> None:
        """Ends connections, before the loop ends that they belong to."""
        for vendor in list(self.open):
            vendor.transport.abort()
        for vendor in list(self.open):
            await vendor.gone.wait()


class Vendor(asyncio.Protocol):
    """A connection of a vendor that answers at once."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen
        self.rest = b""
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.seen.open.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self.seen.open.discard(self)
        self.gone.set()

    def data_received(self, data: bytes) -> None:
        self.rest += data
        head, mark, body = self.rest.partition(b"\r\n\r\n")
        length = int(found[1]) if (found := LENGTH.search(head)) else 0
        if not mark or len(body) < length:
            return
        self.rest = body[length:]
        now = time.perf_counter()
        named = NUMBER.search(body)
        number = int(named[1]) if named else 0
        status, said = self.seen.answer(number)
        lines = f"HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: {len(said)}"
        self.transport.write(lines.encode() + b"\r\n\r\n" + said)
        self.seen.came.setdefault(number, now)
        self.seen.times[number] += 1
        self.seen.told[number] = time.perf_counter()


def _turn(
    bench: Bench, name: str, server: Server, ports: tuple[int, int], seconds: float
) -> dict[str, float]:
    """Messages at a fixed rate, each noted by the vendors."""
    run, first = Run(), server.sent
    total, due = max(2, int(RATE * seconds)), dict[int, float]()
    one, two = Seen(CHAINS[name][1]), Seen(lambda number: (200, PUBLISHED % number))
    wanted = total // 2 if name == "failover" else total

    async def work() -> None:
        loop = asyncio.get_running_loop()
        served = [
            await loop.create_server(lambda seen=seen: Vendor(seen), "127.0.0.1", port)
            for seen, port in zip((one, two), ports, strict=True)
        ]
        pool = load.Pool(run, server.process.port, 202)
        await pool.open(8)
        sent = lambda number, when: due.__setitem__(first + number, when)  # noqa: E731
        await load.steady(pool, accepts(server, 0), rate=RATE, seconds=total / RATE, sent=sent)
        end = time.perf_counter() + GRACE
        while len(two.came) < wanted and time.perf_counter() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # the last answers are read
        for each in served:
            each.close()
        await one.hang_up()
        await two.hang_up()

    load.measured(run, work())
    server.count(run)
    since = {n: one.told[n] for n in two.came if n in one.told} if name == "failover" else due
    shift = 0 if name == "failover" else min(two.came, default=0) - first
    took = array("d", (two.came[n + shift] - since[n] for n in since if n + shift in two.came))
    found = Run(latencies=took)
    twice = sum(count - 1 for count in two.times.values())
    return {
        **{word: found.quantile(q) * 1000 for word, q in (("p50", 0.5), ("p99", 0.99))},
        "worst": found.quantile(1.0) * 1000,
        "failed": float(abs(wanted - len(took)) + twice + run.bad + run.lost),
    }


def measure_failover(bench: Bench) -> list[Figure]:
    """Each of the three with each database, in turns."""
    plan, servers = bench.plan, []
    with ExitStack() as stack:
        for store in plan.stores:
            for name, (chain, _) in CHAINS.items():
                ports = machine.free_port(), machine.free_port()
                urls = [f"http://127.0.0.1:{port}" for port in ports]
                options = ("--vendor", urls[0], "--second", urls[1], "--chain", chain)
                server = bench.server(Subject("gateway", store), *options)
                stack.callback(server.process.stop)
                servers.append((name, server, ports))
                _turn(bench, name, server, ports, 0.3)  # to warm up, and to open the breaker
        figures = [Figure(subject=Subject(name, each.subject.store)) for name, each, _ in servers]
        for _ in range(plan.fewer):
            for figure, given in zip(figures, servers, strict=True):
                figure.turns.append(_turn(bench, *given, plan.stream))
                if failed := figure.turns[-1]["failed"]:
                    figure.wrong.append(f"{failed:.0f} did not come exactly once")
    return figures
