"""The bucket of AWS_MEDIA_BUCKET: what is wrong with it is told before a file is to be sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Finding, Level
from tests.aws_account import REGION, SECRET, TOPIC, AwsAccount, aws_account
from tests.aws_servers import LoopbackAws, query_error, s3_error
from tests.outbound_cases import entry_of, provider
from tests.running import variables
from tests.test_docs import ROOT
from tests.typed import type_in
from tests.vendors import Reply

HOOK = "https://gateway.example.com/api/webhooks/aws-sns"
BUCKET = "gateway-media"
SUBJECT = "AWS_MEDIA_BUCKET"
TEXT = entry_of("aws_sns", "text")
NAMES = ("aws_sns", "aws_whatsapp")


@pytest.fixture
def aws() -> Iterator[LoopbackAws]:
    with LoopbackAws() as made:
        made.state["topics"][TOPIC] = {"SignatureVersion": "2"}
        yield made


async def looked(aws: LoopbackAws, **more: str) -> list[Finding]:
    """What is said of the bucket."""
    async with provider(TEXT, aws.url, **{"AWS_MEDIA_BUCKET": BUCKET, **more}) as made:
        found = await made.check(HOOK)
    for finding in found:
        assert bool(finding.fix) == (finding.level is not Level.OK)
        assert "in AWS's words" not in finding.text
    return [finding for finding in found if finding.subject == SUBJECT]


def asked(aws: LoopbackAws) -> list[tuple[str, str]]:
    """What S3 was asked."""
    return [
        (r.method, r.path.partition("?")[0])
        for r in aws.requests
        if "/s3/aws4_request" in r.headers.get("authorization", "")
    ]


@pytest.mark.anyio
async def test_a_bucket_that_takes_files_is_left_as_it_was(aws: LoopbackAws) -> None:
    (found,) = await looked(aws)
    assert (found.level, found.text) == (Level.OK, "gateway-media takes files")
    file = f"/{BUCKET}/default/outbound/gateway-doctor-aws_sns"
    assert asked(aws) == [("HEAD", f"/{BUCKET}"), *((m, file) for m in ("PUT", "GET", "DELETE"))]
    assert (aws.files, aws.refused) == ({}, [])


@pytest.mark.anyio
async def test_rights_that_sending_does_not_need_are_not_asked_for(aws: LoopbackAws) -> None:
    aws.errors["HeadBucket"] = Reply(status=403)
    aws.errors["DeleteObject"] = s3_error("AccessDenied", 403)
    (found,) = await looked(aws)
    assert found.level is Level.OK
    assert found.text.endswith("gateway-doctor-aws_sns, without bytes, stays there")


MISSING, ELSEWHERE = "there is no bucket gateway-media", "AWS reads files from no other"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("operation", "answer", "level", "said"),
    [
        ("HeadBucket", Reply(status=404), Level.PROBLEM, MISSING),
        ("PutObject", s3_error("NoSuchBucket", 404), Level.PROBLEM, MISSING),
        (
            "HeadBucket",
            Reply(status=301, headers={"x-amz-bucket-region": "us-east-1"}),
            Level.PROBLEM,
            "it is in us-east-1, and not in",
        ),
        ("HeadBucket", Reply(status=301), Level.PROBLEM, ELSEWHERE),
        ("PutObject", s3_error("PermanentRedirect", 301), Level.PROBLEM, ELSEWHERE),
        ("PutObject", s3_error("AccessDenied", 403), Level.PROBLEM, "allow s3:PutObject on arn:"),
        ("GetObject", s3_error("AccessDenied", 403), Level.PROBLEM, "allow s3:GetObject on arn:"),
        ("HeadBucket", Reply(status=503), Level.WARNING, "could not be asked"),
        ("PutObject", s3_error("SlowDown", 503), Level.WARNING, "could not be asked"),
    ],
)
async def test_what_would_keep_a_file_from_being_sent_is_told_with_its_fix(
    aws: LoopbackAws, operation: str, answer: Reply, level: Level, said: str
) -> None:
    aws.errors[operation] = answer
    (found,) = await looked(aws)
    assert found.level is level
    assert said.replace("it is", "gateway-media is") in f"{found.text}. {found.fix}"


@pytest.mark.anyio
async def test_nobody_asks_for_a_bucket_that_is_not_named_or_with_credentials_that_do_not_hold(
    aws: LoopbackAws,
) -> None:
    assert await looked(aws, AWS_MEDIA_BUCKET="") == []
    aws.errors["GetCallerIdentity"] = query_error("InvalidClientTokenId", 403)
    assert await looked(aws) == []
    assert asked(aws) == []


@pytest.fixture(scope="module")
def server() -> Iterator[AwsAccount]:
    with aws_account() as account:
        yield account


def findings(
    patch: pytest.MonkeyPatch, folder: Path, account: AwsAccount, **more: str
) -> dict[str, dict[str, Any]]:
    """What doctor says of the bucket, by vendor."""
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    given = {
        **account.variables,
        "AWS_SMS_ORIGINATION_IDENTITY": "+15550009999",
        "AWS_WHATSAPP_PHONE_NUMBER_ID": "phone-number-id-" + 32 * "0",
        "AWS_MEDIA_BUCKET": BUCKET,
        **more,
    }
    done = type_in(patch, folder, variables(folder / "data", **given), "doctor", "--json")
    assert SECRET not in done.out
    told = json.loads(done.out)["findings"]
    return {f["subject"].split()[0]: f for f in told if f["subject"].endswith(SUBJECT)}


def test_doctor_looks_at_a_bucket_of_s3(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: AwsAccount
) -> None:
    server.reset()
    found = findings(monkeypatch, tmp_path, server)
    assert set(found) == set(NAMES)
    assert {each["level"] for each in found.values()} == {"problem"}
    assert MISSING in found["aws_sns"]["text"]
    s3 = server.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    found = findings(monkeypatch, tmp_path, server)
    assert [found[name]["level"] for name in NAMES] == ["ok", "ok"], found
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0


def test_a_bucket_of_another_region_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: AwsAccount
) -> None:
    server.reset()
    server.client("s3", "ap-south-1").create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "ap-south-1"}
    )
    found = findings(monkeypatch, tmp_path, server)
    assert {each["level"] for each in found.values()} == {"problem"}
    assert "is in ap-south-1, and not in" in found["aws_sns"]["text"]


def test_the_documented_policy_allows_what_doctor_and_sending_ask_of_the_bucket() -> None:
    text = (ROOT / "docs" / "aws.md").read_text()
    files = next(part for part in text.split('"Sid"') if '"Files"' in part)
    for right in ("PutObject", "GetObject", "DeleteObject"):
        assert f"s3:{right}" in files
    assert f"{BUCKET}/default/*" in files
