"""Asks the vendors, for `gateway doctor`: each provider that can look at its own set-up, and what
time it is there. Changes nothing at a vendor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.commands.checkup import ok, problem, warning
from gateway.commands.webhooks import address
from gateway.domain import Checks, Clock, Finding
from gateway.errors import ProviderError
from providers._http import Http, HttpAnswer

if TYPE_CHECKING:
    from gateway.adapters import Adapters

WITHIN = 15.0  # seconds for one vendor
LATE, WRONG = 30.0, 300.0  # seconds: signed requests are refused from five minutes on
SYNC = "let the machine's clock be set by NTP (`timedatectl set-ntp true`)"


class Dated(Http):
    """The shared client; notes how far our clock is from that of each host that answers."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.ahead: dict[str, float] = {}

    async def request(self, method: str, url: str, **more: Any) -> HttpAnswer:
        """One request."""
        answer = await super().request(method, url, **more)
        try:
            then = parsedate_to_datetime(answer.headers.get("Date", ""))
            ahead = (self._clock.now() - then).total_seconds()
        except (ValueError, TypeError):  # none, unreadable, or without a zone
            return answer
        self.ahead[urlsplit(url).hostname or url] = ahead
        return answer


async def ask(made: Adapters, http: Dated, origin: str) -> list[Finding]:
    """What the vendors say, and what their clocks do."""
    try:
        each = [_asked(made, name, origin) for name in made.providers]
        found = [finding for one in await asyncio.gather(*each) for finding in one]
    finally:
        for provider in made.providers.values():
            await provider.aclose()
        await http.aclose()
    return [*found, *(_compared(host, ahead) for host, ahead in http.ahead.items())]


async def _asked(made: Adapters, name: str, origin: str) -> Sequence[Finding]:
    provider = made.providers[name]
    if not isinstance(provider, Checks):
        return []
    try:
        async with asyncio.timeout(WITHIN):
            found = await provider.check(address(origin, name))
    except TimeoutError:
        text = f"no answer within {WITHIN:g} s"
        return [problem(name, text, "look at DNS, the firewall, and the vendor's status page")]
    except ProviderError as error:
        return [problem(name, error.text, "")]
    except Exception as error:  # an adapter's fault stops no other
        return [problem(name, f"cannot be looked at ({type(error).__name__})", "")]
    return [replace(finding, subject=f"{name} {finding.subject}") for finding in found]


def _compared(host: str, ahead: float) -> Finding:
    text = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {host}"
    if abs(ahead) > WRONG:
        return problem("clock", f"{text}: signatures will be refused", SYNC)
    if abs(ahead) > LATE:
        return warning("clock", text, SYNC)
    return ok("clock", f"agrees with {host}")
