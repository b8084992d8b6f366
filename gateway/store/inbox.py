"""The raw inbox, and what a verified webhook becomes: one transaction for many of them.

The same signed bytes are stored once; a repetition changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import Any

from gateway.clock import new_id, to_ms
from gateway.domain import (
    FETCHED,
    Engagement,
    Event,
    Handshake,
    InboundMessage,
    MessageType,
    Notice,
    Priority,
    Status,
    StatusUpdate,
    Verified,
)
from gateway.opt_outs import Source, wish_of
from gateway.store import (
    conversations,
    engagements,
    files_received,
    notices,
    opt_outs,
    receipts,
    seen,
    subscriptions,
    threads,
)
from gateway.store.batcher import Operation
from gateway.store.conversations import Wanted
from gateway.store.database import Again
from gateway.store.inbox_facts import facts_of
from gateway.store.opt_outs import Word
from gateway.store.rows import insert, select
from gateway.store.tables import inbox, messages
from gateway.store.tx import Tx

EMPTY_MESSAGE: dict[str, Any] = dict.fromkeys(c.name for c in messages.columns)
LARGE = 2 * 1024 * 1024  # bytes of a statement
DETOUR = 60_000  # milliseconds
KEPT_HEADERS = frozenset({"content-type", "content-length", "user-agent"})
DEDUPE = ("connection", "dedupe_key")
# A form's signature has no separators, so the same signed bytes can be cut into parameters in
# other ways. One that cannot be read gives way to one that can.
ONCE = (
    "ON CONFLICT (connection, key) DO UPDATE SET body = excluded.body, state = excluded.state, "
    "detail = excluded.detail, tries = excluded.tries, "
    "due_at = excluded.due_at WHERE inbox.state = 'malformed' AND excluded.state <> 'malformed' "
    "RETURNING connection, key"
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verified webhook and what it says. `state` and `detail` as in the inbox's row.

    `id` is made beforehand; None replays what the inbox already holds. `pools` are the sender
    pools that are ours; `kept_headers` are those that the webhook has kept beside the usual ones.
    `received_at` is in milliseconds, where it came earlier than now.
    """

    id: str | None
    tenant_id: str
    verified: Verified
    events: Sequence[Event]
    state: str
    detail: str | None
    pools: frozenset[str] = frozenset()
    kept_headers: frozenset[str] = frozenset()
    received_at: int | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What a delivery changed: false for a repetition."""

    new: bool


def run(tx: Tx, items: Sequence[Delivery]) -> Sequence[Taken | Exception]:
    """Stores the deliveries that are new, and what they say."""
    fresh = _store_raw(tx, items)
    said = [
        (item, event)
        for item in fresh
        for event in item.events
        if isinstance(event, InboundMessage)
    ]
    heard = _store_messages(tx, said)
    rows = [
        receipts.receipt_row(
            tx, item.tenant_id, item.verified.connection, item.id, event, _source(item)
        )
        for item in fresh
        for event in item.events
        if isinstance(event, StatusUpdate)
    ]
    receipts.apply(tx, receipts.keep(tx, rows))
    subscriptions.keep(
        tx,
        [
            (item.tenant_id, item.verified, event)
            for item in fresh
            for event in item.events
            if isinstance(event, Handshake)
        ],
    )
    notices.keep(
        tx,
        [
            (item.tenant_id, item.verified.connection, item.id, event)
            for item in fresh
            for event in item.events
            if isinstance(event, Notice)
        ],
    )
    known = engagements.keep(
        tx,
        [
            (item.tenant_id, item.verified.connection, item.id, event)
            for item in fresh
            for event in item.events
            if isinstance(event, Engagement)
        ],
    )
    opt_outs.apply(tx, [*_wishes(tx, heard), *_unsubscribed(tx, fresh, known)])
    new = {id(item) for item in fresh}
    return [Taken(new=id(item) in new) for item in items]


def _source(item: Delivery) -> str:
    return item.verified.verdict if item.verified.verdict in FETCHED else "callback"


def _store_raw(tx: Tx, items: Sequence[Delivery]) -> list[Delivery]:
    first: dict[tuple[str, str], Delivery] = {}
    for item in items:
        if item.id is not None:
            first.setdefault((item.verified.connection, item.verified.key), item)
    rows = [_raw(tx, first[key]) for key in sorted(first)]
    stored = (insert(tx, inbox, piece, ONCE) for piece in _by_size(rows))
    made = {(row.connection, row.key) for row in chain.from_iterable(stored)}
    taken = {id(item) for key, item in first.items() if key in made}
    return [item for item in items if item.id is None or id(item) in taken]


def _by_size(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The same in pieces that one statement can write in its time: emails may be large."""
    piece: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        if piece and size + len(row["body"]) > LARGE:
            yield piece
            piece, size = [], 0
        piece.append(row)
        size += len(row["body"])
    if piece:
        yield piece


