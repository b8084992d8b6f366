"""Which provider, and whether and when again: pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from gateway.domain import Capabilities, Channel, Connection, MessageType, OnUnknown
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unreachable,
    Unsupported,
)
from gateway.routing import Needs, Retry, Route, choose, lacks, retry_in

ALL = Capabilities(
    channels=frozenset({Channel.SMS, Channel.EMAIL}),
    media=frozenset({Channel.SMS}),
    max_media=2,
    html=True,
    templates=True,
    types=frozenset({MessageType.TEXT, MessageType.IMAGE}),
)
PLAIN = Capabilities(channels=frozenset({Channel.SMS}))
HERE = Connection(id="c1", tenant_id="default", family="test")
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


def test_the_first_provider_that_can_is_chosen() -> None:
    plain, full = Route("plain", PLAIN, HERE), Route("full", ALL, HERE)
    assert choose([plain, full], Needs(channel=Channel.SMS)) is plain
    assert choose([plain, full], Needs(channel=Channel.EMAIL)) is full
    assert choose([plain, full], Needs(channel=Channel.RCS)) is None
    assert choose([], Needs(channel=Channel.SMS)) is None


@pytest.mark.parametrize(
    ("error", "policy", "again"),
    [
        (Unsupported("x"), RESEND, False),
        (Rejected("x"), RESEND, False),
        (SenderRefused("x"), RESEND, True),
        (AccountRefused("x"), RESEND, True),
        (Throttled("x"), HOLD, True),
        (Unreachable("x"), HOLD, True),
        (Ambiguous("x"), HOLD, False),
        (Ambiguous("x"), RESEND, True),
        (ProviderError("x"), HOLD, False),
    ],
)
def test_only_what_was_not_sent_or_may_be_repeated_is_tried_again(
    error: ProviderError, policy: OnUnknown, again: bool
) -> None:
    assert (retry_in(error, 1, policy, POLICY, 0.5) is not None) is again


def test_tries_are_counted() -> None:
    waits = [retry_in(Unreachable("x"), made, HOLD, POLICY, 1.0) for made in range(1, 7)]
    assert waits == [2.0, 4.0, 8.0, 16.0, None, None]


def test_the_window_grows_to_its_cap() -> None:
    patient = Retry(base=2.0, cap=60.0, limit=1000)
    assert retry_in(Unreachable("x"), 10, HOLD, patient, 1.0) == 60.0
    assert retry_in(Unreachable("x"), 1000, HOLD, patient, 1.0) == 60.0


def test_a_vendor_that_says_when_is_asked_then_and_no_sooner() -> None:
    said = Throttled("x", retry_after=90.0)
    assert retry_in(said, 1, HOLD, POLICY, 0.0) == 90.0
    assert retry_in(said, 1, HOLD, POLICY, 1.0) == 92.0
    assert retry_in(Throttled("x", retry_after=-5), 1, HOLD, POLICY, 0.0) == 0.0
    assert retry_in(Throttled("x", retry_after=10**9), 1, HOLD, POLICY, 0.0) == 3600.0


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 50), st.floats(0, 1), st.floats(0.001, 10), st.floats(1, 1000))
def test_a_wait_is_never_negative_and_never_longer_than_its_cap(
    made: int, luck: float, base: float, cap: float
) -> None:
    wait = retry_in(Unreachable("x"), made, HOLD, Retry(base, cap, 100), luck)
    assert wait is not None
    assert 0 <= wait <= cap
