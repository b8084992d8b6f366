"""What a provider says of its own attempts without a webhook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain import StatusUpdate
from gateway.store import receipts
from gateway.store.batcher import Operation
from gateway.store.tx import Tx


@dataclass(frozen=True, slots=True)
class Report:
    """What a provider said of its own attempt without a webhook."""

    tenant_id: str
    connection: str
    updates: tuple[StatusUpdate, ...]


def report(tx: Tx, items: Sequence[Report]) -> Sequence[None | Exception]:
    """Applies what providers report at once."""
    rows = [
        receipts.receipt_row(tx, item.tenant_id, item.connection, None, update)
        for item in items
        for update in item.updates
    ]
    receipts.apply(tx, receipts.keep(tx, rows))
    return [None] * len(items)


REPORT: Operation[Report, None] = Operation("report", 22, report, lambda tx, items: False)
