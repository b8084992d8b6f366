"""Twilio's provider beyond the contract: settings, what its answers mean, and its media."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Channel, Money, Receipt, Sender, Status
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    SettingsError,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers import _fetch
from providers._twilio_answers import ERRORS, MEANINGS
from providers.twilio import TwilioSettings, can_be_called
from tests.outbound_cases import TO, entry_of, message, provider, settings_of
from tests.vendors import Behaviour, LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

TWILIO = entry_of("twilio")
ACCOUNT = "AC0123456789abcdef0123456789abcdef"
MESSAGE = "MM" + "0" * 32
FILE = "ME" + "a" * 32
REFERENCE = f"{ACCOUNT}/{MESSAGE}/{FILE}"
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Messages/{MESSAGE}/Media/{FILE}"
CREATED = {
    "sid": "SM" + "1" * 32,
    "status": "queued",
    "num_segments": "2",
    "from": "+15550001111",
    "price": None,
    "price_unit": None,
    "error_code": None,
}


def reply(status: int, payload: Any) -> Reply:
    return Reply(status=status, body=json.dumps(payload).encode())


async def outcome(vendor: LoopbackVendor, behaviour: Behaviour, **fields: Any) -> Any:
    """The receipt or the error that an answer leads to."""
    vendor.always = behaviour
    async with provider(TWILIO, vendor.url) as made:
        try:
            return await made.send(message(**{"body": "Hello", **fields}))
        except ProviderError as error:
            return error


# --- settings


@pytest.mark.parametrize(
    "url",
    ["http://api.twilio.com", "http://10.0.0.1", "ftp://localhost", "twilio", "https://a:b@c.de",
     "https://api.twilio.com?x=y", "https://api.twilio.com#x", "https://"],
)  # fmt: skip
def test_an_api_url_that_is_not_safe_is_refused_by_its_variables_name(url: str) -> None:
    with pytest.raises(SettingsError, match="TWILIO_API_URL") as caught:
        settings_of(TWILIO, "", TWILIO_API_URL=url)
    assert url not in str(caught.value)


@pytest.mark.parametrize("sid", ["AC/../x", "AC 1", "AC?x", "A" * 65, "AC%2e"])
def test_an_account_sid_that_does_not_fit_in_a_path_is_refused(sid: str) -> None:
    with pytest.raises(SettingsError, match="TWILIO_ACCOUNT_SID"):
        settings_of(TWILIO, "https://api.twilio.com", TWILIO_ACCOUNT_SID=sid)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("whatsapp:+1 (555) 000-1111", "+15550001111"), (" +15550001111 ", "+15550001111"),
     ("12345", "12345"), ("ACME Shop", "ACME Shop"), ("", "")],
)  # fmt: skip
def test_numbers_are_taken_as_people_write_them(given: str, meant: str) -> None:
    settings = settings_of(TWILIO, "https://api.twilio.com", TWILIO_PHONE_NUMBER=given or "x")
    assert settings.phone_number == (meant or "x")


def test_a_messaging_service_goes_before_a_number() -> None:
    service = {"TWILIO_MESSAGING_SERVICE_SID": "MG1"}
    connection = TWILIO.provider.connection(settings_of(TWILIO, "https://a.bc", **service))  # type: ignore[union-attr]
    assert connection.account == ACCOUNT
    assert connection.senders == {
        Channel.SMS: Sender(pool="MG1"),
        Channel.WHATSAPP: Sender(address="+15550002222"),
    }


def test_without_senders_there_are_none() -> None:
    assert TWILIO.provider is not None
    assert TWILIO.provider.connection(TwilioSettings.model_validate({})).senders == {}


async def test_the_environment_is_not_read_by_the_sdk(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TWILIO_EDGE", "TWILIO_REGION", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"):
        monkeypatch.setenv(name, "sydney")
    assert isinstance(await outcome(vendor, reply(201, CREATED)), Receipt)
    assert vendor.requests[0].path == f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json"


async def test_the_first_token_signs_our_requests(vendor: LoopbackVendor) -> None:
    await outcome(vendor, reply(201, CREATED))
    kind, _, encoded = vendor.requests[0].headers["authorization"].partition(" ")
    assert kind == "Basic"
    assert base64.b64decode(encoded).decode() == f"{ACCOUNT}:first-token-5f1c7a"
    assert vendor.requests[0].headers["content-type"] == "application/x-www-form-urlencoded"


# --- callbacks


@pytest.mark.parametrize("host", ["gateway.example.com", "8.8.8.8", "xn--bcher-kva.ch"])
def test_a_public_host_can_be_called(host: str) -> None:
    assert can_be_called(host)


@pytest.mark.parametrize(
    "host",
    ["localhost", "gateway", "127.0.0.1", "::1", "10.0.0.1", "my_host.example.com", "a.local",
     "a.internal", "host.docker.internal", "b.localhost", ""],
)  # fmt: skip
def test_a_private_host_cannot_be_called(host: str) -> None:
    assert not can_be_called(host)


def test_twilio_is_not_given_a_callback_that_it_would_refuse_the_message_for() -> None:
    assert TWILIO.provider is not None
    made = TWILIO.provider(settings_of(TWILIO, "https://api.twilio.com"), http=None, timeout=1.0)
    for url in ("http://127.0.0.1:8000/x", "https://gate_way.example.com/x", None, ""):
        assert made._callback(url) is None
    assert (
        made._callback("https://gateway.example.com/x")
        == "https://gateway.example.com/x#rc=3&rp=all"
    )


# --- what answers mean


@pytest.mark.parametrize("code", ERRORS)
async def test_every_code_of_the_table_has_its_class(vendor: LoopbackVendor, code: int) -> None:
    failed = await outcome(vendor, reply(400, {"code": code, "message": TO, "status": 400}))
    assert (type(failed), failed.code) == (ERRORS[code], str(code))
    assert TO not in str(failed)


@pytest.mark.parametrize("code", ERRORS)
async def test_a_server_error_is_ambiguous_whatever_its_code(
    vendor: LoopbackVendor, code: int
) -> None:
    failed = await outcome(vendor, reply(500, {"code": code, "message": "x", "status": 500}))
    assert (type(failed), failed.code) == (Ambiguous, str(code))


def test_words_are_only_kept_for_codes_that_are_in_the_table() -> None:
    assert set(MEANINGS) <= set(ERRORS)


@pytest.mark.parametrize(
    ("status", "payload", "kind", "code"),
    [
        (400, {"code": 29999}, Rejected, "29999"),
        (400, {"code": "21211"}, Rejected, "21211"),
        (400, {"code": 400, "message": "not Twilio's"}, Ambiguous, "http_400"),
        (400, {"code": True}, Ambiguous, "http_400"),
        (400, {"code": 21211.0}, Ambiguous, "http_400"),
        (400, {"message": "no code"}, Ambiguous, "http_400"),
        (400, [], Ambiguous, "http_400"),
        (403, {"error": "forbidden"}, Ambiguous, "http_403"),
        (403, {"code": 20403}, AccountRefused, "20403"),
        (404, {"code": 20404}, AccountRefused, "20404"),
        (404, {"message": "somewhere else"}, Ambiguous, "http_404"),
        (401, {"error": "out of credits"}, AccountRefused, "http_401"),
        (401, {"code": 20003}, AccountRefused, "20003"),
        (408, {"code": 21211}, Ambiguous, "21211"),
        (429, {"code": 20429}, Throttled, "20429"),
        (429, {}, Throttled, "http_429"),
        (400, {"code": 21611}, Throttled, "21611"),
        (302, {"code": 21211}, Ambiguous, "21211"),
        (200, {"status": "queued"}, Ambiguous, "http_200"),
        (201, {"sid": ""}, Ambiguous, "http_201"),
        (201, {"sid": None}, Ambiguous, "http_201"),
        (201, {"sid": ["SM1"]}, Ambiguous, "http_201"),
        (201, {"sid": "SM1\n"}, Ambiguous, "http_201"),
        (201, {"sid": "S" * 65}, Ambiguous, "http_201"),
        (201, [CREATED], Ambiguous, "http_201"),
        (202, None, Ambiguous, "http_202"),
        (201, {**CREATED, "status": "failed", "error_code": 21610}, Rejected, "21610"),
        (201, {**CREATED, "status": "failed", "error_code": 30001}, Throttled, "30001"),
        (201, {**CREATED, "status": "undelivered", "error_code": None}, Rejected, "rejected"),
        (201, {**CREATED, "status": "failed", "error_code": "63007"}, SenderRefused, "63007"),
    ],
)  # fmt: skip
async def test_an_answer_that_is_no_clear_yes(
    vendor: LoopbackVendor, status: int, payload: Any, kind: type[ProviderError], code: str
) -> None:
    failed = await outcome(vendor, reply(status, payload))
    assert (type(failed), failed.code) == (kind, code)
    assert vendor.count == 1


@pytest.mark.parametrize("body", [b"[" * 100000, b"", b"null", b'"SM1"', b'{"sid": "SM1"} {}'])
async def test_a_body_that_cannot_be_read_is_ambiguous(vendor: LoopbackVendor, body: bytes) -> None:
    assert type(await outcome(vendor, Reply(status=201, body=body))) is Ambiguous


@pytest.mark.parametrize(
    ("said", "status"),
    [("queued", Status.ACCEPTED), ("accepted", Status.ACCEPTED), ("scheduled", Status.ACCEPTED),
     ("sending", Status.ACCEPTED), ("sent", Status.SENT), ("delivered", Status.DELIVERED),
     ("read", Status.READ), ("something new", Status.ACCEPTED), (None, Status.ACCEPTED),
     (["x"], Status.ACCEPTED)],
)  # fmt: skip
async def test_a_receipt_has_the_status_that_twilio_says(
    vendor: LoopbackVendor, said: Any, status: Status
) -> None:
    made = await outcome(vendor, reply(201, {**CREATED, "status": said}))
    assert made == Receipt(
        provider_message_id=CREATED["sid"], status=status, sender="+15550001111", segments=2
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"from": None}, {"sender": None}),
        ({"from": "whatsapp:+15550002222"}, {"sender": "+15550002222"}),
        ({"num_segments": "0"}, {"segments": None}),
        ({"num_segments": None}, {"segments": None}),
        ({"num_segments": "many"}, {"segments": None}),
        ({"num_segments": 3}, {"segments": 3}),
        (
            {"price": "-0.00750", "price_unit": "usd"},
            {"cost": Money(amount=Decimal("0.00750"), currency="USD")},
        ),
        ({"price": "NaN", "price_unit": "USD"}, {"cost": None}),
        ({"price": "free", "price_unit": "USD"}, {"cost": None}),
        ({"price": "-1", "price_unit": None}, {"cost": None}),
    ],
)  # fmt: skip
async def test_a_receipt_has_what_twilio_tells(
    vendor: LoopbackVendor, changed: dict[str, Any], expected: dict[str, Any]
) -> None:
    made = await outcome(vendor, reply(201, {**CREATED, **changed}))
    assert {name: getattr(made, name) for name in expected} == expected


async def test_a_date_that_nobody_can_read_does_not_lose_a_receipt(vendor: LoopbackVendor) -> None:
    strange = {**CREATED, "date_created": "yesterday", "error_code": "none", "date_sent": 7}
    assert isinstance(await outcome(vendor, reply(201, strange)), Receipt)


async def test_the_sdk_writes_nothing_to_the_log(
    vendor: LoopbackVendor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await outcome(vendor, reply(201, CREATED))
    assert not [each for each in caplog.records if each.name.startswith("twilio")]


async def test_a_failure_inside_the_sdk_is_ambiguous(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider(TWILIO, vendor.url) as made:

        async def broken(**_: object) -> None:
            raise KeyError("inside")

        monkeypatch.setattr(made._messages, "create_async", broken)
        with pytest.raises(Ambiguous, match="sdk"):
            await made.send(message(body="x"))


async def test_a_receipt_is_never_that_of_the_message_before(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider(TWILIO, vendor.url) as made:
        await made.send(message(body="first"))

        async def nothing(**_: object) -> None:
            return None

        monkeypatch.setattr(made._messages, "create_async", nothing)
        with pytest.raises(Ambiguous, match="sdk"):
            await made.send(message(body="second"))


def test_what_twilio_cannot_is_left_to_others() -> None:
    assert {ERRORS[code] for code in (21408, 21612, 21617)} == {Unsupported}


# --- media


async def fetched(vendor: LoopbackVendor, reference: str = REFERENCE, limit: int = 100) -> Any:
    async with provider(TWILIO, vendor.url) as made:
        try:
            return await made.fetch_media(reference, limit)
        except ProviderError as error:
            return error


async def test_a_file_is_fetched_by_its_ids_with_credentials(vendor: LoopbackVendor) -> None:
    vendor.pages[PATH] = Reply(headers={"Content-Type": "image/jpeg"}, body=b"\xff\xd8")
    made = await fetched(vendor)
    assert (made.data, made.content_type) == (b"\xff\xd8", "image/jpeg")
    assert vendor.requests[0].method == "GET"
    assert vendor.requests[0].headers["authorization"].startswith("Basic ")


async def test_storage_is_visited_without_credentials(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fetch, "SCHEMES", ("http",))
    monkeypatch.setattr(_fetch, "is_public", lambda _: True)
    with LoopbackVendor() as storage:
        storage.always = Reply(headers={"Content-Type": "image/png"}, body=b"stored")
        vendor.pages[PATH] = Reply(status=307, headers={"Location": f"{storage.url}/f?Sig=a%2B"})
        assert (await fetched(vendor)).data == b"stored"
        assert storage.requests[0].path == "/f?Sig=a%2B"
        assert not {"authorization", "cookie"} & set(storage.requests[0].headers)


@pytest.mark.parametrize("target", ["http://127.0.0.1:9/", "https://10.0.0.1/", "/x", "file:///x"])
async def test_storage_inside_is_not_visited(vendor: LoopbackVendor, target: str) -> None:
    vendor.pages[PATH] = Reply(status=307, headers={"Location": target})
    failed = await fetched(vendor)
    assert (type(failed), failed.code in ("url", "forbidden_address")) == (Rejected, True)
    assert vendor.count == 1


@pytest.mark.parametrize(
    "reference",
    ["", "x", f"{ACCOUNT}/{MESSAGE}", f"{REFERENCE}/", f"{REFERENCE}?x", f"{REFERENCE}\n",
     f"AC{'9' * 32}/{MESSAGE}/{FILE}", f"{ACCOUNT}/{MESSAGE}/../../x", f"https://x/{REFERENCE}",
     f"{ACCOUNT}/IM{'0' * 32}/{FILE}"],
)  # fmt: skip
async def test_a_reference_that_is_not_exact_is_never_asked_for(
    vendor: LoopbackVendor, reference: str
) -> None:
    failed = await fetched(vendor, reference)
    assert (type(failed), failed.code) == (Rejected, "reference")
    assert vendor.connections == 0


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (Reply(status=401), AccountRefused),
        (Reply(status=403), AccountRefused),
        (Reply(status=404), Rejected),
        (Reply(status=429), Throttled),
        (Reply(status=500), Unreachable),
        (Reply(body=b"x" * 101), Rejected),
        (Reply(body=b"x", declared=50, close=True), Unreachable),
    ],
    ids=["401", "403", "404", "429", "500", "too_large", "cut_short"],
)
async def test_a_file_that_cannot_be_had(
    vendor: LoopbackVendor, behaviour: Behaviour, kind: type[ProviderError]
) -> None:
    vendor.pages[PATH] = behaviour
    assert type(await fetched(vendor)) is kind


# --- the SDK


def test_neither_the_sdk_nor_its_http_library_is_loaded_by_a_start_but_after_it(
    tmp_path: Path,
) -> None:
    script = (
        "import sys; from gateway.app import Gateway; from gateway.settings import load;"
        "made = Gateway(environment=load(None, MESSAGING_PROVIDER='twilio', DATA_DIR='.',"
        "TWILIO_ACCOUNT_SID='AC1', TWILIO_AUTH_TOKEN='t', TWILIO_PHONE_NUMBER='+15005550006'));"
        "print(sorted({'twilio', 'aiohttp'} & set(sys.modules))); made.warm();"
        "print(sorted({'twilio', 'aiohttp'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.split("\n")[:2] == ["[]", "['aiohttp', 'twilio']"]


def test_a_missing_sdk_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "twilio", None)
    assert TWILIO.provider is not None
    with pytest.raises(SettingsError, match=r"messaging-gateway\[twilio\]"):
        TWILIO.provider(settings_of(TWILIO, "https://api.twilio.com"), http=None, timeout=1.0)
