"""Conversations that are found by name, by any part of a number, and by what was said in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.store.conversation_lists import FEW, Condition
from gateway.store.search import hits_of
from gateway.store.tx import Tx
from gateway.words import Question

SAID = 250  # messages, the newest ones, whose conversations are found by what was said
LAST = chr(0x10FFFF)  # sorts after everything that begins alike


@dataclass(frozen=True, slots=True)
class _Term:
    """A word of a conversation `t`, whole or only begun."""

    sql: str
    values: tuple[str, ...]


def _whole(word: str) -> _Term:
    return _Term("t.term = ?", (word,))


def _begun(word: str) -> _Term:
    return _Term("t.term >= ? AND t.term < ?", (word, word + LAST))


def matching(tx: Tx, tenant_id: str, asked: Question) -> Condition:
    """The condition that a question is. What was said is looked for in the newest messages only;
    names and numbers in all conversations."""
    if not asked:
        return Condition("1 = 0", (), known=())
    *whole, last = asked.words
    ways = [_way(tenant_id, [*map(_whole, whole), _begun(last)])]
    if asked.number and asked.words != (asked.number,):
        ways.append(_way(tenant_id, [_begun(asked.number)]))
    said = {hit.conversation_id for hit in hits_of(tx, tenant_id, asked, limit=SAID).found}
    known: set[str] | None = set(said)
    for way in ways:
        rows = tx.run(f"{way.ids} LIMIT {FEW + 1}", way.ids_values).fetchall()
        few = known is not None and len(rows) <= FEW
        known = known.union(row[0] for row in rows) if known is not None and few else None
    if known is not None:
        ids = sorted(known)
        return Condition(*_one_of(tx, ids), known=tuple(ids))
    listed, listed_values = _one_of(tx, sorted(said))
    where = " OR ".join([*(f"({way.where})" for way in ways), listed])
    values = tuple(value for way in ways for value in way.values)
    return Condition(f"({where})", (*values, *listed_values))


def _way(tenant_id: str, wanted: Sequence[_Term]) -> Condition:
    """Conversations that have all of these words; those of the longest are gone through."""
    first = max(wanted, key=lambda term: len(term.values[0]))
    rest = [term for term in wanted if term is not first]
    more = "".join(f" AND {_has('f.conversation_id', term)}" for term in rest)
    more_values = tuple(value for term in rest for value in (tenant_id, *term.values))
    own = first.sql.replace("t.term", "f.term")
    return Condition(
        " AND ".join(_has("c.id", term) for term in wanted),
        tuple(value for term in wanted for value in (tenant_id, *term.values)),
        f"SELECT f.conversation_id FROM conversation_terms AS f WHERE f.tenant_id = ? AND {own}"
        f"{more}",
        (tenant_id, *first.values, *more_values),
    )


def _has(id_: str, term: _Term) -> str:
    return (
        "EXISTS (SELECT 1 FROM conversation_terms AS t WHERE t.tenant_id = ? "
        f"AND t.conversation_id = {id_} AND {term.sql})"
    )


def _one_of(tx: Tx, ids: list[str]) -> tuple[str, tuple[Any, ...]]:
    if tx.postgres:
        return "c.id = ANY(?::text[])", (ids,)
    return "c.id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
