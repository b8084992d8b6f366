"""The webhooks' door, through real HTTP on loopback."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from gateway.clock import SystemClock
from gateway.domain import Channel, InboundMessage, Simulated, Verified, Webhook, WebhookRequest
from gateway.errors import CannotVerifyNow, OutcomeUnknown, StoreUnavailable
from gateway.patience import LINGER
from webhooks.console import ConsoleWebhook, ConsoleWebhookSettings
from webhooks.endpoint import Endpoint, folded, public_url
from webhooks.twilio import TwilioWebhook, TwilioWebhookSettings

LIMIT = 4096
TIMEOUT = 0.4
ORIGIN = "https://gw.test.example/base"
TOKEN, SECRET = "tw-token-5f1c0a77", "console-secret-91ab"


def twilio(token: str = TOKEN) -> TwilioWebhook:
    """A Twilio webhook."""
    return TwilioWebhook(TwilioWebhookSettings.model_validate({"TWILIO_AUTH_TOKEN": token}))


def console() -> ConsoleWebhook:
    """A console webhook."""
    settings = ConsoleWebhookSettings.model_validate({"CONSOLE_WEBHOOK_SECRET": SECRET})
    return ConsoleWebhook(settings)


@dataclass
class Answered:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def problem(self) -> dict[str, Any]:
        """The body as RFC 9457 has it."""
        assert self.headers["content-type"] == "application/problem+json"
        problem = json.loads(self.body)
        assert problem["status"] == self.status
        assert problem["title"]
        assert problem["detail"]
        return dict(problem)


@dataclass
class Door:
    """A running server, and what it took."""

    port: int
    taken: list[tuple[str, Verified]] = field(default_factory=list)
    verdicts: list[tuple[str, str]] = field(default_factory=list)
    failure: Exception | None = None

    async def receive(self, webhook: Webhook, verified: Verified) -> None:
        """Plays the core."""
        if self.failure is not None:
            raise self.failure
        self.taken.append((webhook.name, verified))

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answered:
        """Asks, by an ordinary client."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answered(response.status, found, response.read())
        finally:
            connection.close()

    def post(self, request: WebhookRequest, path: str, **headers: str) -> Answered:
        """Posts a signed request."""
        return self.ask("POST", path, request.body, {**request.headers, **headers})

    def raw(self, *pieces: bytes, pause: float = 0.0) -> bytes:
        """Sends bytes as they are, and reads until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as wire:
            for piece in pieces:
                wire.sendall(piece)
                time.sleep(pause)
            return everything(wire)


def everything(wire: socket.socket) -> bytes:
    """All that a peer sends until it closes."""
    chunks = []
    try:
        while chunk := wire.recv(65536):
            chunks.append(chunk)
    except ConnectionResetError:
        pass
    return b"".join(chunks)


@contextmanager
def serving(door: Door, endpoint: Endpoint) -> Iterator[Door]:
    """Runs a server in a thread."""
    config = uvicorn.Config(
        Starlette(routes=endpoint.routes()),
        host="127.0.0.1",
        port=0,
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    door.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield door
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def running() -> Iterator[Door]:
    """A server with two vendors, one of them on two connections, and one that is off."""
    door = Door(0)
    first, second, ours = twilio(), twilio("second-token"), console()
    endpoint = Endpoint(
        hooks={
            "sms": (first, ours),
            "whatsapp": (first, ours),
            "twilio": (first,),
            "Two-Words": (first,),
            "twilio/c-2": (second,),
            "console": (ours,),
            "empty": (),
        },
        missing={"aws": "AWS_SNS_TOPIC_ARNS", "aws-sns": "AWS_SNS_TOPIC_ARNS"},
        receive=door.receive,
        origin=ORIGIN,
        max_bytes=LIMIT,
        timeout=TIMEOUT,
        clock=SystemClock(),
        on_verdict=lambda name, verdict: door.verdicts.append((name, verdict)),
    )
    with serving(door, endpoint) as served:
        yield served


@pytest.fixture
def door(running: Door) -> Door:
    """The server, with nothing taken yet."""
    running.taken.clear()
    running.verdicts.clear()
    running.failure = None
    return running


def simulated(path: str, webhook: Webhook | None = None, body: str = "hi") -> WebhookRequest:
    """A message, signed for a path."""
    message = InboundMessage(
        dedupe_key="",
        channel=Channel.SMS,
        from_address="+15005550142",
        to_address="+15005550199",
        body=body,
    )
    return (webhook or twilio()).sign(Simulated(url=f"{ORIGIN}{path}", message=message))


@pytest.mark.parametrize(
    ("origin", "path", "query", "expected"),
    [
        ("https://x.example", b"/api/w", b"", "https://x.example/api/w"),
        ("https://x.example/", b"/api/w", b"", "https://x.example/api/w"),
        (
            "https://x.example:8443",
            b"/api/w",
            b"a=1&b=%20+",
            "https://x.example:8443/api/w?a=1&b=%20+",
        ),
        ("https://x.example/gw", b"/api/w", b"", "https://x.example/gw/api/w"),
        ("https://x.example/gw/", b"/gw/api/w", b"", "https://x.example/gw/api/w"),
        ("https://x.example/gw", b"/gwen/api", b"", "https://x.example/gw/gwen/api"),
        ("https://x.example/a/b", b"/a/b", b"", "https://x.example/a/b"),
        ("https://x.example/a/b", b"/a/c", b"", "https://x.example/a/b/a/c"),
        ("HTTP://u:p@X.example", b"/%2e%2E/%C3%A9", b"'", "HTTP://u:p@X.example/%2e%2E/%C3%A9?'"),
        ("https://x.example", b"/caf\xe9", b"\xff", "https://x.example/caf\xe9?\xff"),
        ("http://[::1]:8000", b"//double", b"?", "http://[::1]:8000//double??"),
    ],
)
def test_the_url_is_the_public_one_and_nothing_is_spelled_anew(
    origin: str, path: bytes, query: bytes, expected: str
) -> None:
    assert public_url(origin, path, query) == expected


def test_names_fold_and_connections_do_not() -> None:
    assert folded("AWS-sns/C-1") == "aws_sns/C-1"


@pytest.mark.parametrize(
    "path",
    [
        "/api/webhooks/twilio",
        "/api/webhooks/TWILIO",
        "/api/webhooks/sms",
        "/api/webhooks/whatsapp",
        "/api/sms/webhook/twilio",
        "/api/webhooks/two-words",
        "/api/webhooks/two_words",
        "/api/webhooks/twilio?attempt=att_x&a=%27'%20+",
    ],
)
def test_a_signed_request_is_taken_on_each_of_its_routes(door: Door, path: str) -> None:
    answered = door.post(simulated(path), path)
    assert (answered.status, answered.headers["content-type"]) == (200, "text/xml")
    assert answered.body == b'<?xml version="1.0" encoding="UTF-8"?><Response/>'
    ((name, verified),) = door.taken
    assert name == "twilio"
    assert verified.request.url == ORIGIN + path
    assert door.verdicts == [("twilio", "taken")]


def test_a_proxy_may_leave_the_public_urls_path_on_or_take_it_off(door: Door) -> None:
    path = "/api/webhooks/twilio"
    request = simulated(path)
    for seen in (path, f"/base{path}"):
        assert door.post(request, seen).status == 200
    assert {verified.key for _, verified in door.taken} == {door.taken[0][1].key}


def test_on_a_shared_route_each_vendor_gets_its_own(door: Door) -> None:
    path = "/api/webhooks/sms"
    assert door.post(simulated(path, console()), path).status == 204
    assert door.post(simulated(path), path).status == 200
    assert [name for name, _ in door.taken] == ["console", "twilio"]


def test_a_connection_has_its_own_secret_and_an_unknown_one_is_not_found(door: Door) -> None:
    path = "/api/webhooks/twilio/c-2"
    assert door.post(simulated(path, twilio("second-token")), path).status == 200
    assert door.post(simulated(path), path).status == 403
    assert door.post(simulated(path), "/api/webhooks/twilio/c_2").status == 404
    assert door.post(simulated(path), "/api/webhooks/other/c-2").status == 404


@pytest.mark.parametrize(
    "path", ["/api/webhooks/nobody", "/api/sms/webhook/x", "/api/webhooks/empty"]
)
def test_an_unknown_name_is_not_found(door: Door, path: str) -> None:
    for method in ("POST", "GET"):
        assert door.ask(method, path, b"x").problem()["status"] == 404
    assert set(door.verdicts) == {("?", "unknown")}


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_another_method_is_answered_with_the_one_that_is_allowed(door: Door, method: str) -> None:
    answered = door.ask(method, "/api/webhooks/twilio")
    assert answered.problem()["status"] == 405
    assert answered.headers["allow"] == "POST"
    assert door.ask("HEAD", "/api/webhooks/sms").status == 405
    assert not door.taken


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the webhooks' logger said."""
    return [r.getMessage() for r in caplog.records if r.name == "gateway.webhooks"]


