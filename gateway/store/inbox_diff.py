"""What a request of the inbox says as it is read now, beside what was stored of it. Only reads.

What another request said first is compared by its presence alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.domain import InboundMessage, StatusUpdate
from gateway.store.inbox import DEDUPE, Delivery
from gateway.store.inbox_facts import facts_of
from gateway.store.receipts import receipt_row
from gateway.store.rows import select
from gateway.store.tables import messages, receipts
from gateway.store.tx import Tx
from gateway.store.vendor_tables import media

JSON = ("content", "aliases")
FILE = ("reference", "declared_type")
# Without the attempt: its id stands in the key, or is learned later.
STATUS = (
    "provider_message_id",
    "network_id",
    "account",
    "sender",
    "recipient",
    "aliases",
    "status",
    "vendor_status",
    "error_reason",
    "error_code",
    "error_message",
    "segments",
    "cost",
    "currency",
    "occurred_at",
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is read in another way; or, without a field, all that is not stored yet.

    `subject` is request, message or status, and `key` what it has instead of a name."""

    subject: str
    key: str
    field: str | None
    stored: Any
    today: Any


def differences(tx: Tx, row: Row, now: Delivery) -> list[Difference]:
    """How a request, as it is read now, differs from what is stored. An email is not read for
    this."""
    if now.state == "pending":
        return []
    read = {"state": now.state, "detail": now.detail}
    changed = _fields("request", row["key"], {name: row[name] for name in read}, read)
    return [*changed, *_messages(tx, row, now), *_statuses(tx, row, now)]


def _fields(subject: str, key: str, stored: Row, today: Row) -> Iterator[Difference]:
    for name, value in today.items():
        before, after = _plain(name, stored[name]), _plain(name, value)
        if before != after:
            yield Difference(subject, key, name, before, after)


def _plain(name: str, value: Any) -> Any:
    return json.loads(value) if name in JSON and value is not None else value


def _new(subject: str, key: str, today: Row) -> Difference:
    told = {name: _plain(name, value) for name, value in today.items()}
    known = {name: value for name, value in told.items() if value not in (None, "", [])}
    return Difference(subject, key, None, None, known)


def _messages(tx: Tx, row: Row, now: Delivery) -> Iterator[Difference]:
    said: dict[str, InboundMessage] = {}
    for event in now.events:
        if isinstance(event, InboundMessage):
            said.setdefault(event.dedupe_key, event)
    there = _there(tx, row, said, messages)
    for key, event in said.items():
        stored, today = there.get(key), facts_of(event)
        today["media"] = [(file.reference, file.content_type) for file in event.media]
        if stored is None:
            yield _new("message", key, today)
        elif stored["created_at"] >= row["received_at"]:
            files = _files(tx, stored["tenant_id"], stored["id"])
            yield from _fields("message", key, {**stored, "media": files}, today)


def _there(tx: Tx, row: Row, keys: Mapping[str, Any], table: Any) -> dict[str, dict[str, Any]]:
    wanted = [(row["connection"], key) for key in keys]
    found = select(tx, table, DEDUPE, wanted, [column.name for column in table.columns])
    return {stored.dedupe_key: dict(stored._mapping) for stored in found}


def _files(tx: Tx, tenant_id: str, message_id: str) -> list[tuple[str, ...]]:
    columns = ("position", *FILE)
    found = select(tx, media, ("tenant_id", "message_id"), [(tenant_id, message_id)], columns)
    return [tuple(file)[1:] for file in sorted(found, key=lambda file: file.position)]


def _statuses(tx: Tx, row: Row, now: Delivery) -> Iterator[Difference]:
    said: dict[str, dict[str, Any]] = {}
    for event in now.events:
        if isinstance(event, StatusUpdate):
            told = receipt_row(tx, now.tenant_id, row["connection"], row["id"], event)
            said.setdefault(told["dedupe_key"], told)
    there = _there(tx, row, said, receipts)
    for key, told in said.items():
        stored, today = there.get(key), {name: told[name] for name in STATUS}
        if stored is None:
            yield _new("status", key, today)
        elif stored["inbox_id"] in (row["id"], None):  # a replay's has none
            yield from _fields("status", key, stored, today)
