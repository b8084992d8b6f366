"""Which providers the messages of a tenant have ever named: a list of those of another one need
not look at any message. Written with the messages, and only where it is not known to be there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.store.rows import insert
from gateway.store.seen_tables import providers_seen
from gateway.store.tx import SEEN_FOR, Tx


def note(tx: Tx, rows: Iterable[Any]) -> None:
    """Keeps the providers that these messages name."""
    named = {(row["tenant_id"], row["provider"]) for row in rows if row["provider"] is not None}
    new = sorted(pair for pair in named if tx.now - tx.seen.get(pair, -SEEN_FOR) >= SEEN_FOR)
    if new:
        made = [{"tenant_id": tenant, "provider": provider} for tenant, provider in new]
        insert(tx, providers_seen, made, "ON CONFLICT DO NOTHING")
        tx.noted += new


def ever(tx: Tx, tenant_id: str, provider: str) -> bool:
    """Whether a message of a tenant has ever named a provider."""
    found = tx.run(
        "SELECT 1 FROM providers_seen WHERE tenant_id = ? AND provider = ?", (tenant_id, provider)
    )
    return found.fetchone() is not None
