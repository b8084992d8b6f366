"""What sending costs, by a dated list of prices: reading such a list, and quoting from it.

Pure, in decimal money, and never summed across currencies. A quote is our estimate: what the vendor
says an attempt cost stands above it.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from gateway.clock import to_ms
from gateway.domain import Channel, Money
from gateway.errors import SettingsError

SHIPPED = Path(__file__).with_name("prices.csv")
HEADS = (
    *("effective_from", "provider", "channel", "country", "price", "per"),
    *("currency", "free", "estimated", "note"),
)
OPTIONAL = frozenset({"per", "free", "estimated", "note"})
MMS = "mms"  # an SMS with files has a price of its own
KINDS = (*(channel.value for channel in Channel), MMS)
ANYWHERE = "*"
PERS = (1, 100, 1000)
PLACES = 9  # of the price of one: sums of whole billionths are exact on every database
DEAREST = Decimal(10_000)
AMOUNT = re.compile(r"[0-9]{1,5}(?:\.[0-9]{1,9})?")
FREE = re.compile(r"([1-9][0-9]{0,8})/(day|month)")
LARGEST = 4 * 1024 * 1024  # characters of a list


@dataclass(frozen=True, slots=True)
class Free:
    """What a vendor gives away: so many units in each day or month (UTC)."""

    units: int
    period: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """One line of a list. `one` is the price of a unit: a segment of an SMS, a person whom an
    email goes to, else a message. `since` is in milliseconds."""

    since: int
    provider: str
    kind: str
    country: str
    one: Decimal
    currency: str
    free: Free | None = None
    estimated: bool = False  # the figure itself is no list price
    note: str = ""

    def of(self, units: int) -> Money:
        """What so many units cost."""
        return Money(amount=self.one * units, currency=self.currency)


class Prices:
    """A list of prices, to be looked up."""

    def __init__(self, listed: Iterable[Price] = ()) -> None:
        self.listed = tuple(sorted(listed, key=lambda price: price.since))
        self._by: dict[tuple[str, str, str], tuple[list[int], list[Price]]] = {}
        for price in self.listed:
            key = (price.provider, price.kind, price.country)
            since, prices = self._by.setdefault(key, ([], []))
            since.append(price.since)
            prices.append(price)

    def find(self, provider: str, kind: str, country: str | None, at: int) -> Price | None:
        """The line that counts at a moment: the country's own, else the one for anywhere."""
        own = self._at((provider, kind, country), at) if country is not None else None
        return own or self._at((provider, kind, ANYWHERE), at)

    def _at(self, key: tuple[str, str, str], at: int) -> Price | None:
        found = self._by.get(key)
        if found is None:
            return None
        place = bisect_right(found[0], at)
        return found[1][place - 1] if place else None

    def quote(
        self, provider: str, channel: str, country: str | None, segments: int | None, at: int
    ) -> Money | None:
        """What a message costs that is sent at a moment (milliseconds); None: not known. An SMS
        without a count of segments is one with files; of an email, `segments` are people."""
        kind = MMS if channel == Channel.SMS and segments is None else channel
        price = self.find(provider, kind, country, at)
        return None if price is None else price.of(segments or 1)


