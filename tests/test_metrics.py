"""`GET /metrics`: what was done is counted, what waits is seen, and nobody is named."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed

from gateway.clock import SystemClock
from gateway.domain import Receipt
from gateway.errors import Ambiguous
from gateway.metrics import MOST, OTHER, Counts, Metrics, Spread
from gateway.scrape import KEPT, Looks
from gateway.store.database import Database
from gateway.store.reader import Reader
from tests.commands import Desk, Running
from tests.databases import Wire, sqlite_copy
from tests.running import (
    ACCOUNT,
    KEY,
    OURS,
    TOKEN,
    Client,
    Process,
    eventually,
    following,
    free_port,
    in_thread,
    inbound_form,
    sid,
    twilio,
    variables,
)
from tests.stored import Store
from tests.test_docs import rows
from tests.vendors import LoopbackVendor, Reply
from tests.working import Vendor, at_work, ended, raising, until

REFUSED = Reply(status=400, body=b'{"code": 21211, "message": "no such number", "status": 400}')
SMS = "/api/webhooks/sms"
PERSON = "+15550100001"
GUIDE = Path(__file__).parent.parent / "docs" / "operations.md"


@dataclass(frozen=True)
class Numbers:
    """What a scrape showed."""

    text: str

    @property
    def kinds(self) -> dict[str, str]:
        """The type of each metric, by its name."""
        return dict(re.findall(r"^# TYPE (\S+) (\S+)$", self.text, re.MULTILINE))

    def all(self, name: str, **labels: str) -> list[float]:
        """The values of a name that have these labels."""
        return [
            sample.value
            for family in parsed(self.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]

    def one(self, name: str, **labels: str) -> float:
        """The sum of them; 0 where there is none."""
        return sum(self.all(name, **labels))

    def labels(self) -> dict[str, set[str]]:
        """The names of the labels of each metric that has a value."""
        found: dict[str, set[str]] = {}
        for family in parsed(self.text):
            counted = family.type == "counter" and not family.name.endswith("_total")
            name = f"{family.name}_total" if counted else family.name
            for sample in family.samples:
                found.setdefault(name, set()).update({*sample.labels} - {"le"})
        return found


def scrape(client: Client, **headers: str) -> Numbers:
    """What Prometheus would see."""
    answer = client.call("GET", "/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return Numbers(answer.text)


def until_shown(client: Client, name: str, value: float, **labels: str) -> Numbers:
    """Waits until a number has come to a value."""

    def look() -> Numbers | None:
        numbers = scrape(client)
        return numbers if numbers.one(name, **labels) == value else None

    return eventually(look, f"{name} {labels} at {value}")


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path, vendor: LoopbackVendor) -> Iterator[Client]:
    """A gateway that sends through it."""
    with in_thread(variables(tmp_path, sqlite_url, **twilio(vendor.url))) as made:
        yield made


def test_sends_are_counted_by_what_they_came_to(client: Client, vendor: LoopbackVendor) -> None:
    before = scrape(client)
    assert before.all("gateway_attempts_total", provider="twilio", outcome="rejected") == [0]
    assert before.one("gateway_accepts_total") == 0
    taken = client.send(to=PERSON, body="hello")
    client.until(taken["id"], "accepted")
    vendor.plan.append(REFUSED)
    refused = client.send(to="+15550100002", body="hello")
    client.until(refused["id"], "failed")
    after = until_shown(client, "gateway_events_total", 1, type="message.failed")
    assert after.one("gateway_accepts_total", channel="sms", result="new") == 2
    assert after.one("gateway_attempts_total", provider="twilio", outcome="accepted") == 1
    assert after.one("gateway_attempts_total", provider="twilio", outcome="rejected") == 1
    assert after.one("gateway_attempts_total") == 2
    assert after.one("gateway_events_total", type="message.accepted") == 1
    assert after.one("gateway_send_duration_seconds_count", provider="twilio") == 2
    assert after.one("gateway_store_batch_items_sum", operation="accept") == 2
    assert after.one("gateway_store_batch_items_sum", operation="settle") == 2
    assert after.one("gateway_store_batch_duration_seconds_sum", operation="accept") > 0


def test_the_share_handed_over_within_ten_seconds_can_be_told(client: Client) -> None:
    for number in range(3):
        client.until(client.send(to=f"+1555010000{number}", body="hello")["id"], "accepted")
    numbers = scrape(client)
    labels = {"provider": "twilio", "channel": "sms"}
    assert numbers.one("gateway_handover_seconds_bucket", le="10.0", **labels) == 3
    assert numbers.one("gateway_handover_seconds_count", **labels) == 3
    assert 0 <= numbers.one("gateway_handover_seconds_sum", **labels) < 30


def test_a_repeated_request_is_told_from_a_new_one(client: Client) -> None:
    for _ in range(2):
        client.send("key-1", to=PERSON, body="hello")
    other = client.call(
        "POST",
        "/api/messages",
        json={"to": PERSON, "body": "another"},
        headers={"Idempotency-Key": "key-1"},
    )
    assert other.status_code == 422
    numbers = until_shown(client, "gateway_accepts_total", 1, result="conflict")
    assert numbers.one("gateway_accepts_total", result="new") == 1
    assert numbers.one("gateway_accepts_total", result="replayed") == 1


def test_requests_are_counted_by_route_and_not_by_url(client: Client) -> None:
    sent = client.send(to=PERSON, body="hello")
    client.message(sent["id"])
    assert client.call("GET", "/api/messages/msg_none").status_code == 404
    assert client.call("GET", "/wp-admin/x").status_code == 404
    assert client.call("PROPFIND", "/api/messages").status_code == 405
    numbers = scrape(client)
    name = "gateway_http_request_duration_seconds_count"
    assert numbers.one(name, method="POST", route="/api/messages", status="2xx") == 1
    assert numbers.one(name, method="GET", route="/api/messages/{id}", status="2xx") == 1
    assert numbers.one(name, method="GET", route="/api/messages/{id}", status="4xx") == 1
    assert numbers.one(name, method="GET", route="(no route)", status="4xx") == 1
    assert numbers.one(name, method=OTHER, route="/api/messages", status="4xx") == 1
    assert sent["id"] not in numbers.text and "wp-admin" not in numbers.text


def test_webhooks_are_counted_by_verdict(client: Client) -> None:
    form = inbound_form(sid(1))
    assert client.webhook(SMS, form).ok
    assert client.webhook(SMS, form).ok  # the vendor repeats itself
    assert client.webhook(SMS, form, token="another token").status_code == 403
    assert client.stranger().call("POST", SMS, data=form).status_code == 401
    assert client.stranger().call("POST", "/api/webhooks/nobody", data=form).status_code == 404
    off = client.stranger().call("POST", "/api/webhooks/aws-sns", data=form)
    assert off.status_code == 403
    numbers = until_shown(client, "gateway_inbox_total", 1, webhook="twilio", state="repeated")
    name = "gateway_webhooks_total"
    assert numbers.one(name, webhook="twilio", verdict="taken") == 2
    assert numbers.one(name, verdict="wrong_signature") == 1
    assert numbers.one(name, verdict="unsigned") == 1
    assert numbers.one(name, webhook=OTHER, verdict="unknown") == 1
    assert numbers.one(name, webhook="aws_sns", verdict="off") == 1
    assert numbers.one("gateway_inbox_total", webhook="twilio", state="parsed") == 1
    assert numbers.one("gateway_webhook_store_duration_seconds_count", webhook="twilio") == 2
    assert numbers.one("gateway_events_total", type="message.received") == 1


def test_nobody_can_be_found_in_it(client: Client, vendor: LoopbackVendor) -> None:
    sent = client.send("a-key-of-the-caller", to=PERSON, body="a private matter")
    client.until(sent["id"], "accepted")
    vendor.plan.append(REFUSED)
    refused = client.send(to="+15550100002", body="hello")
    client.until(refused["id"], "failed")
    client.webhook(f"{SMS}?attempt=att_1", inbound_form(sid(7), "another private matter"))
    client.webhook(SMS, inbound_form(sid(8)), token="wrong")
    client.call("POST", "/api/webhooks/twilio/conn_of_somebody")
    with following(client) as stream:
        assert stream.status == 200
        text = scrape(client).text + scrape(client, Accept="application/openmetrics-text").text
    secrets = (KEY, TOKEN, ACCOUNT, PERSON[1:], OURS[1:], "5550100002", sid(7), sid(8))
    said = ("private matter", "a-key-of-the-caller", "no such number", "somebody", "default")
    ids = re.findall(r"\b(?:msg|att|conv|inb|evt|lease|key)_\w*", text)
    assert [word for word in (*secrets, *said) if word in text] == []
    assert ids == []


def test_it_needs_a_key(client: Client) -> None:
    answer = client.stranger().call("GET", "/metrics")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "gateway_" not in answer.text
    assert client.call("POST", "/metrics").status_code == 405


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain; version=0.0.4", "text/html, application/json"]
)
def test_it_is_text_for_whoever_asks_for_nothing_else(client: Client, accept: str) -> None:
    answer = client.call("GET", "/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert {family.name for family in parsed(answer.text)} > {"gateway_database_up"}


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
        "text/plain;q=0.1, application/openmetrics-text",
        "application/openmetrics-text; version=nine; escaping=whatever",
    ],
)
def test_it_is_openmetrics_for_whoever_accepts_that(client: Client, accept: str) -> None:
    answer = client.call("GET", "/metrics", headers={"Accept": accept})
    kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.headers["content-type"] == kind
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.endswith("# EOF\n")
    assert {family.name for family in openmetrics(answer.text)} > {"gateway_database_up"}


def test_the_queue_is_seen_by_lane_provider_and_state(
    url: str, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    environment = variables(tmp_path, url, **twilio(vendor.url))
    with in_thread(environment, working=False) as client:
        for number in range(3):
            client.send(to=f"+1555010000{number}", body="hello")
        client.send(to=PERSON, body="now", priority="urgent")
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        client.send(to=PERSON, body="then", send_at=tomorrow, priority="low")
        held = client.send(to="+15550100008", body="held")
        gone = client.send(to="+15550100009", body="of a provider that was removed")
        database = Database(url)
        with database.write() as tx:
            tx.run("UPDATE queue SET quarantined = 1 WHERE message_id = ?", (held["id"],))
            tx.run(
                "UPDATE queue SET route = 'twilio,somebody', due_at = due_at - 60000 "
                "WHERE message_id = ?",
                (gone["id"],),
            )
        database.close()
        numbers = scrape(client)
    name, mine = "gateway_queue_messages", {"route": "twilio"}
    assert numbers.one(name, lane="normal", state="due", **mine) == 3
    assert numbers.one(name, lane="low", state="later", **mine) == 1
    assert numbers.one(name, lane="normal", state="held", **mine) == 1
    assert numbers.one(name, lane="urgent", state="due", **mine) == 1
    assert numbers.one(name, lane="normal", state="due", route="twilio,other") == 1
    assert numbers.one(name) == 7
    assert 60 <= numbers.one("gateway_queue_oldest_due_seconds", lane="normal") < 120
    assert 0 <= numbers.one("gateway_queue_oldest_due_seconds", lane="urgent") < 60
    assert numbers.all("gateway_queue_oldest_due_seconds", lane="low") == [0]


def test_lost_answers_are_seen(client: Client, vendor: LoopbackVendor) -> None:
    vendor.plan.append(Reply(status=503, body=b"{}"))
    client.until(client.send(to=PERSON, body="hello")["id"], "unknown")
    numbers = scrape(client)
    assert numbers.one("gateway_attempts_total", outcome="ambiguous") == 1
    assert numbers.one("gateway_unknown_attempts", provider="twilio") == 1
    assert numbers.one("gateway_handover_seconds_count") == 0


def test_an_open_breaker_is_seen(client: Client, vendor: LoopbackVendor) -> None:
    name = "gateway_breaker_state"
    assert scrape(client).all(name, provider="twilio", state="closed") == [1]
    vendor.always = Reply(status=401, body=b'{"code": 20003, "message": "no", "status": 401}')
    client.send(to=PERSON, body="hello")
    numbers = until_shown(client, name, 1, provider="twilio", state="open")
    assert numbers.all(name, provider="twilio", state="closed") == [0]
    assert numbers.one("gateway_attempts_total", outcome="account_refused") == 1
    assert numbers.all("gateway_blocked_senders", provider="twilio") == [0]


def test_open_streams_are_seen(client: Client) -> None:
    assert scrape(client).all("gateway_event_streams") == [0]
    with following(client):
        assert scrape(client).one("gateway_event_streams") == 1
    until_shown(client, "gateway_event_streams", 0)


@pytest.fixture
def process(
    tmp_path: Path, vendor: LoopbackVendor, postgres_url: str, wire: Wire
) -> Iterator[Process]:
    """`gateway serve`, on a PostgreSQL that can go away."""
    data = tmp_path / "data"
    data.mkdir()
    environment = variables(data, wire.url(postgres_url), **twilio(vendor.url))
    made = Process(environment, free_port(), tmp_path / "log")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def test_a_scrape_tells_what_it_can_while_the_database_is_away(
    process: Process, wire: Wire
) -> None:
    process.start()
    client = process.client
    client.until(client.send(to=PERSON, body="hello")["id"], "accepted")
    assert until_shown(client, "gateway_database_up", 1).all("gateway_unknown_attempts") == [0]
    wire.go_down()
    assert client.webhook(SMS, inbound_form(sid(1))).ok
    numbers = until_shown(client, "gateway_database_up", 0)
    assert numbers.one("gateway_attempts_total", outcome="accepted") == 1
    assert numbers.one("gateway_webhooks_total", verdict="taken") == 1
    assert numbers.one("gateway_spool_webhooks") == 1
    assert numbers.one("gateway_spool_bytes") > 0
    assert numbers.one("gateway_spool_moves_total", what="appended") == 1
    eventually(lambda: not scrape(client).all("gateway_unknown_attempts"), "no guess")
    wire.come_back()
    back = until_shown(client, "gateway_spool_moves_total", 1, what="drained")
    assert back.one("gateway_spool_webhooks") == 0
    until_shown(client, "gateway_database_up", 1)
    assert scrape(client).all("gateway_unknown_attempts") == [0]
    assert process.terminate() == 0


@dataclass
class Hand(SystemClock):
    """A clock that a test moves on."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.mark.anyio
