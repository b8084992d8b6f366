"""Fakes for what is private in a request: of the same shape, and the same each time.

A fake is made of a counter, never of what it stands for. What is not known to be a
vendor's own word is replaced.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any
from urllib.parse import urlsplit

from gateway.domain import Channel

HOST = "https://gw.test.example"
ROUTE = re.compile(r"(?!.*[0-9]{4})/api/webhooks/[a-z0-9_-]{1,40}")
NAME = re.compile(r"(?!.*[0-9]{5})[A-Za-z_][A-Za-z0-9_.:-]{0,60}")
WORDS = re.compile(r"(?!.*[0-9]{7})[A-Za-z0-9_./;=: -]{1,80}")
MOMENT = re.compile(r"[0-9]{10}|[0-9]{13}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,18}(?:Z|\+00:00)")
PREFIX = re.compile(
    rf"(?:{'|'.join(channel.value for channel in Channel)}):|wamid\."
    r"|arn:[a-z-]{1,20}:[a-z-]{1,40}:[a-z0-9-]{0,30}:"
)
PART = re.compile(
    r"(?P<mail>[\w.+%-]+@[\w.-]+)|(?P<host>https?://[^\s/?#]+)"
    r"|(?P<kind>[A-Z]{2}|(?:att|msg|cnv|med)_)(?P<id>[0-9a-f]{32}(?![0-9A-Za-z])|[0-9a-z]{24,40})"
    r"|(?P<uuid>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"|(?P<number>[0-9]+)|(?P<word>[A-Za-z]+)|(?P<other>[^\x00-\x7f])"
)
ARN = re.compile(r"(arn:[a-z-]{1,20}:[a-z-]{1,40}:[a-z0-9-]{0,30}:)([0-9]*)(:[a-z-]{1,30}/)(.*)")
PHONE = range(8, 16)  # digits
DEGREES = re.compile(r"-?[0-9]{1,3}(?:\.[0-9]+)?")
PLACE = frozenset({"latitude", "longitude"})


class Fakes:
    """The fakes of one case. `spoken` are the names of fields with the vendor's own words."""

    def __init__(self, spoken: frozenset[str]) -> None:
        self._spoken = spoken
        self._made: dict[str, str] = {}

    def value(self, name: str, value: Any) -> Any:
        """What stands for the value of a field, or for each in an object or a list.

        Raises:
            ValueError: the name of one may be private itself.
        """
        if NAME.fullmatch(name) is None:
            raise ValueError("the name of a field in it may be private")
        if isinstance(value, (list, dict)):
            return self._tree(name, value)
        if value is None or isinstance(value, bool):
            return value
        if name.lower() in PLACE and DEGREES.fullmatch(str(value)):
            return type(value)(self._degrees(str(value)))
        if isinstance(value, str):
            return self._text(name, value)
        if self._public(name, str(value)):
            return value
        made = self.text(str(abs(value)))
        return (
            int(made if len(made) > 6 else made[0])
            if isinstance(value, int)
            else float(f"{int(made[0]) + 1}.5")
        )

    def _degrees(self, value: str) -> str:
        """Another place on the earth: not every number is one."""
        made = self._made.setdefault(value, f"{len(self._made) % 80}.5")
        return made if "." in value else made.partition(".")[0]

    def _tree(self, name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self.value(name, item) for item in value]
        return {key: self.value(key, item) for key, item in value.items()}

    def url(self, url: str) -> str:
        """The same route and query at a host of the tests.

        Raises:
            ValueError: it is no route of ours, or its query cannot be told apart.
        """
        parts = urlsplit(url)
        pairs = [pair.partition("=") for pair in parts.query.split("&") if pair]
        if ROUTE.fullmatch(parts.path) is None or "%" in parts.query:
            raise ValueError("its URL cannot be redacted")
        query = "&".join(f"{name}={self.value(name, value)}" for name, _, value in pairs)
        return f"{HOST}{parts.path}{'?' if query else ''}{query}"

    def _text(self, name: str, value: str) -> str:
        return value if self._public(name, value) else self.text(value)

    def _public(self, name: str, value: str) -> bool:
        if "time" in name.lower() or name.endswith("_at"):
            return MOMENT.fullmatch(value) is not None
        return name in self._spoken and WORDS.fullmatch(value) is not None

    def text(self, text: str) -> str:
        """The same text, with each word, number and id of it replaced."""
        if (arn := ARN.fullmatch(text)) is not None:
            return f"{arn[1]}{self.text(arn[2])}{arn[3]}{self.text(arn[4])}"
        prefix = found[0] if (found := PREFIX.match(text)) else ""
        return prefix + PART.sub(self._part, text[len(prefix) :])

    def _part(self, found: re.Match[str]) -> str:
        part = found[0]
        if part not in self._made:
            self._made[part] = self._new(found)
        return self._made[part]

    def _new(self, found: re.Match[str]) -> str:
        there = {*self._made, *self._made.values(), found[0]}
        short = len(found[0]) < 4  # there are not enough of these
        for turn in range(1000):
            made = _shaped(found, len(self._made) + turn * 7919)
            if short or made not in there:
                return made
        raise ValueError("there are too many different words in it")

    def leaks(self, text: str) -> bool:
        """Whether an id or a number that was replaced still stands in a text. One of zeros alone is
        nobody's: the accounts that we make up are such."""
        private = (part for part in self._made if len(part) > 6 and re.search("[1-9]", part))
        return any(part in text for part in private)


def _shaped(found: re.Match[str], number: int) -> str:
    part = found[0]
    digits = hashlib.sha256(b"fake %d" % number).hexdigest() * (len(part) // 64 + 1)
    if found["mail"]:
        return f"person{number}@example.com"
    if found["host"]:
        return f"https://h{number}.example"
    if found["id"]:
        return found["kind"] + digits[: len(found["id"])]
    if found["uuid"]:
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"
    if found["number"]:
        if len(part) in PHONE:
            return f"1500555{number % 10_000:04d}"  # nobody's
        plain = "".join(str(int(digit, 16) % 10) for digit in digits[: len(part)])
        return (plain[0] if plain[0] != "0" else "7") + plain[1:]
    if found["word"]:
        letters = (chr(ord("a") + (int(d, 16) * 5 + n) % 26) for n, d in enumerate(digits))
        return "".join(
            new.upper() if old.isupper() else new for old, new in zip(part, letters, strict=False)
        )
    if not part.isalpha():
        return part if part.isspace() else "\u2615"
    return "\u00c9" if part.isupper() else "\u00e9" if part.islower() else "\u3042"
