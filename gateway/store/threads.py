"""Which email of ours another answers: by the ids in its headers, of which ours cannot be guessed.

Joins a conversation of the same tenant and with the same person only: an id that somebody else was
written proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain import InboundMessage
from gateway.opt_outs import same_person
from gateway.store.conversations import by_ids
from gateway.store.rows import select
from gateway.store.tables import attempts, messages
from gateway.store.tx import Tx

ATTEMPT = "att_"
Key = tuple[str, str]  # a tenant, and what stands before the @ of a Message-ID


@dataclass(frozen=True, slots=True)
class Answered:
    """The place of the conversation that is answered in, and what its message is called."""

    our_key: str
    address: str
    said_as: str


def answered(tx: Tx, asked: Sequence[tuple[str, InboundMessage]]) -> list[Answered | None]:
    """For each message of a tenant's, what it answers; None: nothing of ours to this person."""
    keys = sorted({key for tenant, event in asked for key in _keys(tenant, event)})
    if not keys:
        return [None] * len(asked)
    sent = _sent(tx, keys)
    threads = {
        (row.tenant_id, row.id): row
        for row in by_ids(tx, sorted({(key[0], row.conversation_id) for key, row in sent.items()}))
    }
    return [
        next(_joined(tenant, event, _keys(tenant, event), sent, threads), None)
        for tenant, event in asked
    ]


def _keys(tenant: str, event: InboundMessage) -> list[Key]:
    return [(tenant, id_.strip("<>").rpartition("@")[0]) for id_ in event.answers]


def _sent(tx: Tx, keys: Sequence[Key]) -> dict[Key, Any]:
    """The messages of ours that went out under these names: of the attempt, as we call it, or the
    one that the vendor gave it."""
    ours = [key for key in keys if key[1].startswith(ATTEMPT)]
    tried = select(tx, attempts, ("tenant_id", "id"), ours, ("tenant_id", "id", "message_id"))
    by_message = {(row.tenant_id, row.message_id): (row.tenant_id, row.id) for row in tried}
    columns = ("tenant_id", "id", "conversation_id", "channel", "direction", "provider_message_id")
    found = {
        by_message[(row.tenant_id, row.id)]: row
        for row in select(tx, messages, ("tenant_id", "id"), sorted(by_message), columns)
    }
    theirs = sorted({name for _, name in keys if not name.startswith(ATTEMPT)})
    named = select(tx, messages, ("provider_message_id",), [(name,) for name in theirs], columns)
    found |= {(row.tenant_id, row.provider_message_id): row for row in named}
    wanted = set(keys)
    return {
        key: row
        for key, row in found.items()
        if key in wanted and row.direction == "outbound" and row.channel == "email"
    }


def _joined(
    tenant: str,
    event: InboundMessage,
    keys: Sequence[Key],
    sent: dict[Key, Any],
    threads: dict[Key, Any],
) -> Iterator[Answered]:
    channel = event.channel.value
    for key in keys:
        row = sent.get(key)
        thread = threads.get((tenant, row.conversation_id)) if row is not None else None
        if row is None or thread is None:
            continue
        if same_person(channel, thread.address) == same_person(channel, event.from_address):
            said_as = row.provider_message_id or row.id
            yield Answered(thread.our_key, thread.address, said_as)
