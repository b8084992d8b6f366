"""Files through AWS: from the web into the bucket, and only then one sending request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.domain import FetchedMedia, OutboundMedia
from gateway.errors import (
    NO_ROOM,
    AccountRefused,
    Breaker,
    ProviderError,
    Rejected,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers import _aws_media
from providers._aws_media import MMS, Bucket, sniffed, type_of
from tests.aws_account import AwsAccount, aws_account
from tests.aws_servers import LoopbackAws, files_of_others, s3_error
from tests.outbound_cases import entry_of, message, provider
from tests.vendors import Behaviour, Fault, LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

TEXT = entry_of("aws_sns", "text")
PNG = b"\x89PNG\r\n\x1a\n" + b"a picture"
FILE = "https://files.example.com/a.png"
PLACE = "/gateway-media/default/outbound/msg_1/0.png"


@pytest.fixture
def aws() -> Iterator[LoopbackAws]:
    with LoopbackAws() as made:
        yield made


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackVendor]:
    with files_of_others(monkeypatch, "image/png", PNG) as made:
        yield made


def picture(url: str = FILE, **more: Any) -> dict[str, Any]:
    return {"type": "image", "media": [{"url": url, **more}]}


async def failure(aws: LoopbackAws, *, timeout: float = 5.0, **fields: Any) -> ProviderError:
    async with provider(TEXT, aws.url, timeout=timeout) as made:
        with pytest.raises(ProviderError) as caught:
            await made.send(message(body="Look", **{**picture(), **fields}))
    assert aws.sent == []
    assert caught.value.sent_nothing
    return caught.value


async def test_a_file_is_in_the_bucket_before_the_one_sending_request(
    aws: LoopbackAws, web: LoopbackVendor
) -> None:
    async with provider(TEXT, aws.url) as made:
        receipt = await made.send(message(body="Look", **picture()))
    assert receipt.provider_message_id
    assert [r.path for r in web.requests] == ["/a.png"]
    put, sent = aws.requests
    assert (put.method, put.path) == ("PUT", PLACE)
    assert aws.files == {PLACE: ("image/png", PNG)}
    assert sent.json["MediaUrls"] == [f"s3:/{PLACE}"]
    assert sent.json["MessageBody"] == "Look"
    assert aws.refused == []


async def test_a_repeated_send_puts_the_file_in_the_same_place(
    aws: LoopbackAws, web: LoopbackVendor
) -> None:
    async with provider(TEXT, aws.url) as made:
        for attempt in ("att_1", "att_2"):
            await made.send(message(attempt_id=attempt, **picture()))
    assert list(aws.files) == [PLACE]
    assert [sent["MediaUrls"] for sent in aws.sent] == [[f"s3:/{PLACE}"]] * 2


async def test_a_file_of_the_bucket_is_sent_from_where_it_is(
    aws: LoopbackAws, web: LoopbackVendor
) -> None:
    ours = "s3://gateway-media/default/cat pictures/1.png"
    async with provider(TEXT, aws.url) as made:
        await made.send(message(body="Look", **picture(ours)))
    assert aws.sent[0]["MediaUrls"] == [ours]
    assert (aws.files, web.count, aws.refused) == ({}, 0, [])


async def test_only_where_there_is_a_bucket_files_are_taken_from_it() -> None:
    async with provider(TEXT, "http://127.0.0.1:9") as made:
        assert made.capabilities.media_from == ("https://", "s3://gateway-media/{tenant}/")
    async with provider(TEXT, "http://127.0.0.1:9", AWS_MEDIA_BUCKET=" ") as made:
        assert (made.capabilities.media_from, made.capabilities.max_media) == (("https://",), 0)


async def test_a_file_that_needs_more_room_than_it_was_given_is_not_read(
    aws: LoopbackAws, web: LoopbackVendor
) -> None:
    error = await failure(aws, room=len(PNG) - 1)
    assert (error.code, error.size, error.next_provider) == (NO_ROOM, len(PNG), False)
    assert error.breaker is Breaker.IGNORES
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n"
    web.always = head + PNG
    error = await failure(aws, room=10)
    assert (error.code, error.size) == (NO_ROOM, MMS.largest)  # nobody said how large it is
    web.always = Reply(body=b"x", declared=MMS.largest + 1)
    assert (await failure(aws, room=10)).code == "too_large"
    assert aws.files == {}


# --- what fails before the sending request: nothing was sent, and nothing is told of how AWS sends


@pytest.mark.parametrize(
    ("behaviour", "kind", "code"),
    [
        (Reply(status=404), Rejected, "http_404"),
        (Reply(status=403), Rejected, "http_403"),
        (Reply(status=302, headers={"Location": "https://10.0.0.1/"}), Rejected, None),
        (Reply(body=b"x", declared=MMS.largest + 1), Rejected, "too_large"),
        (Reply(status=429), Throttled, "http_429"),
        (Reply(status=500), Unreachable, "http_500"),
        (Fault.DROP_AFTER, Unreachable, "unreachable"),
        (Fault.STALL, Unreachable, "media"),
        (Reply(body=b"<html>", headers={"Content-Type": "text/html"}), Unsupported, "media_type"),
        (Reply(body=b"RIFF\0\0\0\0WEBP", headers={"Content-Type": "image/webp"}),
         Unsupported, "media_type"),
        (Reply(body=PNG + bytes(MMS.limits["image/png"])), Unsupported, "too_large"),
        (Reply(body=b"%PDF-" + bytes(MMS.limits["application/pdf"])), Unsupported, "too_large"),
    ],
    ids=str,
)  # fmt: skip
async def test_a_file_that_cannot_be_had_is_known_to_be_unsent(
    aws: LoopbackAws,
    web: LoopbackVendor,
    behaviour: Behaviour,
    kind: type[ProviderError],
    code: str | None,
) -> None:
    web.always = behaviour
    url = FILE.removesuffix(".png")
    failed = await failure(aws, timeout=6.0, **picture(url))
    assert type(failed) is kind
    assert failed.code == code or (code is None and failed.code in ("forbidden_address", "url"))
    assert failed.breaker is Breaker.IGNORES
    assert failed.__context__ is None
    assert aws.requests == []


async def test_an_inner_address_is_not_visited(aws: LoopbackAws) -> None:
    for url in ("https://127.0.0.1/a.png", "https://169.254.169.254/latest/meta-data"):
        failed = await failure(aws, **picture(url))
        assert (type(failed), failed.code) == (Rejected, "forbidden_address")


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (s3_error("AccessDenied", 403), AccountRefused, "AccessDenied"),
        (s3_error("NoSuchBucket", 404), AccountRefused, "NoSuchBucket"),
        (s3_error("InvalidAccessKeyId", 403), AccountRefused, "InvalidAccessKeyId"),
        (s3_error("ExpiredToken", 400), AccountRefused, "ExpiredToken"),
        (s3_error("KMS.DisabledException", 400), AccountRefused, "KMS.DisabledException"),
        (s3_error("SomethingNew", 400), AccountRefused, "SomethingNew"),
        (s3_error("PermanentRedirect", 301, **{"x-amz-bucket-region": "us-west-2"}),
         AccountRefused, "PermanentRedirect"),
        (s3_error("TemporaryRedirect", 307, Location="/elsewhere"),
         AccountRefused, "TemporaryRedirect"),
        (s3_error("SlowDown", 503, **{"Retry-After": "3"}), Throttled, "SlowDown"),
        (s3_error("RequestTimeout", 400), Unreachable, "RequestTimeout"),
        (s3_error("OperationAborted", 409), Unreachable, "OperationAborted"),
        (s3_error("InternalError", 500), Unreachable, "InternalError"),
        (Reply(status=502, body=b"<html>"), Unreachable, None),
        (Fault.DROP_AFTER, Unreachable, "no_answer"),
        (Fault.STALL, Unreachable, "media"),
    ],
    ids=str,
)  # fmt: skip
async def test_a_file_that_cannot_be_put_is_known_to_be_unsent(
    aws: LoopbackAws,
    web: LoopbackVendor,
    answer: Behaviour,
    kind: type[ProviderError],
    code: str | None,
) -> None:
    aws.always = answer
    failed = await failure(aws, timeout=1.0)
    assert (type(failed), failed.breaker) == (kind, Breaker.IGNORES)
    assert code in (failed.code, None)
    assert len([r for r in aws.requests if r.method == "PUT"]) == aws.count == 1
    if kind is Throttled:
        assert failed.retry_after == 3


async def test_a_bucket_that_is_not_reached_is_known_to_be_unsent(web: LoopbackVendor) -> None:
    with LoopbackAws() as aws:
        aws.stop()
        failed = await failure(aws)
    assert (type(failed), failed.code) == (Unreachable, "connect")


async def test_what_the_sending_request_gets_is_judged_as_ever(
    aws: LoopbackAws, web: LoopbackVendor
) -> None:
    aws.plan.extend([Reply(), Fault.DROP_AFTER])
    async with provider(TEXT, aws.url) as made:
        with pytest.raises(ProviderError) as caught:
            await made.send(message(**picture()))
    assert not caught.value.sent_nothing
    assert caught.value.breaker is Breaker.COUNTS
    assert len(aws.sent) == 1


async def test_the_file_and_the_send_share_the_sends_time(
    aws: LoopbackAws, web: LoopbackVendor
) -> None:
    web.latency = 1.2
    aws.plan.extend([Reply(), Fault.STALL])
    loop = asyncio.get_running_loop()
    async with provider(TEXT, aws.url, timeout=5.0) as made:
        began = loop.time()
        with pytest.raises(ProviderError) as caught:
            await made.send(message(**picture()))
        assert loop.time() - began < 6.1  # the file took 1.2 of the 5, not 1.2 more than 5
    assert caught.value.code == "timeout"


async def test_only_a_few_files_are_held_at_once_and_who_waits_too_long_is_told(
    aws: LoopbackAws, web: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_aws_media, "AT_ONCE", 2)
    web.always = Fault.STALL

    async def sent(made: Any, number: int) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            await made.send(message(message_id=f"msg_{number}", **picture()))
        return caught.value

    async with provider(TEXT, aws.url, timeout=1.0) as made:
        failed = await asyncio.gather(*(sent(made, number) for number in range(5)))
    assert sorted((type(f).__name__, f.code) for f in failed) == [
        *[("Throttled", "no_seat")] * 3,
        *[("Unreachable", "media")] * 2,
    ]
    assert web.count == 2


# --- what a file is


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GIF89a", "image/gif"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (PNG, "image/png"),
        (b"II*\0", "image/tiff"),
        (b"#!AMR\n", "audio/amr"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"\0\0\0\x18ftypM4A ", "audio/mp4"),
        (b"\0\0\0\x18ftypqt  ", "video/quicktime"),
        (b"\0\0\0\x18ftyp3gp5", "video/3gpp"),
        (b"\0\0\0\x18ftyp3g2a", "video/3gpp2"),
        (b"\0\0\0\x18ftypheic", "image/heic"),
        (b"%PDF-1.7", "application/pdf"),
        (b"BEGIN:VCARD\r\n", "text/vcard"),
        (b"BEGIN:VCALENDAR\r\n", "text/calendar"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"", None),
    ],
)
def test_a_file_says_itself_what_it_is(data: bytes, kind: str | None) -> None:
    assert sniffed(data, audio=False) == kind
    if kind in ("video/mp4", "video/3gpp", "video/3gpp2"):
        assert sniffed(data, audio=True) == kind.replace("video", "audio")


@pytest.mark.parametrize(
    ("declared", "served", "url", "kind"),
    [
        ("image/jpg; q=1", "text/html", "https://x/y", "image/jpeg"),
        (None, "Image/GIF", "https://x/y.png", "image/gif"),
        (None, "application/octet-stream", "https://x/y.png?z=.gif", "image/png"),
        (None, None, "https://x/y.mp4", "video/mp4"),
    ],
)
def test_what_says_nothing_is_what_it_is_called(
    declared: str | None, served: str | None, url: str, kind: str
) -> None:
    file = FetchedMedia(data=b"??", content_type=served)
    assert type_of(file, OutboundMedia(url=url, content_type=declared)) == kind


def test_what_is_called_nothing_is_not_sent() -> None:
    with pytest.raises(Unsupported, match="octet-stream"):
        type_of(FetchedMedia(data=b"??"), OutboundMedia(url="https://x/y"))


def test_every_type_has_a_limit_below_what_is_read() -> None:
    assert MMS.limits.keys() == MMS.endings.keys()
    assert max(MMS.limits.values()) < MMS.largest


# --- S3 as somebody else wrote it


@pytest.fixture(scope="module")
def account() -> Iterator[AwsAccount]:
    with aws_account() as made:
        yield made


async def test_s3_keeps_the_file_with_its_type(account: AwsAccount, web: LoopbackVendor) -> None:
    s3 = account.client("s3")
    where = {"LocationConstraint": "eu-central-1"}
    s3.create_bucket(Bucket="gateway-media", CreateBucketConfiguration=where)
    async with provider(TEXT, account.url, timeout=30) as made:
        bucket: Bucket = made._bucket
        urls = await bucket.filled(message(**picture()), within=30)
        assert urls == [f"s3:/{PLACE}"]
        assert await bucket.filled(message(**picture()), within=30) == urls
    (listed,) = s3.list_objects_v2(Bucket="gateway-media")["Contents"]
    kept = s3.get_object(Bucket="gateway-media", Key=listed["Key"])
    assert (kept["ContentType"], kept["Body"].read()) == ("image/png", PNG)
    s3.close()


async def test_s3_refuses_a_bucket_that_is_not_there(
    account: AwsAccount, web: LoopbackVendor
) -> None:
    async with provider(TEXT, account.url, timeout=30, AWS_MEDIA_BUCKET="nobodys") as made:
        with pytest.raises(AccountRefused, match="AWS_MEDIA_BUCKET") as caught:
            await made.send(message(**picture()))
    assert caught.value.code == "NoSuchBucket"
