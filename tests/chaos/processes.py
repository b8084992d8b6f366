"""Chaos among real processes: `gateway serve`, alone on SQLite or with workers on PostgreSQL, is
killed and started again while applications send and a vendor misbehaves.

Judged from outside: by what applications were told, by the API, and by the vendor's own count.
"""

from __future__ import annotations

import json
import queue
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from gateway.domain import RESENDS
from tests.chaos.storage import Violation
from tests.running import (
    ACCOUNT,
    OURS,
    PUBLIC,
    Client,
    Process,
    eventually,
    free_port,
    twilio,
    variables,
)
from tests.vendors import Behaviour, Fault, LoopbackVendor, Reply, Request

SID = re.compile(rb'"sid":"(SM[0-9a-f]+)"')
CALLERS, POSTERS = 8, 4
QUICK = {
    "SEND_TIMEOUT": "3s",
    "LEASE_TIME": "9s",
    "RETRY_BASE": "100ms",
    "BREAKER_OPEN_FOR": "500ms",
    "LOOKUP_AFTER": "0",
    "BACKFILL_AFTER": "0",
}
NO = {
    429: b'{"code": 20429, "message": "Too Many Requests", "status": 429}',
    400: b'{"code": 21211, "message": "Invalid To", "status": 400}',
}
STORIES = (("sent", "delivered"), ("sent",), ("delivered", "sent"), ("sent", "undelivered"), ())
ENDS = frozenset({"accepted", "sent", "delivered", "undelivered", "failed"})
OPEN = ("queued", "scheduled", "sending")
TAKEN = frozenset({"accepted", "sent", "delivered", "undelivered"})


@dataclass(frozen=True)
class Came:
    """A request that came to the vendor."""

    body: str
    sid: str
    told: str  # what the vendor answered: yes, no, or nothing
    story: tuple[str, ...]


class Misbehaving(LoopbackVendor):
    """A Twilio that loses answers, is busy, refuses, never answers; it counts what came."""

    def __init__(self, seed: int) -> None:
        super().__init__(latency=0.01, keep=False)
        self.luck = random.Random(seed)
        self.came: list[Came] = []
        self.callbacks: queue.Queue[tuple[Came, str, dict[str, str]] | None] = queue.Queue()
        self._sids = 0

    def behave(self, request: Request) -> Behaviour | None:
        """What this request gets."""
        if request.method != "POST":
            return Reply(status=404, body=b"{}")
        draw = self.luck.random()
        if draw < 0.05:
            self._note(request, "no")
            status = 429 if draw < 0.04 else 400
            return Reply(status=status, body=NO[status])
        if draw < 0.10:
            self._note(request, "nothing")
            if draw < 0.055:
                return Fault.STALL
            return Fault.DROP_AFTER if draw < 0.08 else Reply(status=503, body=b"<html>")
        return None

    def ordinary(self, request: Request) -> bytes:
        """Yes."""
        answer = super().ordinary(request)
        found = SID.search(answer)
        assert found is not None
        self._note(request, "yes", found[1].decode())
        return answer

    def _note(self, request: Request, told: str, sid: str = "") -> None:
        self._sids += 1
        story = self.luck.choice(STORIES) if told != "no" else ()
        came = Came(request.form["Body"][0], sid or f"SM{self._sids:032x}", told, story)
        self.came.append(came)
        url = request.form["StatusCallback"][0].partition("#")[0]  # no client sends a fragment
        path = url.removeprefix(PUBLIC)
        for word in story:
            form = {"MessageSid": came.sid, "MessageStatus": word, "AccountSid": ACCOUNT}
            form |= {"From": OURS, "To": request.form["To"][0]}
            self.callbacks.put((came, path, form))


