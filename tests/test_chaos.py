"""The simulation of the engine, short: it runs, it replays, and notices what is broken on purpose.

`make chaos` runs the long one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway import routing, sending
from gateway.domain import OnUnknown
from gateway.errors import Throttled
from gateway.status import RANKS
from gateway.store import deliveries, ledger, opt_outs, usage
from gateway.store.ledger import Thread
from tests.chaos.many import plan
from tests.chaos.processes import chaos
from tests.chaos.universe import Broken, Figures, Universe
from tests.chaos.vendors import Fate, Request, Vendor
from tests.chaos.writing import Fault

ROOT = Path(__file__).parents[1]
SEED = 20261122
SEVERAL, EACH = 6, 300
PROCESSES = 100


@pytest.mark.parametrize(("seed", "messages"), plan(SEED, SEVERAL * EACH, EACH))
def test_nothing_is_lost_doubled_or_undone_in_a_universe_of_faults(
    seed: int, messages: int
) -> None:
    figures = Universe(seed, messages).run()
    assert sum(figures.outcomes.values()) > messages * 0.8
    assert figures.steps > messages * 10


def test_processes_that_are_killed_lose_nothing_and_double_nothing(
    sqlite_url: str, tmp_path: Path
) -> None:
    figures = chaos(SEED, PROCESSES, tmp_path / "fleet", sqlite_url, pause=0.3, most=2)
    assert figures["vendor: yes"] > PROCESSES / 2


def test_workers_that_are_killed_lose_nothing_and_double_nothing(
    postgres_url: str, tmp_path: Path
) -> None:
    figures = chaos(SEED, PROCESSES, tmp_path / "fleet", postgres_url, workers=1, pause=0.3, most=2)
    assert figures["vendor: yes"] > PROCESSES / 2


def test_one_seed_is_one_universe() -> None:
    def run(seed: int) -> Figures:
        return Universe(seed, 60).run()

    assert run(SEED) == run(SEED)
    assert run(SEED).trace != run(SEED + 1).trace


def test_another_process_replays_it() -> None:
    again = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--universe", str(SEED), "--each", "60"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=100,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert Universe(SEED, 60).run().trace in again.stdout


Make = Callable[[int, int], Universe]


def broken(seed: int, messages: int, make: Make = Universe) -> str | None:
    """What the rules say of a universe, if anything."""
    try:
        make(seed, messages).run()
    except Broken as said:
        return str(said)
    return None


def noticed(make: Make = Universe) -> tuple[int, int, str]:
    """The first universe in which a rule is broken, and what is said of it."""
    for seed, messages in plan(SEED, 40 * 100, 100):
        said = broken(seed, messages, make)
        if said is not None:
            return seed, messages, said
    raise AssertionError("nothing was noticed")


def found(make: Make = Universe) -> str:
    """What is said of it, which is the same when it is run again: the step, and the last lines."""
    seed, messages, said = noticed(make)
    assert said.startswith(f"seed {seed}, step ")
    assert broken(seed, messages, make) == said
    return said.splitlines()[0]


def stalling(seed: int, messages: int) -> Universe:
    """A universe of two processes that stall, again and again, for longer than their leases."""
    universe = Universe(seed, messages)
    universe.several, universe.weather.often = True, 0.15
    universe.weather.weights = {Fault.STALL: 1}
    return universe


def bounded(seed: int, messages: int) -> Universe:
    """A universe whose vendors have daily quotas that are too small, or just so."""
    universe = Universe(seed, messages)
    for place, vendor in enumerate(universe.vendors):
        universe.rules.daily[vendor.name] = messages // (5 if place % 2 == 0 else 2)
        vendor.bounded(universe.rules.daily[vendor.name])
    return universe


def test_quotas_are_kept_to_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, messages in plan(SEED, 200, 100):
        assert broken(seed, messages, bounded) is None
    monkeypatch.setattr(usage.Room, "take", lambda self, connection, provider, share: True)
    assert "of one's day" in found(bounded)


def lying(real: Callable[..., Any]) -> Callable[..., Any]:
    """A vendor that says no to what it took."""

    def answer(self: Vendor, request: Request) -> Any:
        if request.fate is Fate.LOST_TAKEN:
            return Throttled("busy", code="429")
        return real(self, request)

    return answer


def test_a_vendor_that_says_no_to_what_it_took_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vendor, "_answer", lying(Vendor._answer))
    assert "was taken, and came again" in found()


def test_processes_that_stall_beyond_their_leases_break_no_rule() -> None:
    for seed, messages in plan(SEED, 500, 100):
        assert broken(seed, messages, stalling) is None


def test_a_begin_without_its_fence_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = deliveries._begin

    def begin(tx: Any, thread: Thread | None, item: Any, *rest: Any) -> bool:
        entry = thread.entry if thread is not None else None
        if entry is None:
            return real(tx, thread, item, *rest)
        was = entry["lease_token"], entry["lease_until"]
        entry.update(lease_token=item.due.token, lease_until=tx.now + 1)
        begun = real(tx, thread, item, *rest)
        entry["lease_token"], entry["lease_until"] = was
        return begun

    monkeypatch.setattr(deliveries, "_begin", begin)
    assert "without a lease that holds" in found(stalling)


def test_an_opt_out_that_is_not_looked_at_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opt_outs, "blocked", lambda tx, people: {})
    assert "had opted out" in found()


def test_a_resend_against_its_policy_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = routing.after

    def after(error: Any, **known: Any) -> Any:
        return real(error, **{**known, "on_unknown": OnUnknown.RESEND})

    monkeypatch.setattr(sending.routing, "after", after)
    assert "an earlier one may have been taken" in found()


def test_evidence_that_goes_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "moves", lambda rank, new: RANKS[new] != rank)
    assert "Violation" in found()


def test_a_status_that_is_not_brought_up_to_date_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, count = Thread.note, [0]

    def note(self: Thread) -> None:
        count[0] += 1
        if count[0] % 50:
            real(self)

    monkeypatch.setattr(Thread, "note", note)
    assert "Violation" in noticed()[2]
