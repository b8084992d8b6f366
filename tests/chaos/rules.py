"""What must hold, whatever happens: looked at as messages arrive at vendors, as transactions commit
(beside the triggers of the database), and at the end of a universe."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gateway.domain import RESENDS, Status
from gateway.status import ARRIVED, FINAL, AttemptState, Plan, status_of
from gateway.store.tx import Tx
from tests.chaos.storage import Storage, Violation
from tests.chaos.vendors import Request, Truth

SAMPLED = 0.05  # of the transactions whose messages are computed anew before they commit
ENDS = FINAL | {Status.ACCEPTED, Status.SENT}  # the latter two where the vendor says no more


class Rules:
    """Knows what was promised to whom, and what the vendors really got."""

    def __init__(self, storage: Storage, truth: Truth, luck: random.Random) -> None:
        self.commits = 0
        self.stopped: dict[str, int] = {}  # people whose STOP was answered, and when
        self.keys: dict[str, set[str]] = {}  # idempotency keys and the messages they gave
        self.answered: dict[str, str] = {}  # messages that were promised, with their bodies
        self.daily: dict[str, int] = {}  # quotas, by provider
        self._storage, self._truth, self._luck = storage, truth, luck
        self._feed = 0
        self._last: dict[str, str] = {}  # the last event of each message
        self._arrived: set[str] = set()

    def about_to_commit(self, tx: Tx, operation: Any, items: Sequence[Any]) -> None:
        """Computes some of what is written anew, from the rows; and what daily quotas allow."""
        for name, most in self.daily.items():
            self._none(
                f"more than the {most} of {name}'s day",
                f"SELECT COUNT(*) FROM attempts WHERE provider = '{name}' "
                f"AND status <> 'failed' HAVING COUNT(*) > {most}",
            )
        if tx.events and self._luck.random() < SAMPLED:
            ids = sorted({str(e["message_id"]) for e in tx.events if e["message_id"]})
            self._check_statuses(f"m.id IN ({', '.join('?' * len(ids))})", ids)

    def committed(self, tx: Tx, operation: Any, items: Sequence[Any]) -> None:
        """Follows the feed."""
        self.commits += 1
        if not tx.events:
            return
        ((newest,),) = self._storage.rows("SELECT MAX(id) FROM events")
        if newest < self._feed + len(tx.events):
            raise Violation("the feed's numbers did not rise with the commits")
        self._feed = newest
        for event in tx.events:
            if event["message_id"] is not None:
                self._last[event["message_id"]] = event["type"]

    def arrived(self, request: Request) -> None:
        """Judges a request as it comes to a vendor."""
        id_ = request.attempt_id
        rows = self._storage.rows(
            "SELECT a.started_at, m.on_unknown, m.body FROM attempts AS a JOIN messages AS m "
            "ON m.tenant_id = a.tenant_id AND m.id = a.message_id WHERE a.id = ?",
            id_,
        )
        if not rows:
            raise Violation(f"{id_} came to a vendor before it was committed")
        if id_ in self._arrived:
            raise Violation(f"{id_} came to a vendor twice")
        self._arrived.add(id_)
        started_at, on_unknown, _ = rows[0]
        if self.stopped.get(request.to, started_at) < started_at:
            raise Violation(f"{id_} began after its person had said STOP")
        earlier = self._truth.requests[request.message_id][:-1]
        maybe = [one for one in earlier if not one.unsent]
        bound = 0 if on_unknown == "hold" else RESENDS - 1
        if len(maybe) > bound:
            raise Violation(f"{request.message_id} came to vendors {len(maybe) + 1} times")
        copies = [one for one in earlier if one.taken and not one.throttled]
        if len(copies) > bound:
            raise Violation(f"{request.message_id} was taken, and came again")

    def promised(self, id_: str, body: str, key: str | None) -> None:
        """An accept was answered."""
        self.answered[id_] = body
        if key is not None:
            self.keys.setdefault(key, set()).add(id_)
            if len(self.keys[key]) > 1:
                raise Violation(f"the key {key} gave {sorted(self.keys[key])}")

    def ended(self) -> Counter[str]:
        """Looks at everything once more, at rest. How many messages ended how."""
        rows = self._storage.rows("SELECT id, status, body, error_code FROM messages")
        found = {id_: (status, body) for id_, status, body, _ in rows}
        for id_, body in self.answered.items():
            if id_ not in found:
                raise Violation(f"{id_} was promised and is not there")
            if found[id_][1] != body:
                raise Violation(f"{id_} is not the message that was promised")
        self._none("messages twice", "SELECT body, COUNT(*) FROM messages "
                   "WHERE direction = 'outbound' GROUP BY body HAVING COUNT(*) > 1")  # fmt: skip
        self._none("still queued", "SELECT message_id FROM queue")
        self._none("parked though known", "SELECT r.id FROM receipts AS r JOIN attempts AS a "
                   "ON a.connection = r.connection AND a.provider_message_id = "
                   "r.provider_message_id WHERE r.verdict = 'parked'")  # fmt: skip
        self._check_statuses("m.direction = 'outbound'", ())
        outbound = self._storage.rows("SELECT id, status FROM messages WHERE direction='outbound'")
        for id_, status in outbound:
            self._check_end(id_, Status(status))
        return Counter(status for _, status in outbound)

    def _none(self, what: str, sql: str) -> None:
        rows = self._storage.rows(sql)
        if rows:
            raise Violation(f"{what}: {rows[:3]}")

    def _check_end(self, id_: str, status: Status) -> None:
        if status not in ENDS:
            raise Violation(f"{id_} never ended: it is {status}")
        if self._last.get(id_) != f"message.{status}":
            raise Violation(f"{id_} is {status}, and its last event {self._last.get(id_)}")
        requests = self._truth.requests.get(id_, [])
        taken = [one for one in requests if one.taken and not one.throttled]
        known = self._known(id_)
        heard = {s for one in requests if one.named or one.vendor_id in known for s in one.heard}
        said = {s for one in requests for s in one.said}
        if (heard & ARRIVED and status not in ARRIVED) or (
            status in ARRIVED and not said & ARRIVED
        ):
            raise Violation(f"{id_} is {status}, and its vendors said {sorted(said)}")
        if status in (Status.ACCEPTED, Status.SENT) and not any(one.taken for one in requests):
            raise Violation(f"{id_} is {status}, and no vendor took it")
        if status in (Status.REJECTED, Status.EXPIRED, Status.CANCELED) and (
            any(one.vendor_id in known for one in taken) and not said
        ):
            raise Violation(f"{id_} is {status}, and a vendor took it")

    def _known(self, id_: str) -> set[str]:
        rows = self._storage.rows(
            "SELECT provider_message_id FROM attempts WHERE message_id = ?", id_
        )
        return {row[0] for row in rows}

    def _check_statuses(self, where: str, values: Iterable[Any]) -> None:
        """Whether messages stand where their attempts and their place in the queue put them."""
        now = self._storage.now()
        rows = self._storage.rows(
            "SELECT m.id, m.status, m.ended_as, m.send_at, q.due_at, q.lease_token, q.lease_until, "
            "q.quarantined FROM messages AS m LEFT JOIN queue AS q ON q.tenant_id = m.tenant_id "
            f"AND q.message_id = m.id WHERE m.direction = 'outbound' AND {where}",
            *values,
        )
        made: dict[str, list[Any]] = {}
        for row in self._storage.rows(
            "SELECT a.message_id, a.number, a.status, a.lease_token FROM attempts AS a JOIN "
            "messages AS m ON m.tenant_id = a.tenant_id AND m.id = a.message_id "
            f"WHERE {where} ORDER BY a.number",
            *values,
        ):
            made.setdefault(row[0], []).append(row)
        for id_, status, ended, *place in rows:
            attempts = made.get(id_, [])
            states = [AttemptState(number, Status(one)) for _, number, one, _ in attempts]
            plan = _plan(ended, place, attempts, now)
            wanted = {status_of(states, plan)}
            if plan.waiting in (Status.QUEUED, Status.SCHEDULED):  # the hour came: nobody wrote
                wanted |= {
                    status_of(states, Plan(waiting=w)) for w in (Status.QUEUED, Status.SCHEDULED)
                }
            if status not in wanted:
                raise Violation(f"{id_} is {status} and should be {sorted(wanted)}")


def _plan(ended: str | None, place: Sequence[Any], attempts: Sequence[Any], now: int) -> Plan:
    send_at, due_at, token, until, quarantined = place
    end = Status(ended) if ended else None
    if due_at is None:
        return Plan(end=end)
    if quarantined:
        return Plan(waiting=Status.HELD)
    if until and attempts and attempts[-1][3] == token:
        return Plan(end=end)
    if not attempts and send_at and due_at > now:
        return Plan(waiting=Status.SCHEDULED)
    return Plan(waiting=Status.QUEUED)
