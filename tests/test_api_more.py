"""The HTTP API's edges from outside: repeated requests, odd input, older names, its bounds."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from gateway.errors import StoreUnavailable
from gateway.store import keys
from gateway.store.batcher import Batcher
from gateway.store.database import Database, Tx
from gateway.store.reader import Reader
from tests.databases import sqlite_copy
from tests.running import (
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

PERSON = "+15550100001"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path) -> Iterator[Client]:
    """One gateway for the many small questions."""
    folder = tmp_path_factory.mktemp("small")
    url = sqlite_copy(sqlite_file, folder)
    with in_thread(variables(folder, url, **twilio(NOBODY)), working=False) as made:
        yield made


def fields(answer: Any) -> list[str]:
    """The fields that a 422 names; never none."""
    assert answer.status_code == 422, (answer.status_code, answer.text)
    named = [error["field"] for error in answer.json()["errors"]]
    assert all(named)
    return named


def post(client: Client, key: str | None = None, path: str = "/api/messages", **body: Any) -> Any:
    """One message, however it is answered."""
    headers = {"Idempotency-Key": key} if key else {}
    return client.call("POST", path, json=body, headers=headers)


def answered(client: Client) -> str:
    """The path of the messages of a conversation that a person began."""
    assert client.webhook("/api/webhooks/sms", inbound_form(sid(1))).ok
    return f"/api/conversations/{client.get('/api/conversations')['items'][0]['id']}/messages"


# A repeated request


def test_what_was_accepted_is_replayed_when_it_would_be_refused_by_now(idle: Client) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    body = {"to": PERSON, "body": "once", "expires_at": soon}
    first = post(idle, "k1", **body)
    assert first.status_code == 202
    eventually(lambda: post(idle, **body).status_code == 422, "the end of its time")
    again = post(idle, "k1", **body)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert fields(post(idle, "k1", **{**body, "body": "another"})) == ["Idempotency-Key"]
    assert fields(post(idle, "k1", to="nobody")) == ["Idempotency-Key"]
    assert fields(post(idle, "k2", **body)) == ["expires_at"]


def test_a_repeated_request_outlives_a_change_of_the_provider(url: str, tmp_path: Path) -> None:
    body = {"body": "x", "type": "location", "content": {"latitude": 1, "longitude": 2}}
    with in_thread(variables(tmp_path, url), working=False) as console:
        path = answered(console)
        sent = post(console, "k1", to=PERSON, channel="sms", **body)
        reply = post(console, "k1", path, **body)
        assert (sent.status_code, reply.status_code) == (202, 202)
    with in_thread(variables(tmp_path, url, **twilio(NOBODY)), working=False) as client:
        assert fields(post(client, "k2", to=PERSON, channel="sms", **body)) == ["type"]
        again = post(client, "k1", to=PERSON, channel="sms", **body)
        assert (again.status_code, again.json()) == (202, sent.json())
        answer = post(client, "k1", path, **body)
        assert (answer.status_code, answer.json()) == (202, reply.json())
        assert fields(post(client, "k1", path, **body, priority="low")) == ["Idempotency-Key"]


def test_a_key_that_is_kept_no_longer_replays_nothing(url: str, tmp_path: Path) -> None:
    with in_thread(variables(tmp_path, url), working=False) as client:
        place = {"latitude": 1, "longitude": 2}
        body = {"to": PERSON, "body": "x", "type": "location", "content": place}
        assert post(client, "k1", **body).status_code == 202
    database = Database(url)
    with database.write() as tx:
        tx.run("UPDATE idempotency SET expires_at = 1")
    database.close()
    with in_thread(variables(tmp_path, url, **twilio(NOBODY)), working=False) as client:
        assert fields(post(client, "k1", **body)) == ["type"]


def test_a_key_does_not_hide_that_there_is_no_such_conversation(small: Client) -> None:
    answer = post(small, "k1", "/api/conversations/conv_none/messages", body="x")
    assert answer.status_code == 404


# Older names


def test_older_names_hold_in_an_answer_too(idle: Client) -> None:
    reply = post(
        idle, None, answered(idle), content="hi", sender="agent", session_id="s", channel_id=7
    )
    assert reply.status_code == 202, reply.text
    message = reply.json()
    assert (message["body"], message["from"], message["to"]) == ("hi", OURS, PERSON)
    assert message["metadata"] == {"sender": "agent", "session_id": "s", "channel_id": 7}


@pytest.mark.parametrize("name", ["SMS", "Sms", "sms", "WhatsApp"])
def test_an_older_name_of_a_channel_is_taken_in_any_case(small: Client, name: str) -> None:
    asked = {"communication_type": name, "outside_window": "try"}
    message = small.send(recipient_number=PERSON, content="hi", **asked)
    assert message["channel"] == name.lower()


def test_metadata_that_is_no_object_is_refused_beside_older_names(small: Client) -> None:
    for metadata in ("text", 5, [1]):
        body = {"to": PERSON, "body": "x", "metadata": metadata}
        assert fields(post(small, **body)) == ["metadata"]
        assert fields(post(small, **body, session_id="s")) == ["metadata"]
    unsaid = small.send(to=PERSON, body="x", metadata=None, session_id="s")
    assert unsaid["metadata"] == {"session_id": "s"}


def test_an_answer_has_no_channel_and_no_person_of_its_own(idle: Client) -> None:
    path = answered(idle)
    assert fields(post(idle, None, path, body="x", to=PERSON)) == ["to"]
    assert fields(post(idle, None, path, body="x", recipient_number=PERSON)) == ["recipient_number"]


# Odd input


@pytest.mark.parametrize(
    "path",
    [
        "/api/messages/{}",
        "/api/messages/{}/cancel",
        "/api/messages/{}/read",
        "/api/conversations/{}",
        "/api/conversations/{}/messages",
        "/api/conversations/{}/read",
        "/api/media/{}",
    ],
)
def test_what_looks_like_no_id_is_not_found(idle: Client, path: str) -> None:
    method = "POST" if path.endswith(("cancel", "read")) else "GET"
    for odd in ("msg_%00", "%00", "msg_1%00", "msg_%ed%a0%80", "msg_x'--", "m" * 2000, "é"):
        answer = idle.call(method, path.format(odd))
        assert answer.status_code == 404, (odd, answer.text)
    if path.endswith("{}/messages"):
        assert post(idle, "k", path.format("conv_%00"), body="x").status_code == 404


def test_an_odd_conversation_in_a_body_is_refused_by_field(idle: Client) -> None:
    for odd in ("x", "conv_é", "conv_1; --"):
        answer = post(idle, "k", to=PERSON, body="x", conversation_id=odd)
        assert fields(answer) == ["conversation_id"]


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/api/messages", ["msg_\x00"]),
        ("/api/messages", ["\x00"]),
        ("/api/messages", [5]),
        ("/api/messages", [None]),
        ("/api/messages", {"a": 1}),
        ("/api/conversations", [1, "conv_\x00"]),
        ("/api/conversations", [2**63, "conv_1"]),
        ("/api/conversations", [-1, "conv_1"]),
        ("/api/conversations", [True, "conv_1"]),
        ("/api/conversations", ["1", "conv_1"]),
    ],
)
def test_a_cursor_that_no_list_gave_is_refused(idle: Client, path: str, parts: Any) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()
    assert fields(idle.call("GET", path, params={"cursor": cursor})) == ["cursor"]


def test_filters_with_nul_are_refused_by_field(idle: Client) -> None:
    for name in ("status", "to", "from", "conversation_id", "provider_message_id"):
        assert fields(idle.call("GET", f"/api/messages?{name}=%00")) == [name]
    assert fields(idle.call("GET", "/api/conversations?address=a%00")) == ["address"]


@pytest.mark.parametrize(
    "limit", ["9" * 5000, "0" * 5000 + "1", "201", "-1", "1.0", "\u0663", "", "1e1"]
)
def test_a_limit_that_is_none_is_refused(small: Client, limit: str) -> None:
    answer = small.call("GET", "/api/messages", params={"limit": limit})
    assert fields(answer) == ["limit"]


def test_a_number_that_no_computer_counts_to_is_refused(small: Client) -> None:
    data = b'{"to":"+15550100001","body":"x","metadata":{"n":' + b"9" * 5000 + b"}}"
    answer = small.call(
        "POST", "/api/messages", data=data, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400


def test_a_body_that_is_no_object_is_told_and_names_no_field(small: Client) -> None:
    for data in ("[]", '"text"', "5", "null"):
        answer = small.call(
            "POST", "/api/messages", data=data, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 422
        assert "object" in answer.json()["detail"]
        assert "errors" not in answer.json()


def test_a_wrong_query_is_not_told_as_a_database_that_is_away(url: str) -> None:
    def read(query: Callable[[Tx], object]) -> None:
        async def once() -> None:
            reader = Reader(database)
            try:
                await reader.call(query)
            finally:
                reader.close()

        asyncio.run(once())

    database = Database(url)
    with pytest.raises(DBAPIError):
        read(lambda tx: tx.run("SELECT nothing FROM nowhere"))
    database.close()
    database = Database("postgresql+psycopg://nobody@127.0.0.1:9/none")
    with pytest.raises(StoreUnavailable):
        read(lambda tx: tx.run("SELECT 1"))
    database.close()


# Times and other fields


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"send_at": "2030-01-31"}, "send_at"),
        ({"send_at": "1770000000"}, "send_at"),
        ({"send_at": 1770000000}, "send_at"),
        ({"send_at": "2026-12-31T09:00:00"}, "send_at"),
        ({"send_at": "2026-12-31T09:00:00Z "}, "send_at"),
        ({"send_at": "2026-13-31T09:00:00Z"}, "send_at"),
        ({"send_at": "0001-01-01T00:00:00+23:59"}, "send_at"),
        ({"expires_at": "2030-01-31"}, "expires_at"),
        ({"expires_at": "1770000000.5"}, "expires_at"),
        ({"expires_at": "2030-01-31T09:00:00"}, "expires_at"),
        ({"timezone": "Nowhere/Nothing"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"timezone": "Europe", "send_at": "2026-12-31T09:00:00Z"}, "timezone"),
        ({"timezone": "", "send_at": "2026-12-31T09:00:00"}, "timezone"),
        ({"channel": "rcs"}, "channel"),
        ({"communication_type": "RCS"}, "channel"),
        ({"communication_type": 5}, "channel"),
    ],
)
def test_what_is_wrong_with_a_time_or_a_channel_is_told_by_its_field(
    small: Client, body: dict[str, Any], field: str
) -> None:
    assert fields(post(small, to=PERSON, body="x", **body)) == [field]


@pytest.mark.parametrize(
    "text",
    ["2026-12-31T09:00:00Z", "2026-12-31 10:00:00.000+01:00", "2026-12-31t09:00:00.000000z"],
)
def test_a_time_of_rfc_3339_is_taken(small: Client, text: str) -> None:
    sent = small.send(to=PERSON, body="x", send_at=text, timezone="Asia/Tokyo")
    assert sent["send_at"] == "2026-12-31T09:00:00.000Z"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"content": {"latitude": 1}}, "body"),
        ({"content": {"a": 1}, "type": "text"}, "body"),
        ({"type": "image", "body": "a picture, but where"}, "media"),
        ({"type": "text"}, "body"),
        ({"channel": "whatsapp", "media": ["https://example.com/a.png"] * 2}, "media"),
    ],
)
def test_what_no_provider_could_send_is_refused(
    small: Client, body: dict[str, Any], field: str
) -> None:
    assert field in fields(post(small, to=PERSON, **body))


def test_structured_content_is_taken_where_a_provider_sends_its_type(
    url: str, tmp_path: Path
) -> None:
    with in_thread(variables(tmp_path, url), working=False) as console:
        place = {"latitude": 52.5, "longitude": 13.4}
        sent = console.send(to=PERSON, channel="whatsapp", type="location", content=place)
        assert (sent["type"], sent["content"]) == ("location", place)
        two = ["https://example.com/a.png"] * 2
        assert fields(post(console, to=PERSON, channel="whatsapp", media=two)) == ["media"]


# Lists


def test_lists_find_an_address_however_it_is_written(idle: Client) -> None:
    sent = idle.send(to=PERSON, body="x")
    for written in ("+1 (555) 010-0001", "+1-555-010-0001", PERSON, " 15550100001"):
        (found,) = idle.get("/api/messages", to=written)["items"]
        assert found["id"] == sent["id"]
    assert idle.call("GET", f"/api/messages?to={PERSON}").json()["items"][0]["id"] == sent["id"]
    assert len(idle.get("/api/messages", **{"from": "+1 555 000 9999"})["items"]) == 1
    assert len(idle.get("/api/conversations", address="+1 555 010 0001")["items"]) == 1
    for other in ("+15550100002", "12345", "nobody", "a@EXAMPLE.com", "+", ""):
        assert idle.get("/api/messages", to=other)["items"] == []


# The stream, keys, health


def test_a_head_of_the_stream_ends_and_holds_no_place(url: str, tmp_path: Path) -> None:
    with in_thread(variables(tmp_path, url, EVENTS_MAX_CLIENTS="1")) as client:
        for _ in range(3):
            head = client.call("HEAD", "/api/events")
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"].startswith("text/event-stream")
        assert client.call("HEAD", "/api/events?after=x").status_code == 422
        assert client.stranger().call("HEAD", "/api/events").status_code == 401
        with following(client) as stream:
            eventually(lambda: stream.status == 200, "the only place")


def test_a_reset_has_the_parts_of_every_event(url: str, tmp_path: Path) -> None:
    with in_thread(variables(tmp_path, url)) as client, following(client, after=10_000) as stream:
        (reset,) = eventually(lambda: stream.resets, "the reset")
    assert list(reset) == ["id", "type", "created_at", "data"]
    told = datetime.fromisoformat(reset["created_at"])
    assert abs((datetime.now(UTC) - told).total_seconds()) < 60


def test_a_revoked_key_ends_within_moments(url: str, tmp_path: Path) -> None:
    database = Database(url)
    with database.write() as tx:
        key = keys.make(tx, tenant_id="default", name="app")
    with in_thread(variables(tmp_path, url), working=False) as client:
        client.key = key
        assert client.call("GET", "/api/messages").status_code == 200
        with database.write() as tx:
            assert keys.revoke(tx, "default", key.split("_")[1])
        started = time.monotonic()
        refused = 401
        eventually(lambda: client.call("GET", "/api/messages").status_code == refused, within=5)
        assert time.monotonic() - started < 5
    database.close()


def test_a_key_of_the_environment_may_come_with_space_around_it(url: str, tmp_path: Path) -> None:
    environment = variables(tmp_path, url, GATEWAY_API_KEY=f"  {KEY}\n")
    with in_thread(environment, working=False) as client:
        assert client.call("GET", "/api/messages").status_code == 200
        for odd in (KEY.encode() + b"\xfc", b"\xff" * 40, b"gw_a_\xc3\xbc"):
            headers = {"Authorization": b"Bearer " + odd}
            assert (
                client.stranger().call("GET", "/api/messages", headers=headers).status_code == 401
            )


def test_a_gateway_that_cannot_write_is_not_ready(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_thread(variables(tmp_path, url), working=False) as client:
        assert client.stranger().call("GET", "/health/ready").status_code == 200
        failing = property(lambda _: True, lambda _, __: None)
        monkeypatch.setattr(Batcher, "failing", failing, raising=False)
        answer = client.stranger().call("GET", "/health/ready")
        assert answer.status_code == 503
        assert "written" in answer.json()["detail"]
        assert client.stranger().call("GET", "/health").status_code == 200
        monkeypatch.undo()
        assert client.stranger().call("GET", "/health/ready").status_code == 200
