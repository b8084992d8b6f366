"""Opt-outs and rescheduling from outside: what the door answers, and what the decisions are."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.cells import guarded, unguarded
from gateway.domain import (
    Channel,
    Engagement,
    Event,
    InboundMessage,
    MessageType,
    Status,
    StatusUpdate,
)
from gateway.errors import Rejected
from gateway.opt_outs import Known, Source, State, Verdict, Wish, decide, same_person, wish_of
from gateway.store.database import Database
from providers import _aws_errors, _twilio_answers
from providers._aws_sns_tables import PUBLISH, TEXT
from tests.commands import Desk, Done
from tests.databases import sqlite_copy
from tests.running import (
    ACCOUNT,
    KEY,
    OURS,
    Client,
    eventually,
    following,
    in_thread,
    inbound_form,
    sid,
    twilio,
    variables,
)
from tests.vendors import LoopbackVendor, Reply
from webhooks._twilio_tables import REASONS

PERSON = "+15550100001"
OTHER = "+15550100002"
NOBODY = "http://127.0.0.1:9"
OUT, IN = State.OUT, State.IN

pytestmark = pytest.mark.anyio


# Words


def spoken(body: str, channel: Channel = Channel.SMS, **more: Any) -> InboundMessage:
    """What a person writes."""
    return InboundMessage(
        dedupe_key="m", channel=channel, from_address=PERSON, to_address=OURS, body=body, **more
    )


@pytest.mark.parametrize(
    ("body", "sms", "chat"),
    [
        ("STOP", OUT, OUT),
        (" stop \n", OUT, OUT),
        ("Stop.", OUT, OUT),
        ("“STOP”!", OUT, OUT),
        ("stop all", OUT, OUT),
        ("Opt-out", OUT, OUT),
        ("unsubscribe", OUT, OUT),
        ("END", OUT, None),
        ("quit", OUT, None),
        ("Cancel", OUT, None),
        ("revoke", OUT, None),
        ("START", IN, IN),
        (" start ", IN, IN),
        ("unstop", IN, IN),
        ("Start!", None, None),
        ("yes", IN, None),
        ("HELP", None, None),
        ("please stop", None, None),
        ("stop it", None, None),
        ("STOP" + "." * 40, None, None),
        ("", None, None),
    ],
)
def test_a_keyword_is_all_that_was_said(body: str, sms: State | None, chat: State | None) -> None:
    for channel, state in ((Channel.SMS, sms), (Channel.WHATSAPP, chat), (Channel.RCS, chat)):
        wish = wish_of(spoken(body, channel))
        assert (wish.state if wish else None) is state
    assert wish_of(spoken(body, Channel.EMAIL)) is None


@pytest.mark.parametrize(
    ("content", "body", "expected"),
    [
        ({"opt_out": "stop"}, "BASTA", Wish(OUT, "BASTA")),
        ({"opt_out": "stop", "opt_out_type": "STOP"}, "", Wish(OUT, "STOP")),
        ({"opt_out": "start"}, "yes", Wish(IN, "yes")),
        ({"opt_out": "help"}, "STOP", None),
        ({"opt_out_type": "PAUSE"}, "STOP", None),
        ({"opt_out": "stop"}, "x" * 500, Wish(OUT, "x" * 64)),
        ({"keyword": "STOP"}, "hello", None),
    ],
)
def test_what_the_adapter_says_stands_above_the_text(
    content: dict[str, str], body: str, expected: Wish | None
) -> None:
    assert wish_of(spoken(body, content=content)) == expected


def test_only_words_are_words() -> None:
    said: list[tuple[Event, State | None]] = [
        (spoken("Stop", type=MessageType.BUTTON), OUT),
        (spoken("Stop", type=MessageType.INTERACTIVE), OUT),
        (spoken("stop", type=MessageType.IMAGE), None),
        (spoken("stop", type=MessageType.REACTION), None),
        (Engagement(dedupe_key="e", kind="unsubscribed"), OUT),
        (Engagement(dedupe_key="e", kind="resubscribed"), IN),
        (Engagement(dedupe_key="e", kind="opened"), None),
        (StatusUpdate(dedupe_key="s", status=Status.FAILED, vendor_status="failed"), None),
    ]
    for event, state in said:
        wish = wish_of(event)
        assert (wish.state if wish else None) is state
    weak = wish_of(spoken("Yes"))
    assert weak is not None and weak.weak


A, R, O, _ = Verdict.APPLIED, Verdict.REPEATED, Verdict.OLDER, None  # noqa: E741
PERSONS, VENDORS, OPERATORS = Source.KEYWORD, Source.VENDOR, Source.API


@pytest.mark.parametrize(
    ("known", "state", "source", "at", "weak", "expected"),
    [
        (None, OUT, PERSONS, 50, False, A),
        (None, IN, PERSONS, 50, False, A),
        (None, IN, PERSONS, 50, True, _),
        ((OUT, PERSONS, 40), IN, PERSONS, 50, False, A),
        ((OUT, PERSONS, 40), IN, PERSONS, 50, True, A),
        ((OUT, VENDORS, 40), IN, PERSONS, 50, True, A),
        ((OUT, OPERATORS, 40), IN, PERSONS, 50, True, _),
        ((OUT, OPERATORS, 40), IN, PERSONS, 50, False, A),
        ((IN, PERSONS, 40), IN, PERSONS, 50, True, _),
        ((OUT, PERSONS, 40), OUT, PERSONS, 50, False, R),
        ((OUT, PERSONS, 40), OUT, OPERATORS, 50, False, R),
        ((OUT, PERSONS, 60), IN, PERSONS, 50, False, O),
        ((IN, PERSONS, 60), OUT, PERSONS, 50, False, O),
        ((IN, PERSONS, 60), OUT, VENDORS, 50, False, O),
        ((OUT, PERSONS, 60), OUT, PERSONS, 50, False, O),
        ((IN, PERSONS, 60), OUT, OPERATORS, 50, False, A),
        ((OUT, PERSONS, 60), IN, OPERATORS, 50, False, A),
        ((IN, PERSONS, 50), OUT, PERSONS, 50, False, A),  # within one batch: the later counts
        ((OUT, PERSONS, 50), IN, PERSONS, 50, False, A),
        ((IN, PERSONS, 900), OUT, PERSONS, 100, False, A),  # the clock was set back
        ((OUT, PERSONS, 900), IN, PERSONS, 100, False, O),
        ((IN, PERSONS, 900), OUT, PERSONS, 50, False, O),
    ],
)
def test_which_word_counts(
    known: tuple[State, Source, int] | None,
    state: State,
    source: Source,
    at: int,
    weak: bool,
    expected: Verdict | None,
) -> None:
    now = 100
    stands = Known(*known) if known else None
    assert decide(stands, state, source, at, now, weak=weak) is expected


def test_only_mail_is_compared_without_case() -> None:
    assert same_person("email", "Ada@Example.com") == "ada@example.com"
    assert same_person("whatsapp", "US.13Ab") == "US.13Ab"


def test_answers_and_callbacks_of_a_vendor_agree_about_who_opted_out() -> None:
    told = {code for code, reason in REASONS.items() if reason == "opted_out"}
    assert {str(code) for code in _twilio_answers.OPTED_OUT} == told
    for error in (
        *(_twilio_answers.error_of(Rejected, code, None) for code in _twilio_answers.OPTED_OUT),
        *(TEXT.error(Rejected, word) for word in _aws_errors.OPTED_OUT),
        PUBLISH.error(Rejected, "OptedOut"),
    ):
        assert (type(error), error.reason) == (Rejected, "opted_out")
    assert _twilio_answers.error_of(Rejected, 21211, None).reason == "rejected"
    assert PUBLISH.error(Rejected, "InvalidParameter").reason == "rejected"
    assert {*_aws_errors.OPTED_OUT} <= {*PUBLISH.codes, *TEXT.reasons}


# Through the door


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path) -> Iterator[Client]:
    """One gateway for the many small questions."""
    folder = tmp_path_factory.mktemp("small")
    url = sqlite_copy(sqlite_file, folder)
    with in_thread(variables(folder, url, **twilio(NOBODY)), working=False) as made:
        yield made


def says(client: Client, number: int, body: str, **more: str) -> None:
    """A person writes by Twilio."""
    assert client.webhook("/api/webhooks/sms", inbound_form(sid(number), body, **more)).ok


def fields(answer: Any) -> list[str]:
    """The fields that a 422 names."""
    assert answer.status_code == 422, (answer.status_code, answer.text)
    return [error["field"] for error in answer.json()["errors"]]


def place(address: str = PERSON, channel: str = "sms") -> str:
    """Where a person's opt-out is."""
    return f"/api/opt-outs/{channel}/{address}"


