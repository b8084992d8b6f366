"""The event stream over HTTP: complete, resumable, bounded, and ended when it should be."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store import keys
from gateway.store.database import Database
from tests.running import Client, eventually, following, in_thread, inbound_form, sid, variables


@pytest.fixture
def client(url: str, tmp_path: Path) -> Iterator[Client]:
    """A gateway whose messages are printed."""
    with in_thread(variables(tmp_path, url)) as made:
        yield made


def numbers(events: list[dict[str, object]]) -> list[object]:
    """The numbers of events."""
    return [event["id"] for event in events]


def test_a_stream_tells_each_step_of_a_message_in_order(client: Client) -> None:
    with following(client) as stream:
        sent = client.send(to="+15550100001", body="x")
        eventually(lambda: "message.delivered" in stream.types(sent["id"]), "the delivery")
    steps = ["queued", "sending", "accepted", "sent", "delivered"]
    assert stream.types(sent["id"]) == [f"message.{step}" for step in steps]
    told = [e["data"]["message"]["status"] for e in stream.events if "message" in e["data"]]
    assert told == steps
    assert stream.events[0]["type"] == "conversation.created"


def test_a_stream_resumes_with_nothing_lost_and_nothing_twice(client: Client) -> None:
    with following(client) as first:
        sent = client.send(to="+15550100001", body="one")
        eventually(lambda: "message.delivered" in first.types(sent["id"]), "the delivery")
    last = first.events[-1]["id"]
    for n in range(30):
        assert client.webhook("/api/webhooks/sms", inbound_form(sid(n), f"m{n}")).ok
    with following(client, after=last) as second:
        eventually(lambda: second.types().count("message.received") == 30, "all that was missed")
        assert client.webhook("/api/webhooks/sms", inbound_form(sid(99), "live")).ok
        eventually(lambda: second.types().count("message.received") == 31, "what is live")
    ids = numbers(first.events) + numbers(second.events)
    assert ids == sorted(set(ids))
    bodies = [e["data"]["message"]["body"] for e in second.events if "message" in e["data"]]
    assert bodies == [f"m{n}" for n in range(30)] + ["live"]


def test_a_number_from_before_a_restore_gets_a_reset(client: Client) -> None:
    client.until(client.send(to="+15550100001", body="x")["id"], "delivered")
    with following(client, after=10_000) as stream:
        eventually(lambda: stream.resets, "the reset")
        sent = client.send(to="+15550100001", body="y")
        eventually(lambda: "message.delivered" in stream.types(sent["id"]), "what follows")
    assert stream.resets[0]["id"] < 10_000


@pytest.mark.parametrize("after", ["-1", "x", "1e3", "9" * 30])
def test_a_number_that_is_none_is_422(client: Client, after: str) -> None:
    answer = client.call("GET", "/api/events", params={"after": after})
    assert answer.status_code == 422


def test_a_stream_needs_a_key_in_its_header(client: Client) -> None:
    assert client.stranger().call("GET", "/api/events").status_code == 401
    query = client.stranger().call("GET", f"/api/events?key={client.key}")
    assert query.status_code == 401


def test_a_slow_reader_is_cut_off_and_can_resume(url: str, tmp_path: Path) -> None:
    with in_thread(variables(tmp_path, url, EVENTS_STALL="300ms")) as client:
        port = int(client.url.rpartition(":")[2])
        wire = socket.socket()
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect(("127.0.0.1", port))
        wire.sendall(
            b"GET /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
            + str(client.key).encode()
            + b"\r\n\r\n"
        )
        assert wire.recv(16).startswith(b"HTTP/1.1 200")
        body = "x" * 1500
        count = 0

        def cut() -> bool:
            nonlocal count
            for _ in range(40):
                count += 1
                assert client.webhook("/api/webhooks/sms", inbound_form(sid(count), body)).ok
            return not streams(client)

        eventually(cut, "the end of the slow stream", within=60)
        wire.close()
        with following(client, after=0) as stream:
            eventually(
                lambda: stream.types().count("message.received") == count, "all of it", within=60
            )


ANSWER = 1000  # bytes


def streams(client: Client) -> list[str]:
    """The streams that are open on the server's port, as the kernel sees them: a connection with
    bytes that its reader does not take, and more of them than an answer to a webhook has."""
    port = f"{int(client.url.rpartition(':')[2]):04X}"
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        local, state, queues = parts[1], parts[3], parts[4]
        if (
            local.endswith(f":{port}")
            and state == "01"
            and int(queues.partition(":")[0], 16) > ANSWER
        ):
            found.append(line)
    return found


def test_streams_have_caps_per_key_and_in_all(url: str, tmp_path: Path) -> None:
    more = {"EVENTS_MAX_CLIENTS_PER_KEY": "2", "EVENTS_MAX_CLIENTS": "3"}
    with in_thread(variables(tmp_path, url, **more)) as client:
        with following(client), following(client):
            answer = client.call("GET", "/api/events")
            assert answer.status_code == 429 and "retry-after" in answer.headers

        def has_a_place() -> bool:
            with following(client) as again:
                return again.status == 200

        eventually(has_a_place, "a place that was given back")


def test_a_revoked_key_ends_its_stream(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.api.streams.RECHECK", 0.2)
    database = Database(url)
    with database.write() as tx:
        key = keys.make(tx, tenant_id="default", name="app")
    with in_thread(variables(tmp_path, url)) as client:
        client.key = key
        with following(client) as stream:
            assert stream.status == 200
            with database.write() as tx:
                assert keys.revoke(tx, "default", key.split("_")[1])
            eventually(lambda: stream.ended, "the end of the stream")
    database.close()


def test_a_webhook_is_on_the_stream_a_moment_later(client: Client) -> None:
    with following(client) as stream:
        started = time.monotonic()
        assert client.webhook("/api/webhooks/sms", inbound_form(sid(1))).ok
        eventually(lambda: "message.received" in stream.types(), "the message")
        assert time.monotonic() - started < 5  # far from the poll that would find it anyway
