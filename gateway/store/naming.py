"""The messages of a conversation that another one names by our ids, before that is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway.store import conversations, windows
from gateway.store.accepts import NewMessage
from gateway.store.ledger import QUEUE_KEY
from gateway.store.rows import select
from gateway.store.tables import attempts, messages
from gateway.store.tx import Tx

COLUMNS = ("id", "conversation_id", "status", "provider", "direction", "provider_message_id")
TOLD = ("message_id", "network_id")
Row = dict[str, Any]


def said_as(tx: Tx, new: NewMessage, ids: Sequence[str]) -> dict[str, Row]:
    """Those of these ids that are of the conversation which a message is going to be in. `named`:
    the network's own id of it was told."""
    tenant = new.row["tenant_id"]
    there = conversations.standing(tx, windows.places(new))
    own = {row["id"] for row in there.values()}
    found = select(tx, messages, ("tenant_id", "id"), [(tenant, id_) for id_ in ids], COLUMNS)
    rows = {row.id: dict(row._mapping) for row in found if row.conversation_id in own}
    tries = select(tx, attempts, QUEUE_KEY, [(tenant, id_) for id_ in rows], TOLD)
    named = {row.message_id for row in tries if row.network_id is not None}
    return {id_: {**row, "named": id_ in named} for id_, row in rows.items()}
