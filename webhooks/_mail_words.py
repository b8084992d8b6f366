"""Text of mail: bytes in whatever charset they say that they are, encoded words, names of files.

Always gives text that can be stored, whatever came; never fails, and never takes longer than the
text is long.
"""

from __future__ import annotations

import binascii
import mimetypes
import re
from collections.abc import Iterator

from webhooks._forms import storable

# "Encoding Standard": what these say is read as what it mostly is.
MEANT = {
    "iso-8859-1": "windows-1252", "latin1": "windows-1252", "us-ascii": "", "ascii": "",
    "gb2312": "gb18030", "gbk": "gb18030", "iso-8859-8-i": "iso-8859-8",
    "iso-8859-8-e": "iso-8859-8", "unknown-8bit": "", "x-unknown": "", "default": "",
}  # fmt: skip
# Python's own, which are no charsets; some take the square of the time.
REFUSED = re.compile(r"idna|punycode|.*escape|undefined|mbcs|oem|utf[-_]?7|.*codec")
CHARSET = re.compile(r"[a-z0-9][a-z0-9._:+-]{0,40}")
WORD = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?([^?\n]*)\?=")
BETWEEN = re.compile(r"(?<=\?=)\s+(?==\?[^?\s]{1,60}\?[bBqQ]\?)")
NAME = 150
KIND = re.compile(r"[a-z0-9][a-z0-9.+_-]{0,60}/[a-z0-9][a-z0-9.+_-]{0,80}")


def text_of(data: bytes, charset: str | None = None) -> str:
    """Bytes as text: in their charset if that is one, else in UTF-8 if they are, else in the one
    that reads everything."""
    for name in (_charset(charset), "utf-8"):
        try:
            return storable(data.decode(name)) if name else text_of(data, "utf-8")
        except (LookupError, ValueError):
            continue
    return storable(data.decode("windows-1252", "replace"))


def damaged_text_of(data: bytes, charset: str | None) -> str:
    """The same of bytes that somebody has made UTF-8 of, whatever their charset says."""
    try:
        return storable(data.decode("utf-8"))
    except ValueError:
        return text_of(data, charset)


def _charset(given: str | None) -> str:
    name = (given or "").strip().strip("\"'").lower()
    name = MEANT.get(name, name)
    return name if CHARSET.fullmatch(name) and not REFUSED.fullmatch(name) else ""


def words_of(value: str) -> str:
    """A header's value with its encoded words (RFC 2047) read, on one line."""
    if "=?" in value:
        value = "".join(_pieces(BETWEEN.sub("", value)))
    return " ".join(storable(value).split())


def _pieces(value: str) -> Iterator[str]:
    """Neighbours of one charset are joined before they are read: a letter may be cut in two."""
    at, held, charset = 0, b"", ""
    for found in WORD.finditer(value):
        data = _decoded(found[2], found[3])
        if found.start() > at or found[1].lower() != charset:
            yield text_of(held, charset)
            yield value[at : found.start()]
            held = b""
        held, charset, at = held + data, found[1].lower(), found.end()
    yield text_of(held, charset)
    yield value[at:]


def _decoded(how: str, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    if how in "qQ":
        return binascii.a2b_qp(data, header=True)
    return from_base64(data)


def from_base64(data: bytes) -> bytes:
    """What base64 says, as much of it as is whole."""
    for cut in range(4):
        try:
            return binascii.a2b_base64(data[: len(data) - cut] + b"==")
        except binascii.Error:
            continue
    return data


def file_name(given: str | None, kind: str, number: int) -> str:
    """A name that names a file and nothing else: no folder, nothing invisible, of bounded length;
    one of ours where that leaves nothing."""
    name = words_of(given or "").replace("\\", "/").rpartition("/")[2]
    name = "".join(c for c in name if c.isprintable() and c not in '"<>|:*?\ufffd').strip(" .")
    if len(name) > NAME:
        stem, dot, end = name.rpartition(".")
        name = f"{stem[: NAME - 20]}.{end}" if dot and len(end) < 16 else name[:NAME]
    return name or f"attachment-{number}{mimetypes.guess_extension(kind) or ''}"


def kind_of(given: str | None) -> str:
    """The type of a file as the sender tells it; one that tells nothing where it is none."""
    kind = (given or "").partition(";")[0].strip().lower()
    return kind if KIND.fullmatch(kind) else "application/octet-stream"
