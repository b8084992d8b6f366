"""One Twilio signature holds for many cuts of the same text: none may name anybody else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings, strategies as st

from gateway.domain import (
    Event,
    InboundMessage,
    StatusUpdate,
)
from gateway.errors import Malformed
from tests.twilio_forms import (
    ACCOUNT,
    ATTEMPT,
    CALLBACK,
    FORMS,
    HOOK,
    PERSON,
    SMS,
    Pairs,
    by_sdk,
    holds,
    one,
    posted,
    signed,
    webhook,
)
from tests.webhook_cases import unproved

pytestmark = pytest.mark.anyio

IDENTITY = (
    "from_address",
    "to_address",
    "provider_message_id",
    "pool",
    "account",
    "attempt_id",
    "sender",
    "recipient",
)


def moved(pairs: Pairs) -> Iterator[Pairs]:
    """Every way to move one boundary, to join neighbours, and to split a field in two."""
    count = len(pairs)
    for at, (name, value) in enumerate(pairs):
        whole = name + value
        for cut in range(len(whole) + 1):
            yield [*pairs[:at], (whole[:cut], whole[cut:]), *pairs[at + 1 :]]
    for first in range(count):
        for last in range(first + 2, count + 1):
            whole = "".join(name + value for name, value in pairs[first:last])
            for cut in {len(pairs[first][0]), len(whole), len(whole) - len(pairs[last - 1][1])}:
                yield [*pairs[:first], (whole[:cut], whole[cut:]), *pairs[last:]]


def claimed(pairs: Pairs) -> Iterator[Pairs]:
    """Every cut that reads some text as the value of a field that says who or which.

    What lies around that text keeps its own cut as far as it can; what is left over becomes a
    field of its own, or part of the field before it, however that may be cut.
    """
    joined = "".join(name + value for name, value in pairs)
    starts = [0]
    for name, value in pairs:
        starts.append(starts[-1] + len(name) + len(value))
    for wanted in ("From", "To", "MessageSid", "AccountSid", "MessagingServiceSid", "SmsSid"):
        at = joined.find(wanted)
        while at >= 0:
            begin = at + len(wanted)
            for end in range(begin, min(len(joined), begin + 150) + 1):
                field = (wanted, joined[begin:end])
                for before in around(pairs, starts, joined, 0, at):
                    for after in around(pairs, starts, joined, end, len(joined)):
                        yield [*before, field, *after]
            at = joined.find(wanted, at + 1)


def around(pairs: Pairs, starts: list[int], joined: str, low: int, high: int) -> Iterator[Pairs]:
    """Ways to cut a stretch of the text."""
    inside = [n for n in range(len(pairs)) if starts[n] >= low and starts[n + 1] <= high]
    first, last = (inside[0], inside[-1] + 1) if inside else (0, 0)
    kept = pairs[first:last]
    left = joined[low : starts[first]] if inside else joined[low:high]
    right = joined[starts[last] : high] if inside else ""
    heads = [[(left[:n], left[n:])] for n in {0, 1, 4, len(left)} if left] or [[]]
    tails = [[(right[:n], right[n:])] for n in {len(right), 2} if right] or [[]]
    for head in heads:
        for tail in tails:
            yield [*head, *kept, *tail]
        if kept and right:
            yield [*head, *kept[:-1], (kept[-1][0], kept[-1][1] + right)]


def same_text(cut: Pairs, pairs: Pairs) -> bool:
    """Whether the signature of one holds for the other."""
    return "".join(n + v for n, v in sorted(set(cut))) == "".join(n + v for n, v in pairs)


def identities(event: Event) -> set[Any]:
    """What an event says of who and which."""
    found = {getattr(event, name, None) for name in IDENTITY} - {None}
    return found if isinstance(event, InboundMessage | StatusUpdate) else set()


@pytest.mark.parametrize("which", FORMS)
@pytest.mark.parametrize("cuts", [moved, claimed])
async def test_no_other_cut_of_a_signed_form_names_anybody_else(which: str, cuts: Any) -> None:
    pairs, url = FORMS[which]
    original = await webhook().verify(signed(pairs, url))
    (event,) = webhook().parse(original)
    assert identities(event)
    signature = original.request.headers["x-twilio-signature"]
    tried = 0
    for cut in cuts(pairs):
        if not same_text(cut, pairs):
            continue
        body = urlencode([pair for pair in cut if pair != ("", "")]).encode()
        request = posted(url, body, signature)
        if tried % 50 == 0:  # it is the same text, so one in fifty is proof enough
            verified = await webhook().verify(request)
            assert verified.key == original.key
        tried += 1
        try:
            (other,) = webhook().parse(unproved(webhook(), request))
        except Malformed:
            continue
        assert identities(other) <= identities(event), cut
    assert tried > 40


@settings(max_examples=400, deadline=None)
@given(which=st.sampled_from(sorted(FORMS)), data=st.data())
def test_no_random_cut_of_a_signed_form_names_anybody_else(which: str, data: st.DataObject) -> None:
    pairs, url = FORMS[which]
    (event,) = webhook().parse(unproved(webhook(), signed(pairs, url)))
    starts = data.draw(st.sets(st.integers(1, len(pairs) - 1), max_size=12))
    bounds = [0, *sorted(starts), len(pairs)]
    wholes = ["".join(n + v for n, v in pairs[a:b]) for a, b in pairwise(bounds)]
    cuts = [data.draw(st.integers(1, len(whole))) for whole in wholes]
    cut = [(whole[:at], whole[at:]) for whole, at in zip(wholes, cuts, strict=True)]
    if same_text(cut, pairs):
        try:
            (other,) = webhook().parse(unproved(webhook(), signed(cut, url)))
        except Malformed:
            return
        assert identities(other) <= identities(event)


@pytest.mark.parametrize("attempt", [ATTEMPT, ATTEMPT[:-4] + "0912", "att_" + "Z" * 26])
async def test_no_other_cut_between_url_and_form_names_another_attempt(attempt: str) -> None:
    pairs, url = CALLBACK, f"{HOOK}?attempt={attempt}"
    text_, joined = url + "".join(n + v for n, v in pairs), by_sdk(url, pairs)
    held = 0
    for end in range(text_.index("att_") + 4, text_.index("ChannelTo")):
        rest = text_[end : text_.index("ChannelTo")]
        for at in {0, len(rest), len(rest) - len(ACCOUNT)}:
            cut = [(rest[:at], rest[at:]), *pairs[1:]] if rest else pairs[1:]
            request = posted(text_[:end], urlencode(cut).encode(), joined)
            if not await holds(request):
                continue
            held += 1
            try:
                (event,) = webhook().parse(unproved(webhook(), request))
            except Malformed:
                continue
            assert isinstance(event, StatusUpdate)
            assert event.attempt_id in (attempt, None)
    assert held > 10


async def test_a_person_may_write_the_names_of_fields() -> None:
    words = f"From+19995550111To{PERSON}MessageSidSM{'1' * 32}"
    event = await one({**dict(SMS), "Body": words})
    assert isinstance(event, InboundMessage)
    assert (event.body, event.from_address) == (words, PERSON)


async def test_what_a_person_wrote_cannot_be_cut_into_another_sender() -> None:
    pairs = sorted({**dict(SMS), "Body": "hiFrom+19995550111Fromz"}.items())
    joined = "".join(name + value for name, value in pairs)
    hidden = joined[joined.index("Fromz") + 5 : joined.index("MessageSid")]
    cut = [
        *pairs[:2],
        ("Body", "hi"),
        ("From", "+19995550111"),
        ("Fromz", hidden),
        *[pair for pair in pairs if pair[0] >= "MessageSid"],
    ]
    assert same_text(cut, pairs)
    request = posted(HOOK, urlencode(cut).encode(), by_sdk(HOOK, pairs))
    await webhook().verify(request)
    with pytest.raises(Malformed):
        webhook().parse(unproved(webhook(), request))