def test_stop_blocks_and_start_lifts(client: Client, vendor: LoopbackVendor) -> None:
    with following(client) as stream:
        eventually(lambda: stream.status == 200)
        says(client, 1, "Stop")
        answer = client.call("POST", "/api/messages", json={"to": PERSON, "body": "hi"})
        assert answer.status_code == 202
        message = answer.json()
        assert answer.headers["location"] == f"/api/messages/{message['id']}"
        assert (message["status"], message["error"]["code"]) == ("rejected", "opted_out")
        says(client, 2, "START")
        sent = client.send(to=PERSON, body="welcome back")
        client.until(sent["id"], "accepted")
        eventually(lambda: "message.accepted" in stream.types(sent["id"]))
    assert [request.form["Body"] for request in vendor.requests] == [["welcome back"]]
    assert stream.types(message["id"]) == ["message.rejected"]
    (rejected,) = [e for e in stream.events if e["type"] == "message.rejected"]
    assert rejected["data"]["message"]["error"]["code"] == "opted_out"
    said = [e for e in stream.events if e["type"].startswith("contact.")]
    assert [e["type"] for e in said] == ["contact.opted_out", "contact.opted_in"]
    assert sorted(said[0]) == ["created_at", "data", "id", "type"]
    assert said[0]["data"]["contact"] | {"inbox_id": "", "message_id": "", "since": ""} == {
        "channel": "sms",
        "address": PERSON,
        "state": "out",
        "source": "keyword",
        "detail": "Stop",
        "our_address": OURS,
        "message_id": "",
        "attempt_id": None,
        "inbox_id": "",
        "since": "",
        "created_at": said[0]["data"]["contact"]["created_at"],
        "updated_at": said[0]["data"]["contact"]["updated_at"],
    }
    assert said[0]["data"]["conversation"]["id"] == message["conversation_id"]
    assert client.get("/api/messages", status="rejected")["items"][0]["id"] == message["id"]


