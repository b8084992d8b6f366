"""`python -m bench.soak [--rounds N] [--each N] [--store NAME]`: one process under load for long.

In each round as many messages go out as come in; what the process holds is looked at after it. It
writes docs/performance.md where nothing else was asked for. A process that holds more and more
never becomes level; what was sent and stored is counted at the end.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench import load, machine, report
from bench.measure import Bench, Figure, Plan, Server, Subject
from bench.paths import deliver, exactly_once
from bench.requests import signed

APART = 10_000_000  # numbers of those who write, from those who are written to


def soak(bench: Bench, store: str, rounds: int, each: int) -> Figure:
    """So many rounds of so many messages in either direction."""
    vendor, log = bench.vendor()
    subject = Subject("gateway", store)
    figure = Figure(subject=subject, clients=bench.plan.clients[0])
    server = bench.server(subject, "--vendor", f"http://127.0.0.1:{vendor.port}")
    heard = Server(subject, server.process, server.database)
    try:
        for _ in range(rounds):
            sent = deliver(bench, server, each)
            run = _hear(bench, heard, each)
            values = {"messages": float(server.sent + heard.sent), **server.process.holds()}
            figure.turns.append({"rate": sent["rate"], "heard": run.rate, **values})
            if failed := sent["failed"] + run.bad + run.lost:
                figure.wrong.append(f"{failed:.0f} requests failed")
            print(report.soak([figure]).splitlines()[-1], flush=True)
        figure.wrong += server.check("outbound") + heard.check("inbound")
        figure.wrong += exactly_once(log, server)
    finally:
        server.process.stop()
        vendor.stop()
    return figure


def _hear(bench: Bench, heard: Server, each: int) -> load.Run:
    first = APART + heard.sent
    run = bench.run(
        heard,
        iter(signed(first, each)),
        clients=bench.plan.clients[0],
        seconds=120.0,
        most=each,
        status=200,
    )
    heard.count(run)
    return run


def main() -> None:
    """Does what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--each", type=int, default=10_000)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    folder = Path(tempfile.mkdtemp(prefix="gateway-soak-"))
    try:
        with Bench(folder, replace(Plan(), stores=(given.store,))) as bench:
            figure = soak(bench, given.store, given.rounds or 20, given.each)
    finally:
        machine.remove(folder)
    print(f"\n{report.soak([figure])}")
    if given.rounds is None and given.store == "sqlite":
        report.write({"soak": [figure]}, {})


if __name__ == "__main__":
    main()
