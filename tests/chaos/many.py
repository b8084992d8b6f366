"""Many universes on several cores: their seeds follow from one, their figures are added up."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from tests.chaos.universe import Broken, Figures, Universe

EACH = 1000  # messages of one universe


@dataclass
class Sum:
    """The figures of many universes."""

    universes: int = 0
    messages: int = 0
    steps: int = 0
    commits: int = 0
    virtual: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, one: Figures) -> None:
        """Adds those of one universe."""
        self.universes += 1
        self.messages += sum(one.outcomes.values())
        self.steps += one.steps
        self.commits += one.commits
        self.virtual += one.virtual
        for name in ("events", "faults", "fates", "outcomes"):
            getattr(self, name).update(getattr(one, name))


def seeds(seed: int) -> Iterator[int]:
    """The seeds of the universes that follow from one."""
    luck = random.Random(seed)
    while True:
        yield luck.getrandbits(48)


def plan(seed: int, messages: int, each: int) -> list[tuple[int, int]]:
    """Every universe: its seed and how many messages it has."""
    sizes = [each] * (messages // each) + ([messages % each] if messages % each else [])
    return list(zip(seeds(seed), sizes, strict=False))


def one(seed: int, messages: int) -> Figures | str:
    """Runs one universe in a process of the pool."""
    gc.disable()  # a universe is small, and all of it goes at its end
    try:
        return Universe(seed, messages).run()
    except Broken as broken:
        return str(broken)
    finally:
        gc.enable()
        gc.collect()


def end_with_parent() -> None:
    """Nobody is left at work when the run is killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def simulated(universes: list[tuple[int, int]], jobs: int) -> Iterator[Figures | str]:
    """Runs them, on so many cores."""
    if jobs <= 1:
        yield from (one(*each) for each in universes)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=end_with_parent) as pool:
        waiting = [pool.submit(one, *each) for each in universes]
        try:
            yield from (done.result() for done in as_completed(waiting))
        finally:
            pool.shutdown(cancel_futures=True)