def test_an_answer_in_the_conversation_is_rejected_too(idle: Client) -> None:
    says(idle, 1, "quit")
    conversation = idle.get("/api/conversations")["items"][0]["id"]
    answer = idle.call("POST", f"/api/conversations/{conversation}/messages", json={"body": "ok"})
    assert (answer.status_code, answer.json()["status"]) == (202, "rejected")


def test_advanced_opt_out_and_its_own_words_count(idle: Client) -> None:
    says(idle, 1, "BASTA", OptOutType="STOP")
    assert idle.get(place())["detail"] == "BASTA"
    says(idle, 2, "INIZIA", OptOutType="START")
    assert idle.get(place())["state"] == "in"
    says(idle, 3, "HELP", OptOutType="HELP")
    says(idle, 4, "STOP", OptOutType="PAUSE")
    assert idle.get(place())["state"] == "in"


def test_channels_are_apart(idle: Client) -> None:
    chat = {"From": f"whatsapp:{PERSON}", "To": "whatsapp:+15550008888", "WaId": PERSON[1:]}
    says(idle, 1, "STOP", **chat)
    assert idle.send(to=PERSON, body="x", channel="whatsapp")["status"] == "rejected"
    assert idle.send(to=PERSON, body="x")["status"] == "queued"
    assert idle.call("GET", place()).status_code == 404


def test_a_refusal_of_the_vendor_blocks(client: Client, vendor: LoopbackVendor) -> None:
    body = json.dumps({"code": 21610, "message": "unsubscribed", "status": 400}).encode()
    vendor.plan.append(Reply(status=400, body=body))
    failed = client.until(client.send(to=PERSON, body="x")["id"], "failed")
    assert failed["attempts"][0]["error"]["class"] == "opted_out"
    assert client.send(to=PERSON, body="x")["status"] == "rejected"
    assert vendor.count == 1
    (found,) = client.get("/api/opt-outs")["items"]
    assert (found["source"], found["detail"], found["message_id"]) == (
        "vendor",
        "21610",
        failed["id"],
    )


