"""What sending cost, in sums: in the API and the terminal, with what is free, and elsewhere."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gateway.catalog import providers
from gateway.clock import new_id, to_ms
from gateway.costs import By, Free, begins, compared, pieces, sums
from gateway.domain import Estimate, Money
from gateway.money import shown
from gateway.prices import read
from gateway.store.accepts import ACCEPT
from gateway.store.database import Database
from gateway.store.deliveries import BEGIN, Attempt
from gateway.store.spending import DAY, NANO, Spent
from tests.commands import Desk
from tests.running import Client, in_thread, variables
from tests.stored import CONNECTION, OURS, Store, new_message, person

HEAD = "effective_from,provider,channel,country,price,per,currency,free,estimated,note\n"
PRICES = f"""{HEAD}2020-01-01,twilio,sms,US,0.01,1,USD,,true,carriers
2020-01-01,aws_sns,sms,US,0.008,1,USD,2/month,,
2020-01-01,twilio,sms,DE,0.09,1,EUR,,,
2020-01-01,aws_ses,email,*,0.1,1000,USD,3/day,,
2020-01-01,sendgrid,email,*,0.4,1000,USD,,,
"""


def sent(store: Store, provider: str, number: int, **more: Any) -> None:
    """A message that a vendor took, with its estimate, as it would stand there."""
    status, cost = more.pop("status", "delivered"), more.pop("cost", None)
    country, money = more.pop("country", "US"), more.pop("money", None)
    estimate = Estimate(
        country=country,
        units=more.get("segments", 1),
        cost=Money(amount=Decimal(money), currency="USD") if money else None,
    )
    (accepted,) = store.do(ACCEPT, new_message(to=person(number), **more))
    (due,) = [d for d in store.claim() if d.message_id == accepted.view["id"]]
    attempt = Attempt(new_id("att"), due, provider, CONNECTION, OURS, estimate=estimate)
    assert store.do(BEGIN, attempt) == [True]
    store.change(
        "UPDATE attempts SET status = ?, cost = ?, currency = ? WHERE id = ?",
        status,
        cost,
        None if cost is None else "USD",
        attempt.id,
    )


def fill(store: Store) -> None:
    """Some messages of this day."""
    sent(store, "twilio", 1, segments=2, money="0.02")
    sent(store, "twilio", 2, cost="0.0079", money="0.01")
    sent(store, "twilio", 3, country="FR")
    sent(store, "twilio", 4, status="failed", money="0.01")
    sent(store, "twilio", 5, status="unknown", money="0.01")
    for number in (6, 7, 8):
        sent(store, "aws_sns", number, money="0.008", status="accepted")
    sent(store, "aws_ses", 9, channel="email", country=None, money="0.0001", segments=None)


def item(client: Client, key: str | None, **query: str) -> dict[str, Any]:
    """A sum of the answer."""
    (found,) = [i for i in client.get("/api/costs", **query)["items"] if i["key"] == key]
    return dict(found)


def money(amount: str, reported: str = "0", free: str = "0") -> list[dict[str, str]]:
    """How a sum of dollars is shown."""
    estimated = shown(Decimal(amount) - Decimal(reported))
    told = {"amount": amount, "currency": "USD", "reported": reported}
    return [{**told, "estimated": estimated, "free": free}]


def test_costs_are_added_up_with_what_is_given_away(url: str, tmp_path: Path) -> None:
    database = Database(url)
    fill(Store(database))
    file = tmp_path / "prices.csv"
    file.write_text(PRICES)
    with in_thread(variables(tmp_path, url, PRICES_FILE=str(file)), working=False) as client:
        told = client.get("/api/costs")
        assert (told["by"], told["channel"]) == ("provider", None)
        assert [i["key"] for i in told["items"]] == ["aws_ses", "aws_sns", "twilio"]
        twilio = item(client, "twilio")
        assert (twilio["messages"], twilio["segments"], twilio["unpriced"]) == (3, 4, 1)
        assert twilio["cost"] == money("0.0279", "0.0079")
        assert item(client, "aws_sns")["cost"] == money("0.008", free="0.016")
        assert item(client, "aws_ses")["cost"] == money("0", free="0.0001")
        assert item(client, "email", by="channel")["messages"] == 1
        assert item(client, None, by="country")["messages"] == 1  # an email goes to no country
        assert item(client, "FR", by="country") | {"key": "x"} == {
            "key": "x",
            "messages": 1,
            "segments": 1,
            "unpriced": 1,
            "cost": [],
        }
        days = client.get("/api/costs", by="day", channel="sms")["items"]
        assert sum(day["messages"] for day in days) == 6
        assert all(datetime.fromisoformat(day["key"]) for day in days)
        assert client.get("/api/costs", until="2020-02-01", since="2020-01-01")["items"] == []
        for wrong in ("by=week", "channel=fax", "since=2020-01-01", "colour=red"):
            assert client.call("GET", f"/api/costs?{wrong}").status_code == 422
    database.close()


def test_the_terminal_shows_costs_and_compares_providers(tmp_path: Path, sqlite_url: str) -> None:
    database = Database(sqlite_url)
    fill(Store(database))
    database.close()
    (tmp_path / "prices.csv").write_text(PRICES)
    desk = Desk(tmp_path, variables(tmp_path, sqlite_url, PRICES_FILE="prices.csv"))
    told = desk.run("costs", "show").out
    assert "twilio" in told and "0.0279" in told
    (email, sms) = json.loads(desk.run("costs", "compare", "--json").out)
    assert (email["channel"], sms["channel"], sms["actual"]["messages"]) == ("email", "sms", 6)
    by = {first["provider"]: first for first in sms["first"]}
    assert by["twilio"]["cost"] == money("0.06") and by["twilio"]["notes"] == ["carriers"]
    assert by["aws_sns"]["cost"] == money("0.032", free="0.016")
    assert by["aws_sns"]["unpriced"] == 1  # nobody knows the price of France
    table = desk.run("costs", "compare", "--channel", "sms").out
    assert "as it was" in table and "0.06" in table
    assert desk.run("costs", "show", "--month", "2020-01").out == "Nothing was sent.\n"
    assert desk.run("costs", "show", "--month", "January").code == 2


def line(day: int, units: int, **more: Any) -> Spent:
    """Messages of a day in 2026 that cost what the list says."""
    start = to_ms(datetime(2026, 10, 1, tzinfo=UTC)) // DAY
    facts = {"provider": "aws_sns", "kind": "sms", "country": "US", "currency": "USD"}
    facts |= {"reported": False, "messages": units, "cost": units * 8 * NANO // 1000, **more}
    return Spent(**{"day": start + day, "units": units, **facts})


units = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 5)), min_size=1, max_size=12)


@given(days=units)
def test_no_more_is_free_than_is_given_away_in_a_month(days: list[tuple[int, int]]) -> None:
    lines = [line(day, count) for day, count in sorted(days)]
    bills = Free(read(PRICES, providers())).billed(lines)
    each = 8 * NANO // 1000
    for first, end in ((0, 31), (31, 61)):
        mine = [b for b in bills if first <= b.spent.day - line(0, 1).day < end]
        sent_units = sum(b.spent.units for b in mine)
        assert sum(b.free for b in mine) == each * min(2, sent_units)
        assert sum(b.cost + b.free for b in mine) == each * sent_units
    for by in By:
        items = sums(bills, by)
        amounts = [Decimal(c["amount"]) for one in items for c in one["cost"]]
        assert sum(amounts) * NANO == sum(b.cost for b in bills)


def test_what_was_free_before_counts_and_what_was_reported_stays() -> None:
    free = Free(read(PRICES, providers()))
    free.used([line(0, 1)])
    first, told, last = free.billed([line(1, 1), line(2, 1, reported=True), line(3, 1)])
    assert (first.cost, told.cost, last.cost) == (0, told.spent.cost, last.spent.cost)


def test_currencies_are_never_added_up() -> None:
    lines = [line(0, 1), line(0, 1, provider="twilio", country="DE", currency="EUR")]
    (total,) = sums(Free(read(PRICES, providers())).billed(lines), By.CHANNEL)
    assert [cost["currency"] for cost in total["cost"]] == ["EUR", "USD"]


def test_a_month_is_read_from_its_beginning_where_something_is_free_by_the_month() -> None:
    middle = to_ms(datetime(2026, 10, 15, 12, tzinfo=UTC))
    month = to_ms(datetime(2026, 10, 1, tzinfo=UTC))
    assert begins(read(PRICES, providers()), middle) == month
    assert begins(read(PRICES.replace("2/month", ""), providers()), middle) == middle - DAY // 2
    assert begins(read(HEAD, providers()), middle) == middle
    found = list(pieces(middle, middle + DAY))
    assert found == [(middle, middle + DAY // 2), (middle + DAY // 2, middle + DAY)]


@pytest.mark.parametrize("lines", [[], [line(0, 1, kind="rcs", provider="console", currency=None)]])
def test_what_nobody_has_a_price_of_is_compared_with_nothing(lines: list[Spent]) -> None:
    found = compared(lines, read(HEAD, providers()))
    assert [one["first"][0]["unpriced"] for one in found] == [1] * len(lines)
