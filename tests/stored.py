"""A database with the few words that its tests are written in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from gateway.clock import new_id
from gateway.domain import (
    Channel,
    Connection,
    Event,
    InboundMessage,
    Receipt,
    Sender,
    Status,
    StatusUpdate,
    Verified,
    WebhookRequest,
)
from gateway.errors import ProviderError
from gateway.outbound import EMPTY_ROW
from gateway.store import queries
from gateway.store.accepts import ACCEPT, Accepted, IdempotencyKey, NewMessage
from gateway.store.batcher import Batcher, Operation
from gateway.store.claims import CLAIM, Claim, Due
from gateway.store.conversations import Wanted
from gateway.store.database import Database
from gateway.store.deliveries import BEGIN, SETTLE, Attempt, Outcome
from gateway.store.edits import CANCEL, Named
from gateway.store.inbox import RECEIVE, Delivery, Taken
from gateway.store.sweeps import SWEEPING, Sweep

T = TypeVar("T")
R = TypeVar("R")

TENANT = "default"
OURS, PERSON = "+15005550006", "+15551230001"
CONNECTION = Connection(
    id="c1",
    tenant_id=TENANT,
    family="test",
    account="AC1",
    senders={Channel.SMS: Sender(address=OURS)},
)
PROVIDERS = ("test", "vendor")  # whom the claims of a test are for
HOUR = 3_600_000
DAY = 24 * HOUR
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def future(milliseconds: int) -> int:
    """A moment from now, as it is stored."""
    return int(datetime.now(UTC).timestamp() * 1000) + milliseconds


def person(number: int) -> str:
    """The number of one of many people."""
    return f"+1555{number:07d}"


def new_message(
    *, to: str = PERSON, body: str = "hi", idempotency: IdempotencyKey | None = None, **columns: Any
) -> NewMessage:
    """A validated message, as `Outbound.prepare` makes it."""
    row = EMPTY_ROW | {
        "tenant_id": TENANT,
        "id": new_id("msg"),
        "direction": "outbound",
        "channel": "sms",
        "type": "text",
        "from_address": OURS,
        "to_address": to,
        "body": body,
        "provider": "test",
        "connection": CONNECTION.id,
        "segments": 1,
        "priority": "normal",
        "on_unknown": "hold",
        "expires_at": future(DAY),
        **columns,
    }
    wanted = Wanted(row["tenant_id"], row["channel"], (OURS,), to, our_address=OURS)
    return NewMessage(row, wanted, idempotency)


def keyed(key: str, body_hash: str = "h1", kept: int = DAY) -> IdempotencyKey:
    """A caller's key."""
    return IdempotencyKey("POST /api/messages", key, body_hash, kept)


def said(key: str, **more: Any) -> InboundMessage:
    """A message of a person."""
    return InboundMessage(
        **{
            "dedupe_key": key,
            "channel": Channel.SMS,
            "from_address": PERSON,
            "to_address": OURS,
            "body": f"body of {key}",
            "provider_message_id": f"SM-{key}",
            **more,
        }
    )


def update(status: Status, key: str | None = None, **more: Any) -> StatusUpdate:
    """A callback about an attempt."""
    return StatusUpdate(
        **{
            "dedupe_key": key or new_id("key"),
            "status": status,
            "vendor_status": status.value,
            "account": CONNECTION.account,
            "recipient": PERSON,
            **more,
        }
    )


def delivery(key: str, *events: Event, connection: str = CONNECTION.id, **more: Any) -> Delivery:
    """A verified webhook with what it says."""
    request = WebhookRequest(
        method="POST",
        url="https://gateway.example.com/api/webhooks/test",
        headers={
            "content-type": "text/plain",
            "authorization": "secret",
            "x-signature": "proof",
            "x-region": "us1",
        },
        body=b"raw \x00\xff " + key.encode(),
        received_at=NOW,
    )
    verified = Verified(
        webhook="test", connection=connection, request=request, key=key, verdict="first secret"
    )
    return Delivery(
        **{
            "id": new_id("inb"),
            "tenant_id": TENANT,
            "verified": verified,
            "events": events,
            "state": "parsed",
            "detail": None,
            **more,
        }
    )