def test_a_webhook_for_nobody_is_logged_without_its_path(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    assert door.ask("POST", "/api/webhooks/twilo/secret-word", b"x").problem()["status"] == 404
    (line,) = logged(caplog)
    assert line.startswith("webhook ? refused (404): no webhook has the name in its URL; there are")
    assert "twilio" in line
    assert "twilo/" not in line
    assert "secret-word" not in line


def test_an_unsigned_request_is_401_and_one_line_says_why(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    answered = door.ask("POST", "/api/webhooks/twilio?attempt=a", b"Body=private+words")
    assert answered.problem()["status"] == 401
    (line,) = logged(caplog)
    assert "X-Twilio-Signature is missing" in line
    assert f"{ORIGIN}/api/webhooks/twilio?attempt=a" in line
    assert "private" not in line
    assert not door.taken
    assert door.verdicts == [("twilio", "unsigned")]


def test_a_wrongly_signed_request_is_403_and_one_line_names_the_url_and_public_url(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = "/api/webhooks/sms"
    request = simulated(path, twilio("not-the-token"), body="private words")
    answered = door.post(request, path)
    assert answered.problem()["status"] == 403
    (line,) = logged(caplog)
    assert f"{ORIGIN}{path}" in line
    assert "PUBLIC_URL" in line
    for secret in (TOKEN, SECRET, request.headers["x-twilio-signature"], "private", "15005550142"):
        assert secret not in caplog.text
        assert secret.encode() not in answered.body
    assert not door.taken


def test_what_nobody_claims_on_a_shared_route_is_401_and_the_log_says_who_is_off(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    answered = door.ask("POST", "/api/webhooks/sms", b"{}", {"x-amz-sns-message-type": "x"})
    assert answered.problem()["status"] == 401
    (line,) = logged(caplog)
    assert "X-Twilio-Signature (twilio) or X-Gateway-Signature (console)" in line
    assert f"{ORIGIN}/api/webhooks/sms " in line
    assert "AWS_SNS_TOPIC_ARNS" in line


def test_where_one_vendor_is_set_up_the_log_still_says_who_is_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    door = Door(0)
    endpoint = Endpoint(
        hooks={"sms": (twilio(),), "twilio": (twilio(),)},
        missing={"aws-sns": "AWS_SNS_TOPIC_ARNS"},
        receive=door.receive,
        origin=ORIGIN,
        max_bytes=LIMIT,
        timeout=TIMEOUT,
        clock=SystemClock(),
    )
    with serving(door, endpoint):
        for path in ("/api/webhooks/sms", "/api/webhooks/twilio"):
            assert door.ask("POST", path, b"{}").problem()["status"] == 401
    shared, own = logged(caplog)
    assert "X-Twilio-Signature is missing" in shared
    assert "aws_sns (AWS_SNS_TOPIC_ARNS)" in shared
    assert "AWS_SNS_TOPIC_ARNS" not in own


def test_the_log_names_what_a_query_holds_and_not_its_values(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    for headers in ({}, {"X-Twilio-Signature": "abc="}):
        door.ask(
            "POST", "/api/webhooks/twilio?bare7&pin=secret7&From=%2B15007&attempt=a", b"", headers
        )
    for line in logged(caplog):
        assert f"{ORIGIN}/api/webhooks/twilio?…&pin=…&From=…&attempt=a" in line
        assert not any(private in line for private in ("bare7", "secret7", "15007"))


@pytest.mark.parametrize("path", ["/api/webhooks/aws", "/api/sms/webhook/aws-sns"])
def test_a_webhook_without_its_secret_is_403_and_the_log_names_the_variable(
    door: Door, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    assert door.ask("POST", path, b"{}").problem()["status"] == 403
    (line,) = logged(caplog)
    assert "AWS_SNS_TOPIC_ARNS is not set" in line


def test_nothing_that_a_stranger_sends_can_forge_a_log_line(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /api/webhooks/twilio?x=%0a\x1b[2Jforged HTTP/1.1\r\nHost: x\r\n"
    head += b"X-Twilio-Signature: \x9b2J\xff\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    door.raw(head)
    for line in logged(caplog):
        assert line.isprintable()
        assert len(line) < 400


def test_forwarded_headers_and_host_change_nothing(door: Door) -> None:
    path = "/api/webhooks/twilio"
    lies = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "http"}
    lies |= {"Forwarded": "host=evil.example;proto=http", "X-Original-URL": "/evil"}
    assert door.post(simulated(path), path, **lies).status == 200


def test_a_header_sent_twice_is_joined_and_so_no_signature(door: Door) -> None:
    path = "/api/webhooks/twilio"
    request = simulated(path)
    line = f"X-Twilio-Signature: {request.headers['x-twilio-signature']}\r\n".encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(request.body)}\r\n".encode()
    head += b"Content-Type: application/x-www-form-urlencoded\r\nConnection: close\r\n"
    assert door.raw(head + line + b"\r\n" + request.body).startswith(b"HTTP/1.1 200")
    assert door.raw(head + line + line + b"\r\n" + request.body).startswith(b"HTTP/1.1 403")


def chunked(request: WebhookRequest, path: str, *chunks: bytes) -> bytes:
    """A request in chunks."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def test_a_body_in_chunks_is_put_together(door: Door) -> None:
    path = "/api/webhooks/twilio"
    request = simulated(path)
    pieces = [request.body[n : n + 7] for n in range(0, len(request.body), 7)]
    answered = door.raw(chunked(request, path, *pieces) + b"0\r\n\r\n")
    assert answered.startswith(b"HTTP/1.1 200")
    assert door.taken[0][1].request.body == request.body


def test_a_declared_length_that_is_too_large_is_413_before_it_is_sent(door: Door) -> None:
    for length in (LIMIT + 1, 10**30):
        head = f"POST /api/webhooks/sms HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        answered = door.raw(head.encode())
        assert answered.startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))  # the server's own limit
        assert b"connection: close" in answered.lower()
    assert not door.taken


EXPECTS = b"Expect: 100-continue\r\n"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /api/webhooks/sms", b"413"),
        (b"POST /api/webhooks/aws", b"403"),
        (b"POST /api/webhooks/nobody", b"404"),
        (b"PUT /api/webhooks/sms", b"405"),
    ],
)
def test_who_asks_first_is_refused_and_not_asked_for_the_body(
    door: Door, line: bytes, status: bytes
) -> None:
    before = time.monotonic()
    head = line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n" + EXPECTS
    assert door.raw(head + b"\r\n").startswith(b"HTTP/1.1 " + status)
    assert time.monotonic() - before < LINGER


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /api/webhooks/aws", b"403"),
        (b"POST /api/webhooks/nobody", b"404"),
        (b"PUT /api/webhooks/sms", b"405"),
    ],
)
def test_a_refusal_is_heard_by_who_still_sends(door: Door, line: bytes, status: bytes) -> None:
    head = line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n"
    for _ in range(5):
        answered = door.raw(head, *[b"x" * 300_000] * 10, pause=0.005)
        assert answered.startswith(b"HTTP/1.1 " + status)


def test_the_last_chunk_that_is_too_large_is_answered_at_once(door: Door) -> None:
    request, before = simulated("/api/webhooks/twilio"), time.monotonic()
    whole = chunked(request, "/api/webhooks/twilio", b"x" * (LIMIT + 1)) + b"0\r\n\r\n"
    assert door.raw(whole).startswith(b"HTTP/1.1 413")
    assert time.monotonic() - before < LINGER


@pytest.mark.parametrize("coding", ["gzip", "br", "x-gzip", "identity, deflate"])
def test_a_compressed_body_is_415_before_it_is_read_or_verified(door: Door, coding: str) -> None:
    path = "/api/webhooks/twilio"
    request = simulated(path)
    answered = door.post(request, path, **{"Content-Encoding": coding})
    assert (answered.status, answered.headers["accept-encoding"]) == (415, "identity")
    assert not door.taken
    assert door.verdicts == [("twilio", "encoded")]
    assert door.post(request, path, **{"Content-Encoding": "identity"}).status == 200


def test_chunks_that_become_too_large_are_413_and_the_connection_closes(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    request = simulated("/api/webhooks/twilio")
    answered = door.raw(chunked(request, "/api/webhooks/twilio", *[b"x" * 1024] * 5))
    assert answered.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in answered.lower()
    assert door.verdicts == [("twilio", "too_large")]
    (line,) = logged(caplog)
    assert line == f"webhook twilio refused (413): the body is larger than {LIMIT} bytes"


def test_the_largest_body_is_still_read(door: Door) -> None:
    path = "/api/webhooks/twilio"
    request = simulated(path)
    padded = simulated(path, body="hi" + "a" * (LIMIT - len(request.body)))
    assert len(padded.body) == LIMIT
    assert door.post(padded, path).status == 200


def test_a_body_that_does_not_come_is_408_in_bounded_time(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /api/webhooks/twilio HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    before = time.monotonic()
    answered = door.raw(head, b"abc")
    assert answered.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - before < 10 * TIMEOUT
    assert door.verdicts == [("twilio", "too_slow")]
    (line,) = logged(caplog)
    assert line == f"webhook twilio refused (408): the body took more than {TIMEOUT:g} seconds"


def test_a_body_that_drips_gets_no_more_time_in_all(door: Door) -> None:
    head = b"POST /api/webhooks/twilio HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as wire:
        wire.sendall(head)
        before, wire_is_open = time.monotonic(), True
        wire.settimeout(0.05)
        answered = b""
        while wire_is_open and time.monotonic() - before < 20 * TIMEOUT:
            try:
                wire.sendall(b"a")
                answered += wire.recv(65536)
                wire_is_open = False
            except TimeoutError:
                continue
            except OSError:
                break
    assert answered.startswith(b"HTTP/1.1 408")


def test_who_goes_away_early_leaves_nothing_behind(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /api/webhooks/twilio HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nab"
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as wire:
        wire.sendall(head)
    path = "/api/webhooks/twilio"
    assert door.post(simulated(path), path).status == 200
    assert len(door.taken) == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (StoreUnavailable("the database is away"), "about:blank"),
        (CannotVerifyNow("no certificate"), "about:blank"),
        (OutcomeUnknown("who knows"), "outcome-unknown"),
    ],
)
def test_what_cannot_be_stored_now_is_503_with_a_time_to_come_back(
    door: Door, caplog: pytest.LogCaptureFixture, failure: Exception, kind: str
) -> None:
    door.failure = failure
    path = "/api/webhooks/twilio"
    answered = door.post(simulated(path), path)
    assert answered.problem()["type"] == kind
    assert answered.status == 503
    assert int(answered.headers["retry-after"]) > 0
    assert len(logged(caplog)) == 1
    assert door.verdicts == [("twilio", "unavailable")]


def test_many_requests_share_one_connection(door: Door) -> None:
    path = "/api/webhooks/console"
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=5)
    for number in range(20):
        request = simulated(path, console(), body=str(number))
        connection.request("POST", path, request.body, dict(request.headers))
        response = connection.getresponse()
        assert (response.status, response.read()) == (204, b"")
    connection.close()
    assert len({verified.key for _, verified in door.taken}) == 20
