"""How many SMS segments a text takes, counted before it is sent (3GPP TS 23.038 and 23.040).

A character is never cut in two: not an escaped GSM-7 one, not a surrogate pair.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

GSM_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENSION = frozenset("\f^{}\\[~]|€")  # each is an escape and a character
PLAIN = re.compile(r"[A-Za-z0-9 \n\r!\"#%&'()*+,\-./:;<=>?@_$]*")  # one septet each
GSM_SINGLE, GSM_PART = 160, 153  # septets; a part gives 7 to its concatenation header
UCS2_SINGLE, UCS2_PART = 70, 67  # 16-bit units; a part gives 3
EXPLAINED = 100  # characters that are named as costly
UNKNOWN_THERE, TWICE = "not in GSM-7: forces UCS-2", "counts twice in GSM-7"


@dataclass(frozen=True, slots=True)
class Count:
    """What a text costs: its encoding, its units in that encoding, and its segments."""

    encoding: str  # GSM-7 or UCS-2
    units: int
    segments: int
    costly: tuple[str, ...]  # the characters that force UCS-2


def count(text: str) -> Count:
    """Counts a text as a phone network does. An empty text is one segment."""
    if len(text) <= GSM_SINGLE and PLAIN.fullmatch(text):
        return Count("GSM-7", len(text), 1, ())
    costly = {c for c in text if c not in GSM_BASIC and c not in GSM_EXTENSION}
    if costly:
        sizes = [2 if ord(c) > 0xFFFF else 1 for c in text]
        return _count("UCS-2", sizes, UCS2_SINGLE, UCS2_PART, tuple(sorted(costly)))
    sizes = [2 if c in GSM_EXTENSION else 1 for c in text]
    return _count("GSM-7", sizes, GSM_SINGLE, GSM_PART, ())


def _count(
    encoding: str, sizes: list[int], single: int, part: int, costly: tuple[str, ...]
) -> Count:
    units = sum(sizes)
    if units <= single:
        return Count(encoding, units, 1, costly)
    segments, room = 1, part
    for size in sizes:
        if size > room:
            segments, room = segments + 1, part
        room -= size
    return Count(encoding, units, segments, costly)


@dataclass(frozen=True, slots=True)
class Costly:
    """A character that makes a text longer; `position` is where it first stands, from 0."""

    character: str
    position: int
    name: str  # in Unicode's words
    why: str


@dataclass(frozen=True, slots=True)
class Explained:
    """What a text costs, and which characters cost it. `remaining` are the units that fit into
    its last segment."""

    count: int
    encoding: str
    characters: int
    per_segment: int
    remaining: int
    costly: tuple[Costly, ...]


def explained(text: str) -> Explained:
    """The count of a text with its reasons: each costly character once, at most `EXPLAINED`."""
    counted = count(text)
    wide = counted.encoding == "UCS-2"
    single, part = (UCS2_SINGLE, UCS2_PART) if wide else (GSM_SINGLE, GSM_PART)
    room = per = single if counted.segments == 1 else part
    for character in text:
        size = _size(character, wide=wide)
        room = (per if size > room else room) - size
    why = UNKNOWN_THERE if wide else TWICE
    blamed = dict.fromkeys(c for c in text if (c in counted.costly if wide else c in GSM_EXTENSION))
    costly = tuple(
        Costly(c, text.index(c), unicodedata.name(c, f"U+{ord(c):04X}"), why)
        for c in list(blamed)[:EXPLAINED]
    )
    return Explained(counted.segments, counted.encoding, len(text), per, room, costly)


def _size(character: str, *, wide: bool) -> int:
    if wide:
        return 2 if ord(character) > 0xFFFF else 1
    return 2 if character in GSM_EXTENSION else 1
