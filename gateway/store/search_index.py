"""The index of the search as it grows: what is to be added next, and adding it.

It follows the feed, whose numbers are given in the order of the commits, so nothing is passed over;
and it goes back through what was stored before. Where it stands is written with what it adds: a
piece counts once, also when several processes work on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.store.batcher import Operation
from gateway.store.database import Again
from gateway.store.rows import insert, present, select
from gateway.store.search_tables import documents, progress, terms
from gateway.store.tables import aliases, conversations, messages
from gateway.store.tx import Tx

FEED, PAST = "feed", "past"
EVERYBODY = "*"
LOOK = 2000  # events looked at in one go
SIZE = 100  # messages added in one go: the writer is not held up for longer than that takes
BEGINS = frozenset(  # one of them comes first
    {"message.received", "message.queued", "message.scheduled", "message.rejected"}
)
CONVERSATIONS = frozenset({"conversation.created", "conversation.updated"})
KEY = ("tenant_id", "id")
PLACE = ("tenant_id", "name")
SAID = ("tenant_id", "id", "conversation_id", "channel", "direction", "subject", "body")
NAMED = ("tenant_id", "id", "name", "own_name", "address")
OWNER = ("tenant_id", "conversation_id")

Key = tuple[str, str]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What is to be added next: rows of messages, oldest first, and of conversations with their
    `aliases`. `place` is where the index stands afterwards, `since` where it must stand before.
    `anew`: events are gone that nobody looked at, so what is stored is gone through again."""

    name: str
    since: str | None
    place: str
    messages: Sequence[Row] = ()
    conversations: Sequence[Row] = ()
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Document:
    """A message with the words by which it is found."""

    tenant_id: str
    message_id: str
    conversation_id: str
    words: str


@dataclass(frozen=True, slots=True)
class Piece:
    """What is added at once: messages, oldest first, and all the terms of conversations."""

    found: Found
    documents: tuple[Document, ...] = ()
    terms: tuple[tuple[Key, frozenset[str]], ...] = ()


def _place(tx: Tx, name: str, *, lock: bool = False) -> str | None:
    found = select(tx, progress, PLACE, [(EVERYBODY, name)], ("place",), lock=lock)
    return str(found[0].place) if found else None


def following(tx: Tx, seen: int) -> Found | None:
    """What came in the feed since; None: nothing. Nothing up to the number `seen` is of interest,
    as this process has looked at it."""
    place = _place(tx, FEED)
    known = int(place or 0)
    rows = tx.run(
        "SELECT id, tenant_id, type, message_id, conversation_id FROM events WHERE id > ? "
        f"ORDER BY id LIMIT {LOOK}",
        (max(seen, known),),
    ).fetchall()
    if not rows:
        return None
    said: dict[Key, None] = {}
    named: dict[Key, None] = {}
    last = int(rows[0].id)
    for row in rows:
        if row.type in BEGINS:
            said[row.tenant_id, row.message_id] = None
        elif row.type in CONVERSATIONS:
            named[row.tenant_id, row.conversation_id] = None
        last = int(row.id)
        if len(said) == SIZE:
            break
    gone = known > 0 and known >= seen and _oldest(tx) > known + 1
    rows_said, rows_named = _messages(tx, list(said)), _conversations(tx, list(named))
    return Found(FEED, place, str(last), rows_said, rows_named, gone)


def _oldest(tx: Tx) -> int:
    return int(tx.run("SELECT MIN(id) FROM events").scalar() or 0)


def earlier(tx: Tx) -> Found | None:
    """What was stored before there was an index, the newest of it; None: all of that is in it."""
    place = _place(tx, PAST)
    if place == "":
        return None
    where, values = "", ()
    if place is not None:
        where, values = "WHERE (tenant_id, id) < (?, ?) ", tuple(json.loads(place))
    rows = tx.run(
        f"SELECT {', '.join(SAID)} FROM messages {where}"
        f"ORDER BY tenant_id DESC, id DESC LIMIT {SIZE}",
        values,
    ).fetchall()
    found = [dict(row._mapping) for row in reversed(rows)]
    after = json.dumps([found[0]["tenant_id"], found[0]["id"]]) if len(found) == SIZE else ""
    keys = dict.fromkeys((row["tenant_id"], row["conversation_id"]) for row in found)
    return Found(PAST, place, after, found, _conversations(tx, list(keys)))


def _messages(tx: Tx, keys: list[Key]) -> list[Row]:
    """Messages in the order of their first events, which is that of their commits."""
    rows = {(r.tenant_id, r.id): dict(r._mapping) for r in select(tx, messages, KEY, keys, SAID)}
    return [rows[key] for key in keys if key in rows]


