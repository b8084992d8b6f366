"""A whole gateway for tests: in a thread over HTTP, or as the process that an operator starts."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

import requests
import uvicorn

from gateway.app import Gateway
from gateway.asgi import asgi
from gateway.commands.server import configured
from gateway.settings import Environment
from tests import forked
from tests.loops import new_loop

KEY = "a-key-for-tests-of-at-least-32-characters"
TOKEN = "twilio-token-of-the-tests"
ACCOUNT = "AC00000000000000000000000000000001"
OURS = "+15550009999"
PUBLIC = "https://gateway.example.com"
PATIENCE = 20.0
ROOT = Path(__file__).parents[1]

T = TypeVar("T")


def eventually(look: Callable[[], T], what: str = "it", within: float = PATIENCE) -> T:
    """Waits until `look` gives something true."""
    deadline = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {within} s; last: {found!r}")
        time.sleep(0.02)


def variables(data: Path, url: str | None = None, **more: str) -> dict[str, str]:
    """A gateway's environment: Twilio on a vendor of the test's own, unless said otherwise."""
    made = {
        "GATEWAY_ENV": "production",
        "GATEWAY_API_KEY": KEY,
        "DATA_DIR": str(data),
        "PUBLIC_URL": PUBLIC,
        "MESSAGING_PROVIDER": "console",
        "TWILIO_AUTH_TOKEN": TOKEN,
        "RETRY_BASE": "50ms",
        "WORKER_POLL": "200ms",
    }
    if url is not None:
        made["DATABASE_URL"] = url
    made.update(more)
    return {name: value for name, value in made.items() if value}


def twilio(vendor_url: str) -> dict[str, str]:
    """The variables that send through a Twilio on loopback."""
    return {
        "MESSAGING_PROVIDER": "twilio",
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_PHONE_NUMBER": OURS,
        "TWILIO_WHATSAPP_NUMBER": "+15550008888",
        "TWILIO_API_URL": vendor_url,
    }


@dataclass
class Client:
    """The API, as an application calls it."""

    url: str
    key: str | None = KEY
    session: requests.Session = field(default_factory=requests.Session)

    def stranger(self) -> Client:
        """The same, without a key."""
        return replace(self, key=None)

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        """One request; `more` as `requests` takes it."""
        headers = dict(more.pop("headers", {}))
        if self.key is not None:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        return self.session.request(method, self.url + path, headers=headers, timeout=20, **more)

    def get(self, path: str, **query: Any) -> Any:
        """A JSON answer that must be good."""
        answer = self.call("GET", path, params=query)
        assert answer.status_code == 200, (path, answer.status_code, answer.text)
        return answer.json()

    def send(self, key: str | None = None, **body: Any) -> dict[str, Any]:
        """Sends a message that must be accepted."""
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.call("POST", "/api/messages", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def message(self, id_: str) -> dict[str, Any]:
        """One message with its attempts."""
        return dict(self.get(f"/api/messages/{id_}"))

    def until(self, id_: str, *statuses: str) -> dict[str, Any]:
        """Waits until a message stands at one of these."""

        def look() -> dict[str, Any] | None:
            found = self.message(id_)
            return found if found["status"] in statuses else None

        return eventually(look, f"{id_} at {' or '.join(statuses)}")

    def webhook(
        self, path: str, form: Mapping[str, str], *, token: str = TOKEN, public: str = PUBLIC
    ) -> requests.Response:
        """A form that Twilio's own SDK signed."""
        from twilio.request_validator import RequestValidator

        signature = RequestValidator(token).compute_signature(public + path, form)
        return self.session.post(
            self.url + path, data=form, headers={"X-Twilio-Signature": signature}, timeout=20
        )


def inbound_form(sid: str, body: str = "hello", **more: str) -> dict[str, str]:
    """What a person's SMS looks like."""
    return {
        "MessageSid": sid,
        "SmsSid": sid,
        "SmsMessageSid": sid,
        "AccountSid": ACCOUNT,
        "From": "+15550100001",
        "To": OURS,
        "Body": body,
        "NumMedia": "0",
        "NumSegments": "1",
        "SmsStatus": "received",
        "ApiVersion": "2010-04-01",
        "FromCity": "",
        **more,
    }


def sid(number: int, kind: str = "SM") -> str:
    """A Twilio id."""
    return f"{kind}{number:032x}"


