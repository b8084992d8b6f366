"""Breakers, pins and the log of switches: one truth for all processes.

What an answer changes is decided by `gateway.breaker`, on the row as it stands, locked; a probe is
granted here or nowhere. Nothing here sends, and a healthy provider writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway import breaker
from gateway.breaker import Circuit, Policy, Sign, State
from gateway.clock import new_id
from gateway.store.batcher import Operation
from gateway.store.breaker_tables import breakers, switches
from gateway.store.rows import insert, select
from gateway.store.tx import Tx

KEY = ("connection", "provider", "sender")
COLUMNS = tuple(column.name for column in breakers.columns)
TOPIC = "breakers"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Whose breaker: a provider's over a connection, or that of one sender at it."""

    tenant_id: str
    connection: str
    provider: str
    sender: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Its primary key."""
        return self.connection, self.provider, self.sender


@dataclass(frozen=True, slots=True)
class Standing:
    """A breaker as it was written; of two of one place the higher version is the newer."""

    place: Place
    circuit: Circuit
    version: int
    switched: str | None = None  # by this very write


@dataclass(frozen=True, slots=True)
class Heard:
    """What one answer says. `luck` was drawn before, so that a batch can be repeated."""

    place: Place
    sign: Sign
    message: str
    luck: float
    policy: Policy
    token: str | None = None
    error: tuple[str, str] | None = None  # class and code


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody wants to probe."""

    place: Place
    token: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class Hurry:
    """Something was repaired: may be probed at once. `refused` of these providers what refused us
    or a sender; else everything of these places."""

    providers: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()


def hear(tx: Tx, items: Sequence[Heard]) -> Sequence[Standing | Exception]:
    """Applies answers to breakers. Gives each as it stands then."""
    book = _Book(tx, [item.place for item in items])
    results = []
    for item in items:
        now = book.circuit(item.place)
        after = breaker.heard(
            now,
            item.sign,
            message=item.message,
            now=tx.now,
            luck=item.luck,
            policy=item.policy,
            token=item.token,
            error=item.error,
        )
        results.append(book.turn(item.place, after))
    book.write()
    return [book.standing(place, switched) for place, switched in results]


def ask(tx: Tx, items: Sequence[Ask]) -> Sequence[Standing | Exception]:
    """Grants probes: to whom the breaker's token belongs then."""
    book = _Book(tx, [item.place for item in items])
    results = []
    for item in items:
        now = book.circuit(item.place)
        after = breaker.probing(now, item.token, tx.now, item.policy)
        if now.probe_token == item.token:
            after = None  # a commit that was thought to be lost came through after all
        results.append(book.turn(item.place, after or now))
    book.write()
    return [book.standing(place, switched) for place, switched in results]


def hurry(tx: Tx, items: Sequence[Hurry]) -> Sequence[list[Standing] | Exception]:
    """Lets breakers be probed at once, and what waits for a blocked sender be looked at."""
    wanted = [_hurried(tx, item) for item in items]
    book = _Book(tx, [place for places in wanted for place in places])
    for places in wanted:
        for place in places:
            book.turn(place, breaker.hurried(book.circuit(place), tx.now), "hurried")
    book.write()
    return [[book.standing(place) for place in places] for places in wanted]


def _hurried(tx: Tx, item: Hurry) -> list[Place]:
    named = {place.key for place in item.places}
    found = [
        row
        for row in listed(tx)
        if tuple(row[name] for name in KEY) in named
        or (
            row["provider"] in item.providers
            and row["error_reason"] in ("account_refused", "sender_refused")
        )
    ]
    return [place_of(row) for row in found if row["state"] != State.CLOSED]


