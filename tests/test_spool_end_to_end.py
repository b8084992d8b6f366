"""Webhooks while the database is away: real servers, real databases, Twilio's own signature.

Whatever was answered 2xx is in the conversations in the end, once, in the order in which it came.
"""

from __future__ import annotations

import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from gateway._spool_intake import PATIENCE
from gateway.store.database import Database
from tests.databases import Wire, locked
from tests.running import (
    Client,
    Process,
    eventually,
    free_port,
    in_thread,
    inbound_form,
    sid,
    variables as environment,
)

ROUTE = "/api/webhooks/sms"
AT_ONCE = 1.5  # seconds; less than the patience, and more than a busy machine takes


@dataclass
class Outage:
    """A database, and the end of it for as long as the block runs."""

    url: str
    away: Callable[[], Any]


@contextmanager
def down(wire: Wire) -> Iterator[None]:
    """The server cannot be reached."""
    wire.go_down()
    try:
        yield
    finally:
        wire.come_back()


@pytest.fixture
def outage(dialect: str, url: str, request: pytest.FixtureRequest) -> Outage:
    """Each database with its own way to be away."""
    if dialect == "sqlite":
        return Outage(url, lambda: locked(url))
    wire: Wire = request.getfixturevalue("wire")
    return Outage(wire.url(url), lambda: down(wire))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder."""
    made = tmp_path / "data"
    made.mkdir()
    return made


@pytest.fixture
def process(outage: Outage, data: Path, tmp_path: Path) -> Iterator[Process]:
    """`gateway serve`, on each database in turn."""
    made = Process(environment(data, outage.url), free_port(), tmp_path / "log")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


@dataclass
class Person:
    """Somebody who writes one message after the other, and notes which were taken and how fast."""

    client: Client
    number: int

    def __post_init__(self) -> None:
        self.said: list[str] = []
        self.taken: list[str] = []
        self.times: list[float] = []

    def says(self, number: int, **more: str) -> int:
        """One more message; the status of the answer."""
        text = f"{self.number}-{number:04d}"
        one = sid(self.number * 100_000 + number)
        form = inbound_form(one, text, From=f"+1555010{self.number:04d}", **more)
        self.said.append(text)
        begin = time.monotonic()
        answer = self.client.webhook(ROUTE, form)
        self.times.append(time.monotonic() - begin)
        if answer.ok:
            self.taken.append(text)
        return answer.status_code


def stored(client: Client, person: Person) -> list[str]:
    """What a person is known to have said, oldest first."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get(
            "/api/messages", **{"from": f"+1555010{person.number:04d}"}, limit=100, **cursor
        )
        found += [message["body"] for message in page["items"]]
        if not page["next_cursor"]:
            return found[::-1]
        cursor = {"cursor": page["next_cursor"]}


def ready(client: Client) -> requests.Response:
    """What a load balancer hears."""
    return client.stranger().call("GET", "/health/ready")


def spooled(client: Client) -> int:
    """How many webhooks wait, of a gateway that is ready."""
    answer = ready(client)
    return int(answer.json()["spool"]["webhooks"]) if answer.ok else -1


def in_the_end(client: Client, *people: Person) -> None:
    """All that was taken is there, once, in order, and the spool is empty. What was answered 503
    may be there too."""
    eventually(lambda: spooled(client) == 0, "an empty spool", 30)
    for person in people:
        found = stored(client, person)
        assert [text for text in found if text in person.taken] == person.taken
        assert set(found) <= set(person.said)
        assert len(set(found)) == len(found)


def inbox(url: str) -> list[dict[str, Any]]:
    """The raw inbox."""
    database = Database(url)
    try:
        with database.read() as tx:
            rows = tx.run("SELECT * FROM inbox ORDER BY id").fetchall()
            return [dict(row._mapping) for row in rows]
    finally:
        database.close()


def test_webhooks_are_taken_while_the_database_is_away_and_stored_once_it_is_back(
    outage: Outage, data: Path
) -> None:
    with in_thread(environment(data, outage.url), working=False) as client:
        person = Person(client, 1)
        assert person.says(0) == 200
        assert not list((data / "spool").rglob("*.bad"))
        with outage.away():
            begin = time.time()
            codes = [person.says(number) for number in range(1, 20)]
            assert set(codes) == {200}
            assert person.times[1] < PATIENCE + AT_ONCE
            assert max(person.times[2:]) < AT_ONCE  # nobody waits for what is known to be away
            end = time.time()
            eventually(lambda: not ready(client).ok, "not ready")
            time.sleep(1.0)  # so that the time of receipt differs from the time of storing
        back = time.time()
        in_the_end(client, person)
        assert person.says(20) == 200
        assert person.times[-1] < AT_ONCE
        assert stored(client, person) == person.taken
    rows = inbox(outage.url)
    assert len(rows) == 21
    assert len({row["key"] for row in rows}) == 21
    times = [row["received_at"] / 1000 for row in rows[2:20]]
    assert begin - 1 <= min(times) <= max(times) <= end + 1 < back + 1
    assert all("signature" not in row["headers"] for row in rows)
    assert list((data / "spool").rglob("*.seg")) == []