def test_a_callback_of_the_vendor_blocks(client: Client) -> None:
    sent = client.until(client.send(to=PERSON, body="x")["id"], "accepted")
    attempt = sent["attempts"][0]
    form = {
        "MessageSid": attempt["provider_message_id"],
        "MessageStatus": "failed",
        "ErrorCode": "21610",
        "AccountSid": ACCOUNT,
        "From": OURS,
        "To": PERSON,
    }
    assert client.webhook(f"/api/webhooks/twilio?attempt={attempt['id']}", form).ok
    assert client.get(place())["source"] == "vendor"
    assert client.send(to=PERSON, body="x")["status"] == "rejected"


def test_a_block_by_the_api_is_kept_and_lifted(idle: Client) -> None:
    written = place("+1 (555) 010-0001")
    made = idle.call("PUT", written, json={"reason": "called the desk"})
    assert made.status_code == 200, made.text
    assert (made.json()["address"], made.json()["state"]) == (PERSON, "out")
    assert (made.json()["source"], made.json()["detail"]) == ("api", "called the desk")
    assert idle.call("PUT", place()).status_code == 200
    assert idle.get(place())["state"] == "out"
    assert idle.send(to=PERSON, body="x")["status"] == "rejected"
    lifted = idle.call("DELETE", place())
    assert (lifted.status_code, lifted.json()["state"]) == (200, "in")
    assert idle.call("DELETE", place()).status_code == 200
    assert idle.send(to=PERSON, body="x")["status"] == "queued"
    history = idle.get(place() + "/history", limit=2)
    assert [item["state"] for item in history["items"]] == ["in", "in"]
    more = idle.get(place() + "/history", cursor=history["next_cursor"])
    assert [(item["state"], item["verdict"]) for item in more["items"]] == [
        ("out", "repeated"),
        ("out", "applied"),
    ]
    assert more["next_cursor"] is None


def test_what_is_not_known_is_not_found(small: Client) -> None:
    for method, path in (
        ("GET", place("+15550109999")),
        ("DELETE", place("+15550109999")),
        ("GET", place("+15550109999") + "/history"),
        ("GET", place("%00")),
        ("DELETE", place("%ed%a0%80")),
        ("GET", place("x" * 300)),
        ("PUT", place(channel="post")),
        ("GET", place(channel="SMS")),
    ):
        assert small.call(method, path).status_code == 404, (method, path)


def test_what_is_wrong_with_a_block_is_told(small: Client) -> None:
    for path in (place("nobody"), place("%00"), place("ada@example.com"), place("5", "whatsapp")):
        assert fields(small.call("PUT", path)) == ["address"]
    assert fields(small.call("PUT", place(), json={"why": "x"})) == ["why"]
    assert fields(small.call("PUT", place(), json={"reason": "x" * 201})) == ["reason"]
    assert small.call("PUT", place(), data=b"x").status_code == 400
    assert small.call("PUT", place(), json=[]).status_code == 422
    assert small.call("POST", place()).status_code == 405
    assert small.stranger().call("GET", "/api/opt-outs").status_code == 401


