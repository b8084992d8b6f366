"""Files of messages through AWS, which reads them from a bucket in S3 only: what lies on the web is
fetched by the guarded client, and put there.

All of that comes before the sending request. So whatever fails here, nothing of the message was
sent, and nothing is told about how AWS sends.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import mimetypes
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from gateway.domain import FetchedMedia, OutboundMedia, OutboundMessage
from gateway.errors import (
    NO_ROOM,
    AccountRefused,
    Ambiguous,
    Breaker,
    ProviderError,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers._aws import Aws
from providers._aws_errors import Tables
from providers._fetch import TOO_LARGE, fetch, too_large
from providers._retry_after import retry_after

WEB = "https://"
AT_ONCE = 8  # files held in memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """What files a channel takes: the ending and the greatest size of each type. More than
    `largest` bytes are not even read; `animated`: of a picture that moves."""

    endings: Mapping[str, str]
    limits: Mapping[str, int]
    largest: int
    animated: int | None = None

    def limit(self, kind: str, data: bytes) -> int:
        """The most bytes that a file may have."""
        moves = data[12:16] == b"VP8X" and len(data) > FLAGS and data[FLAGS] & MOVES
        return self.animated if moves and self.animated is not None else self.limits[kind]


FLAGS, MOVES = 20, 0x02  # "WebP Container Specification", Extended File Format: Animation

# "MMS file types, size and character limits" (AWS End User Messaging SMS user guide)
IMAGES = {"image/gif": "gif", "image/jpeg": "jpg", "image/png": "png"}
OTHERS = {
    "image/tiff": "tiff",
    "audio/3gpp": "3gp",
    "video/3gpp": "3gp",
    "audio/3gpp2": "3g2",
    "video/3gpp2": "3g2",
    "audio/amr": "amr",
    "audio/mp4": "m4a",
    "video/mp4": "mp4",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "text/calendar": "ics",
    "text/vcard": "vcf",
    "text/x-vcard": "vcf",
    "application/pdf": "pdf",
}
MMS = Taken(
    endings={**IMAGES, **OTHERS},
    limits={**dict.fromkeys(OTHERS, 600 << 10), **dict.fromkeys(IMAGES, 2 << 20)},
    largest=5 << 20,  # no network carries more
)
ALIASES = {"image/jpg": "image/jpeg", "audio/mp3": "audio/mpeg", "audio/x-m4a": "audio/mp4"}

# How the files of those types begin. A container tells what it is, not whether it has a picture.
STARTS = (
    (b"GIF8", "image/gif"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"#!AMR", "audio/amr"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"%PDF-", "application/pdf"),
    (b"BEGIN:VCALENDAR", "text/calendar"),
    (b"BEGIN:VCARD", "text/vcard"),
)
BRANDS = (
    (b"qt", "video/quicktime"),
    (b"3g2", "video/3gpp2"),
    (b"3g", "video/3gpp"),
    (b"M4A", "audio/mp4"),
    *((brand, "image/heic") for brand in (b"hei", b"hev", b"mif", b"msf")),
    (b"avi", "image/avif"),
)
WITH_SOUND_ALONE = frozenset({"video/3gpp", "video/3gpp2", "video/mp4"})
SOUND = re.compile(rb"\xff[\xfb\xf3\xf2]")
ELSE = "application/octet-stream"

# "Error responses" (Amazon S3 API reference): these pass. Whatever else S3 says is about our
# rights or the bucket.
PUT = Tables(
    {
        Unreachable: """
            RequestTimeout OperationAborted ConditionalRequestConflict BadDigest IncompleteBody
            XAmzContentSHA256Mismatch InternalError ServiceUnavailable""",
    },
    meanings={
        "AccessDenied": "the credentials may not write to AWS_MEDIA_BUCKET: allow s3:PutObject",
        "NoSuchBucket": "there is no bucket of the name in AWS_MEDIA_BUCKET",
        "PermanentRedirect": "the bucket of AWS_MEDIA_BUCKET is not in AWS_REGION",
        "AuthorizationHeaderMalformed": "the bucket of AWS_MEDIA_BUCKET is not in AWS_REGION",
    },
)


def place(bucket: str, tenant: str) -> str:
    """Where a tenant's files lie."""
    return f"s3://{bucket}/{tenant}/"


