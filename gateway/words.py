"""What a search looks for and what is found by it: text as plain words. Pure.

The same folding makes the words of what is stored and of what is asked, on both databases: letters
without case and accents, digits, nothing else. So no character of a question means anything else.
"""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

LONGEST = 40  # characters of a word; what is longer is cut
MOST = 1000  # different words of one message that are found
ASKED = 16  # words of a question that count
QUESTION = 500  # characters
DIGITS = 3  # of a part of a number that can be asked for

WORD = re.compile(r"[^\W_]+")
ACCENTS = re.compile("[\u0300-\u036f]")
NUMBER = re.compile(r"[+\d\s()./\-\u00a0]+")
WHOLE = str.maketrans(  # letters that are no letter with an accent
    {"ø": "o", "ł": "l", "đ": "d", "\u0131": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"}
)
MARK = "\u00b7"  # begins a word that nobody can write: what the message belongs to


def words_of(text: str) -> list[str]:
    """The words of a text, in order."""
    if text.isascii():
        folded = text.lower()
    else:
        plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
        folded = ACCENTS.sub("", plain).translate(WHOLE)
    return [word[:LONGEST] for word in WORD.findall(folded)]


@dataclass(frozen=True, slots=True)
class Question:
    """What somebody looks for: all of these words, the last one perhaps only begun; or a part of
    a number, where it looks like one."""

    words: tuple[str, ...]
    number: str = ""

    def __bool__(self) -> bool:
        return bool(self.words)


def question(text: str) -> Question:
    """A question as it was written."""
    words = tuple(words_of(text)[:ASKED])
    digits = ""
    if NUMBER.fullmatch(text):
        found = "".join(re.findall(r"\d", unicodedata.normalize("NFKD", text)))
        digits = found if len(found) >= DIGITS else ""
    return Question(words, digits[:LONGEST])


@lru_cache(maxsize=4096)
def tenant_code(tenant_id: str) -> str:
    """What begins each word in the index of all tenants, so that one tenant's search does not
    read through what others have. Not a proof of whose it is."""
    digest = hashlib.blake2s(tenant_id.encode(), digest_size=4).digest()
    return base64.b32encode(digest).decode().lower()[:CODE]


CODE = 5  # characters


def marks(row: Mapping[str, Any]) -> list[str]:
    """The words for what a message belongs to: conversation, channel, direction."""
    return [
        in_conversation(row["conversation_id"]),
        f"{MARK}c{row['channel'][:1]}",
        f"{MARK}d{row['direction'][:1]}",
    ]


def in_conversation(conversation_id: str) -> str:
    """The word for a conversation. Short, so two may share one."""
    digest = hashlib.blake2s(conversation_id.encode(), digest_size=4).digest()
    return MARK + base64.b32encode(digest).decode().lower()[:6]


def document(row: Mapping[str, Any]) -> list[str]:
    """The words by which a message is found, each once, as they stand in the index."""
    code = tenant_code(row["tenant_id"])
    said = words_of(row["body"])
    if row["subject"]:
        said += words_of(row["subject"])
    each = list(dict.fromkeys(said))[:MOST]
    return [code + word for word in (*each, *marks(row))]


def terms_of(names: Iterable[str | None], addresses: Iterable[str]) -> set[str]:
    """The words by which a conversation is found: those of its names and addresses, and every end
    of a number, so that what begins one of those is any part of it."""
    found = {word for name in names if name for word in words_of(name)}
    for address in addresses:
        found.update(words_of(address))
        digits = address.removeprefix("+")
        if digits.isascii() and digits.isdigit():
            digits = digits[:LONGEST]
            found.update(digits[at:] for at in range(len(digits) - DIGITS + 1))
    return found
