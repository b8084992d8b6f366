"""Time, ids, and time as it is stored (milliseconds) and shown (RFC 3339 UTC)."""

from __future__ import annotations

import os
import threading
import time
from datetime import UTC, datetime
from functools import lru_cache


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


_last = 0
_lock = threading.Lock()


_pool, _at = b"", 0


def _noise() -> int:
    """80 random bits, from a pool: asking the system each time hands the interpreter over."""
    global _at, _pool
    if _at == len(_pool):
        _at, _pool = 0, os.urandom(10 * 1024)
    _at += 10
    return int.from_bytes(_pool[_at - 10 : _at], "big")


def _forget_noise() -> None:
    global _at, _pool
    _at, _pool = 0, b""


os.register_at_fork(after_in_child=_forget_noise)  # or two processes would make the same ids


def new_id(prefix: str) -> str:
    """A sortable id: 48 bits of time in milliseconds, then 80 random bits, in hexadecimal. Those
    that one process makes never go back, so what came first sorts first."""
    global _last
    with _lock:
        noise = _noise()
        value = (time.time_ns() // 1_000_000 << 80) | noise
        if value <= _last:
            value = _last + 1 + (noise & 0xFFFFFFFF)
        _last = value
    return f"{prefix}_{value:032x}"


def first_id(prefix: str, ms: int) -> str:
    """An id that sorts before all that are made from this moment on."""
    return f"{prefix}_{ms << 80:032x}"


def to_ms(when: datetime) -> int:
    """A moment as it is stored."""
    return int(when.timestamp() * 1000)


@lru_cache(maxsize=4096)
def show(ms: int | None) -> str | None:
    """A stored moment as it is shown."""
    if ms is None:
        return None
    whole, rest = divmod(ms, 1000)
    y, mo, d, h, mi, s = time.gmtime(whole)[:6]
    return f"{y:04d}-{mo:02d}-{d:02d}T{h:02d}:{mi:02d}:{s:02d}.{rest:03d}Z"