def _raw(tx: Tx, item: Delivery) -> dict[str, Any]:
    request, waits = item.verified.request, item.state == "pending"
    if waits:
        tx.topics.add("mail")
    kept = KEPT_HEADERS | item.kept_headers
    headers = {name: value for name, value in request.headers.items() if name in kept}
    return {
        "tenant_id": item.tenant_id,
        "id": item.id,
        "webhook": item.verified.webhook,
        "connection": item.verified.connection,
        "key": item.verified.key,
        "method": request.method,
        "url": request.url,
        "headers": _written(tuple(headers.items())),
        "body": request.body,
        "verdict": item.verified.verdict,
        "state": item.state,
        "detail": item.detail,
        "received_at": tx.now if item.received_at is None else min(item.received_at, tx.now),
        "replayed_at": None,
        "tries": 0 if waits else None,
        "due_at": tx.now if waits else None,
    }


@lru_cache(maxsize=256)
def _written(headers: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(headers))  # a vendor's are nearly always the same


@dataclass(slots=True)
class _New:
    item: Delivery
    event: InboundMessage
    wanted: Wanted
    id: str
    answers: threads.Answered | None


def _store_messages(tx: Tx, said: Sequence[tuple[Delivery, InboundMessage]]) -> list[_New]:
    unique: dict[tuple[str, str], tuple[Delivery, InboundMessage]] = {}
    for item, event in said:
        unique.setdefault((item.verified.connection, event.dedupe_key), (item, event))
    there = {tuple(row) for row in select(tx, messages, DEDUPE, list(unique), DEDUPE)}
    said = [unique[key] for key in unique if key not in there]
    if not said:
        return []
    answers = threads.answered(tx, [(item.tenant_id, event) for item, event in said])
    new = [
        _New(item, event, _wanted(tx, item, event, known), new_id("msg"), known)
        for (item, event), known in zip(said, answers, strict=True)
    ]
    conversations.resolve(tx, [n.wanted for n in new])
    rows = sorted((_row(tx, n) for n in new), key=lambda r: (r["connection"], r["dedupe_key"]))
    if len(insert(tx, messages, rows, "ON CONFLICT DO NOTHING RETURNING id")) < len(rows):
        raise Again  # another process stored one of them a moment ago
    seen.note(tx, rows)
    files_received.keep(tx, [(n.item, n.id, n.event.media) for n in new])
    for n in new:
        status = _status(n.event).value
        tx.emit(
            n.item.tenant_id,
            f"message.{status}",
            message_id=n.id,
            conversation_id=n.wanted.found["id"],
            change={"status": status},
        )
    _touch(tx, new)
    return new


def _status(event: InboundMessage) -> Status:
    return Status.SENT if event.echo else Status.RECEIVED


def _touch(tx: Tx, new: Sequence[_New]) -> None:
    """What the messages change in their conversations."""
    conversations.move(
        tx, [(n.wanted, n.event.new_address) for n in new if n.event.new_address is not None]
    )
    ours = {(n.item.tenant_id, n.wanted.found["id"]) for n in new if n.event.echo}
    if ours:
        conversations.touch_outbound(tx, sorted(ours))
        for tenant_id, id_ in sorted(ours):
            tx.emit(tenant_id, "conversation.updated", conversation_id=id_)
    conversations.touch_inbound(tx, [n.wanted for n in new if not n.event.echo])