@dataclass
class Stream:
    """A reader of the event feed, in a thread of its own."""

    events: list[dict[str, Any]] = field(default_factory=list)
    resets: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False
    status: int = 0
    _wire: socket.socket | None = None

    def types(self, message_id: str | None = None) -> list[str]:
        """The types seen, of one message or of all."""
        return [
            e["type"]
            for e in list(self.events)
            if message_id is None or e["data"].get("message", {}).get("id") == message_id
        ]

    def close(self) -> None:
        """Hangs up, also while the reader waits."""
        if self._wire is not None:
            with suppress(OSError):
                self._wire.shutdown(socket.SHUT_RDWR)

    def read(self, client: Client, after: int | None, opened: threading.Event) -> None:
        """Reads until somebody hangs up."""
        address = client.url.removeprefix("http://")
        connection = HTTPConnection(address, timeout=20)
        query = "" if after is None else f"?after={after}"
        try:
            connection.request(
                "GET", f"/api/events{query}", headers={"Authorization": f"Bearer {client.key}"}
            )
            self._wire = connection.sock
            response = connection.getresponse()
            self.status = response.status
            while line := response.readline():
                opened.set()
                if line.startswith(b"data: "):
                    self._note(json.loads(line[6:]))
        except (OSError, HTTPException, ValueError):
            pass  # the connection was cut, by the server or by the test
        finally:
            self.ended = True
            opened.set()
            connection.close()

    def _note(self, event: dict[str, Any]) -> None:
        (self.resets if event["type"] == "feed.reset" else self.events).append(event)


@contextmanager
def following(client: Client, after: int | None = None) -> Iterator[Stream]:
    """Follows the feed until the block ends."""
    stream, opened = Stream(), threading.Event()
    thread = threading.Thread(target=stream.read, args=(client, after, opened), daemon=True)
    thread.start()
    assert opened.wait(PATIENCE), "the stream did not open"
    try:
        yield stream
    finally:
        stream.close()
        thread.join(5)


@contextmanager
def in_thread(environment: Mapping[str, str], *, working: bool = True) -> Iterator[Client]:
    """A gateway in this process, behind a real socket."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    gateway = Gateway(environment=Environment({**environment, "PORT": str(port)}), working=working)
    config = configured(asgi(gateway), stop_within=3)
    server = uvicorn.Server(config)
    ended: queue.Queue[BaseException | None] = queue.Queue()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:  # as in production
                runner.run(serve())
            ended.put(None)
        except BaseException as error:
            ended.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    eventually(lambda: server.started or not thread.is_alive(), "the server")
    client = Client(f"http://127.0.0.1:{port}")
    try:
        yield client
    finally:
        client.session.close()
        if not loops[0].is_closed():
            loops[0].call_soon_threadsafe(gateway.hub.end_streams)
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive(), "the gateway did not stop"
        error = ended.get_nowait()
        if error is not None:
            raise error


@dataclass
class Process:
    """`gateway serve` as a process, started again on the same data and port. `program` is what
    Python runs."""

    environment: dict[str, str]
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    program: tuple[str, ...] = ("-c", "from gateway.cli import main; main()", "serve")

    @property
    def client(self) -> Client:
        """The API of whichever process runs."""
        return Client(f"http://127.0.0.1:{self.port}")

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.spawn()
        try:
            eventually(self._answers, "the gateway's first answer", within=60)
        except AssertionError:
            self.kill()  # nobody else would
            raise

    def spawn(self) -> None:
        """Starts it."""
        inherited = {n: os.environ[n] for n in ("PATH", "HOME", "LD_PRELOAD") if n in os.environ}
        own = {"PORT": str(self.port), "PYTHONPATH": str(ROOT)}  # this checkout, installed or not
        with self.log.open("ab") as log:
            self.process = forked.start(
                self.program,
                env={**inherited, **self.environment, **own},
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
            )

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the gateway ended: {self.log.read_text()[-3000:]}")
        try:
            return requests.get(f"{self.client.url}/health", timeout=2).ok
        except requests.RequestException:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """As a power cut does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        """As an operator does; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def free_port() -> int:
    """A port that nobody listens on. It is below those that systems give by themselves, and each
    process of the tests has some for itself: nobody takes it before it is used, or used again."""
    while True:
        port = next(PORTS)
        with socket.socket() as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _ports() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
    for number in count(os.getpid()):
        yield 20_000 + worker * 1000 + number % 1000


PORTS = _ports()
