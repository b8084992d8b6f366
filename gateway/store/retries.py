"""A message that has ended badly, sent once more because a person asks for it.

It is the same message with its next attempt, and a fresh start for its chain. What may have been
sent is sent again only by whoever says that they know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain import Status
from gateway.opt_outs import TEXT
from gateway.store import opt_outs
from gateway.store.batcher import Operation
from gateway.store.ledger import Ledger, Thread
from gateway.store.tx import Tx

RETRYABLE = frozenset(
    {
        *(Status.FAILED, Status.UNDELIVERED, Status.BOUNCED),
        *(Status.EXPIRED, Status.REJECTED, Status.UNKNOWN),
    }
)
DELIVERING = frozenset({Status.ACCEPTED, Status.SENT})
SILENCE = "outcome_unknown"  # an attempt of which nobody ever said anything
SURE = 'send {"even_if_sent": true} if a second copy harms nobody'


@dataclass(frozen=True, slots=True)
class Again:
    """Asks to send an outbound message once more. `route` names who may, best first; without
    `expires_at` it is of use for `expiry` milliseconds from now."""

    tenant_id: str
    id: str
    person: opt_outs.Person
    route: str
    expiry: int
    expires_at: int | None = None
    even_if_sent: bool = False


def again(tx: Tx, items: Sequence[Again]) -> Sequence[str | None | Exception]:
    """Makes the next attempt due. The result is why not, in words; None: it is."""
    ledger = Ledger(tx, [(item.tenant_id, item.id) for item in items])
    out = opt_outs.blocked(tx, [item.person for item in items])
    results: list[str | None] = []
    for item in items:
        thread = ledger.get((item.tenant_id, item.id))
        why = _why_not(thread, item, opted_out=item.person in out)
        if thread is not None and why is None:
            _again(tx, thread, item)
        results.append(why)
    ledger.write()
    return results


def _why_not(thread: Thread | None, item: Again, *, opted_out: bool) -> str | None:
    if thread is None:
        return "It does not exist."
    status = Status(thread.message["status"])
    if status in DELIVERING:
        return f"It is {status}: the vendor has it, and it may still arrive."
    if status not in RETRYABLE or thread.entry is not None:
        return f"It is {status}; only what has failed can be sent again."
    if opted_out:
        return f"It cannot be sent: {TEXT}."
    if not item.even_if_sent and any(_may_be_out(attempt) for attempt in thread.attempts):
        return f"It may have been sent, as no believable answer came; {SURE}."
    return None


def _may_be_out(attempt: dict[str, Any]) -> bool:
    return bool(attempt["status"] == Status.UNKNOWN or attempt["error_code"] == SILENCE)


def _again(tx: Tx, thread: Thread, item: Again) -> None:
    expires = item.expires_at if item.expires_at is not None else tx.now + item.expiry
    thread.change(
        ended_as=None,
        error_code=None,
        error_message=None,
        error_provider=None,
        expires_at=expires,
    )
    thread.requeue(tx.now, attempts=0, route=item.route)
    thread.note()


def first_route(attempts: Sequence[Mapping[str, Any]]) -> str:
    """Who might send a message at its first attempt, best first; blank where there was none."""
    return str(attempts[0]["route"] or attempts[0]["provider"]) if attempts else ""


AGAIN: Operation[Again, str | None] = Operation("retry", 17, again, lambda tx, items: False)
