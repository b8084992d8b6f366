"""Addresses of our own files that need no key of the API, for vendors, who have none. Each is
signed, for one file of one tenant, and ends.
"""

from __future__ import annotations

import hmac
import re
from enum import Enum

from gateway.domain import Clock
from gateway.signing import SigningKeys, signed
from gateway.store.batcher import Batcher
from gateway.store.reader import Reader

PURPOSE = "media-links"
LEAST, MOST = 600.0, 86_400.0  # seconds: vendors fetch when they send, and may let messages wait
EXPIRES = re.compile("[0-9]{1,12}")
SIGNATURE = re.compile("[0-9a-f]{64}")


class Verdict(Enum):
    """What a link is worth."""

    HOLDS = "holds"
    WRONG = "wrong"
    OVER = "over"


class Links:
    """Signs links to files, and tells whether one holds."""

    def __init__(self, batcher: Batcher, reader: Reader, clock: Clock, origin: str) -> None:
        self._keys = SigningKeys(batcher, reader, PURPOSE)
        self._clock = clock
        self._origin = origin

    async def url(self, tenant_id: str, id_: str, seconds: float) -> str:
        """An address of a file for so long, as far as that is sensible.

        Raises:
            StoreUnavailable, OutcomeUnknown: the tenant's key cannot be had.
        """
        key = await self._keys.made(tenant_id)
        lasts = min(max(seconds, LEAST), MOST)
        expires = str(int(self._clock.now().timestamp() + lasts))
        signature = _sign(key, tenant_id, id_, expires)
        return f"{self._origin}/media/{id_}?expires={expires}&signature={signature}"

    async def judge(self, tenant_id: str, id_: str, expires: str, signature: str) -> Verdict:
        """Whether a link to a file of a tenant holds."""
        if not (EXPIRES.fullmatch(expires) and SIGNATURE.fullmatch(signature)):
            return Verdict.WRONG
        key = await self._keys.known(tenant_id)
        if key is None:
            return Verdict.WRONG
        if not hmac.compare_digest(_sign(key, tenant_id, id_, expires), signature):
            return Verdict.WRONG
        over = self._clock.now().timestamp() >= int(expires)
        return Verdict.OVER if over else Verdict.HOLDS


def _sign(key: bytes, tenant_id: str, id_: str, expires: str) -> str:
    return signed(key, PURPOSE, tenant_id, id_, expires).hex()