async def test_many_scrapes_look_at_the_database_once_in_a_while(store: Store) -> None:
    clock, reader = Hand(), Reader(store.database)
    looks = Looks(reader, clock)
    store.accept()
    first = await looks.look()
    assert first is not None
    assert sum(first.waiting.values()) == 1
    store.accept()
    clock.seconds += KEPT - 0.1
    assert await looks.look() is first
    clock.seconds += 0.2
    second, *others = await asyncio.gather(*(looks.look() for _ in range(5)))
    assert second is not None
    assert sum(second.waiting.values()) == 2
    assert all(other is second for other in others)
    reader.close()
    clock.seconds += KEPT
    assert await looks.look() is None


def test_two_gateways_of_one_process_count_apart(
    client: Client, tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path
) -> None:
    folder = tmp_path_factory.mktemp("other")
    client.send(to=PERSON, body="hello")
    with in_thread(variables(folder, sqlite_copy(sqlite_file, folder))) as other:
        assert scrape(other).one("gateway_accepts_total") == 0
        assert scrape(other).all("gateway_attempts_total", provider="twilio") == []
    assert until_shown(client, "gateway_accepts_total", 1)


@pytest.mark.anyio
async def test_an_answer_that_came_late_is_counted_apart(store: Store) -> None:
    late: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    vendor = Vendor(raising(Ambiguous("no answer in time", code="timeout", late=late)))
    metrics = Metrics(SystemClock(), (), ["test"], ())
    id_ = store.accept()
    async with at_work(store, vendor, on_answer=metrics.answer):
        await ended(store, id_, status="unknown")
        assert dict(metrics.attempts.read())["test", "ambiguous"] == 1
        assert metrics.handovers.read() == []
        late.set_result(Receipt(provider_message_id="SM-late"))
        await ended(store, id_)
        await until(lambda: metrics.late.read() != [])
    assert metrics.late.read() == [(("test", "accepted"), 1)]
    assert sum(times for _, times in metrics.attempts.read()) == 1
    assert [labels for labels, _, _ in metrics.handovers.read()] == [("test", "sms")]


