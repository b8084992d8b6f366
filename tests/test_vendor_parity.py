"""The same tests for every vendor that has a wire, from HTTP to the vendor and back: the setting
`MESSAGING_PROVIDER` changes who sends, and nothing that an application sees."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Status
from gateway.store.database import Database
from tests.databases import sqlite_copy
from tests.families import PERSON, STAND_INS, WAIT, Family, Post, Sent, at_hand
from tests.outbound_cases import WIRED, provider
from tests.running import Client, Stream, eventually, following, in_thread, variables
from tests.vendors import Fault

FAMILIES = [setup.name for setup in WIRED]
HEARD = [name for name in FAMILIES if STAND_INS[name]().hears]
REPORTING = [name for name in HEARD if STAND_INS[name]().reports]
SWITCHES = [
    (before, after)
    for before, after in permutations(HEARD, 2)
    if before.partition("-")[0] != after.partition("-")[0]
    and STAND_INS[before].channel == STAND_INS[after].channel
]
NUMBER = "+15550007777"  # ours, and no setting names it
LONG = "Grüße 👋🏽 aus Zürich\n“quoted” & <b>100 %</b> + 👩‍👩‍👧‍👦 " * 15 + "\tend. "
SOON = {"RETRY_CAP": "300ms"}


@dataclass
class Scene:
    """A gateway, its vendor and its database."""

    client: Client
    family: Family
    url: str

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What stands in the database."""
        database = Database(self.url)
        try:
            with database.read() as tx:
                return [dict(row._mapping) for row in tx.run(sql).fetchall()]
        finally:
            database.close()

    def post(self, post: Post) -> int:
        """Posts a webhook; the status of its answer."""
        return post.to(self.client).status_code

    @property
    def person(self) -> str:
        """Whom it writes to."""
        return self.family.people[0]

    @property
    def other(self) -> str:
        """Somebody else."""
        return self.family.people[1]

    def send(self, to: str = "", **more: Any) -> dict[str, Any]:
        """A message on the vendor's channel, also to somebody who has not written."""
        given = {"outside_window": "try", **self.family.asks, **more}
        return self.client.send(to=to or self.person, channel=self.family.channel, **given)

    def accepted(self, **more: Any) -> tuple[dict[str, Any], Sent]:
        """A message that the vendor has taken, and how it was asked."""
        sent = self.send(body=more.pop("body", "Your table is ready"), **more)
        return self.client.until(sent["id"], "accepted"), self.family.sent()[-1]

    def answer(self, thread: dict[str, Any], body: str) -> dict[str, Any]:
        """Answers in a conversation."""
        path = f"/api/conversations/{thread['id']}/messages"
        answer = self.client.call("POST", path, json={"body": body})
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def one(self, what: str, **query: Any) -> dict[str, Any]:
        """The only one there is."""
        (found,) = self.client.get(f"/api/{what}", **query)["items"]
        return dict(found)


def scene(name: str, url: str, data: Path, **more: str) -> Iterator[Scene]:
    with at_hand(name) as family:
        given = variables(data, url, **{**SOON, **family.variables(), **more})
        with in_thread(given) as client:
            yield Scene(client, family, url)


@pytest.fixture
def here(request: pytest.FixtureRequest, sqlite_url: str, tmp_path: Path) -> Iterator[Scene]:
    """On SQLite."""
    yield from scene(request.param, sqlite_url, tmp_path)