def test_many_people_write_across_an_outage_and_nothing_is_lost_doubled_or_turned_round(
    outage: Outage, data: Path
) -> None:
    stopping = threading.Event()

    def write(client: Client, number: int) -> Person:
        with requests.Session() as session:
            person, count = Person(Client(client.url, session=session), number), 0
            while not stopping.is_set():
                assert person.says(count) == 200
                count += 1
                time.sleep(0.02)
            return person

    with in_thread(environment(data, outage.url), working=False) as client:
        with ThreadPoolExecutor(6) as pool:
            futures = [pool.submit(write, client, number) for number in range(1, 7)]
            try:
                for length in (3.0, 0.3, 6.0):  # shorter and longer than every patience
                    time.sleep(0.5)
                    with outage.away():
                        time.sleep(length)
                time.sleep(1.0)  # the spool empties while they go on
            finally:
                stopping.set()
            people = [future.result() for future in futures]
        in_the_end(client, *people)
    said = [text for person in people for text in person.taken]
    assert len(said) > 100
    assert Counter(row["body"] for row in inbox(outage.url)).most_common(1)[0][1] == 1
    assert len(inbox(outage.url)) == len(said)


def test_a_killed_process_stores_what_it_spooled_before_it_is_ready_again(
    process: Process, outage: Outage
) -> None:
    process.start()
    people = [Person(process.client, number) for number in (1, 2)]
    with outage.away():
        for number in range(40):
            assert [person.says(number) for person in people] == [200, 200]
        process.kill()
    process.start()
    eventually(lambda: ready(process.client).ok, "ready")
    for person in people:
        assert stored(process.client, person) == person.taken
    in_the_end(process.client, *people)
    assert "webhooks of an earlier process" in process.log.read_text()
    assert process.terminate() == 0


def test_it_is_not_ready_while_what_was_spooled_cannot_be_stored(
    outage: Outage, data: Path
) -> None:
    with in_thread(environment(data, outage.url), working=False) as client, outage.away():
        person = Person(client, 1)
        assert person.says(1) == 200
        eventually(lambda: list((data / "spool").rglob("*.seg")), "the spool's file")
        frozen = {p: p.read_bytes() for p in (data / "spool").rglob("*.seg")}
    with in_thread(environment(data, outage.url), working=False) as client:
        in_the_end(client, person)
    for path, content in frozen.items():  # a crash before it was noted: the same once more
        path.write_bytes(content)
    before = inbox(outage.url)
    with locked(outage.url), in_thread(environment(data, outage.url), working=False) as client:
        answer = ready(client)
        assert answer.status_code == 503
        assert "1 webhooks wait" in answer.json()["detail"]
    with in_thread(environment(data, outage.url), working=False) as client:
        eventually(lambda: ready(client).ok, "ready")
        assert stored(client, person) == person.taken
    assert inbox(outage.url) == before


def test_what_is_stored_already_changes_nothing_when_it_comes_out_of_the_spool(
    outage: Outage, data: Path
) -> None:
    with in_thread(environment(data, outage.url), working=False) as client:
        person, again = Person(client, 1), Person(client, 1)
        assert person.says(1) == 200
        events = client.get("/api/conversations")["items"]
        with outage.away():
            assert [again.says(1) for _ in range(3)] == [200] * 3
        eventually(lambda: spooled(client) == 0, "an empty spool")
        assert stored(client, person) == person.taken
        assert client.get("/api/conversations")["items"] == events
    assert len(inbox(outage.url)) == 1


def test_a_webhook_whose_adapter_or_connection_is_gone_waits_in_the_inbox(
    process: Process, outage: Outage, data: Path
) -> None:
    process.start()
    with outage.away():
        assert Person(process.client, 1).says(1) == 200
        process.kill()
    without = environment(data, outage.url, TWILIO_AUTH_TOKEN="")
    with in_thread(without, working=False) as client:
        eventually(lambda: spooled(client) == 0, "an empty spool")
    (row,) = inbox(outage.url)
    assert (row["state"], row["detail"]) == ("quarantined", "no such webhook")
    assert b"1-0001" in bytes(row["body"])
    assert "content-type" in row["headers"]


def test_a_full_spool_answers_503_and_takes_webhooks_again_when_the_database_does(
    outage: Outage, data: Path
) -> None:
    with in_thread(environment(data, outage.url, SPOOL_MAX_BYTES="65536"), working=False) as client:
        person = Person(client, 1)
        with outage.away():
            codes = [person.says(number, Note="x" * 9000) for number in range(1, 12)]
            assert codes[0] == 200
            assert codes[-1] == 503
            assert set(codes) == {200, 503}
        in_the_end(client, person)
        assert person.says(12) == 200


def test_a_disk_that_takes_nothing_more_answers_503_and_goes_on_when_there_is_room(
    process: Process, outage: Outage
) -> None:
    process.start()
    person = Person(process.client, 1)
    assert person.says(0) == 200
    assert process.process is not None
    pid = process.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    with outage.away():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (16, hard))
        assert person.says(1) == 503
        assert person.says(2) == 503
        assert ready(process.client).status_code == 503
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert person.says(3) == 200
    in_the_end(process.client, person)
    assert ready(process.client).ok
    assert process.terminate() == 0
