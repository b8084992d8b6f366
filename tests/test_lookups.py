"""Messages whose answer was lost: asked for at the vendor, and believed only where there is no
doubt. Nothing here is ever sent again because of a look."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Status
from gateway.errors import Ambiguous
from gateway.lookups import LATER, STEPS
from gateway.store.breakers import HURRY, Hurry
from gateway.store.deliveries import Attempt
from gateway.store.lookups import SETTLE, WANT, Found, Looked, Wanted
from gateway.views import attempts_view
from tests.running import (
    ACCOUNT,
    Client,
    Process,
    eventually,
    free_port,
    in_thread,
    twilio,
    variables,
)
from tests.stored import DAY, HOUR, PERSON as SOMEBODY, TENANT, Store, delivery, future, update
from tests.twilio_messages import PERSON, SERVICE, TwilioMessages, when
from tests.vendors import Fault, Reply, Request

QUICK = {"LOOKUP_AFTER": "100ms"}
SECONDS = timedelta(seconds=1)


@pytest.fixture
def vendor() -> Iterator[TwilioMessages]:
    """Twilio on loopback."""
    with TwilioMessages() as made:
        yield made


@pytest.fixture
def start(url: str, tmp_path: Path, vendor: TwilioMessages) -> Iterator[Callable[..., Client]]:
    """Starts a gateway that looks soon, with more settings; it ends with the test."""
    with ExitStack() as running:

        def begin(**more: str) -> Client:
            settings = {**twilio(vendor.url), **QUICK, **more}
            return running.enter_context(in_thread(variables(tmp_path, url, **settings)))

        yield begin


@pytest.fixture
def client(start: Callable[..., Client]) -> Client:
    """A gateway that looks soon."""
    return start()


def looks(vendor: TwilioMessages, count: int) -> None:
    """Waits until the vendor was asked so often, whatever it said."""
    eventually(lambda: len(vendor.asked) >= count, f"{count} looks")


def both_lost(client: Client, vendor: TwilioMessages, *, taken: bool) -> tuple[str, str]:
    """The same text twice to one person, and no answer to either; nobody can look before both
    are on their way. The vendor takes the second one only if `taken`."""
    vendor.lists = [Reply(status=500)] * 10_000
    first = lost(client, vendor)
    client.until(first, "unknown")
    vendor.deaf = not taken
    second = lost(client, vendor)
    client.until(second, "unknown")
    vendor.lists = []
    return first, second


def lost(client: Client, vendor: TwilioMessages, body: str = "hi", **more: Any) -> str:
    """Sends a message whose answer is lost; its id."""
    vendor.loses += 1
    return str(client.send(to=PERSON, body=body, **more)["id"])


def settled(client: Client, id_: str, by: str) -> dict[str, Any]:
    """Waits until the one attempt at a message is settled, by this."""

    def look() -> dict[str, Any] | None:
        (attempt,) = client.message(id_)["attempts"]
        return attempt if attempt["settled_by"] == by else None

    eventually(look, f"{id_} settled by {by}")
    return client.message(id_)


def callback(client: Client, request: Request, sid: str, word: str) -> None:
    """The vendor reports on a message, at the address that the message gave."""
    path = "/api" + request.form["StatusCallback"][0].partition("/api")[2].partition("#")[0]
    form = {"MessageSid": sid, "MessageStatus": word, "AccountSid": ACCOUNT, "To": PERSON}
    assert client.webhook(path, form).ok


def test_a_lost_answer_is_found_at_the_vendor_and_never_sent_again(
    client: Client, vendor: TwilioMessages
) -> None:
    # A public address, or no callback could come; here none comes all the same.
    id_ = lost(client, vendor)
    message = settled(client, id_, "look_up")
    assert message["status"] == "accepted"
    assert message["provider_message_id"] == vendor.messages[0]["sid"]
    assert message["error"] is None
    (attempt,) = message["attempts"]
    assert attempt["provider_message_id"] == vendor.messages[0]["sid"]
    assert attempt["error"] is None
    count = len(vendor.asked)
    callback(client, vendor.sent[0], vendor.messages[0]["sid"], "delivered")
    message = client.until(id_, "delivered")
    assert message["attempts"][0]["settled_by"] == "look_up"
    assert len(vendor.sent) == 1
    assert len(vendor.asked) == count


def test_what_became_of_it_is_taken_with_its_price(client: Client, vendor: TwilioMessages) -> None:
    def deliver(request: Request) -> None:
        for message in vendor.messages:
            message |= {"status": "delivered", "price": "-0.0079", "num_segments": "2"}

    vendor.witness = deliver
    message = settled(client, lost(client, vendor), "look_up")
    assert message["status"] == "delivered"
    assert message["delivered_at"] is not None
    assert message["segments"] == 2
    assert message["cost"] == {"amount": "0.0079", "currency": "USD"}
    assert len(vendor.sent) == 1


def test_one_that_failed_there_is_a_failure_here(client: Client, vendor: TwilioMessages) -> None:
    def fail(request: Request) -> None:
        for message in vendor.messages:
            message |= {"status": "undelivered", "error_code": 30005, "error_message": "Unknown"}

    vendor.witness = fail
    message = settled(client, lost(client, vendor), "look_up")
    assert message["status"] == "undelivered"
    assert message["error"]["code"] == "30005"


def test_the_same_text_twice_proves_nothing_until_one_is_known(
    client: Client, vendor: TwilioMessages
) -> None:
    first, second = both_lost(client, vendor, taken=True)
    looks(vendor, len(vendor.asked) + 4)
    assert [client.message(id_)["status"] for id_ in (first, second)] == ["unknown", "unknown"]
    callback(client, vendor.sent[0], vendor.messages[0]["sid"], "sent")
    assert settled(client, first, "callback")["status"] == "sent"
    message = settled(client, second, "look_up")
    assert message["provider_message_id"] == vendor.messages[1]["sid"]
    assert len(vendor.sent) == 2


def test_one_message_there_and_two_attempts_here_prove_nothing(
    client: Client, vendor: TwilioMessages
) -> None:
    first, second = both_lost(client, vendor, taken=False)
    looks(vendor, len(vendor.asked) + 4)
    assert len(vendor.messages) == 1
    assert [client.message(id_)["status"] for id_ in (first, second)] == ["unknown", "unknown"]


def test_two_at_the_vendor_for_one_attempt_prove_nothing(
    client: Client, vendor: TwilioMessages
) -> None:
    vendor.add(body="hi", date_created=when(vendor.now + 1 * SECONDS))  # another program's
    id_ = lost(client, vendor)
    looks(vendor, 2)
    assert client.message(id_)["status"] == "unknown"
    assert len(vendor.sent) == 1


@pytest.mark.parametrize("ahead", [0, 3600, -3600])
def test_an_older_one_is_not_taken_for_it_whatever_the_clocks_say(
    client: Client, vendor: TwilioMessages, ahead: int
) -> None:
    vendor.ahead = ahead * SECONDS
    for earlier in (15, 600, 7200):
        date = when(vendor.now - earlier * SECONDS)
        vendor.add(body="hi", date_created=date, date_sent=date)
    vendor.deaf = True
    id_ = lost(client, vendor)
    looks(vendor, 2)
    assert client.message(id_)["status"] == "unknown"
    vendor.deaf = False
    found = lost(client, vendor, "another")
    assert settled(client, found, "look_up")["status"] == "accepted"


def test_one_that_is_not_there_stays_unknown_and_is_never_sent_again(
    client: Client, vendor: TwilioMessages
) -> None:
    vendor.deaf = True
    id_ = lost(client, vendor)
    looks(vendor, 3)
    message = client.message(id_)
    assert message["status"] == "unknown"
    assert message["attempts"][0]["settled_by"] is None
    assert len(vendor.sent) == 1
    vendor.deaf = False
    other = client.send(to=PERSON, body="other")["id"]
    client.until(other, "accepted")
    assert [request.field("Body") for request in vendor.sent] == ["hi", "other"]


def test_one_that_is_another_message_of_ours_is_not_taken(
    client: Client, vendor: TwilioMessages
) -> None:
    sent = client.send(to=PERSON, body="hi")["id"]
    client.until(sent, "accepted")
    vendor.deaf = True
    id_ = lost(client, vendor)
    looks(vendor, 2)
    assert client.message(id_)["status"] == "unknown"
    assert client.message(sent)["provider_message_id"] == vendor.messages[0]["sid"]


def test_a_service_s_message_is_found_whatever_number_it_picked(
    start: Callable[..., Client], vendor: TwilioMessages
) -> None:
    client = start(TWILIO_MESSAGING_SERVICE_SID=SERVICE)
    vendor.witness = lambda request: [m.update({"from": "+15550003333"}) for m in vendor.messages]
    message = settled(client, lost(client, vendor), "look_up")
    assert message["provider_message_id"] == vendor.messages[0]["sid"]


def test_a_file_s_message_is_found(client: Client, vendor: TwilioMessages) -> None:
    media = [{"url": "https://files.example/cat.png", "content_type": "image/png"}]
    id_ = lost(client, vendor, "", type="image", media=media)
    assert settled(client, id_, "look_up")["status"] == "accepted"


@pytest.mark.parametrize("moment", ["before", "within"])
def test_a_callback_and_a_look_agree_whichever_is_first(
    client: Client, vendor: TwilioMessages, moment: str
) -> None:
    told: list[threading.Thread] = []

    def report(request: Request) -> None:
        if (request.method == "GET") == (moment == "within") and vendor.messages and not told:
            args = (client, vendor.sent[0], vendor.messages[0]["sid"], "delivered")
            told.append(threading.Thread(target=callback, args=args))
            told[0].start()
            if moment == "within":
                told[0].join()

    vendor.witness = report
    if moment == "before":
        vendor.witness = None
        id_ = lost(client, vendor)
        callback(client, eventually(lambda: vendor.sent)[0], vendor.messages[0]["sid"], "delivered")
    else:
        id_ = lost(client, vendor)
    message = client.until(id_, "delivered")
    assert message["attempts"][0]["settled_by"] == "callback"
    assert message["attempts"][0]["provider_message_id"] == vendor.messages[0]["sid"]
    for thread in told:
        thread.join()
    assert client.message(id_)["status"] == "delivered"
    assert len(vendor.sent) == 1


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_vendor_that_refuses_us_is_left_alone(
    start: Callable[..., Client],
    vendor: TwilioMessages,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = start(LOOKUP_AFTER="2s")
    vendor.lists = [Reply(status=status, body=b"{}")] * 100
    with caplog.at_level(logging.WARNING, "gateway.lookups"):
        ids = [lost(client, vendor, f"text {n}") for n in range(3)]
        for id_ in ids:
            client.until(id_, "unknown")
        eventually(lambda: "cannot be asked" in caplog.text, "a refusal")
    other = client.send(to=PERSON, body="other")["id"]
    client.until(other, "accepted")
    assert len(vendor.asked) <= 3  # those that were due at the same moment
    assert {client.message(id_)["status"] for id_ in ids} == {"unknown"}
    assert PERSON not in caplog.text


def test_nobody_asks_a_vendor_whose_breaker_is_open(
    start: Callable[..., Client], vendor: TwilioMessages, store: Store
) -> None:
    client = start(LOOKUP_AFTER="1s", BREAKER_OPEN_FOR="1h")
    vendor.plan.append(Fault.DROP_AFTER)
    vendor.plan.append(Reply(status=401, body=b'{"code": 20003, "status": 401}'))
    id_ = client.send(to=PERSON, body="hi")["id"]
    client.until(id_, "unknown")
    refused = client.send(to=SOMEBODY, body="hi")["id"]
    eventually(lambda: client.message(refused)["waiting_for"] == "breaker", "the open breaker")
    before = len(vendor.asked)
    due = "SELECT finished_at FROM attempts WHERE message_id = ?"
    eventually(lambda: store.value(due, id_) + 2_000 < future(0), "the time of several looks")
    assert len(vendor.asked) == before
    assert client.message(id_)["status"] == "unknown"
    store.do(HURRY, Hurry(providers=("twilio",)))
    assert settled(client, id_, "look_up")["status"] == "accepted"
    assert len([text for text in vendor.sent if text.field("To") == PERSON]) == 1


def test_where_it_is_switched_off_nobody_is_asked(
    start: Callable[..., Client], vendor: TwilioMessages
) -> None:
    client = start(LOOKUP_AFTER="0")
    id_ = lost(client, vendor)
    client.until(id_, "unknown")
    client.send(to="+15550100002", body="later")
    assert vendor.asked == []


def test_one_that_was_sent_again_is_found_out_about_too(
    start: Callable[..., Client], vendor: TwilioMessages
) -> None:
    client = start(LOOKUP_AFTER="2s")
    id_ = lost(client, vendor, on_unknown="resend")

    def look() -> list[Any] | None:
        attempts = client.message(id_)["attempts"]
        return attempts if [a["status"] for a in attempts] == ["accepted", "accepted"] else None

    attempts = eventually(look, "two copies")
    assert [a["settled_by"] for a in attempts] == ["look_up", None]
    assert [a["provider_message_id"] for a in attempts] == [m["sid"] for m in vendor.messages]
    assert len(vendor.sent) == 2  # as it asked for


def test_one_that_a_killed_process_was_sending_is_found_by_the_next(
    url: str, tmp_path: Path, vendor: TwilioMessages
) -> None:
    more = {**twilio(vendor.url), **QUICK, "LEASE_TIME": "4s", "SEND_TIMEOUT": "1s"}
    (tmp_path / "data").mkdir()
    process = Process(variables(tmp_path / "data", url, **more), free_port(), tmp_path / "log")
    process.start()
    try:
        vendor.plan.append(Fault.STALL)
        id_ = str(process.client.send(to=PERSON, body="hi")["id"])
        eventually(lambda: vendor.sent, "the request")
        process.kill()
        process.start()
        message = settled(process.client, id_, "look_up")
        assert message["status"] == "accepted"
        assert message["provider_message_id"] == vendor.messages[0]["sid"]
        assert len(vendor.sent) == 1
    finally:
        process.kill()


# The store's side: whom to ask about, and what a look proves.

NAMES = ("test",)
WANTED = Wanted(10, 60_000, 30_000, LATER, NAMES)
LOST = Ambiguous("lost", code="timeout")
AGO = "UPDATE attempts SET started_at = started_at - ?, finished_at = finished_at - ?"


def unknown(store: Store, **columns: Any) -> Attempt:
    """An attempt whose answer was lost a minute ago."""
    attempt = store.begun(**columns)
    store.settle(attempt, LOST)
    store.change(f"{AGO} WHERE id = ?", 60_000, 60_000, attempt.id)
    return attempt


def wanted(store: Store, **more: Any) -> list[str]:
    """Who is to be looked up now."""
    return sorted(row["id"] for row in store.do(WANT, replace(WANTED, **more))[0])


def started(store: Store, attempt: Attempt) -> int:
    """When an attempt began."""
    return int(store.value("SELECT started_at FROM attempts WHERE id = ?", attempt.id))


def found(store: Store, attempt: Attempt, id_: str = "SM1", after: int = 500) -> Found:
    """A message at the vendor that was created so long after an attempt began."""
    said = update(Status.SENT, provider_message_id=id_, recipient=SOMEBODY)
    told = delivery(f"look {id_}", said)
    told = replace(told, verified=replace(told.verified, verdict="look_up"))
    return Found(id_, started(store, attempt) + after, told)


def look(store: Store, attempt: Attempt, *there: Found, tries: int = 1) -> str:
    """Looks, and finds these."""
    looked = Looked(TENANT, attempt.id, tries, 90_000, there, -2000, 90_000)
    return store.do(SETTLE, looked)[0]


def test_an_unknown_one_is_due_half_a_minute_later_and_given_to_one_only(store: Store) -> None:
    fresh = store.begun()
    store.settle(fresh, LOST)
    old = unknown(store, to="+15551230002")
    assert wanted(store) == [old.id]
    assert wanted(store) == []  # leased
    store.change("UPDATE lookups SET due_at = 1")  # as time does
    assert wanted(store, limit=1, providers=("vendor",)) == []
    assert wanted(store, providers=()) == []
    assert wanted(store) == sorted([fresh.id, old.id])


def test_what_is_known_is_not_looked_up(store: Store) -> None:
    sending = store.begun()
    accepted = store.begun(to="+15551230002")
    store.settle(accepted, "SM9")
    store.change(AGO, DAY, DAY)
    assert wanted(store) == []
    store.settle(sending, LOST)
    store.change(AGO, DAY, DAY)
    assert wanted(store) == [sending.id]
    store.reports(update(Status.SENT, attempt_id=sending.id, provider_message_id="SM8"))
    store.change("UPDATE lookups SET due_at = 1")
    assert wanted(store) == []
    assert store.count("lookups") == 0


def test_a_look_settles_the_attempt_its_message_and_its_row(store: Store) -> None:
    attempt = unknown(store)
    wanted(store)
    assert look(store, attempt, found(store, attempt)) == "settled"
    message = store.message(attempt.due.message_id)
    assert (message["status"], message["provider_message_id"]) == ("sent", "SM1")
    (row,) = store.attempts(attempt.due.message_id)
    assert (row["settled_by"], row["error_code"]) == ("look_up", None)
    assert store.count("lookups") == 0
    (kept,) = store.rows("SELECT verdict, state FROM inbox")
    assert tuple(kept) == ("look_up", "parsed")
    (receipt,) = store.rows("SELECT source, verdict, attempt_id FROM receipts")
    assert tuple(receipt) == ("look_up", "applied", attempt.id)
    assert store.told(attempt.due.message_id)[-1] == "message.sent"
    assert look(store, attempt, found(store, attempt)) == "over"
    assert store.count("receipts") == 1


def test_one_that_is_found_before_its_next_copy_needs_none(store: Store) -> None:
    attempt = store.begun(on_unknown="resend")
    store.settle(attempt, LOST, retry_in=HOUR)
    store.change(AGO, 60_000, 60_000)
    assert store.queued(attempt.due.message_id) is not None
    assert wanted(store) == [attempt.id]
    assert look(store, attempt, found(store, attempt)) == "settled"
    assert store.queued(attempt.due.message_id) is None
    assert store.status(attempt.due.message_id) == "sent"


@pytest.mark.parametrize(
    ("after", "said"),
    [(-2000, "settled"), (-2001, "absent"), (90_000, "settled"), (90_001, "absent")],
)
def test_it_was_created_within_the_attempt_to_the_millisecond(
    store: Store, after: int, said: str
) -> None:
    attempt = unknown(store)
    wanted(store)
    assert look(store, attempt, found(store, attempt, after=after)) == said


def test_nothing_found_is_looked_for_again_later(store: Store) -> None:
    attempt = unknown(store)
    wanted(store)
    assert look(store, attempt, tries=3) == "absent"
    (row,) = store.rows("SELECT tries, due_at - created_at AS wait FROM lookups")
    assert row.tries == 3
    assert 89_000 < row.wait < 100_000
    assert store.status(attempt.due.message_id) == "unknown"
    assert store.queued(attempt.due.message_id) is None


def test_an_id_that_another_attempt_has_proves_nothing(store: Store) -> None:
    other = store.begun(to="+15551230002")
    store.settle(other, "SM1")
    attempt = unknown(store)
    wanted(store)
    assert look(store, attempt, found(store, attempt)) == "absent"
    two = found(store, attempt), found(store, attempt, "SM2")
    assert look(store, attempt, *two) == "settled"
    assert store.message(attempt.due.message_id)["provider_message_id"] == "SM2"


def rival(store: Store, state: str) -> Attempt:
    """Another attempt at the same text to the same person, at the same time."""
    other = store.begun()
    if state == "refused":
        from gateway.errors import Unreachable

        store.settle(other, Unreachable("away"))
    elif state != "sending":
        store.settle(other, LOST)
    store.change(f"{AGO} WHERE id = ?", 60_000, 60_000, other.id)
    if state == "given up":
        wanted(store)  # it was looked for
        store.sweep(receipt_timeout=1000)
    return other


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("sending", "ambiguous"),
        ("unknown", "ambiguous"),
        ("given up", "ambiguous"),
        ("refused", "settled"),
    ],
)
def test_another_attempt_that_says_the_same_may_be_what_was_found(
    store: Store, state: str, said: str
) -> None:
    attempt = unknown(store)
    rival(store, state)
    if state == "given up":
        assert store.status(attempt.due.message_id) == "failed"
        store.change("UPDATE attempts SET status = 'unknown' WHERE id = ?", attempt.id)
    wanted(store)
    assert look(store, attempt, found(store, attempt)) == said


@pytest.mark.parametrize("more", [{"to": "+15551230002"}, {"body": "hi "}, {"channel": "whatsapp"}])
def test_one_that_says_something_else_is_no_rival(store: Store, more: dict[str, Any]) -> None:
    unknown(store, **more)
    attempt = unknown(store)
    wanted(store)
    assert look(store, attempt, found(store, attempt)) == "settled"


def test_one_of_another_time_is_no_rival(store: Store) -> None:
    early = unknown(store)
    store.change(f"{AGO} WHERE id = ?", DAY, DAY, early.id)
    attempt = unknown(store)
    wanted(store)
    assert look(store, attempt, found(store, attempt)) == "settled"


def test_one_that_contradicts_the_attempt_changes_nothing(store: Store) -> None:
    attempt = unknown(store)
    wanted(store)
    there = found(store, attempt)
    said = update(Status.SENT, provider_message_id="SM1", recipient="+15559999999")
    there = replace(there, delivery=replace(there.delivery, events=(said,)))
    assert look(store, attempt, there) == "ambiguous"
    assert store.status(attempt.due.message_id) == "unknown"


def test_one_that_cannot_be_read_changes_nothing(store: Store) -> None:
    attempt = unknown(store)
    wanted(store)
    there = found(store, attempt)
    there = replace(there, delivery=replace(there.delivery, events=()))
    assert look(store, attempt, there) == "ambiguous"
    assert store.count("inbox") == 0


def test_two_looks_in_one_batch_end_each_by_itself(store: Store) -> None:
    one, two = unknown(store), unknown(store, to="+15551230002")
    wanted(store)
    said = update(Status.SENT, provider_message_id="SM2", recipient="+15551230002")
    other = found(store, two, "SM2")
    other = replace(other, delivery=replace(other.delivery, events=(said,)))
    looked = [
        Looked(TENANT, two.id, 1, 90_000, (other,), -2000, 90_000),
        Looked(TENANT, one.id, 1, 90_000, (), -2000, 90_000),
    ]
    assert store.do(SETTLE, *looked) == ["settled", "absent"]


def test_what_was_given_up_is_kept_for_a_while_and_then_forgotten(store: Store) -> None:
    attempt = unknown(store)
    assert wanted(store) == [attempt.id]
    store.sweep(receipt_timeout=1000)
    store.change("UPDATE lookups SET due_at = 1")
    assert wanted(store) == []
    assert store.count("lookups") == 1  # what is found may be this one
    store.change("UPDATE lookups SET due_at = 1")
    store.change(AGO, 15 * DAY, 15 * DAY)
    assert wanted(store) == []
    assert store.count("lookups") == 0


def test_the_steps_grow_from_half_a_minute_to_a_day() -> None:
    assert [step * 30 for step in STEPS] == [30, 120, 600, 3600, 6 * 3600, 24 * 3600]


def test_how_each_lost_answer_ended_is_told(store: Store) -> None:
    given_up = unknown(store)
    store.sweep(receipt_timeout=1000)
    (view,) = attempts_view(store.attempts(given_up.due.message_id))
    assert view["settled_by"] == "receipt_timeout"
    store.reports(update(Status.DELIVERED, attempt_id=given_up.id, provider_message_id="SM5"))
    (view,) = attempts_view(store.attempts(given_up.due.message_id))
    assert (view["settled_by"], view["status"]) == ("callback", "delivered")

    again = store.begun(on_unknown="resend", to="+15551230002")
    store.settle(again, LOST, retry_in=0)
    second = store.next_attempt(again.due.message_id)
    store.settle(second, "SM6")
    views = attempts_view(store.attempts(again.due.message_id))
    assert [view["settled_by"] for view in views] == ["resend", None]
