"""Conversations: one per (tenant, channel, our address or pool, person), found or made in bulk."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.clock import new_id
from gateway.store.database import Again
from gateway.store.rows import insert, select, update
from gateway.store.tables import aliases, conversations
from gateway.store.tx import Tx

COLUMNS = tuple(column.name for column in conversations.columns)
IDENTITY = ("tenant_id", "channel", "our_key", "address")

ALIASED = frozenset({"whatsapp", "rcs"})  # channels on which a person has several addresses
INBOUND = {
    # What was said earlier may come later.
    "last_inbound_at": "CASE WHEN v.last_inbound_at IS NULL OR "
    "t.last_inbound_at > v.last_inbound_at THEN t.last_inbound_at ELSE v.last_inbound_at END",
    "unread_count": "t.unread_count + v.unread_count",
    "our_address": "COALESCE(v.our_address, t.our_address)",
    "name": "COALESCE(v.name, t.name)",
    "status": "'open'",  # who writes again wants an answer
}

Key = tuple[str, str, str, str]


@dataclass(slots=True)
class Wanted:
    """A conversation to find, or to make. `our_keys` are tried in turn; the last one makes it."""

    tenant_id: str
    channel: str
    our_keys: tuple[str, ...]
    address: str
    our_address: str | None = None
    name: str | None = None
    also: tuple[str, ...] = ()  # further addresses of the same person
    inbound: bool = False  # whether the person wrote,
    said_at: int = 0  # when,
    answerable: bool = True  # and so may be written to freely for a while after that
    found: dict[str, Any] = field(default_factory=dict)
    created: bool = False

    def places(self) -> list[Key]:
        """Where it may stand, best first."""
        addresses = (self.address, *self.also)
        return [(self.tenant_id, self.channel, o, a) for a in addresses for o in self.our_keys]


def resolve(tx: Tx, wanted: Sequence[Wanted]) -> None:
    """Fills in `found` for each, making what does not exist. Several may want the same one."""
    places = [want.places() for want in wanted]
    known = standing(tx, [key for keys in places for key in keys])
    missing: dict[Key, dict[str, Any]] = {}
    made_here: set[str] = set()
    for want, keys in zip(wanted, places, strict=True):
        row = next((known[key] for key in keys if key in known), None)
        if row is None:
            row = _new(tx, want)
            missing[(want.tenant_id, want.channel, row["our_key"], want.address)] = row
            made_here.add(row["id"])
            known.update(dict.fromkeys(keys, row))
        want.created = row["id"] in made_here
        if want.created and want.inbound:
            row["unread_count"] += 1
            row["last_inbound_at"] = (
                max(row["last_inbound_at"] or 0, _answerable_at([want])) or None
            )
            row["our_address"] = want.our_address or row["our_address"]
            row["name"] = want.name or row["name"]
        want.found = row
    rows = [missing[key] for key in sorted(missing)]
    made = insert(tx, conversations, rows, "ON CONFLICT DO NOTHING RETURNING id")
    if len(made) < len(rows):
        raise Again  # another process made one of them a moment ago
    for row in rows:
        tx.emit(row["tenant_id"], "conversation.created", conversation_id=row["id"])
    _remember_aliases(tx, wanted)


def standing(tx: Tx, keys: Sequence[Key]) -> dict[Key, dict[str, Any]]:
    """The conversations that stand at these places, also by a person's further addresses."""
    rows = select(tx, conversations, IDENTITY, keys, COLUMNS)
    found: dict[Key, dict[str, Any]] = {}
    for row in rows:
        values = dict(row._mapping)
        found[tuple(values[c] for c in IDENTITY)] = values
    rest = [key for key in keys if key not in found and key[1] in ALIASED]
    if not rest:
        return found
    named = select(tx, aliases, IDENTITY, rest, (*IDENTITY, "conversation_id"))
    ids = sorted({(row.tenant_id, row.conversation_id) for row in named})
    by_id = {row.id: dict(row._mapping) for row in by_ids(tx, ids)}
    for row in named:
        if row.conversation_id in by_id:
            found[(row.tenant_id, row.channel, row.our_key, row.address)] = by_id[
                row.conversation_id
            ]
    return found


def by_ids(tx: Tx, ids: Sequence[tuple[str, str]]) -> list[Any]:
    """Conversations by (tenant, id)."""
    return select(tx, conversations, ("tenant_id", "id"), ids, COLUMNS)


