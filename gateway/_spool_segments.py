"""The spool's files: numbered segments in a folder that one process owns.

A segment is preallocated, so that a full disk is met before it matters, and 0600. What cannot be
read is never deleted: its file is kept under another name. Blocking; used by one thread.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path

from gateway import _spool_frames as frames
from gateway.domain import Verified

log = logging.getLogger("gateway.spool")

SEGMENT, DRAFT, BAD = ".seg", ".new", ".bad"
LOCK = "lock"


class Segment:
    """One file. `offsets` are its frames that are still to be stored, oldest first; `end` is
    behind the last one that is durable."""

    __slots__ = ("damaged", "end", "handle", "offsets", "path", "size")

    def __init__(self, path: Path, handle: int, size: int, end: int) -> None:
        self.path = path
        self.handle = handle
        self.size = size
        self.end = end
        self.offsets: deque[int] = deque()
        self.damaged = False

    @property
    def waiting(self) -> int:
        """How many bytes are still to be stored."""
        return self.end - self.offsets[0] if self.offsets else 0

    @property
    def used(self) -> bool:
        """Whether anything was ever written behind its start."""
        return self.end > frames.START.size

    def fits(self, size: int) -> bool:
        """Whether so many bytes have room."""
        return self.end + size <= self.size

    def write(self, wanted: Sequence[bytes]) -> None:
        """Writes frames and waits until the disk has them.

        Raises:
            OSError: it has none of them, as far as anybody may believe.
        """
        data, at = memoryview(b"".join(wanted)), self.end
        while data:
            written = os.pwrite(self.handle, data, at)
            data, at = data[written:], at + written
        sync(self.handle)
        for one in wanted:
            self.offsets.append(self.end)
            self.end += len(one)

    def read_head(self, offset: int) -> bytes:
        """A frame's head, as it stands there."""
        return os.pread(self.handle, frames.HEAD.size, offset)

    def read(self, offset: int) -> tuple[frames.Head | None, bytes]:
        """A frame's head and payload, as they stand there."""
        known = frames.head(self.read_head(offset))
        payload = os.pread(self.handle, known.length, offset + frames.HEAD.size) if known else b""
        return known, payload

    def end_use(self) -> None:
        """Closes it: it stays if it holds something, for the next process."""
        if self.offsets:
            os.close(self.handle)
        else:
            self.retire()

    def retire(self) -> None:
        """Ends it: deleted, or kept under another name if it holds what could not be read."""
        os.close(self.handle)
        try:
            if self.damaged:
                self.path.rename(self.path.with_suffix(BAD))
            else:
                self.path.unlink()
        except OSError as error:  # read again at the next start, which changes nothing
            log.error("the spool's file %s cannot be removed: %s", self.path, error.strerror)


def create(folder: Path, number: int, size: int) -> Segment:
    """A new segment with its room on the disk, named only when it is whole.

    Raises:
        OSError: there is no room, or no permission.
    """
    path = folder / f"{number:010d}{SEGMENT}"
    draft = path.with_suffix(DRAFT)
    handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        allocate(handle, size)
        os.pwrite(handle, frames.start(), 0)
        os.fsync(handle)
        draft.rename(path)
        sync_folder(folder)
    except BaseException:
        os.close(handle)
        for left in (draft, path):
            left.unlink(missing_ok=True)
        raise
    return Segment(path, handle, size, frames.START.size)


def allocate(handle: int, size: int) -> None:
    """Takes the room for a file, filled with zeros."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    for at in range(0, size, 1 << 20):  # a system that cannot be asked for room: use it
        os.pwrite(handle, bytes(min(1 << 20, size - at)), at)


def sync(handle: int) -> None:
    """Waits until the disk has a file's bytes. Its size never changes, nor does its name."""
    getattr(os, "fdatasync", os.fsync)(handle)


def sync_folder(folder: Path) -> None:
    """Waits until the disk has a folder's names."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Slot:
    """A folder of segments, and the lock that says whose it is. The system frees it when the
    process ends, however it ends."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle

    def numbers(self) -> list[int]:
        """The numbers of its files, whatever became of them."""
        names = (p.stem for p in self.path.iterdir() if p.suffix in (SEGMENT, DRAFT, BAD))
        return [int(name) for name in names if name.isdecimal()]

    def segments(self) -> Iterator[Path]:
        """Its segments in the order in which they were written."""
        yield from sorted(self.path.glob(f"*{SEGMENT}"))

    def release(self) -> None:
        """Gives it up; the folder and its lock stay."""
        os.close(self._handle)


