"""`python -m tests.chaos [--seed N] [--messages M] [--processes P] [--jobs J]`: simulates M
messages, then sends P through real processes. `--universe SEED --each K` runs a universe again."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.chaos.many import EACH, Sum, plan, simulated
from tests.chaos.processes import chaos
from tests.chaos.storage import Violation
from tests.chaos.universe import Broken, Universe


def simulate(seed: int, messages: int, each: int, jobs: int) -> int:
    """Runs all universes and prints what came of them; 1 where a rule was broken."""
    print(f"seed {seed}: {messages:,} messages in universes of {each:,}, {jobs} jobs", flush=True)
    began, found, shown = time.monotonic(), Sum(), 0.0
    for figures in simulated(plan(seed, messages, each), jobs):
        if isinstance(figures, str):
            print(f"A rule was broken.\n{figures}\nAgain: python -m tests.chaos --universe "
                  f"{figures.split()[1].rstrip(',')} --each {each}")  # fmt: skip
            return 1
        found.add(figures)
        if time.monotonic() - shown > 15 and sys.stdout.isatty():
            shown = time.monotonic()
            print(f"{found.messages:,} messages …", flush=True)
    tell(found, time.monotonic() - began)
    return 0


def tell(found: Sum, seconds: float) -> None:
    """Prints the figures."""
    print(
        f"{found.messages:,} messages, {found.steps:,} steps, {found.commits:,} commits in "
        f"{found.universes:,} universes and {seconds:.0f} s: {found.steps / seconds:,.0f} steps/s, "
        f"{found.messages / seconds:,.0f} messages/s; {found.virtual / 3600:,.0f} h of their time"
    )
    for title, counts in (
        ("happened", found.events),
        ("database", found.faults),
        ("vendors", found.fates),
        ("ended", found.outcomes),
    ):
        said = ", ".join(f"{name} {count:,}" for name, count in counts.most_common())
        print(f"{title}: {said}")


def through_processes(seed: int, messages: int) -> int:
    """Half of them alone on SQLite, half with workers on PostgreSQL; 1 where a rule was broken."""
    from tests.databases import postgres_server

    folder = Path(tempfile.mkdtemp(prefix="chaos-"))  # stays where something is broken
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as name,
        postgres_server(Path(name)) as server,
    ):
        for title, part, url, workers in (
            ("SQLite, one process", messages // 2, f"sqlite:///{folder / 'gateway.db'}", 0),
            ("PostgreSQL, three processes", messages - messages // 2, server.migrated(), 2),
        ):
            began = time.monotonic()
            try:
                figures = chaos(seed, part, folder / str(workers), url, workers=workers)
            except (Violation, AssertionError) as error:
                print(f"A rule was broken, on {title}, seed {seed}: {error}\nThe logs: {folder}")
                return 1
            said = ", ".join(f"{name} {count:,}" for name, count in figures.most_common())
            print(f"{title}: {part:,} messages in {time.monotonic() - began:.0f} s: {said}")
    shutil.rmtree(folder)
    return 0


def main(arguments: Iterable[str] | None = None) -> int:
    """Does what is asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="from which all follows")
    parser.add_argument("--messages", type=int, default=1_000_000, help="simulated ones")
    parser.add_argument("--processes", type=int, default=10_000, help="through real processes")
    parser.add_argument("--each", type=int, default=EACH, help="messages of one universe")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--universe", type=int, help="runs one again, by its own seed")
    given = parser.parse_args(None if arguments is None else list(arguments))
    if given.universe is not None:
        try:
            figures = Universe(given.universe, given.each).run()
        except Broken as broken:
            print(broken)
            return 1
        print(figures)
        return 0
    seed = given.seed if given.seed is not None else random.SystemRandom().getrandbits(32)
    if given.messages and simulate(seed, given.messages, given.each, given.jobs):
        return 1
    return through_processes(seed, given.processes) if given.processes else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of words is by chance, too
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.chaos", *sys.argv[1:]])
    sys.exit(main())
