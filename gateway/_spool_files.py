"""Every segment of the spool that this process owns, as one line from the oldest to the newest.

Blocking; used by one thread. It decides when a file begins and when it may go, and never when a
webhook may.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway._spool_frames import START, Damage, head
from gateway._spool_segments import (
    DRAFT,
    Segment,
    Slot,
    abandoned,
    create,
    free,
    oldest,
    recover,
    sync_folder,
)
from gateway.domain import Verified

log = logging.getLogger("gateway.spool")

READ_BYTES = 1 << 20  # of payloads that are read at once; one more may go over it


@dataclass(frozen=True, slots=True)
class State:
    """What waits: how many frames, how many bytes, and since when (microseconds since 1970)."""

    frames: int
    size: int
    oldest: int | None


@dataclass(frozen=True, slots=True)
class Recovered:
    """What earlier processes left: tails that were cut off, and pieces that cannot be read."""

    torn: int
    damaged: int


class Files:
    """The line of segments. `size` is that of a new one."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self._slot: Slot | None = None
        self._adopted: list[Slot] = []
        self._old: deque[Segment] = deque()
        self._active: Segment | None = None
        self._spare: Segment | None = None
        self._number = 0

    def open(self) -> Recovered:
        """Takes a slot of its own, and those that nobody has any more.

        Raises:
            OSError: the folder cannot be used.
        """
        slot = free(self._folder)
        try:
            sync_folder(self._folder)  # the slot's own name
            self._number = max(slot.numbers(), default=0)
            self._adopted = list(abandoned(self._folder))
            for draft in slot.path.glob(f"*{DRAFT}"):
                draft.unlink(missing_ok=True)
        except BaseException:
            slot.release()
            raise
        self._slot = slot
        damages = [d for owned in (*self._adopted, slot) for d in self._recover(owned)]
        torn = sum(damage.torn for damage in damages)
        return Recovered(torn, len(damages) - torn)

    def _recover(self, slot: Slot) -> Iterator[Damage]:
        for path in slot.segments():
            segment, found = recover(path)
            yield from found.damages
            if segment is not None:
                self._old.append(segment)

    @property
    def state(self) -> State:
        """What waits."""
        line = list(self._line())
        return State(
            sum(len(segment.offsets) for segment in line),
            sum(segment.waiting for segment in line),
            next((_received(segment) for segment in line if segment.offsets), None),
        )

    def _line(self) -> Iterator[Segment]:
        yield from self._old
        if self._active is not None:
            yield self._active

    def prepare(self) -> None:
        """Sees to it that the next frames have room on the disk.

        Raises:
            OSError: they have none.
        """
        if self._active is None:
            self._active = self._create(self._size)
        if self._spare is None and self._active.end > self._active.size // 2:
            self._spare = self._create(self._size)

    def _create(self, size: int) -> Segment:
        if self._slot is None:
            raise OSError("its folder is not open")
        self._number += 1
        return create(self._slot.path, self._number, size)

    def append(self, wanted: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Writes frames, with one wait for the disk a file. How many are durable, and why the
        others are not."""
        done = 0
        try:
            while done < len(wanted):
                segment = self._with_room(len(wanted[done]))
                group, size = [wanted[done]], len(wanted[done])
                for one in wanted[done + 1 :]:
                    if not segment.fits(size + len(one)):
                        break
                    group.append(one)
                    size += len(one)
                self._write(segment, group)
                done += len(group)
        except OSError as error:
            return done, error
        return done, None

    def _write(self, segment: Segment, group: Sequence[bytes]) -> None:
        try:
            segment.write(group)
        except OSError:
            self._seal()  # behind its end nobody knows what stands there
            raise

    def _with_room(self, size: int) -> Segment:
        if self._active is not None and self._active.fits(size):
            return self._active
        fresh, self._spare = self._spare, None
        if fresh is not None and not fresh.fits(size):
            fresh.retire()
            fresh = None
        if fresh is None:
            fresh = self._create(max(self._size, START.size + size))
        self._seal()
        self._active = fresh
        return fresh

    def _seal(self) -> None:
        sealed, self._active = self._active, None
        if sealed is None:
            return
        if sealed.offsets:
            self._old.append(sealed)
        else:
            sealed.retire()

    def oldest(self, most: int) -> list[Verified | None]:
        """The oldest webhooks; None where one cannot be read any more."""
        return oldest(self._line(), most, READ_BYTES)

    def keep(self, position: int) -> None:
        """Keeps the file of one of the oldest webhooks in the end: it cannot be stored."""
        for segment in self._line():
            if position < len(segment.offsets):
                segment.damaged = True
                log.error("the file is kept: %s", segment.path.with_suffix(".bad"))
                return
            position -= len(segment.offsets)

    def forget(self, count: int) -> None:
        """Drops the oldest webhooks, which are stored, and the files that held no other."""
        for segment in self._line():
            for _ in range(min(count, len(segment.offsets))):
                segment.offsets.popleft()
                count -= 1
        while self._old and not self._old[0].offsets:
            self._old.popleft().retire()
        if self._old:
            return
        while self._adopted:
            self._adopted.pop().release()
        self._renew()

    def _renew(self) -> None:
        """Begins a new file once the newest is stored whole. The room is taken before the old
        one gives its own back."""
        if self._active is None or not self._active.used or self._active.offsets:
            return
        try:
            fresh = self._spare or self._create(self._size)
        except OSError as error:
            log.warning("the spool goes on in its old file: %s", error.strerror)
            return
        self._spare = None
        self._active.retire()
        self._active = fresh

    def close(self) -> None:
        """Ends the use of every file; those that hold nothing go."""
        for segment in (*self._old, self._active, self._spare):
            if segment is not None:
                segment.end_use()
        self._old.clear()
        self._active = self._spare = None
        for slot in (*self._adopted, self._slot):
            if slot is not None:
                slot.release()
        self._adopted, self._slot = [], None


def _received(segment: Segment) -> int | None:
    try:
        known = head(segment.read_head(segment.offsets[0]))
    except OSError:
        return None
    return known.received if known else None
