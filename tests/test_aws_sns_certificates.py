"""Certificates are fetched seldom, once for many, within bounds; a failure is no forgery."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from gateway.errors import CannotVerifyNow, SignatureInvalid
from tests.running import eventually
from tests.sns_signing import (
    FILE,
    HOST,
    NOW,
    SINCE,
    TOPIC,
    UNTIL,
    URL,
    Source,
    certified,
    elliptic,
    hook,
    notification,
    request,
    said,
    signer,
    source,
)
from tests.vendors import Fault, LoopbackVendor, Reply
from tests.webhook_cases import changed
from webhooks import _sns_certificates, _sns_lanes
from webhooks._sns_http import LIMIT, Unanswered, fetch, in_thread

pytestmark = pytest.mark.anyio

MADE = request(notification(said()))


def numbered(number: int) -> str:
    """Another URL of a certificate at the same host."""
    return f"{HOST}/SimpleNotificationService-{number:032x}.pem"


async def put_off(webhook: object, made: object = MADE) -> str:
    """Why a request cannot be verified now."""
    with pytest.raises(CannotVerifyNow) as caught:
        await webhook.verify(made)  # type: ignore[attr-defined]
    return caught.value.detail


async def test_a_certificate_is_fetched_once() -> None:
    webhook = hook(fetch_ := source())
    for _ in range(5):
        await webhook.verify(MADE)
    assert fetch_.asked == [URL]


async def test_twenty_at_once_wait_for_one_fetch() -> None:
    fetch_ = source()
    fetch_.gate = threading.Event()
    webhook = hook(fetch_)
    tasks = [asyncio.create_task(webhook.verify(MADE)) for _ in range(20)]
    while not fetch_.asked:
        await asyncio.sleep(0.01)
    tasks[0].cancel()  # one of them goes away: the others do not mind
    fetch_.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert len({verified.key for verified in results[1:]}) == 1  # type: ignore[union-attr]
    assert fetch_.asked == [URL]


async def test_a_failure_is_remembered_for_a_moment_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = hook(fetch_ := Source({URL: Unanswered("ConnectionError")}))
    for _ in range(3):
        assert "ConnectionError" in await put_off(webhook)
    assert fetch_.asked == [URL]
    fetch_.pages[URL] = signer().pem
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + _sns_certificates.FAILED_FOR + 0.1)
    assert (await webhook.verify(MADE)).key
    assert fetch_.asked == [URL, URL]
    assert _sns_certificates.FAILED_FOR <= 10


async def test_only_so_many_new_names_are_fetched_within_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = hook(fetch_ := source())
    await webhook.verify(MADE)
    for number in range(40):
        await put_off(webhook, request(notification(said()), url=numbered(number)))
    assert len(fetch_.asked) == _sns_lanes.NEW <= 20
    assert (await webhook.verify(MADE)).key  # what is known stays known
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 60.1)
    await put_off(webhook, request(notification(said()), url=numbered(99)))
    assert len(fetch_.asked) == _sns_lanes.NEW + 1
    assert _sns_lanes.NEW + _sns_lanes.AGAIN + _sns_lanes.FAILED <= 60


@dataclass
class Clock:
    """Stands for the module `time` of the code under test alone."""

    now: float = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that is moved by hand."""
    made = Clock()
    monkeypatch.setattr(_sns_certificates, "time", made)
    return made


async def flooded(
    clock: Clock, fetch_: Source, deliveries: dict[int, str], seconds: int
) -> tuple[dict[int, bool], list[tuple[float, str]]]:
    """Under 300 made-up names a second: which deliveries got through, and each fetch's time."""
    times: list[tuple[float, str]] = []

    def timed(url: str) -> bytes:
        times.append((clock.now, url))
        return fetch_(url)

    certificates, got, number = _sns_certificates.Certificates(timed, {}), {}, 1 << 100
    for tick in range(seconds):
        clock.now += 1
        for _ in range(300):
            number += 1
            with pytest.raises(CannotVerifyNow):
                await certificates.at(numbered(number))
        if tick in deliveries:
            try:
                got[tick] = bool(await certificates.at(deliveries[tick]))
            except CannotVerifyNow:
                got[tick] = False
    return got, times


