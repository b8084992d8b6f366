"""Vendors' subscriptions: which wait for a confirmation of ours, and what became of them.

One row per topic and address that it posts to. The newest word of the vendor counts, by the
vendor's own time; a replay of an old one changes nothing. A token is kept only while it is needed,
and only here: it goes from the inbox in the transaction that brings it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import new_id, to_ms
from gateway.domain import Handshake, Verified
from gateway.store.batcher import Operation
from gateway.store.rows import insert, update
from gateway.store.tx import Tx
from gateway.store.vendor_tables import subscriptions

STATES = {"subscription": "pending", "unsubscribed": "unsubscribed"}  # by a handshake's kind
KEY = ("connection", "topic_arn", "endpoint")
NEWER = (
    "ON CONFLICT (connection, topic_arn, endpoint) DO UPDATE SET webhook = excluded.webhook, "
    "state = excluded.state, token = excluded.token, subscribe_url = excluded.subscribe_url, "
    "tries = 0, due_at = excluded.due_at, said_at = excluded.said_at, detail = NULL, "
    "updated_at = excluded.updated_at WHERE subscriptions.said_at < excluded.said_at"
)

Row = dict[str, Any]


def keep(tx: Tx, said: Iterable[tuple[str, Verified, Handshake]]) -> None:
    """Stores what vendors say of tenants' subscriptions, in the inbox's transaction."""
    newest: dict[tuple[str, ...], Row] = {}
    for tenant_id, verified, handshake in said:
        _take_out(tx, verified, handshake)
        row = _row(tx, tenant_id, verified, handshake)
        if row is None:
            continue
        key = tuple(str(row[name]) for name in KEY)
        if key not in newest or newest[key]["said_at"] < row["said_at"]:
            newest[key] = row
    if newest:
        insert(tx, subscriptions, [newest[key] for key in sorted(newest)], NEWER)
        tx.topics.add("handshakes")


def _take_out(tx: Tx, verified: Verified, handshake: Handshake) -> None:
    """Takes the token out of the request in the inbox, which is kept for long. The spool has it
    still: from there a request comes here with it."""
    written = json.dumps(handshake.content.get("token") or "", ensure_ascii=False)
    body = verified.request.body
    without = body.replace(written.encode(errors="replace"), b'""')
    if without != body:
        tx.run(
            "UPDATE inbox SET body = ? WHERE connection = ? AND key = ?",
            (without, verified.connection, verified.key),
        )


def _row(tx: Tx, tenant_id: str, verified: Verified, handshake: Handshake) -> Row | None:
    state, topic = STATES.get(handshake.kind), handshake.content.get("topic_arn")
    if state is None or not topic:
        return None
    if state == "pending" and not handshake.content.get("token"):
        return None  # a replay from the inbox: its row has, or had, the token
    return {
        "tenant_id": tenant_id,
        "id": new_id("sub"),
        "connection": verified.connection,
        "topic_arn": topic,
        "endpoint": verified.request.url.partition("?")[0],
        "webhook": verified.webhook,
        "state": state,
        "subscription_arn": None,
        "token": handshake.content.get("token"),
        "subscribe_url": handshake.content.get("subscribe_url"),
        "tries": 0,
        "due_at": tx.now,
        "said_at": to_ms(handshake.occurred_at) if handshake.occurred_at else tx.now,
        "detail": None,
        "created_at": tx.now,
        "updated_at": tx.now,
    }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Asks for confirmations to perform; not given to anybody else for `lease` milliseconds.
    `begun`: of those that were begun at most so often the leases are ended first, for whoever is
    the only process and has just started."""

    limit: int
    lease: int
    begun: int = 0


@dataclass(frozen=True, slots=True)
class Performed:
    """What became of one try. `said_at` names the word that was acted upon: a newer one stands.
    `retry_in` in milliseconds where it is to be tried again."""

    tenant_id: str
    id: str
    said_at: int
    state: str
    subscription_arn: str | None = None
    detail: str | None = None
    retry_in: int | None = None


def want(tx: Tx, items: Sequence[Wanted]) -> Sequence[list[Row] | Exception]:
    """Takes pending confirmations that are due; a crash gives them back after the lease."""
    return [_want(tx, item) for item in items]


def _want(tx: Tx, item: Wanted) -> list[Row]:
    if item.begun:  # one that failed, and waits to be tried again, says why
        tx.run(
            "UPDATE subscriptions SET due_at = ? WHERE state = 'pending' AND due_at > ? "
            "AND tries BETWEEN 1 AND ? AND detail IS NULL",
            (tx.now, tx.now, item.begun),
        )
    skip = "FOR UPDATE SKIP LOCKED" if tx.postgres else ""
    found = tx.run(
        "WITH free (owner, one) AS MATERIALIZED ("
        "SELECT tenant_id, id FROM subscriptions WHERE state = 'pending' AND due_at <= ? "
        f"ORDER BY due_at LIMIT ? {skip}) "
        "UPDATE subscriptions SET due_at = ?, tries = tries + 1, detail = NULL FROM free "
        "WHERE tenant_id = free.owner AND id = free.one "
        "RETURNING tenant_id, id, webhook, topic_arn, token, subscribe_url, tries, said_at",
        (tx.now, item.limit, tx.now + item.lease),
    )
    return [{**row._mapping, "age": tx.now - row.said_at} for row in found.fetchall()]


def done(tx: Tx, items: Sequence[Performed]) -> Sequence[None | Exception]:
    """Stores what became of tries; the token goes once it is of no more use."""
    rows = [
        {
            "tenant_id": item.tenant_id,
            "id": item.id,
            "said_at": item.said_at,
            "state": item.state,
            "subscription_arn": item.subscription_arn,
            "token": None,
            "detail": item.detail,
            "due_at": tx.now + (item.retry_in or 0),
            "updated_at": tx.now,
        }
        for item in sorted(items, key=lambda i: (i.tenant_id, i.id))
    ]
    update(
        tx,
        subscriptions,
        ("tenant_id", "id", "said_at"),
        rows,
        only="t.state = 'pending'",
        how={
            "token": "CASE WHEN v.state = 'pending' THEN t.token ELSE v.token END",
            "subscription_arn": "COALESCE(v.subscription_arn, t.subscription_arn)",
        },
    )
    return [None] * len(items)


def listed(tx: Tx) -> list[Row]:
    """Every subscription that a vendor told us of, without its token, newest word first."""
    found = tx.run(
        "SELECT id, tenant_id, webhook, connection, topic_arn AS topic, endpoint, state, "
        "subscription_arn, detail, said_at, updated_at AS changed_at "
        "FROM subscriptions ORDER BY said_at DESC, id"
    )
    return [dict(row._mapping) for row in found.fetchall()]


WANT: Operation[Wanted, list[Row]] = Operation("want confirmations", 46, want, lambda t, i: False)
DONE: Operation[Performed, None] = Operation("store confirmations", 25, done, lambda t, i: False)
