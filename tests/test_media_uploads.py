"""`POST /api/media`: what is taken, what the bytes say, and what is given back."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.databases import sqlite_copy
from tests.running import Client, in_thread, variables

MOST = 64 * 1024


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 48)) -> bytes:
    """A real picture."""
    made = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(made, kind)
    return made.getvalue()


def archive(name: str) -> bytes:
    """A ZIP with one file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as zipped:
        zipped.writestr(name, "x")
    return made.getvalue()


PNG = picture()
HTML = b"<!doctype html><script>alert(1)</script>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
UTF16 = b"\xff\xfe" + "<html><script>1</script>".encode("utf-16-le")


@pytest.fixture(scope="module")
def gateway(sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A gateway that takes small files only."""
    folder = tmp_path_factory.mktemp("uploads")
    more = {"MEDIA_MAX_BYTES": str(MOST), "REQUEST_TIMEOUT": "1s"}
    with in_thread(variables(folder, sqlite_copy(sqlite_file, folder), **more)) as client:
        client.data = folder  # type: ignore[attr-defined]
        yield client


def post(client: Client, data: Any, kind: str = "", query: str = "", **headers: str) -> Any:
    named = {"Content-Type": kind} if kind else {}
    return client.call("POST", f"/api/media{query}", data=data, headers={**named, **headers})


def left(client: Client) -> list[str]:
    """What lies in the folder of files that come in."""
    return [p.name for p in (client.data / "media" / ".incoming").glob("*")]  # type: ignore[attr-defined]


def test_a_picture_is_taken_and_given_back(client: Client) -> None:
    answer = post(client, PNG, "image/png", "?filename=cat.png")
    assert answer.status_code == 201
    made = answer.json()
    assert set(made) == {
        "id", "url", "content_type", "size", "filename", "sha256", "created_at"
    }  # fmt: skip
    assert made["url"] == answer.headers["location"] == f"/api/media/{made['id']}"
    assert made["id"].startswith("med_")
    assert (made["content_type"], made["size"], made["filename"]) == (
        "image/png",
        len(PNG),
        "cat.png",
    )
    assert made["sha256"] == hashlib.sha256(PNG).hexdigest()
    shown = client.call("GET", made["url"])
    assert shown.content == PNG
    assert shown.headers["content-disposition"] == 'inline; filename="cat.png"'
    assert client.stranger().call("POST", "/api/media", data=PNG).status_code == 401


@pytest.mark.parametrize("chunked", [False, True], ids=["with_a_length", "chunked"])
def test_a_form_with_a_file_is_taken(gateway: Client, chunked: bool) -> None:
    files = {"file": ("Grüße.png", PNG, "image/png")}
    ready = requests.Request("POST", gateway.url + "/api/media", files=files).prepare()
    assert isinstance(ready.body, bytes)
    body: Any = (ready.body[n : n + 7] for n in range(0, len(ready.body), 7))
    answer = post(gateway, body if chunked else ready.body, ready.headers["Content-Type"])
    assert answer.status_code == 201, answer.text
    assert answer.json()["sha256"] == hashlib.sha256(PNG).hexdigest()
    assert answer.json()["filename"] == "Grüße.png"


@pytest.mark.parametrize(
    ("data", "declared", "kind"),
    [
        (PNG, "", "image/png"),
        (PNG, "application/octet-stream", "image/png"),
        (picture("JPEG"), "image/jpg", "image/jpeg"),
        (picture("WEBP"), "image/webp", "image/webp"),
        (b"%PDF-1.7\n", "application/pdf", "application/pdf"),
        (archive("word/document.xml"), DOCX, DOCX),
        (archive("a.txt"), "application/zip", "application/zip"),
        (b"a,b\n1,2\n", "text/csv; charset=utf-8", "text/csv"),
        ("Grüße".encode(), "text/plain", "text/plain"),
        (b"Hello", "", "text/plain"),
        (b"BEGIN:VCARD\nVERSION:3.0\n", "text/x-vcard", "text/vcard"),
        (b"\x00\x01\x02\x03", "application/octet-stream", "application/octet-stream"),
        (b"\x00\x00\x00\x18ftypmp42", "audio/mp4", "audio/mp4"),
    ],
)
def test_the_bytes_say_what_it_is(gateway: Client, data: bytes, declared: str, kind: str) -> None:
    answer = post(gateway, data, declared)
    assert answer.status_code == 201, answer.text
    assert answer.json()["content_type"] == kind


@pytest.mark.parametrize(
    ("data", "declared", "said"),
    [
        (HTML, "image/png", "HTML, SVG or XML"),
        (HTML, "text/html", "HTML, SVG or XML"),
        (HTML, "", "HTML, SVG or XML"),
        (b"\n \t" + HTML, "text/plain", "HTML, SVG or XML"),
        (b"\xef\xbb\xbf" + HTML, "image/gif", "HTML, SVG or XML"),
        (UTF16, "image/png", "HTML, SVG or XML"),
        (SVG, "image/svg+xml", "HTML, SVG or XML"),
        (SVG, "image/png", "HTML, SVG or XML"),
        (b"<!-- x --><svg/>", "image/png", "HTML, SVG or XML"),
        (b"alert(1)", "image/png", "declared as image/png, but its bytes are text/plain"),
        (b"alert(1)", "text/javascript", "declared as text/javascript"),
        (PNG, "image/jpeg", "declared as image/jpeg, but its bytes are image/png"),
        (PNG, "text/html", "declared as text/html, but its bytes are image/png"),
        (archive("a"), "image/png", "declared as image/png, but its bytes are application/zip"),
        (b"\x00\x01", "image/png", "its bytes are of no known type"),
        (b"", "image/png", "empty"),
    ],
)
def test_a_file_that_is_not_what_it_is_called_is_refused(
    gateway: Client, data: bytes, declared: str, said: str
) -> None:
    answer = post(gateway, data, declared)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    (error,) = answer.json()["errors"]
    assert error["field"] == "file" and said in error["message"]
    assert left(gateway) == []


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_file_over_the_limit_is_not_taken(gateway: Client, chunked: bool) -> None:
    data: Any = PNG + bytes(MOST)
    answer = post(gateway, iter([data[:1000], data[1000:]]) if chunked else data, "image/png")
    assert answer.status_code == 413
    assert left(gateway) == []


def test_a_file_that_stops_coming_is_given_up(gateway: Client) -> None:
    import socket

    host, _, port = gateway.url.removeprefix("http://").partition(":")
    head = (
        f"POST /api/media HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {gateway.key}\r\n"
        "Content-Length: 1000\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=20) as wire:
        wire.sendall(head.encode() + PNG[:50])
        assert wire.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert left(gateway) == []


@pytest.mark.parametrize(
    ("channel", "data", "declared", "said"),
    [
        ("sms", PNG, "image/png", None),
        ("sms", picture("WEBP"), "image/webp", "which sms does not carry"),
        ("whatsapp", PNG, "image/png", None),
        ("whatsapp", picture("GIF"), "image/gif", "which whatsapp does not carry"),
        ("whatsapp", archive("a"), "application/zip", "which whatsapp does not carry"),
        ("email", archive("a"), "application/zip", None),
    ],
)
def test_a_channel_takes_what_it_carries(
    gateway: Client, channel: str, data: bytes, declared: str, said: str | None
) -> None:
    answer = post(gateway, data, declared, f"?channel={channel}")
    if said is None:
        assert answer.status_code == 201, answer.text
    else:
        assert answer.status_code == 422 and said in answer.json()["errors"][0]["message"]


def test_a_channel_takes_what_is_small_enough() -> None:
    from gateway.channel_files import refusal
    from gateway.domain import Channel

    assert refusal(Channel.SMS, "image/jpeg", 5 << 20) is None
    assert "at most 5242880" in str(refusal(Channel.SMS, "image/jpeg", (5 << 20) + 1))
    assert refusal(Channel.WHATSAPP, "video/mp4", 16 << 20) is None
    assert refusal(Channel.WHATSAPP, "video/mp4", (16 << 20) + 1)
    assert refusal(Channel.WHATSAPP, "application/pdf", 100 << 20) is None
    assert refusal(Channel.EMAIL, "application/x-anything", 10 << 20) is None
    assert refusal(Channel.EMAIL, "application/x-anything", (10 << 20) + 1)


def test_an_unknown_channel_is_told(gateway: Client) -> None:
    answer = post(gateway, PNG, "image/png", "?channel=fax")
    assert answer.status_code == 422 and answer.json()["errors"][0]["field"] == "channel"


@pytest.mark.parametrize(
    ("given", "kept", "told"),
    [
        ("../../etc/passwd", "passwd", 'inline; filename="passwd"'),
        ("C:\\temp\\a.png", "a.png", 'inline; filename="a.png"'),
        ('a"; x=y\r\nSet-Cookie: b=c.png', 'a"; x=ySet-Cookie: b=c.png', None),
        ("Grüße 👍.png", "Grüße 👍.png", None),
        ("...", None, None),
        ("a" * 500, "a" * 200, None),
    ],
)
def test_a_name_is_cut_down_to_a_name(
    gateway: Client, given: str, kept: str | None, told: str | None
) -> None:
    from urllib.parse import quote

    made = post(gateway, PNG, "image/png", f"?filename={quote(given)}").json()
    assert made["filename"] == kept
    shown = gateway.call("GET", made["url"]).headers
    assert "set-cookie" not in shown
    said = shown["content-disposition"]
    assert said == told if told else said.startswith('inline; filename="')
    if kept and not kept.isascii():
        assert said.endswith(f"filename*=UTF-8''{quote(kept, safe='')}")


def test_a_name_may_stand_in_a_header(gateway: Client) -> None:
    named = {"Content-Disposition": 'attachment; filename="../cat.png"'}
    assert post(gateway, PNG, "image/png", **named).json()["filename"] == "cat.png"


BOUNDARY = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        (BOUNDARY, PART + PNG + b"\r\n--b--\r\n", 201),
        (BOUNDARY, PART + PNG + b"\r\n--b--and more", 201),
        (BOUNDARY, PART + PNG + b"\r\n" + PART + PNG + b"\r\n--b--\r\n", 422),
        (BOUNDARY, PART + PNG, 400),
        (BOUNDARY, PART + PNG + b"\r\n--b", 400),
        (BOUNDARY, b"--b\r\n" + b"x" * 20_000, 422),
        (BOUNDARY, b"preamble\r\n" + PART + PNG + b"\r\n--b--", 422),
        (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--', 422),
        ("multipart/form-data", PART + PNG + b"\r\n--b--", 422),
        (BOUNDARY, b"", 400),
    ],
)
def test_a_form_has_one_part_the_file(gateway: Client, kind: str, body: bytes, status: int) -> None:
    answer = post(gateway, body, kind)
    assert answer.status_code == status, answer.text
    assert left(gateway) == []
