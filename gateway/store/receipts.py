"""What vendors say of our attempts: each callback kept once, applied where it belongs.

A receipt settles an attempt only if connection, account, recipient and any vendor id agree;
otherwise it is kept and marked. One that comes before its attempt is known waits for it.
"""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import routing
from gateway.clock import first_id, new_id, to_ms
from gateway.domain import OnUnknown, Status, StatusUpdate
from gateway.errors import Throttled
from gateway.opt_outs import REASON as OPTED_OUT
from gateway.routing import Tried
from gateway.status import RANKS
from gateway.store import conversations, opt_outs
from gateway.store.claims import names
from gateway.store.ledger import Ledger, MessageKey, Thread
from gateway.store.rows import insert, select, update
from gateway.store.tables import attempts, receipts
from gateway.store.tx import Tx

COLUMNS = tuple(column.name for column in receipts.columns)
IDS = ("provider_message_id", "network_id")  # of an attempt: either finds it
LOCATION = ("tenant_id", "message_id", "id", "connection", *IDS)

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
        "provider_message_id": said.provider_message_id or said.network_id,
        "network_id": said.network_id,
        "account": said.account,
        "sender": said.sender,
        "recipient": said.recipient,
        "aliases": json.dumps(said.aliases) if said.aliases else None,
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
    learned: list[str] = []
    for row in rows:
        place = places[row["id"]]
        thread = ledger.get(place) if place else None
        if thread is not None and _apply(tx, ledger, thread, row):
            learned.append(row["attempt_id"])
    _verdicts(tx, [row for row in rows if row["verdict"] != "parked"])
    if learned:  # what came before under the network's id only
        apply_parked(tx, ledger, learned)
    ledger.write()
    _hear(tx, ledger, rows)


def apply_parked(tx: Tx, ledger: Ledger, attempt_ids: Sequence[str]) -> None:
    """Applies what came for these attempts before they were known by the vendor's id; and what
    that teaches."""
    by_id = {
        (a["connection"], a[name]): thread
        for thread in ledger
        for a in thread.attempts
        for name in IDS
        if a["id"] in attempt_ids and a[name] is not None
    }
    keys = ("connection", "provider_message_id")
    # Only so is there an index: what was ever said over a connection is not to be read each time.
    found = select(tx, receipts, keys, list(by_id), COLUMNS, only="t.verdict = 'parked'")
    waiting = [dict(row._mapping) for row in found]
    learned: list[str] = []
    for row in sorted(waiting, key=lambda r: str(r["id"])):
        thread = by_id[(row["connection"], row["provider_message_id"])]
        if _apply(tx, ledger, thread, row):
            learned.append(row["attempt_id"])
    _verdicts(tx, [row for row in waiting if row["verdict"] != "parked"])
    _hear(tx, ledger, waiting)
    if learned:
        apply_parked(tx, ledger, learned)


def _hear(tx: Tx, ledger: Ledger, rows: Sequence[Row]) -> None:
    """Passes on that people have opted out, of what was believed."""
    told = [r for r in rows if r["error_reason"] == OPTED_OUT and r["verdict"] in BELIEVED]
    if told:
        by_id = {a["id"]: a for thread in ledger for a in thread.attempts}
        said = (opt_outs.said_in(by_id[row["attempt_id"]], row) for row in told)
        opt_outs.refused(tx, list(said))
    _join(tx, ledger, [r for r in rows if r["network_id"] and r["verdict"] in BELIEVED])


def _join(tx: Tx, ledger: Ledger, rows: Sequence[Row]) -> None:
    """Learns how the network names the people whom we wrote to: they answer by those names."""
    of = {a["id"]: (thread, a) for thread in ledger for a in thread.attempts}
    known: dict[tuple[str, str, str], None] = {}
    for row in rows:
        thread, attempt = of[row["attempt_id"]]
        for address in (row["recipient"], *json.loads(row["aliases"] or "[]")):
            if address and address != attempt["recipient"]:
                known[row["tenant_id"], thread.message["conversation_id"], address] = None
    if known:
        conversations.join(tx, list(known))


