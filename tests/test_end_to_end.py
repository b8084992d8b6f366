"""The real server as a process, with a vendor that counts: sent, answered, killed, started again.

The vendor's own count is the judge of "nothing twice", the callers' notes of "nothing missing".
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.running import (
    OURS,
    Client,
    Process,
    eventually,
    following,
    free_port,
    inbound_form,
    sid,
    twilio,
    variables,
)
from tests.vendors import LoopbackVendor

SEED = 20261121


@pytest.fixture
def vendor() -> Iterator[LoopbackVendor]:
    """A Twilio on loopback that takes a moment to answer, so that kills hit sends in flight."""
    made = LoopbackVendor(latency=0.02)
    with made:
        yield made


@pytest.fixture
def process(url: str, tmp_path: Path, vendor: LoopbackVendor) -> Iterator[Process]:
    """`gateway serve`, on each database in turn."""
    more = {**twilio(vendor.url), "LEASE_TIME": "12s", "SEND_TIMEOUT": "4s"}
    made = Process(variables(tmp_path / "data", url, **more), free_port(), tmp_path / "log")
    (tmp_path / "data").mkdir()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def test_a_message_is_sent_answered_and_streamed(process: Process, vendor: LoopbackVendor) -> None:
    process.start()
    client = process.client
    with following(client) as stream:
        sent = client.send(to="+15550100001", body="How are you?")
        accepted = client.until(sent["id"], "accepted")
        (request,) = vendor.requests
        assert request.field("To") == "+15550100001"
        assert request.field("Body") == "How are you?"
        assert client.webhook("/api/webhooks/sms", inbound_form(sid(1), "Fine, thanks")).ok
        eventually(lambda: "message.received" in stream.types(), "the answer on the stream")
        answer = next(e for e in stream.events if e["type"] == "message.received")
    message = answer["data"]["message"]
    assert message["body"] == "Fine, thanks"
    assert message["conversation_id"] == accepted["conversation_id"]
    assert message["from"] == "+15550100001" and message["to"] == OURS
    assert process.terminate() == 0


class Callers:
    """Applications and people who go on while the server is killed, and note what was said."""

    def __init__(self, client: Client, seed: int) -> None:
        self.client = client
        self.random = random.Random(seed)
        self.accepted: dict[str, str] = {}  # our key -> message id
        self.received: list[str] = []  # sids that were answered 2xx
        self.asked = 0
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self._send, args=(n,), daemon=True) for n in range(4)
        ] + [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(2)]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(20)

    def _send(self, number: int) -> None:
        with requests.Session() as session:
            self._sends(Client(self.client.url, session=session), number)

    def _sends(self, session: Client, number: int) -> None:
        count = 0
        while not self.stopping.is_set():
            key, count = f"{number}-{count}", count + 1
            self.asked += 1
            body = {"to": f"+1555{number}{count:06d}", "body": key}
            while not self.stopping.is_set():
                try:  # the same key again until there is an answer: what a good client does
                    answer = session.call(
                        "POST", "/api/messages", json=body, headers={"Idempotency-Key": key}
                    )
                except requests.RequestException:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 202:
                    self.accepted[key] = answer.json()["id"]
                    break
                assert answer.status_code == 503, answer.text
            time.sleep(0.002)

    def _write(self, number: int) -> None:
        with requests.Session() as session:
            self._writes(Client(self.client.url, session=session), number)

    def _writes(self, session: Client, number: int) -> None:
        count = 0
        while not self.stopping.is_set():
            count += 1
            one = sid(number * 1_000_000 + count)
            form = inbound_form(one, f"from {number}: {count}", From=f"+1555020{number:04d}")
            while not self.stopping.is_set():
                try:
                    answer = session.webhook("/api/webhooks/sms", form)
                except requests.RequestException:
                    time.sleep(0.05)
                    continue
                if answer.ok:
                    self.received.append(one)
                    break
                assert answer.status_code == 503, answer.text
            time.sleep(0.005)


def test_a_killed_server_loses_nothing_and_sends_nothing_twice(
    process: Process, vendor: LoopbackVendor
) -> None:
    process.start()
    callers = Callers(process.client, SEED)
    luck = random.Random(SEED)
    callers.start()
    for _ in range(4):
        time.sleep(luck.uniform(0.3, 1.2))  # the instant is the point: any will do
        process.kill()
        process.start()
    eventually(lambda: len(callers.accepted) > 50 and len(callers.received) > 20, "some traffic")
    callers.stop()
    client = process.client
    settled = ("accepted", "unknown")
    eventually(lambda: not _unsettled(client, settled), "the end of the queue", within=60)

    seen = Counter(request.field("Body") for request in vendor.requests)
    assert [body for body, times in seen.items() if times > 1] == []
    for key, id_ in callers.accepted.items():
        message = client.message(id_)
        assert message["body"] == key
        if message["status"] == "accepted":
            assert seen[key] == 1
        else:  # the kill hit this one while it was being sent: held, and told
            assert message["status"] == "unknown" and seen[key] <= 1
            assert message["attempts"][-1]["error"]["code"] == "interrupted"
    ids = list(callers.accepted.values())
    assert len(set(ids)) == len(ids)
    for one in callers.received:
        (found,) = client.get("/api/messages", provider_message_id=one)["items"]
        assert found["direction"] == "inbound"


def _unsettled(client: Client, settled: tuple[str, ...]) -> list[str]:
    left = []
    for status in ("queued", "sending"):
        left += [m["id"] for m in client.get("/api/messages", status=status)["items"]]
    return left
