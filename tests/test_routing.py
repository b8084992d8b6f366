"""Which provider, and whether and when again: pure decisions."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings, strategies as st

from gateway.domain import Capabilities, Channel, Connection, MessageType, OnUnknown, Sender
from gateway.errors import (
    REASONS,
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unreachable,
    Unsupported,
)
from gateway.routing import (
    May,
    Needs,
    Next,
    Pick,
    Retry,
    Route,
    Tried,
    Wait,
    after,
    candidates,
    elsewhere,
    lacks,
    pick,
    sender_at,
)

ALL = Capabilities(
    channels=frozenset({Channel.SMS, Channel.EMAIL}),
    media=frozenset({Channel.SMS}),
    max_media=2,
    html=True,
    templates=True,
    types=frozenset({MessageType.TEXT, MessageType.IMAGE}),
)
PLAIN = Capabilities(channels=frozenset({Channel.SMS}))
POLICY = Retry(base=2.0, cap=60.0, limit=4)
HOLD, RESEND = OnUnknown.HOLD, OnUnknown.RESEND


@pytest.mark.parametrize(
    ("can", "needs", "lacking"),
    [
        (PLAIN, Needs(channel=Channel.SMS), None),
        (PLAIN, Needs(channel=Channel.WHATSAPP), "the channel whatsapp"),
        (PLAIN, Needs(channel=Channel.SMS, template=True), "templates"),
        (PLAIN, Needs(channel=Channel.SMS, html=True), "HTML"),
        (PLAIN, Needs(channel=Channel.SMS, media=1), "media on sms"),
        (PLAIN, Needs(channel=Channel.SMS, type=MessageType.LOCATION), "the type location"),
        (ALL, Needs(channel=Channel.SMS, media=2, type=MessageType.IMAGE), None),
        (ALL, Needs(channel=Channel.SMS, media=3), "more than 2 media"),
        (ALL, Needs(channel=Channel.EMAIL, media=1), "media on email"),
        (ALL, Needs(channel=Channel.SMS, html=True, template=True), None),
    ],
)
def test_what_a_provider_lacks_is_named(
    can: Capabilities, needs: Needs, lacking: str | None
) -> None:
    assert lacks(can, needs) == lacking


def at(name: str, address: str | None = None, pool: str | None = None) -> Route:
    """A provider, perhaps with a sender of its own."""
    sender = Sender(address=address, pool=pool)
    senders = {Channel.SMS: sender} if sender.key else {}
    return Route(name, PLAIN, Connection(id=name, tenant_id="t", family=name, senders=senders))


ONE, TWO, THREE = at("one", "+1"), at("two", "+2"), at("three", pool="MG3")
FULL = Route(
    "full", ALL, Connection(id="f", tenant_id="t", family="f", senders=ONE.connection.senders)
)
CHAIN = (ONE, TWO, THREE)


def named(routes: tuple[Route, ...]) -> list[str]:
    return [route.name for route in routes]


def test_whoever_can_send_a_message_may_and_in_the_chains_order() -> None:
    chain = (ONE, FULL, at("mute"))
    assert named(candidates(chain, Needs(channel=Channel.SMS))) == ["one", "full"]
    assert named(candidates(chain, Needs(channel=Channel.SMS, media=1))) == ["full"]
    assert candidates(chain, Needs(channel=Channel.RCS)) == ()
    assert candidates((), Needs(channel=Channel.SMS)) == ()


@pytest.mark.parametrize(
    ("address", "key", "able"),
    [
        (None, None, ["one", "two", "three"]),
        ("+2", None, ["two"]),
        ("+15559", "MG3", ["three"]),  # an answer from a number of a pool
        (None, "MG3", ["three"]),
        ("+15559", None, ["one", "two", "three"]),
        ("BRAND", "BRAND", ["one", "two", "three"]),
    ],
)
def test_an_address_is_left_to_whom_it_belongs(
    address: str | None, key: str | None, able: list[str]
) -> None:
    assert named(candidates(CHAIN, Needs(channel=Channel.SMS), address, key)) == able


def test_who_owns_an_address_and_cannot_send_the_message_leaves_it_to_nobody_else() -> None:
    assert candidates((TWO, FULL), Needs(channel=Channel.SMS, media=1), "+2") == ()


@pytest.mark.parametrize(
    ("route", "address", "sender"),
    [
        (ONE, "+1", Sender(address="+1")),
        (ONE, None, Sender(address="+1")),
        (TWO, "+1", Sender(address="+2")),  # that is another's own
        (THREE, "+1", Sender(pool="MG3")),
        (TWO, "+15559", Sender(address="+15559")),  # nobody's: as it was asked for
        (at("mute"), "+15559", Sender(address="+15559")),
    ],
)
def test_each_provider_sends_from_its_own(route: Route, address: str, sender: Sender) -> None:
    assert sender_at(route, Channel.SMS, address, CHAIN) == sender


READY_, OPEN, BLOCKED = May("ready"), May("breaker_open", 5_000), May("sender_blocked", 9_000)
NOW = 1_000


def picked(
    tried: list[Tried] | None = None, pinned: tuple[str, ...] = (), **states: May
) -> Pick | Wait:
    """Who of three is asked; those that nothing is said of are ready."""
    order = (*pinned, *(name for name in ("one", "two", "three") if name not in pinned))
    return pick(order, tried or [], lambda name: states.get(name, READY_), NOW, pinned)


def failed(*providers: str) -> list[Tried]:
    return [Tried(name, "unreachable", "dns") for name in providers]


@pytest.mark.parametrize(
    ("tried", "states", "provider", "why", "passed_over"),
    [
        ([], {}, "one", None, ()),
        ([], {"one": OPEN}, "two", "next in the chain", (("one", "breaker_open"),)),
        (
            [],
            {"one": OPEN, "two": BLOCKED},
            "three",
            "next in the chain",
            (("one", "breaker_open"), ("two", "sender_blocked")),
        ),
        ([], {"one": May("probe")}, "one", "probe", ()),
        (failed("one"), {}, "two", "failover from one (unreachable: dns)", (("one", "tried"),)),
        (
            failed("one", "two"),
            {},
            "three",
            "failover from two (unreachable: dns)",
            (("one", "tried"), ("two", "tried")),
        ),
        (
            failed("one", "two", "three"),
            {},
            "one",
            "tried again after three (unreachable: dns)",
            (),
        ),
        (
            failed("one"),
            {"two": OPEN, "three": OPEN},
            "one",
            "tried again after one (unreachable: dns)",
            (("two", "breaker_open"), ("three", "breaker_open")),
        ),
        (
            [Tried("one", "unreachable", "late")],
            {},
            "one",
            "tried again after one (unreachable: late)",
            (),
        ),
        (
            [Tried("one", "throttled", "429", retry_at=NOW + 1)],
            {"two": OPEN, "three": May("probe")},
            "three",
            "probe",
            (("one", "tried"), ("two", "breaker_open")),
        ),
    ],
)
def test_the_one_that_was_asked_least_is_asked_next(
    tried: list[Tried],
    states: dict[str, May],
    provider: str,
    why: str | None,
    passed_over: tuple[tuple[str, str], ...],
) -> None:
    found = picked(tried, **states)
    assert isinstance(found, Pick)
    assert (found.provider, found.why) == (provider, why)
    assert dict(found.passed_over) == dict(passed_over)
    assert found.probe is (why == "probe")


def test_a_pinned_one_comes_first_unless_it_may_not_be_asked() -> None:
    first = picked(pinned=("three",))
    assert first == Pick("three", why="pinned")
    found = picked(pinned=("three",), three=OPEN)
    assert isinstance(found, Pick)
    assert (found.provider, found.passed_over) == ("one", (("three", "breaker_open"),))


def test_a_vendor_that_said_when_is_passed_over_until_then() -> None:
    said = [Tried("one", "throttled", "429", retry_at=NOW + 5), *failed("two", "three")]
    assert picked(said) == Pick(
        "two",
        why="tried again after three (unreachable: dns)",
        passed_over=(("one", "throttled"),),
    )
    over = [Tried("one", "throttled", "429", retry_at=NOW), *failed("two", "three")]
    found = picked(over)
    assert isinstance(found, Pick)
    assert found.provider == "one"


def test_where_only_breakers_are_in_the_way_nothing_is_put_off() -> None:
    found = picked(one=OPEN, two=OPEN, three=May("breaker_half_open", 2_000))
    assert isinstance(found, Wait)
    assert (found.until, found.soonest) == (None, 2_000)


def test_what_is_in_the_way_otherwise_puts_it_off_until_the_first_may() -> None:
    found = picked(one=OPEN, two=BLOCKED, three=May("not_set_up"))
    assert isinstance(found, Wait)
    assert (found.until, found.words) == (5_000, ("breaker_open", "sender_blocked", "not_set_up"))


@pytest.mark.parametrize(
    ("tried", "states", "there"),
    [
        (failed("one"), {}, True),
        (failed("one"), {"two": OPEN, "three": BLOCKED}, False),
        (failed("one"), {"two": May("probe"), "three": OPEN}, False),
        (failed("one", "two", "three"), {}, False),
        (failed("one", "two", "three", "one"), {}, True),
        ([Tried("two", "throttled", "x", retry_at=NOW + 9), *failed("three", "one", "one")],
         {"three": OPEN}, False),
    ],
)  # fmt: skip
def test_elsewhere_is_who_was_asked_less_often_and_may_be_now(
    tried: list[Tried], states: dict[str, May], there: bool
) -> None:
    order = ("one", "two", "three")
    assert elsewhere(order, tried, lambda name: states.get(name, READY_), NOW) is there


def following(error: ProviderError, **more: object) -> Next:
    """What becomes of a message after its first attempt."""
    given = {
        "made": 1,
        "rounds": 1,
        "elsewhere": False,
        "others": False,
        "on_unknown": HOLD,
        "policy": POLICY,
        "luck": 0.5,
        **more,
    }
    return after(error, **given)  # type: ignore[arg-type]


LATER, NOW_, NEVER = "later", "now", "never"


# What becomes of a message, by the class of the error: where nobody else can send it, where another
# one can but may not be asked now, and where one may. Policies differ for what may have been taken.
ALWAYS = {
    Unsupported: (NEVER, NOW_, NOW_),
    Rejected: (NEVER, NEVER, NEVER),
    SenderRefused: (LATER, LATER, NOW_),
    AccountRefused: (LATER, LATER, NOW_),
    Throttled: (LATER, LATER, NOW_),
    Unreachable: (LATER, LATER, NOW_),
}
BY_POLICY = {
    HOLD: (NEVER, NEVER, NEVER),
    RESEND: (LATER, LATER, NOW_),
}
TABLE = [
    *((kind, policy, wanted) for kind, wanted in ALWAYS.items() for policy in OnUnknown),
    *(
        (kind, policy, BY_POLICY[policy])
        for kind in (Ambiguous, ProviderError)
        for policy in OnUnknown
    ),
]


def test_the_table_is_whole() -> None:
    assert {(kind, policy) for kind, policy, _ in TABLE} == {*product(REASONS, OnUnknown)}


@pytest.mark.parametrize(("kind", "policy", "wanted"), TABLE)
def test_each_class_goes_its_own_way(
    kind: type[ProviderError], policy: OnUnknown, wanted: tuple[str, str, str]
) -> None:
    places = ((False, False), (True, False), (True, True))
    for (others, there), expected in zip(places, wanted, strict=True):
        found = following(kind("x"), on_unknown=policy, others=others, elsewhere=there).retry_in
        told = NEVER if found is None else LATER if found else NOW_
        assert told == expected, (others, there)


@pytest.mark.parametrize("kind", REASONS)
@pytest.mark.parametrize("policy", OnUnknown)
def test_after_the_last_try_nothing_follows_whatever_it_was(
    kind: type[ProviderError], policy: OnUnknown
) -> None:
    for others, there in ((False, False), (True, False), (True, True)):
        asked = {"on_unknown": policy, "others": others, "elsewhere": there}
        assert following(kind("x"), made=POLICY.limit + 1, **asked).retry_in is None


def test_a_vendor_that_says_when_goes_its_own_way_too() -> None:
    said = Throttled("x", retry_after=90.0)
    assert following(said, others=True, elsewhere=True).retry_in == 0.0
    assert following(said, others=True).retry_in == 91.0


def test_only_what_somebody_cannot_is_never_asked_of_them_again() -> None:
    assert following(Unsupported("x"), others=True) == Next(0.0, drop=True)
    assert following(Unsupported("x")) == Next(None, drop=True)
    for kind in (Rejected, SenderRefused, AccountRefused, Throttled, Unreachable, Ambiguous):
        assert not following(kind("x"), others=True, elsewhere=True).drop


def test_tries_are_counted() -> None:
    waits = [
        following(Unreachable("x"), made=made, rounds=made, luck=1.0).retry_in
        for made in range(1, 7)
    ]
    assert waits == [2.0, 4.0, 8.0, 16.0, None, None]
    assert following(Unreachable("x"), made=5, elsewhere=True).retry_in is None


def test_the_pause_grows_by_the_round_and_not_by_the_attempt() -> None:
    assert following(Unreachable("x"), made=3, rounds=1, luck=1.0).retry_in == 2.0
    assert following(Unreachable("x"), made=4, rounds=2, luck=1.0).retry_in == 4.0


def test_the_window_grows_to_its_cap() -> None:
    patient = Retry(base=2.0, cap=60.0, limit=1000)
    for rounds in (10, 1000):
        found = following(Unreachable("x"), made=rounds, rounds=rounds, policy=patient, luck=1.0)
        assert found.retry_in == 60.0


def test_a_vendor_that_says_when_is_asked_then_and_no_sooner() -> None:
    said = Throttled("x", retry_after=90.0)
    assert following(said, luck=0.0).retry_in == 90.0
    assert following(said, luck=1.0).retry_in == 92.0
    assert following(Throttled("x", retry_after=-5), luck=0.0).retry_in == 0.0
    assert following(Throttled("x", retry_after=10**9), luck=0.0).retry_in == 3600.0


def test_lost_answers_are_repeated_at_most_twice_whoever_lost_them() -> None:
    for made, again in ((1, True), (2, True), (3, False)):
        found = following(Ambiguous("x"), made=made, elsewhere=True, on_unknown=RESEND)
        assert (found.retry_in is not None) is again


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 50), st.floats(0, 1), st.floats(0.001, 10), st.floats(1, 1000))
def test_a_wait_is_never_negative_and_never_longer_than_its_cap(
    made: int, luck: float, base: float, cap: float
) -> None:
    wait = following(
        Unreachable("x"), made=made, rounds=made, policy=Retry(base, cap, 100), luck=luck
    ).retry_in
    assert wait is not None
    assert 0 <= wait <= cap


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(["one", "two", "three"]), max_size=12),
    st.sets(st.sampled_from(["one", "two", "three"])),
)
def test_nobody_is_asked_more_often_than_another_who_may_be(
    history: list[str], closed: set[str]
) -> None:
    found = picked(failed(*history), **dict.fromkeys(closed, OPEN))
    able = [name for name in ("one", "two", "three") if name not in closed]
    if not able:
        assert isinstance(found, Wait)
        return
    assert isinstance(found, Pick)
    assert history.count(found.provider) == min(history.count(name) for name in able)
    assert {name for name, _ in found.passed_over} <= {"one", "two", "three"} - {found.provider}
