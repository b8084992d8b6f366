"""A gateway that is struck at one exact place: `python -m tests.crashing PLACE NTH SIGNAL serve`.

Our own functions are wrapped as the process starts, and send it the signal at the n-th arrival:
SIGKILL ends it as a power cut does, SIGSTOP makes it a slow one. Nothing else is changed, and the
product knows nothing of this.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import wraps
from itertools import count
from typing import Any

from tests.running import Process


class Place(StrEnum):
    """Where a gateway may be struck. What a transaction is named by is its operation."""

    BEFORE_T1 = "accept is written, before COMMIT"
    AFTER_T1 = "accept is committed, before the 202"
    BEFORE_CLAIM = "claim is written, before COMMIT"
    AFTER_CLAIM = "claim is committed, before T2"
    BEFORE_T2 = "begin is written, before COMMIT"
    AFTER_T2 = "begin is committed, before the request"
    REQUEST = "the vendor has the request"  # struck by the vendor, who alone knows
    ANSWERED = "the vendor's answer is read, before T3"
    BEFORE_T3 = "settle is written, before COMMIT"
    AFTER_T3 = "settle is committed, before the worker hears of it"
    BEFORE_RECEIVE = "receive is written, before COMMIT"
    AFTER_RECEIVE = "receive is committed, before the 2xx"
    SPOOLED = "the webhook is in the spool, before the 2xx"
    DRAINED = "what was spooled is committed, before it is dropped"


def struck(
    given: Process, place: Place, *, nth: int = 1, how: signal.Signals = signal.SIGKILL
) -> Process:
    """A process that will be struck, in place of one that would not."""
    given.program = ("-m", "tests.crashing", place.name, str(nth), how.name, *given.program[2:])
    return given


def arm(place: Place, arrive: Callable[[], None]) -> None:
    """Wraps whatever passes the place."""
    from gateway import spool
    from gateway.store import batcher
    from providers.twilio import Twilio

    if place is Place.ANSWERED:
        _after(Twilio, "send", arrive)
    elif place is Place.DRAINED:
        _before(spool.Spool, "forget", arrive)
    elif place is Place.SPOOLED:
        _written(spool.Files, arrive)
    else:
        operation, _, moment = place.partition(" is ")
        if moment.startswith("written"):
            _in_transaction(operation, arrive)
        else:
            _committed(batcher.Batcher, operation, arrive)


def _after(owner: Any, name: str, arrive: Callable[[], None]) -> None:
    real = getattr(owner, name)

    @wraps(real)
    async def wrapped(*values: Any, **named: Any) -> Any:
        result = await real(*values, **named)
        arrive()
        return result

    setattr(owner, name, wrapped)


def _before(owner: Any, name: str, arrive: Callable[[], None]) -> None:
    real = getattr(owner, name)

    @wraps(real)
    async def wrapped(*values: Any, **named: Any) -> Any:
        arrive()
        return await real(*values, **named)

    setattr(owner, name, wrapped)


def _written(files: Any, arrive: Callable[[], None]) -> None:
    real = files.append

    def append(self: Any, wanted: Sequence[bytes]) -> Any:
        done, error = real(self, wanted)
        if done:
            arrive()
        return done, error

    files.append = append


def _in_transaction(name: str, arrive: Callable[[], None]) -> None:
    from gateway.store import accepts, claims, deliveries, inbox

    known = (accepts.ACCEPT, claims.CLAIM, deliveries.BEGIN, deliveries.SETTLE, inbox.RECEIVE)
    operation = next(one for one in known if one.name == name)
    real = operation.run

    def run(tx: Any, items: Sequence[Any]) -> Any:
        results = real(tx, items)
        if name != "claim" or any(results):  # a claim that found nothing is none
            arrive()
        return results

    object.__setattr__(operation, "run", run)


def _committed(batcher: Any, name: str, arrive: Callable[[], None]) -> None:
    real = batcher._once

    def once(self: Any, operation: Any, items: Sequence[Any]) -> Any:
        results, topics = real(self, operation, items)
        if operation.name == name and (name != "claim" or any(results)):
            arrive()
        return results, topics

    batcher._once = once


def main() -> None:
    """Runs the command that is named behind the place, the number and the signal."""
    from gateway.cli import main as run

    place, nth, how = Place[sys.argv[1]], int(sys.argv[2]), signal.Signals[sys.argv[3]]
    arrivals = count(1)

    def arrive() -> None:
        if next(arrivals) == nth:
            os.kill(os.getpid(), how)

    arm(place, arrive)
    sys.argv[1:] = sys.argv[4:]
    run()


if __name__ == "__main__":
    main()
