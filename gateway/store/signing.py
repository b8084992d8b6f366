"""The keys with which we sign addresses of our own: one of each tenant for each purpose, made once,
the same for all processes."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from gateway.store.batcher import Operation
from gateway.store.rows import insert, present
from gateway.store.signing_tables import signing_keys
from gateway.store.tx import Tx

KEY = ("tenant_id", "name")


def find(tx: Tx, tenant_id: str, name: str) -> bytes | None:
    """A tenant's key, if it was made."""
    secret = tx.run(
        "SELECT secret FROM signing_keys WHERE tenant_id = ? AND name = ?", (tenant_id, name)
    ).scalar()
    return None if secret is None else bytes.fromhex(secret)


def make(tx: Tx, items: Sequence[tuple[str, str]]) -> Sequence[None | Exception]:
    """Makes the keys that are not there yet, of tenants by purpose."""
    rows = [
        {
            "tenant_id": tenant_id,
            "name": name,
            "secret": secrets.token_hex(32),
            "created_at": tx.now,
        }
        for tenant_id, name in sorted(set(items))
    ]
    insert(tx, signing_keys, rows, "ON CONFLICT DO NOTHING")
    return [None] * len(items)


def landed(tx: Tx, items: Sequence[tuple[str, str]]) -> bool:
    """Whether a batch was committed."""
    return len(present(tx, signing_keys, KEY, items)) == len(set(items))


MAKE: Operation[tuple[str, str], None] = Operation("make signing key", 46, make, landed)
