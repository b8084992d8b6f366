"""`gateway providers`: what an operator sees, and says, of who sends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.breaker import Policy, Sign
from gateway.store.breakers import HEAR, Heard, Place
from gateway.store.database import Database
from tests.commands import Desk
from tests.databases import sqlite_copy
from tests.running import eventually, in_thread, twilio, variables
from tests.stored import Store
from tests.vendors import LoopbackVendor

TWILIO = Place("default", "twilio", "twilio")
SENDER = Place("default", "twilio", "twilio", "+15550009999")
POLICY = Policy(open_for=3_600_000)


@pytest.fixture
def environment(tmp_path: Path, sqlite_file: Path) -> dict[str, str]:
    """Two chains of two: AWS joins Twilio for SMS."""
    more = {
        **twilio("http://127.0.0.1:9"),
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    return variables(tmp_path / "data", sqlite_copy(sqlite_file, tmp_path), **more)


@pytest.fixture
def desk(tmp_path: Path, environment: dict[str, str]) -> Desk:
    """A shell with those settings."""
    (tmp_path / "data").mkdir()
    return Desk(tmp_path, environment)


@pytest.fixture
def store(environment: dict[str, str]) -> Iterator[Store]:
    """The same database."""
    database = Database(environment["DATABASE_URL"])
    yield Store(database)
    database.close()


def refused(store: Store, place: Place, reason: str = "account_refused") -> None:
    """A vendor has refused us, or a sender."""
    store.do(HEAR, Heard(place, Sign.REFUSED, "msg_1", 0.5, POLICY, error=(reason, "20003")))


def lines(out: str, first: str) -> list[list[str]]:
    """The rows of a table that begin with a word."""
    return [line.split() for line in out.splitlines() if line.startswith(first)]


def test_daily_quotas_are_listed_with_what_is_used(
    tmp_path: Path, environment: dict[str, str], store: Store, desk: Desk
) -> None:
    assert "Daily quotas" not in desk.run("providers", "list").out
    smtp = {"SMTP_HOST": "127.0.0.1", "SMTP_FROM_EMAIL": "shop@example.com"}
    bounded = Desk(tmp_path, {**environment, **smtp, "SMTP_DAILY_QUOTA": "5"})
    store.change(
        "INSERT INTO provider_usage (tenant_id, connection, provider, piece, people) "
        "VALUES ('default', 'smtp', 'smtp', ?, 5)",
        int(datetime.now(UTC).timestamp() * 1000),
    )
    done = bounded.run("providers", "list")
    assert lines(done.out, "smtp")[0][:3] == ["smtp", "5", "5"], done.out


def test_the_chains_are_listed_with_their_breakers(desk: Desk, store: Store) -> None:
    refused(store, TWILIO)
    refused(store, SENDER, "sender_refused")
    done = desk.run("providers", "list")
    assert done.code == 0, done.err
    first, second = lines(done.out, "sms")
    assert first[:7] == ["sms", "1", "twilio", "open", "1", "account_refused:", "20003"]
    assert second[:5] == ["sms", "2", "aws_sns", "closed", "0"]
    assert [row[2] for row in lines(done.out, "whatsapp")] == ["twilio"]
    blocked = done.out[done.out.index("Blocked senders:") :]
    assert lines(blocked, "twilio")[0][:3] == ["twilio", "+15550009999", "20003"]
    assert "The last switches:" in done.out
    assert "secret" not in done.out


def test_a_pin_is_shown_logged_and_taken_off(desk: Desk) -> None:
    pinned = desk.run("providers", "pin", "aws-sns", "--for", "2h", "--channel", "sms")
    assert pinned.code == 0, pinned.err
    assert "aws_sns is first on sms until 20" in pinned.out
    shown = desk.run("providers", "list").out
    assert [row[2] for row in lines(shown, "sms")] == ["aws_sns", "twilio"]
    assert [row[2] for row in lines(shown, "whatsapp")] == ["twilio"]
    assert desk.run("providers", "unpin", "aws_sns", "--channel", "email").code == 1
    assert desk.run("providers", "unpin", "aws_sns").code == 0
    again = desk.run("providers", "unpin", "aws_sns")
    assert (again.code, "is not pinned" in again.err) == (1, True)
    log = desk.run("providers", "log", "aws_sns").out
    assert [row[2] for row in lines(log, "20")] == ["unpinned", "pinned"]
    assert desk.run("providers", "log", "twilio").out.strip() == "Nothing."


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("pin", "sendmail", "--for", "2h"), 1, "is in no chain: there are aws_sns, twilio"),
        (("pin", "aws_sns", "--for", "2h", "--channel", "whatsapp"), 1, "no chain of whatsapp"),
        (("pin", "twilio", "--for", "soon"), 2, "must be a time such as 30m"),
        (("pin", "twilio"), 2, "--for"),
        (("unblock", "twilio"), 1, "nothing of twilio is blocked"),
    ],
)
def test_what_makes_no_sense_is_refused(
    desk: Desk, words: tuple[str, ...], code: int, said: str
) -> None:
    done = desk.run("providers", *words)
    assert (done.code, said in done.err) == (code, True), done.err


def test_what_was_repaired_is_asked_again_at_once(desk: Desk, store: Store) -> None:
    refused(store, TWILIO)
    refused(store, SENDER, "sender_refused")
    one = desk.run("providers", "unblock", "twilio", "--sender", SENDER.sender)
    assert (one.code, one.out.strip()) == (0, f"twilio, {SENDER.sender}, is asked again.")
    retry_at = "SELECT retry_at - opened_at FROM breakers WHERE sender = ?"
    assert store.value(retry_at, SENDER.sender) < 600_000
    assert store.value(retry_at, "") > 600_000
    assert desk.run("providers", "unblock", "twilio").code == 0
    assert store.value(retry_at, "") < 600_000
    log = desk.run("providers", "log").out
    assert [row[2] for row in lines(log, "20")] == ["hurried", "hurried", "blocked", "opened"]


def test_a_running_gateway_follows_a_pin(
    tmp_path: Path, environment: dict[str, str], desk: Desk
) -> None:
    with LoopbackVendor() as vendor:
        environment = {
            **environment,
            **twilio(vendor.url),
            "SMS_PROVIDERS": "console,twilio",
        }
        desk.variables = environment
        with in_thread(environment) as client:
            assert client.until(client.send(to="+15550100001", body="x")["id"], "delivered")
            assert desk.run("providers", "pin", "twilio", "--for", "1h").code == 0

            def first() -> bool:
                told = client.get("/health/messaging")["sms_providers"]
                return bool(told[0]["name"] == "twilio")

            eventually(first, "the pin")
            message = client.until(client.send(to="+15550100002", body="y")["id"], "accepted")
            assert message["provider"] == "twilio"
            assert message["attempts"][0]["why"] == "pinned"
        assert vendor.count == 1