class Bucket:
    """The bucket that AWS reads files from. Each message's lie under its own id, so that another
    try puts them over those of the try before."""

    def __init__(self, aws: Aws, name: str, tenant: str, *, stand_in: bool) -> None:
        self._aws = aws
        self.name = name
        # By its path where somebody stands in for AWS, and has no host name for each bucket.
        self.client = aws.client("s3", s3={"addressing_style": "path" if stand_in else "auto"})
        self.client.meta.events.register_first("needs-retry.s3", _answered)
        self.folder = f"{tenant}/outbound"
        self._few = asyncio.Semaphore(AT_ONCE)

    def reads(self, url: str) -> bool:
        """Whether it is an address on the web, or of a file in the bucket."""
        inside = url.removeprefix(f"s3://{self.name}/")
        return url.startswith(WEB) or (inside != url and bool(inside.strip()))

    def key(self, url: str) -> str:
        """A file's key in the bucket."""
        return url.removeprefix(f"s3://{self.name}/")

    async def filled(
        self, message: OutboundMessage, within: float, taken: Taken = MMS
    ) -> list[str]:
        """The URLs of a message's files in the bucket, once they are there.

        Raises:
            Rejected: a file is gone, may not be visited, or is larger than any network carries.
            Unsupported: AWS does not take files of this type, or of this size.
            Throttled, Unreachable: it may be had, or put there, later.
            AccountRefused: S3 refused us.
        """
        try:
            async with asyncio.timeout(within):
                numbers = range(len(message.media))
                return [await self._url(message, n, within, taken) for n in numbers]
        except TimeoutError:
            failure: ProviderError = Unreachable("no time was left to bring the file", code="media")
        except Ambiguous as error:  # what may have been written is a file, and no message
            failure = Unreachable(error.text, code=error.code)
        except ProviderError as error:
            failure = error
        except Exception as error:
            text = f"the file was not brought ({type(error).__name__})"
            failure = Unreachable(text, code="media")
        failure.breaker = Breaker.IGNORES
        failure.__context__ = None  # a library's exceptions hold the address
        raise failure

    @asynccontextmanager
    async def _turn(self, within: float) -> AsyncIterator[None]:
        """Waits until few enough files are held; half of the time is left to bring this one."""
        try:
            async with asyncio.timeout(within):
                await self._few.acquire()
        except TimeoutError:
            raise Throttled("too many files at once", code="no_seat") from None
        try:
            yield
        finally:
            self._few.release()

    async def _url(self, message: OutboundMessage, number: int, within: float, taken: Taken) -> str:
        wanted = message.media[number]
        if wanted.read is None and not wanted.url.startswith(WEB):
            return wanted.url
        async with self._turn(within / 2):
            file = await _brought(wanted, taken.largest, message.room, within)
            kind = type_of(file, wanted, taken)
            if len(file.data) > (most := taken.limit(kind, file.data)):
                text = f"AWS: files of the type {kind} may have {most} bytes"
                raise Unsupported(text, code="too_large")
            key = f"{self.folder}/{message.message_id}/{number}.{taken.endings[kind]}"
            await self._aws.call(lambda _: self._write(key, kind, file.data), PUT, within=within)
        return f"s3://{self.name}/{key}"

    def _write(self, key: str, kind: str, data: bytes) -> None:
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
        self.client.put_object(
            Bucket=self.name, Key=key, Body=data, ContentType=kind, ChecksumSHA256=digest
        )


async def _brought(
    wanted: OutboundMedia, largest: int, room: int | None, within: float
) -> FetchedMedia:
    """A file, from the web if it is not our own; or not yet, if it needs more room than it has."""
    most = largest if room is None else min(largest, room)
    try:
        if wanted.read is None:
            return await fetch(wanted.url, limit=most, timeout=within)
        return FetchedMedia(data=await wanted.read(most), content_type=wanted.content_type)
    except ProviderError as error:
        if error.code != TOO_LARGE or most == largest:
            raise
        size = error.size
    if size is not None and size > largest:
        raise too_large(largest, size)
    failure = Unreachable("its file waits for room", code=NO_ROOM)
    failure.size, failure.next_provider = size or largest, False
    raise failure


def _answered(response: Any = None, **_: Any) -> None:
    """Botocore's `needs-retry`, heard before it follows a bucket into another region: there AWS
    could not read the file."""
    if response is None:
        return
    http, said = response
    if http.status_code < 300:
        return
    code = str(said.get("Error", {}).get("Code") or f"http_{http.status_code}")
    _refused(http.status_code, code, {n.lower(): v for n, v in http.headers.items()})


def _refused(status: int, code: str, headers: Mapping[str, str]) -> NoReturn:
    """What S3 said instead of yes."""
    kind = PUT.codes.get(code, AccountRefused)
    if kind is Throttled or status == 429:
        raise PUT.error(
            Throttled, code, retry_after(headers.get("retry-after", ""), headers.get("date", ""))
        )
    passes = kind in (Unreachable, Ambiguous) or status >= 500 or status in (408, 409)
    raise PUT.error(Unreachable if passes else AccountRefused, code)


def type_of(file: FetchedMedia, wanted: OutboundMedia, taken: Taken = MMS) -> str:
    """The type of a file: by its first bytes, else as it was declared, served, or named.

    Raises:
        Unsupported: AWS does not take it.
    """
    said = told(wanted, file.content_type)
    kind = sniffed(file.data, audio=said.startswith("audio/")) or said
    if kind not in taken.endings:
        raise Unsupported(f"AWS: no files of the type {kind}", code="media_type")
    return kind


def told(wanted: OutboundMedia, served: str | None = None) -> str:
    """The type of a file as it was declared, served, or named."""
    named = mimetypes.guess_type(wanted.filename or "")[0]
    named = named or mimetypes.guess_type(urlsplit(wanted.url).path)[0]
    kinds = (_bare(kind) for kind in (wanted.content_type, served, named))
    return next((kind for kind in kinds if kind and kind != ELSE), ELSE)


def _bare(kind: str | None) -> str:
    bare = (kind or "").partition(";")[0].strip().lower()
    return ALIASES.get(bare, bare)


def sniffed(data: bytes, *, audio: bool) -> str | None:
    """What a file's first bytes say; None: nothing that is known here."""
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        kind = next((kind for start, kind in BRANDS if brand.startswith(start)), "video/mp4")
        return kind.replace("video/", "audio/") if audio and kind in WITH_SOUND_ALONE else kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if SOUND.match(data):
        return "audio/mpeg"
    return next((kind for start, kind in STARTS if data.startswith(start)), None)