@dataclass
class Outside:
    """What applications and the vendor know. `promised` is by key."""

    seed: int
    messages: int
    url: Callable[[], str]
    promised: dict[int, set[str]] = field(default_factory=dict)
    heard: dict[str, set[str]] = field(default_factory=dict)  # callbacks answered 2xx, by body
    repeats: int = 0
    kills: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    failed: list[BaseException] = field(default_factory=list)

    def body(self, number: int) -> dict[str, Any]:
        """What one message asks."""
        return {
            "to": f"+1555{number % max(3, self.messages // 3):07d}",
            "body": f"message {number}",
            "on_unknown": "hold" if number % 2 else "resend",
            "priority": ("normal", "high", "urgent", "low")[number % 7 % 4],
        }

    def send(self, caller: int) -> None:
        """An application: each message until it is answered, and some once more."""
        luck = random.Random(self.seed * 100 + caller)
        with requests.Session() as session:
            client = Client(self.url(), session=session)
            for number in range(caller, self.messages, CALLERS):
                for _ in range(2 if luck.random() < 0.1 else 1):
                    self._send(client, number)

    def _send(self, client: Client, number: int) -> None:
        while not self.failed:
            client.url = self.url()
            try:
                answer = client.call(
                    "POST",
                    "/api/messages",
                    json=self.body(number),
                    headers={"Idempotency-Key": f"key {number}"},
                )
            except requests.RequestException:
                self.repeats += 1
                time.sleep(0.05)
                continue
            if answer.status_code == 202:
                self.promised.setdefault(number, set()).add(answer.json()["id"])
                return
            if answer.status_code != 503:
                raise Violation(f"message {number} was answered {answer.status_code}")
            time.sleep(0.1)

    def post(self, vendor: Misbehaving) -> None:
        """The vendor's callbacks, each until it is answered; some twice."""
        luck = random.Random(self.seed)
        while (one := vendor.callbacks.get()) is not None:
            came, path, form = one
            for _ in range(2 if luck.random() < 0.1 else 1):
                if self._post(path, form):
                    self.heard.setdefault(came.body, set()).add(form["MessageStatus"])

    def _post(self, path: str, form: dict[str, str]) -> bool:
        with requests.Session() as session:
            for _ in range(600):
                try:
                    answer = Client(self.url(), session=session).webhook(path, form)
                    if answer.ok:
                        return True
                    if answer.status_code != 503:
                        raise Violation(f"a callback was answered {answer.status_code}")
                except requests.RequestException:
                    pass
                if self.failed:
                    break
                time.sleep(0.1)
        return False

    def guarded(self, work: Callable[..., None], *given: Any) -> threading.Thread:
        """A thread whose failure is told."""

        def run() -> None:
            try:
                work(*given)
            except BaseException as error:
                self.failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread


def kills(fleet: list[Process], outside: Outside, pause: float, most: int) -> None:
    """Kills one process after the other, and starts it again."""
    luck = random.Random(outside.seed)
    while outside.kills < most and not outside.stopping.wait(luck.uniform(0.2, 2.0) * pause):
        one = luck.choice(fleet)
        one.kill()
        outside.kills += 1
        if luck.random() < 0.3:
            time.sleep(luck.uniform(0, 2) * pause)
        _start(one)


def _start(one: Process) -> None:
    if one.program[-1] == "serve":
        one.start()
    else:
        one.spawn()


@contextmanager
def running(
    folder: Path, url: str, vendor: LoopbackVendor, workers: int
) -> Iterator[list[Process]]:
    """A gateway, and workers beside it."""
    (folder / "data").mkdir(parents=True)
    given = variables(folder / "data", url, **twilio(vendor.url), **QUICK)
    fleet = [Process(given, free_port(), folder / "serve.log")]
    for number in range(workers):
        log = folder / f"worker{number}.log"
        program = (*fleet[0].program[:-1], "worker")
        fleet.append(Process(given, free_port(), log, program=program))
    try:
        for one in fleet:
            _start(one)
        yield fleet
    finally:
        for one in fleet:
            if one.process is not None and one.process.poll() is None:
                one.kill()