def _conversations(tx: Tx, keys: list[Key]) -> list[Row]:
    rows = {
        (r.tenant_id, r.id): {**r._mapping, "aliases": []}
        for r in select(tx, conversations, KEY, keys, NAMED)
    }
    for row in select(tx, aliases, OWNER, list(rows), (*OWNER, "address")):
        rows[row.tenant_id, row.conversation_id]["aliases"].append(row.address)
    return list(rows.values())


def add(tx: Tx, items: Sequence[Piece]) -> Sequence[bool | Exception]:
    """Adds pieces. False: another process was there first."""
    return [_add(tx, item) for item in items]


def _add(tx: Tx, item: Piece) -> bool:
    found = item.found
    if _place(tx, found.name, lock=True) != found.since:
        return False
    if found.since is None:
        _begin(tx, found.name, found.place)
    else:
        _go_on(tx, found.name, found.place)
    if found.anew:
        tx.run("DELETE FROM search_progress WHERE name = ?", (PAST,))
    _add_documents(tx, item)
    _add_terms(tx, dict(item.terms))
    return True


def _begin(tx: Tx, name: str, place: str) -> None:
    row = {"tenant_id": EVERYBODY, "name": name, "place": place}
    if not insert(tx, progress, [row], "ON CONFLICT DO NOTHING RETURNING name"):
        raise Again  # another process began a moment ago


def _go_on(tx: Tx, name: str, place: str) -> None:
    tx.run(
        "UPDATE search_progress SET place = ? WHERE tenant_id = ? AND name = ?",
        (place, EVERYBODY, name),
    )


def _add_documents(tx: Tx, item: Piece) -> None:
    keys = [(one.tenant_id, one.message_id) for one in item.documents]
    there = present(tx, documents, ("tenant_id", "message_id"), keys)
    new = [one for one, key in zip(item.documents, keys, strict=True) if key not in there]
    if not new:
        return
    past = item.found.name == PAST
    end = tx.run(f"SELECT {'MIN' if past else 'MAX'}(n) FROM search_documents").scalar()
    first = min(int(end or 0), 0) - len(new) if past else max(int(end or 0), 0) + 1
    numbered = list(enumerate(new, first))
    if tx.postgres:
        _insert_vectors(tx, numbered)
    else:
        _insert_words(tx, numbered)


def _insert_vectors(tx: Tx, numbered: Sequence[tuple[int, Document]]) -> None:
    columns = [
        [n for n, _ in numbered],
        *([getattr(one, name) for _, one in numbered] for name in Document.__slots__),
    ]
    tx.run(
        "INSERT INTO search_documents (n, tenant_id, message_id, conversation_id, words) "
        "SELECT n, t, m, c, array_to_tsvector(string_to_array(w, ' ')) FROM "
        "unnest(?::bigint[], ?::text[], ?::text[], ?::text[], ?::text[]) AS x (n, t, m, c, w)",
        columns,
    )


def _insert_words(tx: Tx, numbered: Sequence[tuple[int, Document]]) -> None:
    insert(
        tx,
        documents,
        [
            {
                "n": n,
                "tenant_id": one.tenant_id,
                "message_id": one.message_id,
                "conversation_id": one.conversation_id,
            }
            for n, one in numbered
        ],
    )
    marks = ", ".join(["(?, ?)"] * len(numbered))
    tx.run(
        f"INSERT INTO search_words (rowid, words) VALUES {marks}",
        [value for n, one in numbered for value in (n, one.words)],
    )


def _add_terms(tx: Tx, wanted: Mapping[Key, frozenset[str]]) -> None:
    """Gives conversations these terms and no others."""
    had: dict[Key, set[str]] = {key: set() for key in wanted}
    for row in select(tx, terms, OWNER, list(wanted), (*OWNER, "term")):
        had[row.tenant_id, row.conversation_id].add(row.term)
    for key, terms_now in sorted(wanted.items()):
        for term in sorted(had[key] - terms_now):
            tx.run(
                "DELETE FROM conversation_terms "
                "WHERE tenant_id = ? AND conversation_id = ? AND term = ?",
                (*key, term),
            )
    new = [
        {"tenant_id": tenant, "conversation_id": id_, "term": term}
        for (tenant, id_), terms_now in sorted(wanted.items())
        for term in sorted(terms_now - had[tenant, id_])
    ]
    insert(tx, terms, new, "ON CONFLICT DO NOTHING")


ADD: Operation[Piece, bool] = Operation("index", 70, add, lambda tx, items: False)
