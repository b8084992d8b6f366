"""The keys with which we sign addresses of our own, as one process has them at hand: of each tenant
one for each purpose, made when it is first asked for."""

from __future__ import annotations

import hashlib
import hmac

from gateway.store import signing
from gateway.store.batcher import Batcher
from gateway.store.reader import Reader


class SigningKeys:
    """The keys of all tenants for one purpose. None ever changes."""

    def __init__(self, batcher: Batcher, reader: Reader, purpose: str) -> None:
        self._batcher = batcher
        self._reader = reader
        self._purpose = purpose
        self._keys: dict[str, bytes] = {}

    async def made(self, tenant_id: str) -> bytes:
        """A tenant's key, for those who sign.

        Raises:
            StoreUnavailable, OutcomeUnknown: it cannot be had.
        """
        key = await self.known(tenant_id)
        if key is None:
            await self._batcher.submit(signing.MAKE, (tenant_id, self._purpose))
            key = await self.known(tenant_id)
        assert key is not None
        return key

    async def known(self, tenant_id: str) -> bytes | None:
        """A tenant's key, for those who judge; None where nothing was signed yet."""
        key = self._keys.get(tenant_id)
        if key is None:
            key = await self._reader.call(signing.find, tenant_id, self._purpose)
            if key is not None:
                self._keys[tenant_id] = key
        return key


def signed(key: bytes, *parts: str) -> bytes:
    """An HMAC of parts that hold no line break."""
    return hmac.new(key, "\n".join(parts).encode(), hashlib.sha256).digest()
