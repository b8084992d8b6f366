"""What a file is: read from its bytes, never believed from its sender; and what of that a browser
may show."""

from __future__ import annotations

import re

UNKNOWN = "application/octet-stream"
HEAD = 4096  # bytes of a file that are looked at

# Shown by a browser; everything else comes as a download.
INLINE = frozenset(
    {
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "audio/mpeg",
        "audio/mp4",
        "audio/ogg",
        "audio/amr",
        "audio/aac",
        "audio/wav",
        "video/mp4",
        "video/3gpp",
        "video/webm",
    }
)

MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"#!AMR", "audio/amr"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"PK\x03\x04", "application/zip"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
)
RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
TEXTS = ((b"BEGIN:VCARD", "text/vcard"), (b"BEGIN:VCALENDAR", "text/calendar"))

# Containers, and the types that files in them may have beside the one that is read.
OPEN_XML = "application/vnd.openxmlformats-officedocument."
WITHIN = {
    "audio/ogg": {"audio/opus", "application/ogg", "video/ogg"},
    "video/mp4": {"audio/mp4", "video/quicktime", "audio/3gpp"},
    "video/3gpp": {"audio/3gpp", "audio/amr", "audio/mp4", "video/mp4"},
    "audio/mp4": {"video/mp4"},
    "video/webm": {"audio/webm", "video/x-matroska"},
    "application/zip": {
        f"{OPEN_XML}wordprocessingml.document",
        f"{OPEN_XML}spreadsheetml.sheet",
        f"{OPEN_XML}presentationml.presentation",
        "application/vnd.oasis.opendocument.text",
        "application/vnd.oasis.opendocument.spreadsheet",
        "application/vnd.oasis.opendocument.presentation",
        "application/epub+zip",
    },
    "application/x-ole-storage": {
        "application/msword",
        "application/vnd.ms-excel",
        "application/vnd.ms-powerpoint",
        "application/vnd.ms-outlook",
    },
    "text/plain": {"text/csv", "text/markdown", "application/json", "application/rtf"},
}
ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "audio/mp3": "audio/mpeg",
    "audio/x-m4a": "audio/mp4",
    "audio/m4a": "audio/mp4",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-aac": "audio/aac",
    "audio/aacp": "audio/aac",
    "text/x-vcard": "text/vcard",
    "text/directory": "text/vcard",
    "text/rtf": "application/rtf",
    "application/x-pdf": "application/pdf",
    "application/x-zip-compressed": "application/zip",
    "application/x-zip": "application/zip",
    "binary/octet-stream": UNKNOWN,
}

# Told to whoever fetches a file by its link; anything else is told to be just bytes.
TOLD = INLINE.union(
    {kind for _, kind in (*MAGIC, *TEXTS)},
    *WITHIN.values(),
    {"text/plain", "image/heic", "image/avif", "video/quicktime"},
)

MARKUP = re.compile(rb"\s*<[!?/A-Za-z]")
CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def sniff(data: bytes) -> str:
    """The type of a file by its first bytes; `application/octet-stream` when they say nothing."""
    for start, kind in MAGIC:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] in RIFF:
        return RIFF[data[8:12]]
    if data[4:8] == b"ftyp":
        return _brand(data[8:12])
    if data[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        return "audio/mpeg"
    if data[:2] in (b"\xff\xf1", b"\xff\xf9"):
        return "audio/aac"
    start = data[:64].lstrip().upper()
    return next((kind for word, kind in TEXTS if start.startswith(word)), UNKNOWN)


def _brand(brand: bytes) -> str:
    if brand.startswith(b"3g"):
        return "video/3gpp"
    if brand in (b"heic", b"heix", b"mif1", b"msf1"):
        return "image/heic"
    if brand.startswith(b"avi"):
        return "image/avif"
    if brand.startswith(b"qt"):
        return "video/quicktime"
    return "audio/mp4" if brand.startswith(b"M4A") else "video/mp4"


def bare(declared: str | None) -> str:
    """A declared type without its parameters, under the name that it has here."""
    kind = (declared or "").partition(";")[0].strip().lower()
    return ALIASES.get(kind, kind)


def is_markup(head: bytes) -> bool:
    """Whether a file begins as HTML, SVG or XML does, which a browser might run."""
    for bom in BOMS:
        head = head.removeprefix(bom)
    return MARKUP.match(head.replace(b"\0", b"")) is not None


def is_text(head: bytes) -> bool:
    """Whether a file's beginning can be read as text."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # not just a character that was cut in two
            return False
    return bool(head) and CONTROLS.search(head) is None


def kind_of(head: bytes, declared: str | None) -> str:
    """What a file that somebody sent is: by its bytes. What was declared only narrows that."""
    found, said = sniff(head), bare(declared)
    return said if said in WITHIN.get(found, ()) else found


def contradicted(head: bytes, declared: str | None) -> str | None:
    """Why a file is not what it is declared to be; None: it may be."""
    said, found = bare(declared), taken(head, declared)
    if is_markup(head) and found in (UNKNOWN, "text/plain"):
        return "is HTML, SVG or XML, which is not taken: it could be run by whoever opens it"
    if said in ("", UNKNOWN, found):
        return None
    return f"is declared as {said}, but its bytes are {_words(found)}"


def taken(head: bytes, declared: str | None) -> str:
    """The type of an upload: as for any other file, and text where it is readable as such."""
    kind, said = kind_of(head, declared), bare(declared)
    if kind != UNKNOWN or not is_text(head):
        return kind
    return said if said in WITHIN["text/plain"] else "text/plain"


def _words(kind: str) -> str:
    return "of no known type" if kind == UNKNOWN else kind
