"""A real `gateway serve` is killed at each place of delivery; another goes on with its data.

The vendor's own count says what was sent. What is left, and what becomes of it:

| killed | left | on_unknown=hold | resend |
|---|---|---|---|
| before T1's COMMIT | nothing; no 202 was given | the repetition is sent, once | the same |
| after T1, before the 202 | the message, queued | sent once, also if repeated | the same |
| the same, handed over | a lease with an open attempt | `unknown`; it was never sent | sent once |
| before or after the claim's COMMIT | at most a lease | sent once | the same |
| before T2's COMMIT | a lease | sent once | the same |
| after T2 | a lease with an open attempt | `unknown`; it was never sent | sent once |
| the vendor has the request | the same | `unknown`; it was sent once | sent twice |
| its answer is read, before T3's COMMIT | the same | `unknown`; it was sent once | sent twice |
| after T3 | the outcome | sent once | the same |
| after T3 that began the next attempt | a lease with an open attempt | as after T2 | as there |
| before a webhook's COMMIT | nothing; no 2xx | the repetition is stored | |
| after it, in the spool or out of it | the webhook | stored once, in its order | |

Whatever is `unknown` is settled by the vendor's callback for its attempt.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.crashing import Place, struck
from tests.databases import locked
from tests.running import (
    ACCOUNT,
    OURS,
    Client,
    Process,
    eventually,
    free_port,
    in_thread,
    inbound_form,
    sid,
    twilio,
    variables,
)
from tests.stored import Store
from tests.vendors import LoopbackVendor, Reply, Request

SENDING = {"WORKER_POLL": "50ms", "LOOKUP_AFTER": "0", "BACKFILL_AFTER": "0"}
SOON = timedelta(seconds=2)  # longer than four accepts take
ONCE, NEVER, PERHAPS = ("accepted", 1), ("unknown", 0), ("unknown", 1)


@dataclass(frozen=True)
class Case:
    """A place, how a message gets there, and what becomes of one that was killed there."""

    place: Place
    claimed: bool
    becomes: tuple[str, int]  # the status and the number of requests, of one that is held

    def __str__(self) -> str:
        return f"{self.place.name.lower()}-{'claimed' if self.claimed else 'handed'}"


CASES = [
    Case(Place.BEFORE_T1, False, ONCE),
    Case(Place.AFTER_T1, False, NEVER),
    Case(Place.AFTER_T1, True, ONCE),
    Case(Place.BEFORE_CLAIM, True, ONCE),
    Case(Place.AFTER_CLAIM, True, ONCE),
    Case(Place.BEFORE_T2, True, ONCE),
    Case(Place.AFTER_T2, True, NEVER),
    Case(Place.REQUEST, False, PERHAPS),
    Case(Place.ANSWERED, True, PERHAPS),
    Case(Place.BEFORE_T3, True, PERHAPS),
    Case(Place.AFTER_T3, True, ONCE),
]


@pytest.fixture
def environment(url: str, tmp_path: Path, vendor: LoopbackVendor) -> dict[str, str]:
    """A gateway, on each database in turn."""
    return variables(tmp_path / "data", url, **twilio(vendor.url), **SENDING)


@pytest.fixture
def process(environment: dict[str, str], tmp_path: Path) -> Iterator[Process]:
    """`gateway serve`."""
    made = Process(environment, free_port(), tmp_path / "log")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def bodies(case: Case) -> dict[str, dict[str, Any]]:
    """What is sent, by its key: two that are held where it is unknown, and two that are not."""
    waits = case.claimed and case.place is Place.AFTER_T1
    later = {"send_at": (datetime.now(UTC) + SOON).isoformat()} if waits else {}
    return {
        f"{policy}-{number}": {
            "to": f"+1555010{number:04d}",
            "body": f"{policy}-{number}",
            "on_unknown": policy,
            **later,
        }
        for number, policy in enumerate(("hold", "resend", "hold", "resend"), 1)
    }


def asked(client: Client, wanted: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Sends all at once; the ids of those that were answered."""

    def ask(pair: tuple[str, dict[str, Any]]) -> list[tuple[str, str]]:
        try:
            with requests.Session() as session:
                sent = Client(client.url, session=session).send(pair[0], **pair[1])
                return [(pair[0], sent["id"])]
        except requests.ConnectionError:
            return []

    with ThreadPoolExecutor(len(wanted)) as pool:
        return {key: id_ for one in pool.map(ask, wanted.items()) for key, id_ in one}


