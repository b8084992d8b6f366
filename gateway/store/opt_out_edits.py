"""Opt-outs as operators and applications see and change them. Always of one tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.clock import new_id
from gateway.domain import Channel
from gateway.opt_outs import DETAILS, OPERATORS, Source, State, Why, same_person
from gateway.store.batcher import Operation
from gateway.store.opt_out_tables import opt_out_events, opt_outs
from gateway.store.opt_outs import KEY, Word, apply, everybody, heard
from gateway.store.rows import select
from gateway.store.tx import Tx
from gateway.views import View, opt_out_view

FILTERS = ("channel", "address", "state")
# `why_blocked`, in SQL; every word in it is ours.
WHY = " ".join(
    [
        "CASE",
        *(f"WHEN detail = '{said}' THEN '{why}'" for said, why in DETAILS.items()),
        *(f"WHEN source = '{source}' THEN '{Why.MANUAL}'" for source in sorted(OPERATORS)),
        f"ELSE '{Why.UNSUBSCRIBE}' END",
    ]
)
COLUMNS = ", ".join(column.name for column in opt_outs.columns)
EVENT_COLUMNS = ", ".join(column.name for column in opt_out_events.columns)

Row = dict[str, Any]
Place = tuple[int, str, str]  # where a list goes on: when it changed, channel, address


def listed(
    tx: Tx,
    tenant_id: str,
    filters: Mapping[str, str],
    before: Place | None,
    limit: int,
    why: Why | None = None,
    names: Sequence[str] = (),
) -> list[Row]:
    """Whether people may be written to, what changed last first. `names` are one person's
    addresses; with a channel, they find what was said of the person by any other. `why` is about
    email."""
    where, values = ["tenant_id = ?"], [tenant_id]
    if why is not None:
        where.append(f"{WHY} = ?")
        values.append(why.value)
    for name, value in filters.items():
        where.append(f"{name} = ?")
        values.append(value)
    if names:
        wanted = _called(tx, tenant_id, filters.get("channel"), names)
        where.append(f"address IN ({', '.join('?' * len(wanted))})")
        values += wanted
    if before is not None:
        where.append("(updated_at, channel, address) < (?, ?, ?)")
    found = tx.run(
        f"SELECT {COLUMNS} FROM opt_outs WHERE {' AND '.join(where)} "
        "ORDER BY updated_at DESC, channel DESC, address DESC LIMIT ?",
        [*values, *(before or ()), limit],
    )
    return [dict(row._mapping) for row in found.fetchall()]


def _called(tx: Tx, tenant_id: str, channel: str | None, names: Sequence[str]) -> list[str]:
    if channel is None:
        return [same_person(Channel.EMAIL, name) if "@" in name else name for name in names]
    return [address for _, _, address in everybody(tx, tenant_id, channel, *names)]


def one(tx: Tx, tenant_id: str, channel: str, *names: str) -> Row | None:
    """What holds for a person, by any of their addresses, if anything was ever said."""
    people = everybody(tx, tenant_id, channel, *names)
    columns = [column.name for column in opt_outs.columns]
    rows = [dict(row._mapping) for row in select(tx, opt_outs, KEY, people, columns)]
    return max(rows, key=lambda row: (int(row["said_at"]), row["state"]), default=None)


def history(
    tx: Tx, tenant_id: str, channel: str, names: Sequence[str], before: str | None, limit: int
) -> list[Row]:
    """Every word about the person of these addresses, the newest first."""
    people = everybody(tx, tenant_id, channel, *names)
    marks = ", ".join("?" * len(people))
    values: list[Any] = [tenant_id, channel, *(address for _, _, address in people)]
    found = tx.run(
        f"SELECT {EVENT_COLUMNS} FROM opt_out_events WHERE tenant_id = ? AND channel = ? AND "
        f"address IN ({marks}) {'' if before is None else 'AND id < ? '}ORDER BY id DESC LIMIT ?",
        [*values, *([] if before is None else [before]), limit],
    )
    return [dict(row._mapping) for row in found.fetchall()]


def left_by(tx: Tx, tenant_id: str, channel: str, address: str, message_id: str) -> bool:
    """Whether a person is out, and has said so at the address of this very message since then."""
    row = one(tx, tenant_id, channel, address)
    if row is None or row["state"] != State.OUT:
        return False
    people = everybody(tx, tenant_id, channel, address)
    found = tx.run(
        "SELECT 1 FROM opt_out_events WHERE tenant_id = ? AND channel = ? "
        f"AND address IN ({', '.join('?' * len(people))}) AND source = ? AND message_id = ? "
        "AND said_at >= ? LIMIT 1",
        [tenant_id, channel, *(address for _, _, address in people),
         Source.UNSUBSCRIBE.value, message_id, row["since"]],
    )  # fmt: skip
    return found.fetchone() is not None


def operator(
    tenant_id: str,
    channel: str,
    address: str,
    state: State,
    source: Source,
    reason: str | None,
    also: Sequence[str] = (),
) -> Word:
    """What an operator says of a person, who has further addresses. To let somebody in of whom
    nobody spoke is no word."""
    return Word(
        id=new_id("opt"),
        tenant_id=tenant_id,
        channel=channel,
        address=address,
        state=state,
        source=source,
        only_known=state is State.IN,
        detail=reason,
        also=tuple(also),
    )


def edit(tx: Tx, items: Sequence[Word]) -> Sequence[View | None | Exception]:
    """Takes what operators say. None: nothing is known of that person."""
    return [opt_out_view(row) if row is not None else None for row in apply(tx, items)]


def landed(tx: Tx, items: Sequence[Word]) -> bool:
    """Whether a batch of operators' words was committed."""
    return bool(heard(tx, items))


EDIT: Operation[Word, View | None] = Operation("opt-outs", 18, edit, landed)
