"""The connection to PostgreSQL is cut at each place of delivery, and the server ended and started
again, while one and the same gateway runs on. In and out over HTTP; the vendor counts.

| cut | the connection is back at once | it stays away |
|---|---|---|
| in T1 | 202; sent once | 503; a repetition with the key sends once |
| in the claim | sent once | sent once, after the lease if it was committed |
| in T2 | sent once: nothing is written to the wire before T2 is known | the same |
| in T3 | the outcome is stored | kept, and stored once it is back |
| in a webhook's transaction | stored once | spooled, then stored once |

With the gateway alive nothing is ever `unknown`: it knows what it wrote to the wire.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
import requests

from gateway.store import batcher
from tests.databases import Cut, Postgres, Wire
from tests.running import (
    Client,
    eventually,
    in_thread,
    inbound_form,
    sid,
    twilio,
    variables,
)
from tests.vendors import LoopbackVendor

T1, CLAIM, T2, T3, RECEIVE = (
    b"INSERT INTO messages",
    b"claims = claims + 1",
    b"INSERT INTO attempts",
    b"UPDATE attempts",
    b"INSERT INTO inbox",
)
NAMES = {T1: "t1", CLAIM: "claim", T2: "t2", T3: "t3", RECEIVE: "receive"}
ALL = (T1, CLAIM, T2, T3, RECEIVE)
LOST = (Cut.BEFORE_COMMIT, Cut.AFTER_COMMIT)
MESSAGES = 4


def named(value: bytes | Cut) -> str:
    """As a test's id."""
    return value.name.lower() if isinstance(value, Cut) else NAMES[value]


@pytest.fixture
def environment(
    tmp_path: Path, postgres_url: str, wire: Wire, vendor: LoopbackVendor
) -> dict[str, str]:
    """A gateway that reaches its database by the wire."""
    own = {"LEASE_TIME": "9s", "SEND_TIMEOUT": "5s", "LOOKUP_AFTER": "0", "BACKFILL_AFTER": "0"}
    return variables(tmp_path, wire.url(postgres_url), **twilio(vendor.url), **own)


def body(number: int) -> dict[str, str]:
    """A message to somebody of its own."""
    return {"to": f"+1555010{number:04d}", "body": f"hello {number}"}


def waiting(environment: dict[str, str]) -> list[str]:
    """Messages that wait in the queue; their ids."""
    with in_thread(environment, working=False) as client:
        return [client.send(f"k{number}", **body(number))["id"] for number in range(MESSAGES)]


def times(vendor: LoopbackVendor) -> dict[str, int]:
    """How often the vendor was asked for each."""
    return Counter(str(request.field("Body")) for request in vendor.requests)


def all_sent_once(client: Client, vendor: LoopbackVendor, ids: list[str]) -> None:
    """Every message is with the vendor, once, and its id is known."""
    assert len(set(ids)) == MESSAGES
    for id_ in ids:
        message = client.until(id_, "accepted")
        assert message["provider_message_id"]
        assert message["attempts"][-1]["status"] == "accepted"
    assert times(vendor) == {f"hello {number}": 1 for number in range(MESSAGES)}


@pytest.mark.parametrize("when", [cut for cut in Cut if cut is not Cut.NEVER], ids=named)
@pytest.mark.parametrize("place", ALL, ids=named)
def test_a_cut_connection_costs_nobody_anything(
    place: bytes, when: Cut, environment: dict[str, str], wire: Wire, vendor: LoopbackVendor
) -> None:
    ids = waiting(environment) if place in (CLAIM, T2, T3) else []
    wire.only, wire.cut = place, when
    with in_thread(environment) as client:
        if place == RECEIVE:
            assert [posted(client, number) for number in range(MESSAGES)] == [200] * MESSAGES
            assert said(client) == [f"said {number}" for number in range(MESSAGES)]
        else:
            ids = ids or [client.send(f"k{n}", **body(n))["id"] for n in range(MESSAGES)]
            all_sent_once(client, vendor, ids)
    assert wire.cuts == 1


