"""The Python client, against a real gateway and what may stand before it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from gateway.client import Client, ClientError, NoAnswer, Problem, Unauthorized
from gateway.store import keys
from gateway.store.database import Database
from tests.running import (
    KEY,
    Client as Api,
    Process,
    eventually,
    free_port,
    in_thread,
    inbound_form,
    sid,
    variables,
)

PERSON = "+15550100001"
HOP = {"connection", "transfer-encoding", "content-length", "host", "date", "server"}


class Between:
    """A proxy before a gateway. `faults` are what becomes of the next requests: `lost` (the gateway
    answers, and nobody hears it), or a status that the proxy gives by itself."""

    def __init__(self, there: str) -> None:
        self.there, self.faults, self.seen = there, list[str | int](), list[Any]()
        self.extra: dict[str, str] = {}

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.seen.append((handler.command, handler.path, dict(handler.headers)))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            self.answer(handler, fault, self.extra, b"later")
            return
        headers = {n: v for n, v in handler.headers.items() if n.lower() not in HOP}
        done = requests.request(
            handler.command, self.there + handler.path, data=body, headers=headers, timeout=20
        )
        if fault == "lost":
            handler.close_connection = True
            handler.wfile.close()
            return
        kept = {n: v for n, v in done.headers.items() if n.lower() not in HOP}
        self.answer(handler, done.status_code, kept, done.content)

    def answer(
        self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        """Says something."""
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def between(api: Api) -> Iterator[tuple[Client, Between]]:
    """A client behind a proxy."""
    proxy = Between(api.url)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            proxy.handle(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with Client(f"http://127.0.0.1:{server.server_port}", KEY, backoff=0.01) as client:
        yield client, proxy
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def python(idle: Api) -> Iterator[Client]:
    """A client of a gateway that stores and does not send."""
    with Client(idle.url + "/", KEY, backoff=0.01) as made:
        yield made


def test_messages_are_sent_on_each_channel(sqlite_url: str, tmp_path: Path) -> None:
    with in_thread(variables(tmp_path, sqlite_url)) as api, Client(api.url, KEY) as client:
        sms = client.send_sms(PERSON, "hi", metadata={"order": 7}, priority="high")
        chat = client.send_whatsapp(PERSON, "hello", from_="+15550000001")
        mail = client.send_email("ada@example.com", "Hello", "text", html="<p>text</p>")
        assert (sms["channel"], sms["metadata"], sms["priority"]) == ("sms", {"order": 7}, "high")
        assert (chat["channel"], chat["from"]) == ("whatsapp", "+15550000001")
        assert (mail["subject"], mail["html"]) == ("Hello", "<p>text</p>")
        api.until(sms["id"], "delivered")
        assert client.get_message(sms["id"])["attempts"][0]["provider"] == "console"


def test_lists_go_on_from_page_to_page(python: Client) -> None:
    for number in range(7):
        python.send_sms(PERSON, f"m{number}")
    found = python.list_messages(limit=3, to=PERSON, channel="sms")
    assert [m["body"] for m in found] == [f"m{n}" for n in reversed(range(7))]
    (conversation,) = python.conversations(limit=1)
    assert conversation["address"] == PERSON
    assert len(list(python.conversation_messages(conversation["id"]))) == 7


def test_a_conversation_is_answered_and_read(python: Client, idle: Api) -> None:
    assert idle.webhook("/api/webhooks/sms", inbound_form(sid(1))).ok
    (conversation,) = python.conversations()
    (said,) = python.list_messages(direction="inbound")
    assert conversation["unread_count"] == 1
    assert python.mark_read(said["id"])["id"] == said["id"]
    assert python.mark_read(conversation["id"])["unread_count"] == 0
    answer = python.reply(conversation["id"], "yes?")
    assert (answer["to"], answer["body"]) == (PERSON, "yes?")


def test_a_file_is_kept_and_sent(python: Client) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(64)
    kept = python.upload(png, "image/png", filename="cat.png", channel="sms")
    assert (kept["content_type"], kept["filename"]) == ("image/png", "cat.png")
    message = python.send_sms(PERSON, "look", media=[kept["url"]])
    assert message["media"][0]["url"] == kept["url"]


def test_the_health_of_the_providers_is_told(python: Client) -> None:
    assert python.get_provider_health()["active_providers"]["sms"] == "twilio"


def test_a_lost_answer_is_asked_for_again_and_sends_once(idle: Api) -> None:
    with between(idle) as (client, proxy):
        proxy.faults = ["lost", 502]
        message = client.send_sms(PERSON, "once")
    assert [m["id"] for m in idle.get("/api/messages")["items"]] == [message["id"]]
    sent = [headers["idempotency-key"] for _, _, headers in proxy.seen]
    assert len(sent) == 3 and len(set(sent)) == 1


def test_a_key_of_ones_own_outlives_the_client(python: Client, idle: Api) -> None:
    first = python.send_sms(PERSON, "once", idempotency_key="order-7")
    assert python.send_sms(PERSON, "once", idempotency_key="order-7")["id"] == first["id"]
    assert python.send_sms(PERSON, "once")["id"] != first["id"]
    assert len(idle.get("/api/messages")["items"]) == 2


def test_what_has_no_key_is_not_repeated(idle: Api) -> None:
    assert idle.webhook("/api/webhooks/sms", inbound_form(sid(1))).ok
    (said,) = idle.get("/api/messages")["items"]
    with between(idle) as (client, proxy):
        proxy.faults = ["lost"]
        with pytest.raises(NoAnswer):
            client.mark_read(said["id"])
        assert len(proxy.seen) == 1


def test_later_means_later_and_not_for_ever(idle: Api) -> None:
    with between(idle) as (client, proxy):
        proxy.extra = {"Retry-After": "0"}
        proxy.faults = [503, 429]
        assert client.get_provider_health()["active_providers"]
        proxy.faults = [503] * 9
        with pytest.raises(Problem) as refusal:
            client.send_sms(PERSON, "never")
        assert len(proxy.seen) == 3 + 4
    assert (refusal.value.status, refusal.value.retry_after) == (503, 0.0)
    assert idle.get("/api/messages")["items"] == []


def test_a_redirect_is_not_followed_with_the_key(idle: Api) -> None:
    with between(idle) as (client, proxy):
        proxy.faults, proxy.extra = [307], {"Location": f"{idle.url}/api/messages"}
        with pytest.raises(Problem) as refusal:
            client.send_sms(PERSON, "x")
    assert refusal.value.status == 307 and len(proxy.seen) == 1
    assert idle.get("/api/messages")["items"] == []


def test_a_refusal_names_the_fields(python: Client) -> None:
    with pytest.raises(Problem) as refusal:
        python.send_sms("nobody", "hi", colour="red")
    problem = refusal.value
    assert problem.status == 422
    assert [error["field"] for error in problem.errors] == ["colour"]
    assert "colour" in str(problem) and "(422)" in str(problem)
    with pytest.raises(Problem) as missing:
        python.get_message("msg_0/../x")
    assert missing.value.status == 404


def test_a_wrong_key_is_told_and_never_shown(idle: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "gw_wrong_" + "s" * 40
    client = Client(idle.url, secret)
    with pytest.raises(Unauthorized) as refusal:
        client.send_sms(PERSON, "x")
    with pytest.raises(Unauthorized):
        next(client.events())
    client.close()
    shown = [repr(client), str(client), str(refusal.value), repr(refusal.value), caplog.text]
    assert not [text for text in shown if secret in text]


@pytest.mark.parametrize("key", ["", "two words", "a\nb", "schlüssel"])
def test_a_key_that_cannot_be_one_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ValueError, match="key must") as refusal:
        Client("http://127.0.0.1:1", key)
    assert not key or key not in str(refusal.value)


@pytest.mark.parametrize("url", ["gateway.example.com", "ftp://x", "http://a:b@x", "http://"])
def test_a_url_that_cannot_be_one_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url must"):
        Client(url, KEY)


def test_nobody_there_is_told() -> None:
    with Client(f"http://127.0.0.1:{free_port()}", KEY, tries=2, backoff=0.01) as client:
        with pytest.raises(NoAnswer) as silence:
            client.send_sms(PERSON, "x")
        assert not silence.value.found and KEY not in str(silence.value)
        with pytest.raises(ClientError):
            next(client.events())


class Listener(threading.Thread):
    """Follows the events until it has seen enough."""

    def __init__(self, client: Client, after: int | None = None) -> None:
        super().__init__(daemon=True)
        self.client, self.after = client, after
        self.seen: list[dict[str, Any]] = []
        self.error: ClientError | None = None
        self.enough = threading.Event()

    def run(self) -> None:
        """Reads."""
        try:
            for event in self.client.events(self.after):
                self.seen.append(event)
                if self.enough.is_set():
                    return
        except ClientError as error:
            self.error = error

    def bodies(self) -> list[str]:
        """What people said, in order."""
        return [
            e["data"]["message"]["body"] for e in list(self.seen) if e["type"] == "message.received"
        ]


def _says(api: Api, number: int) -> None:
    assert api.webhook("/api/webhooks/sms", inbound_form(sid(number), f"m{number}")).ok


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_stream_outlives_a_restart_with_nothing_lost_and_nothing_twice(
    url: str, tmp_path: Path, end: str
) -> None:
    with (
        Process(variables(tmp_path, url), free_port(), tmp_path / "log") as process,
        Client(process.client.url, KEY, backoff=0.1) as client,
    ):
        says = partial(_says, process.client)
        listener = Listener(client, after=0)
        says(1)
        listener.start()
        eventually(lambda: listener.bodies() == ["m1"], "the first")
        getattr(process, end)()
        process.start()
        says(2)
        says(3)
        eventually(lambda: len(listener.bodies()) == 3, "what came after", within=40)
        listener.enough.set()
        says(4)
        listener.join(20)
    assert listener.error is None
    assert listener.bodies()[:3] == ["m1", "m2", "m3"]
    numbers = [event["id"] for event in listener.seen]
    assert numbers == sorted(set(numbers))


def test_a_stream_ends_with_its_key(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.api.streams.RECHECK", 0.2)
    database = Database(url)
    with database.write() as tx:
        key = keys.make(tx, tenant_id="default", name="app")
    with in_thread(variables(tmp_path, url)) as api, Client(api.url, key, backoff=0.01) as client:
        listener = Listener(client, after=0)
        assert api.webhook("/api/webhooks/sms", inbound_form(sid(1))).ok
        listener.start()
        eventually(lambda: listener.seen, "the first")
        with database.write() as tx:
            assert keys.revoke(tx, "default", key.split("_")[1])
        listener.join(20)
        assert isinstance(listener.error, Unauthorized)
    database.close()


def test_a_stream_that_is_reset_says_so_and_goes_on(idle: Api, python: Client) -> None:
    listener = Listener(python, after=10_000)
    listener.start()
    eventually(lambda: listener.seen, "the reset")
    assert listener.seen[0]["type"] == "feed.reset"
    listener.enough.set()
    assert idle.webhook("/api/webhooks/sms", inbound_form(sid(1))).ok
    listener.join(20)
    assert listener.seen[-1]["id"] > listener.seen[0]["id"]
