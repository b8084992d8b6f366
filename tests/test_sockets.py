"""The event feed by WebSocket, as a client library of others reads it."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from gateway.api.sockets import framed
from gateway.commands import sockets
from gateway.store import keys
from gateway.store.database import Database
from tests.running import (
    Client,
    Process,
    eventually,
    following,
    free_port,
    in_thread,
    inbound_form,
    sid,
    variables,
)

PATH = "/api/events/ws"


@pytest.fixture
def client(url: str, tmp_path: Path) -> Iterator[Client]:
    """A gateway whose messages are printed."""
    with in_thread(variables(tmp_path, url)) as made:
        yield made


@pytest.fixture
def embedded(sqlite_url: str, tmp_path: Path) -> Iterator[Client]:
    """The same on SQLite only: where the database makes no difference."""
    with in_thread(variables(tmp_path, sqlite_url)) as made:
        yield made


def opened(client: Client, query: str = "", **more: Any) -> ClientConnection:
    """A socket with the key in its header."""
    if client.key is not None:
        more.setdefault("additional_headers", {"Authorization": f"Bearer {client.key}"})
    address = client.url.replace("http://", "ws://") + PATH + query
    return connect(address, proxy=None, close_timeout=2, **more)


def frame(wire: ClientConnection) -> dict[str, Any]:
    """The next event."""
    text = wire.recv(timeout=20)
    assert isinstance(text, str)
    return dict(json.loads(text))


def until(wire: ClientConnection, kind: str, count: int = 1) -> list[dict[str, Any]]:
    """The events up to the one of a kind that comes so often."""
    found: list[dict[str, Any]] = []
    while sum(one["type"] == kind for one in found) < count:
        found.append(frame(wire))
    return found


def closed(wire: ClientConnection) -> tuple[int, list[dict[str, Any]]]:
    """The code with which a socket ends, and what came before."""
    found: list[dict[str, Any]] = []

    def read_on() -> None:
        while True:
            found.append(frame(wire))

    with pytest.raises(ConnectionClosed) as ended:
        read_on()
    assert ended.value.rcvd is not None
    return ended.value.rcvd.code, found


def refused(client: Client, query: str = "", **more: Any) -> tuple[int, dict[str, Any], Any]:
    """The plain answer to a socket that may not open."""
    with pytest.raises(InvalidStatus) as refusal:
        opened(client, query, **more)
    answer = refusal.value.response
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.status_code, json.loads(bytes(answer.body or b"")), answer.headers


def told(client: Client, *numbers: int) -> None:
    """People write."""
    for number in numbers:
        assert client.webhook("/api/webhooks/sms", inbound_form(sid(number), f"m{number}")).ok


def test_a_socket_tells_the_same_as_the_stream(client: Client) -> None:
    with following(client) as stream, opened(client) as wire:
        sent = client.send(to="+15550100001", body="é — ✓")
        frames = until(wire, "message.delivered")
        eventually(lambda: "message.delivered" in stream.types(sent["id"]), "the delivery")
        assert frames == stream.events[: len(frames)]
    assert frames[0]["type"] == "conversation.created"
    assert set(frames[-1]) == {"id", "type", "created_at", "data"}
    assert frames[-1]["data"]["message"]["body"] == "é — ✓"


def test_a_socket_resumes_with_nothing_lost_and_nothing_twice(client: Client) -> None:
    with opened(client) as wire:
        told(client, 1)
        first = until(wire, "message.received")
    told(client, *range(2, 32))
    with opened(client, f"?after={first[-1]['id']}") as wire:
        second = until(wire, "message.received", 30)
        told(client, 99)
        second += until(wire, "message.received")
    ids = [one["id"] for one in first + second]
    assert ids == sorted(set(ids))
    bodies = [one["data"]["message"]["body"] for one in second if "message" in one["data"]]
    assert bodies == [f"m{n}" for n in (*range(2, 32), 99)]


def test_a_client_that_saw_no_event_resumes_from_where_it_was_opened(client: Client) -> None:
    told(client, 1)
    with opened(client) as wire:
        assert wire.response is not None
        start = wire.response.headers["Last-Event-ID"]
    told(client, 2)
    headers = {"Authorization": f"Bearer {client.key}", "Last-Event-ID": start}
    with opened(client, additional_headers=headers) as wire:
        seen = until(wire, "message.received")
    assert seen[-1]["data"]["message"]["body"] == "m2"


def test_a_number_from_before_a_restore_gets_a_reset(client: Client) -> None:
    told(client, 1)
    with opened(client, "?after=100000") as wire:
        reset = frame(wire)
        told(client, 2)
        after = until(wire, "message.received")
    assert reset["type"] == "feed.reset"
    assert reset["data"] == {"newest": reset["id"]} and reset["id"] < after[0]["id"]


@pytest.mark.parametrize("after", ["-1", "x", "9" * 30])
def test_a_number_that_is_none_is_422(embedded: Client, after: str) -> None:
    status, problem, _ = refused(embedded, f"?after={after}")
    assert status == 422 and problem["errors"][0]["field"] == "after"


def test_nobody_is_let_in_without_a_key(embedded: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stranger = embedded.stranger()
    status, problem, headers = refused(stranger)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "Authorization" in problem["detail"]
    assert refused(stranger, f"?key={embedded.key}&token={embedded.key}")[0] == 401
    wrong = {"Authorization": f"Bearer {embedded.key}x"}
    assert refused(stranger, additional_headers=wrong)[0] == 401
    assert refused(stranger, subprotocols=["gateway", f"bearer.{embedded.key}x"])[0] == 401
    assert not [r for r in caplog.records if str(embedded.key) in r.getMessage()
                and not r.name.startswith("websockets.client")]  # fmt: skip
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_a_browser_offers_its_key_as_a_subprotocol_and_hears_only_its_name(
    embedded: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    offered: Any = ["gateway", f"bearer.{embedded.key}"]
    with opened(embedded.stranger(), subprotocols=offered) as wire:
        assert wire.subprotocol == "gateway"
        told(embedded, 1)
        until(wire, "message.received")
    ours = [r for r in caplog.records if not r.name.startswith("websockets.client")]
    assert not [r for r in ours if str(embedded.key) in r.getMessage()]


def test_a_plain_get_is_told_to_upgrade(embedded: Client) -> None:
    answer = embedded.call("GET", PATH)
    assert answer.status_code == 426
    assert answer.headers["Upgrade"] == "websocket"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert embedded.stranger().call("GET", PATH).status_code == 401
    assert embedded.call("POST", PATH).status_code == 405


def raw(client: Client, head: str) -> bytes:
    """All that a hand-made request is answered, until the server hangs up."""
    with socket.create_connection(("127.0.0.1", int(client.url.rpartition(":")[2])), 20) as wire:
        wire.sendall(head.format(key=client.key).replace("\n", "\r\n").encode())
        answer = b""
        while data := wire.recv(65536):
            answer += data
        return answer


UPGRADE = "Host: x\nAuthorization: Bearer {key}\nConnection: Upgrade\nUpgrade: websocket\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"GET {PATH} HTTP/1.1\n{UPGRADE}\n", 400),  # without its own key
        (f"GET {PATH} HTTP/1.1\n{UPGRADE}X: {'x' * 20_000}\n\n", 431),
        (f"POST {PATH} HTTP/1.1\n{UPGRADE}\n", 405),
        (f"GET /api/messages HTTP/1.1\n{UPGRADE}\n", 200),  # the wish is passed over
        (f"GET /health HTTP/1.1\n{UPGRADE}\n", 200),
    ],
    ids=["no-key-of-its-own", "large", "post", "elsewhere", "health"],
)
def test_what_is_no_handshake_is_answered_and_ended(
    embedded: Client, head: str, status: int
) -> None:
    assert raw(embedded, head).startswith(b"HTTP/1.1 %d " % status)


def test_sockets_and_streams_share_their_caps(url: str, tmp_path: Path) -> None:
    more = {"EVENTS_MAX_CLIENTS_PER_KEY": "2", "EVENTS_MAX_CLIENTS": "3"}
    with in_thread(variables(tmp_path, url, **more)) as client:
        with following(client), opened(client):
            status, _, headers = refused(client)
            assert status == 429 and headers["Retry-After"]
            assert client.call("GET", "/api/events").status_code == 429

        def has_a_place() -> bool:
            with suppress(InvalidStatus), opened(client):
                return True
            return False

        eventually(has_a_place, "a place that was given back")


def test_a_revoked_key_ends_its_socket(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.api.streams.RECHECK", 0.2)
    database = Database(url)
    with database.write() as tx:
        key = keys.make(tx, tenant_id="default", name="app")
    with in_thread(variables(tmp_path, url)) as client:
        client.key = key
        with opened(client) as wire:
            with database.write() as tx:
                assert keys.revoke(tx, "default", key.split("_")[1])
            assert closed(wire)[0] == 4401
        assert refused(client)[0] == 401
    database.close()


def test_a_slow_reader_is_cut_off_with_a_code_and_can_resume(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSING", 60.0)  # until it reads on
    cut: list[int] = []
    end = sockets.Frames._end
    monkeypatch.setattr(
        sockets.Frames, "_end", lambda me, code, why: (cut.append(code), end(me, code, why))[1]
    )
    with in_thread(variables(tmp_path, url, EVENTS_STALL="300ms")) as client:
        port = int(client.url.rpartition(":")[2])
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", port))
        with opened(client, sock=slow, max_queue=1) as wire:
            count = 0
            while not cut and count < 2000:
                count += 1
                form = inbound_form(sid(count), "x" * 1500)
                assert client.webhook("/api/webhooks/sms", form).ok
            code, seen = closed(wire)
        assert code == 1013
        with opened(client, f"?after={seen[-1]['id']}") as wire:
            had = sum(one["type"] == "message.received" for one in seen)
            assert had < count
            until(wire, "message.received", count - had)


def test_a_client_that_never_reads_is_hung_up_on(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CLOSING", 0.1)
    with in_thread(variables(tmp_path, sqlite_url, EVENTS_STALL="200ms")) as client:
        lost = sockets.Frames.connection_lost
        gone: list[bool] = []
        monkeypatch.setattr(
            sockets.Frames,
            "connection_lost",
            lambda me, exc: (gone.append(True), lost(me, exc))[1],
        )
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", int(client.url.rpartition(":")[2])))
        with opened(client, sock=slow, max_queue=1):
            count = 0
            while not gone and count < 2000:
                count += 1
                form = inbound_form(sid(count), "x" * 1500)
                assert client.webhook("/api/webhooks/sms", form).ok
            assert gone


def test_a_client_that_says_too_much_is_cut_off(embedded: Client) -> None:
    with opened(embedded) as wire:
        with suppress(ConnectionClosed):
            for _ in range(50):
                wire.send("x" * 1000)
        assert closed(wire)[0] == 1008
    with opened(embedded) as wire:
        with suppress(ConnectionClosed):
            wire.send("x" * 5000)
        assert closed(wire)[0] == 1009
    with opened(embedded) as wire:
        with suppress(ConnectionClosed):
            wire.send("" for _ in range(100))  # one message, in pieces
        assert closed(wire)[0] == 1008


def test_a_client_may_say_a_little(embedded: Client) -> None:
    with opened(embedded) as wire:
        wire.send('{"type":"ping"}')
        wire.send(b"\x00")
        assert wire.ping().wait(20)
        told(embedded, 1)
        until(wire, "message.received")


def test_one_that_answers_no_ping_is_gone(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.commands.server.PING", 0.2)
    with in_thread(variables(tmp_path, sqlite_url)) as client:
        with opened(client) as wire:
            time.sleep(0.7)  # it answers: three pings are nothing to it
            told(client, 1)
            until(wire, "message.received")
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\n"
        answer = raw(client, f"GET {PATH} HTTP/1.1\n{UPGRADE}{key}")  # it never answers
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"\x03\xf3" in answer  # 1011


def test_a_stopped_gateway_takes_leave_of_its_sockets_and_another_goes_on(
    url: str, tmp_path: Path
) -> None:
    with Process(variables(tmp_path, url), free_port(), tmp_path / "log") as process:
        client = process.client
        with opened(client) as wire:
            told(client, 1)
            seen = until(wire, "message.received")
            assert process.terminate() == 0
            code, rest = closed(wire)
        assert code == 1012
        process.start()
        told(client, 2)
        with opened(client, f"?after={(seen + rest)[-1]['id']}") as wire:
            again = until(wire, "message.received")
        assert again[-1]["data"]["message"]["body"] == "m2"
        assert "Traceback" not in process.log.read_text()
        assert str(client.key) not in process.log.read_text()


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_frames_are_those_of_the_protocol(size: int) -> None:
    data = b"x" * size
    assert framed(data) == Frame(Opcode.TEXT, data).serialize(mask=False)
