"""What was used of daily quotas: counted before the wire, in the transaction that begins an
attempt, and given back by that which stores that nothing was sent. One row of ten minutes is locked
for a whole batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from gateway.domain import Connection
from gateway.quotas import DAY, Share, Usage, oldest, piece_of
from gateway.store.rows import insert
from gateway.store.tx import Tx
from gateway.store.usage_tables import provider_usage

KEY = ("connection", "provider", "piece")
Place = tuple[str, str]  # connection and provider
FREED = "people = CASE WHEN people > ? THEN people - ? ELSE 0 END"


class Room:
    """What is left of quotas, locked until the transaction ends."""

    def __init__(self, tx: Tx, wanted: Iterable[tuple[Connection, str]]) -> None:
        self._tx = tx
        self._piece = piece_of(tx.now)
        places = {(one.id, provider): one.tenant_id for one, provider in wanted}
        self._used = {place: self._locked(place, places[place]) for place in sorted(places)}
        self._taken: Counter[Place] = Counter()

    def _locked(self, place: Place, tenant_id: str) -> int:
        """What is used; from here on nobody else counts there."""
        row = {
            **dict(zip(KEY, (*place, self._piece), strict=True)),
            "tenant_id": tenant_id,
            "people": 0,
        }
        again = f"ON CONFLICT ({', '.join(KEY)}) DO UPDATE SET people = provider_usage.people"
        insert(self._tx, provider_usage, [row], again)
        return _sum(self._tx, place)

    def take(self, connection: Connection, provider: str, share: Share) -> bool:
        """Counts a message, if there is room for it."""
        place = connection.id, provider
        if self._used[place] + share.needed > share.limit:
            return False
        self._used[place] += share.people
        self._taken[place] += share.people
        return True

    def write(self) -> None:
        """Writes what was taken."""
        for place in sorted(self._taken):
            self._tx.run(
                "UPDATE provider_usage SET people = people + ? "
                "WHERE connection = ? AND provider = ? AND piece = ?",
                (self._taken[place], *place, self._piece),
            )


def _sum(tx: Tx, place: Place) -> int:
    """What counts now; what a clock that was ahead has counted does not."""
    found = tx.run(
        "SELECT COALESCE(SUM(people), 0) FROM provider_usage "
        "WHERE connection = ? AND provider = ? AND piece BETWEEN ? AND ?",
        (*place, oldest(tx.now), tx.now),
    )
    return int(found.scalar())


def give_back(tx: Tx, unsent: Mapping[tuple[str, str, int], int]) -> None:
    """People who were counted and not written to, by connection, provider and piece."""
    for key in sorted(unsent):
        tx.run(
            f"UPDATE provider_usage SET {FREED} "
            "WHERE connection = ? AND provider = ? AND piece = ?",
            (unsent[key], unsent[key], *key),
        )


def listed(tx: Tx) -> tuple[Usage, ...]:
    """All that counts now."""
    found = tx.run(
        "SELECT connection, provider, piece, people FROM provider_usage "
        "WHERE piece BETWEEN ? AND ?",
        (oldest(tx.now), tx.now),
    )
    return tuple(
        Usage(row.connection, row.provider, int(row.piece), int(row.people))
        for row in found.fetchall()
    )


def prune(tx: Tx) -> int:
    """Takes what counts no more."""
    before = oldest(tx.now) - DAY
    return tx.run("DELETE FROM provider_usage WHERE piece < ?", (before,)).rowcount
