"""The bucket of AWS_MEDIA_BUCKET, as `gateway doctor` looks at it: whether it is there, in the
region in which AWS reads it, and open to the files of a tenant.

Asks by what sending needs and no more: a file without bytes is put, read and taken away again.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from gateway.domain import Finding, Level
from gateway.errors import AccountRefused, ProviderError
from providers._aws import Aws
from providers._aws_media import PUT, Bucket
from providers._aws_wire import Flight

SUBJECT = "AWS_MEDIA_BUCKET"
TRIAL = "gateway-doctor"  # how the file's name begins
NOTHING = base64.b64encode(hashlib.sha256(b"").digest()).decode()
# "Error responses" (Amazon S3 API reference); "HeadBucket", whose errors are their status alone
GONE = frozenset({"404", "NoSuchBucket"})
ELSEWHERE = frozenset({"301", "PermanentRedirect", "AuthorizationHeaderMalformed"})

Answer = tuple[ProviderError | None, Mapping[str, str]]


async def check(aws: Aws, bucket: Bucket, region: str, who: str) -> list[Finding]:
    """What of a bucket would keep files from being sent. `who` asks: two may at the same moment."""
    name, key = bucket.name, f"{bucket.folder}/{TRIAL}-{who}"
    arn = f"arn:aws:s3:::{name}/{key.partition('/')[0]}/*"
    at = {"Bucket": name, "Key": key}
    error, headers = await _asked(aws, lambda: bucket.client.head_bucket(Bucket=name))
    seen = _seen(error, name, headers.get("x-amz-bucket-region", region), region)
    if seen is not None:
        return [seen]  # who may not ask for it (s3:ListBucket) may put files there all the same
    error, _ = await _asked(aws, lambda: _put(bucket.client, at))
    if error is not None:
        return [_seen(error, name, region, region) or _refused(error, "write to", "PutObject", arn)]
    error, _ = await _asked(aws, lambda: bucket.client.get_object(**at))
    read = None if error is None else _refused(error, "read from", "GetObject", arn)
    error, _ = await _asked(aws, lambda: bucket.client.delete_object(**at))
    stays = "" if error is None else f"; {key}, without bytes, stays there"
    return [read or Finding(subject=SUBJECT, level=Level.OK, text=f"{name} takes files{stays}")]


async def _asked(aws: Aws, work: Callable[[], Any]) -> Answer:
    """What S3 says, and the headers of that."""
    flights: list[Flight] = []

    def ask(flight: Flight) -> None:
        flights.append(flight)
        work()

    try:
        await aws.call(ask, PUT)
    except ProviderError as error:
        return error, flights[0].headers if flights else {}
    return None, flights[0].headers


def _put(client: Any, at: Mapping[str, str]) -> None:
    client.put_object(**at, Body=b"", ContentType="text/plain", ChecksumSHA256=NOTHING)


def _seen(error: ProviderError | None, name: str, there: str, region: str) -> Finding | None:
    """What is wrong with the bucket itself."""
    code = error.code if error is not None else ""
    if code in GONE:
        fix = "create it in AWS_REGION (docs/aws.md), or correct AWS_MEDIA_BUCKET"
        return _problem(f"there is no bucket {name}", fix)
    if there != region or code in ELSEWHERE:
        where = f"in {there}, and not" if there != region else "not"
        fix = "use a bucket of that region: AWS reads files from no other"
        return _problem(f"{name} is {where} in {region} (AWS_REGION)", fix)
    if error is not None and not isinstance(error, AccountRefused):
        fix = "try again; if it stays, look at AWS_REGION, DNS and the firewall"
        text = f"could not be asked about: {error.text}"
        return Finding(subject=SUBJECT, level=Level.WARNING, text=text, fix=fix)
    return None


def _refused(error: ProviderError, what: str, right: str, arn: str) -> Finding:
    text = f"the credentials may not {what} it ({error.code})"
    return _problem(text, f"allow s3:{right} on {arn}: see docs/aws.md")


def _problem(text: str, fix: str) -> Finding:
    return Finding(subject=SUBJECT, level=Level.PROBLEM, text=text, fix=fix)
