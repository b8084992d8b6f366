"""Files in a bucket: the same as in a folder, against moto's S3."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters import file_store
from gateway.errors import FilesUnavailable, SettingsError
from gateway.settings import Environment
from providers._aws_store import PIECE
from tests.aws_account import AwsAccount, aws_account
from tests.running import Client, in_thread, variables
from tests.test_doctor import Practice
from tests.test_media_uploads import PNG, picture, post

BUCKET = "gateway-files"


@pytest.fixture(scope="module")
def account() -> Iterator[AwsAccount]:
    with aws_account() as made:
        made.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        yield made


def environment(account: AwsAccount, place: str = f"s3://{BUCKET}/kept") -> dict[str, str]:
    """What keeps files there; nothing is sent through AWS."""
    more = {**account.variables, "MESSAGING_PROVIDER": "console", "AWS_SNS_TOPIC_ARNS": ""}
    return {**more, "SMS_PROVIDERS": "console", "MEDIA_STORE": place}


def objects(account: AwsAccount) -> dict[str, int]:
    """What the bucket holds."""
    found = account.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {one["Key"]: one["Size"] for one in found}


@pytest.fixture
def client(account: AwsAccount, sqlite_url: str, tmp_path: Path) -> Iterator[Client]:
    """A gateway that keeps files in a bucket."""
    with in_thread(variables(tmp_path, sqlite_url, **environment(account))) as made:
        yield made


def test_an_upload_is_kept_in_the_bucket_under_its_tenant(
    client: Client, account: AwsAccount, tmp_path: Path
) -> None:
    data = b"%PDF-" + bytes(3 * PIECE)
    made = post(client, data, "application/pdf").json()
    assert objects(account)[f"kept/default/{made['id']}"] == len(data)
    assert not [p for p in (tmp_path / "media").rglob("*") if p.is_file()]
    answer = client.call("GET", made["url"])
    assert answer.content == data
    assert answer.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    part = client.call("GET", made["url"], headers={"Range": f"bytes={PIECE - 2}-{PIECE + 2}"})
    assert part.status_code == 206 and part.content == data[PIECE - 2 : PIECE + 3]


def test_a_thumbnail_is_kept_beside_it(client: Client, account: AwsAccount) -> None:
    made = post(client, picture("PNG", (700, 700))).json()
    answer = client.call("GET", made["url"] + "/thumbnail")
    assert answer.status_code == 200
    assert objects(account)[f"kept/default/{made['id']}.thumb"] == len(answer.content)


def test_a_file_that_is_gone_from_the_bucket_is_told(client: Client, account: AwsAccount) -> None:
    made = post(client, PNG).json()
    account.client("s3").delete_object(Bucket=BUCKET, Key=f"kept/default/{made['id']}")
    assert client.call("GET", made["url"]).status_code == 410


def test_without_the_bucket_nothing_is_taken(
    account: AwsAccount, sqlite_url: str, tmp_path: Path
) -> None:
    nowhere = environment(account, "s3://there-is-no-such-bucket")
    with in_thread(variables(tmp_path, sqlite_url, **nowhere)) as client:
        answer = post(client, PNG)
        assert answer.status_code == 503
        assert "there-is" not in answer.text
    assert not [p for p in (tmp_path / "media").rglob("*") if p.is_file()]


def test_the_store_does_what_a_folder_does(account: AwsAccount, tmp_path: Path) -> None:
    stores: list[Any] = [
        file_store(Environment({"DATA_DIR": str(tmp_path)})),
        file_store(Environment(variables(tmp_path, **environment(account)))),
    ]

    async def read(store: Any, key: str, start: int, length: int) -> bytes:
        async with aclosing(store.read(key, start, length)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def run(store: Any, source: Path) -> None:
        await store.put("t1/med_0001", PNG, "image/png")
        await store.put("t1/med_0002", source, "image/png")
        assert await store.size("t1/med_0001") == await store.size("t1/med_0002") == len(PNG)
        assert await read(store, "t1/med_0002", 3, 9) == PNG[3:12]
        assert await store.size("t2/med_0001") is None
        with pytest.raises(FilesUnavailable):
            await read(store, "t2/med_0001", 0, 1)
        with pytest.raises(FilesUnavailable):
            await read(store, "t1/med_0001", 0, len(PNG) + 1)
        for _ in range(2):
            await store.delete("t1/med_0001")
        assert await store.size("t1/med_0001") is None
        await store.aclose()

    for number, store in enumerate(stores):
        source = tmp_path / str(number)
        source.write_bytes(PNG)
        asyncio.run(run(store, source))
        assert not source.exists()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("ftp://bucket", "MEDIA_STORE must be s3://"),
        ("bucket", "MEDIA_STORE"),
        ("s3://", "MEDIA_STORE"),
        ("s3://B", "MEDIA_STORE must be s3:// with a bucket"),
        ("s3://bucket/../x", "MEDIA_STORE must be s3:// with a bucket"),
        ("s3://bucket/a b", "MEDIA_STORE"),
    ],
)
def test_a_place_that_is_none_stops_the_start(account: AwsAccount, place: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        file_store(Environment(environment(account, place)))


def test_without_credentials_the_start_names_the_variable(account: AwsAccount) -> None:
    with pytest.raises(SettingsError, match="AWS_REGION is not set"):
        file_store(Environment({"MEDIA_STORE": f"s3://{BUCKET}"}))


@pytest.mark.parametrize(
    ("place", "level", "said"),
    [
        (f"s3://{BUCKET}/kept", "ok", "written, read and deleted"),
        ("s3://no-such-bucket", "problem", "there is no bucket of the name"),
    ],
)
def test_doctor_tries_the_bucket(
    account: AwsAccount,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    place: str,
    level: str,
    said: str,
) -> None:
    before = objects(account)
    report = Practice(monkeypatch, tmp_path).examine(**environment(account, place))
    assert report.level("MEDIA_STORE") == level
    assert said in report.said("MEDIA_STORE")
    assert objects(account) == before
