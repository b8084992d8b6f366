"""Files that the application gives us, to be sent: taken piece by piece, looked at, kept.

The bytes decide what a file is. One that is declared to be something else is refused, and HTML, SVG
and XML are refused whatever they are called.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from gateway.channel_files import refusal
from gateway.clock import new_id, show
from gateway.domain import Channel, FileStore
from gateway.errors import GatewayError, StoreUnavailable
from gateway.files import Arrived, Incoming, key_of
from gateway.kinds import contradicted, taken
from gateway.store.batcher import Batcher
from gateway.store.files import KEEP, Upload

AT_ONCE = 32
NAME_MOST = 200  # characters of a file's name
PATHS = re.compile(r"[/\\]+")


class Refused(GatewayError):
    """A file that is not taken: which field is wrong, and why."""

    def __init__(self, field: str, text: str) -> None:
        self.field = field
        self.text = text
        super().__init__(f"{field} {text}")


@dataclass(frozen=True, slots=True)
class Offered:
    """A file and what its sender says of it."""

    pieces: AsyncIterator[bytes]
    content_type: str | None
    filename: str | None
    channel: Channel | None = None


class Uploads:
    """Takes files, a bounded number at a time."""

    def __init__(
        self, batcher: Batcher, store: FileStore, incoming: Incoming, *, most: int
    ) -> None:
        self._batcher = batcher
        self._store = store
        self._incoming = incoming
        self.most = most
        self.turns = asyncio.Semaphore(AT_ONCE)

    async def take(self, offered: Offered, tenant_id: str) -> dict[str, object]:
        """Keeps a file; what the API tells of it.

        Raises:
            Refused: it is not what it should be. Nothing is kept.
            TooLarge: the same, of its size.
            FilesUnavailable, StoreUnavailable, OutcomeUnknown: not at the moment.
        """
        arrived = await self._incoming.take(offered.pieces, self.most)
        try:
            kind = _judged(arrived, offered)
            made = Upload(
                tenant_id,
                new_id("med"),
                kind,
                plain_name(offered.filename),
                arrived.size,
                arrived.sha256,
            )
            await self._store.put(key_of(tenant_id, made.id), arrived.path, kind)
        finally:
            arrived.path.unlink(missing_ok=True)
        return _view(made, await self._noted(made))

    async def _noted(self, made: Upload) -> int:
        try:
            return await self._batcher.submit(KEEP, made)
        except StoreUnavailable:
            await self._store.delete(key_of(made.tenant_id, made.id))
            raise


def _judged(arrived: Arrived, offered: Offered) -> str:
    """The type of a file that is taken."""
    if not arrived.size:
        raise Refused("file", "is empty")
    wrong = contradicted(arrived.head, offered.content_type)
    if wrong:
        raise Refused("file", wrong)
    kind = taken(arrived.head, offered.content_type)
    if offered.channel is not None:
        wrong = refusal(offered.channel, kind, arrived.size)
        if wrong:
            raise Refused("file", wrong)
    return kind


def plain_name(name: str | None) -> str | None:
    """A name without folders and without what could not be shown."""
    last = PATHS.split(name or "")[-1]
    text = "".join(c for c in last if c.isprintable() and not "\ud800" <= c <= "\udfff")
    return text.strip(" .")[:NAME_MOST] or None


def _view(made: Upload, created: int) -> dict[str, object]:
    return {
        "id": made.id,
        "url": f"/api/media/{made.id}",
        "content_type": made.content_type,
        "size": made.size,
        "filename": made.filename,
        "sha256": made.sha256,
        "created_at": show(created),
    }
