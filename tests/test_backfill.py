"""What the vendor said while nobody listened: asked for and stored once, by a command and after
an outage, and the same whichever came first, the list or the webhook."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.domain import Status
from gateway.store.backfills import BEAT, FILLED, RECALL, Beat, Filled, Gap, Recalled
from gateway.store.database import Database
from tests.commands import Desk
from tests.running import (
    Client,
    eventually,
    in_thread,
    inbound_form,
    sid,
    twilio,
    variables,
)
from tests.stored import HOUR, TENANT, Store, delivery, said, update
from tests.twilio_messages import PERSON, ROOT, TwilioMessages, when
from tests.vendors import Fault, Reply

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
MINUTE = timedelta(minutes=1)
Start = Callable[..., AbstractContextManager[Client]]


@pytest.fixture
def vendor() -> Iterator[TwilioMessages]:
    """Twilio on loopback."""
    with TwilioMessages() as made:
        yield made


@pytest.fixture
def settings(url: str, tmp_path: Path, vendor: TwilioMessages) -> dict[str, str]:
    """A gateway's environment."""
    return variables(tmp_path, url, **twilio(vendor.url), BACKFILL_AFTER="1s")


@pytest.fixture
def start(settings: dict[str, str]) -> Start:
    """A gateway for the time of a block."""

    @contextmanager
    def begin(**more: str) -> Iterator[Client]:
        with in_thread({**settings, **more}) as client:
            yield client

    return begin


@pytest.fixture
def rows(url: str) -> Iterator[Callable[..., list[Any]]]:
    """What a query finds; or changes, where it begins with UPDATE."""
    database = Database(url)

    def run(sql: str, *values: Any) -> list[Any]:
        if sql.startswith("UPDATE"):
            with database.write() as tx:
                assert tx.run(sql, values).rowcount
            return []
        with database.read() as tx:
            return list(tx.run(sql, values).fetchall())

    yield run
    database.close()


def silence(rows: Callable[..., list[Any]], hours: float = 1.0) -> None:
    """Lets the last sign of life be so long ago."""
    rows("UPDATE backfills SET heard_at = heard_at - ?", int(hours * HOUR))


def inbound(client: Client) -> list[dict[str, Any]]:
    """What people wrote, oldest first."""
    return list(reversed(client.get("/api/messages", direction="inbound")["items"]))


def waited(client: Client, count: int) -> list[dict[str, Any]]:
    """The same, once there are so many."""
    eventually(lambda: len(inbound(client)) >= count, f"{count} messages")
    return inbound(client)


def done(rows: Callable[..., list[Any]]) -> None:
    """Waits until nothing is to be asked for any more."""
    eventually(
        lambda: (found := rows("SELECT missing_since FROM backfills")) and not found[0][0],
        "the end of the backfill",
    )


def beats(rows: Callable[..., list[Any]]) -> None:
    """Waits until a gateway has noted that it listens."""
    first = rows("SELECT heard_at FROM backfills")
    eventually(lambda: rows("SELECT heard_at FROM backfills") != first, "a sign of life")


