"""The breaker: when it opens, who may probe it, when it closes, in any order of events."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.breaker import (
    Circuit,
    Policy,
    Sign,
    State,
    free_at,
    heard,
    hurried,
    may_probe,
    probing,
    sign_of,
)
from gateway.errors import (
    REASONS,
    AccountRefused,
    Ambiguous,
    Breaker,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unreachable,
    Unsupported,
)

POLICY = Policy(failures=5, messages=3, open_for=60_000, longest=600_000, successes=2, probe=30_000)
NOW = 1_000_000


def fed(circuit: Circuit, *signs: Sign, now: int = NOW, messages: int = 99) -> Circuit:
    """After answers about so many different messages, in turn."""
    for number, sign in enumerate(signs):
        circuit = heard(
            circuit,
            sign,
            message=f"msg_{number % messages}",
            now=now,
            luck=0.5,
            policy=POLICY,
            error=("unreachable", "dns") if sign is not Sign.WELL else None,
        )
    return circuit


def probed(circuit: Circuit, sign: Sign, now: int) -> Circuit:
    """After one probe."""
    asked = probing(circuit, "p", now, POLICY)
    assert asked is not None
    error = None if sign is Sign.WELL else ("ambiguous", "timeout")
    return heard(asked, sign, message="m", now=now, luck=0.5, policy=POLICY, token="p", error=error)


FAILED = Sign.FAILED
OPEN = fed(Circuit(), *[FAILED] * 5)


@pytest.mark.parametrize(
    ("error", "sign"),
    [
        (None, Sign.WELL),
        (Unsupported("x"), Sign.NOTHING),
        (Rejected("x"), Sign.WELL),
        (SenderRefused("x"), Sign.WELL),
        (AccountRefused("x"), Sign.REFUSED),
        (Throttled("x"), Sign.NOTHING),
        (Unreachable("x"), Sign.FAILED),
        (Ambiguous("x"), Sign.FAILED),
        (Throttled("x", code="no_seat"), Sign.NOTHING),
        (Ambiguous("x", code="stopped"), Sign.NOTHING),
    ],
)
def test_each_class_says_its_own_about_the_provider(
    error: ProviderError | None, sign: Sign
) -> None:
    assert sign_of(error) is sign


def test_a_refusal_before_the_vendor_was_asked_closes_nothing() -> None:
    gone = Rejected("the file is gone")
    gone.breaker = Breaker.IGNORES  # as whoever brings files marks it: another host said that
    assert sign_of(gone) is Sign.NOTHING


def test_every_class_says_something() -> None:
    for kind in REASONS:
        assert sign_of(kind("x")) in Sign


def test_throttling_counts_when_it_goes_on() -> None:
    assert sign_of(Throttled("x"), sustained=True) is Sign.REFUSED
    assert sign_of(Throttled("x", code="no_seat"), sustained=True) is Sign.NOTHING


def test_five_failures_in_a_row_open_it() -> None:
    assert fed(Circuit(), *[FAILED] * 4).state is State.CLOSED
    assert (OPEN.state, OPEN.failures, OPEN.retry_at) == (State.OPEN, 5, NOW + 60_000)
    assert (OPEN.error_reason, OPEN.error_code) == ("unreachable", "dns")


def test_an_answer_between_them_starts_the_count_anew() -> None:
    for sign in (Sign.WELL, Sign.NOTHING):
        after = fed(Circuit(), *[FAILED] * 4, sign, FAILED)
        assert after.state is (State.CLOSED if sign is Sign.WELL else State.OPEN)


def test_one_message_cannot_open_it_however_often_it_fails() -> None:
    assert fed(Circuit(), *[FAILED] * 500, messages=1).state is State.CLOSED
    assert fed(Circuit(), *[FAILED] * 500, messages=2).state is State.CLOSED
    assert fed(Circuit(), *[FAILED] * 5, messages=3).state is State.OPEN


def test_a_refused_account_opens_it_at_once() -> None:
    assert fed(Circuit(), Sign.REFUSED).state is State.OPEN


@pytest.mark.parametrize(("luck", "wait"), [(0.0, 54_000), (0.5, 60_000), (1.0, 66_000)])
def test_the_wait_is_spread(luck: float, wait: int) -> None:
    after = heard(Circuit(), Sign.REFUSED, message="m", now=0, luck=luck, policy=POLICY)
    assert after.retry_at == wait


def test_nobody_probes_before_its_time() -> None:
    assert probing(OPEN, "p", NOW + 59_999, POLICY) is None
    assert probing(OPEN, "p", NOW + 60_000, POLICY) is not None
    assert probing(Circuit(), "p", NOW, POLICY) is None


def test_one_probe_at_a_time_until_its_own_time_is_over() -> None:
    now = NOW + 60_000
    first = probing(OPEN, "p", now, POLICY)
    assert first is not None
    assert (first.state, free_at(first, now)) == (State.HALF_OPEN, now + 30_000)
    assert probing(first, "q", now + 29_999, POLICY) is None
    second = probing(first, "q", now + 30_000, POLICY)
    assert second is not None
    late = heard(second, Sign.WELL, message="m", now=now, luck=0, policy=POLICY, token="p")
    assert late == second  # the word of a probe that was given up is not waited for


def test_two_good_probes_close_it() -> None:
    once = probed(OPEN, Sign.WELL, NOW + 60_000)
    assert (once.state, may_probe(once, NOW + 60_000)) == (State.HALF_OPEN, True)
    twice = probed(once, Sign.WELL, NOW + 60_000)
    assert (twice.state, twice.failures) == (State.CLOSED, 0)
    assert twice.error_reason == "unreachable"  # for whoever looks


def test_failed_probes_make_the_waits_longer_up_to_a_bound() -> None:
    circuit, waits = OPEN, []
    for _ in range(6):
        now = circuit.retry_at
        circuit = probed(circuit, FAILED, now)
        waits.append(circuit.retry_at - now)
        assert circuit.state is State.OPEN
    assert waits == [120_000, 240_000, 480_000, 600_000, 600_000, 600_000]
    well = probed(probed(circuit, Sign.WELL, circuit.retry_at), Sign.WELL, circuit.retry_at)
    assert fed(well, Sign.REFUSED, now=0).retry_at == 60_000


def test_a_probe_that_told_nothing_leaves_room_for_the_next() -> None:
    after = probed(OPEN, Sign.NOTHING, NOW + 60_000)
    assert (after.state, may_probe(after, NOW + 60_000)) == (State.HALF_OPEN, True)


def test_what_was_begun_before_it_opened_changes_nothing() -> None:
    assert fed(OPEN, Sign.WELL, FAILED, Sign.REFUSED) == OPEN


def test_after_a_repair_it_may_be_probed_at_once() -> None:
    soon = hurried(OPEN, NOW)
    assert soon.state is State.OPEN
    assert may_probe(soon, NOW)
    assert hurried(Circuit(), NOW) == Circuit()
    due = replace(OPEN, retry_at=NOW - 1)
    assert hurried(due, NOW) == due


class Breakers(RuleBasedStateMachine):
    """One breaker, several processes, any order: a model keeps its own count."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit()
        self.now = 0
        self.tokens = count()
        self.live: dict[str, int] = {}  # probes that nobody has answered, and until when
        self.streak: list[str] = []  # messages that failed since the last good answer
        self.good = 0

    @rule(by=st.integers(0, 400_000))
    def time_passes(self, by: int) -> None:
        self.now += by

    @rule(sign=st.sampled_from(Sign), message=st.integers(0, 4), luck=st.floats(0, 1))
    def an_answer_comes(self, sign: Sign, message: int, luck: float) -> None:
        before = self.circuit
        self.circuit = heard(
            before, sign, message=f"m{message}", now=self.now, luck=luck, policy=POLICY
        )
        if before.state is not State.CLOSED:
            assert self.circuit == before
            return
        if sign is Sign.WELL:
            self.streak = []
        elif sign is not Sign.NOTHING:
            self.streak.append(f"m{message}")
        many = len(self.streak) >= 5 and len(set(self.streak)) >= 3
        opens = sign is Sign.REFUSED or (sign is Sign.FAILED and many)
        assert (self.circuit.state is State.OPEN) is opens
        if opens:
            self.opened()
        else:
            assert self.circuit.failures == len(self.streak)

    @rule()
    def somebody_wants_to_probe(self) -> None:
        token = f"t{next(self.tokens)}"
        living = [t for t, until in self.live.items() if until > self.now]
        allowed = probing(self.circuit, token, self.now, POLICY)
        due = self.circuit.state is not State.CLOSED and self.circuit.retry_at <= self.now
        assert (allowed is not None) is (due and not living)
        if allowed is not None:
            self.circuit = allowed
            self.live[token] = self.now + POLICY.probe

    @precondition(lambda self: self.live)
    @rule(data=st.data(), sign=st.sampled_from(Sign), luck=st.floats(0, 1))
    def a_probe_ends(self, data: st.DataObject, sign: Sign, luck: float) -> None:
        token = data.draw(st.sampled_from(sorted(self.live)))
        before = self.circuit
        self.circuit = heard(
            before, sign, message="p", now=self.now, luck=luck, policy=POLICY, token=token
        )
        del self.live[token]
        if token != before.probe_token:
            assert self.circuit == before
        elif sign is Sign.WELL:
            self.good += 1
            assert (self.circuit.state is State.CLOSED) is (self.good == POLICY.successes)
            if self.circuit.state is State.CLOSED:
                self.streak, self.good, self.live = [], 0, {}
        elif sign is Sign.NOTHING:
            assert self.circuit.state is State.HALF_OPEN
        else:
            self.opened()

    @rule()
    def somebody_repairs_it(self) -> None:
        self.circuit = hurried(self.circuit, self.now)

    def opened(self) -> None:
        assert self.circuit.state is State.OPEN
        wait = self.circuit.retry_at - self.now
        assert POLICY.open_for * 0.89 <= wait <= POLICY.longest * 1.11
        self.good = 0

    @invariant()
    def never_two_probes_at_once(self) -> None:
        living = [t for t, until in self.live.items() if until > self.now]
        assert len(living) <= 1
        if living and self.circuit.probe_until > self.now:
            assert self.circuit.probe_token in (None, *living)

    @invariant()
    def what_is_closed_has_no_probe(self) -> None:
        if self.circuit.state is State.CLOSED:
            assert self.circuit.probe_token is None
            assert self.circuit.openings == 0


TestBreakers = Breakers.TestCase
TestBreakers.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, derandomize=True
)
