"""Signed webhooks of Amazon SNS: how many are stored, and how long one takes whose certificate
must be fetched first. A cold figure counts only if each certificate was fetched exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

from bench import load
from bench.load import Run
from bench.measure import LEAST, WARM, Bench, Figure, Make, Server, Subject, received
from bench.sns import Sns

LIKELY = 2500.0  # webhooks a second, before it is known
PROBES = 8  # with the first one less than the gateway fetches within a minute


def notifications(sns: Sns) -> Make:
    """Enough for a turn, by what the server did so far."""

    def make(server: Server, seconds: float) -> load.Requests:
        if server.subject.kind == "bare":  # it looks at nothing
            return cycle(sns.requests(0, [sns.url] * 500))
        enough = int(max(LIKELY, server.rate * 1.5) * seconds) + 500
        return iter(sns.requests(server.sent, [sns.url] * enough))

    return make


def chosen(bench: Bench) -> list[Subject]:
    """The gateway on each database and disk."""
    plan = bench.plan
    return [Subject("gateway", store, disk) for disk in plan.disks for store in plan.stores]


def measure_sns(bench: Bench) -> list[Figure]:
    """Signed webhooks, stored; the certificate is at hand."""
    sns, plan = bench.sns(), bench.plan
    sns.sign(int(LIKELY * (WARM + plan.rounds * plan.seconds)))
    options = ("--idle", "--sns", sns.origin, "--certificates", str(sns.folder))
    return received(bench, [LEAST, *chosen(bench)], notifications(sns), options)


def measure_certificates(bench: Bench) -> list[Figure]:
    """One client: the first webhook of a process, then the same certificate, then new ones."""
    figures = [Figure(subject=subject, clients=1) for subject in chosen(bench)]
    for _ in range(bench.plan.fewer):
        for figure in figures:
            with serving(bench, figure) as server:
                figure.turns.append(_cold_and_warm(bench, server))
            if failed := figure.turns[-1]["failed"]:
                figure.wrong.append(f"{failed:.0f} requests failed")
    return figures


@contextmanager
def serving(bench: Bench, figure: Figure) -> Iterator[Server]:
    """A new process; in the end, whether it has stored and fetched what it should."""
    sns = bench.sns()
    before = len(sns.visits())
    server = bench.server(figure.subject, "--idle", "--sns", sns.origin)
    try:
        yield server
        figure.wrong += server.check("inbound")
    finally:
        server.process.stop()
    visits = sns.visits()[before:]
    if len(visits) != 1 + PROBES or len(set(visits)) != len(visits):
        figure.wrong.append(f"{len(visits)} certificates were fetched, not {1 + PROBES}")


def _cold_and_warm(bench: Bench, server: Server) -> dict[str, float]:
    sns = bench.sns()

    def ask(*urls: str) -> Run:
        """One after the other, on one connection."""
        requests = iter(sns.requests(server.sent, urls))
        run = bench.run(server, requests, clients=1, seconds=load.GRACE, status=200)
        server.count(run)
        return run

    url = sns.fresh_url()
    first = ask(url)
    warm = ask(*[url] * max(20, int(200 * bench.plan.seconds)))
    cold = ask(*(sns.fresh_url() for _ in range(PROBES)))
    return {
        "first": first.quantile(0.5) * 1000,
        "warm": warm.quantile(0.5) * 1000,
        "warm_p99": warm.quantile(0.99) * 1000,
        "cold": cold.quantile(0.5) * 1000,
        "cold_worst": cold.quantile(1.0) * 1000,
        "failed": float(sum(run.bad + run.lost for run in (first, warm, cold))),
    }
