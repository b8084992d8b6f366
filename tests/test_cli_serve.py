"""`gateway serve` and `gateway worker` as processes: how they start, refuse and end."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import requests

from gateway.commands.server import HEAD_MOST, Serving
from tests.commands import Desk, Running, serving
from tests.databases import Postgres
from tests.running import eventually

SECRET = "a-secret-of-at-least-thirty-two-characters"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty folder."""
    return Desk(tmp_path)


def test_it_ends_streams_and_then_itself_and_starts_again(desk: Desk) -> None:
    with serving(desk, "--dev") as first:
        key = str(first.api.key)
        headers = {"Authorization": f"Bearer {key}"}
        stream = requests.get(f"{first.url}/api/events", headers=headers, stream=True, timeout=20)
        first.api.send(to="+15551230001", body="hi")
        lines = stream.iter_lines()
        eventually(lambda: next(lines).startswith(b"event: message."))
        assert first.stop() == 0
        assert list(lines)[-1] == b""  # the stream ended whole, not cut
        assert first.errors == [line for line in first.errors if "stands at revision" in line]
    with serving(desk, "--dev") as second:
        second.wait_for("simulate chat")
        assert key not in second.said
        assert "keys create NAME" in second.after("key")
        assert second.curl[4] == "Authorization: Bearer $(cat data/development-key)"
        assert len(second.api.get("/api/messages")["items"]) == 1
        assert second.stop(signal.SIGINT) == 0


def test_a_key_of_the_environment_is_shown_in_development_only(desk: Desk) -> None:
    desk.variables["GATEWAY_API_KEY"] = SECRET
    with serving(desk, "--dev") as served:
        assert served.curl[4] == f"Authorization: Bearer {SECRET}"
        assert not (desk.folder / "data" / "development-key").exists()
    with serving(desk, ready="key", MESSAGING_PROVIDER="console") as served:
        assert served.stop() == 0
        assert SECRET not in "".join([*served.lines, *served.errors])
        assert "curl" not in served.said


def test_production_without_a_key_says_how_to_make_one(desk: Desk) -> None:
    desk.variables["MESSAGING_PROVIDER"] = "console"
    with serving(desk, ready="key") as served:
        assert "keys create NAME" in served.after("key")
        key = desk.run("keys", "create", "first").out.strip()
        assert desk.run("send", "+15551230001", "hi", "--key", key, "--wait").code == 0


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "MESSAGING_PROVIDER"),
        ({"MESSAGING_PROVIDER": "pigeon"}, "pigeon"),
        ({"MESSAGING_PROVIDER": "sendgrid-inbound"}, "known are aws, "),
        ({"MESSAGING_PROVIDER": "twilio"}, "TWILIO_ACCOUNT_SID"),
        ({"DATABASE_URL": "mysql://user:hidden@db/gateway"}, "DATABASE_URL"),
        ({"DATABASE_URL": "hidden"}, "DATABASE_URL"),
        ({"DATABASE_URL": "sqlite:///:memory:"}, "DATABASE_URL"),
        ({"GATEWAY_API_KEY": "hidden"}, "GATEWAY_API_KEY"),
        ({"GATEWAY_API_KEY": "hidden " * 8}, "GATEWAY_API_KEY"),
        ({"WORKER_POLL": "0"}, "WORKER_POLL"),
        ({"GATEWAY_ENV": "development", "HOST": "0.0.0.0"}, "HOST"),
    ],
)
def test_settings_that_cannot_be_run_with_are_one_sentence(
    desk: Desk, variables: dict[str, str], named: str
) -> None:
    done = desk.run("serve", "--port", "0", **variables)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert named in done.err
    assert "hidden" not in done.err


