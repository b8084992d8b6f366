"""Our own files in what is sent: named by their address in the API, and given to a provider as a
link that needs no key, or as their bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gateway.channel_files import refusal
from gateway.domain import Channel, FileStore, OutboundMedia
from gateway.drafts import Draft
from gateway.errors import (
    Breaker,
    FilesUnavailable,
    OutcomeUnknown,
    ProviderError,
    Rejected,
    StoreUnavailable,
    Unreachable,
    Unsupported,
)
from gateway.files import TooLarge, key_of, whole
from gateway.kinds import UNKNOWN
from gateway.links import Links
from gateway.store import queries
from gateway.store.reader import Reader

PREFIX = "/api/media/"
OWN = re.compile(re.escape(PREFIX) + r"(med_[0-9A-Za-z]{1,64})")
PATIENCE = 5.0  # seconds for the key of a link, which is there already but for a tenant's first
LIVES = {"pending": "has not been fetched yet", "stored": None}

File = Mapping[str, Any]


def own_id(url: object) -> str | None:
    """The id of a file of ours that an address names."""
    found = OWN.fullmatch(str(url))
    return found[1] if found else None


class OwnFiles:
    """Finds files of a tenant for those who send them."""

    def __init__(self, reader: Reader, store: FileStore, links: Links, origin: str) -> None:
        self._reader = reader
        self._store = store
        self._links = links
        self._origin = origin

    def _named(self, file: File) -> File:
        """A file of ours by its path alone, where it was named by our whole address."""
        url = str(file.get("url", ""))
        path = url.removeprefix(self._origin)
        return {**file, "url": path} if path != url and own_id(path) else file

    async def in_draft(self, draft: Draft, tenant_id: str) -> tuple[Draft, list[tuple[str, str]]]:
        """The same draft with what is known of its files that are ours, and what is wrong: one is
        none of the tenant's, or nothing for the channel."""
        media, wrong = await self.described(tenant_id, draft.channel, draft.media, "media")
        email = dict(draft.email) if draft.email else None
        if email and email.get("attachments"):
            attached, more = await self.described(
                tenant_id, draft.channel, email["attachments"], "email.attachments"
            )
            email["attachments"], wrong = list(attached), [*wrong, *more]
        return replace(draft, media=media, email=email), wrong

    async def described(
        self, tenant_id: str, channel: Channel, files: Sequence[File], field: str
    ) -> tuple[tuple[File, ...], list[tuple[str, str]]]:
        """The files with what is known of those that are ours, and what is wrong with them."""
        files = [self._named(file) for file in files]
        ids = [id_ for file in files if (id_ := own_id(file.get("url")))]
        if not ids:
            return tuple(files), []
        rows = await self._reader.call(queries.media_files, tenant_id, ids)
        made: list[File] = []
        problems: list[tuple[str, str]] = []
        for number, file in enumerate(files):
            id_ = own_id(file.get("url"))
            row = rows.get(id_) if id_ else None
            wrong = _wrong(row, channel) if id_ else None
            if wrong:
                problems.append((f"{field}.{number}.url", wrong))
            made.append(file if row is None else _described(file, row))
        return tuple(made), problems

    async def sizes(self, tenant_id: str, ids: Sequence[str]) -> Mapping[str, int]:
        """The bytes of files of a tenant, as far as they are there.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        rows = await self._reader.call(queries.media_files, tenant_id, ids)
        return {id_: row["size"] or 0 for id_, row in rows.items()}

    async def outbound(
        self, tenant_id: str, files: Sequence[OutboundMedia], seconds: float
    ) -> tuple[OutboundMedia, ...]:
        """Files of a stored message as a provider is to send them.

        Raises:
            ProviderError: one is ours, and there is no link to it at the moment.
        """
        return tuple([await self._linked(tenant_id, file, seconds) for file in files])

    async def _linked(self, tenant_id: str, file: OutboundMedia, seconds: float) -> OutboundMedia:
        id_ = own_id(file.url)
        if id_ is None:
            return file
        try:
            async with asyncio.timeout(PATIENCE):
                link = await self._links.url(tenant_id, id_, seconds)
        except (StoreUnavailable, OutcomeUnknown, TimeoutError):
            raise _harmless(Unreachable("no link to the file was made", code="media")) from None
        return replace(file, url=link, read=partial(self._read, key_of(tenant_id, id_)))

    async def _read(self, key: str, most: int) -> bytes:
        try:
            if await self._store.size(key) is None:
                raise _harmless(Rejected("the file is no longer kept", code="media_gone"))
            return await whole(self._store, key, most)
        except TooLarge:
            text = f"files of more than {most} bytes are not taken"
            raise _harmless(Unsupported(text, code="too_large")) from None
        except FilesUnavailable:
            raise _harmless(Unreachable("the file cannot be read", code="media")) from None


def _harmless(error: ProviderError) -> ProviderError:
    """An error that tells nothing of how a provider sends."""
    error.breaker = Breaker.IGNORES
    return error


def _wrong(row: Mapping[str, Any] | None, channel: Channel) -> str | None:
    if row is None:
        return "is no file of yours: upload it with POST /api/media"
    if row["state"] != "stored":
        return LIVES.get(row["state"], "is not kept any more")
    return refusal(channel, row["content_type"] or UNKNOWN, row["size"] or 0)


def _described(file: File, row: Mapping[str, Any]) -> File:
    """Our word about its type counts, and its sender's about its name."""
    return {
        **file,
        "content_type": row["content_type"],
        "filename": file.get("filename") or row["filename"],
    }