async def test_a_flood_of_made_up_names_delays_a_genuine_one_until_it_is_repeated(
    clock: Clock,
) -> None:
    at = {5: URL, 25: URL, 45: URL, 65: URL}
    got, times = await flooded(clock, source(), at, 70)
    assert got == {5: False, 25: True, 45: True, 65: True}
    assert [url for _, url in times].count(URL) == 1
    for begin, _ in times:
        assert sum(begin <= then < begin + 60 for then, _ in times) <= 60


async def test_a_fetch_that_fails_in_a_flood_is_made_again_at_the_next_repetition(
    clock: Clock,
) -> None:
    plan = [Unanswered("ReadTimeout")]
    page = lambda: signer().pem if not plan else refuse(plan.pop())  # noqa: E731
    got, _ = await flooded(clock, Source({URL: page}), {5: URL, 25: URL, 45: URL}, 46)
    assert got == {5: False, 25: False, 45: True}


def refuse(error: Exception) -> bytes:
    """Raises."""
    raise error


async def test_another_region_s_flood_takes_no_turn_of_ours(clock: Clock) -> None:
    there = URL.replace("eu-west-1", "us-east-1")
    got, _ = await flooded(clock, source((there, signer().pem)), {5: there}, 6)
    assert got == {5: True}


async def test_what_is_remembered_of_made_up_names_is_bounded(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sns_lanes, "SEEN", 100)
    monkeypatch.setattr(_sns_certificates, "REMEMBERED", 10)
    certificates = _sns_certificates.Certificates(Source(), {})
    for number in range(300):
        with pytest.raises(CannotVerifyNow):
            await certificates.at(numbered(number))
    assert len(certificates._failed) == 10
    assert len(certificates._lanes._seen) == 100


async def test_the_memory_is_bounded_and_the_used_ones_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, passed = time.monotonic(), 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now + passed)
    urls = [numbered(n) for n in range(_sns_certificates.KEPT + 5)]
    webhook = hook(fetch_ := source(*((url, signer().pem) for url in urls)))
    await webhook.verify(MADE)
    for url in urls:
        passed += 10
        await webhook.verify(request(notification(said()), url=url))
        await webhook.verify(MADE)
    assert fetch_.asked.count(URL) == 1
    await webhook.verify(request(notification(said()), url=urls[0]))
    assert fetch_.asked.count(urls[0]) == 2


async def test_a_rotated_certificate_at_a_new_url_is_believed_beside_the_old_one() -> None:
    newer = signer("sns.amazonaws.com", SINCE + timedelta(days=1))
    webhook = hook(fetch_ := source((numbered(7), newer.pem)))
    await webhook.verify(MADE)
    await webhook.verify(request(notification(said()), newer, url=numbered(7)))
    with pytest.raises(SignatureInvalid):
        await webhook.verify(request(notification(said()), newer))
    await webhook.verify(MADE)
    assert fetch_.asked == [URL, numbered(7)]


async def test_a_webhook_lives_longer_than_an_event_loop() -> None:
    webhook = hook(fetch_ := source())
    for _ in range(2):
        await asyncio.to_thread(asyncio.run, webhook.verify(MADE))
    assert fetch_.asked == [URL]


@pytest.mark.parametrize(
    ("at", "valid"),
    [
        (SINCE, True),
        (SINCE - timedelta(seconds=1), False),
        (UNTIL, True),
        (UNTIL + timedelta(seconds=1), False),
    ],
)
async def test_a_certificate_is_of_its_time(at: object, valid: bool) -> None:
    stamp = f"{at:%Y-%m-%dT%H:%M:%S}.000Z"
    made = changed(request(notification(said(), Timestamp=stamp)), received_at=at)
    if valid:
        assert (await hook(source()).verify(made)).key
        return
    with pytest.raises(SignatureInvalid, match="not valid at this time"):
        await hook(source()).verify(made)


async def test_names_come_from_the_alternative_name_where_there_is_one() -> None:
    plain = signer("sns.amazonaws.com", alternative=False)
    assert await hook(Source({URL: plain.pem})).verify(request(notification(said()), plain))
    lying = signer("evil.example")
    with pytest.raises(SignatureInvalid, match="not of sns"):
        await hook(Source({URL: lying.pem})).verify(request(notification(said()), lying))


