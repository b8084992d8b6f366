"""Where a message stands: one pure function of its attempts and of what we plan.

Ranks order the evidence about one attempt; evidence moves one way. The same ranks stand in the
WHERE of the statements that apply it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from gateway.domain import Status

RANKS = MappingProxyType(
    {
        Status.SENDING: 20,
        Status.UNKNOWN: 25,
        Status.ACCEPTED: 30,
        Status.SENT: 40,
        Status.UNDELIVERED: 50,
        Status.FAILED: 50,
        Status.DELIVERED: 60,
        Status.READ: 70,
        Status.BOUNCED: 80,
    }
)
OPEN = frozenset({Status.SENDING, Status.UNKNOWN, Status.ACCEPTED, Status.SENT})
ARRIVED = frozenset({Status.DELIVERED, Status.READ})
WAITING = frozenset({Status.SCHEDULED, Status.QUEUED, Status.HELD})
ENDS = frozenset({Status.REJECTED, Status.CANCELED, Status.EXPIRED})
FINAL = ARRIVED | ENDS | {Status.FAILED, Status.UNDELIVERED, Status.BOUNCED}


@dataclass(frozen=True, slots=True)
class Plan:
    """What we mean to do. `waiting` is scheduled, queued or held while a next attempt is due;
    `end` is how we ended the message: rejected, canceled or expired."""

    waiting: Status | None = None
    end: Status | None = None

    def __post_init__(self) -> None:
        if self.waiting is not None and self.waiting not in WAITING:
            raise ValueError(f"{self.waiting} is not a way of waiting")
        if self.end is not None and self.end not in ENDS:
            raise ValueError(f"{self.end} is not an end of ours")


@dataclass(frozen=True, slots=True)
class AttemptState:
    """One attempt, as far as the message's status depends on it."""

    number: int
    status: Status


def moves(old: Status, new: Status) -> bool:
    """Whether evidence `new` moves an attempt that stands at `old`."""
    return RANKS[new] > RANKS[old]


def status_of(attempts: Sequence[AttemptState], plan: Plan) -> Status:
    """The status of an outbound message.

    While a next attempt is due it is what we are doing, unless an attempt arrived; then that of
    the furthest open attempt; `failed` and its like only when none is open or due. An end of
    ours counts only while no attempt may have been taken by a vendor.
    """
    arrived = [a for a in attempts if a.status in ARRIVED]
    if arrived:
        return max(arrived, key=_furthest).status
    if plan.waiting is not None:
        return plan.waiting
    open_ = [a for a in attempts if a.status in OPEN]
    if open_:
        return max(open_, key=_furthest).status
    if plan.end is not None:
        return plan.end
    if attempts:
        return max(attempts, key=_furthest).status
    return Status.QUEUED


def _furthest(attempt: AttemptState) -> tuple[int, int]:
    return RANKS[attempt.status], attempt.number
