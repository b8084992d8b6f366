"""Files on this machine: how they are kept in a folder, and how they come in.

A file is written whole or not at all, is on the disk before anybody is told so, and can be read by
us alone. Keys are made by us: `<tenant>/<name>`, never of what a sender said.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from gateway.domain import Clock, FileStore
from gateway.errors import FilesUnavailable, GatewayError
from gateway.kinds import HEAD

P = ParamSpec("P")
T = TypeVar("T")

PIECE = 256 * 1024  # bytes that are read or written at once
KEY = re.compile(r"[A-Za-z0-9_-]{1,64}/[A-Za-z0-9_-]{4,80}(\.[a-z]{1,8})?")
INCOMING = ".incoming"
ABANDONED = 86_400.0  # seconds after which what came in halfway is nobody's any more


def key_of(tenant_id: str, name: str) -> str:
    """Where a tenant's file is kept."""
    key = f"{tenant_id}/{name}"
    if KEY.fullmatch(key) is None:
        raise ValueError("this cannot name a file")
    return key


class Folder:
    """Files in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """Where a file lies; there are not too many in each folder."""
        tenant_id, _, name = key_of(*key.split("/", 1)).partition("/")
        return self.root / tenant_id / name.partition(".")[0][-4:-2] / name

    async def put(self, key: str, source: bytes | Path, content_type: str) -> None:
        """Keeps a file durably; one that is given by its path is moved away from there.

        Raises:
            FilesUnavailable: it is not kept.
        """
        await _on_disk(_put, self.path(key), source)

    async def size(self, key: str) -> int | None:
        """The bytes of a file; None where there is none."""
        return await _on_disk(_size, self.path(key))

    async def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """A part of a file, in pieces.

        Raises:
            FilesUnavailable: it, or the rest of it, is not there.
        """
        while length > 0:  # opened for each piece: whoever goes away in between leaves nothing open
            piece = await _on_disk(_part, self.path(key), start, min(length, PIECE))
            if not piece:
                raise FilesUnavailable("a file is shorter than it was")
            start += len(piece)
            length -= len(piece)
            yield piece

    async def delete(self, key: str) -> None:
        """Takes a file away, if it is there."""
        await _on_disk(_unlink, self.path(key))

    async def aclose(self) -> None:
        """Nothing is held."""


async def _on_disk(work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
    try:
        return await asyncio.to_thread(work, *args, **more)
    except OSError as error:
        raise FilesUnavailable(error.strerror or type(error).__name__) from None


def _put(path: Path, source: bytes | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if isinstance(source, bytes):
        source = _written(path.parent, source)
    try:
        source.replace(path)
    except BaseException:
        source.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _written(folder: Path, data: bytes) -> Path:
    handle, name = tempfile.mkstemp(suffix=".part", dir=folder)  # for its owner only
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def _sync_folder(folder: Path) -> None:
    """Makes a new name in a folder outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _part(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


async def whole(store: FileStore, key: str, most: int) -> bytes:
    """A file of at most so many bytes.

    Raises:
        FilesUnavailable: it is not there.
        TooLarge: it has more.
    """
    size = await store.size(key)
    if size is None:
        raise FilesUnavailable("there is no such file")
    if size > most:
        raise TooLarge
    return b"".join([piece async for piece in store.read(key, 0, size)])


class TooLarge(GatewayError):
    """More bytes than are taken."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that came in whole and is on the disk, with its first bytes."""

    path: Path
    size: int
    sha256: str
    head: bytes


class Incoming:
    """The folder in which files lie while they come in."""

    def __init__(self, root: Path) -> None:
        self.folder = root / INCOMING

    async def take(self, pieces: AsyncIterator[bytes], most: int) -> Arrived:
        """Writes a file as it comes. Whoever takes it moves it away, or deletes it.

        Raises:
            TooLarge: it has more than `most` bytes. Nothing is left of it.
            FilesUnavailable: it cannot be written. The same.
        """
        path, file = await _on_disk(self._new)
        try:
            with file:
                size, digest, head = 0, hashlib.sha256(), b""
                async for piece in _gathered(pieces):
                    size += len(piece)
                    if size > most:
                        raise TooLarge
                    digest.update(piece)
                    head = head or piece[:HEAD]
                    await _on_disk(file.write, piece)
                await _on_disk(_synced, file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Arrived(path, size, digest.hexdigest(), head)

    def _new(self) -> tuple[Path, BinaryIO]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=self.folder)
        return Path(name), os.fdopen(handle, "wb")

    async def sweep(self, clock: Clock) -> None:
        """Deletes what processes left halfway that were killed."""
        before = clock.now().timestamp() - ABANDONED
        await _on_disk(_sweep, self.folder, before)


def _sweep(folder: Path, before: float) -> None:
    for path in folder.glob("*") if folder.is_dir() else ():
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)


def _synced(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in larger pieces: each is a turn of a thread."""
    held = bytearray()
    async for piece in pieces:
        held += piece
        if len(held) >= PIECE:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