@pytest.fixture
def both(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> Iterator[Scene]:
    """On each database in turn."""
    yield from scene(request.param, url, tmp_path)


def every(fixture: str, names: list[str]) -> Any:
    return pytest.mark.parametrize(fixture, names, indirect=True)


def settled(stream: Stream, id_: str, last: str) -> list[str]:
    """The events about a message, up to one."""
    eventually(lambda: f"message.{last}" in stream.types(id_), last)
    return stream.types(id_)


# --- the table


def test_every_vendor_that_has_a_wire_is_here() -> None:
    assert set(FAMILIES) == set(STAND_INS)


@pytest.mark.anyio
async def test_each_reports_what_it_says_it_reports() -> None:
    for setup in WIRED:
        async with provider(setup, "http://127.0.0.1:9") as made:
            stand_in = STAND_INS[setup.name]()
            assert made.capabilities.reports_delivery == stand_in.reports
            assert made.name == stand_in.provider


# --- out


@every("both", FAMILIES)
def test_a_message_is_one_request_with_its_exact_text(both: Scene) -> None:
    message, asked = both.accepted(body="Grüße 👋 a&b=c+d%20")
    assert (asked.to, asked.body) == (both.person, "Grüße 👋 a&b=c+d%20")
    assert message["provider"] == both.family.provider
    assert message["provider_message_id"]
    (attempt,) = message["attempts"]
    assert (attempt["status"], attempt["error"]) == ("accepted", None)
    assert asked.attempt in (attempt["id"], None)
    assert len(both.family.sent()) == 1
    assert both.rows("SELECT * FROM queue") == []


@every("both", REPORTING)
def test_what_became_of_a_message_is_told_once_whatever_comes_twice_or_late(both: Scene) -> None:
    with following(both.client) as stream:
        message, asked = both.accepted()
        id_ = message["provider_message_id"]
        handed, arrived = (
            both.family.happened(status, asked, id_) for status in (Status.SENT, Status.DELIVERED)
        )
        for post in (handed, handed, arrived, arrived, handed):
            assert both.post(post) in (200, 204)
        told = settled(stream, message["id"], "delivered")
    assert [kind for kind in told if kind in ("message.sent", "message.delivered")] == [
        "message.sent",
        "message.delivered",
    ]
    shown = both.client.message(message["id"])
    assert shown["status"] == "delivered"
    assert shown["sent_at"] and shown["delivered_at"]
    assert len(both.rows("SELECT id FROM receipts WHERE verdict IN ('applied', 'kept')")) == 2


@every("here", REPORTING)
def test_a_late_sent_does_not_undo_delivered(here: Scene) -> None:
    message, asked = here.accepted()
    id_ = message["provider_message_id"]
    for status in (Status.DELIVERED, Status.SENT):
        assert here.post(here.family.happened(status, asked, id_)) in (200, 204)
    eventually(lambda: len(here.rows("SELECT id FROM receipts WHERE verdict = 'kept'")) == 1)
    assert here.client.message(message["id"])["status"] == "delivered"


@every("here", REPORTING)
def test_a_failure_is_told_with_the_vendors_own_word(here: Scene) -> None:
    message, asked = here.accepted()
    here.post(here.family.happened(Status.FAILED, asked, message["provider_message_id"]))
    shown = here.client.until(message["id"], "failed")
    assert shown["error"]["provider"] == here.family.provider
    assert len(here.family.sent()) == 1


@every("here", REPORTING)
@pytest.mark.parametrize("named", [True, False], ids=["by_our_attempt", "by_the_vendors_id"])
def test_a_callback_that_overtakes_the_answer_is_not_lost(here: Scene, named: bool) -> None:
    family, id_ = here.family, here.family.new_id()
    family.vendor.plan.append(family.taken(id_))
    assert here.post(family.said("hi", family.new_id())) in (200, 204)  # certificates are there
    answering = threading.Event()
    family.vendor.witness = lambda request: not answering.wait(10)
    sent = here.send(body="x")
    (asked,) = eventually(family.sent)
    assert here.post(family.happened(Status.DELIVERED, asked, id_, named=named)) in (200, 204)
    before = here.client.message(sent["id"])
    assert before["status"] == ("delivered" if named else "sending")
    answering.set()
    shown_as = family.known_as(id_)
    eventually(lambda: here.client.message(sent["id"])["provider_message_id"] == shown_as)
    shown = here.client.until(sent["id"], "delivered")
    (attempt,) = eventually(
        lambda: [a for a in here.client.message(sent["id"])["attempts"] if a["finished_at"]]
    )
    assert (attempt["provider_message_id"], shown["provider_message_id"]) == (id_, shown_as)
    assert here.rows("SELECT verdict FROM receipts") == [{"verdict": "applied"}]
    assert len(family.sent()) == 1


@every("both", FAMILIES)
def test_a_lost_answer_is_unknown_and_never_sent_again(both: Scene) -> None:
    family = both.family
    family.vendor.plan.append(Fault.DROP_AFTER)
    sent = both.send(body="once")
    both.client.until(sent["id"], "unknown")
    other = both.send(to=both.other, body="another")
    both.client.until(other["id"], "accepted")
    if family.reports and family.hears:
        asked = next(one for one in family.sent() if one.body == "once")
        id_ = family.new_id()
        assert both.post(family.happened(Status.DELIVERED, asked, id_)) in (200, 204)
        shown = both.client.until(sent["id"], "delivered")
        assert shown["provider_message_id"] == family.known_as(id_)
        assert len(shown["attempts"]) == 1
    assert sorted(one.body for one in family.sent()) == ["another", "once"]


@every("here", FAMILIES)
def test_a_vendor_that_throttles_is_asked_again_when_it_said(here: Scene) -> None:
    times: list[float] = []
    here.family.vendor.witness = lambda request: times.append(time.monotonic())
    here.family.vendor.plan.append(here.family.throttled)
    sent = here.send(body="x")
    shown = here.client.until(sent["id"], "accepted")
    first, second = shown["attempts"]
    assert (first["error"]["class"], second["status"]) == ("throttled", "accepted")
    assert len(here.family.sent()) == len(times) == 2
    assert times[1] - times[0] >= WAIT * 0.95


@every("here", FAMILIES)
def test_a_message_that_the_vendor_refuses_fails_and_is_not_repeated(here: Scene) -> None:
    here.family.vendor.plan.append(here.family.refused)
    sent = here.send(body="x")
    shown = here.client.until(sent["id"], "failed")
    assert shown["error"]["provider"] == here.family.provider
    (attempt,) = shown["attempts"]
    assert attempt["error"]["class"] == "rejected"
    other = here.send(to=here.other, body="y")
    here.client.until(other["id"], "accepted")
    assert [one.body for one in here.family.sent()] == ["x", "y"]


@every("here", FAMILIES)
def test_refused_credentials_are_seen_in_the_health_and_lose_nothing(here: Scene) -> None:
    here.family.vendor.always = here.family.unauthorised
    sent = here.send(body="x")

    def health() -> dict[str, Any]:
        told = here.client.get("/health/messaging")
        return next(
            p for p in told[f"{here.family.channel}_providers"] if p["name"] == here.family.provider
        )

    eventually(lambda: str(health()["last_error"]).startswith("account_refused"))
    assert health()["is_healthy"] is False
    assert here.client.message(sent["id"])["status"] in ("queued", "sending")


# --- in, and back


@every("both", HEARD)
def test_what_a_person_writes_is_a_conversation_and_answered_from_where_it_came(
    both: Scene,
) -> None:
    with following(both.client) as stream:
        id_ = both.family.new_id()
        assert both.post(both.family.said("Are you open?", id_, NUMBER)) in (200, 204)
        eventually(lambda: "message.received" in stream.types())
        event = next(e for e in stream.events if e["type"] == "message.received")
    message = both.one("messages", direction="inbound")
    assert event["data"]["message"]["id"] == message["id"]
    assert (message["from"], message["to"]) == (PERSON, NUMBER)
    assert (message["body"], message["provider_message_id"]) == ("Are you open?", id_)
    thread = both.one("conversations")
    assert (thread["address"], thread["our_address"]) == (PERSON, NUMBER)
    assert thread["unread_count"] == 1
    both.client.until(both.answer(thread, "Until ten")["id"], "accepted")
    (asked,) = both.family.sent()
    assert (asked.to, asked.sender, asked.body) == (PERSON, NUMBER, "Until ten")
    history = both.client.get(f"/api/conversations/{thread['id']}/messages")["items"]
    assert {m["direction"] for m in history} == {"inbound", "outbound"}


@every("both", HEARD)
def test_the_same_webhook_twice_changes_nothing(both: Scene) -> None:
    post = both.family.said("hello", both.family.new_id())
    assert both.post(post) in (200, 204)
    tables = ("inbox", "messages", "conversations", "events")
    before = [both.rows(f"SELECT * FROM {table}") for table in tables]
    for _ in range(2):
        assert both.post(post) in (200, 204)
    assert [both.rows(f"SELECT * FROM {table}") for table in tables] == before
    assert [len(rows) for rows in before[:3]] == [1, 1, 1]


@every("here", HEARD)
def test_what_is_not_signed_is_refused_and_not_stored(here: Scene) -> None:
    family = here.family
    good = family.said("hello", family.new_id())
    tampered = replace(good, body=good.body.replace(b"hello", b"hullo"))
    assert tampered != good
    assert here.post(family.forged(good)) == 403
    assert here.post(tampered) == 403
    assert here.post(family.bare(good)) == 401
    for table in ("inbox", "messages", "conversations", "receipts", "events"):
        assert here.rows(f"SELECT * FROM {table}") == []
    assert here.post(good) in (200, 204)
    assert len(here.rows("SELECT * FROM messages")) == 1


@every("here", HEARD)
def test_a_long_text_stays_as_it_is_both_ways(here: Scene) -> None:
    assert 500 < len(LONG) <= len(LONG.encode()) <= 1600
    _, asked = here.accepted(body=LONG)
    assert asked.body == LONG
    assert here.post(here.family.said(LONG, here.family.new_id())) in (200, 204)
    assert here.one("messages", direction="inbound")["body"] == LONG


# --- the switch


@pytest.mark.parametrize(("before", "after"), SWITCHES)
def test_another_vendor_goes_on_where_the_first_left_off(
    before: str, after: str, sqlite_file: Path, tmp_path: Path
) -> None:
    url = sqlite_copy(sqlite_file, tmp_path)
    with at_hand(before) as first, at_hand(after) as second:
        given = {**first.variables(), **second.variables(), "GATEWAY_ENV": "development"}
        both = variables(tmp_path, url, **given)
        with in_thread({**both, **chosen(first)}) as client:
            here = Scene(client, first, url)
            assert here.post(first.said("Are you open?", first.new_id(), NUMBER)) in (200, 204)
            thread = here.one("conversations")
            sent = here.answer(thread, "Yes")
            told = client.until(sent["id"], "accepted")
        with in_thread({**both, **chosen(second)}) as client:
            here = Scene(client, second, url)
            assert client.message(sent["id"]) == told
            assert here.post(second.said("Until when?", second.new_id(), NUMBER)) in (200, 204)
            assert here.one("conversations")["id"] == thread["id"]
            answer = here.answer(thread, "Ten")
            assert client.until(answer["id"], "accepted")["provider"] == second.provider
            history = client.get(f"/api/conversations/{thread['id']}/messages")["items"]
            assert {m["body"] for m in history} == {"Are you open?", "Yes", "Until when?", "Ten"}
            if first.reports:  # word of what the first one sent still comes
                (asked,) = first.sent()
                word = first.happened(Status.DELIVERED, asked, told["provider_message_id"])
                assert here.post(word) in (200, 204)
                assert client.until(sent["id"], "delivered")
        assert [one.body for one in first.sent()] == ["Yes"]
        assert [(one.body, one.to) for one in second.sent()] == [("Ten", PERSON)]
        assert {one.sender for one in (*first.sent(), *second.sent())} == {NUMBER}


def chosen(family: Family) -> dict[str, str]:
    """The one setting that is changed."""
    return {"MESSAGING_PROVIDER": family.variables()["MESSAGING_PROVIDER"]}