def test_the_list_is_of_who_is_out_and_goes_on_page_by_page(idle: Client) -> None:
    for number in range(5):
        assert idle.call("PUT", place(f"+1555010000{number}")).ok
    assert idle.call("PUT", place("Ada@Example.com", "email")).ok
    idle.call("DELETE", place("+15550100003"))
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = idle.get("/api/opt-outs", limit=2, **cursor)
        seen += [item["address"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen[0] == "ada@example.com"
    assert sorted(seen[1:]) == [f"+1555010000{number}" for number in (0, 1, 2, 4)]
    listed = {
        "in": idle.get("/api/opt-outs", state="in")["items"],
        "all": idle.get("/api/opt-outs", state="all")["items"],
        "channel": idle.get("/api/opt-outs", channel="email")["items"],
        "address": idle.get("/api/opt-outs", address="+1 555 010 0001")["items"],
        "mail": idle.get("/api/opt-outs", address="ADA@example.com")["items"],
    }
    counts = {"in": 1, "all": 6, "channel": 1, "address": 1, "mail": 1}
    assert {name: len(items) for name, items in listed.items()} == counts
    assert fields(idle.call("GET", "/api/opt-outs", params={"state": "gone"})) == ["state"]
    for odd in ('[1, "sms"]', '["1", "sms", "x"]', '[-1, "sms", "x"]', '[1, 2, "x"]', "[]"):
        text = base64.urlsafe_b64encode(odd.encode()).decode()
        assert fields(idle.call("GET", "/api/opt-outs", params={"cursor": text})) == ["cursor"]


def test_another_tenant_sees_and_changes_nothing(url: str, tmp_path: Path) -> None:
    from gateway.store import keys

    database = Database(url)
    with database.write() as tx:
        key = keys.make(tx, tenant_id="another", name="app")
    database.close()
    with in_thread(variables(tmp_path, url, **twilio(NOBODY)), working=False) as client:
        assert client.call("PUT", place()).ok
        other = Client(client.url, key)
        assert other.get("/api/opt-outs")["items"] == []
        for method in ("GET", "DELETE"):
            assert other.call(method, place()).status_code == 404
        assert client.get(place())["state"] == "out"


# Another time for a message


def soon(**more: float) -> datetime:
    """A moment from now."""
    return datetime.now(UTC) + timedelta(**more)


def moved(client: Client, id_: str, **body: Any) -> Any:
    """Asks for another time."""
    body = {n: v.isoformat() if isinstance(v, datetime) else v for n, v in body.items()}
    return client.call("POST", f"/api/messages/{id_}/reschedule", json=body)


def test_what_waits_for_its_time_gets_another(idle: Client) -> None:
    sent = idle.send(to=PERSON, body="x", send_at=soon(hours=1).isoformat())
    local = soon(days=30).replace(microsecond=0, tzinfo=None)
    answer = moved(idle, sent["id"], send_at=local.isoformat(), timezone="Asia/Kathmandu")
    assert answer.status_code == 200, answer.text
    message = answer.json()
    wanted = local - timedelta(hours=5, minutes=45)
    assert (message["status"], message["send_at"]) == ("scheduled", f"{wanted.isoformat()}.000Z")
    assert message["expires_at"] == f"{(wanted + timedelta(days=1)).isoformat()}.000Z"
    assert idle.message(sent["id"])["send_at"] == message["send_at"]


def test_what_is_queued_can_be_put_off_and_is_sent_then(
    url: str, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    with in_thread(variables(tmp_path, url, **twilio(vendor.url)), working=False) as idle:
        put_off = idle.send(to=PERSON, body="later")["id"]
        at_once = idle.send(to=OTHER, body="now", send_at=soon(hours=5).isoformat())["id"]
        assert moved(idle, put_off, send_at=soon(seconds=2)).json()["status"] == "scheduled"
        assert moved(idle, at_once, send_at=soon(hours=-1)).json()["status"] == "queued"
    with in_thread(variables(tmp_path, url, **twilio(vendor.url))) as client:
        client.until(at_once, "accepted")
        later = client.until(put_off, "accepted")
        started = datetime.fromisoformat(later["attempts"][0]["started_at"])
        assert started >= datetime.fromisoformat(later["send_at"])
    assert [request.form["Body"][0] for request in vendor.requests] == ["now", "later"]


def test_followers_hear_of_the_other_time(idle: Client) -> None:
    with following(idle) as stream:
        eventually(lambda: stream.status == 200)
        sent = idle.send(to=PERSON, body="x", send_at=soon(hours=1).isoformat())
        moved(idle, sent["id"], send_at=soon(hours=2))
        moved(idle, sent["id"], send_at=soon(hours=-2))
        kinds = ["message.scheduled", "message.scheduled", "message.queued"]
        eventually(lambda: len(stream.types(sent["id"])) == len(kinds), "the news of it")
        assert stream.types(sent["id"]) == kinds


def test_it_stays_of_use_for_as_long_unless_an_end_is_named(idle: Client) -> None:
    first, end = soon(hours=1), soon(hours=1, minutes=10)
    sent = idle.send(to=PERSON, body="x", send_at=first.isoformat(), expires_at=end.isoformat())
    later = moved(idle, sent["id"], send_at=first + timedelta(days=3)).json()
    length = datetime.fromisoformat(later["expires_at"]) - datetime.fromisoformat(later["send_at"])
    assert abs(length - timedelta(minutes=10)) < timedelta(milliseconds=2)
    named = moved(idle, sent["id"], send_at=first, expires_at=first + timedelta(minutes=1)).json()
    ends = datetime.fromisoformat(named["expires_at"])
    assert abs(ends - first - timedelta(minutes=1)) < timedelta(milliseconds=2)


def test_what_is_begun_or_ended_has_no_other_time(client: Client, vendor: LoopbackVendor) -> None:
    sent = client.until(client.send(to=PERSON, body="x")["id"], "accepted")
    canceled = client.send(to=PERSON, body="x", send_at=soon(hours=1).isoformat())
    assert client.call("POST", f"/api/messages/{canceled['id']}/cancel").ok
    says(client, 1, "hello", From=OTHER)
    heard = client.get("/api/messages", direction="inbound")["items"][0]
    for id_, status in ((sent["id"], "accepted"), (canceled["id"], "canceled")):
        answer = moved(client, id_, send_at=soon(hours=1))
        assert (answer.status_code, status in answer.json()["detail"]) == (409, True)
    assert moved(client, heard["id"], send_at=soon(hours=1)).status_code == 409
    assert moved(client, "msg_none", send_at=soon(hours=1)).status_code == 404
    assert vendor.count == 1


def test_what_waits_for_its_next_try_has_no_other_time(
    client: Client, vendor: LoopbackVendor
) -> None:
    vendor.always = Reply(status=429, headers={"Retry-After": "3000"})
    sent = client.send(to=PERSON, body="x")
    eventually(lambda: client.message(sent["id"])["attempts"])
    client.until(sent["id"], "queued")
    assert moved(client, sent["id"], send_at=soon(hours=1)).status_code == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "send_at"),
        ({"send_at": None}, "send_at"),
        ({"send_at": "tomorrow"}, "send_at"),
        ({"send_at": "2026-12-31T09:00:00"}, "send_at"),
        ({"send_at": "2199-12-31T09:00:00Z"}, "send_at"),
        ({"send_at": "2026-12-31T09:00:00Z", "timezone": "Nowhere/Nothing"}, "timezone"),
        ({"send_at": "2026-12-31T09:00:00Z", "expires_at": "2026-12-31T09:00:00Z"}, "expires_at"),
        ({"send_at": "2020-12-31T09:00:00Z", "expires_at": "2021-12-31T09:00:00Z"}, "expires_at"),
        ({"send_at": "2026-12-31T09:00:00Z", "body": "other"}, "body"),
    ],
)
def test_what_is_wrong_with_another_time_is_told(
    small: Client, body: dict[str, Any], field: str
) -> None:
    sent = small.send(to=OTHER, body="x")
    assert fields(moved(small, sent["id"], **body)) == [field]


