"""Files that people send by WhatsApp: AWS puts one into our bucket; there it is read, and deleted.

Whatever fails, asking again harms nobody: a file lies under its own id, and a second copy replaces
the first.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from gateway.domain import FetchedMedia
from gateway.errors import AccountRefused, Ambiguous, ProviderError, Rejected, Unreachable
from providers._aws import Aws
from providers._aws_errors import Tables
from providers._aws_whatsapp_tables import SOCIAL
from providers._fetch import too_large

T = TypeVar("T")

PIECE = 512 * 1024  # bytes of one answer
LONGEST = 60.0  # seconds for a whole file
REFERENCE = re.compile(r"(phone-number-id-[0-9A-Za-z]{1,99})/([A-Za-z0-9]{1,100})")
GONE = frozenset({"ResourceNotFoundException", "InvalidParametersException", "ValidationException"})

# "Error responses" (Amazon S3 API reference)
READ = Tables(
    {AccountRefused: "NoSuchBucket PermanentRedirect AuthorizationHeaderMalformed"},
    meanings={
        "AccessDenied": "the credentials may not read AWS_MEDIA_BUCKET: allow s3:ListBucket, "
        "s3:GetObject and s3:DeleteObject",
        "NoSuchBucket": "there is no bucket of the name in AWS_MEDIA_BUCKET",
        "PermanentRedirect": "the bucket of AWS_MEDIA_BUCKET is not in AWS_REGION",
        "AuthorizationHeaderMalformed": "the bucket of AWS_MEDIA_BUCKET is not in AWS_REGION",
    },
)


class Received:
    """What people sent, as AWS gives it."""

    def __init__(self, aws: Aws, social: Any, bucket: str, tenant: str, *, stand_in: bool) -> None:
        self._aws = aws
        self._social = social
        self._s3 = aws.client("s3", s3={"addressing_style": "path" if stand_in else "auto"})
        self._bucket = bucket
        self._folder = f"{tenant}/inbound"

    async def fetched(self, reference: str, limit: int) -> FetchedMedia:
        """One file.

        Raises:
            Rejected: it is none, is gone, or is too large.
            Unreachable, Throttled, AccountRefused: it may be had later.
        """
        found = REFERENCE.fullmatch(reference)
        if found is None:
            raise Rejected("not a file of one of our numbers", code="reference")
        try:
            async with asyncio.timeout(LONGEST):
                return await self._fetched(found[1], found[2], limit)
        except TimeoutError:
            failure: ProviderError = Unreachable("the file did not come in time", code="timeout")
        except Ambiguous as error:
            failure = Unreachable(error.text, code=error.code)
        except ProviderError as error:
            failure = error
            if error.code in GONE:
                failure = Rejected("AWS has no such file", code="not_found")
        raise failure

    async def _fetched(self, number: str, id_: str, limit: int) -> FetchedMedia:
        # "GetWhatsAppMessageMedia", S3File: the object's key is this, the file's id and an ending.
        folder = f"{self._folder}/{id_}/"
        told = await self._aws.call(
            lambda _: self._social.get_whatsapp_message_media(
                mediaId=id_,
                originationPhoneNumberId=number,
                destinationS3File={"bucketName": self._bucket, "key": folder},
            ),
            SOCIAL,
        )
        key, size = await self._there(folder)
        try:
            if size > limit:
                raise too_large(limit)
            data = await self._read(key, size)
        finally:
            await self._forgotten(key)
        return FetchedMedia(data=data, content_type=told.get("mimeType"))

    async def _there(self, folder: str) -> tuple[str, int]:
        """The object that AWS made, and its size."""
        listed = await self._asked(lambda: self._s3.list_objects_v2(**self._named(), Prefix=folder))
        for one in listed.get("Contents", ()):
            return str(one["Key"]), int(one["Size"])
        raise Unreachable("the file is not in the bucket yet", code="media")

    async def _read(self, key: str, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            end = min(len(data) + PIECE, size) - 1
            piece = await self._asked(partial(self._piece, key, f"bytes={len(data)}-{end}"))
            if not piece:
                raise Unreachable("the file is shorter than it was", code="media")
            data += piece
        return bytes(data)

    def _piece(self, key: str, part: str) -> bytes:
        found = self._s3.get_object(**self._named(), Key=key, Range=part)
        return bytes(found["Body"].read())

    async def _forgotten(self, key: str) -> None:
        try:
            await self._asked(lambda: self._s3.delete_object(**self._named(), Key=key))
        except ProviderError:
            return  # the bucket's own rule deletes it

    def _named(self) -> Mapping[str, str]:
        return {"Bucket": self._bucket}

    async def _asked(self, work: Callable[[], T]) -> T:
        return await self._aws.call(lambda _: work(), READ)