@pytest.mark.parametrize("when", LOST, ids=named)
@pytest.mark.parametrize("place", ALL, ids=named)
def test_a_database_that_stays_away_loses_and_doubles_nothing(
    place: bytes,
    when: Cut,
    environment: dict[str, str],
    wire: Wire,
    vendor: LoopbackVendor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batcher, "PATIENCE", 0.5)
    ids = waiting(environment) if place in (CLAIM, T2, T3) else []
    with in_thread({**environment, "WORKER_SEATS": "2"}) as client:
        wire.then_down, wire.only, wire.cut = True, place, when
        if place == RECEIVE:
            assert posted(client, 0) == 200
        if place == T1:
            refused = client.call(
                "POST", "/api/messages", json=body(0), headers={"Idempotency-Key": "k0"}
            )
            told(refused, "outcome-unknown")
        eventually(lambda: wire.cuts == 1 and wire.refused > 2, "an absence")
        wire.come_back()
        if place == RECEIVE:
            assert [posted(client, number) for number in range(MESSAGES)] == [200] * MESSAGES
            eventually(lambda: len(said(client)) == MESSAGES, "all of them")
            assert said(client) == [f"said {number}" for number in range(MESSAGES)]
        else:
            ids = ids or [client.send(f"k{n}", **body(n))["id"] for n in range(MESSAGES)]
            all_sent_once(client, vendor, ids)


def told(refused: requests.Response, kind: str) -> None:
    """The application is told what to do, as a problem."""
    assert refused.status_code == 503
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert kind in refused.json()["type"]


def posted(client: Client, number: int) -> int:
    """Somebody writes; the status of the answer."""
    form = inbound_form(sid(number + 1), f"said {number}")
    return client.webhook("/api/webhooks/sms", form).status_code


def said(client: Client) -> list[str]:
    """What is known to have been said, oldest first."""
    answer = client.call("GET", "/api/messages", params={"direction": "inbound"})
    return [message["body"] for message in answer.json()["items"]][::-1] if answer.ok else []


@dataclass
class Traffic:
    """An application and a person who go on until they are stopped, and repeat what failed."""

    client: Client
    accepted: dict[str, str] = field(default_factory=dict)
    received: list[str] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def sends(self, number: int) -> None:
        """One message after the other."""
        with requests.Session() as session:
            client = Client(self.client.url, session=session)
            for turn in self._turns():
                key, to = f"{number}-{turn}", f"+1555{number:03d}{turn:04d}"
                headers = {"Idempotency-Key": key}
                wanted = {"to": to, "body": key}
                answer = self._until_ok(
                    lambda h=headers, w=wanted: client.call(
                        "POST", "/api/messages", json=w, headers=h
                    )
                )
                self.accepted[key] = answer.json()["id"]

    def writes(self) -> None:
        """One answer after the other."""
        with requests.Session() as session:
            client = Client(self.client.url, session=session)
            for turn in self._turns():
                form = inbound_form(sid(turn + 1), f"said {turn}")
                self._until_ok(lambda f=form: client.webhook("/api/webhooks/sms", f))
                self.received.append(str(form["Body"]))

    def _turns(self) -> Iterator[int]:
        for turn in count():
            if self.stopping.wait(0.005):
                return
            yield turn

    def _until_ok(self, ask: Callable[[], requests.Response]) -> requests.Response:
        while not (answer := ask()).ok:
            told(answer, "")
            self.stopping.wait(0.05)
        return answer


def test_a_server_that_is_ended_and_started_again_loses_and_doubles_nothing(
    tmp_path: Path, postgres: Postgres, postgres_url: str, vendor: LoopbackVendor
) -> None:
    own = {"LEASE_TIME": "60s", "SEND_TIMEOUT": "10s", "LOOKUP_AFTER": "0", "BACKFILL_AFTER": "0"}
    with in_thread(variables(tmp_path, postgres_url, **twilio(vendor.url), **own)) as client:
        traffic = Traffic(client)
        with ThreadPoolExecutor(4) as pool:
            going = [pool.submit(traffic.sends, number) for number in range(3)]
            going.append(pool.submit(traffic.writes))
            try:
                for _ in range(2):
                    seen = len(traffic.accepted)
                    eventually(lambda s=seen: len(traffic.accepted) > s + 20, "some traffic")
                    postgres.stop()
                    postgres.start()
                seen = len(traffic.accepted)
                eventually(lambda: len(traffic.accepted) > seen + 20, "some traffic")
            finally:
                traffic.stopping.set()
            for one in going:
                one.result()
        for key, id_ in traffic.accepted.items():
            assert client.until(id_, "accepted")["body"] == key
        assert times(vendor) == dict.fromkeys(traffic.accepted, 1)
        eventually(lambda: len(inbound(client)) == len(traffic.received), "all that was said")
        assert inbound(client) == traffic.received


def inbound(client: Client) -> list[str]:
    """All that was said, oldest first, over as many pages as it takes."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/api/messages", direction="inbound", limit=100, **cursor)
        found += [message["body"] for message in page["items"]]
        if not page["next_cursor"]:
            return found[::-1]
        cursor = {"cursor": page["next_cursor"]}
