"""Files of inbound messages, fetched after the commit; and what is too old of any file, deleted."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

from gateway.domain import Clock, FetchedMedia, FileStore, MediaFetcher
from gateway.errors import FilesUnavailable, ProviderError, Rejected
from gateway.files import Incoming, key_of
from gateway.kinds import HEAD, kind_of
from gateway.rounds import Rounds
from gateway.store.batcher import Batcher
from gateway.store.files import DONE, DROP, GONE, WANT, Fetched, Old, Wanted
from gateway.thumbnails import thumbnail_key

log = logging.getLogger("gateway.media")

TRIES = 34  # an hour apart at most: a day
LEASE = 120_000  # milliseconds
BEGUN = 3  # how often a file is fetched at once after a start, if a process died at it
AT_ONCE = 8
PIECE = 100  # files that are deleted at once


class MediaWorker:
    """Fetches the files of inbound messages, a few at a time, with retries."""

    def __init__(
        self,
        batcher: Batcher,
        fetchers: Mapping[str, MediaFetcher],
        store: FileStore,
        *,
        limit: int,
        poll: float = 5.0,
        only_process: bool = False,
    ) -> None:
        self._batcher = batcher
        self._begun = BEGUN if only_process else 0
        self._fetchers = fetchers
        self._store = store
        self._limit = limit
        self.rounds = Rounds("media", self._turn, poll=poll)

    async def _turn(self) -> bool:
        rows = await self._batcher.submit(WANT, Wanted(AT_ONCE, LEASE, self._begun))
        self._begun = 0  # from now on the leases are ours
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
        return await self._keep(file, row)

    async def _keep(self, file: FetchedMedia, row: Mapping[str, Any]) -> Fetched:
        tenant_id, id_ = row["tenant_id"], row["id"]
        kind = kind_of(file.data[:HEAD], file.content_type or row["declared_type"])
        try:
            await self._store.put(key_of(tenant_id, id_), file.data, kind)
        except FilesUnavailable as error:
            log.error("%s cannot be kept: %s", id_, error)
            return Fetched(tenant_id, id_, "pending", detail="disk", retry_in=60_000)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(file.data).hexdigest())
        return Fetched(
            tenant_id,
            id_,
            "stored",
            content_type=kind,
            size=len(file.data),
            sha256=digest,
            filename=file.filename,
        )


class MediaRetention:
    """Deletes files that are older than `age` seconds (0: none), and their thumbnails; and what
    uploads left that were cut off."""

    def __init__(
        self, batcher: Batcher, store: FileStore, incoming: Incoming, clock: Clock, age: float
    ) -> None:
        self._batcher = batcher
        self._store = store
        self._incoming = incoming
        self._clock = clock
        self._age = int(age * 1000)

    async def turn(self) -> bool:
        """Takes one piece of them; whether there may be more."""
        await self._incoming.sweep(self._clock)
        if not self._age:
            return False
        old = await self._batcher.submit(DROP, Old(self._age, PIECE, LEASE))
        for tenant_id, id_ in old:
            try:
                await self._store.delete(key_of(tenant_id, id_))
                await self._store.delete(thumbnail_key(tenant_id, id_))
            except FilesUnavailable as error:
                log.warning("%s cannot be deleted yet: %s", id_, error)
                return False
            await self._batcher.submit(GONE, (tenant_id, id_))
        return len(old) == PIECE