@dataclass
class Store:
    """One database, written as one process would."""

    database: Database
    batcher: Batcher = field(init=False)

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.database, lambda topics: None)

    def do(self, operation: Operation[T, R], *items: T) -> list[R]:
        """Runs a batch in one transaction and gives its results; raises the first error."""
        results = self.batcher.write(operation, items)[0]
        for result in results:
            if isinstance(result, Exception):
                raise result
        return list(results)  # type: ignore[arg-type]

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """What a query finds."""
        with self.database.read() as tx:
            return list(tx.run(sql, values).fetchall())

    def value(self, sql: str, *values: Any) -> Any:
        """The only value that a query finds."""
        ((found,),) = self.rows(sql, *values)
        return found

    def change(self, sql: str, *values: Any) -> int:
        """Changes rows behind the back of the code, to make time pass or things go wrong."""
        with self.database.write() as tx:
            return tx.run(sql, values).rowcount

    def accept(self, **columns: Any) -> str:
        """Accepts one message; its id."""
        return self.accept_all(new_message(**columns))[0]

    def accept_all(self, *items: NewMessage) -> list[str]:
        """Accepts several in one batch; their ids."""
        return [str(accepted.view["id"]) for accepted in self.accepted(*items)]

    def accepted(self, *items: NewMessage) -> list[Accepted]:
        """Accepts several in one batch; the answers."""
        return self.do(ACCEPT, *items)

    def claim(self, limit: int = 100, lease: int = 60_000) -> list[Due]:
        """Claims what is due."""
        return self.do(CLAIM, Claim(new_id("lease"), limit, lease, PROVIDERS))[0]

    def claimed(self, limit: int = 100) -> list[str]:
        """The ids of what is claimed now."""
        return sorted(due.message_id for due in self.claim(limit))

    def begin(self, due: Due, connection: Connection = CONNECTION) -> Attempt | None:
        """T2; None where it is not to be sent."""
        attempt = Attempt(new_id("att"), due, "test", connection, due.message["from_address"])
        return attempt if self.do(BEGIN, attempt)[0] else None

    def begun(self, **columns: Any) -> Attempt:
        """Accepts, claims and begins one message."""
        id_ = self.accept(**columns)
        return self.next_attempt(id_)

    def next_attempt(self, id_: str) -> Attempt:
        """Claims and begins a message that is due."""
        (due,) = [due for due in self.claim() if due.message_id == id_]
        attempt = self.begin(due)
        assert attempt is not None
        return attempt

    def settle(
        self,
        attempt: Attempt,
        result: str | Receipt | ProviderError,
        retry_in: int | None = None,
    ) -> None:
        """T3: with the vendor's id, a receipt or an error."""
        if isinstance(result, ProviderError):
            self.do(SETTLE, Outcome(attempt, error=result, retry_in=retry_in))
            return
        receipt = Receipt(provider_message_id=result) if isinstance(result, str) else result
        self.do(SETTLE, Outcome(attempt, receipt=receipt))

    def sweep(self, receipt_timeout: int = 72 * HOUR, *, all_leases: bool = False) -> int:
        """Cleans up what a crash left."""
        return self.do(SWEEPING, Sweep(receipt_timeout, all_leases))[0]

    def lapse(self) -> None:
        """Lets every lease run out, and cleans up."""
        self.change("UPDATE queue SET lease_until = 1 WHERE lease_until > 0")
        self.sweep()

    def receive(self, key: str, *events: Event, **more: Any) -> Taken:
        """Stores one webhook."""
        return self.do(RECEIVE, delivery(key, *events, **more))[0]

    def reports(self, *updates: StatusUpdate, **more: Any) -> None:
        """Stores one webhook for each callback, in their order."""
        for one in updates:
            self.receive(new_id("req"), one, **more)

    def cancel(self, id_: str, tenant_id: str = TENANT) -> bool:
        """Asks to cancel a message."""
        return self.do(CANCEL, Named(tenant_id, id_))[0]

    def message(self, id_: str, tenant_id: str = TENANT) -> dict[str, Any]:
        """A message's row."""
        with self.database.read() as tx:
            row = queries.message(tx, tenant_id, id_)
        assert row is not None
        return row

    def status(self, id_: str) -> str:
        """Where a message stands."""
        return str(self.message(id_)["status"])

    def attempts(self, id_: str) -> list[dict[str, Any]]:
        """The attempts of a message."""
        with self.database.read() as tx:
            return queries.attempts_of(tx, TENANT, id_)

    def queued(self, id_: str) -> dict[str, Any] | None:
        """A message's place in the queue, if it has one."""
        found = self.rows("SELECT * FROM queue WHERE message_id = ?", id_)
        return dict(found[0]._mapping) if found else None

    def conversations(self) -> list[dict[str, Any]]:
        """All conversations, oldest first."""
        return [dict(r._mapping) for r in self.rows("SELECT * FROM conversations ORDER BY id")]

    def verdicts(self) -> list[str]:
        """What became of the callbacks, in their order."""
        return [str(row.verdict) for row in self.rows("SELECT verdict FROM receipts ORDER BY id")]

    def told(self, id_: str) -> list[str]:
        """The types of the events about a message, in order."""
        found = self.rows("SELECT type FROM events WHERE message_id = ? ORDER BY id", id_)
        return [str(row.type) for row in found]

    def count(self, table: str) -> int:
        """How many rows a table has."""
        return int(self.value(f"SELECT COUNT(*) FROM {table}"))

    def make_due(self, *ids: str) -> None:
        """Lets the time come for what waits."""
        for id_ in ids:
            self.change("UPDATE queue SET due_at = 1 WHERE message_id = ?", id_)
            self.change("UPDATE attempts SET retry_at = NULL WHERE message_id = ?", id_)


def errors_of(results: Sequence[Any]) -> list[int]:
    """The places of the exceptions among results."""
    return [place for place, result in enumerate(results) if isinstance(result, Exception)]


def change_of(events: Iterable[Any]) -> list[Any]:
    """What changed, of events as they are stored."""
    return [json.loads(event.change) if event.change else {} for event in events]
