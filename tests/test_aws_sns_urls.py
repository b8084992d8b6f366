"""No URL is visited that a sender put together: not for a certificate, not for a subscription."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import SettingsError, SignatureInvalid
from tests.sns_signing import (
    FILE,
    HOST,
    TOKEN,
    TOPIC,
    URL,
    Signer,
    Source,
    confirmation,
    hook,
    notification,
    request,
    said,
    signer,
    source,
)

pytestmark = pytest.mark.anyio

REGION = "eu-west-1"
AWS = "amazonaws.com"
CERTIFICATES = [
    f"http://sns.{REGION}.{AWS}/{FILE}",
    f"HTTPS://sns.{REGION}.{AWS}/{FILE}",
    f"ftp://sns.{REGION}.{AWS}/{FILE}",
    f"//sns.{REGION}.{AWS}/{FILE}",
    f"sns.{REGION}.{AWS}/{FILE}",
    f"file:///etc/{FILE}",
    "data:application/x-pem-file;base64,AAAA",
    "http://169.254.169.254/latest/meta-data/",
    f"https://127.0.0.1/{FILE}",
    f"https://[::1]/{FILE}",
    f"https://sns.s3-us-west-2.{AWS}/{FILE}",
    f"https://sns.s3-accelerate.{AWS}/{FILE}",
    f"https://sns.s3-{REGION}.{AWS}/{FILE}",
    f"https://sns.s3.{REGION}.{AWS}/{FILE}",
    f"https://s3.{REGION}.{AWS}/sns/{FILE}",
    f"https://sns.eu-west-2.{AWS}/{FILE}",
    f"https://sns.us-east-1.{AWS}/{FILE}",
    f"https://sns.{REGION}.{AWS}.cn/{FILE}",
    f"https://sns.{REGION}.amazonaws.eu/{FILE}",
    f"https://sns.{REGION}.{AWS}.evil.example/{FILE}",
    f"https://sns.{REGION}.{AWS}evil.example/{FILE}",
    f"https://sns.{REGION}.{AWS}@evil.example/{FILE}",
    f"https://evil.example#@sns.{REGION}.{AWS}/{FILE}",
    f"https://evil.example/sns.{REGION}.{AWS}/{FILE}",
    f"https://evil.example?https://sns.{REGION}.{AWS}/{FILE}",
    f"https://evil.example\\@sns.{REGION}.{AWS}/{FILE}",
    f"https://sns.{REGION}.{AWS}\\.evil.example/{FILE}",
    f"https://user@sns.{REGION}.{AWS}/{FILE}",
    f"https://user:pass@sns.{REGION}.{AWS}/{FILE}",
    f"https://sns.{REGION}.{AWS}:443/{FILE}",
    f"https://sns.{REGION}.{AWS}:8443/{FILE}",
    f"https://sns.{REGION}.{AWS}:/{FILE}",
    f"https://sns.{REGION}.{AWS}./{FILE}",
    f"https://.sns.{REGION}.{AWS}/{FILE}",
    f"https://x.sns.{REGION}.{AWS}/{FILE}",
    f"https://snsx{REGION}.{AWS}/{FILE}",
    f"https://sns-{REGION}.{AWS}/{FILE}",
    f"https://SNS.{REGION}.{AWS}/{FILE}",
    f"https://sns.{REGION.upper()}.{AWS}/{FILE}",
    f"https://ѕns.{REGION}.{AWS}/{FILE}",
    f"https://sns.{REGION}.amazonaws。com/{FILE}",
    f"https://sns.{REGION}.{AWS}//{FILE}",
    f"https://sns.{REGION}.{AWS}/x/{FILE}",
    f"https://sns.{REGION}.{AWS}/x/../{FILE}",
    f"https://sns.{REGION}.{AWS}/./{FILE}",
    f"https://sns.{REGION}.{AWS}/%2e/{FILE}",
    f"https://sns.{REGION}.{AWS}{FILE}",
    f"https://sns.{REGION}.{AWS}/{FILE}?x",
    f"https://sns.{REGION}.{AWS}/{FILE}?",
    f"https://sns.{REGION}.{AWS}/{FILE}#",
    f"https://sns.{REGION}.{AWS}/{FILE}#x",
    f"https://sns.{REGION}.{AWS}/{FILE};x",
    f"https://sns.{REGION}.{AWS}/?Action=Publish&x=/{FILE}",
    f"https://sns.{REGION}.{AWS}/{FILE}/",
    f"https://sns.{REGION}.{AWS}/{FILE}.pem",
    f"https://sns.{REGION}.{AWS}/{FILE} ",
    f" https://sns.{REGION}.{AWS}/{FILE}",
    f"https://sns.{REGION}.{AWS}/{FILE}\n",
    f"https://sns.{REGION}.{AWS}/{FILE}\r\nX: y",
    f"https://sns.{REGION}.{AWS}/{FILE}\x00",
    f"https://sns.{REGION}.{AWS}/\t{FILE}",
    f"https://sns.{REGION}.{AWS}/{FILE.upper()}",
    f"https://sns.{REGION}.{AWS}/{FILE.replace('a1', 'A1')}",
    f"https://sns.{REGION}.{AWS}/{FILE.replace('a1', 'g1')}",
    f"https://sns.{REGION}.{AWS}/{FILE.replace('a1', 'a')}",
    f"https://sns.{REGION}.{AWS}/{FILE.replace('a1', 'a1a')}",
    f"https://sns.{REGION}.{AWS}/{FILE.replace('a1', '١1')}",
    f"https://sns.{REGION}.{AWS}/SimpleNotificationService-.pem",
    f"https://sns.{REGION}.{AWS}/{FILE.removesuffix('.pem')}",
    "",
]
SUBSCRIPTIONS = [
    "http://169.254.169.254/latest/meta-data/",
    f"http://sns.{REGION}.{AWS}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}",
    f"https://sns.eu-west-2.{AWS}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}",
    f"{HOST}@e.example/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}",
    f"{HOST}/",
    f"{HOST}/?",
    f"{HOST}?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}",
    f"{HOST}/x?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}",
    f"{HOST}/?Action=Unsubscribe&TopicArn={TOPIC}&Token={TOKEN}",
    f"{HOST}/?Action=ConfirmSubscription&Action=Publish&TopicArn={TOPIC}&Token={TOKEN}",
    f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}-2&Token={TOKEN}",
    f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}0",
    f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}",
    f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=",
    f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}&Endpoint=x",
    f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}#x",
    f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN} ",
    f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}&",
    f"{HOST}/?action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}",
    "",
]


async def refused(made: Any, fetch: Source, **more: str) -> str:
    """Why a request is refused, without a connection."""
    with pytest.raises(SignatureInvalid) as caught:
        await hook(fetch, **more).verify(made)
    assert fetch.asked == []
    return caught.value.detail


@pytest.mark.parametrize("url", CERTIFICATES)
async def test_a_hostile_certificate_url_causes_no_connection(url: str) -> None:
    everything = Source({url: signer().pem})
    assert "SigningCertURL" in await refused(request(notification(said()), url=url), everything)


@pytest.mark.parametrize("url", SUBSCRIPTIONS)
async def test_a_hostile_subscribe_url_causes_no_connection_although_it_is_signed(url: str) -> None:
    assert "SubscribeURL" in await refused(request(confirmation(SubscribeURL=url)), source())


async def test_a_confirmation_s_url_may_be_spelt_as_urls_are() -> None:
    spelt = TOPIC.replace(":", "%3A")
    for url in (
        f"{HOST}/?Action=ConfirmSubscription&TopicArn={spelt}&Token={TOKEN}",
        f"{HOST}/?Token={TOKEN}&Action=ConfirmSubscription&TopicArn={TOPIC}",
    ):
        verified = await hook(source()).verify(request(confirmation(SubscribeURL=url)))
        (event,) = hook(source()).parse(verified)
        assert event.content["subscribe_url"] == f"{HOST}/"  # type: ignore[union-attr]


REGIONS = {  # a topic's partition and region, SNS's host there, and its certificate's name
    ("aws", "us-east-1"): (f"sns.us-east-1.{AWS}", f"sns.{AWS}"),
    ("aws", "ap-northeast-3"): (f"sns.ap-northeast-3.{AWS}", f"sns.{AWS}"),
    ("aws", "af-south-1"): (f"sns.af-south-1.{AWS}", f"sns-signing.af-south-1.{AWS}"),
    ("aws", "mx-central-1"): (f"sns.mx-central-1.{AWS}", f"sns-signing.mx-central-1.{AWS}"),
    ("aws-us-gov", "us-gov-east-1"): (f"sns.us-gov-east-1.{AWS}", f"sns-us-gov-west-1.{AWS}"),
    ("aws-us-gov", "us-gov-west-1"): (f"sns.us-gov-west-1.{AWS}", f"sns-us-gov-west-1.{AWS}"),
    ("aws-cn", "cn-north-1"): (f"sns.cn-north-1.{AWS}.cn", f"sns-cn-north-1.{AWS}.cn"),
    ("aws-eusc", "eusc-de-east-1"): (
        "sns.eusc-de-east-1.amazonaws.eu",
        "sns-signing.eusc-de-east-1.amazonaws.eu",
    ),
}


@pytest.mark.parametrize("place", REGIONS, ids=lambda p: p[1])
async def test_each_region_has_its_host_and_its_certificate_s_name(place: tuple[str, str]) -> None:
    partition, region = place
    topic = f"arn:{partition}:sns:{region}:123456789012:texts"
    host, name = REGIONS[place]
    for other, (elsewhere, _) in REGIONS.items():
        url = f"https://{elsewhere}/{FILE}"
        made = request(notification(said(), TopicArn=topic), signer(name), url=url)
        webhook = hook(Source({url: signer(name).pem}), topic)
        if other == place:
            assert (await webhook.verify(made)).key
            continue
        with pytest.raises(SignatureInvalid, match="SigningCertURL"):
            await webhook.verify(made)
    for wrong in {name for _, name in REGIONS.values()} - {name} | {"evil.example", f"x.{name}"}:
        await wrong_name(topic, f"https://{host}/{FILE}", signer(wrong))


async def wrong_name(topic: str, url: str, by: Signer) -> None:
    """A certificate of another name is not believed."""
    made = request(notification(said(), TopicArn=topic), by, url=url)
    with pytest.raises(SignatureInvalid, match="certificate is not of"):
        await hook(Source({url: by.pem}), topic).verify(made)


EMULATOR = "http://127.0.0.1:4571"
DEVELOPMENT = {"AWS_SNS_EMULATOR_URL": EMULATOR, "GATEWAY_ENV": "development"}


@pytest.mark.parametrize("path", ["/_aws/sns/Some-6c6f.pem", "/x.pem", "/"])
async def test_an_emulator_s_certificate_needs_no_name_in_development(path: str) -> None:
    by = signer("emulated root")
    made = request(notification(said()), by, url=EMULATOR + path)
    assert (await hook(Source({EMULATOR + path: by.pem}), **DEVELOPMENT).verify(made)).key
    await refused(made, Source({EMULATOR + path: by.pem}))


@pytest.mark.parametrize(
    "url",
    [
        EMULATOR,
        f"{EMULATOR}0/x.pem",
        f"{EMULATOR}@evil.example/x.pem",
        f"{EMULATOR}.evil.example/x.pem",
        "https://127.0.0.1:4571/x.pem",
        "http://127.0.0.1:4572/x.pem",
        "http://localhost:4571/x.pem",
        f"{EMULATOR}/x.pem?y",
        f"{EMULATOR}/x.pem#y",
        f"{EMULATOR}/x.pem\n",
        f"{EMULATOR}\\x.pem",
    ],
)
async def test_only_the_emulator_s_exact_origin_is_trusted(url: str) -> None:
    await refused(
        request(notification(said()), url=url), Source({url: signer().pem}), **DEVELOPMENT
    )


async def test_a_subscription_of_the_emulator_is_confirmed_there_in_development_only() -> None:
    url = f"{EMULATOR}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}"
    made = request(confirmation(SubscribeURL=url))
    assert (await hook(source(), **DEVELOPMENT).verify(made)).key
    assert "SubscribeURL" in await refused(made, source())


@pytest.mark.parametrize("env", ["production", None])
def test_an_emulator_stops_a_production_start(env: str | None) -> None:
    more = {"AWS_SNS_EMULATOR_URL": EMULATOR} | ({"GATEWAY_ENV": env} if env else {})
    with pytest.raises(SettingsError, match="AWS_SNS_EMULATOR_URL"):
        hook(source(), **more)


@pytest.mark.parametrize(
    "origin",
    [
        "127.0.0.1:4571",
        "http://",
        "http://a b",
        "http://u@127.0.0.1",
        "http://127.0.0.1/x",
        "http://127.0.0.1?x",
        "file:///x",
        "http://127.0.0.1:port",
    ],
)
def test_an_emulator_is_an_origin(origin: str) -> None:
    with pytest.raises(SettingsError, match="AWS_SNS_EMULATOR_URL"):
        hook(source(), AWS_SNS_EMULATOR_URL=origin, GATEWAY_ENV="development")


@pytest.mark.parametrize(
    "listed",
    [
        "*",
        "texts",
        f"{TOPIC},*",
        f"{TOPIC}*",
        f"{TOPIC}:0000-1111",
        f"{TOPIC}.fifo",
        TOPIC.replace(":sns:", ":sqs:"),
        TOPIC.replace("210987654321", "21098765432"),
        TOPIC.replace("arn:aws:", "arn:aws-cn:"),
        TOPIC.replace("arn:aws:", "arn:aws-us-gov:"),
        TOPIC.replace("eu-west-1", "s3-us-west-2"),
        TOPIC.replace("eu-west-1", "cn-north-1"),
        TOPIC.replace("eu-west-1", ""),
        f"{TOPIC}\n{TOPIC}",
    ],
)
def test_what_is_no_topic_s_arn_stops_the_start_and_is_not_shown(listed: str) -> None:
    with pytest.raises(SettingsError, match="AWS_SNS_TOPIC_ARNS: number") as caught:
        hook(source(), listed)
    assert "210987" not in str(caught.value)


async def test_several_topics_may_post() -> None:
    other = TOPIC.replace("texts", "mail")
    webhook = hook(source(), f" {TOPIC} ,, {other},")
    keys = {
        (await webhook.verify(request(notification(said(), TopicArn=topic)))).key
        for topic in (TOPIC, other)
    }
    assert len(keys) == 2


def test_there_are_no_doubles_in_the_lists() -> None:
    assert len(set(CERTIFICATES)) == len(CERTIFICATES) >= 40
    assert URL not in CERTIFICATES
