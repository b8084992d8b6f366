"""The HTTP API from outside: what an application sees, on both databases."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
from tests.vendors import LoopbackVendor, Reply

PERSON = "+15550100001"


def fields(answer: Any) -> list[str]:
    """The fields that a 422 names."""
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return [error["field"] for error in answer.json()["errors"]]


def test_a_message_is_accepted_with_its_place_and_sent(
    client: Client, vendor: LoopbackVendor
) -> None:
    answer = client.call("POST", "/api/messages", json={"to": "+1 (555) 010-0001", "body": "hi"})
    assert answer.status_code == 202
    message = answer.json()
    assert answer.headers["location"] == f"/api/messages/{message['id']}"
    assert (message["status"], message["to"], message["from"]) == ("queued", PERSON, OURS)
    assert (message["channel"], message["type"], message["segments"]) == ("sms", "text", 1)
    shown = client.until(message["id"], "accepted")
    assert shown["provider"] == "twilio" and shown["provider_message_id"].startswith("SM")
    (attempt,) = shown["attempts"]
    assert attempt["status"] == "accepted" and attempt["number"] == 1
    (request,) = vendor.requests
    assert attempt["id"] in request.form["StatusCallback"][0]


def test_the_older_names_of_the_chat_ui_are_accepted(idle: Client) -> None:
    message = idle.send(
        recipient_number=PERSON,
        content="hello",
        communication_type="whatsapp",
        session_id="s1",
        channel_id=7,
        sender="agent",
        outside_window="try",
        metadata=None,  # as programs write what they do not set
        media=None,
        priority=None,
        body=None,
    )
    assert (message["to"], message["body"], message["channel"]) == (PERSON, "hello", "whatsapp")
    assert message["metadata"] == {"session_id": "s1", "channel_id": 7, "sender": "agent"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"body": "x"}, "to"),
        ({"to": "12", "body": "x"}, "to"),
        ({"to": "call me +15550100001", "body": "x"}, "to"),
        ({"to": "whatsapp:+15550100001", "body": "x"}, "to"),
        ({"to": "5550100001", "body": "x"}, "to"),
        ({"to": PERSON}, "body"),
        ({"to": PERSON, "body": 5}, "body"),
        ({"to": PERSON, "body": "nul \x00"}, "body"),
        ({"to": PERSON, "body": "x", "from": "no such sender!"}, "from"),
        ({"to": PERSON, "body": "x", "channel": "pigeon"}, "channel"),
        ({"to": "a@example.com", "body": "x", "channel": "email"}, "channel"),
        ({"to": PERSON, "body": "x", "priority": "asap"}, "priority"),
        ({"to": PERSON, "body": "x", "send_at": "tomorrow"}, "send_at"),
        ({"to": PERSON, "body": "x", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"to": PERSON, "body": "x", "media": ["http://example.com/a.png"]}, "media.0.url"),
        ({"to": PERSON, "media": ["https://example.com/a"] * 11}, "media"),
        ({"to": PERSON, "template": {"name": "x", "variables": [1] * 101}}, "template.variables"),
        ({"to": PERSON, "body": "x", "channel": "whatsapp", "reply_to": "SM1"}, "reply_to"),
        ({"to": PERSON, "body": "x", "channel": "whatsapp", "type": "reaction"}, "type"),
        ({"to": PERSON, "body": "x", "type": "location"}, "type"),
        ({"to": PERSON, "body": "x", "subject": "only email has one"}, "channel"),
        ({"to": PERSON, "body": "x", "conversation_id": "conv_none"}, "conversation_id"),
        ({"to": PERSON, "body": "x", "colour": "red"}, "colour"),
        ({"to": PERSON, "body": "x", "metadata": {"a": {"b\x00": 1}}}, "metadata.a.'b\\x00'"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_field(
    idle_sqlite: Client, body: Any, field: str
) -> None:
    answer = idle_sqlite.call("POST", "/api/messages", json=body)
    assert field in fields(answer)
    assert idle_sqlite.get("/api/messages")["items"] == []


@pytest.fixture(scope="module")
def idle_sqlite(tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path) -> Iterator[Client]:
    """One gateway for the many small refusals."""
    from tests.databases import sqlite_copy

    folder = tmp_path_factory.mktemp("refusals")
    url = sqlite_copy(sqlite_file, folder)
    more = twilio("http://127.0.0.1:9")
    with in_thread(variables(folder, url, **more), working=False) as made:
        yield made


def test_bad_json_is_400_and_deep_json_422_and_a_half_surrogate_422(idle_sqlite: Client) -> None:
    def post(data: bytes, kind: str = "application/json") -> Any:
        return idle_sqlite.call("POST", "/api/messages", data=data, headers={"Content-Type": kind})

    assert post(b"{").status_code == 400
    assert post(b"[" * 100 + b"]" * 100).status_code == 422
    assert post(b"\xff\xfe").status_code == 400
    assert post(b"a=b", "application/x-www-form-urlencoded").status_code == 415
    for field, half in ((b"body", b'"\\ud83d"'), (b"metadata.a", b'{"a":NaN}')):
        name = field.partition(b".")[0]
        refused = post(b'{"to":"+15550100001","%b":%b}' % (name, half))
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == field.decode()
    assert post(b"[]").status_code == 422
    assert post(b"x" * (1024 * 1024 + 1)).status_code == 413


@pytest.mark.parametrize("coding", ["gzip", "br", "Deflate", "identity, gzip", "aws-chunked"])
@pytest.mark.parametrize("path", ["/api/messages", "/api/sms/send", "/api/sms/bulk"])
def test_a_compressed_body_is_415_and_told_how_to_come(
    idle_sqlite: Client, path: str, coding: str
) -> None:
    data = gzip.compress(b'{"to":"+15550100001","body":"hi"}')
    head = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = idle_sqlite.call("POST", path, data=data, headers=head)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "identity")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "without Content-Encoding" in answer.json()["detail"]


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
def test_a_body_whose_coding_is_none_is_read(idle_sqlite: Client, coding: str) -> None:
    head = {"Content-Type": "application/json", "Content-Encoding": coding}
    data = b'{"to":"+15550100001","body":"hi"}'
    answer = idle_sqlite.call("POST", "/api/messages?dry_run=true", data=data, headers=head)
    assert answer.status_code == 200


def test_who_asks_before_a_body_that_is_too_large_is_not_asked_for_it(idle_sqlite: Client) -> None:
    head = (
        f"POST /api/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        "Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n"
    )
    port = int(idle_sqlite.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
        wire.sendall(head.encode())
        assert wire.recv(65536).startswith(b"HTTP/1.1 413")


def test_text_of_every_kind_is_kept_exactly(idle: Client) -> None:
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
    text = f"line one\nline two\ttab {family} \u202eRTL e\u0301 é &=+%\x7f"
    message = idle.send(to=PERSON, body=text, metadata={"note": text, "n": 1.5, "deep": [{}]})
    shown = idle.message(message["id"])
    assert shown["body"] == text
    assert shown["metadata"] == {"note": text, "n": 1.5, "deep": [{}]}


def test_an_idempotency_key_replays_the_first_answer(idle: Client) -> None:
    body = {"to": PERSON, "body": "once"}
    first = idle.call("POST", "/api/messages", json=body, headers={"Idempotency-Key": "k1"})
    again = idle.call(
        "POST",
        "/api/messages",
        data=json.dumps({"body": "once", "to": PERSON}),
        headers={"Idempotency-Key": "k1", "Content-Type": "application/json"},
    )
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = idle.call(
        "POST", "/api/messages", json={**body, "body": "two"}, headers={"Idempotency-Key": "k1"}
    )
    assert fields(other) == ["Idempotency-Key"]
    assert len(idle.get("/api/messages")["items"]) == 1


def test_an_error_is_not_kept_under_its_key(idle: Client) -> None:
    bad = {"to": "12", "body": "x"}
    good = {"to": PERSON, "body": "x"}
    headers = {"Idempotency-Key": "k2"}
    assert idle.call("POST", "/api/messages", json=bad, headers=headers).status_code == 422
    assert idle.call("POST", "/api/messages", json=good, headers=headers).status_code == 202
    long = {"Idempotency-Key": "k" * 256}
    assert idle.call("POST", "/api/messages", json=good, headers=long).status_code == 422


def test_a_list_is_paged_without_gaps_and_filtered(idle: Client) -> None:
    sent = [idle.send(to=f"+155501000{n:02d}", body=f"m{n}")["id"] for n in range(7)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = idle.get("/api/messages", limit=3, **cursor)
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == sent[::-1]
    (one,) = idle.get("/api/messages", to="+15550100003")["items"]
    assert one["body"] == "m3"
    assert idle.get("/api/messages", status="delivered")["items"] == []
    assert fields(idle.call("GET", "/api/messages?cursor=nonsense")) == ["cursor"]
    assert fields(idle.call("GET", "/api/messages?limit=0")) == ["limit"]


def test_a_scheduled_message_waits_and_can_be_canceled(
    client: Client, vendor: LoopbackVendor
) -> None:
    later = client.send(
        to=PERSON, body="later", send_at="2026-12-31T09:00:00", timezone="Europe/Berlin"
    )
    assert later["status"] == "scheduled" and later["send_at"] == "2026-12-31T08:00:00.000Z"
    far = client.send(to=PERSON, body="farthest", send_at="2099-01-31T09:00:00Z")
    assert far["status"] == "scheduled"
    canceled = client.call("POST", f"/api/messages/{later['id']}/cancel")
    assert canceled.status_code == 200 and canceled.json()["status"] == "canceled"
    again = client.call("POST", f"/api/messages/{later['id']}/cancel")
    assert again.status_code == 200
    sent = client.send(to=PERSON, body="now")
    client.until(sent["id"], "accepted")
    too_late = client.call("POST", f"/api/messages/{sent['id']}/cancel")
    assert too_late.status_code == 409
    assert [r.field("Body") for r in vendor.requests] == ["now"]


def test_a_person_answers_and_is_answered_from_the_address_they_wrote_to(
    client: Client, vendor: LoopbackVendor
) -> None:
    client.send(to=PERSON, body="question")
    form = inbound_form(sid(7), "answer", To="+15550007777")
    assert client.webhook("/api/webhooks/sms", form).ok
    conversations = client.get("/api/conversations")["items"]
    asked = next(c for c in conversations if c["our_address"] == "+15550007777")
    assert (asked["unread_count"], asked["address"]) == (1, PERSON)
    reply = client.call(
        "POST", f"/api/conversations/{asked['id']}/messages", json={"body": "thanks"}
    )
    assert reply.status_code == 202 and reply.json()["from"] == "+15550007777"
    client.until(reply.json()["id"], "accepted")
    assert vendor.requests[-1].form["From"] == ["+15550007777"]
    listed = client.get(f"/api/conversations/{asked['id']}/messages")["items"]
    assert [m["body"] for m in listed] == ["thanks", "answer"]
    read = client.call("POST", f"/api/conversations/{asked['id']}/read")
    assert read.json()["unread_count"] == 0
    assert client.message(listed[1]["id"])["read_at"] is not None


def test_a_vendor_s_refusal_is_shown_with_its_code(client: Client, vendor: LoopbackVendor) -> None:
    body = {"code": 21211, "message": "The 'To' number is not valid", "status": 400}
    vendor.plan.append(Reply(status=400, body=json.dumps(body).encode()))
    sent = client.send(to=PERSON, body="x")
    failed = client.until(sent["id"], "failed")
    assert failed["error"]["code"] == "21211" and failed["error"]["provider"] == "twilio"
    assert failed["attempts"][0]["error"]["class"] == "rejected"
    assert vendor.count == 1


def test_throttling_is_tried_again_and_a_lost_answer_is_not(
    client: Client, vendor: LoopbackVendor
) -> None:
    throttle = json.dumps({"code": 20429, "message": "Too many", "status": 429}).encode()
    vendor.plan.append(Reply(status=429, body=throttle))
    sent = client.until(client.send(to=PERSON, body="busy")["id"], "accepted")
    assert [a["status"] for a in sent["attempts"]] == ["failed", "accepted"]
    vendor.plan.append(Reply(status=502, body=b"<html>bad gateway</html>"))
    lost = client.until(client.send(to=PERSON, body="lost")["id"], "unknown")
    assert len(lost["attempts"]) == 1 and lost["attempts"][0]["error"]["class"] == "ambiguous"
    attempt = lost["attempts"][0]["id"]
    path = f"/api/webhooks/twilio?attempt={attempt}"
    form = {"MessageSid": sid(99), "MessageStatus": "delivered", "To": PERSON, "From": OURS}
    assert client.webhook(path, form).ok
    settled = client.message(lost["id"])
    assert (settled["status"], settled["provider_message_id"]) == ("delivered", sid(99))
    assert settled["error"] is None


def test_callbacks_repeat_and_come_in_any_order(client: Client, vendor: LoopbackVendor) -> None:
    sent = client.until(client.send(to=PERSON, body="x")["id"], "accepted")
    attempt = sent["attempts"][0]["id"]
    with following(client, after=0) as stream:
        for status in ("delivered", "sent", "delivered", "queued", "read", "failed", "sent"):
            form = {
                "MessageSid": sent["provider_message_id"],
                "MessageStatus": status,
                "To": PERSON,
            }
            assert client.webhook(f"/api/webhooks/twilio?attempt={attempt}", form).ok
        client.until(sent["id"], "read")
        eventually(lambda: "message.read" in stream.types(sent["id"]), "the read event")
        assert stream.types(sent["id"])[-2:] == ["message.delivered", "message.read"]


def test_another_key_or_none_gets_401_and_no_secret_is_told(idle_sqlite: Client) -> None:
    for key in (None, "wrong", "gw_abc_def", KEY[:-1], KEY + "x", "gw__", "\u00fc"):
        answer = idle_sqlite.stranger().call(
            "GET",
            "/api/messages",
            headers={} if key is None else {"Authorization": f"Bearer {key}".encode()},
        )
        assert answer.status_code == 401, key
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"
        assert KEY not in answer.text


def test_open_routes_need_no_key_and_every_other_does(idle_sqlite: Client) -> None:
    stranger = idle_sqlite.stranger()
    for path in ("/health", "/health/ready", "/docs", "/openapi.json", "/"):
        assert stranger.call("GET", path).status_code == 200, path
    for path, operations in stranger.get("/openapi.json")["paths"].items():
        for method, operation in operations.items():
            if operation.get("security") == []:
                continue
            answer = stranger.call(method.upper(), path.replace("{id}", "x"))
            assert answer.status_code == 401, (method, path)


def test_unknown_paths_and_methods_are_problems(idle_sqlite: Client) -> None:
    missing = idle_sqlite.call("GET", "/api/nothing")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    wrong = idle_sqlite.call("DELETE", "/api/messages")
    assert wrong.status_code == 405
    assert {"GET", "POST"} <= set(wrong.headers["allow"].replace(" ", "").split(","))
    for path in ("/api/messages/msg_x", "/api/conversations/conv_x", "/api/media/med_x"):
        assert idle_sqlite.call("GET", path).status_code == 404


def test_health_tells_the_providers_in_order(client: Client, vendor: LoopbackVendor) -> None:
    vendor.always = Reply(status=401, body=b'{"code": 20003, "status": 401, "message": "secret"}')
    client.send(to=PERSON, body="x")

    def seen() -> bool:
        return bool(client.get("/health/messaging")["sms_providers"][0]["failure_count"])

    eventually(seen, "the refusal")
    told = client.get("/health/messaging")
    (provider,) = told["sms_providers"]
    assert (provider["name"], provider["priority"]) == ("twilio", "PRIMARY")
    assert provider["is_healthy"] is False and provider["failure_count"] > 0
    assert provider["last_error"] == "account_refused: 20003"
    assert told["overall_status"] == "unhealthy" and told["active_providers"]["sms"] is None
    assert told["email_providers"] == []


def test_a_slow_body_is_408(tmp_path: Path, sqlite_file: Path) -> None:
    from tests.databases import sqlite_copy

    environment = variables(tmp_path, sqlite_copy(sqlite_file, tmp_path), REQUEST_TIMEOUT="300ms")
    with in_thread(environment, working=False) as client:
        port = int(client.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as wire:
            wire.sendall(
                b"POST /api/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Authorization: Bearer " + KEY.encode() + b"\r\nContent-Length: 50\r\n\r\n{"
            )
            assert wire.recv(4096).startswith(b"HTTP/1.1 408")
