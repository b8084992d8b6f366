"""Where a message stands, as a table and by its properties."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from gateway.domain import Status
from gateway.status import (
    ARRIVED,
    ENDS,
    FINAL,
    OPEN,
    RANKS,
    TAKEN,
    WAITING,
    AttemptState,
    Plan,
    furthest,
    moves,
    status_of,
)

S = Status
NOTHING, DUE = Plan(), Plan(waiting=S.QUEUED)


def attempts(*statuses: S) -> list[AttemptState]:
    """Attempts in their order."""
    return [AttemptState(number, status) for number, status in enumerate(statuses, start=1)]


@pytest.mark.parametrize(
    ("made", "plan", "expected"),
    [
        ([], NOTHING, S.QUEUED),
        ([], DUE, S.QUEUED),
        ([], Plan(waiting=S.SCHEDULED), S.SCHEDULED),
        ([], Plan(waiting=S.HELD), S.HELD),
        ([], Plan(end=S.REJECTED), S.REJECTED),
        ([], Plan(end=S.CANCELED), S.CANCELED),
        ([], Plan(end=S.EXPIRED), S.EXPIRED),
        ([S.SENDING], NOTHING, S.SENDING),
        ([S.UNKNOWN], NOTHING, S.UNKNOWN),
        ([S.ACCEPTED], NOTHING, S.ACCEPTED),
        ([S.SENT], NOTHING, S.SENT),
        ([S.DELIVERED], NOTHING, S.DELIVERED),
        ([S.READ], NOTHING, S.READ),
        ([S.UNDELIVERED], NOTHING, S.UNDELIVERED),
        ([S.FAILED], NOTHING, S.FAILED),
        ([S.BOUNCED], NOTHING, S.BOUNCED),
        ([S.UNKNOWN], DUE, S.QUEUED),
        ([S.FAILED], DUE, S.QUEUED),
        ([S.FAILED], Plan(waiting=S.HELD), S.HELD),
        ([S.FAILED], Plan(end=S.EXPIRED), S.EXPIRED),
        ([S.FAILED], Plan(end=S.CANCELED), S.CANCELED),
        ([S.FAILED, S.SENDING], NOTHING, S.SENDING),
        ([S.FAILED, S.ACCEPTED], NOTHING, S.ACCEPTED),
        ([S.FAILED, S.FAILED], NOTHING, S.FAILED),
        ([S.ACCEPTED, S.FAILED], NOTHING, S.ACCEPTED),
        ([S.UNKNOWN, S.FAILED], NOTHING, S.UNKNOWN),
        ([S.UNKNOWN, S.SENDING], NOTHING, S.UNKNOWN),
        ([S.UNKNOWN, S.ACCEPTED], NOTHING, S.ACCEPTED),
        ([S.UNKNOWN], Plan(end=S.CANCELED), S.UNKNOWN),
        ([S.ACCEPTED], Plan(end=S.EXPIRED), S.ACCEPTED),
        ([S.DELIVERED], DUE, S.DELIVERED),
        ([S.DELIVERED], Plan(end=S.CANCELED), S.DELIVERED),
        ([S.DELIVERED, S.SENDING], NOTHING, S.DELIVERED),
        ([S.DELIVERED, S.FAILED], DUE, S.DELIVERED),
        ([S.READ, S.DELIVERED], NOTHING, S.READ),
        ([S.UNDELIVERED, S.SENT], NOTHING, S.SENT),
        ([S.BOUNCED, S.DELIVERED], NOTHING, S.DELIVERED),
    ],
)
def test_a_message_stands_where_its_attempts_and_our_plan_put_it(
    made: list[S], plan: Plan, expected: S
) -> None:
    assert status_of(attempts(*made), plan) is expected


LADDER = (
    (S.SENDING,),
    (S.UNKNOWN,),
    (S.ACCEPTED,),
    (S.SENT,),
    (S.UNDELIVERED, S.FAILED),
    (S.DELIVERED,),
    (S.READ,),
    (S.BOUNCED,),
)
PLACE = {status: place for place, step in enumerate(LADDER) for status in step}


@pytest.mark.parametrize("old", PLACE)
@pytest.mark.parametrize("new", PLACE)
def test_evidence_moves_an_attempt_up_the_ladder_only(old: S, new: S) -> None:
    assert moves(RANKS[old], new) is (PLACE[new] > PLACE[old])


def test_every_status_is_evidence_a_way_of_waiting_an_end_of_ours_or_inbound() -> None:
    assert set(S) == set(RANKS) | WAITING | ENDS | {S.RECEIVED}
    assert not set(RANKS) & (WAITING | ENDS)
    assert set(RANKS) <= OPEN | FINAL
    assert not OPEN & FINAL
    assert (OPEN - {S.SENDING, S.UNKNOWN}) | ARRIVED == TAKEN


@pytest.mark.parametrize("status", sorted(set(S) - WAITING))
def test_only_a_way_of_waiting_can_be_planned(status: S) -> None:
    with pytest.raises(ValueError, match=str(status)):
        Plan(waiting=status)


@pytest.mark.parametrize("status", sorted(set(S) - ENDS))
def test_only_an_end_of_ours_can_be_planned(status: S) -> None:
    with pytest.raises(ValueError, match=str(status)):
        Plan(end=status)


EVIDENCE = st.sampled_from(sorted(RANKS))
MADE = st.lists(EVIDENCE, max_size=5)
PLANS = st.builds(
    Plan,
    waiting=st.none() | st.sampled_from(sorted(WAITING)),
    end=st.none() | st.sampled_from(sorted(ENDS)),
)
bounded = settings(max_examples=200, deadline=None, derandomize=True)


@bounded
@given(MADE, PLANS)
def test_what_arrived_stays_arrived_whatever_else_there_is(made: list[S], plan: Plan) -> None:
    status = status_of(attempts(*made), plan)
    assert (status in ARRIVED) == any(one in ARRIVED for one in made)


@bounded
@given(MADE, PLANS)
def test_a_message_waits_as_planned_unless_it_arrived(made: list[S], plan: Plan) -> None:
    status = status_of(attempts(*made), plan)
    if plan.waiting is not None and not ARRIVED & set(made):
        assert status is plan.waiting
    if plan.waiting is None:
        assert status not in WAITING or (not made and plan.end is None)


@bounded
@given(MADE, PLANS)
def test_a_message_has_failed_only_when_nothing_is_open_or_due(made: list[S], plan: Plan) -> None:
    status = status_of(attempts(*made), plan)
    if status in (S.FAILED, S.UNDELIVERED, S.BOUNCED):
        assert status in made
        assert plan == Plan()
        assert not (OPEN | ARRIVED) & set(made)


@bounded
@given(MADE, PLANS)
def test_we_end_a_message_only_while_no_vendor_may_have_it(made: list[S], plan: Plan) -> None:
    status = status_of(attempts(*made), plan)
    if status in ENDS:
        assert status is plan.end
        assert plan.waiting is None
        assert not (OPEN | ARRIVED) & set(made)


@bounded
@given(MADE, st.integers(0, 4), EVIDENCE)
def test_more_evidence_never_takes_a_delivery_back(made: list[S], place: int, more: S) -> None:
    if not made:
        return
    before = status_of(attempts(*made), NOTHING)
    where = place % len(made)
    if moves(RANKS[made[where]], more):
        later = [*made[:where], more, *made[where + 1 :]]
        after = status_of(attempts(*later), NOTHING)
        if before is S.READ and more is not S.BOUNCED:
            assert after is S.READ
        if before in ARRIVED and more is not S.BOUNCED:
            assert after in ARRIVED


@bounded
@given(EVIDENCE, st.lists(EVIDENCE, max_size=6))
def test_the_rank_of_a_single_attempt_only_grows(first: S, said: list[S]) -> None:
    stands = first
    for status in said:
        before = status_of(attempts(stands), NOTHING)
        if moves(RANKS[stands], status):
            stands = status
        assert RANKS[status_of(attempts(stands), NOTHING)] >= RANKS[before]
    assert RANKS[stands] == max(RANKS[status] for status in [first, *said])


@bounded
@given(st.lists(EVIDENCE, min_size=1, max_size=5))
def test_the_attempt_that_speaks_for_a_message_has_its_status(made: list[S]) -> None:
    best = furthest(attempts(*made))
    assert best is not None
    assert best.status is status_of(attempts(*made), NOTHING)


def test_of_equal_attempts_the_newest_speaks() -> None:
    best = furthest(attempts(S.FAILED, S.FAILED))
    assert best == AttemptState(2, S.FAILED)
    assert furthest([]) is None
