"""AWS's SMS beyond the contract: settings, threads, time, and what its service models allow."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters import Adapters, adapters
from gateway.domain import Channel, Sender
from gateway.errors import (
    Ambiguous,
    ProviderError,
    SettingsError,
    Throttled,
    Unreachable,
    Unsupported,
)
from gateway.settings import Environment
from providers import _aws, _aws_wire
from providers._aws_wire import CalledOff, Flight
from providers._http import Http
from providers.aws_sns import AwsSns
from tests.aws_servers import LoopbackAws
from tests.outbound_cases import entry_of, message, outbound, provider, settings_of
from tests.test_providers import TEXTS, deaf, until
from tests.vendors import Fault, LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

PUBLISH, TEXT = entry_of("aws_sns", "publish"), entry_of("aws_sns", "text")
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "the-secret"}
IRELAND = {"AWS_REGION": "eu-west-1"}


@pytest.fixture
def vendor() -> Iterator[LoopbackVendor]:
    with LoopbackVendor(answer=PUBLISH.data["answer"]) as made:
        yield made


@pytest.fixture
def aws() -> Iterator[LoopbackAws]:
    with LoopbackAws() as made:
        yield made


@pytest.fixture(autouse=True)
def no_credentials_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


async def failure(made: Any, **fields: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await made.send(message(**{"body": "Hello", **fields}))
    return caught.value


# --- settings


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_REGION", "Frankfurt"),
        ("AWS_REGION", "eu-central-1.evil.example"),
        ("AWS_ACCESS_KEY_ID", "AK ID"),
        ("AWS_ENDPOINT_URL", "http://sns.example.com"),
        ("AWS_ENDPOINT_URL", "http://10.0.0.1"),
        ("AWS_ENDPOINT_URL", "ftp://localhost"),
        ("AWS_ENDPOINT_URL", "https://user:secret@example.com"),
        ("AWS_ENDPOINT_URL", "https://example.com?x=y"),
        ("AWS_SNS_SMS_SENDER_ID", "ACME Shop"),
        ("AWS_SNS_SMS_SENDER_ID", "12345678"),
        ("AWS_SNS_SENDER_ID", "AB"),
        ("AWS_SNS_SMS_TYPE", "Marketing"),
        ("AWS_SNS_SMS_MAX_PRICE", "1 dollar"),
        ("AWS_SNS_SMS_MAX_PRICE", "123"),
        ("AWS_SMS_INDIA_ENTITY_ID", "1 2"),
        ("AWS_SMS_ORIGINATION_IDENTITY", "my brand"),
        ("AWS_SMS_CONFIGURATION_SET", "a b"),
        ("AWS_MEDIA_BUCKET", "Bucket"),
        ("AWS_MEDIA_BUCKET", "bucket/folder"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        settings_of(PUBLISH, "https://sns.example.com", **{variable: value})
    assert value not in str(caught.value)


@pytest.mark.parametrize("alone", KEYS)
def test_half_a_pair_of_keys_is_refused(alone: str) -> None:
    with pytest.raises(SettingsError, match="set both, or neither"):
        Environment({**IRELAND, alone: KEYS[alone]}).fill(AwsSns.Settings)


@pytest.mark.parametrize(
    ("given", "sender"),
    [
        ({}, Sender(pool="aws")),
        ({"AWS_SNS_SENDER_ID": "OLDER"}, Sender(address="OLDER")),
        ({"AWS_SNS_SENDER_ID": "OLDER", "AWS_SNS_SMS_SENDER_ID": "NEWER"}, Sender(address="NEWER")),
        ({"AWS_SMS_ORIGINATION_IDENTITY": "+1 (206) 555-0152"}, Sender(address="+12065550152")),
        ({"AWS_SMS_ORIGINATION_IDENTITY": "12065550152"}, Sender(address="+12065550152")),
        ({"AWS_SMS_ORIGINATION_IDENTITY": "12345"}, Sender(address="12345")),
        ({"AWS_SMS_ORIGINATION_IDENTITY": "MY-BRAND"}, Sender(address="MY-BRAND")),
        ({"AWS_SMS_ORIGINATION_IDENTITY": "pool-0123456789abcdef"},
         Sender(pool="pool-0123456789abcdef")),
        ({"AWS_SMS_ORIGINATION_IDENTITY": "arn:aws:sms-voice:eu-west-1:123456789012:pool/pool-1"},
         Sender(pool="arn:aws:sms-voice:eu-west-1:123456789012:pool/pool-1")),
        ({"AWS_SMS_ORIGINATION_IDENTITY": "+12065550152", "AWS_SNS_SMS_SENDER_ID": "BRAND"},
         Sender(address="+12065550152")),
    ],
)  # fmt: skip
def test_what_a_message_goes_out_from(given: dict[str, str], sender: Sender) -> None:
    settings = Environment({**IRELAND, **given}).fill(AwsSns.Settings)
    assert AwsSns.connection(settings).senders == {Channel.SMS: sender}


@pytest.mark.parametrize(
    ("given", "meant"), [("0.5", "0.5"), ("1", "1.00"), ("99.99999", "99.99999"), ("", "")]
)
def test_a_price_always_has_a_point(given: str, meant: str) -> None:
    settings = Environment({**IRELAND, "AWS_SNS_SMS_MAX_PRICE": given}).fill(AwsSns.Settings)
    assert settings.max_price == meant


def test_what_it_can_depends_on_how_it_sends() -> None:
    made = [
        AwsSns(Environment({**IRELAND, **KEYS, **more}).fill(AwsSns.Settings))
        for more in (
            {"AWS_MEDIA_BUCKET": "files"},
            {"AWS_SMS_ORIGINATION_IDENTITY": "12345"},
            {"AWS_SMS_ORIGINATION_IDENTITY": "12345", "AWS_MEDIA_BUCKET": "s3://files/"},
        )
    ]
    assert [one.capabilities.reports_delivery for one in made] == [False, True, True]
    assert [one.capabilities.max_media for one in made] == [0, 0, 1]


# --- when AWS counts as configured


def adapted(**variables: str) -> Adapters:
    given = {"MESSAGING_PROVIDER": "console", "CONSOLE_WEBHOOK_SECRET": "x", **variables}
    return adapters(Environment(given), Http())


@pytest.mark.parametrize(
    "variables",
    [
        {},
        IRELAND,
        {**IRELAND, "AWS_ENDPOINT_URL": "https://vpce.example.com", "AWS_SESSION_TOKEN": "x"},
        {**IRELAND, "AWS_MEDIA_BUCKET": "files"},
        {"AWS_SNS_TOPIC_ARNS": "arn:aws:sns:eu-west-1:123456789012:in"},
    ],
)
def test_what_every_machine_at_aws_has_configures_nothing(variables: dict[str, str]) -> None:
    assert set(adapted(**variables).providers) == {"console"}


def test_a_region_and_a_pair_of_keys_do() -> None:
    made = adapted(**IRELAND, **KEYS)
    assert set(made.providers) == {"console", "aws_sns"}
    assert [route.name for route in made.chains[Channel.SMS]] == ["console"]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"}, "AWS_REGION is not set, but AWS_ACCESS_KEY_ID is"),
        ({**IRELAND, "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE"}, "AWS_SECRET_ACCESS_KEY is not set"),
        ({**IRELAND, "AWS_SNS_SMS_SENDER_ID": "BRAND"}, "or name aws_sns in a chain"),
        ({"SMS_PROVIDERS": "aws"}, "AWS_REGION is not set, and aws_sns cannot send without it"),
    ],
)
def test_what_is_half_set_up_stops_the_start(variables: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        adapted(**variables)


@pytest.mark.parametrize("name", ["aws", "aws_sns", "aws-sns"])
def test_one_that_is_named_uses_the_credentials_that_the_machine_has(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = s\n"
    )
    made = adapted(**IRELAND, SMS_PROVIDERS=name)
    assert [route.name for route in made.chains[Channel.SMS]] == ["aws_sns"]


def test_one_that_is_named_where_there_are_no_credentials_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID is not set"):
        adapted(**IRELAND, SMS_PROVIDERS="aws")


def test_a_profile_that_does_not_exist_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingsError, match="AWS_PROFILE"):
        adapted(**IRELAND, SMS_PROVIDERS="aws")


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(SettingsError, match=r"messaging-gateway\[aws\]"):
        adapted(**IRELAND, **KEYS)


def test_the_sdk_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, gateway.app; sys.exit(any(n in sys.modules for n in ('boto3', 'botocore')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- the wire


async def test_neither_proxies_nor_other_endpoints_of_the_environment_are_used(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://127.0.0.1:1\n")
    with LoopbackVendor() as other:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "AWS_ENDPOINT_URL_SNS"):
            monkeypatch.setenv(name, other.url)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
        vendor.plan.append(Reply(status=500, body=b"<x/>"))
        async with provider(PUBLISH, vendor.url) as made:
            assert type(await failure(made)) is Ambiguous
            await made.send(message(body="x"))
        assert other.connections == 0
    assert vendor.count == 2


async def test_without_an_endpoint_the_regions_own_is_called() -> None:
    for setup, host in ((PUBLISH, "sns"), (TEXT, "sms-voice")):
        async with provider(setup, "", AWS_ENDPOINT_URL=" ") as made:
            client = made._client
            assert client.meta.endpoint_url == f"https://{host}.eu-central-1.amazonaws.com"
            failed = await failure(made)
            assert (type(failed), failed.code) == (Unreachable, "dns")


async def test_connections_are_kept_for_a_while(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider(PUBLISH, vendor.url) as made:
        for _ in range(3):
            await made.send(message(body="x"))
        assert vendor.connections == 1
        monkeypatch.setattr(_aws_wire, "KEEPALIVE", 0.0)
        await made.send(message(body="x"))
    assert (vendor.connections, vendor.count) == (2, 4)


async def test_connections_that_the_vendor_closed_are_not_written_to(
    vendor: LoopbackVendor,
) -> None:
    async with provider(PUBLISH, vendor.url) as made:
        await asyncio.gather(*(made.send(message(body="x")) for _ in range(20)))
        vendor.drop_all()
        for _ in range(3):
            await made.send(message(body="x"))
    assert vendor.count == 23


@pytest.mark.parametrize("status", [101, 102, 103, 199, 600, 999])
async def test_what_is_no_final_answer_leaves_no_connection_to_the_next_request(
    vendor: LoopbackVendor, status: int
) -> None:
    vendor.plan.append(Reply(status=status))  # on a connection that stays open
    async with provider(PUBLISH, vendor.url) as made:
        assert type(await failure(made)) is Ambiguous
        await made.send(message(body="x"))
    assert vendor.connections == 2


async def test_a_client_whose_mark_is_out_of_order_proves_nothing(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aws_wire.Wire, "attach", lambda self, client: None)
    async with provider(PUBLISH, vendor.url) as made:
        failed = await failure(made)
        assert (type(failed), failed.code) == (Ambiguous, "unmarked")


@pytest.mark.parametrize("body", [b'{"MessageId": ""}', b"{}", b'{"MessageId": 5}', b"[]", b""])
async def test_a_success_without_an_id_proves_nothing(vendor: LoopbackVendor, body: bytes) -> None:
    vendor.always = Reply(body=body)
    for setup in (PUBLISH, TEXT):
        async with provider(setup, vendor.url) as made:
            assert type(await failure(made)) is Ambiguous


async def test_nothing_is_logged_of_a_message_even_at_debug(
    vendor: LoopbackVendor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with provider(PUBLISH, vendor.url) as made:
        await made.send(message(body="recognisable"))
    for hidden in ("recognisable", "15557654321", "AKIDEXAMPLE", "Signature"):
        assert hidden not in caplog.text


async def test_what_boto3_refuses_is_not_sent(vendor: LoopbackVendor) -> None:
    async with provider(TEXT, vendor.url) as made:
        failed = await failure(made, to="")
    assert (type(failed), failed.code) == (Unsupported, "parameters")
    assert vendor.count == 0


# --- threads and time


async def test_who_finds_no_free_thread_is_told_so_and_nothing_was_sent(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aws, "SEATS", 2)
    vendor.always = Fault.STALL
    async with provider(PUBLISH, vendor.url, timeout=0.8) as made:
        failed = await asyncio.gather(*(failure(made) for _ in range(5)))
        assert sorted((type(f).__name__, f.code) for f in failed) == [
            *[("Ambiguous", "timeout")] * 2,
            *[("Throttled", "no_seat")] * 3,
        ]
        assert vendor.count == 2
        assert type(await failure(made)) is Throttled  # both threads still listen
        await until(lambda: not vendor.open)
        vendor.always = None
        await made.send(message(body="x"))
    assert vendor.count == 3


async def test_an_answer_that_comes_late_is_told_to_whom_it_concerns(
    vendor: LoopbackVendor,
) -> None:
    said = b"<PublishResult><MessageId>m1</MessageId></PublishResult>"
    said = b"<PublishResponse>%b</PublishResponse>" % said
    vendor.always = Reply(body=said, after=(given_up := threading.Event()))
    async with provider(PUBLISH, vendor.url, timeout=1.5) as made:
        failed = await failure(made)
        given_up.set()
        assert isinstance(failed, Ambiguous)
        assert failed.late is not None
        assert (await failed.late).provider_message_id == "m1"


async def test_a_no_that_comes_late_is_told_too(vendor: LoopbackVendor) -> None:
    said = b"<ErrorResponse><Error><Code>OptedOut</Code></Error></ErrorResponse>"
    vendor.always = Reply(status=400, body=said, after=(given_up := threading.Event()))
    async with provider(PUBLISH, vendor.url, timeout=1.5) as made:
        failed = await failure(made)
        given_up.set()
        assert isinstance(failed, Ambiguous)
        assert failed.late is not None
        with pytest.raises(ProviderError, match="OptedOut"):
            await failed.late


async def test_after_as_long_again_nobody_listens(vendor: LoopbackVendor) -> None:
    vendor.always = Fault.STALL
    async with provider(PUBLISH, vendor.url, timeout=0.2) as made:
        failed = await failure(made)
        assert isinstance(failed, Ambiguous)
        assert failed.late is not None
        with pytest.raises(Ambiguous, match=r"no_answer|timeout"):
            await failed.late
        await until(lambda: not vendor.open)
    assert vendor.count == 1


async def test_a_send_whose_time_is_over_before_it_was_written_never_is() -> None:
    async with deaf() as url, provider(PUBLISH, url, timeout=0.2) as made:
        failed = await failure(made)
        assert (type(failed), failed.code) == (Unreachable, "connect_timeout")


def test_what_was_called_off_in_time_does_not_leave() -> None:
    flight = Flight()
    assert flight.call_off()
    with pytest.raises(CalledOff):
        flight.depart(None)  # type: ignore[arg-type]
    assert not flight.written
    late = Flight()
    late.depart(None)  # type: ignore[arg-type]
    assert not late.call_off()


async def test_closing_ends_what_is_under_way(vendor: LoopbackVendor) -> None:
    vendor.always = Fault.STALL
    async with provider(PUBLISH, vendor.url, timeout=30) as made:
        sending = [asyncio.create_task(failure(made)) for _ in range(5)]
        await until(lambda: vendor.count == 5)
        await made.aclose()
        assert {type(failed) for failed in await asyncio.gather(*sending)} == {Ambiguous}
        assert (await failure(made)).code == "closed"
    await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("gateway-aws")])


# --- End User Messaging SMS, as botocore's model of it has it


def wired() -> list[dict[str, Any]]:
    return [dict(case["message"]) for _, case in outbound(TEXT) if "json" in case]


@pytest.mark.parametrize("given", wired())
async def test_every_request_is_of_its_services_model(
    given: dict[str, Any], aws: LoopbackAws
) -> None:
    more = {
        "AWS_SNS_SMS_MAX_PRICE": "0.5",
        "AWS_SMS_INDIA_ENTITY_ID": "1101456324675321",
        "AWS_SMS_INDIA_TEMPLATE_ID": "1107164567890",
    }
    async with provider(TEXT, aws.url, **more) as made:
        receipt = await made.send(message(**given))
    assert (aws.refused, receipt.provider_message_id) == ([], "message-1")
    said = aws.requests[0].json
    assert said["MaxPrice"] == "0.5"
    if "MediaUrls" not in said:
        assert said["DestinationCountryParameters"] == {
            "IN_ENTITY_ID": "1101456324675321",
            "IN_TEMPLATE_ID": "1107164567890",
        }


@pytest.mark.parametrize("kind", TEXTS)
async def test_every_text_is_of_its_services_model(kind: str, aws: LoopbackAws) -> None:
    async with provider(TEXT, aws.url) as made:
        await made.send(message(body=TEXTS[kind]))
    assert aws.refused == []


async def test_the_stand_in_refuses_what_the_model_does(aws: LoopbackAws) -> None:
    async with provider(TEXT, aws.url) as made:
        failed = await failure(made, to="+0123")
    assert (failed.code, aws.refused) == (
        "FIELD_VALIDATION_FAILED",
        [".DestinationPhoneNumber is not of its pattern"],
    )


async def test_promotional_is_said_where_it_is_set(
    aws: LoopbackAws, vendor: LoopbackVendor
) -> None:
    async with provider(TEXT, aws.url, AWS_SNS_SMS_TYPE="promotional") as made:
        await made.send(message(body="x"))
    async with provider(PUBLISH, vendor.url, AWS_SNS_SMS_TYPE="promotional") as made:
        await made.send(message(body="x"))
    assert aws.requests[0].json["MessageType"] == "PROMOTIONAL"
    assert b"SMSType&MessageAttributes.entry.1.Value.DataType=String" in vendor.requests[0].body
    assert b"StringValue=Promotional" in vendor.requests[0].body
