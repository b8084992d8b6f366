"""What is left by a crash, and what has waited too long: leases that ran out, messages whose time
is over, attempts that nobody ever told anything of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain import RESENDS, OnUnknown, Status
from gateway.status import RANKS
from gateway.store import receipts
from gateway.store.batcher import Operation
from gateway.store.deliveries import expire
from gateway.store.ledger import Ledger, MessageKey, Thread
from gateway.store.tx import Tx

CLAIMS = 3  # without an attempt, then a message is put aside
SWEEP = 500  # rows looked at in one go


@dataclass(frozen=True, slots=True)
class Sweep:
    """What to clean up. Milliseconds; `all_leases` at the start of the only process."""

    receipt_timeout: int
    all_leases: bool = False


def sweep(tx: Tx, items: Sequence[Sweep]) -> Sequence[int | Exception]:
    """Settles what a crash left behind and what has waited too long. Returns how many."""
    return [_sweep(tx, item) for item in items]


def _sweep(tx: Tx, item: Sweep) -> int:
    until = "lease_until > 0" if item.all_leases else "lease_until > 0 AND lease_until <= ?"
    leased = _pairs(
        tx,
        f"SELECT tenant_id, message_id FROM queue WHERE {until} LIMIT {SWEEP}",
        () if item.all_leases else (tx.now,),
    )
    late = _pairs(
        tx,
        "SELECT tenant_id, message_id FROM queue WHERE expires_at <= ? AND lease_until = 0 "
        f"LIMIT {SWEEP}",
        (tx.now,),
    )
    silent = _pairs(
        tx,
        "SELECT tenant_id, message_id FROM attempts WHERE status IN ('sending', 'unknown') "
        f"AND started_at <= ? LIMIT {SWEEP}",
        (tx.now - item.receipt_timeout,),
    )
    ledger = Ledger(tx, [*leased, *late, *silent])
    for key in leased:
        release(tx, ledger.threads[key], everything=item.all_leases)
    for key in late:
        thread = ledger.threads[key]
        if thread.entry is not None and not thread.entry["lease_until"]:
            expire(thread)
    for key in silent:
        _give_up(tx, ledger.threads[key], item.receipt_timeout)
    ledger.write()
    receipts.apply_missed(tx)
    return len(ledger.threads)


def _pairs(tx: Tx, sql: str, values: tuple[Any, ...]) -> list[MessageKey]:
    return [(row.tenant_id, row.message_id) for row in tx.run(sql, values).fetchall()]


def release(tx: Tx, thread: Thread, *, everything: bool) -> None:
    """A lease ran out. With an attempt of its own the message may have been sent; without one it
    was never on the wire."""
    entry, newest = thread.entry, thread.newest
    if entry is None or not entry["lease_until"]:
        return
    if entry["lease_until"] > tx.now and not everything:
        return
    if newest is not None and newest["lease_token"] == entry["lease_token"]:
        if newest["status"] == Status.SENDING:
            thread.evidence(
                newest,
                Status.UNKNOWN,
                tx.now,
                error_reason="ambiguous",
                error_code="interrupted",
                error_message="the sending process ended before the vendor's answer was stored",
            )
        again = thread.message["on_unknown"] == OnUnknown.RESEND
        again = again and len(thread.attempts) < RESENDS and not thread.taken
        if again and newest["status"] == Status.UNKNOWN:
            thread.requeue(tx.now, attempts=len(thread.attempts))
        else:
            thread.dequeue()
    else:
        put_aside = entry["claims"] >= CLAIMS
        thread.change_entry(lease_token=None, lease_until=0, quarantined=int(put_aside))
        if put_aside:
            thread.change(
                error_code="quarantined",
                error_message=f"claimed {CLAIMS} times without reaching a provider",
            )
        tx.topics.add("queue")
    thread.note()


def _give_up(tx: Tx, thread: Thread, timeout: int) -> None:
    for attempt in thread.attempts:
        open_ = attempt["status"] in (Status.SENDING, Status.UNKNOWN)
        if open_ and attempt["started_at"] <= tx.now - timeout:
            thread.evidence(
                attempt,
                Status.FAILED,
                tx.now,
                error_reason="ambiguous",
                error_code="outcome_unknown",
                error_message="no evidence came within RECEIPT_TIMEOUT",
            )
            attempt["rank"] = RANKS[Status.UNKNOWN]  # nobody said so: any evidence weighs more
    thread.note()


SWEEPING: Operation[Sweep, int] = Operation("sweep", 50, sweep, lambda tx, items: False)
