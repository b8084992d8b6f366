"""Opt-outs in the database: whom not to write to, and what each word about it changes.

A person is every address that an alias joins. The newest word counts, by the time it was said; all
words are kept. Nothing here sends, or ends a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.domain import Status
from gateway.opt_outs import (
    OPERATORS,
    REASON,
    TEXTS,
    Known,
    Source,
    State,
    Verdict,
    code_of,
    decide,
    detail_of,
    same_person,
)
from gateway.recipients import copies
from gateway.store.conversations import ALIASED
from gateway.store.database import Again
from gateway.store.opt_out_tables import opt_out_events, opt_outs
from gateway.store.rows import insert, select, update
from gateway.store.tables import aliases, conversations, messages
from gateway.store.tx import Tx
from gateway.views import opt_out_view

KEY = ("tenant_id", "channel", "address")
COLUMNS = tuple(column.name for column in opt_outs.columns)
JOINED = "t.channel IN ('whatsapp', 'rcs')"  # those of ALIASED, as the index has them
ROUNDS = 3  # a person's addresses lead to further ones

# The columns of a message that is not sent because of it, and of one that may be.
REJECTED = {"status": Status.REJECTED.value, "ended_as": Status.REJECTED.value}
NOT_REJECTED: dict[str, Any] = {"ended_as": None, "error_code": None, "error_message": None}

Person = tuple[str, str, str]  # tenant, channel, address
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """What somebody said about writing to a person. `id` makes it once in the history."""

    id: str
    tenant_id: str
    channel: str
    address: str
    state: State
    source: Source
    said_at: int | None = None  # milliseconds; None: now
    weak: bool = False
    only_known: bool = False  # nothing is to be said of people whom nobody spoke of
    detail: str | None = None
    also: tuple[str, ...] = ()  # further addresses of the same person
    connection: str | None = None
    our_address: str | None = None
    message_id: str | None = None
    attempt_id: str | None = None
    inbox_id: str | None = None
    conversation_id: str | None = None

    @property
    def people(self) -> list[Person]:
        """Whom it is about, by each address that it names."""
        return [_person(self.tenant_id, self.channel, a) for a in (self.address, *self.also)]


def _person(tenant_id: str, channel: str, address: str) -> Person:
    return tenant_id, channel, same_person(channel, address)


def blocked(tx: Tx, people: Iterable[Person]) -> dict[Person, str]:
    """Which of these people are not to be written to, of (tenant, channel, address), with the
    code that says why. Where nobody on their channels has opted out, that is one look at an
    index."""
    asked = {person: _person(*person) for person in people}
    if not asked or not _anybody(tx, sorted({channel for _, channel, _ in asked})):
        return {}
    groups = _groups(tx, [[person] for person in asked.values()])
    columns = (*KEY, "state", "source", "said_at", "detail")
    rows = select(tx, opt_outs, KEY, [p for group in groups for p in group], columns)
    known = {tuple(row[:3]): _known(row._mapping) for row in rows}
    out = {}
    for person, group in zip(asked, groups, strict=True):
        newest = _newest(known, group)
        if newest is not None and newest.state is State.OUT:
            out[person] = code_of(person[1], newest.detail)
    return out


def people_of(tenant_id: str, row: Mapping[str, Any]) -> list[Person]:
    """Whom a message goes to: the person that it is to, then those of its copies."""
    people = (row["to_address"], *copies(row))
    return [(tenant_id, row["channel"], address) for address in people]


def refusal(people: Sequence[Person], out: Mapping[Person, str]) -> Row | None:
    """The error of a message to these people, where one of them is blocked."""
    person = next((each for each in people if each in out), None) if out else None
    if person is None:
        return None
    text = TEXTS[out[person]]
    if person is not people[0]:
        text = f"{person[2]}, whom it is copied to: {text}"
    return {"error_code": out[person], "error_message": text, "error_provider": None}


def everybody(tx: Tx, tenant_id: str, channel: str, *names: str) -> list[Person]:
    """One person by each address that is known, the given ones first."""
    return _groups(tx, [[_person(tenant_id, channel, name) for name in names]])[0]


def told(row: Mapping[str, Any]) -> Row:
    """What the event of a message says beside its status, where it was rejected."""
    if row["error_code"] is None:
        return {}
    return {"error": {"code": row["error_code"], "message": row["error_message"], "provider": None}}


def _anybody(tx: Tx, channels: Sequence[str]) -> bool:
    marks = ", ".join("?" * len(channels))
    sql = f"SELECT 1 FROM opt_outs WHERE state = 'out' AND channel IN ({marks}) LIMIT 1"
    return tx.run(sql, channels).fetchone() is not None


def _known(row: Mapping[str, Any]) -> Known:
    source, said_at = Source(row["source"]), int(row["said_at"])
    return Known(State(row["state"]), source, said_at, row["detail"])


def _newest(known: Mapping[Person, Known], group: Sequence[Person]) -> Known | None:
    """What holds for a person: the newest word about any of their addresses; of equals the stop."""
    found = [known[person] for person in group if person in known]
    return max(found, key=lambda k: (k.said_at, k.state is State.OUT), default=None)


def _groups(tx: Tx, named: Sequence[Sequence[Person]]) -> list[list[Person]]:
    """All addresses of each person who is named by some, those first."""
    groups = [dict.fromkeys(group) for group in named]
    fresh = {person for group in groups for person in group if person[1] in ALIASED}
    seen: set[Person] = set()
    for _ in range(ROUNDS):
        if not fresh:
            break
        seen |= fresh
        joined = _joined(tx, sorted(fresh))
        for group in groups:
            for person in list(group):
                group.update(dict.fromkeys(sorted(joined.get(person, ()))))
        fresh = {person for group in groups for person in group if person[1] in ALIASED} - seen
    return [list(group) for group in groups]


def _joined(tx: Tx, people: Sequence[Person]) -> dict[Person, set[Person]]:
    """The people who share a conversation with each of these: they are the same."""
    heads = select(tx, conversations, KEY, people, (*KEY, "id"), only=JOINED)
    named = select(tx, aliases, KEY, people, (*KEY, "conversation_id"))
    of = [(row.tenant_id, row.id) for row in heads]
    of += [(row.tenant_id, row.conversation_id) for row in named]
    members: dict[tuple[str, str], set[Person]] = {}
    for row in select(tx, conversations, ("tenant_id", "id"), of, (*KEY, "id")):
        members.setdefault((row.tenant_id, row.id), set()).add(tuple(row[:3]))
    keys = ("tenant_id", "conversation_id")
    for row in select(tx, aliases, keys, of, (*KEY, "conversation_id")):
        members.setdefault((row.tenant_id, row.conversation_id), set()).add(tuple(row[:3]))
    found: dict[Person, set[Person]] = {}
    for group in members.values():
        for person in group:
            found.setdefault(person, set()).update(group)
    return found


def apply(tx: Tx, words: Sequence[Word]) -> list[Row | None]:
    """Takes words in their order. Gives what holds for each person now, None where nothing was
    ever said of them."""
    if not words:
        return []
    groups = _groups(tx, [word.people for word in words])
    wanted = [person for group in groups for person in group]
    there = {
        tuple(row[:3]): dict(row._mapping)
        for row in select(tx, opt_outs, KEY, wanted, COLUMNS, lock=True)
    }
    book = _Book(tx, dict(there), heard(tx, words))
    results = [book.take(word, group) for word, group in zip(words, groups, strict=True)]
    _write(tx, there, book)
    return results


def heard(tx: Tx, words: Sequence[Word]) -> set[tuple[str, str]]:
    """Which of these words were taken before, by tenant and id."""
    keys = ("tenant_id", "id")
    named = [(word.tenant_id, word.id) for word in words]
    return {tuple(row) for row in select(tx, opt_out_events, keys, named, keys)}


@dataclass
class _Book:
    """The rows that a transaction changes, as they are becoming."""

    tx: Tx
    rows: dict[Person, Row]
    heard: set[tuple[str, str]]  # words that were taken before
    history: list[Row] = field(default_factory=list)

    def take(self, word: Word, group: Sequence[Person]) -> Row | None:
        """Applies one word to a person, once."""
        if (word.tenant_id, word.id) not in self.heard:
            self.heard.add((word.tenant_id, word.id))
            self._take(word, group)
        found = [self.rows[person] for person in group if person in self.rows]
        return max(found, key=lambda row: int(row["said_at"]), default=None)

    def _take(self, word: Word, group: Sequence[Person]) -> None:
        now = self.tx.now
        said_at = now if word.said_at is None else min(word.said_at, now)
        mine = {person: self.rows[person] for person in group if person in self.rows}
        known = _newest({person: _known(row) for person, row in mine.items()}, group)
        if known is None and word.only_known:
            return
        verdict = decide(known, word.state, word.source, said_at, now, weak=word.weak)
        if verdict is not None:
            self.history.append(_event(word, group[0], verdict, said_at, now))
        if verdict is Verdict.APPLIED or verdict is Verdict.REPEATED:
            self._change(word, verdict, [group[0], *mine], max(said_at, _said(known)))
        if verdict is Verdict.APPLIED and (known is not None or word.state is State.OUT):
            self._tell(word, group[0])

    def _change(self, word: Word, verdict: Verdict, people: list[Person], said_at: int) -> None:
        """Brings every row of the person to what holds. A repetition leaves the proof as it is,
        unless it is an operator who blocks."""
        operators = word.source in OPERATORS and word.state is State.OUT
        takes_over = verdict is Verdict.APPLIED or operators
        for person in dict.fromkeys(people):
            row = self.rows.get(person)
            if row is None or takes_over or row["state"] != word.state:
                kept = {"since": row["since"]} if row and row["state"] == word.state else {}
                made = {"created_at": row["created_at"]} if row else {}
                row = {**_row(word, person, said_at, self.tx.now), **kept, **made}
            self.rows[person] = {**row, "said_at": said_at}

    def _tell(self, word: Word, person: Person) -> None:
        self.tx.emit(
            word.tenant_id,
            "contact.opted_out" if word.state is State.OUT else "contact.opted_in",
            conversation_id=word.conversation_id,
            change=opt_out_view(self.rows[person]),
        )


def _said(known: Known | None) -> int:
    return known.said_at if known is not None else 0


def _row(word: Word, person: Person, said_at: int, now: int) -> Row:
    return {
        **dict(zip(KEY, person, strict=True)),
        "state": word.state.value,
        **_proof(word),
        "since": said_at,
        "said_at": said_at,
        "created_at": now,
        "updated_at": now,
    }


def _event(word: Word, person: Person, verdict: Verdict, said_at: int, now: int) -> Row:
    return {
        **dict(zip(KEY, person, strict=True)),
        "id": word.id,
        "state": word.state.value,
        **_proof(word),
        "verdict": verdict.value,
        "said_at": said_at,
        "created_at": now,
    }


def _proof(word: Word) -> Row:
    return {
        "source": word.source.value,
        "detail": word.detail,
        "connection": word.connection,
        "our_address": word.our_address,
        "message_id": word.message_id,
        "attempt_id": word.attempt_id,
        "inbox_id": word.inbox_id,
    }


def _write(tx: Tx, there: Mapping[Person, Row], book: _Book) -> None:
    made = [book.rows[person] for person in sorted(book.rows) if person not in there]
    done = insert(tx, opt_outs, made, "ON CONFLICT DO NOTHING RETURNING address")
    if len(done) < len(made):
        raise Again  # another process heard of them a moment ago
    changed = [book.rows[person] for person in sorted(there) if book.rows[person] != there[person]]
    update(tx, opt_outs, KEY, changed)
    told = insert(tx, opt_out_events, book.history, "ON CONFLICT DO NOTHING RETURNING id")
    if len(told) < len(book.history):
        raise Again


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A vendor's word that the person of one of our messages has opted out, or is nobody. `at` is
    when the attempt began, in milliseconds: a person who has come back since then has come back."""

    id: str  # what the word is known by: the receipt's, or the attempt's
    tenant_id: str
    message_id: str
    attempt_id: str
    at: int
    connection: str
    detail: str | None = None
    sender: str | None = None
    inbox_id: str | None = None