def test_production_without_a_public_url_is_warned_and_others_are_not(desk: Desk) -> None:
    production = {"MESSAGING_PROVIDER": "console"}
    with serving(desk, ready="key", **production) as served:
        assert served.stop() == 0
    (line,) = [line for line in served.errors if "PUBLIC_URL" in line]
    assert "is not set" in line
    assert "403" in line
    public = {"PUBLIC_URL": "https://gateway.example.com"}
    with serving(desk, ready="key", **production, **public) as served:
        assert served.stop() == 0
    assert "PUBLIC_URL" not in "".join(served.errors)
    with serving(desk, "--dev") as served:
        assert served.stop() == 0
    assert "PUBLIC_URL" not in "".join(served.errors)


def test_a_port_that_is_taken_is_told(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = desk.run("serve", "--dev", "--port", port)
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.err
    assert "--port" in done.err


def test_nobody_there_is_told(desk: Desk) -> None:
    done = desk.run("send", "+15551230001", "hi", "--url", "http://127.0.0.1:9", "--key", "k")
    assert done.code == 1
    assert "no gateway answers at http://127.0.0.1:9" in done.err


def test_the_log_shows_routes_and_never_what_was_asked_for(desk: Desk) -> None:
    with serving(desk, "--dev", LOG_LEVEL="DEBUG") as served:
        requests.get(f"{served.url}/api/messages/msg_whose?to=%2B15551239999", timeout=10)
        requests.get(f"{served.url}/nowhere/msg_whose", timeout=10)
        assert served.stop() == 0
    log = "".join(served.errors)
    assert "gateway.access: GET /api/messages/{id} 401" in log
    assert "gateway.access: GET (no route) 404" in log
    assert "msg_whose" not in log
    assert "15551239999" not in log


def test_headers_without_an_end_are_cut_off(desk: Desk) -> None:
    with serving(desk, "--dev") as served:
        host, port = served.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n")
            assert _poured(client) < HEAD_MOST * 100  # a part of it waits in the system's buffers
        assert requests.get(f"{served.url}/health", timeout=10).status_code == 200
        with socket.create_connection((host, int(port)), timeout=20) as client:
            client.sendall(b"no request\r\n\r\n")
            head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["detail"] == "Invalid HTTP request received."


def _poured(client: socket.socket) -> int:
    """How many bytes of headers are taken before the other side closes."""
    line = b"x-more: " + b"y" * 1014 + b"\r\n"
    for sent in range(0, HEAD_MOST * 100, len(line)):
        if sent % HEAD_MOST == 0:
            time.sleep(0.005)  # for the other side to read, or those buffers take it all
        try:
            client.sendall(line)
        except OSError:
            return sent
    raise AssertionError("headers without an end are taken")


def test_a_second_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    server = Serving.__new__(Serving)
    server.should_exit = False
    server.handle_exit(signal.SIGTERM, None)
    assert (server.should_exit, ended) == (True, [])
    server.handle_exit(signal.SIGINT, None)
    assert ended == [128 + signal.SIGINT]


def test_on_postgresql_an_operator_upgrades_and_several_processes_run(
    desk: Desk, postgres: Postgres
) -> None:
    desk.variables.update(DATABASE_URL=postgres.empty(), MESSAGING_PROVIDER="console")
    refused = desk.run("serve", "--port", "0")
    assert refused.code == 1
    assert "gateway db upgrade" in refused.err
    assert desk.run("worker").code == 1
    assert desk.run("db", "current").out.startswith("empty; ")
    assert desk.run("db", "upgrade").out.startswith("empty -> ")
    assert "nothing to do" in desk.run("db", "upgrade").out
    with serving(desk, ready="key"), serving(desk, ready="key"):
        worker = Running(desk, desk.start("worker"))
        worker.wait_for("The worker runs")
        key = desk.run("keys", "create", "first").out.strip()
        done = desk.run("send", "+15551230001", "hi", "--key", key, "--wait")
        assert done.field("status") == "delivered"
        assert worker.stop() == 0


def test_a_database_that_is_away_is_told_without_its_password(desk: Desk) -> None:
    url = "postgresql://user:hidden@127.0.0.1:9/gateway"
    done = desk.run("db", "current", DATABASE_URL=url)
    assert done.code == 1
    assert "the database cannot be used" in done.err
    assert "hidden" not in done.err
    assert "Traceback" not in done.err
