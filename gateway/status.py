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
TAKEN = frozenset({Status.ACCEPTED, Status.SENT, Status.DELIVERED, Status.READ})
# What vendors ask money for, unless they say otherwise: what they took, whether or not it arrived.
CHARGED = TAKEN | {Status.UNDELIVERED, Status.BOUNCED}
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


def moves(rank: int, new: Status) -> bool:
    """Whether evidence `new` moves an attempt whose evidence so far has this rank."""
    return RANKS[new] > rank


def furthest(attempts: Sequence[AttemptState]) -> AttemptState | None:
    """The attempt that speaks for its message: one that arrived, else one that is open, else
    any; of those the furthest, and of equals the newest."""
    return max(attempts, key=_weight, default=None)


def _weight(attempt: AttemptState) -> tuple[bool, bool, int, int]:
    status = attempt.status
    return status in ARRIVED, status in OPEN, RANKS[status], attempt.number


def status_of(attempts: Sequence[AttemptState], plan: Plan) -> Status:
    """The status of an outbound message.

    While a next attempt is due it is what we are doing, unless an attempt arrived; then that of
    the furthest open attempt; `failed` and its like only when none is open or due. An end of
    ours counts only while no attempt may have been taken by a vendor.
    """
    best = furthest(attempts)
    if best is not None and best.status in ARRIVED:
        return best.status
    if plan.waiting is not None:
        return plan.waiting
    if best is not None and best.status in OPEN:
        return best.status
    if plan.end is not None:
        return plan.end
    return best.status if best is not None else Status.QUEUED
