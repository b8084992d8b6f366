"""Files that people sent: fetched after the commit, sniffed, kept in a folder, served safely.

What a file is is read from its bytes, never believed from its sender.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.domain import FetchedMedia, MediaFetcher
from gateway.errors import ProviderError, Rejected
from gateway.rounds import Rounds
from gateway.store.batcher import Batcher
from gateway.store.files import DONE, WANT, Fetched, Wanted

log = logging.getLogger("gateway.media")

TRIES = 34  # an hour apart at most: a day
LEASE = 120_000  # milliseconds
AT_ONCE = 8
INLINE = frozenset(
    {
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "audio/mpeg",
        "audio/ogg",
        "audio/amr",
        "audio/aac",
        "audio/wav",
        "video/mp4",
        "video/3gpp",
        "video/webm",
    }
)
UNKNOWN = "application/octet-stream"


def sniff(data: bytes) -> str:
    """The type of a file by its first bytes; `application/octet-stream` when they say nothing."""
    for start, kind in MAGIC:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] in RIFF:
        return RIFF[data[8:12]]
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand.startswith(b"3g"):
            return "video/3gpp"
        if brand in (b"heic", b"heix", b"mif1"):
            return "image/heic"
        return "audio/mp4" if brand.startswith(b"M4A") else "video/mp4"
    if data[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        return "audio/mpeg"
    if data[:2] in (b"\xff\xf1", b"\xff\xf9"):
        return "audio/aac"
    if data.lstrip()[:11].upper() == b"BEGIN:VCARD":
        return "text/vcard"
    return UNKNOWN


MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"#!AMR", "audio/amr"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"PK\x03\x04", "application/zip"),
)
RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}


class Folder:
    """Files in a folder, written whole or not at all, readable only by us."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, tenant_id: str, id_: str) -> Path:
        """Where a file lies. Ids are ours, never a sender's."""
        return self.root / tenant_id / id_[-4:-2] / id_

    def write(self, tenant_id: str, id_: str, data: bytes) -> None:
        """Stores a file durably."""
        path = self.path(tenant_id, id_)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_suffix(".part")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


class MediaWorker:
    """Fetches the files of inbound messages, a few at a time, with retries."""

    def __init__(
        self,
        batcher: Batcher,
        fetchers: Mapping[str, MediaFetcher],
        folder: Folder,
        *,
        limit: int,
        poll: float = 5.0,
    ) -> None:
        self._batcher = batcher
        self._fetchers = fetchers
        self._folder = folder
        self._limit = limit
        self.rounds = Rounds("media", self._turn, poll=poll)

    async def _turn(self) -> bool:
        rows = await self._batcher.submit(WANT, Wanted(AT_ONCE, LEASE))
        await asyncio.gather(*(self._fetch(row) for row in rows))
        return bool(rows)

    async def _fetch(self, row: Mapping[str, Any]) -> None:
        tenant_id, id_ = row["tenant_id"], row["id"]
        fetcher = self._fetchers.get(row["connection"])
        if fetcher is None:
            done = Fetched(tenant_id, id_, "failed", detail="its connection has no credentials")
        else:
            done = await self._try(fetcher, row)
        await self._batcher.submit(DONE, done)

    async def _try(self, fetcher: MediaFetcher, row: Mapping[str, Any]) -> Fetched:
        tenant_id, id_ = row["tenant_id"], row["id"]
        try:
            file: FetchedMedia = await fetcher.fetch_media(row["reference"], self._limit)
        except ProviderError as error:
            final = isinstance(error, Rejected) or row["tries"] >= TRIES
            log.warning("%s was not fetched: %s", id_, error.code)
            if final:
                return Fetched(tenant_id, id_, "failed", detail=str(error.code))
            wait = min(3600, 2 ** row["tries"]) * 1000
            return Fetched(tenant_id, id_, "pending", detail=str(error.code), retry_in=wait)
        try:
            await asyncio.to_thread(self._folder.write, tenant_id, id_, file.data)
        except OSError as error:
            log.error("%s cannot be kept: %s", id_, error.strerror)
            return Fetched(tenant_id, id_, "pending", detail="disk", retry_in=60_000)
        return Fetched(tenant_id, id_, "stored", sniff(file.data), len(file.data))