@pytest.mark.parametrize("kind", ["elliptic", "short"])
async def test_only_an_rsa_key_of_some_length_signs(kind: str) -> None:
    weak = signer("sns.amazonaws.com", bits=1024)
    pem = elliptic() if kind == "elliptic" else weak.pem
    with pytest.raises(SignatureInvalid, match="RSA"):
        await hook(Source({URL: pem})).verify(request(notification(said()), weak))


@pytest.mark.parametrize(
    "page",
    [
        b"",
        b"<html>403</html>",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        signer().pem[:-200],
        signer().pem.replace(b"CERTIFICATE", b"PRIVATE KEY"),
        b"\x00" * 2000,
    ],
    ids=range(6),
)
async def test_what_is_no_certificate_is_no_forgery(page: bytes) -> None:
    assert "no certificate" in await put_off(hook(Source({URL: page})))


async def test_a_certificate_of_another_key_tells_a_forgery() -> None:
    other = certified(signer("x").key, "sns.amazonaws.com", alternative=True)
    with pytest.raises(SignatureInvalid, match="Signature is wrong"):
        await hook(Source({URL: other})).verify(MADE)


def got(vendor: LoopbackVendor, behaviour: object) -> str | bytes:
    """What the real client makes of an answer: the page, or why there is none."""
    vendor.pages[f"/{FILE}"] = behaviour  # type: ignore[assignment]
    try:
        return fetch(f"{vendor.url}/{FILE}", each=0.5, total=0.6)
    except Unanswered as error:
        said_of_it = str(error)
    assert not {vendor.url, FILE} & set(said_of_it.split())
    return said_of_it


def test_the_client_reads_a_page(vendor: LoopbackVendor) -> None:
    assert got(vendor, Reply(body=signer().pem)) == signer().pem
    (asked,) = vendor.requests
    assert asked.method == "GET"
    assert asked.headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie"} & set(asked.headers)


@pytest.mark.parametrize(
    "status", [201, 204, 301, 302, 303, 307, 308, 401, 403, 404, 429, 500, 503]
)
def test_the_client_follows_no_redirect_and_takes_only_a_200(
    vendor: LoopbackVendor, status: int
) -> None:
    headers = {"Location": f"{vendor.url}/elsewhere", "WWW-Authenticate": "Basic"}
    assert got(vendor, Reply(status=status, headers=headers, body=signer().pem)) == f"HTTP {status}"
    assert [r.path for r in vendor.requests] == [f"/{FILE}"]


def test_the_client_reads_no_more_than_its_limit(vendor: LoopbackVendor) -> None:
    assert got(vendor, Reply(body=b"x" * LIMIT)) == b"x" * LIMIT
    assert got(vendor, Reply(body=b"x" * (LIMIT + 1))) == f"more than {LIMIT} bytes"


def test_the_client_takes_no_half_page_and_none_without_an_end(vendor: LoopbackVendor) -> None:
    pem = signer().pem
    assert got(vendor, Reply(body=pem, declared=len(pem) + 9, close=True)) == "ProtocolError"
    began = time.monotonic()
    dripping = got(vendor, Reply(body=pem, drip=0.01))
    assert dripping == "too slow"
    assert got(vendor, Fault.STALL) == "ReadTimeout"
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("head", "drip"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    ],
    ids=["lines", "line", "continue", "chunk"],
)
def test_the_client_leaves_a_host_that_drips_its_headers(head: bytes, drip: bytes) -> None:
    ended = threading.Event()

    def serve() -> None:
        wire, _ = listening.accept()
        with wire, suppress(OSError):
            wire.sendall(head)
            while not ended.wait(0.05):
                wire.sendall(drip)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = threading.Thread(target=serve)
        host.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/{FILE}"
        began = time.monotonic()
        try:
            with pytest.raises(Unanswered, match="too slow"):
                fetch(url, each=1.0, total=0.4)
            assert time.monotonic() - began < 5
        finally:
            ended.set()
            host.join(10)
    eventually(lambda: not client_threads(), "the end of the client's threads")


def client_threads() -> list[threading.Thread]:
    """Those that fetch, and those that watch over it."""
    return [t for t in threading.enumerate() if t.name == "gateway-sns"]


