"""Where chance and the time of day come from, in a universe: everything follows from its seed."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from gateway import clock as ids
from tests.chaos.loop import Loop
from tests.chaos.storage import EPOCH


class _Time:
    """The module `time`, as the product's ids see it."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.gmtime = time.gmtime
        self.monotonic = loop.time

    def time_ns(self) -> int:
        """Virtual time of day."""
        return EPOCH * 1_000_000 + int(self._loop.time() * 1e9)


@contextmanager
def from_seed(seed: int, loop: Loop, logged: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Gives everything that chance or the time decides to a seed: ids, jitter, the time in ids."""
    luck, source = random.Random(seed + 3), cast("Any", ids)
    before = source._noise, source.time, source._last
    source._noise, source.time, source._last = lambda: luck.getrandbits(80), _Time(loop), 0
    state = random.getstate()
    random.seed(seed)
    log = logging.getLogger("gateway")
    handler: Any = logging.Handler(logging.ERROR)
    handler.emit = logged
    level, propagates = log.level, log.propagate
    log.setLevel(logging.ERROR)
    log.propagate = False
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagates
        random.setstate(state)
        source._noise, source.time, source._last = before
