"""Statuses and breakers as state machines over their rows: any order of what may happen, on the
product's own statements, in a database in memory whose triggers see what goes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway import breaker
from gateway.breaker import Circuit, Policy, Sign, State
from gateway.clock import new_id
from gateway.domain import Channel, Connection, OnUnknown, Receipt, Sender, Status, VendorError
from gateway.errors import Ambiguous, ProviderError, Rejected, Throttled, Unreachable
from gateway.status import AttemptState, furthest
from gateway.store.accepts import ACCEPT
from gateway.store.batcher import Operation
from gateway.store.breakers import (
    ASK,
    HEAR,
    HURRY,
    Ask,
    Heard,
    Hurry,
    Place,
    circuit_of,
    listed,
    place_of,
)
from gateway.store.claims import CLAIM, Claim
from gateway.store.database import finish
from gateway.store.deliveries import BEGIN, SETTLE, Attempt, Outcome
from gateway.store.edits import CANCEL, Named
from gateway.store.inbox import RECEIVE
from gateway.store.sweeps import SWEEPING, Sweep
from tests.chaos.rules import Rules
from tests.chaos.storage import EPOCH, Storage
from tests.chaos.vendors import Truth
from tests.stored import OURS, TENANT, delivery, new_message, person, update

HERE = Connection(
    id="c1",
    tenant_id=TENANT,
    family="test",
    account="AC1",
    senders={Channel.SMS: Sender(address=OURS)},
)
SAID = (
    Status.ACCEPTED, Status.SENT, Status.UNDELIVERED, Status.FAILED, Status.DELIVERED, Status.READ,
)  # fmt: skip
ERRORS = (Ambiguous, Rejected, Throttled, Unreachable)


class Rows(RuleBasedStateMachine):
    """A database, and its time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.storage = Storage(lambda: self.time)

    def teardown(self) -> None:
        self.storage.close()

    def do(self, operation: Operation[Any, Any], *items: Any) -> Sequence[Any]:
        """One batch, committed."""
        tx = self.storage.begin()
        results = operation.run(tx, items)
        finish(tx)
        self.storage.commit()
        assert not [result for result in results if isinstance(result, Exception)]
        return results

    @rule(seconds=st.sampled_from([0.001, 1.0, 30.0, 90.0, 5000.0]))
    def time_passes(self, seconds: float) -> None:
        self.time += seconds


class Statuses(Rows):
    """Messages, attempts, answers and callbacks, in any order. The triggers of `storage` hold that
    evidence moves one way and that a delivery is not undone."""

    def __init__(self) -> None:
        super().__init__()
        self.rules = Rules(self.storage, Truth(), None)  # type: ignore[arg-type]
        self.begun: list[Attempt] = []
        self.ids: list[str] = []
        self.far: dict[str, int] = {}  # the rank of the furthest evidence of each attempt
        self.count = 0

    @rule(policy=st.sampled_from(OnUnknown), who=st.integers(0, 2))
    def a_message_is_accepted(self, policy: OnUnknown, who: int) -> None:
        expires = self.storage.now() + 3_600_000
        new = new_message(to=person(who), on_unknown=policy.value, expires_at=expires)
        self.ids.append(self.do(ACCEPT, new)[0].view["id"])

    @rule()
    def what_is_due_is_begun(self) -> None:
        (due,) = self.do(CLAIM, Claim(new_id("lease"), 5, 60_000, ("test",)))
        for one in due:
            attempt = Attempt(new_id("att"), one, "test", HERE, OURS)
            if self.do(BEGIN, attempt)[0]:
                self.begun.append(attempt)

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), error=st.sampled_from((None, *ERRORS)), again=st.booleans())
    def an_answer_comes(
        self, data: st.DataObject, error: type[ProviderError] | None, again: bool
    ) -> None:
        attempt = data.draw(st.sampled_from(self.begun))
        if error is None:
            receipt = Receipt(provider_message_id=f"SM-{attempt.id}")
            self.do(SETTLE, Outcome(attempt, receipt=receipt))
        else:
            may = error in (Throttled, Unreachable)
            wait = 1000 if again and may else None
            self.do(SETTLE, Outcome(attempt, error=error("x"), retry_in=wait))

    @precondition(lambda self: self.begun)
    @rule(
        data=st.data(),
        status=st.sampled_from(SAID),
        reason=st.sampled_from((None, "throttled")),
        named=st.booleans(),
    )
    def a_callback_comes(
        self, data: st.DataObject, status: Status, reason: str | None, named: bool
    ) -> None:
        attempt = data.draw(st.sampled_from(self.begun))
        self.count += 1
        failed = status in (Status.FAILED, Status.UNDELIVERED)
        said = update(
            status,
            attempt_id=attempt.id if named else None,
            provider_message_id=f"SM-{attempt.id}",
            recipient=attempt.due.message["to_address"],
            error=VendorError(code="30001", reason=reason) if failed else None,
        )
        self.do(RECEIVE, delivery(f"key {self.count}", said))

    @precondition(lambda self: self.ids)
    @rule(data=st.data())
    def somebody_cancels(self, data: st.DataObject) -> None:
        self.do(CANCEL, Named(TENANT, data.draw(st.sampled_from(self.ids))))

    @rule(everything=st.booleans())
    def what_was_left_is_swept(self, everything: bool) -> None:
        self.do(SWEEPING, Sweep(600_000, everything))

    @invariant()
    def every_message_stands_where_its_rows_put_it(self) -> None:
        self.rules._check_statuses("TRUE", ())

    @invariant()
    def evidence_only_grows(self) -> None:
        for id_, rank in self.storage.rows("SELECT id, rank FROM attempts"):
            assert rank >= self.far.get(id_, 0)
            self.far[id_] = rank

    @invariant()
    def the_feed_ends_where_messages_stand(self) -> None:
        rows = self.storage.rows(
            "SELECT m.status, (SELECT e.type FROM events AS e WHERE e.message_id = m.id "
            "ORDER BY e.id DESC LIMIT 1) FROM messages AS m"
        )
        assert all(told == f"message.{status}" for status, told in rows)

    @invariant()
    def a_message_shows_the_attempt_that_speaks_for_it(self) -> None:
        for id_ in self.ids:
            made = self.storage.rows(
                "SELECT number, status, provider_message_id FROM attempts WHERE message_id = ?", id_
            )
            best = furthest([AttemptState(number, Status(status)) for number, status, _ in made])
            if best is None or best.status is Status.SENDING:
                continue
            ((shown,),) = self.storage.rows(
                "SELECT provider_message_id FROM messages WHERE id = ?", id_
            )
            assert shown == next(theirs for number, _, theirs in made if number == best.number)