def load(path: Path | None, providers: Collection[str]) -> Prices:
    """The list of a file; of the one that is shipped where none is named.

    Raises:
        SettingsError: it cannot be used; the text names the line and what it must be.
    """
    file = path or SHIPPED
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            text = opened.read(LARGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not in UTF-8"
        raise SettingsError(f"PRICES_FILE: {file} cannot be read ({why}).") from None
    if len(text) > LARGEST:
        raise SettingsError(f"PRICES_FILE: {file} is larger than {LARGEST} characters.")
    return read(text, providers, str(file))


def read(text: str, providers: Collection[str], name: str = "the file") -> Prices:
    """The list of a CSV text; lines that begin with # are comments.

    Raises:
        SettingsError: a line is none; the text names it and what it must be.
    """
    listed: dict[tuple[str, str, str, int], Price] = {}
    for number, cells in _lines(text, name):
        try:
            price = _price(cells, providers)
            key = (price.provider, price.kind, price.country, price.since)
            if key in listed:
                raise ValueError("effective_from is there twice for the same: leave one out")
        except ValueError as error:
            raise SettingsError(f"PRICES_FILE: {name}, line {number}: {error}.") from None
        listed[key] = price
    return Prices(listed.values())


def _lines(text: str, name: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    plain = ("" if line.startswith("#") else line for line in text.splitlines())
    reader = csv.reader(plain, strict=True)
    heads: list[str] = []
    try:
        for cells in filter(None, reader):
            where = f"PRICES_FILE: {name}, line {reader.line_num}"
            if not heads:
                heads = [cell.strip().lower() for cell in cells]
                _check_heads(heads, where)
                continue
            if len(cells) > len(heads):
                raise SettingsError(f"{where}: has more cells than there are columns.")
            row = dict.fromkeys(HEADS, "") | dict(zip(heads, map(str.strip, cells), strict=False))
            yield reader.line_num, row
    except csv.Error as error:
        raise SettingsError(f"PRICES_FILE: {name}, line {reader.line_num}: {error}.") from None
    if not heads:
        raise SettingsError(f"PRICES_FILE: {name} is empty: its first line must name the columns.")


def _check_heads(heads: Sequence[str], where: str) -> None:
    for head in HEADS:
        if head not in heads and head not in OPTIONAL:
            raise SettingsError(f"{where}: must name the columns, and {head} is not among them.")
        if heads.count(head) > 1:
            raise SettingsError(f"{where}: names the column {head} twice.")


def _price(cells: Mapping[str, str], providers: Collection[str]) -> Price:
    provider, kind = cells["provider"], cells["channel"]
    if provider not in providers:
        raise ValueError(f"provider must be one of {', '.join(sorted(providers))}")
    if kind not in KINDS:
        raise ValueError(f"channel must be one of {', '.join(KINDS)}")
    if re.fullmatch(r"[A-Z]{2}|\*", cells["country"]) is None:
        raise ValueError("country must be two capital letters such as DE, or * for anywhere")
    if re.fullmatch(r"[A-Z]{3}", cells["currency"]) is None:
        raise ValueError("currency must be three capital letters such as USD")
    if cells["estimated"] not in ("", "true", "false"):
        raise ValueError("estimated must be true, false or blank")
    return Price(
        since=_since(cells["effective_from"]),
        provider=provider,
        kind=kind,
        country=cells["country"],
        one=_one(cells["price"], cells["per"]),
        currency=cells["currency"],
        free=_free(cells["free"]),
        estimated=cells["estimated"] == "true",
        note=cells["note"],
    )


def _since(text: str) -> int:
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return to_ms(datetime.fromisoformat(text).replace(tzinfo=UTC))
    except ValueError:
        pass  # such as the 30th of February
    raise ValueError("effective_from must be a day such as 2026-01-31")


def _one(price: str, per: str) -> Decimal:
    if AMOUNT.fullmatch(price) is None or Decimal(price) > DEAREST:
        raise ValueError("price must be a decimal number such as 0.0083, with a point")
    if (per or "1") not in map(str, PERS):
        raise ValueError(f"per must be {', '.join(map(str, PERS))} or blank")
    one = (Decimal(price) / int(per or 1)).normalize()
    if -int(one.as_tuple().exponent) > PLACES:
        raise ValueError(f"price must have at most {PLACES} decimals for one")
    return one


def _free(text: str) -> Free | None:
    if not text:
        return None
    match = FREE.fullmatch(text)
    if match is None:
        raise ValueError("free must be such as 3000/month or 100/day, or blank")
    return Free(int(match[1]), match[2])
