"""The contract of every provider in the catalogue, from its data in `cases/<name>/`."""

from __future__ import annotations

import asyncio
import logging
import socket
import traceback
import unicodedata
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.domain import (
    Capabilities,
    Foresees,
    MediaFetcher,
    OutboundMessage,
    Provider,
    Receipt,
    Status,
)
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    SettingsError,
    Throttled,
    Unreachable,
    Unsupported,
)
from tests.outbound_cases import (
    PROVIDERS,
    TO,
    WIRED,
    Setup,
    expanded,
    outbound,
    provider,
    settings_of,
    text_of,
    told,
    usual,
)
from tests.smtp_servers import Mailbox, smtp_server
from tests.vendors import Behaviour, Fault, LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

TOKEN = "recognisable-7f3a"
HTML = b"<html><body>Service Unavailable</body></html>"
TEXTS = {
    "emoji": "👍🏽 👩‍👩‍👧‍👦 🇩🇪 ❤️",
    "right_to_left": "שלום עולם, \u200fمرحبا بالعالم",
    "lines": "one\ntwo\r\nthree\ttab \n",
    "form_characters": "a&b=c+d%20e%&amp;#f?g;h/\\\"'<>",
    "composed": unicodedata.normalize("NFC", "Ångström é ñ"),
    "decomposed": unicodedata.normalize("NFD", "Ångström é ñ"),
    "long": "0123456789" * 160,
    "gsm": "@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞ^{}\\[~]|€",
    "spaces": "  leading and trailing  ",
    "astral": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U00020000",
}

# What may happen to a request that was written, and what is then known.
FAULTS: dict[str, tuple[Behaviour, type[ProviderError]]] = {
    "drop_before": (Fault.DROP_BEFORE, Ambiguous),
    "drop_after": (Fault.DROP_AFTER, Ambiguous),
    "stall": (Fault.STALL, Ambiguous),
    "drip": (Reply(status=201, body=b"{}", drip=0.05), Ambiguous),
    "cut_short": (Reply(status=201, body=b'{"sid": "SM', declared=90, close=True), Ambiguous),
    "garbage": (Reply(status=201, body=b"\xff\xfe<html>"), Ambiguous),
    "not_http": (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", Ambiguous),
    "informational": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Ambiguous),
    "redirect_301": (Reply(status=301, headers={"Location": "/again"}), Ambiguous),
    "redirect_307": (Reply(status=307, headers={"Location": "/again"}), Ambiguous),
    "redirect_308": (Reply(status=308, headers={"Location": "/again"}), Ambiguous),
    "too_large": (Reply(status=201, body=b" " * (2 << 20)), Ambiguous),
    "timeout_408": (Reply(status=408), Ambiguous),
    "error_500": (Reply(status=500, body=HTML), Ambiguous),
    "error_500_json": (Reply(status=500, body=b'{"message": "x"}'), Ambiguous),
    "error_502": (Reply(status=502, body=HTML), Ambiguous),
    "error_503": (Reply(status=503, headers={"Retry-After": "3"}, body=HTML), Ambiguous),
    "strange_4xx": (Reply(status=418, body=HTML), Ambiguous),
    "unauthorised": (Reply(status=401, body=b"no"), AccountRefused),
    "throttled": (Reply(status=429, headers={"Retry-After": "7"}), Throttled),
}


@pytest.fixture
def vendor(request: pytest.FixtureRequest) -> Iterator[LoopbackVendor | Mailbox]:
    entry = request.node.callspec.params["entry"]
    if entry.data.get("server") == "smtp":
        with smtp_server(login=True) as box:
            yield box
        return
    with LoopbackVendor(answer=entry.data.get("answer")) as made:
        yield made


def each(entries: tuple[Setup, ...]) -> Callable[[Any], Any]:
    return pytest.mark.parametrize("entry", entries, ids=lambda entry: entry.name)


def cases(*keys: str) -> list[Any]:
    return [
        pytest.param(entry, case, id=f"{entry.name}-{name}")
        for entry in PROVIDERS
        for name, case in outbound(entry)
        if not case.keys().isdisjoint(keys)
    ]


async def error_from(made: Provider, sent: OutboundMessage) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await made.send(sent)
    return caught.value


@each(PROVIDERS)
async def test_it_is_what_the_protocol_says(entry: Setup, vendor: LoopbackVendor) -> None:
    async with provider(entry, vendor.url) as made:
        assert isinstance(made, Provider)
        assert isinstance(made.capabilities, Capabilities)
        assert isinstance(made, MediaFetcher) or not made.capabilities.fetches_media
        assert made.name == entry.entry.name
        await made.aclose()


@each(PROVIDERS)
def test_its_connection_names_its_family_and_hides_its_secrets(entry: Setup) -> None:
    settings = settings_of(entry, "http://127.0.0.1:9")
    connection = entry.provider.connection(settings)
    assert (connection.family, connection.tenant_id) == (entry.entry.family, "default")
    assert set(connection.senders) <= entry.provider.capabilities.channels
    for secret in entry.data["secrets"]:
        assert secret not in repr(connection) + repr(settings)


