"""Subscriptions are confirmed by the API where credentials allow, else by a URL of our making."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from gateway.domain import Confirms, Handshake
from gateway.errors import ProviderError, Rejected, Unreachable
from tests.sns_signing import HOST, TOKEN, TOPIC, Source, confirmation, hook, request, source
from tests.vendors import Fault, LoopbackVendor, Reply
from tests.webhook_cases import events_of
from webhooks import _sns_confirm
from webhooks._sns_http import Unanswered, fetch

pytestmark = pytest.mark.anyio

MADE = f"{TOPIC}:0a1b2c3d-0000-4000-8000-000000000001"
WHERE = f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}"
NAMESPACE = "http://sns.amazonaws.com/doc/2010-03-31/"


def confirmed(arn: str = MADE) -> bytes:
    """The API's yes."""
    return (
        f'<ConfirmSubscriptionResponse xmlns="{NAMESPACE}"><ConfirmSubscriptionResult>'
        f"<SubscriptionArn>{arn}</SubscriptionArn></ConfirmSubscriptionResult>"
        "<ResponseMetadata><RequestId>x</RequestId></ResponseMetadata>"
        "</ConfirmSubscriptionResponse>"
    ).encode()


def refused(code: str) -> bytes:
    """The API's no."""
    return (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code>'
        "<Message>Because</Message></Error><RequestId>x</RequestId></ErrorResponse>"
    ).encode()


def asked(**more: Any) -> Handshake:
    """What a confirmation asks for."""
    content = {"topic_arn": TOPIC, "token": TOKEN, "subscribe_url": f"{HOST}/", **more}
    return Handshake(dedupe_key="h", kind="subscription", content=content)


def credentials(vendor: LoopbackVendor) -> dict[str, str]:
    """Variables by which the API is called."""
    return {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "an-example-secret",
        "AWS_ENDPOINT_URL": vendor.url,
    }


async def failure(webhook: Confirms, handshake: Handshake) -> ProviderError:
    """Why something is not confirmed."""
    with pytest.raises((Rejected, Unreachable)) as caught:
        await webhook.confirm(handshake)
    assert isinstance(caught.value, ProviderError)
    assert TOKEN not in str(caught.value)
    assert caught.value.__context__ is None or TOKEN not in str(caught.value.__context__)
    return caught.value


async def test_without_credentials_one_checked_url_is_visited() -> None:
    fetch = Source({WHERE: confirmed()})
    assert isinstance(hook(fetch), Confirms)
    assert await hook(fetch).confirm(asked()) == MADE
    assert fetch.asked == [WHERE]


async def test_what_was_verified_can_be_confirmed() -> None:
    fetch = source((WHERE, confirmed()))
    (event,) = await events_of(hook(fetch), request(confirmation()))
    assert isinstance(event, Handshake)
    assert await hook(fetch).confirm(event) == MADE


@pytest.mark.parametrize(
    "wrong",
    [
        {"topic_arn": f"{TOPIC}-2"},
        {"topic_arn": None},
        {"token": ""},
        {"token": None},
        {"subscribe_url": None},
        {"subscribe_url": "http://169.254.169.254/"},
        {"subscribe_url": "https://evil.example/"},
        {"subscribe_url": f"{HOST}/x"},
        {"subscribe_url": f"{HOST}/?"},
        {"subscribe_url": "http://127.0.0.1:4571/"},
    ],
)
async def test_nothing_else_is_visited_even_if_it_stood_in_the_database(
    wrong: dict[str, Any],
) -> None:
    fetch = Source()
    assert isinstance(await failure(hook(fetch), asked(**wrong)), Rejected)
    assert fetch.asked == []


async def test_a_token_stays_one_value_of_the_query() -> None:
    fetch = Source()
    await failure(hook(fetch), asked(token="a&Action=Publish#x y"))
    assert fetch.asked == [WHERE.replace(TOKEN, "a%26Action%3DPublish%23x+y")]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Unanswered("HTTP 400", 400, refused("InvalidParameter")), Rejected),
        (Unanswered("HTTP 404", 404, refused("NotFound")), Rejected),
        (Unanswered("HTTP 400", 400, refused("Throttling")), Unreachable),
        (Unanswered("HTTP 403", 403, refused("SubscriptionLimitExceeded")), Unreachable),
        (Unanswered("HTTP 400", 400), Unreachable),
        (Unanswered("HTTP 403", 403, b"<html>Forbidden</html>"), Unreachable),
        (Unanswered("HTTP 404", 404), Unreachable),
        (Unanswered("HTTP 302", 302), Unreachable),
        (Unanswered("HTTP 408", 408), Unreachable),
        (Unanswered("HTTP 429", 429), Unreachable),
        (Unanswered("HTTP 500", 500), Unreachable),
        (Unanswered("ConnectionError"), Unreachable),
        (b"<html>Welcome</html>", Unreachable),
        (b"", Unreachable),
        (refused("InternalError"), Unreachable),
    ],
)
async def test_an_answer_tells_whether_to_try_again(answer: Any, kind: type[Exception]) -> None:
    assert type(await failure(hook(Source({WHERE: answer})), asked())) is kind


@pytest.mark.parametrize(
    ("code", "kind"), [("Throttling", Unreachable), ("InvalidParameter", Rejected)]
)
def test_the_real_client_brings_the_reason_along(
    vendor: LoopbackVendor, code: str, kind: type[ProviderError]
) -> None:
    vendor.pages["/"] = Reply(status=400, body=refused(code))
    with pytest.raises(kind) as caught:
        _sns_confirm.by_url(fetch, f"{vendor.url}/?Token={TOKEN}")
    assert caught.value.code == code
    assert TOKEN not in str(caught.value)