@pytest.mark.parametrize(
    ("local", "zone", "utc"),
    [
        ("03-28T02:30:00", "Europe/Berlin", "03-28T01:30:00"),
        ("03-28T03:30:00", "Europe/Berlin", "03-28T01:30:00"),
        ("10-31T01:30:00", "Europe/Berlin", "10-30T23:30:00"),
        ("10-31T02:30:00", "Europe/Berlin", "10-31T00:30:00"),
        ("10-31T02:30:00+01:00", "Europe/Berlin", "10-31T01:30:00"),
        ("03-14T02:15:00", "America/New_York", "03-14T07:15:00"),
        ("07-01T12:00:00", "Asia/Kathmandu", "07-01T06:15:00"),
    ],
)
def test_a_time_that_a_clock_skips_or_shows_twice_is_read_as_calendars_do(
    small: Client, local: str, zone: str, utc: str
) -> None:
    """RFC 5545: skipped, it is as late as the clock was put forward; twice, it is the first."""
    year = 2027
    sent = small.send(to=PERSON, body="x", send_at=f"{year}-{local}", timezone=zone)
    assert sent["send_at"] == f"{year}-{utc}.000Z"


# The command line


@pytest.fixture
def desk(url: str, tmp_path: Path) -> Desk:
    """A folder to work in, with a database."""
    made = {"DATABASE_URL": url, "GATEWAY_ENV": "production", "MESSAGING_PROVIDER": "console"}
    return Desk(tmp_path, {**made, "GATEWAY_API_KEY": KEY, "DATA_DIR": str(tmp_path / "data")})


