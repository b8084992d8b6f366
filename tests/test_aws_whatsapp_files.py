"""Files that people send by WhatsApp through AWS: fetched by way of the bucket, then deleted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import FetchedMedia
from gateway.errors import AccountRefused, ProviderError, Rejected, Throttled, Unreachable
from providers._aws_whatsapp_files import PIECE
from providers._aws_whatsapp_tables import SOCIAL
from tests.aws_account import KEY_ID, REGION, SECRET
from tests.aws_servers import model, s3_error
from tests.aws_social import NUMBER, LoopbackSocial, parameters, refusal
from tests.outbound_cases import entry_of, provider
from tests.sns_played import playing
from tests.sns_signing import notification
from tests.test_media import fetched
from tests.vendors import Reply
from tests.whatsapp_entries import said

SETUP = entry_of("aws_whatsapp")
JPEG = b"\xff\xd8\xff\xe0 a picture"
THERE = f"{NUMBER}/778899"
LIMIT = 4 * PIECE


@pytest.fixture
def aws() -> Iterator[LoopbackSocial]:
    with LoopbackSocial() as made:
        made.received["778899"] = ("image/jpeg", ".jpeg", JPEG)
        yield made
    assert made.refused == []


async def get(aws: LoopbackSocial, reference: str = THERE, limit: int = LIMIT) -> FetchedMedia:
    async with provider(SETUP, aws.url) as made:
        return await made.fetch_media(reference, limit)  # type: ignore[no-any-return,attr-defined]


async def refused(aws: LoopbackSocial, **more: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await get(aws, **more)
    return caught.value


@pytest.mark.anyio
async def test_a_file_comes_by_way_of_the_bucket_and_does_not_stay_there(
    aws: LoopbackSocial,
) -> None:
    assert await get(aws) == FetchedMedia(data=JPEG, content_type="image/jpeg")
    asked, listed, read, deleted = aws.requests
    assert parameters(asked) == {
        "mediaId": "778899",
        "originationPhoneNumberId": NUMBER,
        "destinationS3File": {"bucketName": "gateway-media", "key": "default/inbound/778899/"},
    }
    assert "prefix=default%2Finbound%2F778899%2F" in listed.path
    key = "/gateway-media/default/inbound/778899/778899.jpeg"
    assert read.path.partition("?")[0] == deleted.path.partition("?")[0] == key
    assert aws.files == {}


@pytest.mark.anyio
async def test_a_large_file_is_read_in_pieces(aws: LoopbackSocial) -> None:
    data = bytes(range(256)) * (PIECE // 100)
    aws.received["778899"] = ("video/mp4", ".mp4", data)
    assert (await get(aws)).data == data
    ranges = [r.headers["range"] for r in aws.requests if "range" in r.headers]
    assert len(ranges) == -(-len(data) // PIECE) > 1
    assert aws.files == {}


@pytest.mark.anyio
async def test_a_file_that_is_too_large_is_not_even_read(aws: LoopbackSocial) -> None:
    failed = await refused(aws, limit=len(JPEG) - 1)
    assert (type(failed), failed.code) == (Rejected, "too_large")
    assert not [r for r in aws.requests if "range" in r.headers]
    assert aws.files == {}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "reference",
    ["778899", "/778899", f"{NUMBER}/", f"{NUMBER}/../778899", f"{NUMBER}/7/8", "arn:x/1", ""],
)
async def test_what_names_no_file_is_not_asked_for(aws: LoopbackSocial, reference: str) -> None:
    failed = await refused(aws, reference=reference)
    assert (type(failed), failed.code) == (Rejected, "reference")
    assert aws.connections == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("operation", "answer", "kind"),
    [
        ("GetWhatsAppMessageMedia", refusal("ResourceNotFoundException", 404), Rejected),
        ("GetWhatsAppMessageMedia", refusal("InvalidParametersException"), Rejected),
        ("GetWhatsAppMessageMedia", refusal("AccessDeniedException", 403), AccountRefused),
        ("GetWhatsAppMessageMedia", refusal("ThrottledRequestException", 429), Throttled),
        ("GetWhatsAppMessageMedia", refusal("DependencyException", 502), Unreachable),
        ("GetObject", s3_error("AccessDenied", 403), AccountRefused),
        ("GetObject", s3_error("SlowDown", 503), Unreachable),
        ("GetObject", s3_error("NoSuchBucket", 404), AccountRefused),
        ("GetObject", Reply(status=500), Unreachable),
    ],
)
async def test_what_may_be_had_later_is_told_from_what_is_gone(
    aws: LoopbackSocial, operation: str, answer: Reply, kind: type[ProviderError]
) -> None:
    aws.errors[operation] = answer
    failed = await refused(aws)
    assert type(failed) is kind
    assert "in AWS's words" not in failed.text


@pytest.mark.anyio
async def test_a_file_that_is_not_there_yet_is_fetched_later(aws: LoopbackSocial) -> None:
    aws.errors["GetWhatsAppMessageMedia"] = Reply(body=b'{"mimeType": "image/jpeg"}')
    failed = await refused(aws)
    assert (type(failed), failed.code) == (Unreachable, "media")


@pytest.mark.anyio
async def test_without_a_bucket_nothing_is_fetched() -> None:
    async with provider(SETUP, "http://127.0.0.1:9", AWS_MEDIA_BUCKET=" ") as made:
        assert not made.capabilities.fetches_media
        with pytest.raises(Rejected, match="AWS_MEDIA_BUCKET"):
            await made.fetch_media(THERE, LIMIT)  # type: ignore[attr-defined]


def test_every_error_of_the_service_is_in_the_table() -> None:
    shapes = model("socialmessaging").operation_model("GetWhatsAppMessageMedia").error_shapes
    assert {shape.error_code for shape in shapes} - set(SOCIAL.codes) == set()


def test_what_a_person_sent_is_shown(url: str, tmp_path: Path, aws: LoopbackSocial) -> None:
    more = {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_MEDIA_BUCKET": "gateway-media",
        "AWS_WHATSAPP_PHONE_NUMBER_ID": NUMBER,
        "WHATSAPP_PROVIDERS": "aws_whatsapp",
    }
    with playing(url, tmp_path, **more) as sns:
        image = {"id": "778899", "mime_type": "image/jpeg", "caption": "the cat"}
        posted = sns.post(notification(said("image", image=image), 1), "/api/webhooks/aws-whatsapp")
        assert posted.status_code == 200
        (one,) = sns.client.get("/api/messages", direction="inbound")["items"]
        path = one["media"][0]["url"]
        assert fetched(sns.client, path) == 200
        answer = sns.client.call("GET", path)
    assert answer.content == JPEG and answer.headers["content-type"] == "image/jpeg"
    assert aws.files == {}


def test_a_file_of_ours_is_given_to_whatsapp(
    sqlite_url: str, tmp_path: Path, aws: LoopbackSocial
) -> None:
    from tests.running import in_thread, variables
    from tests.test_media_places import amazon
    from tests.test_media_uploads import post

    more = {
        **amazon(aws),
        "AWS_WHATSAPP_PHONE_NUMBER_ID": NUMBER,
        "WHATSAPP_PROVIDERS": "aws_whatsapp",
        "PUBLIC_URL": "http://127.0.0.1:9",
    }
    with in_thread(variables(tmp_path, sqlite_url, **more)) as client:
        made = post(client, JPEG, "image/jpeg", "?channel=whatsapp").json()
        body = {"channel": "whatsapp", "to": "+15550100001", "body": "Look"}
        sent = client.send(**body, media=[made["url"]])
        client.until(sent["id"], "accepted")
    assert aws.messages[0]["image"]["caption"] == "Look"
    assert [data for _, data in aws.files.values()] == [JPEG]
