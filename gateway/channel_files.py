"""Which files a channel carries: types and sizes that are worth handing to a provider of it.

These are the widest of what networks and vendors take ("MMS file types, size and character limits",
"Supported media types" of the WhatsApp Business Platform); a provider may take less, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.domain import Channel
from gateway.kinds import OPEN_XML

MEBI = 1 << 20
OF_MMS = 5 * MEBI, 600 << 10  # bytes of a picture, which networks shrink, and of anything else
OF_EMAIL = 10 * MEBI  # encoded, with the text, below what most servers take

MMS = {
    **dict.fromkeys(("image/jpeg", "image/png", "image/gif"), OF_MMS[0]),
    **dict.fromkeys(
        (
            "audio/mpeg",
            "audio/mp4",
            "audio/ogg",
            "audio/opus",
            "audio/amr",
            "audio/3gpp",
            "audio/wav",
            "video/mp4",
            "video/3gpp",
            "video/quicktime",
            "video/webm",
            "application/pdf",
            "text/vcard",
            "text/calendar",
        ),
        OF_MMS[1],
    ),
}
WHATSAPP = {
    **dict.fromkeys(("image/jpeg", "image/png"), 5 * MEBI),
    "image/webp": 500 << 10,  # a sticker
    **dict.fromkeys(
        (
            "audio/aac",
            "audio/amr",
            "audio/mpeg",
            "audio/mp4",
            "audio/ogg",
            "audio/opus",
            "video/mp4",
            "video/3gpp",
        ),
        16 * MEBI,
    ),
    **dict.fromkeys(
        (
            "application/pdf",
            "application/msword",
            "application/vnd.ms-excel",
            "application/vnd.ms-powerpoint",
            f"{OPEN_XML}wordprocessingml.document",
            f"{OPEN_XML}spreadsheetml.sheet",
            f"{OPEN_XML}presentationml.presentation",
            "text/plain",
            "text/csv",
            "text/vcard",
        ),
        100 * MEBI,
    ),
}
CARRIED: Mapping[Channel, Mapping[str, int]] = MappingProxyType(
    {Channel.SMS: MMS, Channel.WHATSAPP: WHATSAPP}
)
ANYTHING = {Channel.EMAIL: OF_EMAIL}


def refusal(channel: Channel, kind: str, size: int) -> str | None:
    """Why a channel does not carry a file of a type and size; None: it does, or nobody knows."""
    most = ANYTHING.get(channel)
    if most is None:
        if channel not in CARRIED:
            return None
        most = CARRIED[channel].get(kind)
    if most is None:
        return f"is of the type {kind}, which {channel} does not carry"
    if size > most:
        return f"has {size} bytes, and {channel} carries at most {most} of the type {kind}"
    return None