def ended(process: Process) -> None:
    """It was killed, at the place and by nobody else."""
    child = process.process
    assert child is not None
    eventually(lambda: child.poll() is not None, "the end of the process", within=60)
    assert child.returncode == -signal.SIGKILL, process.log.read_text()[-2000:]


def killing(process: Process, vendor: LoopbackVendor) -> None:
    """The vendor kills whoever posts to it, once."""

    def strike(_: Request) -> None:
        vendor.witness = None
        assert process.process is not None
        os.kill(process.process.pid, signal.SIGKILL)

    vendor.witness = strike


def requests_of(vendor: LoopbackVendor, key: str) -> list[Request]:
    """The vendor's count."""
    return [request for request in vendor.requests if request.field("Body") == key]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_message_that_was_killed_there_is_neither_lost_nor_sent_twice(
    case: Case,
    process: Process,
    environment: dict[str, str],
    store: Store,
    vendor: LoopbackVendor,
) -> None:
    if case.place is Place.REQUEST:
        killing(process, vendor)
    else:
        struck(process, case.place)
    if case.claimed and case.place is not Place.AFTER_T1:
        wanted = bodies(case)
        with in_thread(environment, working=False) as client:
            first = asked(client, wanted)
        process.spawn()
    else:
        process.start()
        wanted = bodies(case)
        first = asked(process.client, wanted)
    ended(process)
    store.change("UPDATE queue SET lease_until = 1 WHERE lease_until > 0")  # its time passes
    with in_thread(environment) as client:
        ids = {key: client.send(key, **body)["id"] for key, body in wanted.items()}
        assert all(ids[key] == id_ for key, id_ in first.items())
        done = {key: client.until(id_, *statuses(key)) for key, id_ in ids.items()}
        found = {key: (m["status"], len(requests_of(vendor, key))) for key, m in done.items()}
        assert len(set(ids.values())) == len(wanted)
        assert hit(case, found, done)
        for key, message in done.items():
            check(message, *found[key])
        for key in wanted:
            deliver(client, vendor, key, ids[key])


def test_one_that_goes_on_to_the_next_provider_is_killed_there_as_after_its_t2(
    process: Process, environment: dict[str, str], store: Store, vendor: LoopbackVendor
) -> None:
    environment |= {"SMS_PROVIDERS": "twilio,console"}
    vendor.always = Reply(status=429, body=b'{"code": 20429, "status": 429}')
    struck(process, Place.AFTER_T3)
    process.start()
    people = {"hold": "+15550100001", "resend": "+15550100002"}
    wanted = {key: {"to": to, "body": key, "on_unknown": key} for key, to in people.items()}
    asked(process.client, wanted)
    ended(process)
    store.change("UPDATE queue SET lease_until = 1 WHERE lease_until > 0")
    with in_thread(environment) as client:
        ids = {key: client.send(key, **body)["id"] for key, body in wanted.items()}
        ends = {"hold": ("unknown", "delivered"), "resend": ("delivered",)}
        done = {key: client.until(id_, *ends[key]) for key, id_ in ids.items()}
    struck_at = [one for one in done.values() if len(one["attempts"]) > 1]
    assert any(interrupted(one["attempts"][1]) for one in struck_at)
    for key, one in done.items():
        providers = [attempt["provider"] for attempt in one["attempts"]]
        assert providers[:2] in (["twilio", "console"], ["twilio"])
        lost = interrupted(one["attempts"][-1])
        assert one["status"] == ("unknown" if lost else "delivered")
        assert not lost or key == "hold"
        assert len(requests_of(vendor, key)) <= providers.count("twilio")


