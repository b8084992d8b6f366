"""Who calls: bearer keys, compared in constant time, remembered for a moment."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection

from gateway.api.problems import Problem
from gateway.store import keys
from gateway.store.keys import Identity
from gateway.store.reader import Reader


def header(connection: HTTPConnection, name: bytes) -> str:
    """A request's header by its lower-case name; blank where it is not there."""
    known = connection.scope.get("gateway.headers")
    if known is None:
        known = connection.scope["gateway.headers"] = dict(connection.scope["headers"])
    found: bytes | None = known.get(name)
    return "" if found is None else found.decode("latin-1")


REMEMBERED = 2.0  # seconds until a key is looked up again, and that a revoked one may go on
MOST = 10_000
STATIC = Identity("default", "environment")
KEY = re.compile(r"gw_[0-9A-Za-z]{1,64}_[0-9A-Za-z_-]{1,128}")


@dataclass(eq=False)
class Keys:
    """Tells whose key a request carries. `static` is GATEWAY_API_KEY, where it is set."""

    reader: Reader
    static: str | None
    _seen: dict[bytes, tuple[float, Identity]] = field(default_factory=dict)

    async def identify(self, connection: HTTPConnection) -> Identity:
        """The caller, or 401."""
        return await self.known(self.presented(connection))

    async def known(self, presented: str | None) -> Identity:
        """Whose key was presented, or 401."""
        if presented is None:
            raise Problem(
                401,
                "Send your key as Authorization: Bearer gw_….",
                headers={"www-authenticate": "Bearer"},
            )
        found = await self.holds(presented)
        if found is None:
            raise Problem(
                401,
                "The key is unknown, revoked or expired; `gateway keys create` makes one.",
                headers={"www-authenticate": 'Bearer error="invalid_token"'},
            )
        return found

    def presented(self, connection: HTTPConnection) -> str | None:
        """The key that a request carries, if any."""
        scheme, _, presented = header(connection, b"authorization").partition(" ")
        presented = presented.strip(" \t")
        return presented if scheme.lower() == "bearer" and presented else None

    async def holds(self, presented: str, *, fresh: bool = False) -> Identity | None:
        """Whose key this is, now."""
        raw = presented.encode("latin-1")  # the header's own bytes
        if self.static is not None and hmac.compare_digest(raw, self.static.encode()):
            return STATIC
        if KEY.fullmatch(presented) is None:
            return None
        name = hashlib.sha256(raw).digest()
        seen = self._seen.get(name)
        now = time.monotonic()
        if seen is not None and now - seen[0] < REMEMBERED and not fresh:
            return seen[1]
        found = await self.reader.call(keys.find, presented)
        if found is None:
            self._seen.pop(name, None)
            return None
        if len(self._seen) >= MOST:
            self._seen.clear()
        self._seen[name] = (now, found)
        return found
