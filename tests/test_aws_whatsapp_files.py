"""Files of WhatsApp through AWS, through a whole gateway, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aws_account import KEY_ID, REGION, SECRET
from tests.aws_social import NUMBER, LoopbackSocial
from tests.running import in_thread, variables
from tests.sns_played import playing
from tests.sns_signing import notification
from tests.test_media import fetched
from tests.test_media_places import amazon
from tests.test_media_uploads import post
from tests.whatsapp_entries import said

JPEG = b"\xff\xd8\xff\xe0 a picture"
THEIRS = "phone-number-id-0a1b2c3d4e5f60718293a4b5c6d7e8f9"  # of what is played


@pytest.fixture
def aws() -> Iterator[LoopbackSocial]:
    with LoopbackSocial() as made:
        made.sent_in["778899"] = ("image/jpeg", ".jpeg", JPEG)
        yield made
    assert made.refused == []


def test_what_a_person_sent_is_shown(url: str, tmp_path: Path, aws: LoopbackSocial) -> None:
    more = {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_MEDIA_BUCKET": "gateway-media",
        "AWS_WHATSAPP_PHONE_NUMBER_ID": THEIRS,
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
    more = {
        **amazon(aws),
        "AWS_WHATSAPP_PHONE_NUMBER_ID": NUMBER,
        "WHATSAPP_PROVIDERS": "aws_whatsapp",
        "PUBLIC_URL": "http://127.0.0.1:9",
    }
    with in_thread(variables(tmp_path, sqlite_url, **more)) as client:
        made = post(client, JPEG, "image/jpeg", "?channel=whatsapp").json()
        body = {"channel": "whatsapp", "to": "+15550100001", "body": "Look"}
        sent = client.send(**body, media=[made["url"]], outside_window="try")
        client.until(sent["id"], "accepted")
    assert aws.messages[0]["image"]["caption"] == "Look"
    assert [data for _, data in aws.files.values()] == [JPEG]
