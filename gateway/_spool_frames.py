"""The spool's bytes: a verified webhook as a frame, and the frames that a crash left whole.

A file is a start (magic, version, CRC-32), then frames: length, CRC-32 of the payload, time of
receipt, CRC-32 of these three, payload. After the last one stand zeros. Pure: it touches no file.
"""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from gateway.domain import Verified, WebhookRequest

MAGIC = b"gwspool\n"
VERSION = 1
START = Struct("<8sII")  # magic, version, CRC-32 of both
HEAD = Struct("<IIqI")  # length, CRC-32 of the payload, microseconds, CRC-32 of these three
LONGEST = 2**31 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Head(NamedTuple):
    """What stands before a payload."""

    length: int
    crc: int
    received: int  # microseconds since 1970


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no frame. `torn`: their writing never came to its end, so nobody was told
    that they are kept."""

    start: int
    end: int
    torn: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Where the whole frames of a file begin, where the last one ends, and what else stands
    there."""

    offsets: list[int]
    end: int
    damages: list[Damage]


def start() -> bytes:
    """The first bytes of a file."""
    text = MAGIC + VERSION.to_bytes(4, "little")
    return text + crc32(text).to_bytes(4, "little")


def version(data: bytes) -> int | None:
    """The version that a file's first bytes name; None if they are not a start."""
    if len(data) < START.size:
        return None
    magic, number, crc = START.unpack_from(data)
    held = magic == MAGIC and crc == crc32(data[: START.size - 4])
    return int(number) if held else None


def frame(verified: Verified, kept: AbstractSet[str]) -> bytes:
    """A verified webhook with those headers that may be kept: never a signature or a key."""
    request = verified.request
    meta = {
        "webhook": verified.webhook,
        "connection": verified.connection,
        "key": verified.key,
        "verdict": verified.verdict,
        "method": request.method,
        "url": request.url,
        "headers": {n: v for n, v in request.headers.items() if n in kept},
    }
    payload = json.dumps(meta, separators=(",", ":")).encode() + b"\n" + request.body
    received = (request.received_at - EPOCH) // MICROSECOND
    head = HEAD.pack(len(payload), crc32(payload), received, 0)[:-4]
    return head + crc32(head).to_bytes(4, "little") + payload


def head(data: bytes, at: int = 0) -> Head | None:
    """What stands before a payload; None if it cannot be believed."""
    if at + HEAD.size > len(data):
        return None
    length, crc, received, check = HEAD.unpack_from(data, at)
    if check != crc32(data[at : at + HEAD.size - 4]) or not 0 < length <= LONGEST:
        return None
    return Head(length, crc, received)


def verified(known: Head, payload: bytes) -> Verified:
    """The webhook in a frame.

    Raises:
        ValueError: it is not what was written, or not readable.
    """
    if len(payload) != known.length or crc32(payload) != known.crc:
        raise ValueError("the checksum does not hold")
    text, line, body = payload.partition(b"\n")
    try:
        meta = json.loads(text)
        request = WebhookRequest(
            method=meta["method"],
            url=meta["url"],
            headers=meta["headers"],
            body=body,
            received_at=EPOCH + known.received * MICROSECOND,
        )
        names = {name: meta[name] for name in ("webhook", "connection", "key", "verdict")}
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"not a webhook: {type(error).__name__}") from None
    if not line or not isinstance(request.headers, dict):
        raise ValueError("not a webhook")
    return Verified(request=request, **names)


def found(data: bytes) -> Found:
    """The whole frames of a file. A frame with a broken payload is passed over; behind a head
    that cannot be believed nothing is, for its body could pretend to be frames."""
    written = len(data.rstrip(b"\0"))
    offsets: list[int] = []
    damages: list[Damage] = []
    at = whole = START.size
    while at < written:
        known = head(data, at)
        end = at + HEAD.size + (known.length if known else 0)
        if known and end <= len(data) and crc32(data[at + HEAD.size : end]) == known.crc:
            offsets.append(at)
            whole = end
        else:
            stop = min(end, len(data)) if known else written
            damages.append(Damage(at, stop, torn=written < end))
        if not known:
            break
        at = end
    return Found(offsets, whole, damages)