def test_after_an_outage_what_was_missed_is_there_once(
    start: Start, vendor: TwilioMessages, rows: Callable[..., list[Any]]
) -> None:
    with start() as client:
        sent = client.send(to=PERSON, body="How are you?")["id"]
        client.until(sent, "accepted")
        beats(rows)
    silence(rows)
    vendor.messages[0] |= {"status": "delivered", "price": "-0.0079"}
    for minutes, body in ((30, "Fine"), (20, "And you?")):
        date = when(vendor.now - minutes * MINUTE)
        vendor.inbound(body, date_created=date, date_sent=date)
    picture = vendor.picture("look", "image/png", date_sent=when(vendor.now - 10 * MINUTE))
    file = f"{ROOT}/{picture['sid']}/Media/{sid(1, 'ME')}"
    vendor.pages[file] = Reply(body=PNG, headers={"Content-Type": "image/png"})
    foreign = vendor.add(body="of another program", status="delivered")

    with start() as client:
        messages = waited(client, 3)
        assert [m["body"] for m in messages] == ["Fine", "And you?", "look"]
        delivered = client.until(sent, "delivered")
        assert delivered["cost"] == {"amount": "0.0079", "currency": "USD"}
        assert delivered["attempts"][0]["settled_by"] is None
        conversation = client.get(f"/api/conversations/{messages[0]['conversation_id']}")
        assert conversation["unread_count"] == 3
        assert delivered["conversation_id"] == conversation["id"]
        (media,) = messages[2]["media"]
        eventually(lambda: client.call("GET", media["url"]).status_code == 200, "the file")
        assert client.call("GET", media["url"]).content == PNG
        done(rows)

        for message in vendor.messages[1:3]:
            form = inbound_form(message["sid"], message["body"])
            assert client.webhook("/api/webhooks/sms", form).ok
        form = inbound_form(picture["sid"], "look", NumMedia="1")
        form["MediaUrl0"] = f"https://api.twilio.com{file}"
        assert client.webhook("/api/webhooks/sms", form).ok
        status = {"MessageSid": vendor.messages[0]["sid"], "MessageStatus": "delivered"}
        status |= {"AccountSid": vendor.messages[0]["account_sid"], "To": PERSON}
        assert client.webhook("/api/webhooks/twilio", status).ok
        assert len(inbound(client)) == 3
        assert client.get(f"/api/conversations/{conversation['id']}")["unread_count"] == 3
        assert client.message(sent)["updated_at"] == delivered["updated_at"]

    kept = rows("SELECT verdict, state, webhook, body FROM inbox ORDER BY id")
    asked = [row for row in kept if row.verdict == "backfill"]
    assert {(row.state, row.webhook) for row in asked} == {("parsed", "twilio")}
    bodies = [json.loads(bytes(row.body))["message"]["sid"] for row in asked]
    assert sorted(bodies) == sorted(m["sid"] for m in vendor.messages if m is not foreign)
    assert len(rows("SELECT id FROM media")) == 1
    assert len(vendor.sent) == 1


def test_what_webhooks_brought_before_is_not_stored_again(
    start: Start, vendor: TwilioMessages, rows: Callable[..., list[Any]]
) -> None:
    message = vendor.inbound("hello")
    with start() as client:
        assert client.webhook("/api/webhooks/sms", inbound_form(message["sid"], "hello")).ok
        beats(rows)
    for _ in range(2):
        silence(rows)
        with start() as client:
            eventually(lambda: vendor.asked, "the question")
            done(rows)
            assert [m["body"] for m in inbound(client)] == ["hello"]
        vendor.requests.clear()
    (kept,) = rows("SELECT verdict FROM inbox")
    assert kept.verdict.startswith("twilio hmac")


def test_a_short_silence_is_nothing(
    start: Start, vendor: TwilioMessages, rows: Callable[..., list[Any]]
) -> None:
    for _ in range(2):
        with start(BACKFILL_AFTER="1h") as client:
            eventually(lambda: rows("SELECT heard_at FROM backfills"), "a sign of life")
            client.get("/health/ready")
        silence(rows, 0.5)
    assert vendor.asked == []


def test_it_can_be_switched_off(
    start: Start, vendor: TwilioMessages, rows: Callable[..., list[Any]]
) -> None:
    with start() as client:
        beats(rows)
    silence(rows)
    before = rows("SELECT * FROM backfills")
    with start(BACKFILL_AFTER="0") as client:
        client.until(client.send(to=PERSON, body="hi")["id"], "accepted")
    assert rows("SELECT * FROM backfills") == before
    assert vendor.asked == []


