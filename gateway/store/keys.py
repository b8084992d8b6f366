"""Keys of the HTTP API: made, looked up, revoked. Only their hashes are stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from gateway.store.rows import insert
from gateway.store.tables import api_keys
from gateway.store.tx import Tx

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32

COLUMNS = "id, tenant_id, name, hash, scopes, created_at, expires_at, revoked_at"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: a tenant, by one of its keys."""

    tenant_id: str
    key_id: str
    scopes: str = "full"


def make(tx: Tx, *, tenant_id: str, name: str, expires_at: int | None = None) -> str:
    """Makes a key and returns it, for the only time: `gw_<id>_<256 random bits>`."""
    id_ = "".join(secrets.choice(ALPHABET) for _ in range(12))
    secret = secrets.token_urlsafe(32)
    row = {
        "tenant_id": tenant_id,
        "id": id_,
        "name": name,
        "hash": digest(secret),
        "scopes": "full",
        "created_at": tx.now,
        "expires_at": expires_at,
        "revoked_at": None,
    }
    insert(tx, api_keys, [row])
    return f"gw_{id_}_{secret}"


def digest(secret: str) -> str:
    """The hash at rest. The secret has 256 random bits, so a fast hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def find(tx: Tx, presented: str) -> Identity | None:
    """Whose key this is, if it holds now. The comparison takes the same time either way."""
    prefix, _, rest = presented.partition("_")
    id_, _, secret = rest.partition("_")
    row = tx.run(f"SELECT {COLUMNS} FROM api_keys WHERE id = ?", (id_,)).fetchone()
    same = hmac.compare_digest(digest(secret), row.hash if row is not None else digest(""))
    if row is None or not same or prefix != "gw" or row.revoked_at is not None:
        return None
    if row.expires_at is not None and row.expires_at <= tx.now:
        return None
    return Identity(row.tenant_id, row.id, row.scopes)


def all_of(tx: Tx, tenant_id: str) -> list[dict[str, Any]]:
    """The keys of a tenant, without their hashes, oldest first."""
    rows = tx.run(
        f"SELECT {COLUMNS} FROM api_keys WHERE tenant_id = ? ORDER BY created_at, id", (tenant_id,)
    )
    return [{k: v for k, v in row._mapping.items() if k != "hash"} for row in rows.fetchall()]


def any_ever(tx: Tx) -> bool:
    """Whether a key was ever made."""
    return tx.run("SELECT 1 FROM api_keys LIMIT 1").fetchone() is not None


def revoke(tx: Tx, tenant_id: str, id_: str) -> bool:
    """Ends a key. False: there is no such key, or it has ended already."""
    done = tx.run(
        "UPDATE api_keys SET revoked_at = ? WHERE tenant_id = ? AND id = ? AND revoked_at IS NULL",
        (tx.now, tenant_id, id_),
    )
    return bool(done.rowcount)
