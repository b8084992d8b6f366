"""SMS segments: known vectors, and an independent, slow packer."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings, strategies as st

from gateway.segments import GSM_BASIC, GSM_EXTENSION, count

EMOJI = "\U0001f600"


@pytest.mark.parametrize(
    ("text", "encoding", "units", "segments"),
    [
        ("", "GSM-7", 0, 1),
        ("a", "GSM-7", 1, 1),
        ("a" * 160, "GSM-7", 160, 1),
        ("a" * 161, "GSM-7", 161, 2),
        ("a" * 306, "GSM-7", 306, 2),
        ("a" * 307, "GSM-7", 307, 3),
        ("a" * 459, "GSM-7", 459, 3),
        ("a" * 460, "GSM-7", 460, 4),
        ("a" * (153 * 255), "GSM-7", 153 * 255, 255),
        ("€" * 80, "GSM-7", 160, 1),
        ("€" * 81, "GSM-7", 162, 2),
        ("a" * 159 + "€", "GSM-7", 161, 2),
        ("a" * 158 + "€", "GSM-7", 160, 1),
        # An escaped character that would straddle the border moves to the next part whole.
        ("a" * 152 + "€" + "a" * 151, "GSM-7", 305, 2),
        ("a" * 152 + "€" + "a" * 152, "GSM-7", 306, 3),
        ("a" * 151 + "€" + "a" * 153, "GSM-7", 306, 2),
        ("€" * 153, "GSM-7", 306, 3),
        ("ж" * 70, "UCS-2", 70, 1),
        ("ж" * 71, "UCS-2", 71, 2),
        ("ж" * 134, "UCS-2", 134, 2),
        ("ж" * 135, "UCS-2", 135, 3),
        ("a" * 69 + "ж", "UCS-2", 70, 1),
        (EMOJI * 35, "UCS-2", 70, 1),
        (EMOJI * 36, "UCS-2", 72, 2),
        # A surrogate pair that would straddle the border moves to the next part whole.
        ("ж" * 66 + EMOJI + "ж" * 65, "UCS-2", 133, 2),
        ("ж" * 66 + EMOJI + "ж" * 66, "UCS-2", 134, 3),
        ("ж" * 65 + EMOJI + "ж" * 67, "UCS-2", 134, 2),
        (EMOJI * 67, "UCS-2", 134, 3),
        ("à la carte, naïve", "UCS-2", 17, 1),  # à is GSM-7, ï is not
        ("ÄÖÑÜ§¿äöñüà@£$¥èéùìòÇ\r\nØøÅå", "GSM-7", 27, 1),
        ("[]{}\\~^|€\f", "GSM-7", 20, 1),
        ("`", "UCS-2", 1, 1),
    ],
)
def test_known_texts_take_known_segments(
    text: str, encoding: str, units: int, segments: int
) -> None:
    counted = count(text)
    assert (counted.encoding, counted.units, counted.segments) == (encoding, units, segments)


def test_the_characters_that_cost_are_named() -> None:
    assert count("smart ’quotes’ and ж").costly == ("ж", "’")
    assert count("plain €").costly == ()


def test_the_alphabet_is_that_of_the_standard() -> None:
    assert len(GSM_BASIC) == 127  # 128 places, one of them the escape
    assert len(GSM_EXTENSION) == 10
    assert not GSM_BASIC & GSM_EXTENSION


def packed(text: str) -> int:
    """Packs characters into parts one by one, as bytes, the slow way."""
    plain = all(c in GSM_BASIC or c in GSM_EXTENSION for c in text)
    if plain:
        pieces = ["\x1b" + c if c in GSM_EXTENSION else c for c in text]
        single, part = 160, 153
    else:
        pieces = ["x" * (len(c.encode("utf-16-be")) // 2) for c in text]
        single, part = 70, 67
    if len("".join(pieces)) <= single:
        return 1
    parts = [""]
    for piece in pieces:
        if len(parts[-1] + piece) > part:
            parts.append("")
        parts[-1] += piece
    return len(parts)


ANY = st.characters(exclude_categories=["Cs"])
GSM = st.sampled_from(sorted(GSM_BASIC | GSM_EXTENSION))
ASTRAL = st.sampled_from([EMOJI, "ж", "a", "\uffff", "\U00010000"])
NEAR = st.integers(0, 460).map(lambda n: "a" * n)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.one_of(
        st.text(ANY, max_size=400),
        st.text(GSM, max_size=500),
        st.text(ASTRAL, max_size=300),
        st.tuples(NEAR, st.text(GSM, max_size=20), NEAR).map("".join),
    )
)
@example("€" * 153)
def test_segments_agree_with_a_slow_packer(text: str) -> None:
    assert count(text).segments == packed(text)