@each(PROVIDERS)
def test_a_missing_variable_is_named(entry: Setup) -> None:
    for variable in entry.provider.Settings.required:
        settings = settings_of(entry, "http://127.0.0.1:9", **{variable: " "})
        with pytest.raises(SettingsError, match=variable):
            entry.provider(settings, http=None, timeout=1.0)


@pytest.mark.parametrize(("entry", "case"), cases("unsupported"))
async def test_what_it_cannot_do_never_reaches_the_wire(
    entry: Setup, case: dict[str, Any], vendor: LoopbackVendor
) -> None:
    async with provider(entry, vendor.url) as made:
        failed = await error_from(made, usual(entry, **case["message"]))
    assert (type(failed), failed.code) == (Unsupported, case["unsupported"])
    assert (vendor.count, vendor.connections) == (0, 0)


@pytest.mark.parametrize(("entry", "case"), cases("unsupported"))
async def test_what_it_cannot_do_is_foreseen_with_the_field_at_fault(
    entry: Setup, case: dict[str, Any]
) -> None:
    async with provider(entry, "http://127.0.0.1:9") as made:
        assert isinstance(made, Foresees)
        with pytest.raises(Unsupported) as caught:
            made.foresee(usual(entry, **case["message"]), ())
    assert caught.value.code == case["unsupported"]
    assert bool(caught.value.field) is (caught.value.code not in ("channel", "sender"))


@pytest.mark.parametrize(("entry", "case"), cases("form", "json"))
async def test_what_it_sends_is_not_refused_beforehand(entry: Setup, case: dict[str, Any]) -> None:
    async with provider(entry, "http://127.0.0.1:9") as made:
        assert isinstance(made, Foresees)
        made.foresee(usual(entry, **case["message"]), ())


@pytest.mark.parametrize(("entry", "case"), cases("form", "json"))
async def test_a_message_stands_on_the_wire_as_the_case_says(
    entry: Setup, case: dict[str, Any], vendor: LoopbackVendor
) -> None:
    async with provider(entry, vendor.url) as made:
        await made.send(usual(entry, **case["message"]))
    *before, request = vendor.requests
    assert [one.path for one in before] == case.get("before", [])  # a file's, and no message's
    assert request.method == "POST"
    for kind in {"form", "json"} & case.keys():
        assert told(entry, request) == {k: expanded(v) for k, v in case[kind].items()}
    named = {name: request.headers.get(name) for name in case.get("headers", {})}
    assert named == case.get("headers", {})


