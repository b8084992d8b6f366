"""What is measured. Every server is measured in turns with the bare one (A B A B …), each figure
is a median of the turns, and each ratio is taken within a turn. A throughput counts only if the
database holds what was answered.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, Self

from bench import load, machine
from bench.load import Run
from bench.machine import Cores, Postgres, Process, query
from bench.requests import accept_template, signed
from bench.sns import Sns

WARM = 0.4  # seconds before the first turn
# With more clients than it has connections to its database the usual stack stands still for its
# pool's 30 s: requests that wait for a connection hold the threads that would give one back.
USUAL_MOST = 64
MINE = frozenset({"gateway", "least"})  # those that store and send as the gateway does
STORED = {
    "least": "SELECT count(*) FROM messages WHERE direction = '{}'",
    "gateway": "SELECT count(*) FROM messages WHERE direction = '{}'",
    "usual": "SELECT count(*) FROM message WHERE direction = '{}'",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 1.2
    clients: tuple[int, ...] = (64, 1, 16, 256)  # the first is the one that is judged
    messages: int = 4000  # end to end, in a turn
    crowd: int = 20_000  # before memory is looked at
    starts: int = 5
    rate: float = 500.0
    stream: float = 4.0  # seconds of a turn
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000)  # messages in the store
    followers: int = 1000  # of the feed, at once
    kinds: tuple[str, ...] = ("gateway", "usual")  # beside the bare one
    stores: tuple[str, ...] = ("sqlite", "postgres")
    disks: tuple[str, ...] = ("here", "slow")

    @property
    def fewer(self) -> int:
        """Turns of what is not judged."""
        return max(1, min(2, self.rounds))


QUICK = Plan(
    rounds=1,
    seconds=0.5,
    clients=(64,),
    messages=600,
    crowd=1000,
    starts=1,
    stream=2.0,
    sizes=(2_000, 20_000),
    followers=100,
    disks=("here",),
)
SMOKE = Plan(
    rounds=1,
    seconds=0.1,
    clients=(4,),
    messages=30,
    crowd=30,
    starts=1,
    rate=50.0,
    stream=0.4,
    sizes=(100, 200),
    followers=6,
    stores=("sqlite",),
    disks=("here",),
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A server that is compared: what it is, its database, and its disk."""

    kind: str  # bare, least, gateway, usual
    store: str = ""  # sqlite, postgres
    disk: str = "here"  # or slow


BARE = Subject("bare")
LEAST = Subject("least", "sqlite")


