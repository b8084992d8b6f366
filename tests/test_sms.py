"""The SMS system under the names that SMS clients know: the same use cases, and counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import to_ms
from gateway.store.rows import insert
from gateway.store.tables import messages
from gateway.store.tallies import tally
from tests.running import Client, in_thread, inbound_form, sid, variables
from tests.stored import Store
from tests.test_api import PERSON, fields
from tests.vendors import LoopbackVendor

OTHER = "+15550100002"
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


def post(client: Client, path: str, body: Any, key: str | None = None) -> Any:
    """A POST, with a key of its own if there is one."""
    headers = {"Idempotency-Key": key} if key else {}
    return client.call("POST", f"/api/sms/{path}", json=body, headers=headers)


def sent(client: Client) -> list[dict[str, Any]]:
    """Every message, the oldest first."""
    return list(reversed(client.get("/api/messages", limit="200")["items"]))


@pytest.mark.parametrize(
    "body",
    [
        {"to": PERSON, "body": "hi"},
        {"recipient_number": PERSON, "message": "hi"},
        {"phone_number": "+1 555 010 0001", "text": "hi", "channel": "sms"},
        {"recipient": PERSON, "content": "hi", "communication_type": "SMS"},
    ],
)
def test_an_sms_is_sent_under_whichever_names(idle: Client, body: dict[str, Any]) -> None:
    answer = post(idle, "send", body)
    assert answer.status_code == 202, answer.text
    message = answer.json()
    assert answer.headers["Location"] == f"/api/messages/{message['id']}"
    assert (message["channel"], message["to"], message["body"]) == ("sms", PERSON, "hi")
    assert idle.message(message["id"])["status"] == "queued"


def test_an_sms_may_have_all_that_a_message_has(idle: Client) -> None:
    body = {"to": PERSON, "body": "x", "from_number": "+15550009999", "priority": "high"}
    message = post(idle, "send", {**body, "metadata": {"order": 7}}).json()
    assert (message["from"], message["priority"]) == ("+15550009999", "high")
    assert message["metadata"] == {"order": 7}


def test_other_channels_and_what_cannot_be_sent_are_refused(idle: Client) -> None:
    assert fields(post(idle, "send", {"to": PERSON, "body": "x", "channel": "whatsapp"})) == [
        "channel"
    ]
    assert fields(post(idle, "send", {"phone_number": "nobody", "text": "x"})) == ["to"]
    assert fields(post(idle, "send", {"to": PERSON})) == ["body"]
    assert fields(post(idle, "send", {"to": PERSON, "body": "x", "colour": 1})) == ["colour"]
    assert sent(idle) == []


def test_an_sms_is_sent_once_for_each_key(idle: Client) -> None:
    body = {"to": PERSON, "body": "once"}
    first, again = post(idle, "send", body, "k"), post(idle, "send", body, "k")
    assert again.json() == first.json() and again.headers["Idempotency-Replayed"] == "true"
    assert fields(post(idle, "send", {**body, "body": "other"}, "k")) == ["Idempotency-Key"]
    assert len(sent(idle)) == 1


def test_each_of_many_is_accepted_or_refused_on_its_own(idle: Client) -> None:
    many = [
        {"to": PERSON, "body": "a"},
        {"to": "nobody", "body": "b"},
        "no object",
        {"phone_number": OTHER, "text": "c"},
        {"to": OTHER, "body": "d", "channel": "email"},
    ]
    answer = post(idle, "bulk", {"messages": many})
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (told["accepted"], told["rejected"]) == (2, 3)
    assert [item["index"] for item in told["items"]] == [0, 1, 2, 3, 4]
    assert [item["message"]["body"] for item in told["items"] if "message" in item] == ["a", "c"]
    named = [[e["field"] for e in item.get("errors", ())] for item in told["items"]]
    assert named == [[], ["to"], [""], [], ["channel"]]
    assert {m["body"] for m in sent(idle)} == {"a", "c"}


def test_one_text_goes_to_many_people(idle: Client) -> None:
    told = post(idle, "bulk", {"to": [PERSON, "x", OTHER], "message": "sale"}).json()
    assert (told["accepted"], told["rejected"]) == (2, 1)
    assert [(m["to"], m["body"]) for m in sent(idle)] == [(PERSON, "sale"), (OTHER, "sale")]
    assert post(idle, "bulk", {"recipients": [PERSON], "body": "x"}).json()["accepted"] == 1


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, ["messages"]),
        ({"messages": []}, ["messages"]),
        ({"messages": [{}], "to": [PERSON]}, ["messages"]),
        ({"messages": [{"to": PERSON}] * 1001}, ["messages"]),
        ({"to": PERSON, "body": "x"}, ["to"]),
        ({"messages": [{}], "body": "x"}, ["body"]),
    ],
)
def test_what_is_no_list_is_refused_whole(idle: Client, body: Any, named: list[str]) -> None:
    assert fields(post(idle, "bulk", body)) == named


def test_many_are_sent_once_for_a_key_of_all(idle: Client) -> None:
    many = {"messages": [{"to": PERSON, "body": f"m{n}"} for n in range(30)] + [{"to": "x"}]}
    first, again = post(idle, "bulk", many, "k"), post(idle, "bulk", many, "k")
    assert first.json()["accepted"] == 30
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert len(sent(idle)) == 30


def test_another_list_under_the_same_key_is_refused_whole(idle: Client) -> None:
    many = {"messages": [{"to": "x"}, {"to": PERSON, "body": "a"}]}  # the first is not stored
    assert post(idle, "bulk", many, "k").json()["accepted"] == 1
    other = {"messages": [{"to": PERSON, "body": "b"}]}
    assert fields(post(idle, "bulk", other, "k")) == ["Idempotency-Key"]
    assert post(idle, "send", {"to": PERSON, "body": "b"}, "k").status_code == 202  # its own route
    assert len(sent(idle)) == 2


def test_a_thousand_are_taken_at_once_and_in_order(idle: Client, store: Store) -> None:
    many = [{"to": f"+1555{n:07d}", "body": f"m{n}"} for n in range(2_000_000, 2_001_000)]
    told = post(idle, "bulk", {"messages": many}).json()
    assert told["accepted"] == 1000
    assert [item["message"]["body"] for item in told["items"]] == [one["body"] for one in many]
    assert store.count("messages") == store.count("queue") == 1000


def test_an_sms_is_found_by_its_id_and_by_the_providers(
    client: Client, vendor: LoopbackVendor
) -> None:
    id_ = post(client, "send", {"to": PERSON, "body": "x"}).json()["id"]
    shown = client.until(id_, "accepted")
    by_id = client.get(f"/api/sms/status/{id_}")
    assert by_id == shown and len(by_id["attempts"]) == 1
    assert client.get(f"/api/sms/status/{shown['provider_message_id']}") == by_id
    for unknown in ("msg_0", "SM" + "0" * 32, "%00", "x%20y"):
        assert client.call("GET", f"/api/sms/status/{unknown}").status_code == 404


def test_a_message_of_another_channel_is_no_sms(idle: Client) -> None:
    other = idle.send(to=PERSON, body="x", channel="whatsapp", outside_window="try")
    assert idle.call("GET", f"/api/sms/status/{other['id']}").status_code == 404


def test_the_health_of_sms_is_told_flat(client: Client) -> None:
    told = client.get("/api/sms/health")
    assert (told["status"], told["provider"]) == ("healthy", "twilio")
    assert told["providers"] == client.get("/health/messaging")["sms_providers"]


def written(store: Store, template: dict[str, Any], *rows: dict[str, Any]) -> None:
    """Messages of the past."""
    made = []
    for number, row in enumerate(rows):
        ms = to_ms(row.pop("at"))
        id_ = f"msg_{(ms << 80) + number:032x}"
        made.append({**template, "id": id_, "created_at": ms, "updated_at": ms, **row})
    with store.database.write() as tx:
        insert(tx, messages, made)


@pytest.fixture
def past(idle: Client, store: Store) -> Client:
    """A gateway with a history: two days, two providers, two currencies."""
    id_ = idle.send(to=PERSON, body="today")["id"]
    template = store.message(id_)
    day, hour = timedelta(days=1), timedelta(hours=1)
    out = {"status": "delivered", "segments": 2, "cost": "0.0075", "currency": "USD"}
    written(
        store,
        template,
        *({**out, "at": BEGIN + n * hour} for n in range(3)),
        {**out, "at": BEGIN + day, "status": "failed", "cost": "5", "cost_estimated": 1},
        {**out, "at": BEGIN + day + hour, "provider": "aws-sms", "cost": "0.1", "currency": "EUR"},
        {**out, "at": BEGIN + day + hour, "status": "accepted", "cost": "1E-7"},
        {"at": BEGIN + day, "direction": "inbound", "status": "received", "segments": 1},
        {**out, "at": BEGIN + day, "channel": "whatsapp"},
        {**out, "at": BEGIN + 2 * day},
    )
    return idle


TWO_DAYS = {"since": "2026-03-01", "until": "2026-03-03T00:00:00Z"}


def test_stats_count_by_status_direction_and_provider(past: Client) -> None:
    assert past.get("/api/sms/stats", **TWO_DAYS) == {
        "channel": "sms",
        "since": "2026-03-01T00:00:00.000Z",
        "until": "2026-03-03T00:00:00.000Z",
        "total": 7,
        "by_status": {"accepted": 1, "delivered": 4, "failed": 1, "received": 1},
        "by_direction": {"inbound": 1, "outbound": 6},
        "by_provider": {"aws-sms": 1, "twilio": 6},
        "success_rate": 0.8,
        "segments": 13,
        "cost": [{"amount": "0.1", "currency": "EUR"}, {"amount": "0.0225", "currency": "USD"}],
    }


def test_stats_are_of_the_last_day_unless_said_otherwise(past: Client) -> None:
    told = past.get("/api/sms/stats")
    assert (told["total"], told["by_status"]) == (1, {"queued": 1})
    assert told["success_rate"] is None and told["cost"] == []
    assert past.get("/api/sms/stats", since="2026-03-01T01:00:00+01:00")["total"] == 9


def test_analytics_tell_each_day_and_the_sum(past: Client) -> None:
    told = past.get("/api/sms/analytics", **TWO_DAYS)
    assert told["interval"] == "day"
    assert [item["start"] for item in told["items"]] == [
        "2026-03-01T00:00:00.000Z",
        "2026-03-02T00:00:00.000Z",
    ]
    assert [item["total"] for item in told["items"]] == [3, 4]
    assert [item["success_rate"] for item in told["items"]] == [1.0, 0.5]
    sums = past.get("/api/sms/stats", **TWO_DAYS)
    assert told["totals"] == {name: sums[name] for name in told["totals"]}
    assert past.get("/api/sms/analytics", **TWO_DAYS) == told  # remembered


def test_analytics_tell_each_hour_the_empty_ones_too(past: Client) -> None:
    told = past.get("/api/sms/analytics", interval="hour", **TWO_DAYS)
    totals = [item["total"] for item in told["items"]]
    assert totals == [1, 1, 1, *([0] * 21), 2, 2, *([0] * 22)]
    part = {"since": "2026-03-01T01:30:00Z", "until": "2026-03-02T00:30:00Z"}
    told = past.get("/api/sms/analytics", interval="hour", **part)
    assert told["totals"]["total"] == 3 and len(told["items"]) == 24


def test_a_long_time_is_counted_in_pieces_with_nothing_lost(past: Client) -> None:
    for since in ("2026-01-01", "2025-06-01", "2026-02-27T13:00:00Z"):
        told = past.get("/api/sms/stats", since=since, until="2026-03-20")
        assert told["total"] == 8, since


@pytest.mark.parametrize(
    ("path", "query", "named"),
    [
        ("stats", {"since": "yesterday"}, "since"),
        ("stats", {"since": "1700000000"}, "since"),
        ("stats", {"since": "2026-03-02", "until": "2026-03-01"}, "since"),
        ("stats", {"since": "2020-01-01"}, "since"),
        ("stats", {"until": "2026-02-30"}, "until"),
        ("analytics", {"interval": "minute"}, "interval"),
        ("analytics", {"interval": "hour", "since": "2026-01-01", "until": "2026-03-01"}, "since"),
    ],
)
def test_a_time_without_bounds_is_refused(
    idle: Client, path: str, query: dict[str, str], named: str
) -> None:
    answer = idle.call("GET", f"/api/sms/{path}", params=query)
    assert fields(answer) == [named]


def test_what_came_in_is_counted(sqlite_url: str, tmp_path: Path) -> None:
    with in_thread(variables(tmp_path, sqlite_url)) as client:
        assert client.webhook("/api/webhooks/sms", inbound_form(sid(1))).ok
        assert client.get("/api/sms/stats")["by_direction"] == {"inbound": 1}


def test_counting_reads_a_range_of_an_index(store: Store) -> None:
    asked: list[tuple[str, Any]] = []

    class Listening:
        def run(self, sql: str, values: Any) -> Any:
            asked.append((sql, values))
            return tx.run(sql, values)

    with store.database.read() as tx:
        assert tally(Listening(), "default", "sms", "day", 0, to_ms(BEGIN)) == []  # type: ignore[arg-type]
        if not store.database.sqlite:
            return
        ((sql, values),) = asked
        plan = " ".join(
            row.detail for row in tx.run(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
        )
    assert "id>? AND id<?)" in plan
