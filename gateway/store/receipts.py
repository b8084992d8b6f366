"""What vendors say of our attempts: each callback kept once, applied where it belongs.

A receipt settles an attempt only if connection, account, recipient and any vendor id agree;
otherwise it is kept and marked. One that comes before its attempt is known waits for it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import routing
from gateway.clock import first_id, new_id, to_ms
from gateway.domain import OnUnknown, Status, StatusUpdate
from gateway.errors import Throttled
from gateway.opt_outs import REASON as OPTED_OUT
from gateway.routing import Tried
from gateway.status import RANKS
from gateway.store import opt_outs
from gateway.store.claims import names
from gateway.store.ledger import Ledger, MessageKey, Thread
from gateway.store.rows import insert, select, update
from gateway.store.tables import attempts, receipts
from gateway.store.tx import Tx

COLUMNS = tuple(column.name for column in receipts.columns)
LOCATION = ("tenant_id", "message_id", "id", "connection", "provider_message_id")

log = logging.getLogger("gateway.store")

MISSED = 600_000  # milliseconds
BELIEVED = ("applied", "kept")
THROTTLED = "throttled"
PAUSE = 60.0  # seconds, doubled each time, until who throttled a message is asked for it again

Row = dict[str, Any]


def receipt_row(
    tx: Tx,
    tenant_id: str,
    connection: str,
    inbox_id: str | None,
    said: StatusUpdate,
    source: str = "callback",
) -> Row:
    """A status update as it is stored."""
    error = said.error
    return {
        "tenant_id": tenant_id,
        "id": new_id("rcp"),
        "connection": connection,
        "dedupe_key": f"{said.dedupe_key}:{said.attempt_id or ''}",
        "inbox_id": inbox_id,
        "source": source,
        "attempt_id": said.attempt_id,
        "provider_message_id": said.provider_message_id,
        "account": said.account,
        "sender": said.sender,
        "recipient": said.recipient,
        "status": said.status.value,
        "vendor_status": said.vendor_status[:64],
        "error_reason": error.reason if error else None,
        "error_code": error.code if error else None,
        "error_message": error.message if error else None,
        "segments": said.segments,
        "cost": str(said.cost.amount) if said.cost else None,
        "currency": said.cost.currency if said.cost else None,
        "occurred_at": to_ms(said.occurred_at) if said.occurred_at else None,
        "received_at": tx.now,
        "verdict": "parked",
    }


def keep(tx: Tx, rows: Sequence[Row]) -> list[Row]:
    """Stores receipts and gives back those that were new."""
    unique = {(row["connection"], row["dedupe_key"]): row for row in reversed(rows)}
    ordered = [unique[key] for key in sorted(unique)]
    made = {r.id for r in insert(tx, receipts, ordered, "ON CONFLICT DO NOTHING RETURNING id")}
    return [row for row in rows if row["id"] in made]


def apply(tx: Tx, rows: Sequence[Row]) -> None:
    """Applies receipts, in their order, to the attempts they are about."""
    places = _places(tx, rows)
    ledger = Ledger(tx, sorted({place for place in places.values() if place is not None}))
    for row in rows:
        place = places[row["id"]]
        thread = ledger.get(place) if place else None
        if thread is not None:
            _apply(tx, ledger, thread, row)
    ledger.write()
    _verdicts(tx, [row for row in rows if row["verdict"] != "parked"])
    _hear(tx, ledger, rows)


def apply_parked(tx: Tx, ledger: Ledger, attempt_ids: Sequence[str]) -> None:
    """Applies what came for these attempts before they were known by the vendor's id."""
    by_id = {
        (a["connection"], a["provider_message_id"]): thread
        for thread in ledger
        for a in thread.attempts
        if a["id"] in attempt_ids and a["provider_message_id"] is not None
    }
    keys = ("connection", "provider_message_id")
    rows = [dict(r._mapping) for r in select(tx, receipts, keys, list(by_id), COLUMNS)]
    waiting = [row for row in rows if row["verdict"] == "parked"]
    for row in sorted(waiting, key=lambda r: str(r["id"])):
        _apply(tx, ledger, by_id[(row["connection"], row["provider_message_id"])], row)
    _verdicts(tx, [row for row in waiting if row["verdict"] != "parked"])
    _hear(tx, ledger, waiting)


def _hear(tx: Tx, ledger: Ledger, rows: Sequence[Row]) -> None:
    """Passes on that people have opted out, of what was believed."""
    told = [r for r in rows if r["error_reason"] == OPTED_OUT and r["verdict"] in BELIEVED]
    if told:
        by_id = {a["id"]: a for thread in ledger for a in thread.attempts}
        said = (opt_outs.said_in(by_id[row["attempt_id"]], row) for row in told)
        opt_outs.refused(tx, list(said))


def apply_missed(tx: Tx) -> None:
    """Applies parked receipts whose attempt is known by now: when two processes stored the two
    at the same moment, neither saw the other's."""
    names = ", ".join(f"r.{name}" for name in COLUMNS)
    found = tx.run(
        f"SELECT {names} FROM receipts AS r JOIN attempts AS a "
        "ON a.connection = r.connection AND a.provider_message_id = r.provider_message_id "
        "WHERE r.verdict = 'parked' AND r.id > ? ORDER BY r.id LIMIT 500",
        (first_id("rcp", tx.now - MISSED),),
    ).fetchall()
    apply(tx, [dict(row._mapping) for row in found])


