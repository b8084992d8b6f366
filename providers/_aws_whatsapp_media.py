"""Files that people send by WhatsApp: AWS puts them from Meta into the bucket, and there they are
read by ranges, so that no answer is large. What was read is taken out of the bucket again.

Reads what Meta gave to numbers of ours, and nothing else of the bucket.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.domain import FetchedMedia
from gateway.errors import Ambiguous, ProviderError, Rejected, SenderRefused, Unreachable
from providers._aws import Aws
from providers._aws_errors import Tables
from providers._aws_whatsapp_tables import SOCIAL
from providers._fetch import too_large

T = TypeVar("T")

WITHIN = 60.0  # seconds for all of it
STEP = 20.0
PIECE = 512 * 1024
MEDIA_ID = re.compile(r"[A-Za-z0-9]{1,100}")

# "Error responses" (Amazon S3 API reference)
BUCKET = Tables(
    {Rejected: "NoSuchKey InvalidRange"},
    meanings={
        "AccessDenied": "the credentials may not read AWS_MEDIA_BUCKET: allow s3:GetObject and "
        "s3:ListBucket",
        "NoSuchBucket": "there is no bucket of the name in AWS_MEDIA_BUCKET",
    },
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inbox:
    """Where AWS puts the files that numbers of ours got."""

    aws: Aws = field(repr=False)
    social: Any = field(repr=False)
    s3: Any = field(repr=False)
    numbers: frozenset[str]
    bucket: str
    folder: str

    async def fetch(self, reference: str, limit: int) -> FetchedMedia:
        """A file by the number that got it and Meta's id of it.

        Raises:
            Rejected: it is of no number of ours, it is gone, or it is too large.
            ProviderError: it may be had later.
        """
        number, _, id_ = reference.rpartition("/")
        if number not in self.numbers or not MEDIA_ID.fullmatch(id_):
            raise Rejected("not a file of a number that is set up", code="reference")
        try:
            async with asyncio.timeout(WITHIN):
                return await self._fetched(number, id_, limit)
        except TimeoutError:
            failure: ProviderError = Unreachable("the file did not come in time", code="timeout")
        except Ambiguous as error:  # reading twice harms nobody
            failure = Unreachable(error.text, code=error.code)
        except SenderRefused as error:  # Meta keeps files for a while only
            failure = Rejected("the file is not there any more", code=error.code)
        raise failure

    async def _fetched(self, number: str, id_: str, limit: int) -> FetchedMedia:
        """ "GetWhatsAppMessageMedia" tells a size whose unit nobody says; so it is not asked."""
        place = {"bucketName": self.bucket, "key": self.folder}
        told: Mapping[str, Any] = await self.aws.call(
            lambda _: self.social.get_whatsapp_message_media(
                mediaId=id_, originationPhoneNumberId=number, destinationS3File=place
            ),
            SOCIAL,
            within=STEP,
        )
        key, size = await self._found(id_)
        try:
            if size > limit:
                raise too_large(limit)
            data = b"".join([await self._piece(key, at, size) for at in range(0, size, PIECE)])
        finally:
            with suppress(ProviderError):  # a rule of the bucket may delete it as well
                await self._s3(lambda: self.s3.delete_object(Bucket=self.bucket, Key=key))
        kind = told.get("mimeType")
        return FetchedMedia(data=data, content_type=kind if isinstance(kind, str) else None)

    async def _found(self, id_: str) -> tuple[str, int]:
        """Where it is: AWS adds Meta's id to our folder, and an ending."""
        start = f"{self.folder}{id_}"
        listed = await self._s3(
            lambda: self.s3.list_objects_v2(Bucket=self.bucket, Prefix=start, MaxKeys=10)
        )
        for one in listed.get("Contents", ()):
            key = str(one.get("Key", ""))
            if key == start or key.startswith(f"{start}."):
                return key, int(one.get("Size", 0))
        raise Unreachable("AWS has not put the file into the bucket yet", code="not_there")

    async def _piece(self, key: str, start: int, size: int) -> bytes:
        part = f"bytes={start}-{min(start + PIECE, size) - 1}"

        def read() -> bytes:
            found = self.s3.get_object(Bucket=self.bucket, Key=key, Range=part)
            return bytes(found["Body"].read())

        return await self._s3(read)

    async def _s3(self, work: Callable[[], T]) -> T:
        return await self.aws.call(lambda _: work(), BUCKET, within=STEP)