class _Book:
    """The breakers of a transaction: locked in the order of their keys, changed, written once."""

    def __init__(self, tx: Tx, places: Iterable[Place]) -> None:
        self.tx = tx
        wanted = {place.key: place for place in places}
        new = [_row(wanted[key], Circuit(), 0, tx.now) for key in sorted(wanted)]
        # What was never heard of gets a row first, so that two processes lock the same one.
        known = {tuple(r) for r in select(tx, breakers, KEY, list(wanted), KEY)}
        missing = [row for row in new if tuple(row[name] for name in KEY) not in known]
        insert(tx, breakers, missing, "ON CONFLICT DO NOTHING")
        rows = select(tx, breakers, KEY, list(wanted), COLUMNS, lock=True)
        self.rows = {tuple(getattr(row, n) for n in KEY): dict(row._mapping) for row in rows}
        self.circuits = {key: circuit_of(row) for key, row in self.rows.items()}
        self.before = dict(self.circuits)
        self.log: list[Row] = []

    def circuit(self, place: Place) -> Circuit:
        """A breaker as it is becoming."""
        return self.circuits[place.key]

    def turn(
        self, place: Place, after: Circuit, what: str | None = None
    ) -> tuple[Place, str | None]:
        """Changes a breaker, and notes a switch."""
        now, self.circuits[place.key] = self.circuits[place.key], after
        if after.state is not now.state:
            what = _what(place, after.state)
        elif after == now:
            what = None
        if what is not None:
            self.log.append(_switch(place, what, after, self.tx.now))
        sooner = breaker.free_at(after, self.tx.now) < breaker.free_at(now, self.tx.now)
        if place.sender and sooner:
            self._wake({now.retry_at, now.probe_until})
        return place, what

    def _wake(self, moments: set[int]) -> None:
        """What was put off to exactly the end of a block is looked at now."""
        for moment in sorted(moments - {0}):
            done = self.tx.run(
                "UPDATE queue SET due_at = ? WHERE lease_until = 0 AND due_at = ? AND due_at > ?",
                (self.tx.now, moment, self.tx.now),
            )
            if done.rowcount:
                self.tx.topics.add("queue")

    def write(self) -> None:
        """Writes what changed, and tells all processes of it."""
        for key in sorted(self.circuits):
            if self.circuits[key] != self.before[key]:
                self._write(key)
        insert(self.tx, switches, self.log)

    def _write(self, key: tuple[Any, ...]) -> None:
        row = self.rows[key]
        place, version = place_of(row), int(row["version"]) + 1
        self.rows[key] = row = _row(place, self.circuits[key], version, self.tx.now)
        sets = [name for name in COLUMNS if name not in (*KEY, "tenant_id")]
        self.tx.run(
            f"UPDATE breakers SET {', '.join(f'{name} = ?' for name in sets)} "
            "WHERE connection = ? AND provider = ? AND sender = ?",
            [row[name] for name in sets] + list(key),
        )
        self.tx.topics.add(TOPIC)

    def standing(self, place: Place, switched: str | None = None) -> Standing:
        """A breaker as it was written."""
        version = int(self.rows[place.key]["version"])
        return Standing(place, self.circuits[place.key], version, switched)


def _what(place: Place, state: State) -> str:
    if not place.sender:
        return {State.OPEN: "opened", State.CLOSED: "closed"}.get(state, state.value)
    return {State.OPEN: "blocked", State.CLOSED: "unblocked"}.get(state, "half_open")


def _switch(place: Place, what: str, circuit: Circuit, now: int) -> Row:
    waits = circuit.state is State.OPEN
    return {
        "tenant_id": place.tenant_id,
        "id": new_id("sw"),
        "at": now,
        "provider": place.provider,
        "what": what,
        "connection": place.connection,
        "sender": place.sender or None,
        "channel": None,
        "error_reason": circuit.error_reason,
        "error_code": circuit.error_code,
        "until": circuit.retry_at if waits else None,
    }


def _row(place: Place, circuit: Circuit, version: int, now: int) -> Row:
    return {
        "tenant_id": place.tenant_id,
        "connection": place.connection,
        "provider": place.provider,
        "sender": place.sender,
        "state": circuit.state.value,
        "failures": circuit.failures,
        "messages": json.dumps(circuit.messages),
        "successes": circuit.successes,
        "openings": circuit.openings,
        "opened_at": circuit.opened_at,
        "retry_at": circuit.retry_at,
        "probe_token": circuit.probe_token,
        "probe_until": circuit.probe_until,
        "error_reason": circuit.error_reason,
        "error_code": circuit.error_code,
        "updated_at": now,
        "version": version,
    }


def place_of(row: Row) -> Place:
    """Whose a row is."""
    return Place(row["tenant_id"], row["connection"], row["provider"], row["sender"])


def circuit_of(row: Row) -> Circuit:
    """Where a row's breaker stands."""
    return Circuit(
        state=State(row["state"]),
        failures=row["failures"],
        messages=tuple(json.loads(row["messages"])),
        successes=row["successes"],
        openings=row["openings"],
        opened_at=row["opened_at"],
        retry_at=row["retry_at"],
        probe_token=row["probe_token"],
        probe_until=row["probe_until"],
        error_reason=row["error_reason"],
        error_code=row["error_code"],
    )


def listed(tx: Tx) -> list[Row]:
    """Every breaker that ever had something to tell, by its key."""
    found = tx.run(f"SELECT {', '.join(COLUMNS)} FROM breakers ORDER BY {', '.join(KEY)}")
    return [dict(row._mapping) for row in found.fetchall()]


def _repeatable(tx: Tx, items: Sequence[Any]) -> bool:
    return False  # a failure that counts twice only opens a breaker sooner


HEAR: Operation[Heard, Standing] = Operation("hear", 19, hear, _repeatable)
ASK: Operation[Ask, Standing] = Operation("ask", 24, ask, _repeatable)
HURRY: Operation[Hurry, list[Standing]] = Operation("hurry", 23, hurry, _repeatable)
