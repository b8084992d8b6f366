"""Messages that are found by their words, newest first, from the index of the search.

Work is bounded, whatever is asked. FTS5 gives its matches in the order of the list and stops when
there are enough. PostgreSQL gathers all matches first: where those would be many, the newest
messages are looked through before its index is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import first_id
from gateway.store.message_lists import COLUMNS, DRIFT, EQUAL, Asked
from gateway.store.rows import select
from gateway.store.tables import messages
from gateway.store.tx import Tx
from gateway.words import MARK, Question, in_conversation, tenant_code

KEY = ("tenant_id", "id")
NEWEST = 2**62
MANY = 1000  # messages with the words, by PostgreSQL's own estimate, that are too many to gather
WINDOW = 5000  # messages that are looked through then
ENOUGH = 50  # of them with the words, and its index is not asked
STEP = 200  # messages that are read at once to be compared with other filters
EXAMINED = 1000  # messages that are read for a page; then it ends short
MARKED = frozenset({"conversation_id", "channel", "direction"})  # filters that are words, too
LONGEST_BEGINNING = 15  # characters of a word that is only begun, as FTS5 has indexes for

Row = dict[str, Any]
Between = tuple[int, int]  # two places, neither of them included


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that was found, by its place in the index."""

    n: int
    message_id: str
    conversation_id: str


@dataclass(frozen=True, slots=True)
class Hits:
    """What was found, newest first, down to the place `reached`; None: down to the end."""

    found: list[Hit]
    reached: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """What was found, and where the search goes on; None: nowhere."""

    rows: list[Row]
    following: int | None


def found_messages(
    tx: Tx, tenant_id: str, asked: Question, only: Asked, before: int | None, limit: int
) -> Page:
    """Messages with these words that the other filters leave, newest first. A page may be short,
    or empty, where many have the words and few pass the filters."""
    if not asked:
        return Page([], None)
    low, high = _bounds(tx, tenant_id, only)
    at = high if before is None else min(before, high)
    filtered = bool(only.filters.keys() - MARKED) or (only.after or only.before) is not None
    step = max(STEP, limit + 1) if filtered else limit + 1
    rows: list[Row] = []
    examined = 0
    while True:
        hits = hits_of(tx, tenant_id, asked, (low, at), step, _marks(only))
        for hit, row in _read(tx, tenant_id, hits.found):
            passes = row is not None and _passes(row, only)
            if passes and len(rows) == limit:
                return Page(rows, at)
            at = hit.n
            rows += [row] if row is not None and passes else []
        examined += max(1, len(hits.found))
        if hits.reached is None or examined >= EXAMINED:
            return Page(rows, hits.reached)
        at = hits.reached


def _marks(only: Asked) -> list[str]:
    """The words of the filters that have some."""
    found = []
    if "conversation_id" in only.filters:
        found.append(in_conversation(only.filters["conversation_id"]))
    for name in ("channel", "direction"):
        first = only.filters.get(name, "")[:1]
        if first.isascii() and first.isalnum():
            found.append(f"{MARK}{name[:1]}{first}")
    return found


def _bounds(tx: Tx, tenant_id: str, only: Asked) -> Between:
    """The places between which a time lies."""
    low, high = -NEWEST, NEWEST
    if only.before is not None:
        high = _first_at(tx, tenant_id, only.before + DRIFT)
    if only.after is not None:
        low = _first_at(tx, tenant_id, max(0, only.after - DRIFT)) - 1
    return low, high


def _first_at(tx: Tx, tenant_id: str, moment: int) -> int:
    """The place of the first message from a moment on; one after all others where there is none."""
    n = tx.run(
        "SELECT n FROM search_documents WHERE tenant_id = ? AND message_id >= ? "
        "ORDER BY message_id LIMIT 1",
        (tenant_id, first_id("msg", moment)),
    ).scalar()
    return NEWEST if n is None else int(n)


def hits_of(
    tx: Tx,
    tenant_id: str,
    asked: Question,
    between: Between = (-NEWEST, NEWEST),
    limit: int = STEP,
    marks: Sequence[str] = (),
) -> Hits:
    """The places of the newest messages with these words and marks."""
    code = tenant_code(tenant_id)
    *whole, last = asked.words
    exact = [code + word for word in (*whole, *marks)]
    begun = code + last
    if len(last) > LONGEST_BEGINNING:
        exact, begun = [*exact, begun], ""
    find = _postgres if tx.postgres else _sqlite
    return find(tx, tenant_id, exact, begun, between, limit)