def apply_missed(tx: Tx) -> None:
    """Applies parked receipts whose attempt is known by now: when two processes stored the two
    at the same moment, neither saw the other's."""
    columns = ", ".join(f"r.{name}" for name in COLUMNS)
    for id_ in IDS:
        found = tx.run(
            f"SELECT {columns} FROM receipts AS r JOIN attempts AS a "
            f"ON a.connection = r.connection AND a.{id_} = r.provider_message_id "
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
    by_theirs = _by_theirs(tx, rows)
    return {
        row["id"]: by_ours.get(row["attempt_id"])
        or next((p for id_ in _ids(row) if (p := by_theirs.get((row["connection"], id_)))), None)
        for row in rows
    }


def _by_theirs(tx: Tx, rows: Sequence[Row]) -> dict[tuple[str, str], MessageKey]:
    """Messages by the vendor's ids of them, and by the network's where a receipt tells one."""
    found: dict[tuple[str, str], MessageKey] = {}
    for name in IDS:
        asked = rows if name == IDS[0] else [row for row in rows if row["network_id"]]
        keys = [(row["connection"], id_) for row in asked for id_ in _ids(row)]
        for r in select(tx, attempts, ("connection", name), keys, LOCATION):
            found.setdefault((r.connection, getattr(r, name)), (r.tenant_id, r.message_id))
    return found


def _ids(row: Mapping[str, Any]) -> list[str]:
    """How the vendor and the network call what an attempt, or a receipt, is about."""
    return list(dict.fromkeys(row[name] for name in IDS if row[name]))


def _find(thread: Thread, row: Row) -> Row | None:
    if row["attempt_id"]:
        return thread.attempt(row["attempt_id"])
    named = {*_ids(row)}
    for attempt in thread.attempts:
        if attempt["connection"] == row["connection"] and named & {*_ids(attempt)}:
            return attempt
    return None


def contradicts(attempt: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """Which fact of a receipt contradicts the attempt that it names, if any."""
    for fact in ("tenant_id", "connection"):
        if attempt[fact] != row[fact]:
            return fact.removesuffix("_id")
    if attempt["account"] and row["account"] and attempt["account"] != row["account"]:
        return "account"
    if (
        attempt["recipient"]
        and row["recipient"]
        and _another(attempt["recipient"], row["recipient"])
    ):
        return "recipient"
    known = _ids(attempt)
    for name, id_ in _named(row).items():
        if attempt[name] and id_ not in known:
            return name
    return None


# WhatsApp, "Phone numbers": in these countries its own form of a mobile number has a digit more,
# or less, than the one that is dialled.
USER = re.compile(r"[A-Z]{2}\.")
MOBILE = re.compile(r"\+(?:(55)([1-9]{2})9([0-9]{8})|(52)1([0-9]{10})|(54)9([0-9]{10}))")


def _another(ours: str, theirs: str) -> bool:
    """Whether two addresses are of two people. A number and a user id may be of one."""
    if bool(USER.match(ours)) is not bool(USER.match(theirs)):
        return False
    return _dialled(ours) != _dialled(theirs)


def _dialled(address: str) -> str:
    if "@" in address:  # mail for Ada@ and for ada@ comes to the same person
        return address.lower()
    match = MOBILE.fullmatch(address)
    return f"+{''.join(part for part in match.groups() if part)}" if match else address


def _named(row: Mapping[str, Any]) -> dict[str, str]:
    """The ids that a receipt tells, by what they are: one that tells the network's only waits
    under that."""
    sent, network = (row[name] for name in IDS)
    found = {IDS[0]: sent if sent != network else None, IDS[1]: network}
    return {name: id_ for name, id_ in found.items() if id_}


def _apply(tx: Tx, ledger: Ledger, thread: Thread, row: Row) -> bool:
    """Applies one receipt. Says whether the attempt has got an id of the network's by it."""
    attempt = _find(thread, row)
    fact = contradicts(attempt, row) if attempt is not None else "attempt"
    new = {} if attempt is None or fact else _unbound(attempt, row)
    taken = any(not _binds(tx, ledger, attempt, id_) for id_ in new.values()) if attempt else True
    if attempt is None or fact or taken:
        row["verdict"] = "foreign"
        about, fact = thread.message["id"], fact or "provider_message_id"
        log.warning("a callback about %s is of another %s; it changes nothing", about, fact)
        return False
    moved = thread.evidence(
        attempt,
        Status(row["status"]),
        row["occurred_at"] or row["received_at"],
        **new,
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
    return "network_id" in new


def _unbound(attempt: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    """The ids of a receipt that its attempt does not have yet."""
    known = _ids(attempt)
    return {name: id_ for name, id_ in _named(row).items() if id_ not in known}


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


def _binds(tx: Tx, ledger: Ledger, attempt: Mapping[str, Any], id_: str) -> bool:
    """Whether a vendor's id is this attempt's or nobody's: it binds to one attempt for ever."""
    key = (attempt["connection"], id_)
    if key not in ledger.owners:
        taken = [r for n in IDS for r in select(tx, attempts, ("connection", n), [key], ("id",))]
        ledger.owners[key] = taken[0].id if taken else attempt["id"]
    return bool(ledger.owners[key] == attempt["id"])


def _verdicts(tx: Tx, rows: Sequence[Row]) -> None:
    changed = [
        {"id": row["id"], "verdict": row["verdict"], "attempt_id": row["attempt_id"]}
        for row in sorted(rows, key=lambda r: str(r["id"]))
    ]
    update(tx, receipts, ("id",), changed)
