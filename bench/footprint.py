"""What a process costs before it does anything: how long it takes to start, what it holds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import machine
from bench.machine import Process, query
from bench.measure import Bench, Figure, Server, Subject, accepts
from bench.requests import accept_template
from bench.servers import variables


def _product(bench: Bench, data: Path, vendor: str) -> Process:
    """`gateway serve`, as an operator starts it, with SQLite."""
    port = machine.free_port()
    chosen = variables(data, None, vendor)
    return Process(
        [str(Path(sys.executable).with_name("gateway")), "serve", "--port", str(port)],
        port,
        bench.cores.server,
        {**chosen, "HOST": "127.0.0.1"},
        data / "log",
        data,
    )


def _start(bench: Bench, make: Callable[[], Process], accepting: bool) -> dict[str, float]:
    """Starts a server, and asks until it accepts a message."""
    process = make().start()
    found = {"healthy": process.healthy_after * 1000}
    request = accept_template() % (2_000_000_000 + time.time_ns() % 10_000_000)
    while accepting and machine.ask(process.port, request) != 202:
        if time.perf_counter() - process.began > machine.START_WITHIN:
            process.stop()
            raise RuntimeError("no message was accepted")
    found["accepted"] = (time.perf_counter() - process.began) * 1000
    process.stop()
    return found


def _bare(bench: Bench, kind: str, data: Path) -> Process:
    port = machine.free_port()
    command = [sys.executable, "-m", "bench.servers", kind, "--port", str(port)]
    return Process([*command, "--data", str(data)], port, bench.cores.server, {}, data / "log")


def measure_start(bench: Bench) -> list[Figure]:
    """From the start of a process to its first answers: `gateway serve` with an empty folder and
    with one that is in use, beside the others."""
    vendor, _ = bench.vendor()
    figures = {n: Figure(subject=Subject(n, "sqlite")) for n in ("bare", "usual", "new", "gateway")}
    try:
        for turn in range(bench.plan.starts):
            data = bench.folder / f"start-{turn}"
            data.mkdir()
            make = partial(_product, bench, data, f"http://127.0.0.1:{vendor.port}")
            figures["new"].turns.append(_start(bench, make, True))
            figures["gateway"].turns.append(_start(bench, make, True))
            for kind in ("bare", "usual"):
                figures[kind].turns.append(_start(bench, partial(_bare, bench, kind, data), True))
    finally:
        vendor.stop()
    return list(figures.values())


def measure_memory(bench: Bench) -> list[Figure]:
    """What a process holds when it is idle, and after messages were accepted and sent."""
    vendor, _ = bench.vendor()
    figures = []
    try:
        for kind in ("bare", "usual", "gateway"):
            data = bench.folder / f"memory-{kind}"
            data.mkdir()
            process = (
                _product(bench, data, f"http://127.0.0.1:{vendor.port}")
                if kind == "gateway"
                else _bare(bench, kind, data)
            ).start()
            figures.append(Figure(subject=Subject(kind, "sqlite")))
            figures[-1].turns.append(_fill(bench, Server(Subject(kind), process, ""), data))
            process.stop()
    finally:
        vendor.stop()
    return figures


def _fill(bench: Bench, server: Server, data: Path) -> dict[str, float]:
    time.sleep(1.0)
    idle = server.process.memory()
    clients = bench.plan.clients[0]
    longest = 120.0 if server.subject.kind == "gateway" else 10.0
    run = bench.run(
        server, accepts(server, 0), clients=clients, seconds=longest, most=bench.plan.crowd
    )
    deadline = time.monotonic() + 60
    while server.subject.kind == "gateway" and time.monotonic() < deadline:
        if not query(str(data / "gateway.db"), "SELECT count(*) FROM queue"):
            break
        time.sleep(0.1)
    time.sleep(0.5)
    return {"idle": idle, "after": server.process.memory(), "messages": float(run.good)}