@dataclass(kw_only=True)
class Figure:
    """What the turns of one server found. `turns` holds one mapping for each."""

    subject: Subject
    clients: int = 0
    turns: list[dict[str, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # why it does not count

    def median(self, name: str) -> float:
        """The median of a value over the turns."""
        values = [turn[name] for turn in self.turns if name in turn]
        return statistics.median(values) if values else float("nan")

    def spread(self, name: str) -> tuple[float, float]:
        """The lowest and the highest value over the turns."""
        values = [turn[name] for turn in self.turns if name in turn] or [float("nan")]
        return min(values), max(values)

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class Bench:
    """One run: its folder, its cores, its databases, and the servers that it started."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.cores: Cores = machine.cores()
        self.slow = machine.slow_sync(folder)
        self._postgres: dict[str, Postgres] = {}
        self._sns: Sns | None = None
        self._stack = ExitStack()
        self._names = iter(range(10**6))
        self.busiest = 0.0  # the generator's largest share of its core

    def __enter__(self) -> Self:
        machine.pin(self.cores.rest)()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def postgres(self, disk: str) -> Postgres:
        """The PostgreSQL of a disk, started when it is first needed."""
        if disk not in self._postgres:
            folder = self.folder / f"postgres-{disk}"
            more = self.slow if disk == "slow" else {}
            made = self._postgres[disk] = Postgres(folder, more).start()
            self._stack.callback(made.stop)
        return self._postgres[disk]

    def sns(self) -> Sns:
        """A topic of Amazon SNS, made when it is first needed."""
        if self._sns is None:
            self._sns = Sns(self.folder / "sns", self.cores).start()
            self._stack.callback(self._sns.stop)
        return self._sns

    def server(self, subject: Subject, *more: str) -> Server:
        """Starts a server with an empty database."""
        data = self.folder / f"{subject.kind}-{next(self._names)}"
        data.mkdir()
        command = [sys.executable, "-m", "bench.servers", subject.kind, *more]
        database = str(data / ("usual.db" if subject.kind == "usual" else "gateway.db"))
        if subject.store == "postgres":
            database = self.postgres(subject.disk).database()
            command += ["--database", database]
        port = machine.free_port()
        process = Process(
            [*command, "--port", str(port), "--data", str(data)],
            port,
            self.cores.server,
            self.slow if subject.disk == "slow" else {},
            data / "log",
        ).start()
        return Server(subject, process, database)

    def vendor(self) -> tuple[Process, Path]:
        """A vendor that answers at once and notes each request in a file."""
        port, log = machine.free_port(), self.folder / f"vendor-{next(self._names)}.log"
        command = [sys.executable, "-m", "tests.vendors", "--port", str(port), "--file", str(log)]
        return Process(command, port, self.cores.rest, speaks=False).start(), log

    def run(self, server: Server, requests: load.Requests, **how: Any) -> Run:
        """One turn of a closed loop."""
        run = load.closed(server.process.port, requests, **how)
        self.busiest = max(self.busiest, run.cpu)
        return run


@dataclass(eq=False, slots=True)
class Server:
    """A server that runs, and the file or URL of its database."""

    subject: Subject
    process: Process
    database: str
    good: int = 0
    lost: int = 0
    sent: int = 0  # numbers of requests that were used up
    rate: float = 0.0  # of the last turn

    def count(self, run: Run) -> None:
        """Remembers what the database must hold, and which numbers are used up."""
        self.good += run.good
        self.lost += run.lost
        self.sent += run.good + run.bad + run.lost
        self.rate = run.rate

    def check(self, direction: str) -> list[str]:
        """Compares the answers with the database."""
        if self.subject.kind == "bare":
            return []
        stored = query(self.database, STORED[self.subject.kind].format(direction))
        if self.good <= stored <= self.good + self.lost:
            return []
        return [f"{self.good} were answered, {stored} are stored"]


def accepts(server: Server, _: float) -> load.Requests:
    """Messages to people whom nobody wrote to before."""
    return load.numbered(accept_template(), server.sent)


def webhooks(server: Server, seconds: float) -> load.Requests:
    """Enough signed webhooks for a turn, by what the server did so far."""
    if server.subject.kind == "bare":  # it looks at nothing
        return cycle(signed(0, 500))
    return iter(signed(server.sent, int(max(2000.0, server.rate * 1.5) * seconds) + 1000))


Make = Callable[[Server, float], load.Requests]


def subjects(plan: Plan) -> list[Subject]:
    """Everything that is compared with the bare server."""
    return [
        LEAST,
        *(
            Subject(kind, store, disk)
            for disk in plan.disks
            for kind in plan.kinds
            for store in plan.stores
        ),
    ]


def throughput(
    bench: Bench,
    chosen: Sequence[Subject],
    make: Make,
    direction: str,
    status: int,
    options: Sequence[str] = ("--idle",),
) -> list[Figure]:
    """Requests answered in a second by each, in turns, for each number of clients. `options` are
    the gateway's."""
    figures: list[Figure] = []
    with ExitStack() as stack:
        servers = []
        for subject in (BARE, *chosen):
            more = options if subject.kind in MINE else ()
            servers.append(bench.server(subject, *more))
            stack.callback(servers[-1].process.stop)
        turn = partial(one_turn, bench, make=make, status=status)
        for server in servers:
            turn(server, bench.plan.clients[0], WARM)
        for clients in bench.plan.clients:
            judged = clients == bench.plan.clients[0]
            rounds = bench.plan.rounds if judged else bench.plan.fewer
            seconds = bench.plan.seconds if judged else min(1.0, bench.plan.seconds)
            asked = [s for s in servers if s.subject.kind != "usual" or clients <= USUAL_MOST]
            found = in_turns(asked, partial(turn, clients=clients, seconds=seconds), rounds)
            figures += [replace(figure, clients=clients) for figure in found]
        for server in servers:
            wrong = server.check(direction)
            for figure in figures:
                figure.wrong += wrong if figure.subject == server.subject else []
    return figures


def one_turn(
    bench: Bench, server: Server, clients: int, seconds: float, *, make: Make, status: int
) -> dict[str, float]:
    requests = make(server, seconds)
    before = server.process.cpu()
    run = bench.run(server, requests, clients=clients, seconds=seconds, status=status)
    used = server.process.cpu() - before
    server.count(run)
    return {
        "rate": run.rate,
        "p50": run.quantile(0.5) * 1000,
        "p99": run.quantile(0.99) * 1000,
        "cpu": used / run.good * 1e6 if run.good else float("nan"),
        "good": float(run.good),
        "failed": float(run.bad + run.lost),
        "generator": run.cpu,
    }


def in_turns(
    servers: Sequence[Server], turn: Callable[[Server], dict[str, float]], rounds: int
) -> list[Figure]:
    """A turn for each server in each round, the bare one before and after the others."""
    figures = [Figure(subject=server.subject) for server in servers]
    bare = turn(servers[0])
    for _ in range(rounds):
        found = [turn(server) for server in servers[1:]]
        after = turn(servers[0])
        base = (bare["rate"] + after["rate"]) / 2
        for figure, values in zip(figures, [after, *found], strict=True):
            figure.turns.append({**values, "ratio": values["rate"] / base if base else 0.0})
            if values["failed"]:
                figure.wrong.append(f"{values['failed']:.0f} requests failed")
        bare = after
    return figures


def measure_accepts(bench: Bench) -> list[Figure]:
    """Durable accepts, the worker off."""
    return throughput(bench, subjects(bench.plan), accepts, "outbound", 202)


def measure_webhooks(bench: Bench) -> list[Figure]:
    """Signed webhooks, stored."""
    return received(bench, subjects(bench.plan), webhooks)


def received(
    bench: Bench, chosen: Sequence[Subject], make: Make, options: Sequence[str] = ("--idle",)
) -> list[Figure]:
    """Webhooks stored, with the number of clients that is judged."""
    judged = bench.plan.clients[:1]
    bench.plan, before = replace(bench.plan, clients=judged), bench.plan
    try:
        return throughput(bench, chosen, make, "inbound", 200, options)
    finally:
        bench.plan = before