def test_no_metric_grows_without_end() -> None:
    counts, spread = Counts("a", "b", "x", "y"), Spread("c", "d", (1.0,), "x")
    for number in range(MOST + 50):
        counts.add(str(number), "y")
        spread.add(0.5, str(number))
    assert len(counts.read()) == len(spread.read()) == MOST + 1
    assert dict(counts.read())[OTHER, OTHER] == 50
    assert spread.read()[-1] == ((OTHER,), [50, 50], 25.0)


def test_every_metric_stands_in_the_guide(client: Client, vendor: LoopbackVendor) -> None:
    client.until(client.send(to=PERSON, body="hello")["id"], "accepted")
    client.webhook(SMS, inbound_form(sid(1)))
    numbers = until_shown(client, "gateway_inbox_total", 1)
    listed = {name: (kind, labels) for name, kind, labels in documented()}
    ours = {name: kind for name, kind in numbers.kinds.items() if name.startswith("gateway_")}
    assert {name: kind for name, (kind, _) in listed.items()} == ours
    for name, labels in numbers.labels().items():
        if name in listed:
            assert labels == listed[name][1], name


def documented() -> Iterator[tuple[str, str, set[str]]]:
    """Name, type and labels of each metric of the guide."""
    for name, kind, labels, _ in rows(GUIDE, 4):
        if name.startswith("`gateway_"):
            yield name.strip("`"), kind, set(re.findall(r"`(\w+)`", labels))


def test_a_worker_answers_on_a_port_of_its_own(
    tmp_path: Path, sqlite_url: str, vendor: LoopbackVendor
) -> None:
    port, up = free_port(), "gateway_database_up"
    desk = Desk(tmp_path, variables(tmp_path, sqlite_url, **twilio(vendor.url)))
    worker = Running(desk, desk.start("worker", "--metrics-port", str(port)))
    try:
        worker.wait_for("The worker runs")
        numbers = until_shown(Client(f"http://127.0.0.1:{port}", key=None), up, 1)
        assert numbers.all("gateway_attempts_total", outcome="accepted") == [0]
        assert numbers.all("gateway_spool_webhooks") == []
        assert worker.stop() == 0
    finally:
        worker.close()


def test_a_port_that_is_taken_is_said_in_a_sentence(tmp_path: Path, sqlite_url: str) -> None:
    desk = Desk(tmp_path, variables(tmp_path, sqlite_url))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = desk.run("worker", "--metrics-port", str(port))
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.err
