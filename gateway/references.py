"""Messages that a message names by our ids: what it answers, or what it reacts to. They become the
vendors' ids, which is what is sent and shown; an id of a vendor's passes as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from gateway.domain import Direction, MessageType, Provider
from gateway.store import naming
from gateway.store.accepts import NewMessage
from gateway.store.reader import Reader

OURS = "msg_"  # how our ids of messages begin; no vendor's does
REPLY, TARGET = "reply_to", "content.target"
UNKNOWN = "is no message of this conversation: give one of its ids, or the vendor's own"

UNNAMED = (
    "is not known by the network's id yet, which the vendor tells once it has sent it: it is {}; "
    "try again in a moment"
)

Problems = list[tuple[str, str]]


class References:
    """Looks for what messages name."""

    def __init__(self, reader: Reader, providers: Mapping[str, Provider]) -> None:
        self._reader = reader
        self._later = {n for n, one in providers.items() if one.capabilities.names_later}

    async def resolved(self, new: NewMessage) -> Problems:
        """Puts the vendors' ids into a message that is not stored yet; what is wrong with them."""
        asked = dict(_named(new))
        if not asked:
            return []
        known = await self._reader.call(naming.said_as, new, sorted({*asked.values()}))
        problems = [
            (field, wrong) for field, id_ in asked.items() if (wrong := self._wrong(known.get(id_)))
        ]
        if not problems:
            _write(
                new, {field: str(known[id_]["provider_message_id"]) for field, id_ in asked.items()}
            )
        return problems

    def _wrong(self, row: naming.Row | None) -> str | None:
        if row is None:
            return UNKNOWN
        if row["provider_message_id"] is None:
            return f"has no id at its vendor, which it would be known by: it is {row['status']}"
        ours = row["direction"] == Direction.OUTBOUND
        if ours and row["provider"] in self._later and not row["named"]:
            return UNNAMED.format(row["status"])
        return None


def _named(new: NewMessage) -> Iterator[tuple[str, str]]:
    """The fields that hold an id of ours, with it."""
    row = new.row
    if row["reply_to"] is not None and row["reply_to"].startswith(OURS):
        yield REPLY, row["reply_to"]
    if row["type"] == MessageType.REACTION and row["content"]:
        target = json.loads(row["content"]).get("target")
        if isinstance(target, str) and target.startswith(OURS):
            yield TARGET, target


def _write(new: NewMessage, ids: dict[str, str]) -> None:
    row = new.row
    row["reply_to"] = ids.get(REPLY, row["reply_to"])
    if TARGET in ids:
        content = {**json.loads(row["content"]), "target": ids[TARGET]}
        row["content"] = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
