"""The queue's side of a delivery: T2 and T3.

The fence (the lease's token) guards the queue entry only; a late result is always applied to its
attempt. Nothing here waits for a vendor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from gateway.domain import Connection, Estimate, Receipt, Sender, Status
from gateway.errors import ProviderError, Rejected
from gateway.money import shown
from gateway.quotas import Share, piece_of
from gateway.status import OPEN, RANKS
from gateway.store import opt_outs, receipts
from gateway.store.batcher import Operation
from gateway.store.claims import Due
from gateway.store.ledger import Ledger, Thread
from gateway.store.rows import select
from gateway.store.tables import attempts
from gateway.store.tx import Tx
from gateway.store.usage import Room, give_back

EMPTY_ATTEMPT: dict[str, Any] = dict.fromkeys(c.name for c in attempts.columns)


@dataclass(frozen=True, slots=True)
class Attempt:
    """T2: what is about to be written to a vendor. `why` is JSON; `instead` is a sender in place
    of the message's own, at a provider that has another."""

    id: str
    due: Due
    provider: str
    connection: Connection
    sender: str | None
    lease: int = 0  # milliseconds, where the lease begins with it
    why: str | None = None
    instead: Sender | None = None
    estimate: Estimate | None = None
    share: Share | None = None  # of the provider's daily quota


def begin(tx: Tx, items: Sequence[Attempt]) -> Sequence[bool | Exception]:
    """Writes the attempts, before the wire. False: not to be sent; its lease is gone, or the
    message was canceled, has expired, or its person has opted out meanwhile; or the provider's
    daily quota is used up, and the message waits again."""
    ledger = Ledger(tx, [item.due.key for item in items])
    people = [opt_outs.people_of(item.due.tenant_id, item.due.message) for item in items]
    out = opt_outs.blocked(tx, chain.from_iterable(people))
    room = Room(tx, [(item.connection, item.provider) for item in items if item.share is not None])
    results = [
        _begin(tx, ledger.get(item.due.key), item, opt_outs.refusal(mine, out), room)
        for item, mine in zip(items, people, strict=True)
    ]
    room.write()
    ledger.write()
    return results


def _begin(
    tx: Tx, thread: Thread | None, item: Attempt, refused: Mapping[str, Any] | None, room: Room
) -> bool:
    entry = thread.entry if thread else None
    if thread is None or entry is None or entry["lease_token"] != item.due.token:
        return False
    if entry["lease_until"] <= tx.now:
        return False
    if thread.attempt(item.id) is not None:
        return True  # a commit that was thought to be lost came through after all
    if thread.message["expires_at"] <= tx.now:
        expire(thread)
        return False
    if refused is not None:
        reject(thread, refused)
        return False
    if item.share is not None and not room.take(item.connection, item.provider, item.share):
        thread.change_entry(lease_token=None, lease_until=0, claims=max(0, entry["claims"] - 1))
        return False
    number = (thread.newest["number"] if thread.newest else 0) + 1
    thread.begin(new_attempt(tx, item, number))
    thread.change_entry(attempts=entry["attempts"] + 1, claims=0)
    thread.change(provider=item.provider, connection=item.connection.id)
    if item.instead is not None:
        thread.change(from_address=item.instead.address)
    thread.note()
    return True


def expire(thread: Thread) -> None:
    """Ends a message whose time is over."""
    thread.dequeue()
    thread.change(ended_as=Status.EXPIRED.value)
    if not thread.attempts:
        thread.change(error_code="expired", error_message="its time was over before it was sent")
    thread.note()


def reject(thread: Thread, refused: Mapping[str, Any]) -> None:
    """Ends a message whose person has opted out since it was accepted."""
    thread.dequeue()
    thread.change(ended_as=Status.REJECTED.value)
    if not any(Status(a["status"]) in OPEN for a in thread.attempts):  # else one may be out
        thread.change(**refused)
    thread.note()


