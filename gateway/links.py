"""Addresses of our own files that need no key of the API, for vendors, who have none. Each is
signed, for one file of one tenant, and ends.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from enum import Enum

from gateway.domain import Clock
from gateway.store import signing
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
        self._batcher = batcher
        self._reader = reader
        self._clock = clock
        self._origin = origin
        self._keys: dict[str, bytes] = {}

    async def url(self, tenant_id: str, id_: str, seconds: float) -> str:
        """An address of a file for so long, as far as that is sensible.

        Raises:
            StoreUnavailable, OutcomeUnknown: the tenant's key cannot be had.
        """
        key = await self._key(tenant_id)
        if key is None:
            await self._batcher.submit(signing.MAKE, (tenant_id, PURPOSE))
            key = await self._key(tenant_id)
        assert key is not None
        lasts = min(max(seconds, LEAST), MOST)
        expires = str(int(self._clock.now().timestamp() + lasts))
        signature = _sign(key, tenant_id, id_, expires)
        return f"{self._origin}/media/{id_}?expires={expires}&signature={signature}"

    async def judge(self, tenant_id: str, id_: str, expires: str, signature: str) -> Verdict:
        """Whether a link to a file of a tenant holds."""
        if not (EXPIRES.fullmatch(expires) and SIGNATURE.fullmatch(signature)):
            return Verdict.WRONG
        key = await self._key(tenant_id)
        if key is None:
            return Verdict.WRONG
        if not hmac.compare_digest(_sign(key, tenant_id, id_, expires), signature):
            return Verdict.WRONG
        over = self._clock.now().timestamp() >= int(expires)
        return Verdict.OVER if over else Verdict.HOLDS

    async def _key(self, tenant_id: str) -> bytes | None:
        known = self._keys.get(tenant_id)
        if known is None:
            known = await self._reader.call(signing.find, tenant_id, PURPOSE)
            if known is not None:
                self._keys[tenant_id] = known
        return known


def _sign(key: bytes, tenant_id: str, id_: str, expires: str) -> str:
    said = "\n".join((PURPOSE, tenant_id, id_, expires)).encode()
    return hmac.new(key, said, hashlib.sha256).hexdigest()