def _new(tx: Tx, want: Wanted) -> dict[str, Any]:
    return {
        "tenant_id": want.tenant_id,
        "id": new_id("conv"),
        "channel": want.channel,
        "our_key": want.our_keys[-1],
        "our_address": want.our_address,
        "address": want.address,
        "name": want.name,
        "own_name": None,
        "status": "open",
        "assignee": None,
        "labels": None,
        "unread_count": 0,
        "last_message_at": tx.now,
        "last_inbound_at": None,
        "meta": None,
        "created_at": tx.now,
        "updated_at": tx.now,
    }


def _remember_aliases(tx: Tx, wanted: Sequence[Wanted]) -> None:
    rows: dict[Key, dict[str, Any]] = {}
    for want in wanted:
        for address in (want.address, *want.also):
            if not want.also or address == want.found["address"]:
                continue
            key = (want.tenant_id, want.channel, want.found["our_key"], address)
            rows[key] = dict(
                zip(IDENTITY, key, strict=True),
                conversation_id=want.found["id"],
                created_at=tx.now,
            )
    insert(tx, aliases, [rows[key] for key in sorted(rows)], "ON CONFLICT DO NOTHING")


def join(tx: Tx, known: Sequence[tuple[str, str, str]]) -> None:
    """Learns further addresses of people: of (tenant, conversation, address)."""
    told = {row.id: row for row in by_ids(tx, [(tenant, id_) for tenant, id_, _ in known])}
    rows = {
        (tenant, row.channel, row.our_key, address): dict(
            zip(IDENTITY, (tenant, row.channel, row.our_key, address), strict=True),
            conversation_id=id_,
            created_at=tx.now,
        )
        for tenant, id_, address in known
        if (row := told.get(id_)) is not None and address != row.address
    }
    insert(tx, aliases, [rows[key] for key in sorted(rows)], "ON CONFLICT DO NOTHING")


def move(tx: Tx, moved: Sequence[tuple[Wanted, str]]) -> None:
    """Gives people the addresses that are theirs from now on; the old ones go on finding them.
    Whoever has written from the new one already has a conversation there: both stay."""
    for want, address in moved:
        found = want.found
        key = (found["tenant_id"], found["channel"], found["our_key"], address)
        if select(tx, conversations, IDENTITY, [key], ("id",)):
            continue
        old, found["address"] = found["address"], address
        tx.run(
            "UPDATE conversations SET address = ?, updated_at = ? WHERE tenant_id = ? AND id = ?",
            (address, tx.now, found["tenant_id"], found["id"]),
        )
        join(tx, [(found["tenant_id"], found["id"], old)])


def _lock(tx: Tx, ids: Sequence[tuple[str, str]]) -> None:
    """Takes conversations in the order of their ids. An UPDATE of many rows takes them in the
    order of its plan, so that two writers would each wait for the other."""
    if tx.postgres:
        select(tx, conversations, ("tenant_id", "id"), ids, ("id",), lock=True)


def touch_outbound(tx: Tx, ids: Sequence[tuple[str, str]]) -> None:
    """Moves conversations to the top of the list because we wrote."""
    rows = [
        {"tenant_id": tenant, "id": id_, "last_message_at": tx.now, "updated_at": tx.now}
        for tenant, id_ in sorted(set(ids))
    ]
    _lock(tx, ids)
    update(
        tx, conversations, ("tenant_id", "id"), rows, only="t.last_message_at < v.last_message_at"
    )


def touch_inbound(tx: Tx, wanted: Sequence[Wanted]) -> None:
    """Counts what people wrote, once per message of `wanted`; a new conversation has it in it."""
    counts: dict[tuple[str, str], list[Wanted]] = {}
    for want in wanted:
        counts.setdefault((want.tenant_id, want.found["id"]), []).append(want)
    rows: list[dict[str, Any]] = []
    for (tenant, id_), wants in sorted(counts.items()):
        tx.emit(tenant, "conversation.updated", conversation_id=id_)
        if wants[0].created:
            continue
        rows.append(
            {
                "tenant_id": tenant,
                "id": id_,
                "unread_count": len(wants),
                "last_message_at": tx.now,
                "last_inbound_at": _answerable_at(wants) or None,
                "updated_at": tx.now,
                "our_address": _last(want.our_address for want in wants),
                "name": _last(want.name for want in wants),
                "status": "open",
            }
        )
    _lock(tx, [(row["tenant_id"], row["id"]) for row in rows])
    update(tx, conversations, ("tenant_id", "id"), rows, how=INBOUND)


def _answerable_at(wants: Iterable[Wanted]) -> int:
    """When people last wrote something that may be answered freely; 0: they did not."""
    return max((want.said_at for want in wants if want.answerable), default=0)


def _last(told: Iterable[str | None]) -> str | None:
    """The newest word, of those that were said."""
    return next((one for one in reversed([*told]) if one is not None), None)