def _wishes(tx: Tx, heard: Sequence[_New]) -> list[Word]:
    """What people wrote about being written to; of each message once."""
    return [
        Word(
            id=opt_outs.word_id(new.id),
            tenant_id=new.item.tenant_id,
            channel=new.event.channel.value,
            address=new.event.from_address,
            also=new.event.aliases,
            state=wish.state,
            source=Source.KEYWORD,
            said_at=_said_at(tx, new.item, new.event.occurred_at),
            weak=wish.weak,
            detail=wish.said,
            connection=new.item.verified.connection,
            our_address=new.event.to_address,
            message_id=new.id,
            inbox_id=new.item.id,
            conversation_id=new.wanted.found["id"],
        )
        for new in heard
        if (wish := wish_of(new.event)) is not None
    ]


def _unsubscribed(tx: Tx, fresh: Sequence[Delivery], known: engagements.Known) -> list[Word]:
    """What people told the vendor about it."""
    return [
        Word(
            id=opt_outs.word_id(f"_{item.verified.connection}:{event.dedupe_key}"),
            tenant_id=item.tenant_id,
            channel=event.channel.value,
            address=event.recipient,
            state=wish.state,
            source=Source.VENDOR,
            said_at=_said_at(tx, item, event.occurred_at),
            detail=wish.said,
            connection=item.verified.connection,
            message_id=about[0],
            attempt_id=event.attempt_id or about[1],
            inbox_id=item.id,
        )
        for item in fresh
        for event in item.events
        if isinstance(event, Engagement) and event.channel is not None and event.recipient
        if (wish := wish_of(event)) is not None
        for about in (engagements.about(known, item.verified.connection, event),)
    ]


def _said_at(tx: Tx, item: Delivery, occurred: datetime | None) -> int:
    """When something was said. Clocks differ by seconds, so it is when we received it, unless it
    came by a detour, long after the vendor's time of it."""
    received = item.received_at
    if received is None:
        replayed = item.id is None
        received = to_ms(item.verified.request.received_at) if replayed else tx.now
    said = received if occurred is None else to_ms(occurred)
    return said if received - said > DETOUR else received


def _wanted(
    tx: Tx, item: Delivery, event: InboundMessage, answers: threads.Answered | None
) -> Wanted:
    ours, person = event.to_address, event.from_address
    if event.echo:
        ours, person = event.from_address, event.to_address or ""
    pools = (event.pool,) if event.pool is not None and event.pool in item.pools else ()
    thread = (answers.our_key,) if answers is not None else ()
    return Wanted(
        tenant_id=item.tenant_id,
        channel=event.channel.value,
        our_keys=(*thread, ours or "", *pools),
        address=answers.address if answers is not None else person,
        our_address=None if answers is not None else ours,
        name=event.name,
        also=event.aliases,
        inbound=not event.echo,
        said_at=min(_said_at(tx, item, event.occurred_at), tx.now),
        answerable=event.type is not MessageType.SYSTEM,  # the network speaks, not the person
    )


def _row(tx: Tx, new: _New) -> dict[str, Any]:
    event = new.event
    row = EMPTY_MESSAGE.copy()
    row.update(facts_of(event))
    if new.answers is not None:
        row["reply_to"] = new.answers.said_as
    row.update(
        tenant_id=new.item.tenant_id,
        id=new.id,
        conversation_id=new.wanted.found["id"],
        media=files_received.view(new.id, event.media),
        status=_status(event).value,
        sent_at=new.wanted.said_at,
        provider=new.item.verified.webhook,
        connection=new.item.verified.connection,
        dedupe_key=event.dedupe_key,
        priority=Priority.NORMAL.value,
        on_unknown="hold",
        created_at=tx.now,
        updated_at=tx.now,
    )
    return row


def landed(tx: Tx, items: Sequence[Delivery]) -> bool:
    """Whether a batch of deliveries was committed."""
    ids = [(item.id,) for item in items if item.id is not None]
    return bool(select(tx, inbox, ("id",), ids, ("id",)))


RECEIVE: Operation[Delivery, Taken] = Operation("receive", 10, run, landed)