@pytest.mark.parametrize(("entry", "case"), cases("printed"))
async def test_a_message_is_printed_as_the_case_says(
    entry: Setup, case: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    async with provider(entry, "") as made:
        await made.send(usual(entry, **case["message"]))
    assert capsys.readouterr().out == case["printed"]


@each(PROVIDERS)
async def test_one_message_is_one_request(entry: Setup, vendor: LoopbackVendor) -> None:
    async with provider(entry, vendor.url) as made:
        receipt = await made.send(usual(entry, body="once"))
    assert isinstance(receipt, Receipt)
    assert receipt.provider_message_id
    assert receipt.status in (Status.ACCEPTED, Status.SENT)
    assert vendor.count == int(entry.data["wire"] or "server" in entry.data)


@each(PROVIDERS)
async def test_many_at_once_have_one_request_and_one_id_each(
    entry: Setup, vendor: LoopbackVendor
) -> None:
    sent = [usual(entry, attempt_id=f"att_{n}", body=f"text {n}") for n in range(200)]
    async with provider(entry, vendor.url) as made:
        receipts = await asyncio.gather(*(made.send(each) for each in sent))
    assert len({receipt.provider_message_id for receipt in receipts}) == len(sent)
    assert vendor.count == len(sent) * (entry.data["wire"] or "server" in entry.data)


@each(PROVIDERS)
async def test_what_it_already_knows_of_a_message_names_its_attempt(
    entry: Setup, vendor: LoopbackVendor
) -> None:
    async with provider(entry, vendor.url) as made:
        receipt = await made.send(usual(entry, attempt_id="att_known", body="x"))
    for update in receipt.updates:
        assert (update.attempt_id, update.recipient) == ("att_known", TO)
        assert update.provider_message_id == receipt.provider_message_id
    assert len({update.dedupe_key for update in receipt.updates}) == len(receipt.updates)


@pytest.mark.parametrize("kind", TEXTS)
@each(WIRED)
async def test_text_of_every_kind_arrives_as_it_was_written(
    entry: Setup, kind: str, vendor: LoopbackVendor
) -> None:
    async with provider(entry, vendor.url) as made:
        await made.send(usual(entry, body=TEXTS[kind]))
    assert text_of(entry, vendor.requests[0]) in (TEXTS[kind], [TEXTS[kind]])


@each(WIRED)
async def test_half_a_surrogate_pair_is_refused_and_not_sent(
    entry: Setup, vendor: LoopbackVendor
) -> None:
    async with provider(entry, vendor.url) as made:
        failed = await error_from(made, usual(entry, body="half \ud83d"))
    assert failed.sent_nothing
    assert vendor.count == 0


@pytest.mark.parametrize("fault", FAULTS)
@each(WIRED)
async def test_every_fault_has_its_class_and_one_request(
    entry: Setup, fault: str, vendor: LoopbackVendor
) -> None:
    vendor.always, expected = FAULTS[fault]
    async with provider(entry, vendor.url, timeout=1.5) as made:
        failed = await error_from(made, usual(entry, body="once"))
        await asyncio.sleep(0)
    assert type(failed) is expected
    assert vendor.count == (0 if fault == "drop_before" else 1)
    assert vendor.connections == 1


@each(WIRED)
async def test_a_throttled_answer_says_when_to_come_back(
    entry: Setup, vendor: LoopbackVendor
) -> None:
    date = {
        "Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT",
        "Date": "Wed, 21 Oct 2026 07:28:00 GMT",
    }
    vendor.plan.extend(
        Reply(status=429, headers=headers)
        for headers in ({"Retry-After": "7"}, date, {}, {"Retry-After": "soon"})
    )
    async with provider(entry, vendor.url) as made:
        waits = [(await error_from(made, usual(entry, body="x"))).retry_after for _ in range(4)]
    assert waits == [7.0, 30.0, None, None]


@each(WIRED)
async def test_a_closed_port_is_unreachable(entry: Setup, vendor: LoopbackVendor) -> None:
    vendor.stop()
    async with provider(entry, vendor.url) as made:
        assert type(await error_from(made, usual(entry, body="x"))) is Unreachable


@each(WIRED)
async def test_a_failed_handshake_is_unreachable(entry: Setup, vendor: LoopbackVendor) -> None:
    async with provider(entry, vendor.url.replace("http:", "https:")) as made:
        failed = await error_from(made, usual(entry, body="x"))
    assert (type(failed), failed.code) == (Unreachable, "tls")
    assert vendor.count == 0


@each(WIRED)
async def test_an_unknown_name_is_unreachable(entry: Setup) -> None:
    async with provider(entry, "https://no-such-host.invalid") as made:
        failed = await error_from(made, usual(entry, body="x"))
    assert (type(failed), failed.code) == (Unreachable, "dns")


@asynccontextmanager
async def deaf() -> AsyncIterator[str]:
    """An address where connections are neither made nor refused: a full backlog."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(8)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for each in waiting:
            each.close()


@pytest.mark.parametrize("limits", [(5.0, 0.3), (0.3, 5.0)], ids=["connect", "total"])
@each(WIRED)
async def test_a_connection_that_is_never_made_is_unreachable(
    entry: Setup, limits: tuple[float, float]
) -> None:
    total, connect = limits
    async with deaf() as url, provider(entry, url, timeout=total, connect_timeout=connect) as made:
        failed = await error_from(made, usual(entry, body="x"))
    assert (type(failed), failed.code) == (Unreachable, "connect_timeout")


@each(WIRED)
async def test_a_cancelled_send_is_cancelled_and_leaves_nothing_open(
    entry: Setup, vendor: LoopbackVendor
) -> None:
    vendor.plan.append(Fault.STALL)
    async with provider(entry, vendor.url) as made:
        sending = asyncio.create_task(made.send(usual(entry, body="cancelled")))
        await until(lambda: vendor.count == 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: not vendor.open)
        await made.send(usual(entry, body="the next one"))
    await until(lambda: not vendor.open)
    assert vendor.count == 2


@pytest.mark.parametrize("fault", [*FAULTS, "refused", "handshake", "unsupported"])
@each(WIRED)
async def test_no_secret_and_nothing_personal_is_in_any_error_or_log(
    entry: Setup, fault: str, vendor: LoopbackVendor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = vendor.url.replace("http:", "https:") if fault == "handshake" else vendor.url
    if fault == "refused":
        vendor.stop()
    elif fault in FAULTS:
        vendor.always = FAULTS[fault][0]
    more = {"channel": "rcs"} if fault == "unsupported" else {}
    callback = f"https://gateway.example.com/{TOKEN}"
    async with provider(entry, url, timeout=0.3) as made:
        sent = usual(entry, body=f"{TOKEN} ", callback_url=callback, **more)
        failed = await error_from(made, sent)
    shown = "".join(traceback.format_exception(failed)) + repr(failed) + caplog.text
    assert failed.__context__ is None or failed.__suppress_context__
    for hidden in hidden_in(entry):
        assert hidden not in shown


def hidden_in(entry: Setup) -> list[str]:
    secrets = list(entry.data["secrets"])
    pairs = [
        f"{value}:{secret}" for value in entry.data["environment"].values() for secret in secrets
    ]
    encoded = [b64encode(text.encode()).decode() for text in pairs + secrets]
    return [*secrets, *encoded, "Basic ", "Bearer ", TOKEN, TO, TO[1:]]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