async def test_a_yes_without_a_name_is_a_yes() -> None:
    for arn in ("", "pending", "arn:<x/>"):
        assert await hook(Source({WHERE: confirmed(arn)})).confirm(asked()) is None


async def test_with_credentials_the_api_is_asked_in_the_topic_s_region(
    vendor: LoopbackVendor,
) -> None:
    vendor.pages["/"] = Reply(body=confirmed(), headers={"Content-Type": "text/xml"})
    fetch = Source()
    assert await hook(fetch, **credentials(vendor)).confirm(asked()) == MADE
    (call,) = vendor.requests
    form = {name: values[0] for name, values in parse_qs(call.body.decode()).items()}
    assert form["Action"] == "ConfirmSubscription"
    assert (form["TopicArn"], form["Token"]) == (TOPIC, TOKEN)
    assert form["AuthenticateOnUnsubscribe"] == "true"
    assert "/eu-west-1/sns/aws4_request" in call.headers["authorization"]
    assert fetch.asked == []


async def test_a_machine_s_own_credentials_confirm_where_aws_is_used(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vendor.pages["/"] = Reply(body=confirmed(), headers={"Content-Type": "text/xml"})
    profile = tmp_path / "credentials"
    profile.write_text("[default]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    fetch, used = Source(), {"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL": vendor.url}
    assert await hook(fetch, **used).confirm(asked()) == MADE
    (call,) = vendor.requests
    assert "Credential=AKIAPROFILE/" in call.headers["authorization"]
    assert fetch.asked == []


async def test_a_machine_without_credentials_confirms_by_the_url(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fetch, used = Source({WHERE: confirmed()}), {"AWS_REGION": "eu-central-1"}
    assert await hook(fetch, **used).confirm(asked()) == MADE
    assert fetch.asked == [WHERE]


async def test_the_api_is_asked_where_sending_would_and_by_no_proxy(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vendor.pages["/"] = Reply(body=confirmed(), headers={"Content-Type": "text/xml"})
    config = tmp_path / "config"
    config.write_text(f"[default]\nendpoint_url = {vendor.url}\nmax_attempts = 9\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", vendor.url)
    monkeypatch.setenv("HTTPS_PROXY", vendor.url)
    given = {name: v for name, v in credentials(vendor).items() if name != "AWS_ENDPOINT_URL"}
    assert isinstance(await failure(hook(Source(), **given), asked()), Unreachable)
    assert vendor.requests == []
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert await hook(Source(), **credentials(vendor)).confirm(asked()) == MADE


def test_an_answer_is_about_our_credentials_or_about_the_token() -> None:
    assert {"AccessDenied", "AuthorizationError", "ExpiredToken"} <= _sns_confirm.OURS
    assert not _sns_confirm.OURS & _sns_confirm.USELESS


@pytest.mark.parametrize("code", ["AuthorizationError", "InvalidClientTokenId"])
async def test_credentials_that_may_not_give_way_to_the_url(
    vendor: LoopbackVendor, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    vendor.pages["/"] = Reply(status=403, body=refused(code))
    fetch = Source({WHERE: confirmed()})
    assert await hook(fetch, **credentials(vendor)).confirm(asked()) == MADE
    assert len(vendor.requests) == 1
    assert fetch.asked == [WHERE]
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidParameter", Rejected),
        (404, "NotFound", Rejected),
        (403, "SubscriptionLimitExceeded", Unreachable),
        (429, "Throttled", Unreachable),
        (500, "InternalError", Unreachable),
    ],
)
async def test_the_api_s_no_is_tried_again_where_that_may_help(
    vendor: LoopbackVendor, status: int, code: str, kind: type[Exception]
) -> None:
    vendor.pages["/"] = Reply(status=status, body=refused(code))
    fetch = Source()
    error = await failure(hook(fetch, **credentials(vendor)), asked())
    assert type(error) is kind
    assert error.code == code
    assert len(vendor.requests) == 1  # nothing repeats by itself
    assert fetch.asked == []


@pytest.mark.parametrize("fault", [Fault.DROP_BEFORE, Fault.DROP_AFTER])
async def test_an_api_that_breaks_off_is_asked_again_later(
    vendor: LoopbackVendor, fault: Fault
) -> None:
    vendor.always = fault
    error = await failure(hook(Source(), **credentials(vendor)), asked())
    assert isinstance(error, Unreachable)
    assert len(vendor.requests) <= 1


async def test_an_emulator_s_subscription_does_not_go_to_the_api(vendor: LoopbackVendor) -> None:
    emulator = "http://127.0.0.1:4571"
    where = WHERE.replace(HOST, emulator)
    fetch = Source({where: confirmed()})
    more = {"AWS_SNS_EMULATOR_URL": emulator, "GATEWAY_ENV": "development"}
    webhook = hook(fetch, **more, **credentials(vendor))
    assert await webhook.confirm(asked(subscribe_url=f"{emulator}/")) == MADE
    assert vendor.requests == []


async def test_no_secret_shows() -> None:
    webhook = hook(
        Source(), AWS_ACCESS_KEY_ID="AKIAEXAMPLE", AWS_SECRET_ACCESS_KEY="an-example-secret"
    )
    shown = repr(webhook._settings) + repr(webhook._credentials)
    assert "an-example-secret" not in shown