def locked(path: Path) -> Slot | None:
    """A slot, if no other process has it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return Slot(path, handle)


def free(folder: Path) -> Slot:
    """The first slot that no other process has."""
    return next(slot for number in count(1) if (slot := locked(folder / str(number))))


def abandoned(folder: Path) -> Iterator[Slot]:
    """The slots of processes that are gone and left something."""
    for path in sorted(p for p in folder.iterdir() if p.name.isdecimal()):
        try:
            slot = locked(path) if any(path.glob(f"*{SEGMENT}")) else None
        except OSError as error:
            log.error("what is left in %s cannot be taken over: %s", path, error.strerror)
            continue
        if slot is not None:
            yield slot


def recover(path: Path) -> tuple[Segment | None, frames.Found]:
    """A segment of an earlier process with its whole frames; None if there is nothing to store.

    A torn tail is cut off. What else cannot be read stays in the file, which is kept in the end.
    """
    nothing = frames.Found([], 0, [])
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError as error:
        log.error("the spool's file %s cannot be opened: %s", path, error.strerror)
        return None, nothing
    made = Segment(path, handle, 0, 0)
    try:
        data = _everything(handle)
    except OSError as error:
        log.error("the spool's file %s cannot be read: %s", path, error.strerror)
        _set_aside(made)
        return None, nothing
    if frames.version(data) != frames.VERSION:
        _foreign(made, data)
        return None, nothing
    found = frames.found(data)
    made.size, made.end = len(data), found.end
    made.offsets.extend(found.offsets)
    for damage in found.damages:
        _tell(made, damage)
    if not made.offsets:
        made.retire()
        return None, found
    return made, found


def _everything(handle: int) -> bytes:
    chunks: list[bytes] = []
    at = 0
    while chunk := os.pread(handle, 1 << 24, at):
        chunks.append(chunk)
        at += len(chunk)
    return b"".join(chunks)


def _set_aside(segment: Segment) -> None:
    segment.damaged = True
    log.error("the spool's file is kept as %s", segment.path.with_suffix(BAD))
    segment.retire()


def _foreign(segment: Segment, data: bytes) -> None:
    """A file of another version stays as it is, for that version; one without a start is kept
    aside, unless nothing was written."""
    version = frames.version(data)
    if version is not None:
        os.close(segment.handle)
        log.error("the spool's file %s is of version %d: left alone", segment.path, version)
    elif any(data):
        log.error("the spool's file %s does not begin as one", segment.path)
        _set_aside(segment)
    else:
        segment.retire()


def _tell(segment: Segment, damage: frames.Damage) -> None:
    size = damage.end - damage.start
    if damage.torn:
        log.warning(
            "the spool's file %s has a torn tail at byte %d: %d bytes were cut off; nobody was "
            "told that they are kept", segment.path, damage.start, size,
        )  # fmt: skip
        return
    segment.damaged = True
    log.error(
        "the spool's file %s is damaged at byte %d: %d bytes cannot be read; the rest is stored, "
        "and the file is kept as %s",
        segment.path, damage.start, size, segment.path.with_suffix(BAD),
    )  # fmt: skip


def oldest(segments: Iterable[Segment], most: int, most_bytes: int) -> list[Verified | None]:
    """Reads the oldest frames, at least one and at most so many. One that cannot be read any
    more is None, and its file is kept in the end."""
    read: list[Verified | None] = []
    size = 0
    for segment in segments:
        for offset in islice(segment.offsets, most - len(read)):
            if size > most_bytes:
                return read
            webhook, length = _one(segment, offset)
            read.append(webhook)
            size += length
    return read


def _one(segment: Segment, offset: int) -> tuple[Verified | None, int]:
    size = frames.HEAD.size
    try:
        known, payload = segment.read(offset)
        if known is not None:
            size += known.length
            return frames.verified(known, payload), size
    except (OSError, ValueError):
        pass
    _tell(segment, frames.Damage(offset, offset + size, torn=False))
    return None, size
