"""The files of inbound messages, as they are stored with them: to be fetched, or there already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gateway.domain import MediaReference
from gateway.store.rows import insert
from gateway.store.tx import Tx
from gateway.store.vendor_tables import media

if TYPE_CHECKING:
    from gateway.store.inbox import Delivery

Received = tuple["Delivery", str, Sequence[MediaReference]]  # the message's id, and its files


def _id(message_id: str, position: int, file: MediaReference) -> str:
    if file.kept is not None:
        return file.kept.id
    return f"med_{message_id.removeprefix('msg_')}{position:02d}"


def view(message_id: str, files: Sequence[MediaReference]) -> str | None:
    """A message's files as its row has them."""
    listed = [
        {
            "url": f"/api/media/{_id(message_id, position, file)}",
            "content_type": file.kept.content_type if file.kept else file.content_type,
            "filename": file.filename,
        }
        for position, file in enumerate(files)
    ]
    return json.dumps(listed) if listed else None


def keep(tx: Tx, received: Sequence[Received]) -> None:
    """Stores the files of messages. An email to several of our addresses has them once."""
    rows = [row for one in received for row in _rows(tx, *one)]
    if any(row["state"] == "pending" for row in rows):
        tx.topics.add("media")
    insert(tx, media, rows, "ON CONFLICT (tenant_id, id) DO NOTHING")


def _rows(
    tx: Tx, item: Delivery, message_id: str, files: Sequence[MediaReference]
) -> Iterator[dict[str, Any]]:
    for position, file in enumerate(files):
        yield {
            "tenant_id": item.tenant_id,
            "id": _id(message_id, position, file),
            "message_id": message_id,
            "position": position,
            "connection": item.verified.connection,
            "reference": file.reference,
            "declared_type": file.content_type,
            "filename": file.filename,
            "tries": 0,
            "due_at": tx.now,
            "created_at": tx.now,
            **_state(file),
        }


def _state(file: MediaReference) -> dict[str, Any]:
    there = file.kept
    if there is not None:
        sizes = {"content_type": there.content_type, "size": there.size, "sha256": there.sha256}
        return {**sizes, "state": "stored", "detail": None}
    known: dict[str, Any] = {"content_type": None, "size": None, "sha256": None}
    if file.fetchable:
        return {**known, "state": "pending", "detail": None}
    return {**known, "state": "refused", "detail": "not an address of the vendor"}
