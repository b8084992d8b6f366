"""Pins: a provider that an operator puts first for a while. And what stands of failover in all, for
the processes' views and for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import new_id
from gateway.quotas import Usage
from gateway.store import breakers, usage
from gateway.store.breaker_tables import pins, switches
from gateway.store.breakers import Standing, circuit_of, place_of
from gateway.store.rows import insert
from gateway.store.tx import Tx

TENANT = "default"  # whose chains the settings make

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pin:
    """A provider that comes first on a channel, or on all, until then (milliseconds)."""

    provider: str
    channel: str
    until: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All breakers and pins at a moment of the database's clock. The newest pin comes first."""

    now: int
    standings: tuple[Standing, ...]
    pins: tuple[Pin, ...]
    usage: tuple[Usage, ...] = ()  # of daily quotas


def snapshot(tx: Tx) -> Snapshot:
    """What stands now."""
    rows = breakers.listed(tx)
    standings = (Standing(place_of(row), circuit_of(row), int(row["version"])) for row in rows)
    return Snapshot(tx.now, tuple(standings), tuple(pinned(tx)), usage.listed(tx))


def pinned(tx: Tx) -> list[Pin]:
    """The pins that hold, the newest first."""
    found = tx.run(
        "SELECT provider, channel, until FROM provider_pins WHERE until > ? "
        "ORDER BY created_at DESC, provider, channel",
        (tx.now,),
    )
    return [Pin(row.provider, row.channel, int(row.until)) for row in found.fetchall()]


def pin(tx: Tx, provider: str, channel: str, duration: int) -> Pin:
    """Puts a provider first for so many milliseconds; again: from now on."""
    made = Pin(provider, channel, tx.now + duration)
    row = {
        "tenant_id": TENANT,
        "provider": provider,
        "channel": channel,
        "until": made.until,
        "created_at": tx.now,
    }
    again = "DO UPDATE SET until = excluded.until, created_at = excluded.created_at"
    insert(tx, pins, [row], f"ON CONFLICT (tenant_id, provider, channel) {again}")
    _log(tx, "pinned", made)
    return made


def unpin(tx: Tx, provider: str, channel: str | None) -> int:
    """Takes a provider's pins off, of one channel or all. Gives how many there were."""
    return _taken_off(tx, "provider = ? AND channel = COALESCE(?, channel)", (provider, channel))


def expire(tx: Tx) -> int:
    """Takes off what has had its time."""
    return _taken_off(tx, "until <= ?", (tx.now,))


def _taken_off(tx: Tx, where: str, values: tuple[Any, ...]) -> int:
    sql = f"DELETE FROM provider_pins WHERE {where} RETURNING provider, channel, until"
    gone = [
        Pin(row.provider, row.channel, int(row.until)) for row in tx.run(sql, values).fetchall()
    ]
    for one in gone:
        _log(tx, "unpinned", one)
    return len(gone)


def _log(tx: Tx, what: str, one: Pin) -> None:
    row: Row = dict.fromkeys(column.name for column in switches.columns)
    row.update(
        tenant_id=TENANT,
        id=new_id("sw"),
        at=tx.now,
        provider=one.provider,
        what=what,
        channel=one.channel or None,
        until=one.until,
    )
    insert(tx, switches, [row])
    tx.topics.add(breakers.TOPIC)


def switched(tx: Tx, provider: str | None, limit: int) -> Sequence[Row]:
    """The switches of one provider, or of all, newest first."""
    columns = ", ".join(column.name for column in switches.columns)
    found = tx.run(
        f"SELECT {columns} FROM provider_switches WHERE provider = COALESCE(?, provider) "
        "ORDER BY at DESC, id DESC LIMIT ?",
        (provider, limit),
    )
    return [dict(row._mapping) for row in found.fetchall()]
