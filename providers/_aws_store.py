"""Files kept in a bucket of Amazon S3, or of whatever speaks its protocol.

A file is one object under `<prefix>/<tenant>/<name>`; it is read by ranges, so that no answer is
large. Nothing here is a message: what fails is told as `FilesUnavailable`, and tried again by
whoever asked.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from gateway.errors import AccountRefused, FilesUnavailable, ProviderError, SettingsError
from providers._aws import Aws, AwsAccount
from providers._aws_errors import Tables

T = TypeVar("T")

TIMEOUT = 10.0  # seconds for a small request
WRITING = 120.0  # seconds for a file that is put there
PIECE = 512 * 1024  # bytes of one answer
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
PREFIX = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")

# "Error responses" (Amazon S3 API reference)
OBJECTS = Tables(
    {},
    meanings={
        "AccessDenied": "the credentials may not: allow s3:PutObject, GetObject and DeleteObject",
        "NoSuchBucket": "there is no bucket of the name in MEDIA_STORE",
        "PermanentRedirect": "the bucket of MEDIA_STORE is not in AWS_REGION",
    },
)
NOWHERE = frozenset({"404", "NoSuchKey", "NotFound"})


class S3Store:
    """Files in a bucket. `place` is `bucket` or `bucket/prefix`."""

    Settings = AwsAccount

    def __init__(self, settings: AwsAccount, place: str) -> None:
        """Loads the SDK, and has its client make ready.

        Raises:
            SettingsError: the place cannot be one; a variable or every credential is missing.
        """
        bucket, _, prefix = place.partition("/")
        if not BUCKET.fullmatch(bucket) or (prefix and not _plain(prefix)):
            raise SettingsError(
                "MEDIA_STORE must be s3:// with a bucket and, if you like, a prefix."
            )
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._aws = Aws(settings, timeout=TIMEOUT)
        stand_in = bool(settings.endpoint_url)
        self._client = self._aws.client(
            "s3", s3={"addressing_style": "path" if stand_in else "auto"}
        )

    async def put(self, key: str, source: bytes | Path, content_type: str) -> None:
        """Keeps a file; S3 says yes when it is durable, and checks what it got by its hash.

        Raises:
            FilesUnavailable: it is not kept, or nobody can say.
        """
        await self._call(lambda: self._put(key, source, content_type), within=WRITING)
        if isinstance(source, Path):
            await asyncio.to_thread(source.unlink, True)

    def _put(self, key: str, source: bytes | Path, content_type: str) -> None:
        fields = {"Key": self._prefix + key, "Bucket": self._bucket, "ContentType": content_type}
        if isinstance(source, bytes):
            digest = hashlib.sha256(source)
            self._client.put_object(**fields, Body=source, ChecksumSHA256=_base64(digest.digest()))
            return
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            file.seek(0)
            self._client.put_object(**fields, Body=file, ChecksumSHA256=_base64(digest.digest()))

    async def size(self, key: str) -> int | None:
        """The bytes of a file; None where there is none."""
        return await self._call(lambda: self._size(key))

    def _size(self, key: str) -> int | None:
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        try:
            found = self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)
        except ClientError as error:
            if str(error.response.get("Error", {}).get("Code")) in NOWHERE:
                return None
            raise
        return int(found["ContentLength"])

    async def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """A part of a file, a range after the other.

        Raises:
            FilesUnavailable: it, or the rest of it, is not there.
        """
        end = start + length
        while start < end:
            last = min(start + PIECE, end)
            piece = await self._call(lambda a=start, b=last: self._range(key, a, b))  # type: ignore[misc]
            if len(piece) != last - start:
                raise FilesUnavailable("a file is shorter than it was")
            start = last
            yield piece

    def _range(self, key: str, start: int, end: int) -> bytes:
        found = self._client.get_object(
            Bucket=self._bucket, Key=self._prefix + key, Range=f"bytes={start}-{end - 1}"
        )
        return bytes(found["Body"].read())

    async def delete(self, key: str) -> None:
        """Takes a file away, if it is there."""
        name = self._prefix + key
        await self._call(lambda: self._client.delete_object(Bucket=self._bucket, Key=name))

    async def aclose(self) -> None:
        """Ends what is under way."""
        await self._aws.aclose()

    async def _call(self, work: Callable[[], T], *, within: float = TIMEOUT) -> T:
        try:
            return await self._aws.call(lambda _: work(), OBJECTS, within=within)
        except ProviderError as error:
            meaning = OBJECTS.meanings.get(error.code)
            ours = error.text if isinstance(error, AccountRefused) else meaning
            failure = FilesUnavailable(f"{error.code}: {ours}" if ours else error.code)
        raise failure


def _plain(prefix: str) -> bool:
    parts = prefix.split("/")
    return PREFIX.fullmatch(prefix) is not None and not {".", ".."}.intersection(parts)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
