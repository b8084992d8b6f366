"""The measurements in their shortest form: they run, and they count what they say.

Never a time: what a test machine is busy with says nothing about the gateway.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from twilio.request_validator import RequestValidator

from bench import load, machine, report
from bench.__main__ import MEASUREMENTS
from bench.certificates import PROBES, serving
from bench.measure import SMOKE, Bench, Figure, Subject
from bench.requests import HOOK, accept_template, signed
from bench.servers import CERTIFICATE, ORIGIN, TOKEN
from bench.sns import Sns
from bench.soak import soak
from tests.sns_signing import Signer
from tests.vendors import LoopbackVendor, Reply


@pytest.fixture(autouse=True)
def this_process_stays_where_it_was(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A run pins itself to a core."""
    if "XDG_RUNTIME_DIR" not in os.environ:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    mine = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, mine)


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_every_measurement_runs_and_what_it_counts_is_true(name: str, tmp_path: Path) -> None:
    plan = SMOKE if name == "accepts" else replace(SMOKE, kinds=("gateway",))
    with Bench(tmp_path, plan) as bench:
        figures = MEASUREMENTS[name](bench)
    assert figures
    for figure in figures:
        assert figure.turns
        assert figure.wrong == []
    assert "no:" not in report.table(name, figures)


def test_what_a_process_holds_is_looked_at_after_each_round(tmp_path: Path) -> None:
    with Bench(tmp_path, SMOKE) as bench:
        figure = soak(bench, "sqlite", rounds=3, each=20)
    assert [turn["messages"] for turn in figure.turns] == [40, 80, 120]
    assert all(turn["memory"] > 20 and turn["open"] > 3 for turn in figure.turns)
    assert figure.wrong == []
    assert report.soak([figure]).splitlines()[-1].endswith("yes       |")


def test_the_shim_makes_a_sync_slower_by_what_it_says(tmp_path: Path) -> None:
    slow = machine.slow_sync(tmp_path)
    assert min(machine.sync_times(tmp_path, slow, 5)) >= machine.SLOW_MS


def test_the_shim_reaches_sqlite_and_postgresql(tmp_path: Path) -> None:
    stores = ("sqlite", "postgres")
    plan = replace(SMOKE, clients=(2,), kinds=("gateway",), stores=stores, disks=("slow",))
    with Bench(tmp_path, plan) as bench:
        figures = MEASUREMENTS["accepts"](bench)
    stored = [figure for figure in figures if figure.subject.kind == "gateway"]
    assert {figure.subject.store for figure in stored} == set(stores)
    for figure in stored:
        assert figure.wrong == []
        assert figure.median("p50") >= machine.SLOW_MS  # no answer before its sync


@pytest.mark.parametrize("clients", [1, 7])
def test_a_closed_loop_counts_every_answer_once(clients: int) -> None:
    with LoopbackVendor() as vendor:
        requests = load.numbered(accept_template())
        run = load.closed(vendor.port, requests, clients=clients, seconds=20, most=50, status=201)
        bodies = {request.body for request in vendor.requests}
    assert (run.good, run.bad, run.lost, len(run.latencies)) == (50, 0, 0, 50)
    assert len(bodies) == 50


def test_other_answers_and_closed_connections_are_not_counted_as_good() -> None:
    with LoopbackVendor() as vendor:
        vendor.always = Reply(status=503, body=b"{}")
        busy = load.closed(
            vendor.port, load.numbered(accept_template()), clients=2, seconds=20, most=10
        )
        vendor.always = Reply(status=202, body=b"{", declared=50, close=True)
        cut = load.closed(
            vendor.port, load.numbered(accept_template()), clients=1, seconds=20, most=1
        )
    assert (busy.good, busy.bad, busy.lost) == (0, 10, 0)
    assert (cut.good, cut.bad, cut.lost) == (0, 0, 1)


def test_an_open_loop_keeps_its_rate_however_late_the_answers_are() -> None:
    due: list[float] = []

    async def work(port: int, run: load.Run) -> None:
        pool = load.Pool(run, port, 201)
        await pool.open(2)
        await load.steady(
            pool,
            load.numbered(accept_template()),
            rate=100.0,
            seconds=0.3,
            sent=lambda _, when: due.append(when),
        )

    run = load.Run()
    with LoopbackVendor(latency=0.05) as vendor:
        asyncio.run(work(vendor.port, run))
    assert (run.good, run.bad, run.lost) == (30, 0, 0)
    assert all(b - a == pytest.approx(0.01) for a, b in pairwise(due))
    assert max(run.latencies) >= 0.3  # two connections at 20/s each: waiting counts