def ran(desk: Desk, *arguments: str) -> Done:
    """A command that must work."""
    done = desk.run("opt-outs", *arguments)
    assert done.code == 0, done.err
    return done


def test_the_commands_block_list_and_let_in(desk: Desk) -> None:
    assert ran(desk, "list").out == "Nobody.\n"
    assert PERSON in ran(desk, "add", "+1 555 010 0001", "--reason", "called\x1b[2J").out
    listed = ran(desk, "list").out
    assert PERSON in listed and "cli" in listed and "\x1b" not in listed
    assert "Nobody" in ran(desk, "list", "--channel", "whatsapp").out
    ran(desk, "remove", PERSON)
    assert "Nobody" in ran(desk, "list").out
    assert PERSON in ran(desk, "list", "--state", "in").out
    history = ran(desk, "history", PERSON).out.splitlines()
    assert [line.split()[1] for line in history] == ["STATE", "in", "out"]
    assert desk.run("opt-outs", "remove", OTHER).code == 1
    assert desk.run("opt-outs", "history", OTHER).code == 1
    assert desk.run("opt-outs", "add", "nobody").code == 2


def test_a_list_goes_out_as_csv_and_comes_in_again(desk: Desk, tmp_path: Path) -> None:
    ran(desk, "add", PERSON, "--reason", "=HYPERLINK(1)")
    ran(desk, "add", "+ada@example.com", "--channel", "email")
    ran(desk, "add", OTHER)
    ran(desk, "remove", OTHER)
    file = tmp_path / "people.csv"
    ran(desk, "export", "--state", "all", "--output", str(file))
    assert desk.run("opt-outs", "export", "--output", str(file)).code == 1
    rows = {row["address"]: row for row in csv.DictReader(io.StringIO(file.read_text()))}
    assert sorted(rows) == ["'+ada@example.com", PERSON, OTHER]
    assert (rows[PERSON]["detail"], rows[OTHER]["state"]) == ("'=HYPERLINK(1)", "in")
    assert PERSON in ran(desk, "export").out and OTHER not in ran(desk, "export").out
    ran(desk, "remove", PERSON)
    ran(desk, "remove", "+ada@example.com", "--channel", "email")
    assert ran(desk, "import", str(file)).out == "2 blocked.\n"
    again = list(csv.DictReader(io.StringIO(ran(desk, "export").out)))
    assert sorted(row["address"] for row in again) == ["'+ada@example.com", PERSON]
    assert {row["detail"] for row in again} == {"'=HYPERLINK(1)", ""}


def test_an_import_blocks_what_it_can_and_names_the_rest(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    lines = ["Address,Channel,note", *(f"+1555{n:07d},sms,x" for n in range(600))]
    lines[3:3] = ["nobody,sms,x", "+15550100001,post,x", ",,"]
    file.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    done = desk.run("opt-outs", "import", str(file), "--reason", "old system")
    assert (done.code, done.out) == (1, "600 blocked.\n")
    assert [line.split(":")[1] for line in done.err.splitlines()[:3]] == [
        " line 4",
        " line 5",
        " line 6",
    ]
    assert len(ran(desk, "export").out.splitlines()) == 601
    file.write_text("+15550100001\n")
    done = desk.run("opt-outs", "import", str(file))
    assert (done.code, "address" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        (PERSON, PERSON),
        ("=1+1", "'=1+1"),
        ("+1 555", "'+1 555"),
        ("-5", "'-5"),
        ("@x", "'@x"),
        ("\tx", "'\tx"),
        ("\nx", "'\nx"),
        (" =1", "' =1"),
        ("\n=1", "'\n=1"),
        ("\x0b\u00a0\ufeff-1", "'\x0b\u00a0\ufeff-1"),
        (f" {PERSON}", f"' {PERSON}"),
        ("＝1", "'＝1"),
        (" x", " x"),
        ("x\n=1", "x\n=1"),
        ("'x", "'x"),
        ("x=1", "x=1"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(cell: str, written: str) -> None:
    assert guarded(cell) == written
    assert unguarded(written) == cell