def new_attempt(tx: Tx, item: Attempt, number: int) -> dict[str, Any]:
    """The row of an attempt that may be on the wire a moment later."""
    row = EMPTY_ATTEMPT.copy()
    row.update(
        tenant_id=item.due.tenant_id,
        id=item.id,
        message_id=item.due.message_id,
        number=number,
        provider=item.provider,
        connection=item.connection.id,
        account=item.connection.account,
        sender=item.sender,
        recipient=item.due.message["to_address"],
        status=Status.SENDING.value,
        rank=RANKS[Status.SENDING],
        lease_token=item.due.token,
        why=item.why,
        route=item.due.route if "," in item.due.route else None,
        started_at=tx.now,
    )
    if item.estimate is not None:
        row.update(estimated(item.estimate))
    return row


def estimated(estimate: Estimate) -> dict[str, Any]:
    """What an attempt's row keeps of what it is expected to cost."""
    cost = estimate.cost
    return {
        "country": estimate.country,
        "units": estimate.units,
        "estimated_cost": shown(cost.amount) if cost is not None else None,
        "estimated_currency": cost.currency if cost is not None else None,
    }


def begun(tx: Tx, items: Sequence[Attempt]) -> bool:
    """Whether a batch of attempts was committed."""
    return bool(select(tx, attempts, ("id",), [(item.id,) for item in items], ("id",)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """T3: how one attempt ended. `retry_in` is in milliseconds, where a next one is to be made, by
    one of `route` if that has changed; `not_before` too, where the vendor said when. `following`
    is that next one, where the same worker may make it at once, under a lease of its own."""

    attempt: Attempt
    receipt: Receipt | None = None
    error: ProviderError | None = None
    retry_in: int | None = None
    route: str | None = None
    not_before: int | None = None
    following: Attempt | None = None


_Refused = tuple[Thread, dict[str, Any], Outcome]  # what is to go on, and from which attempt


def settle(tx: Tx, items: Sequence[Outcome]) -> Sequence[bool | Exception]:
    """Applies outcomes to attempts, messages and the queue, with the receipts that came early.
    Says of each whether its next attempt was begun with it."""
    ledger = Ledger(tx, [item.attempt.due.key for item in items])
    free = _free_ids(tx, items)
    onward: list[_Refused] = []
    said: list[opt_outs.Refused] = []
    unsent: Counter[tuple[str, str, int]] = Counter()
    for item in items:
        thread = ledger.get(item.attempt.due.key)
        attempt = thread.attempt(item.attempt.id) if thread else None
        if thread is None or attempt is None:
            continue
        if item.receipt is not None:
            _take(tx, thread, attempt, item, free)
        elif item.error is not None:
            if _refuse(tx, thread, attempt, item, onward):
                unsent.update(_uncounted(attempt, item))
            said += opt_outs.said_by(attempt, item.error.reason, item.error.code)
    receipts.apply_parked(tx, ledger, [i.attempt.id for i in items if i.receipt is not None])
    opt_outs.refused(tx, said)
    _go_on(tx, onward)
    ledger.write()
    give_back(tx, unsent)
    return [_went_on(ledger.get(item.attempt.due.key), item) for item in items]


def _go_on(tx: Tx, onward: Sequence[_Refused]) -> None:
    """Begins what follows at once, after all that this transaction has heard of people."""
    people = [
        opt_outs.people_of(i.attempt.due.tenant_id, i.attempt.due.message) for _, _, i in onward
    ]
    out = opt_outs.blocked(tx, chain.from_iterable(people))
    for (thread, attempt, item), mine in zip(onward, people, strict=True):
        _after(tx, thread, attempt, item, opt_outs.refusal(mine, out))


def _begin_next(
    tx: Tx, thread: Thread, item: Attempt, made: int, refused: Mapping[str, Any] | None
) -> None:
    """T2 of an attempt that follows, under a new lease in place of the one that its message had."""
    due = item.due
    thread.change_entry(
        route=due.route, attempts=made, lease_token=due.token, lease_until=tx.now + item.lease
    )
    _begin(tx, thread, item, refused, Room(tx, ()))


def _went_on(thread: Thread | None, item: Outcome) -> bool:
    """Whether the next attempt stands, by this transaction or by one thought to be lost."""
    if thread is None or item.following is None:
        return False
    return thread.attempt(item.following.id) is not None


def _uncounted(attempt: Mapping[str, Any], item: Outcome) -> dict[tuple[str, str, int], int]:
    """What is not used of a daily quota after all: nothing was sent."""
    share = item.attempt.share
    if share is None or item.error is None or not item.error.sent_nothing:
        return {}
    key = item.attempt.connection.id, item.attempt.provider, piece_of(attempt["started_at"])
    return {key: share.people}


def _free_ids(tx: Tx, items: Sequence[Outcome]) -> dict[tuple[str, str], str]:
    """Which attempt each vendor id belongs to: the one that has it, else the first to name it."""
    wanted = [
        (item.attempt.connection.id, item.receipt.provider_message_id)
        for item in items
        if item.receipt is not None and item.receipt.provider_message_id is not None
    ]
    columns = ("connection", "provider_message_id", "id")
    owners = {
        (row.connection, row.provider_message_id): str(row.id)
        for row in select(tx, attempts, columns[:2], wanted, columns)
    }
    for item in items:
        if item.receipt is not None and item.receipt.provider_message_id is not None:
            key = (item.attempt.connection.id, item.receipt.provider_message_id)
            owners.setdefault(key, item.attempt.id)
    return owners


def _take(
    tx: Tx, thread: Thread, attempt: dict[str, Any], item: Outcome, owners: dict[Any, str]
) -> None:
    receipt = item.receipt
    assert receipt is not None
    id_ = receipt.provider_message_id
    if owners.get((item.attempt.connection.id, id_), attempt["id"]) != attempt["id"]:
        id_ = None  # a vendor's id binds to one attempt for ever
    thread.evidence(
        attempt,
        receipt.status,
        tx.now,
        provider_message_id=id_ if attempt["provider_message_id"] is None else None,
        segments=receipt.segments,
        cost=str(receipt.cost.amount) if receipt.cost else None,
        currency=receipt.cost.currency if receipt.cost else None,
        sender=receipt.sender,
    )
    if thread.taken or (thread.newest is attempt and thread.under_way):
        thread.dequeue()
    thread.note()


def _refuse(
    tx: Tx, thread: Thread, attempt: dict[str, Any], item: Outcome, onward: list[_Refused]
) -> bool:
    """Applies an error. Whether it moved the attempt: said again, it does not."""
    error = item.error
    assert error is not None
    if attempt["rank"] >= RANKS[Status.ACCEPTED]:
        return False  # the vendor itself has spoken, in a callback
    status = Status.FAILED if error.sent_nothing else Status.UNKNOWN
    moved = thread.evidence(
        attempt,
        status,
        tx.now,
        error_reason=error.reason,
        error_code=error.code,
        error_message=error.text,
        retry_at=None if item.not_before is None else tx.now + item.not_before,
    )
    if item.following is not None:
        onward.append((thread, attempt, item))
    else:
        _after(tx, thread, attempt, item)
    return moved


def _after(
    tx: Tx,
    thread: Thread,
    attempt: dict[str, Any],
    item: Outcome,
    refused: Mapping[str, Any] | None = None,
) -> None:
    mine = thread.entry is not None and thread.entry["lease_token"] == item.attempt.due.token
    orphan = thread.entry is None and thread.newest is attempt
    if (mine or orphan) and thread.newest is attempt:
        _next(tx, thread, item, refused, mine=mine)
    thread.note()


def _next(
    tx: Tx, thread: Thread, item: Outcome, refused: Mapping[str, Any] | None, *, mine: bool
) -> None:
    # Since somebody asked for it again, if somebody did: then the chain has a fresh start.
    made = thread.entry["attempts"] if thread.entry is not None else len(thread.attempts)
    ends = isinstance(item.error, Rejected) or thread.message["ended_as"] is not None
    if item.retry_in is None or ends or thread.taken:
        thread.dequeue()
        return
    due = tx.now + item.retry_in
    if due >= thread.message["expires_at"]:
        thread.dequeue()
        return
    if item.following is not None and mine:
        _begin_next(tx, thread, item.following, made, refused)
        return
    route = item.attempt.due.route if item.route is None else item.route
    thread.requeue(due, attempts=made, route=route)


def _repeatable(tx: Tx, items: Sequence[Any]) -> bool:
    return False  # repeating it is harmless: what is done is not done again


BEGIN: Operation[Attempt, bool] = Operation("begin", 25, begin, begun, keeps=False)
SETTLE: Operation[Outcome, bool] = Operation("settle", 20, settle, _repeatable)
