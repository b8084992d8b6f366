"""Lists of prices: what is read, what is refused with its line, what is quoted."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from gateway import addresses, prices
from gateway.catalog import providers
from gateway.clock import to_ms
from gateway.domain import Channel, Money
from gateway.errors import SettingsError
from gateway.money import shown

HEAD = "effective_from,provider,channel,country,price,per,currency,free,estimated,note\n"
LIST = f"""# ours
{HEAD}
2026-01-01,twilio,sms,*,0.05,1,USD,,,
2026-01-01,twilio,sms,US,0.0083,1,USD,,,
2026-07-01,twilio,sms,US,0.009,,EUR,,,raised
2026-07-01,twilio,sms,DE,0.08,,EUR,,,
2026-01-01,twilio,mms,US,0.022,1,USD,,,
2026-01-01,aws_ses,email,*,0.10,1000,USD,3000/month,,
"""


def at(month: int, day: int = 1) -> int:
    """A moment of 2026."""
    return to_ms(datetime(2026, month, day, tzinfo=UTC))


def usd(amount: str, currency: str = "USD") -> Money:
    return Money(amount=Decimal(amount), currency=currency)


def test_the_price_at_the_time_of_sending_counts() -> None:
    book = prices.read(LIST, providers())
    assert book.quote("twilio", "sms", "US", 2, at(6, 30)) == usd("0.0166")
    assert book.quote("twilio", "sms", "US", 2, at(7)) == usd("0.018", "EUR")
    assert book.quote("twilio", "sms", "US", 1, at(1) - 1) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty: its first line must name the columns"),
        ("# nothing\n\n", "is empty"),
        (f"{HEAD.strip()},price\n", "line 1: names the column price twice"),
    ],
)
def test_a_file_that_lists_nothing_or_twice_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        prices.read(text, providers())


def test_a_country_without_a_price_of_its_own_has_that_of_anywhere() -> None:
    book = prices.read(LIST, providers())
    assert book.quote("twilio", "sms", "FR", 1, at(8)) == usd("0.05")
    assert book.quote("twilio", "sms", None, 1, at(8)) == usd("0.05")
    assert book.quote("twilio", "sms", "DE", 1, at(6)) == usd("0.05")  # its own comes later
    assert book.quote("aws_sns", "sms", "US", 1, at(8)) is None


def test_files_and_people_are_paid_for_in_their_own_way() -> None:
    book = prices.read(LIST, providers())
    assert book.quote("twilio", "sms", "US", None, at(2)) == usd("0.022")
    assert book.quote("aws_ses", "email", None, 3, at(2)) == usd("0.0003")
    found = book.find("aws_ses", "email", None, at(2))
    assert found is not None and found.free == prices.Free(3000, "month")


GOOD = "2026-01-01,twilio,sms,US,0.0083,1,USD,,,"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (GOOD.replace("2026-01-01", "2026-02-30"), "effective_from must be a day"),
        (GOOD.replace("2026-01-01", "1.1.2026"), "effective_from must be a day"),
        (GOOD.replace("twilio", "twillio"), "provider must be one of aws_ses, "),
        (GOOD.replace("sms", "fax"), "channel must be one of sms, "),
        (GOOD.replace("US", "usa"), "country must be two capital letters"),
        (GOOD.replace("0.0083", "0,0083"), "has more cells"),
        (GOOD.replace("0.0083", "-1"), "price must be a decimal number"),
        (GOOD.replace("0.0083", "1e3"), "price must be a decimal number"),
        (GOOD.replace("0.0083", ""), "price must be a decimal number"),
        (GOOD.replace(",1,", ",3,"), "per must be 1, 100, 1000"),
        (GOOD.replace("0.0083,1", "0.12345678,1000"), "at most 9 decimals"),
        (GOOD.replace("USD", "$"), "currency must be three"),
        (GOOD.replace("USD,,", "USD,3000/year,"), "free must be such as"),
        (GOOD.replace("USD,,,", "USD,,perhaps,"), "estimated must be true"),
        (f"{GOOD}\n{GOOD}", "is there twice"),
        (f'{GOOD[:-1]},"x', "unexpected end"),
    ],
)
def test_a_line_that_is_none_is_named_with_what_it_must_be(line: str, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        prices.read(f"{HEAD}# a comment counts as a line\n{line}\n", providers(), "my.csv")
    number = 3 + line.count("\n")
    assert str(raised.value).startswith(f"PRICES_FILE: my.csv, line {number}: ")
    assert told in str(raised.value)


def test_the_columns_must_be_named() -> None:
    with pytest.raises(SettingsError, match="line 2: must name the columns, and price"):
        prices.read(f"#\n{HEAD.replace('price,', '')}", providers())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"PRICES_FILE: .*absent.csv cannot be read"):
        prices.load(tmp_path / "absent.csv", providers())
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not in UTF-8"):
        prices.load(tmp_path / "odd.csv", providers())


def test_the_list_that_is_shipped_is_whole() -> None:
    book = prices.load(None, providers())
    assert book.quote("twilio", "sms", "US", 1, at(3)) == usd("0.0083")
    assert book.quote("aws_ses", "email", None, 1000, at(3)) == usd("0.10")
    assert all(price.note for price in book.listed)


amounts = st.decimals(min_value=0, max_value=9999, places=9, allow_nan=False)


@given(amount=amounts, units=st.integers(1, 10**6))
def test_money_is_exact(amount: Decimal, units: int) -> None:
    text = f"{HEAD}2026-01-01,twilio,sms,US,{amount:f},1,USD,,,"
    cost = prices.read(text, providers()).quote("twilio", "sms", "US", units, at(2))
    assert cost is not None
    assert cost.amount == amount * units
    assert Decimal(shown(cost.amount)) == cost.amount
    assert "E" not in shown(cost.amount)


@pytest.mark.parametrize(
    ("number", "country"),
    [
        ("+12025550123", "US"),
        ("+15550100007", "US"),  # a number of nowhere: the largest of those who share the code
        ("+14165550100", "CA"),
        ("+18765551234", "JM"),
        ("+447700900123", "GB"),
        ("+447781123456", "GG"),
        ("+77011234567", "KZ"),
        ("+79161234567", "RU"),
        ("+390612345678", "IT"),
        ("+4915112345678", "DE"),
        ("+80012345678", None),  # of no country
        ("+99999999999", None),
        ("12345", None),
    ],
)
def test_a_number_tells_its_country(number: str, country: str | None) -> None:
    assert addresses.country(Channel.SMS, number) == country


def test_who_shows_no_number_tells_the_country_too() -> None:
    assert addresses.country(Channel.WHATSAPP, "BR.1349") == "BR"
    assert addresses.country(Channel.EMAIL, "ada@example.com") is None