def _hits(rows: Sequence[Any], limit: int) -> Hits:
    found = [Hit(int(row.n), row.message_id, row.conversation_id) for row in rows]
    return Hits(found, found[-1].n if len(found) == limit else None)


def _sqlite(
    tx: Tx, tenant_id: str, exact: list[str], begun: str, between: Between, limit: int
) -> Hits:
    parts = [f'"{word}"' for word in exact] + ([f'"{begun}" *'] if begun else [])
    rows = tx.run(
        "SELECT d.n, d.message_id, d.conversation_id FROM search_words AS f "
        "CROSS JOIN search_documents AS d ON d.n = f.rowid "
        "WHERE search_words MATCH ? AND f.rowid > ? AND f.rowid < ? AND d.tenant_id = ? "
        "ORDER BY f.rowid DESC LIMIT ?",
        (" AND ".join(parts), *between, tenant_id, limit),
    ).fetchall()
    return _hits(rows, limit)


def _postgres(
    tx: Tx, tenant_id: str, exact: list[str], begun: str, between: Between, limit: int
) -> Hits:
    tx.run("SET LOCAL plan_cache_mode = force_custom_plan")  # words differ in how common they are
    all_exact = " & ".join(f"'{word}'" for word in exact)
    only_begun = f"'{begun}':*" if begun else ""
    query = " & ".join(part for part in (all_exact, only_begun) if part)
    if _many(tx, query):
        hits = _among_newest(tx, tenant_id, query, between, limit)
        if hits is not None:
            return hits
    # All words that begin like a common one would be gathered before the rest is looked at.
    narrow = all_exact if exact and begun and _many(tx, only_begun) else query
    rows = tx.run(
        "WITH found AS MATERIALIZED (SELECT n, message_id, conversation_id, words "
        "FROM search_documents WHERE words @@ ?::tsquery AND tenant_id = ? AND n > ? AND n < ?) "
        "SELECT n, message_id, conversation_id FROM found WHERE words @@ ?::tsquery "
        "ORDER BY n DESC LIMIT ?",
        (narrow, tenant_id, *between, query, limit),
    ).fetchall()
    return _hits(rows, limit)


def _many(tx: Tx, query: str) -> bool:
    """Whether many messages have these words, as far as PostgreSQL's statistics know."""
    told: Any = tx.run(
        "EXPLAIN (FORMAT JSON) SELECT n FROM search_documents WHERE words @@ ?::tsquery", (query,)
    ).scalar()
    return bool(told[0]["Plan"]["Plan Rows"] > MANY)


def _among_newest(tx: Tx, tenant_id: str, query: str, between: Between, limit: int) -> Hits | None:
    """What is found among the newest messages; None: not enough."""
    newest = (
        "FROM search_documents WHERE tenant_id = ? AND n > ? AND n < ? "
        f"ORDER BY n DESC LIMIT {WINDOW}"
    )
    hits = _hits(
        tx.run(
            "SELECT n, message_id, conversation_id FROM "
            f"(SELECT n, message_id, conversation_id, words {newest}) AS newest "
            "WHERE words @@ ?::tsquery ORDER BY n DESC LIMIT ?",
            (tenant_id, *between, query, limit),
        ).fetchall(),
        limit,
    )
    if hits.reached is not None:
        return hits
    if len(hits.found) < ENOUGH:
        return None
    last = f"SELECT n FROM (SELECT n {newest}) AS newest ORDER BY n LIMIT 1"
    return Hits(hits.found, int(tx.run(last, (tenant_id, *between)).scalar()))


def _read(tx: Tx, tenant_id: str, hits: Sequence[Hit]) -> list[tuple[Hit, Row | None]]:
    keys = [(tenant_id, hit.message_id) for hit in hits]
    found = {r.id: dict(r._mapping) for r in select(tx, messages, KEY, keys, COLUMNS)}
    return [(hit, found.get(hit.message_id)) for hit in hits]


def _passes(row: Row, only: Asked) -> bool:
    if only.after is not None and row["created_at"] < only.after:
        return False
    if only.before is not None and row["created_at"] >= only.before:
        return False
    return all(row[EQUAL[name]] == value for name, value in only.filters.items())