def chaos(
    seed: int,
    messages: int,
    folder: Path,
    url: str,
    *,
    workers: int = 0,
    pause: float = 1.5,
    most: int = 100,
) -> Counter[str]:
    """Sends so many messages through processes of which one dies about every `pause` seconds, at
    most so many. What came of it, counted.

    Raises:
        Violation: something was lost, doubled, or told wrongly.
    """
    with Misbehaving(seed) as vendor, running(folder, url, vendor, workers) as fleet:
        outside = Outside(seed, messages, lambda: fleet[0].client.url)
        posters = [outside.guarded(outside.post, vendor) for _ in range(POSTERS)]
        killer = outside.guarded(kills, fleet, outside, pause, most)
        for caller in [outside.guarded(outside.send, n) for n in range(CALLERS)]:
            caller.join()
        outside.stopping.set()
        killer.join()
        client = fleet[0].client
        if not outside.failed:
            eventually(lambda: not _under_way(client, outside), "the end of the queue", within=180)
        for _ in posters:
            vendor.callbacks.put(None)
        for poster in posters:
            poster.join()
        if outside.failed:
            raise outside.failed[0]
        eventually(lambda: client.call("GET", "/health/ready").ok, "the end of the spool")
        return judged(client, outside, vendor)


def _under_way(client: Client, outside: Outside) -> bool:
    if outside.failed:
        return False
    if any(client.get("/api/messages", status=one, limit=1)["items"] for one in OPEN):
        return True  # and else one may have gone from one status to another between two questions
    return any(message["status"] in OPEN for message in everything(client))


def everything(client: Client) -> list[dict[str, Any]]:
    """Every message, by the API."""
    found, query = [], {"direction": "outbound", "limit": "100"}
    while True:
        page = client.get("/api/messages", **query)
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def judged(client: Client, outside: Outside, vendor: Misbehaving) -> Counter[str]:
    """Whether everybody tells the same story."""
    found = {one["id"]: one for one in everything(client)}
    for number in range(outside.messages):
        ids = outside.promised.get(number, set())
        if len(ids) != 1:
            raise Violation(f"message {number} has the ids {sorted(ids)}")
        if found.get(*ids, {}).get("body") != f"message {number}":
            raise Violation(f"message {number} was promised and is not there")
    if len(found) != outside.messages:
        raise Violation(f"{outside.messages} were sent, and {len(found)} are there")
    came: dict[str, list[Came]] = {}
    for one in vendor.came:
        came.setdefault(one.body, []).append(one)
    for message in found.values():
        _judge(message, came.get(message["body"], []), outside.heard.get(message["body"], set()))
    _follow(client, found)
    ended = Counter(message["status"] for message in found.values())
    told = Counter(f"vendor: {one.told}" for one in vendor.came)
    return ended + told + Counter({"kills": outside.kills, "repeats": outside.repeats})


def _judge(message: dict[str, Any], came: list[Came], heard: set[str]) -> None:
    id_, status = message["id"], message["status"]
    maybe = [one for one in came if one.told != "no"]
    most = 1 if message["on_unknown"] == "hold" else RESENDS
    if len(maybe) > most:
        raise Violation(f"{id_} came to the vendor {len(maybe)} times")
    if status not in ENDS | {"unknown", "held"}:
        raise Violation(f"{id_} never ended: it is {status}")
    if status in TAKEN and not maybe:
        raise Violation(f"{id_} is {status}, and never came to the vendor")
    if (status == "delivered") is not ("delivered" in heard):
        raise Violation(f"{id_} is {status}, and the vendor said {sorted(heard)}")
    if status == "unknown" and most == 1 and maybe and maybe[0].story:
        raise Violation(f"{id_} is unknown, and the vendor told of it")
    if status in ("unknown", "held") and message["error"] is None:
        raise Violation(f"{id_} is {status}, and nobody says why")


def _follow(client: Client, found: dict[str, dict[str, Any]]) -> None:
    """Reads the feed from its beginning: numbers rise, and it ends where the messages stand."""
    last: dict[str, str] = {}
    newest, deadline = 0, time.monotonic() + 120
    headers = {"Authorization": f"Bearer {client.key}"}
    url = f"{client.url}/api/events?after=0"
    with requests.get(url, headers=headers, stream=True, timeout=20) as stream:
        for line in stream.iter_lines():
            if time.monotonic() > deadline:
                raise Violation("the feed does not end where the messages stand")
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])
            if event["id"] <= newest:
                raise Violation(f"event {event['id']} came after {newest}")
            newest = event["id"]
            message = event["data"].get("message")
            if message is not None:
                last[message["id"]] = event["type"]
            if len(last) == len(found) and all(
                last[id_] == f"message.{one['status']}" for id_, one in found.items()
            ):
                return
