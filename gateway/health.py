"""How the providers are, for whoever asks: read from the shared breakers, in the chains' order."""

from __future__ import annotations

from typing import Any

from gateway import breaker
from gateway.breaker import State
from gateway.clock import show
from gateway.domain import Channel
from gateway.routing import May
from gateway.switchboard import Switchboard

PLACES = ("PRIMARY", "SECONDARY", "TERTIARY")
SHOWN = {
    "sms_providers": Channel.SMS,
    "whatsapp_providers": Channel.WHATSAPP,
    "email_providers": Channel.EMAIL,
}
WORST_FIRST = (State.OPEN, State.HALF_OPEN, State.CLOSED)
OVERALL = {State.CLOSED: "healthy", State.HALF_OPEN: "degraded", State.OPEN: "unhealthy"}


def report(board: Switchboard, now: str) -> dict[str, Any]:
    """The providers of each channel, in the order in which they are asked, and the whole in one
    word: that of the channel which is worst off, as its best provider is."""
    told: dict[str, Any] = {"timestamp": now}
    told.update({name: _listed(board, channel) for name, channel in SHOWN.items()})
    best = [
        max((State(p["circuit_breaker"]) for p in told[name]), key=WORST_FIRST.index)
        for name in SHOWN
        if told[name]
    ]
    told["overall_status"] = OVERALL[min(best, key=WORST_FIRST.index, default=State.OPEN)]
    told["active_providers"] = {
        channel.value: next((p["name"] for p in told[name] if p["is_healthy"]), None)
        for name, channel in SHOWN.items()
    }
    return told


def of_channel(board: Switchboard, channel: Channel) -> dict[str, Any]:
    """The providers of one channel, and it in one word; nobody is as bad as nobody who can."""
    providers = _listed(board, channel)
    best = max(
        (State(p["circuit_breaker"]) for p in providers), key=WORST_FIRST.index, default=State.OPEN
    )
    active = next((p["name"] for p in providers if p["is_healthy"]), None)
    return {"status": OVERALL[best], "provider": active, "providers": providers}


def _listed(board: Switchboard, channel: Channel) -> list[dict[str, Any]]:
    chain = board.order(channel.value, [route.name for route in board.chains.get(channel, ())])
    return [_shown(board, name, place) for place, name in enumerate(chain)]


def _shown(board: Switchboard, name: str, place: int) -> dict[str, Any]:
    circuits = board.circuits
    circuit = circuits.circuit(circuits.place(name))
    state = breaker.shown(circuit, circuits.now())
    known = circuit.error_reason is not None
    used = board.quotas.used(name)
    full = board.quotas.may(name, 1)
    told = {} if used is None else {"daily_quota": _quota(*used, full)}
    return {
        "name": name,
        "priority": PLACES[place] if place < len(PLACES) else "FALLBACK",
        "circuit_breaker": state.value,
        "is_healthy": state is State.CLOSED and full is None,
        "failure_count": circuit.failures,
        "last_error": f"{circuit.error_reason}: {circuit.error_code}" if known else None,
        **told,
    }


def _quota(used: int, limit: int, full: May | None) -> dict[str, Any]:
    """What is used of the last 24 hours, and when there is room again, if there is none."""
    return {"used": used, "limit": limit, "free_at": show(full.free_at) if full else None}