def _places(tx: Tx, rows: Sequence[Row]) -> dict[str, MessageKey | None]:
    """The message of each receipt: by our attempt id where the callback carries it."""
    by_ours = {
        r.id: (r.tenant_id, r.message_id)
        for r in select(
            tx, attempts, ("id",), [(r["attempt_id"],) for r in rows if r["attempt_id"]], LOCATION
        )
    }
    keys = ("connection", "provider_message_id")
    theirs = [(r["connection"], r["provider_message_id"]) for r in rows if r["provider_message_id"]]
    by_theirs = {
        (r.connection, r.provider_message_id): (r.tenant_id, r.message_id)
        for r in select(tx, attempts, keys, theirs, LOCATION)
    }
    return {
        row["id"]: by_ours.get(row["attempt_id"])
        or by_theirs.get((row["connection"], row["provider_message_id"]))
        for row in rows
    }


def _find(thread: Thread, row: Row) -> Row | None:
    if row["attempt_id"]:
        return thread.attempt(row["attempt_id"])
    for attempt in thread.attempts:
        if all(attempt[name] == row[name] for name in ("connection", "provider_message_id")):
            return attempt
    return None


def contradicts(attempt: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """Which fact of a receipt contradicts the attempt that it names, if any."""
    if attempt["tenant_id"] != row["tenant_id"]:
        return "tenant"
    if attempt["connection"] != row["connection"]:
        return "connection"
    for ours, theirs, fact in (
        ("account", "account", "account"),
        ("recipient", "recipient", "recipient"),
        ("provider_message_id", "provider_message_id", "provider_message_id"),
    ):
        if attempt[ours] and row[theirs] and attempt[ours] != row[theirs]:
            return fact
    return None


def _apply(tx: Tx, ledger: Ledger, thread: Thread, row: Row) -> None:
    attempt, id_ = _find(thread, row), row["provider_message_id"]
    fact = contradicts(attempt, row) if attempt is not None else "attempt"
    if attempt is None or fact or not _binds(tx, ledger, attempt, id_):
        row["verdict"] = "foreign"
        about, fact = thread.message["id"], fact or "provider_message_id"
        log.warning("a callback about %s is of another %s; it changes nothing", about, fact)
        return
    moved = thread.evidence(
        attempt,
        Status(row["status"]),
        row["occurred_at"] or row["received_at"],
        provider_message_id=id_,
        segments=row["segments"],
        cost=row["cost"],
        currency=row["currency"],
        sender=row["sender"],
        error_reason=row["error_reason"],
        error_code=row["error_code"],
        error_message=row["error_message"],
        settled_by=row["source"] if attempt["rank"] <= RANKS[Status.UNKNOWN] else None,
    )
    row["verdict"] = "applied" if moved else "kept"
    row["attempt_id"] = attempt["id"]
    ended = thread.newest is attempt and thread.under_way and attempt["status"] != Status.SENDING
    if ended or thread.taken:  # a word about an older attempt leaves the next one be, else
        thread.dequeue()
    if moved and row["error_reason"] == THROTTLED and thread.newest is attempt:
        _again(tx, thread)
    thread.note()


def _again(tx: Tx, thread: Thread) -> None:
    """Makes a next attempt due: the vendor took the message, and then had no room for it. As after
    a refusal of that class: at once where another one of its providers was asked less often."""
    attempt, made = thread.attempts[-1], len(thread.attempts)
    tried = tuple(Tried(a["provider"], a["error_reason"], a["error_code"]) for a in thread.attempts)
    rounds = routing.attempts_at(tried)[attempt["provider"]]
    error = Throttled("", retry_after=PAUSE * 2.0 ** min(rounds - 1, 30))
    route = attempt["route"] or attempt["provider"]
    elsewhere = routing.fresher(names(route), tried)
    following = routing.after(
        error,
        made=made,
        rounds=rounds,
        elsewhere=elsewhere,
        others=elsewhere,
        on_unknown=OnUnknown(thread.message["on_unknown"]),
        policy=tx.retry,
        luck=random.random(),
    )
    ended = thread.taken or thread.message["ended_as"] is not None
    if ended or following.retry_in is None:
        return
    due = tx.now + int(following.retry_in * 1000)
    if due < thread.message["expires_at"]:
        attempt["retry_at"] = tx.now + int(routing.patience(error, tx.retry) * 1000)
        thread.requeue(due, attempts=made, route=route)


def _binds(tx: Tx, ledger: Ledger, attempt: Mapping[str, Any], id_: str | None) -> bool:
    """Whether a vendor's id is this attempt's or nobody's: it binds to one attempt for ever."""
    if id_ is None or id_ == attempt["provider_message_id"]:
        return True
    key = (attempt["connection"], id_)
    if key not in ledger.owners:
        keys = ("connection", "provider_message_id")
        taken = select(tx, attempts, keys, [key], ("id",))
        ledger.owners[key] = taken[0].id if taken else attempt["id"]
    return bool(ledger.owners[key] == attempt["id"])


def _verdicts(tx: Tx, rows: Sequence[Row]) -> None:
    changed = [
        {"id": row["id"], "verdict": row["verdict"], "attempt_id": row["attempt_id"]}
        for row in sorted(rows, key=lambda r: str(r["id"]))
    ]
    update(tx, receipts, ("id",), changed)