def test_the_client_unpacks_nothing(vendor: LoopbackVendor) -> None:
    packed = Reply(body=b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"})
    assert got(vendor, packed) == b"\x1f\x8b\x08"


@pytest.mark.parametrize("fault", [Fault.DROP_BEFORE, Fault.DROP_AFTER, b"nonsense\r\n\r\n"])
def test_the_client_survives_a_broken_host(vendor: LoopbackVendor, fault: object) -> None:
    if fault is Fault.DROP_BEFORE:
        vendor.always = fault  # type: ignore[assignment]
    assert "Error" in str(got(vendor, fault))


def test_the_client_uses_no_proxy_and_checks_tls(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert got(vendor, Reply(body=b"x")) == b"x"
    with pytest.raises(Unanswered, match="SSLError"):
        fetch(f"{vendor.url.replace('http:', 'https:')}/{FILE}", each=0.5)
    with pytest.raises(Unanswered, match="ConnectionError"):
        fetch("https://sns.eu-west-1.amazonaws.com/x.pem")  # no names are looked up in tests


async def test_the_client_s_answers_are_put_off_and_not_called_forged(
    vendor: LoopbackVendor,
) -> None:
    emulated = f"{vendor.url}/{FILE}"
    made = request(notification(said()), url=emulated)
    more = {"AWS_SNS_EMULATOR_URL": vendor.url, "GATEWAY_ENV": "development"}
    quick = partial(fetch, each=0.3, total=0.3)
    for bad in (Reply(status=404), Fault.STALL, Reply(body=b"x" * (LIMIT + 1)), Reply(body=b"x")):
        vendor.pages[f"/{FILE}"] = bad
        assert "cannot be had" in await put_off(hook(quick, **more), made)
    vendor.pages[f"/{FILE}"] = Reply(body=signer().pem)
    assert (await hook(quick, **more).verify(made)).key


async def test_nobody_waits_for_a_thread_that_does_not_come_back() -> None:
    ended = threading.Event()
    with pytest.raises(TimeoutError):
        await in_thread(lambda: ended.wait(10), within=0.05)
    ended.set()
    eventually(lambda: not client_threads(), "the end of the thread")


WARMED = """
import asyncio, json, sys
from datetime import datetime
from gateway.app import Gateway
from gateway.domain import WebhookRequest
from gateway.settings import load
given = json.load(sys.stdin)
made = Gateway(environment=load(None, **given["variables"]))
print(sorted({"requests", "cryptography"} & set(sys.modules)))
made.warm()
before = set(sys.modules)
asked = WebhookRequest(
    method="POST",
    url=given["url"],
    headers=given["headers"],
    body=given["body"].encode(),
    received_at=datetime.fromisoformat(given["at"]),
)
asyncio.run(made.adapters.webhooks["aws_sns"].verify(asked))
print(sorted(set(sys.modules) - before))
"""


def test_the_first_webhook_of_a_process_loads_nothing_that_a_start_does_not_wait_for(
    vendor: LoopbackVendor, tmp_path: Path
) -> None:
    made = request(notification(said()), url=f"{vendor.url}/{FILE}")
    vendor.pages[f"/{FILE}"] = Reply(body=signer().pem)
    variables = {
        "GATEWAY_ENV": "development",
        "DATA_DIR": str(tmp_path),
        "AWS_SNS_EMULATOR_URL": vendor.url,
        "AWS_SNS_TOPIC_ARNS": TOPIC,
    }
    given = {
        "variables": variables,
        "url": made.url,
        "headers": dict(made.headers),
        "body": made.body.decode(),
        "at": made.received_at.isoformat(),
    }
    done = subprocess.run(
        [sys.executable, "-c", WARMED],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    at_start, by_webhook = done.stdout.split("\n")[:2]
    assert "requests" not in at_start
    assert by_webhook == "[]"


def test_a_warm_verification_is_quick() -> None:
    """Measured: 65 µs, of which the RSA itself takes 30. The bound is wide, for busy machines."""
    webhook = hook(source())

    async def many() -> float:
        await webhook.verify(MADE)
        began = time.perf_counter()
        for _ in range(500):
            await webhook.verify(MADE)
        return (time.perf_counter() - began) / 500

    assert asyncio.run(many()) < 0.002


def test_the_clock_of_these_tests_is_that_of_the_requests() -> None:
    assert MADE.received_at == NOW
