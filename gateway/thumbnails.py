"""Small pictures of large ones, made by a process apart that is killed when it takes too long, and
kept beside the file. That there can be none is kept, too: as an empty one."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from gateway._thumbnail import NO_LIBRARY
from gateway.domain import FileStore
from gateway.files import TooLarge, key_of, whole

log = logging.getLogger("gateway.media")

PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
KIND = "image/webp"
AT_ONCE = 2
LARGEST = 25 * 1024 * 1024  # bytes of a file that is even tried
MOST = 1024 * 1024  # bytes of a thumbnail
SECONDS = 20.0
# Without an environment, which has secrets; isolated from modules beside the program.
PROGRAM = (sys.executable, "-I", str(Path(__file__).with_name("_thumbnail.py")))


def thumbnail_key(tenant_id: str, id_: str) -> str:
    """Where the thumbnail of a file is kept."""
    return key_of(tenant_id, f"{id_}.thumb")


class Thumbnails:
    """Makes thumbnails, a few at a time."""

    def __init__(self, store: FileStore) -> None:
        self._store = store
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gateway-thumbnail")
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    async def size(self, tenant_id: str, id_: str) -> int | None:
        """The bytes of a picture's thumbnail, which is made if need be; None: there can be none.

        Raises:
            FilesUnavailable: the picture cannot be read, or the thumbnail not be kept.
        """
        key = thumbnail_key(tenant_id, id_)
        size = await self._store.size(key)
        if size is None:
            async with self._turns:
                size = await self._store.size(key)  # somebody else may have waited for the same
                if size is None:
                    made = await self._made(key_of(tenant_id, id_))
                    if made is None:
                        return None
                    await self._store.put(key, made, KIND)
                    size = len(made)
        return size or None

    async def _made(self, key: str) -> bytes | None:
        """A thumbnail, empty if there can be none; None: not here, but elsewhere perhaps."""
        try:
            data = await whole(self._store, key, LARGEST)
        except TooLarge:
            return b""
        loop = asyncio.get_running_loop()
        code, made = await loop.run_in_executor(self._threads, self._run, data)
        if self._closed:
            return None
        if code == NO_LIBRARY:
            log.warning("thumbnails need Pillow: install messaging-gateway[media]")
            return None
        return made if code == 0 and len(made) <= MOST else b""

    def _run(self, data: bytes) -> tuple[int, bytes]:
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(  # noqa: S603 - our own program, by its path
            PROGRAM, stdin=pipe, stdout=pipe, stderr=null, env={}
        ) as child:
            self._running.add(child)
            try:
                made, _ = child.communicate(data, SECONDS)
            except subprocess.TimeoutExpired:
                made = b""
            finally:
                self._running.discard(child)
                child.kill()
        return child.returncode, made

    async def aclose(self) -> None:
        """Ends what is being made."""
        self._closed = True
        for child in list(self._running):
            with suppress(ProcessLookupError):
                child.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)
