"""How the providers of this process are doing, from what their sends came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.domain import Channel
from gateway.errors import Breaker, ProviderError
from gateway.routing import Route

UNHEALTHY = 5  # failures in a row
PLACES = ("PRIMARY", "SECONDARY", "TERTIARY")
SHOWN = {
    "sms_providers": Channel.SMS,
    "whatsapp_providers": Channel.WHATSAPP,
    "email_providers": Channel.EMAIL,
}


@dataclass(slots=True)
class Seen:
    """One provider: failures in a row, and the last one, as class and code."""

    failures: int = 0
    last_error: str | None = None

    @property
    def healthy(self) -> bool:
        """Whether it is worth sending through."""
        return self.failures < UNHEALTHY


@dataclass(eq=False)
class Watch:
    """Counts what says something about a provider; a refused message says nothing about it."""

    seen: dict[str, Seen] = field(default_factory=dict)

    def observe(self, provider: str, error: ProviderError | None) -> None:
        """Takes note of one send."""
        record = self.seen.setdefault(provider, Seen())
        if error is None:
            record.failures = 0
            return
        record.last_error = f"{error.reason}: {error.code}"
        if error.breaker is Breaker.OPENS:
            record.failures = max(UNHEALTHY, record.failures + 1)
        elif error.breaker is Breaker.COUNTS:
            record.failures += 1

    def report(self, chains: Mapping[Channel, Sequence[Route]], now: str) -> dict[str, Any]:
        """The providers of each channel, in their order, and the whole in one word."""
        told: dict[str, Any] = {"timestamp": now}
        told.update({name: self._listed(chains.get(c, ())) for name, c in SHOWN.items()})
        well = [any(p["is_healthy"] for p in told[name]) for name in SHOWN if told[name]]
        told["overall_status"] = "healthy" if well and all(well) else "unhealthy"
        told["active_providers"] = {
            channel.value: next((p["name"] for p in told[name] if p["is_healthy"]), None)
            for name, channel in SHOWN.items()
        }
        return told

    def _listed(self, chain: Sequence[Route]) -> list[dict[str, Any]]:
        return [
            {
                "name": route.name,
                "priority": PLACES[place] if place < len(PLACES) else "FALLBACK",
                "circuit_breaker": "closed",
                "is_healthy": self.seen.get(route.name, Seen()).healthy,
                "failure_count": self.seen.get(route.name, Seen()).failures,
                "last_error": self.seen.get(route.name, Seen()).last_error,
            }
            for place, route in enumerate(chain)
        ]