def test_signed_webhooks_are_distinct_and_hold_for_twilios_own_validator() -> None:
    from urllib.parse import parse_qsl

    made = signed(7, 5)
    assert len(set(made)) == 5
    for request in made:
        head, _, body = request.partition(b"\r\n\r\n")
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True))
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        assert int(lines["Content-Length"]) == len(body)
        signature = lines["X-Twilio-Signature"]
        assert RequestValidator(TOKEN).validate(ORIGIN + HOOK, fields, signature)


def test_signed_notifications_are_distinct_and_hold_for_their_certificate(tmp_path: Path) -> None:
    sns = Sns(tmp_path / "sns", machine.cores())
    urls = [f"http://127.0.0.1/{number}.pem" for number in range(5)]
    pem = (tmp_path / "sns" / CERTIFICATE).read_bytes()
    key = x509.load_pem_x509_certificate(pem).public_key()
    assert isinstance(key, RSAPublicKey)
    assert key.key_size == 2048
    envelopes = []
    for request in sns.requests(7, urls):
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}" in head.decode()
        envelopes.append(json.loads(body))
        proof = base64.b64decode(envelopes[-1]["Signature"])
        key.verify(proof, Signer(None, pem).text(envelopes[-1]), PKCS1v15(), SHA256())
    assert [envelope["SigningCertURL"] for envelope in envelopes] == urls
    assert {envelope["SignatureVersion"] for envelope in envelopes} == {"2"}
    assert len({envelope["MessageId"] for envelope in envelopes}) == 5
    people = {json.loads(envelope["Message"])["originationNumber"] for envelope in envelopes}
    assert len(people) == 5


def test_what_was_signed_once_is_not_signed_again(tmp_path: Path) -> None:
    sns = Sns(tmp_path / "sns", machine.cores())
    first = sns.requests(0, ["u"] * 3)
    more = sns.requests(2, ["u"] * 5)
    assert len(sns.signatures) == 7 * 256
    assert more[0] == first[2]
    assert len({*first, *more}) == 7


def test_a_cold_figure_without_its_fetches_does_not_count(tmp_path: Path) -> None:
    cold = Figure(subject=Subject("gateway", "sqlite"))
    with Bench(tmp_path, SMOKE) as bench, serving(bench, cold):
        pass
    assert cold.wrong == [f"0 certificates were fetched, not {1 + PROBES}"]


def test_numbered_requests_declare_their_length() -> None:
    for request in islice(load.numbered(accept_template()), 3):
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}" in head.decode()


def test_a_run_tells_its_quantiles() -> None:
    run = load.Run()
    run.latencies.extend(number / 1000 for number in range(1, 101))
    assert run.quantile(0.5) == pytest.approx(0.051)
    assert run.quantile(0.99) == pytest.approx(0.1)
    assert load.Run().quantile(0.99) == 0.0


def figure(kind: str, *ratios: float, store: str = "sqlite") -> Figure:
    """A figure as a measurement makes it."""
    turns = [
        {"rate": 1000 * r, "ratio": r, "p50": 1.0, "p99": 2.0, "cpu": 9.0, "failed": 0.0}
        for r in ratios
    ]
    return Figure(subject=Subject(kind, "" if kind == "bare" else store), clients=64, turns=turns)


def test_a_report_replaces_only_what_stands_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    shutil.copy(report.DOCS / "performance.md", page)
    before = page.read_text()
    judged = [figure("bare", 1.0, 1.0), figure("gateway", 0.4, 0.5, 0.6), figure("usual", 0.1)]
    found = {"accepts": judged, "webhooks": judged, "sns": judged[:2]}
    report.write(found, {}, tmp_path)
    after = page.read_text()
    assert "0.50 (0.40 to 0.60)" in after
    assert (tmp_path / "performance.svg").read_text().count("<svg") == 1
    outside = "<!-- /bench:sns -->"
    assert before.partition(outside)[2] == after.partition(outside)[2]
    assert statistics.median([0.4, 0.5, 0.6]) == judged[1].median("ratio")


def test_the_page_has_a_place_for_every_measurement() -> None:
    text = (report.DOCS / "performance.md").read_text()
    for name in (*MEASUREMENTS, "machine"):
        assert report.between(text, name, "x") != text


def test_a_figure_that_does_not_hold_says_so_in_its_row() -> None:
    wrong = figure("gateway", 0.5)
    wrong.wrong.append("10 were answered, 9 are stored")
    assert "no: 10 were answered, 9 are stored" in report.table("accepts", [wrong])