def interrupted(attempt: dict[str, Any]) -> bool:
    """Whether nobody can tell what became of it."""
    return bool(attempt["error"]) and attempt["error"]["code"] == "interrupted"


def statuses(key: str) -> tuple[str, ...]:
    """How a message may end: what is sent again where it is unknown is taken in the end."""
    return ("accepted", "unknown") if key.startswith("hold") else ("accepted",)


def hit(case: Case, found: dict[str, tuple[str, int]], done: dict[str, Any]) -> bool:
    """Whether somebody was where the process was killed, and is what the table says."""
    if case.place is Place.AFTER_T3:
        return ONCE in found.values()
    if case.becomes == ONCE:
        return set(found.values()) == {ONCE}
    again = ("accepted", case.becomes[1] + 1)
    return any(
        found[key] == (again if key.startswith("resend") else case.becomes)
        and done[key]["attempts"][0]["error"]["code"] == "interrupted"
        for key in found
        if done[key]["attempts"][0]["error"]
    )


def check(message: dict[str, Any], status: str, times: int) -> None:
    """What is held was sent at most once, and is known to be unknown; what is sent again was on
    the wire once more at most."""
    attempts = message["attempts"]
    if message["body"].startswith("hold"):
        assert len(attempts) == 1
        assert times == 1 if status == "accepted" else times <= 1
    else:
        assert 1 <= times <= len(attempts) <= 2
    for attempt in attempts[:-1] if status == "accepted" else attempts:
        assert (attempt["status"], attempt["error"]["code"]) == ("unknown", "interrupted")


def deliver(client: Client, vendor: LoopbackVendor, key: str, id_: str) -> None:
    """The vendor says of the first request that it arrived: also of one that was cut off."""
    found = requests_of(vendor, key)
    if not found:
        return
    (callback,) = found[0].form["StatusCallback"]
    parts = urlsplit(callback)
    form = {
        "MessageSid": f"SM{found[0].given}",
        "AccountSid": ACCOUNT,
        "From": OURS,
        "To": str(found[0].field("To")),
        "MessageStatus": "delivered",
    }
    assert client.webhook(f"{parts.path}?{parts.query}", form).ok
    told = client.message(id_)
    assert told["status"] == "delivered"
    assert len(requests_of(vendor, key)) == len(found)


TAKEN = [Place.BEFORE_RECEIVE, Place.AFTER_RECEIVE, Place.SPOOLED, Place.DRAINED]


@pytest.mark.parametrize("place", TAKEN, ids=lambda place: place.name.lower())
def test_a_webhook_that_was_killed_there_is_stored_once_and_in_its_order(
    place: Place, url: str, process: Process, environment: dict[str, str]
) -> None:
    struck(process, place, nth=1 if place is Place.DRAINED else 3)
    process.start()
    forms = [inbound_form(sid(number), f"said {number}") for number in range(1, 5)]
    spooling = place in (Place.SPOOLED, Place.DRAINED)
    with locked(url) if spooling else nullcontext():
        taken = [form["MessageSid"] for form in forms if posted(process.client, form)]
    ended(process)
    assert len(taken) == (4 if place is Place.DRAINED else 2)
    with in_thread(environment) as client:
        eventually(lambda: client.stranger().call("GET", "/health/ready").ok, "ready")
        for form in forms[len(taken) :]:
            assert posted(client, form)
        eventually(lambda: len(said(client)) == len(forms), "all of them")
        assert said(client) == [form["Body"] for form in forms]
        assert Counter(said(client)).most_common(1)[0][1] == 1


def posted(client: Client, form: dict[str, str]) -> bool:
    """Whether the vendor heard a 2xx."""
    try:
        return client.webhook("/api/webhooks/sms", form).ok
    except requests.ConnectionError:
        return False


def said(client: Client) -> list[str]:
    """What a person is known to have said, oldest first."""
    found = client.get("/api/messages", direction="inbound")["items"]
    return [message["body"] for message in found][::-1]