POLICY = Policy(failures=3, messages=2, open_for=10_000, longest=40_000, successes=2, probe=5_000)
PLACES = (Place(TENANT, "c1", "test"), Place(TENANT, "c1", "test", OURS), Place(TENANT, "c2", "x"))
ANSWERS = st.tuples(
    st.sampled_from(PLACES), st.sampled_from(Sign), st.integers(0, 3), st.floats(0, 1)
)


class Breakers(Rows):
    """Breakers of several places, written in batches by several processes: the rows are what the
    pure machine makes of the same answers, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.model = dict.fromkeys(PLACES, Circuit())
        self.versions = dict.fromkeys(PLACES, 0)
        self.tokens: list[tuple[Place, str]] = []

    @property
    def now(self) -> int:
        return EPOCH + int(self.time * 1000)

    @rule(answers=st.lists(ANSWERS, min_size=1, max_size=6))
    def answers_come_in_one_batch(self, answers: list[tuple[Place, Sign, int, float]]) -> None:
        items = [Heard(p, sign, f"m{n}", luck, POLICY) for p, sign, n, luck in answers]
        for one in items:
            self.heard(one)
        results = self.do(HEAR, *items)
        assert [r.circuit for r in results] == [self.model[item.place] for item in items]

    def heard(self, one: Heard) -> None:
        self.model[one.place] = breaker.heard(
            self.model[one.place],
            one.sign,
            message=one.message,
            now=self.now,
            luck=one.luck,
            policy=one.policy,
            token=one.token,
            error=one.error,
        )

    @rule(place=st.sampled_from(PLACES), several=st.integers(1, 3))
    def processes_ask_to_probe(self, place: Place, several: int) -> None:
        asked = [new_id("probe") for _ in range(several)]
        results = self.do(ASK, *(Ask(place, token, POLICY) for token in asked))
        for token in asked:
            after = breaker.probing(self.model[place], token, self.now, POLICY)
            self.model[place] = after or self.model[place]
        granted = [t for t, r in zip(asked, results, strict=True) if r.circuit.probe_token == t]
        assert len(granted) <= 1
        self.tokens += [(place, token) for token in granted]

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), sign=st.sampled_from(Sign))
    def a_probe_ends(self, data: st.DataObject, sign: Sign) -> None:
        one = data.draw(st.sampled_from(self.tokens))
        self.tokens.remove(one)
        item = Heard(one[0], sign, "probe", 0.5, POLICY, one[1])
        self.heard(item)
        self.do(HEAR, item)

    @rule(place=st.sampled_from(PLACES))
    def somebody_repairs_one(self, place: Place) -> None:
        self.do(HURRY, Hurry(places=(place,)))
        if self.model[place].state is not State.CLOSED:
            self.model[place] = breaker.hurried(self.model[place], self.now)

    @invariant()
    def the_rows_are_what_the_pure_machine_says(self) -> None:
        tx = self.storage.begin()
        rows = listed(tx)
        self.storage.rollback()
        found = {place_of(row): circuit_of(row) for row in rows}
        assert {p: c for p, c in self.model.items() if c != Circuit()}.items() <= found.items()
        for row in rows:
            assert row["version"] >= self.versions[place_of(row)]
            self.versions[place_of(row)] = row["version"]


TestStatuses = Statuses.TestCase
TestBreakers = Breakers.TestCase
TestStatuses.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True
)
TestBreakers.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True
)