def test_a_gateway_is_ready_before_the_vendor_has_answered(
    start: Start, vendor: TwilioMessages, rows: Callable[..., list[Any]]
) -> None:
    with start():
        beats(rows)
    silence(rows)
    vendor.lists.append(Fault.STALL)
    with start() as client:
        eventually(lambda: vendor.asked, "the question")
        assert client.get("/health/ready")["status"] == "ready"
        client.until(client.send(to=PERSON, body="hi")["id"], "accepted")
        beats(rows)
    vendor.inbound("hello")
    with start() as client:  # it ended before it had asked, and says so
        waited(client, 1)


def test_a_vendor_that_does_not_answer_is_asked_again(
    start: Start, vendor: TwilioMessages, rows: Callable[..., list[Any]]
) -> None:
    with start():
        beats(rows)
    silence(rows)
    vendor.inbound("hello")
    vendor.lists = [Reply(status=500)]
    with start() as client:
        eventually(
            lambda: [r for r in rows("SELECT due_at, token FROM backfills") if not r.token],
            "the failure",
        )
        assert inbound(client) == []
        rows("UPDATE backfills SET due_at = 1")  # the pause is over
        waited(client, 1)
        done(rows)


def test_a_long_silence_is_made_up_for_in_bounds_and_the_rest_is_told(
    start: Start,
    vendor: TwilioMessages,
    rows: Callable[..., list[Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with start():
        beats(rows)
    silence(rows, 72)
    old, late = (when(vendor.now - timedelta(hours=h)) for h in (30, 20))
    vendor.inbound("too old", date_sent=old, date_created=old)
    vendor.inbound("late", date_sent=late, date_created=late)
    with caplog.at_level(logging.INFO, "gateway.backfill"), start() as client:
        assert [m["body"] for m in waited(client, 1)] == ["late"]
        done(rows)
        assert len(inbound(client)) == 1
    (since,) = parse_qs(urlsplit(vendor.asked[0]).query)["DateSent>"]
    age = vendor.now - datetime.fromisoformat(since)
    assert timedelta(hours=34) - MINUTE < age < timedelta(hours=34) + MINUTE
    assert "gateway inbox backfill --since" in caplog.text
    assert PERSON not in caplog.text


def test_one_of_two_processes_asks(
    postgres_url: str, tmp_path: Path, vendor: TwilioMessages
) -> None:
    made = variables(tmp_path, postgres_url, **twilio(vendor.url), BACKFILL_AFTER="1s")
    database = Database(postgres_url)
    store = Store(database)
    with in_thread(made):
        eventually(lambda: store.count("backfills"), "a sign of life")
    store.change("UPDATE backfills SET heard_at = heard_at - ?", HOUR)
    vendor.inbound("hello")
    with in_thread(made) as one, in_thread(made) as two:
        waited(one, 1)
        eventually(lambda: store.value("SELECT missing_since FROM backfills") is None, "the end")
        time.sleep(1)  # both have said that they listen since
        assert len(inbound(two)) == 1
    database.close()
    assert len(vendor.asked) == 1


# By hand.


@pytest.fixture
def desk(settings: dict[str, str], tmp_path: Path) -> Desk:
    """A shell with a gateway's settings, and no gateway that runs."""
    return Desk(tmp_path, settings)


def columns(out: str) -> list[str]:
    """The figures of the only line of a table."""
    return out.splitlines()[1].split()


def test_by_hand_it_says_first_and_stores_then_and_once(
    desk: Desk, vendor: TwilioMessages, rows: Callable[..., list[Any]]
) -> None:
    vendor.page = 2
    for number in range(4):
        vendor.inbound(f"number {number}")
    vendor.picture("look", "image/png")
    early = when(vendor.now - timedelta(hours=3))
    vendor.inbound("too early", date_sent=early, date_created=early)
    command = ("inbox", "backfill", "--since", "2h")

    dry = desk.run(*command, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert columns(dry.out) == ["twilio", "5", "5", "0", "0"]
    assert "MISSING" in dry.out
    assert rows("SELECT id FROM inbox") == []

    stored = desk.run(*command, "--provider", "twilio")
    assert columns(stored.out) == ["twilio", "5", "5", "0", "0"]
    found = rows("SELECT body, conversation_id FROM messages ORDER BY id")
    assert len({row.conversation_id for row in found}) == 1
    assert sorted(row.body for row in found) == ["look", *(f"number {n}" for n in range(4))]
    assert len(rows("SELECT id FROM media WHERE state = 'pending'")) == 1

    again = desk.run(*command)
    assert columns(again.out) == ["twilio", "5", "0", "0", "0"]
    assert len(rows("SELECT id FROM inbox")) == 5

    listed = desk.run("inbox", "list").out.splitlines()[1:]
    assert len(listed) == 5
    shown = desk.run("inbox", "show", listed[0].split()[0])
    assert "backfill" in shown.field("verdict")
    assert '"direction": "inbound"' in shown.out
    assert vendor.url in shown.out
    replayed = desk.run("inbox", "replay", "--state", "all")
    assert replayed.code == 0
    assert replayed.out.count("parsed -> parsed") == 5
    assert len(rows("SELECT id FROM messages")) == 5


@pytest.mark.parametrize("since", ["soon", "2026-11-22", "2026-11-22T00:00", "2999-01-01T00:00Z"])
def test_a_time_that_cannot_be_meant_is_refused(desk: Desk, since: str) -> None:
    done = desk.run("inbox", "backfill", "--since", since)
    assert done.code == 2
    assert "--since" in done.err
    assert "Traceback" not in done.err


def test_a_time_with_its_zone_is_taken(desk: Desk, vendor: TwilioMessages) -> None:
    vendor.inbound("hello")
    moment = (datetime.now(UTC) - timedelta(hours=1)).astimezone().isoformat()
    done = desk.run("inbox", "backfill", "--since", moment)
    assert columns(done.out) == ["twilio", "1", "1", "0", "0"]


def test_more_than_was_asked_for_is_told(desk: Desk, vendor: TwilioMessages) -> None:
    for number in range(3):
        vendor.inbound(f"number {number}")
    done = desk.run("inbox", "backfill", "--since", "2h", "--limit", "2")
    assert done.code == 1
    assert "had more than 2" in done.err
    assert columns(done.out) == ["twilio", "2", "2", "0", "0"]


def test_a_vendor_that_refuses_is_told_in_a_sentence(desk: Desk, vendor: TwilioMessages) -> None:
    vendor.lists = [Reply(status=401, body=b'{"code": 20003}')]
    done = desk.run("inbox", "backfill", "--since", "2h")
    assert done.code == 1
    assert "the account SID or the auth token is wrong" in done.err
    assert "Traceback" not in done.err


def test_who_cannot_be_asked_is_told(desk: Desk) -> None:
    for provider in ("console", "nobody"):
        done = desk.run("inbox", "backfill", "--since", "2h", "--provider", provider)
        assert done.code == 1
        assert "can be asked" in done.err


# The store's side.


def beat(store: Store, token: str = "one", *, asking: bool = False) -> Gap | None:
    """A process says that it listens."""
    return store.do(BEAT, Beat(TENANT, "c1", "AC1", token, 5000, 60_000, asking))[0]


def age(store: Store, milliseconds: int) -> None:
    """Lets time pass."""
    store.change("UPDATE backfills SET heard_at = heard_at - ?", milliseconds)


def test_a_silence_is_given_to_one_until_it_has_made_up_for_it(store: Store) -> None:
    assert beat(store) is None
    age(store, 4000)
    assert beat(store) is None
    heard = store.value("SELECT heard_at FROM backfills")
    age(store, 6000)
    gap = beat(store)
    assert gap is not None
    assert (gap.since, gap.tries) == (heard - 6000, 0)
    assert beat(store, "two") is None
    assert beat(store, asking=True) is None
    store.do(FILLED, Filled(TENANT, "c1", "AC1", "two"))  # it is not its to end
    assert store.value("SELECT missing_since FROM backfills") is not None
    store.do(FILLED, Filled(TENANT, "c1", "AC1", "one"))
    assert store.value("SELECT missing_since FROM backfills") is None
    assert beat(store, "two") is None


def test_one_that_died_over_it_is_followed_by_another(store: Store) -> None:
    beat(store)
    age(store, 6000)
    assert beat(store) is not None
    store.change("UPDATE backfills SET due_at = 1")  # its lease ran out
    gap = beat(store, "two")
    assert gap is not None
    assert gap.tries == 1


def test_one_that_forgot_it_asks_again(store: Store) -> None:
    beat(store)
    age(store, 6000)
    assert beat(store) is not None
    assert beat(store) is not None  # its end was not noted, and it does not ask any more


def test_one_that_failed_is_tried_again_after_its_pause(store: Store) -> None:
    beat(store)
    age(store, 6000)
    assert beat(store) is not None
    store.do(FILLED, Filled(TENANT, "c1", "AC1", "one", 60_000))
    assert beat(store) is None
    assert beat(store, "two") is None
    store.change("UPDATE backfills SET due_at = 1")
    assert beat(store, "two") is not None


def test_a_second_silence_while_the_first_is_made_up_for_is_not_forgotten(store: Store) -> None:
    beat(store)
    age(store, 6000)
    first = beat(store)
    age(store, 6000)  # that process is stuck
    second = beat(store, "two")
    assert first is not None
    assert second is not None
    assert second.since == first.since
    store.do(FILLED, Filled(TENANT, "c1", "AC1", "one"))  # it saw nothing of the second
    assert store.value("SELECT missing_since FROM backfills") == first.since


def test_each_account_is_listened_to_by_itself(store: Store) -> None:
    beat(store)
    age(store, 6000)
    assert store.do(BEAT, Beat(TENANT, "c1", "AC2", "one", 5000, 60_000)) == [None]


def recall(store: Store, *events: Any, keep: bool = True) -> list[bool]:
    """What a vendor told; whether each was missing."""
    items = [Recalled(delivery(f"told {n}", event), keep) for n, event in enumerate(events)]
    return store.do(RECALL, *items)


def test_only_what_is_missing_is_stored(store: Store) -> None:
    store.receive("k", said("m1"))
    attempt = store.begun()
    store.settle(attempt, "SM1")
    store.reports(update(Status.SENT, attempt_id=attempt.id, provider_message_id="SM1"))
    told = (
        said("m1"),
        said("m2"),
        update(Status.ACCEPTED, provider_message_id="SM1"),
        update(Status.DELIVERED, provider_message_id="SM1"),
        update(Status.DELIVERED, provider_message_id="SM2"),  # nobody's that we know
    )
    assert recall(store, *told, keep=False) == [False, True, False, True, False]
    assert store.status(attempt.due.message_id) == "sent"
    assert recall(store, *told) == [False, True, False, True, False]
    assert recall(store, *told) == [False] * 5
    assert store.status(attempt.due.message_id) == "delivered"
    assert store.count("inbox") == 4
    assert store.value("SELECT COUNT(*) FROM receipts WHERE verdict = 'parked'") == 0
    assert store.count("messages") == 3


def test_the_same_word_in_a_callback_later_is_the_same_receipt(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, "SM1")
    word = update(Status.DELIVERED, "st:SM1:delivered:", provider_message_id="SM1")
    assert recall(store, word) == [True]
    store.reports(
        update(
            Status.DELIVERED, "st:SM1:delivered:", attempt_id=attempt.id, provider_message_id="SM1"
        )
    )
    assert store.verdicts() == ["applied"]


def test_what_is_told_of_another_account_s_message_changes_nothing(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, "SM1")
    recall(store, update(Status.DELIVERED, provider_message_id="SM1", account="AC9"))
    assert store.status(attempt.due.message_id) == "accepted"
    assert store.verdicts() == ["foreign"]
