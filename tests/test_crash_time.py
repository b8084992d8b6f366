"""Workers that are slower than their lease, and clocks that are set while the gateway runs.

| | hold | resend |
|---|---|---|
| stopped after its claim, another takes over | sent once, by the other | the same |
| stopped after T2 | sent once: a lease that is over is not sent under | the same |
| stopped while the vendor has the request | `unknown`, until a callback | twice at most |
| stopped with the answer read | the late answer is stored | sent twice |
| a clock an hour ahead, or back, ours or the database's | once | twice at most |

Leases and due times are by the database's clock, the last look before the wire by the process's
own, which nobody sets.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway import clock
from gateway.store import database
from tests.crashing import Place, struck
from tests.running import (
    ACCOUNT,
    OURS,
    Client,
    Process,
    eventually,
    in_thread,
    inbound_form,
    sid,
    twilio,
    variables,
)
from tests.vendors import LoopbackVendor, Request

LEASE = {"LEASE_TIME": "6s", "SEND_TIMEOUT": "3s", "LOOKUP_AFTER": "0", "WORKER_POLL": "50ms"}
HOUR = timedelta(hours=1)


@pytest.fixture
def worker(postgres_url: str, tmp_path: Path, vendor: LoopbackVendor) -> Iterator[Process]:
    """`gateway worker`, which is stopped somewhere: one of several on one database."""
    data = tmp_path / "data"
    made = Process(
        variables(data, postgres_url, **twilio(vendor.url), **LEASE), 0, tmp_path / "log"
    )
    made.program = (*made.program[:-1], "worker")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def stopped(worker: Process) -> bool:
    """Whether the system says that it stands still."""
    assert worker.process is not None
    found = os.waitid(os.P_PID, worker.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    return found is not None


def stopping(worker: Process, vendor: LoopbackVendor) -> None:
    """The vendor stops the first who posts to it."""

    def strike(_: Request) -> None:
        vendor.witness = None
        assert worker.process is not None
        worker.process.send_signal(signal.SIGSTOP)

    vendor.witness = strike


SLOW = {  # how it may end, and the number of requests
    (Place.AFTER_CLAIM, "hold"): (("accepted",), 1),
    (Place.AFTER_T2, "hold"): (("accepted",), 1),
    (Place.AFTER_T2, "resend"): (("accepted",), 1),
    (Place.REQUEST, "hold"): (("unknown", "accepted"), 1),  # its own time is over, or just not
    (Place.ANSWERED, "hold"): (("accepted",), 1),
    (Place.ANSWERED, "resend"): (("accepted",), 2),
}
HELD = (Place.AFTER_T2, Place.REQUEST, Place.ANSWERED)
BY_THE_OTHER = {
    (place, policy): ("unknown",) if place in HELD and policy == "hold" else ("accepted",)
    for place, policy in SLOW
}


@pytest.mark.parametrize(
    ("place", "policy"), SLOW, ids=[f"{place.name.lower()}-{policy}" for place, policy in SLOW]
)
def test_a_worker_whose_lease_ran_out_does_no_harm_and_its_answer_counts(
    place: Place, policy: str, worker: Process, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    other = worker.environment | {"DATA_DIR": str(tmp_path / "other")}
    ends, times = SLOW[place, policy]
    if place is Place.REQUEST:
        stopping(worker, vendor)
    else:
        struck(worker, place, how=signal.SIGSTOP)
    with in_thread(other, working=False) as client:
        id_ = client.send(to="+15550100001", body="hello", on_unknown=policy)["id"]
    worker.spawn()
    assert worker.process is not None
    eventually(lambda: stopped(worker), "a worker that stands still", within=60)
    with in_thread(other) as client:
        client.until(id_, *BY_THE_OTHER[place, policy])
        worker.process.send_signal(signal.SIGCONT)
        assert worker.terminate() == 0  # it goes on with what it was at, and has it stored
        message = client.until(id_, *ends)
        assert vendor.count == times
        assert answered(client, vendor, message)["status"] == "delivered"
    assert vendor.count == times


def answered(client: Client, vendor: LoopbackVendor, message: dict[str, Any]) -> dict[str, Any]:
    """The vendor says that what it was asked first has arrived."""
    request = vendor.requests[0]
    (callback,) = request.form["StatusCallback"]
    parts = urlsplit(callback)
    form = {
        "MessageSid": f"SM{request.given}",
        "AccountSid": ACCOUNT,
        "From": OURS,
        "To": message["to"],
        "MessageStatus": "delivered",
    }
    assert client.webhook(f"{parts.path}?{parts.query}", form).ok
    return client.message(message["id"])


@dataclass
class Clocks:
    """The clock of the gateway, that of its database, or both."""

    monkeypatch: pytest.MonkeyPatch
    dialect: str
    ours: bool
    theirs: bool

    def set(self, by: timedelta) -> None:
        """Sets them ahead, or back, from what is right."""
        milliseconds = int(by.total_seconds() * 1000)
        if self.ours:
            self.monkeypatch.setattr(clock.SystemClock, "now", lambda _: datetime.now(UTC) + by)
            shifted = Shifted(milliseconds * 1_000_000)
            self.monkeypatch.setattr(clock, "time", shifted)
        if self.theirs:
            right = RIGHT[self.dialect]
            self.monkeypatch.setitem(database.NOW, self.dialect, f"{right} + {milliseconds}")


RIGHT = dict(database.NOW)


@dataclass
class Shifted:
    """The module `time`, of a machine whose clock is wrong."""

    by: int

    def __getattr__(self, name: str) -> Any:
        return getattr(REAL, name)

    def time_ns(self) -> int:
        """Nanoseconds since 1970."""
        return int(REAL.time_ns()) + self.by


REAL = clock.time
WHOSE = {"ours": (True, False), "the-databases": (False, True), "both": (True, True)}
SWEPT = {"LEASE_TIME": "14s", "SEND_TIMEOUT": "10s", "LOOKUP_AFTER": "0"}
SLOWLY = 4.0  # seconds; so long that somebody looks after leases meanwhile


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "back"])
@pytest.mark.parametrize("whose", WHOSE)
def test_a_clock_that_is_set_while_messages_are_under_way_loses_and_doubles_nothing(
    whose: str, hours: int, dialect: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks(monkeypatch, dialect, *WHOSE[whose])
    with (
        LoopbackVendor(latency=SLOWLY) as vendor,
        in_thread(variables(tmp_path, url, **twilio(vendor.url), **SWEPT)) as client,
    ):
        ids = [sent(client, "hold 1"), sent(client, "resend 2")]
        assert said(client, 1)
        eventually(lambda: vendor.count == 2, "two requests under way")
        clocks.set(hours * HOUR)
        vendor.latency = 0.0
        assert ids == [sent(client, "hold 1"), sent(client, "resend 2")]
        ids += [sent(client, "hold 3"), sent(client, "resend 4")]
        assert said(client, 1)  # the vendor repeats itself
        assert said(client, 2)
        for id_ in ids:
            client.until(id_, "accepted")
        clocks.set(timedelta(0))
        ids += [sent(client, "hold 5")]
        client.until(ids[-1], "accepted")
        heard = client.get("/api/messages", direction="inbound")["items"]
        assert sorted(message["body"] for message in heard) == ["said 1", "said 2"]
        done = [client.message(id_) for id_ in ids]
    assert len(set(ids)) == 5
    for message in done:
        times = [request.field("Body") for request in vendor.requests].count(message["body"])
        assert 1 <= times <= (2 if message["body"].startswith("resend") else 1)
        assert message["status"] == "accepted"


def sent(client: Client, body: str) -> str:
    """Asks for a message, with a key of its own; its id."""
    policy, _, number = body.partition(" ")
    to = f"+1555010000{number}"
    return str(client.send(body, to=to, body=body, on_unknown=policy)["id"])


def said(client: Client, number: int) -> bool:
    """Somebody writes."""
    form = inbound_form(sid(number), f"said {number}")
    return client.webhook("/api/webhooks/sms", form).ok