def said_by(attempt: Mapping[str, Any], reason: str, code: str) -> list[Refused]:
    """What a vendor's answer to an attempt says about its person, if anything."""
    detail = detail_of(reason, code)
    if detail is None:
        return []
    return [
        Refused(
            id=attempt["id"],
            tenant_id=attempt["tenant_id"],
            message_id=attempt["message_id"],
            attempt_id=attempt["id"],
            at=attempt["started_at"],
            connection=attempt["connection"],
            detail=detail,
            sender=attempt["sender"],
        )
    ]


def said_in(attempt: Mapping[str, Any], receipt: Mapping[str, Any]) -> Refused:
    """The same, of a callback about an attempt."""
    (said,) = said_by(attempt, REASON, receipt["error_code"])
    return replace(said, id=receipt["id"], inbox_id=receipt["inbox_id"])


def refused(tx: Tx, said: Sequence[Refused]) -> None:
    """Takes vendors' words about the people of our messages."""
    if not said:
        return
    columns = ("tenant_id", "id", "channel", "to_address", "from_address", "conversation_id")
    keys = [(item.tenant_id, item.message_id) for item in said]
    rows = {tuple(r[:2]): r for r in select(tx, messages, ("tenant_id", "id"), keys, columns)}
    apply(
        tx,
        [
            Word(
                id=word_id(item.id),
                tenant_id=item.tenant_id,
                channel=row.channel,
                address=row.to_address,
                state=State.OUT,
                source=Source.VENDOR,
                said_at=item.at,
                detail=item.detail,
                connection=item.connection,
                our_address=item.sender or row.from_address,
                message_id=item.message_id,
                attempt_id=item.attempt_id,
                inbox_id=item.inbox_id,
                conversation_id=row.conversation_id,
            )
            for item in said
            if (row := rows.get((item.tenant_id, item.message_id))) is not None
        ],
    )


def word_id(of: str) -> str:
    """The id of a word that something of ours brought: once said, it is said once."""
    return f"opt_{of.partition('_')[2]}"
