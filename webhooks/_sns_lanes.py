"""How many certificates may be fetched, when somebody makes up their names: three lanes a host.

A name never seen, a name that came again after a while, and a name that could not be had before
each have fetches of their own. Whoever floods us with new names fills the first lane only. A
genuine name that found it full is repeated by SNS after 20 s, three times, and with every later
message: then it is in the second lane, where that flood is not. If its fetch fails there, the next
is in the third. So under a steady flood of new names a genuine envelope gets through with its
first repetition, and with the second where a fetch of it failed. At most `NEW + AGAIN + FAILED`
fetches a minute leave for one host, and there is a host per region of an allow-listed topic.

A forger who repeats each of his made-up names as patiently can fill the second lane, too. Then a
message may be lost while no certificate is known; one that is known needs no fetch.
"""

from __future__ import annotations

from collections import OrderedDict, deque

A_MINUTE = 60.0
NEW, AGAIN, FAILED = 20, 30, 10  # fetches a minute
SPACED = 10.0  # seconds; SNS, "Message delivery retries": by default it repeats after 20
SEEN = 32_768  # names: those of 20 s at 1,600 a second


class Lane:
    """Fetches of one sort, at most so many a minute."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun: deque[float] = deque(maxlen=most)

    def enter(self, now: float) -> bool:
        """Counts a fetch; false where there are too many."""
        if len(self._begun) == self._most and now - self._begun[0] < A_MINUTE:
            return False
        self._begun.append(now)
        return True


class Lanes:
    """The lanes of every host, and when each name was first seen."""

    def __init__(self) -> None:
        self._hosts: dict[str, tuple[Lane, Lane, Lane]] = {}
        self._seen: OrderedDict[int, float] = OrderedDict()

    def enter(self, url: str, now: float, failed: bool) -> bool:
        """Whether a certificate may be fetched now. `failed`: its last fetch brought nothing."""
        host = "/".join(url.split("/", 3)[:3])
        lanes = self._hosts.get(host)
        if lanes is None:
            lanes = self._hosts[host] = Lane(NEW), Lane(AGAIN), Lane(FAILED)
        new, again, before = lanes
        first = self._first(url, now)
        if failed:
            return before.enter(now)
        return (now - first >= SPACED and again.enter(now)) or new.enter(now)

    def _first(self, url: str, now: float) -> float:
        first = self._seen.setdefault(hash(url), now)  # the hash is salted: nobody makes two alike
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        return first
