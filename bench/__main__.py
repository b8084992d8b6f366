"""`python -m bench [--quick] [--only NAME] [--rounds N]`: measures, prints, and writes
docs/performance.md. A quick run only prints: it is too short to be believed.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from bench import machine, report
from bench.certificates import measure_certificates, measure_sns
from bench.failover import measure_failover
from bench.followers import measure_followers
from bench.footprint import measure_memory, measure_start
from bench.growth import measure_growth
from bench.measure import QUICK, Bench, Figure, Plan, measure_accepts, measure_webhooks
from bench.paths import measure_end_to_end, measure_stream

OUT = Path(__file__).parent / "out"
MEASUREMENTS: Mapping[str, Callable[[Bench], list[Figure]]] = {
    "accepts": measure_accepts,
    "webhooks": measure_webhooks,
    "sns": measure_sns,
    "sns-certificates": measure_certificates,
    "stream": measure_stream,
    "followers": measure_followers,
    "end-to-end": measure_end_to_end,
    "failover": measure_failover,
    "store": measure_growth,
    "start": measure_start,
    "memory": measure_memory,
}


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute; writes nothing")
    parser.add_argument(
        "--only", choices=MEASUREMENTS, metavar="NAME", help=", ".join(MEASUREMENTS)
    )
    parser.add_argument("--rounds", type=int, help="turns of what is judged")
    return parser.parse_args()


def main() -> None:
    """Measures what was asked for."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end too
    plan = QUICK if given.quick else Plan()
    if given.rounds:
        plan = replace(plan, rounds=max(1, given.rounds))
    folder = Path(tempfile.mkdtemp(prefix="gateway-bench-"))
    try:
        found, facts = measured(folder, plan, given.only)
    finally:
        machine.remove(folder)
    OUT.mkdir(exist_ok=True)
    plain = {name: [figure.plain() for figure in figures] for name, figures in found.items()}
    kept = OUT / "last.json"
    kept.write_text(json.dumps({"machine": facts, "figures": plain}, indent=1))
    if not given.quick:
        report.write(found, facts)


def measured(
    folder: Path, plan: Plan, only: str | None
) -> tuple[dict[str, list[Figure]], dict[str, object]]:
    """Runs the measurements, and prints each as it is done."""
    began = time.monotonic()
    found: dict[str, list[Figure]] = {}
    with Bench(folder, plan) as bench:
        facts = machine.describe(folder, bench.cores, bench.slow)
        print(report.environment(facts), flush=True)
        for name, measure in MEASUREMENTS.items():
            if only in (None, name):
                found[name] = measure(bench)
                print(f"\n{name}\n{report.table(name, found[name])}", flush=True)
        facts |= {"generator": bench.busiest, "rounds": plan.rounds, "seconds": plan.seconds}
    facts |= {"took": time.monotonic() - began, "day": time.strftime("%Y-%m-%d")}
    print(f"\n{report.closing(facts)}")
    return found, facts


if __name__ == "__main__":
    main()
