"""What a message waits for, and until when: read from its place in the queue and from whom may be
asked now. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.clock import show
from gateway.routing import Tried, Wait
from gateway.switchboard import Switchboard

Row = Mapping[str, Any]
NOTHING: dict[str, Any] = {"next_attempt_at": None, "waiting_for": None}
WORDS = {
    "breaker_open": "breaker",
    "breaker_half_open": "breaker",
    "sender_blocked": "sender",
    "throttled": "retry",
    "quota_used": "quota",
    "quota_short": "quota",
    "busy": "worker",
    "not_set_up": "provider",
}


def waiting(
    place: Row | None, message: Row, attempts: Sequence[Row], board: Switchboard
) -> dict[str, Any]:
    """When the next attempt is, and what it waits for. `place` is the message's entry in the
    queue, with whether it stands `behind` another one."""
    if place is None or place["lease_until"]:
        return NOTHING
    if place["quarantined"]:
        return _told("operator", None)
    tried = [
        Tried(a["provider"], a["error_reason"], a["error_code"], a["retry_at"]) for a in attempts
    ]
    found = board.pick(message, place["route"], tried)
    nobody = WORDS.get(found.words[0], "provider") if isinstance(found, Wait) else None
    if place["due_at"] > board.circuits.now():
        return _told(_later(message, attempts, nobody, place["due_at"]), place["due_at"])
    if isinstance(found, Wait):
        return _told(nobody, found.soonest)
    return _told("earlier_message", None) if place["behind"] else _told("worker", place["due_at"])


def _later(message: Row, attempts: Sequence[Row], nobody: str | None, due_at: int) -> str:
    if nobody in ("sender", "quota"):
        return nobody
    if attempts or (message["send_at"] or 0) >= due_at:
        return "retry" if attempts else "schedule"
    return nobody or "worker"  # it was claimed, and had to wait for somebody, or for room


def _told(what: str | None, at: int | None) -> dict[str, Any]:
    return {"next_attempt_at": show(at), "waiting_for": what}
