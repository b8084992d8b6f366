"""Where the files of a message may be: on the web, or where a provider of the chain reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Capabilities, Channel, Connection, FetchedMedia
from gateway.routing import Needs, Route, lacks, place, places
from providers import _aws_media
from tests.aws_account import KEY_ID, REGION, SECRET
from tests.aws_servers import LoopbackAws, s3_error
from tests.running import Client, eventually, in_thread, twilio, variables
from tests.vendors import LoopbackVendor

SMS = frozenset({Channel.SMS})
WEB_ONLY = Capabilities(channels=SMS, media=SMS, max_media=10)
BUCKET = replace(WEB_ONLY, max_media=1, media_from=("https://", "s3://files/{tenant}/"))
HERE = Connection(id="c1", tenant_id="t1", family="test")
WEB, FOLDER = Route("web", WEB_ONLY, HERE), Route("bucket", BUCKET, HERE)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://example.com/a.png", "https://"),
        ("s3://files/t1/a.png", "s3://files/{tenant}/"),
        ("s3://files/t1/a folder/a.png", "s3://files/{tenant}/"),
        ("http://example.com/a.png", None),
        ("https://", None),
        ("https:///a.png", None),
        ("https://[a.png", None),
        ("https://example.com/a\n.png", None),
        ("s3://files/a.png", None),
        ("s3://files/t1", None),
        ("s3://files/t1/", None),
        ("s3://files/t2/a.png", None),
        ("s3://files/t10/a.png", None),
        ("s3://files-of-others/t1/a.png", None),
        ("S3://files/t1/a.png", None),
        ("s3://files/t1/../t2/a.png", None),
        ("s3://files/t1/%2e%2e/t2/a.png", None),
        ("s3://files/t1/..\\t2/a.png", None),
        ("s3://files/t1//a.png", None),
        ("s3://files/t1/a\n.png", None),
        ("s3://files/{tenant}/a.png", None),
        ("", None),
    ],
)
def test_a_file_is_taken_from_the_tenants_own_folder_only(url: str, found: str | None) -> None:
    assert place(url, places((WEB, FOLDER), Channel.SMS), "t1") == found


def test_places_are_those_of_providers_that_send_files_there() -> None:
    assert places((WEB, FOLDER), Channel.SMS) == ("https://", "s3://files/{tenant}/")
    assert places((WEB, FOLDER), Channel.EMAIL) == ("https://",)
    assert places((), Channel.SMS) == ("https://",)


def test_a_provider_that_cannot_take_a_file_from_there_lacks_it() -> None:
    there = Needs(Channel.SMS, media=1, places=frozenset({"s3://files/{tenant}/"}))
    assert lacks(WEB_ONLY, there) == "files from s3://files/{tenant}/"
    assert lacks(BUCKET, there) is None
    anywhere = replace(there, places=frozenset({"https://"}))
    assert lacks(WEB_ONLY, anywhere) is lacks(BUCKET, anywhere) is None


# --- through the API


@pytest.fixture
def aws() -> Iterator[LoopbackAws]:
    with LoopbackAws() as made:
        yield made


def amazon(aws: LoopbackAws) -> dict[str, str]:
    return {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": aws.url,
        "AWS_SMS_ORIGINATION_IDENTITY": "+15550009999",
        "AWS_MEDIA_BUCKET": "files",
        "MESSAGING_PROVIDER": "aws",
    }


def refused(client: Client, url: str) -> list[dict[str, str]]:
    body = {"to": "+15550100001", "body": "Look", "media": [url]}
    answer = client.call("POST", "/api/messages", json=body)
    assert answer.status_code == 422
    return list(answer.json()["errors"])


def test_a_file_on_the_web_goes_out_through_whichever_provider_is_set(
    sqlite_url: str,
    tmp_path: Path,
    aws: LoopbackAws,
    vendor: LoopbackVendor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fetch(url: str, **_: Any) -> FetchedMedia:
        return FetchedMedia(data=PNG, content_type="image/png")

    monkeypatch.setattr(_aws_media, "fetch", fetch)
    url = "https://files.example.com/cat.png"
    for family in (amazon(aws), twilio(vendor.url)):
        with in_thread(variables(tmp_path, sqlite_url, **family)) as client:
            sent = client.send(to="+15550100001", body="Look", media=[url])
            client.until(sent["id"], "accepted")
            if family["MESSAGING_PROVIDER"] == "aws":
                kept = f"files/default/outbound/{sent['id']}/0.png"
    assert [r.form["MediaUrl"] for r in vendor.requests] == [[url]]
    assert aws.files == {f"/{kept}": ("image/png", PNG)}
    assert [one["MediaUrls"] for one in aws.sent] == [[f"s3://{kept}"]]
    assert aws.refused == []


def test_a_file_in_the_bucket_is_taken_for_the_provider_that_reads_there(
    sqlite_url: str, tmp_path: Path, aws: LoopbackAws, vendor: LoopbackVendor
) -> None:
    more = {**amazon(aws), **twilio(vendor.url), "SMS_PROVIDERS": "twilio,aws"}
    url = "s3://files/default/cat.png"
    with in_thread(variables(tmp_path, sqlite_url, **more)) as client:
        sent = client.send(to="+15550100001", body="Look", media=[url])
        assert client.until(sent["id"], "accepted")["provider"] == "aws_sns"
        plain = client.send(to="+15550100002", body="Hello")
        assert client.until(plain["id"], "accepted")["provider"] == "twilio"
        (error,) = refused(client, "s3://files/another/cat.png")
    assert [one["MediaUrls"] for one in aws.sent] == [[url]]
    assert vendor.count == 1
    assert error["field"] == "media.0.url"
    assert error["message"].startswith("must be an https URL or start with s3://files/default/ or ")


def test_texts_go_on_while_the_bucket_refuses_files(
    sqlite_url: str, tmp_path: Path, aws: LoopbackAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetch(url: str, **_: Any) -> FetchedMedia:
        return FetchedMedia(data=PNG)

    monkeypatch.setattr(_aws_media, "fetch", fetch)
    aws.errors["PutObject"] = s3_error("AccessDenied", 403)
    more = {**amazon(aws), "RETRY_CAP": "100ms"}
    with in_thread(variables(tmp_path, sqlite_url, **more)) as client:
        sent = client.send(to="+15550100001", media=["https://files.example.com/cat.png"])
        attempts = eventually(lambda: client.message(sent["id"])["attempts"][3:])
        told = [one["error"] and one["error"]["class"] for one in attempts]
        assert set(told) <= {"account_refused", None}
        plain = client.send(to="+15550100002", body="Hello")
        client.until(plain["id"], "accepted")
        (shown,) = client.get("/health/messaging")["sms_providers"]
        assert shown["circuit_breaker"] == "closed"
        assert [one["MessageBody"] for one in aws.sent] == ["Hello"]
        aws.errors.clear()
        client.until(sent["id"], "accepted")
    assert len(aws.sent) == 2


def test_without_such_a_provider_a_bucket_is_no_place(
    sqlite_url: str, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    with in_thread(variables(tmp_path, sqlite_url, **twilio(vendor.url))) as client:
        (error,) = refused(client, "s3://files/default/cat.png")
    assert error == {
        "field": "media.0.url",
        "message": "must be an https URL or be the url of an upload, /api/media/…",
    }
