"""Files that people send: fetched after the commit, sniffed, and served so that nothing runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.files import Folder
from gateway.kinds import sniff
from tests.running import (
    ACCOUNT,
    Client,
    eventually,
    in_thread,
    inbound_form,
    sid,
    twilio,
    variables,
)
from tests.vendors import LoopbackVendor, Reply

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
HTML = b"<html><script>alert(1)</script></html>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'


def media_path(number: int) -> str:
    """Where the vendor keeps a file."""
    message, file = sid(1, "MM"), sid(number, "ME")
    return f"/2010-04-01/Accounts/{ACCOUNT}/Messages/{message}/Media/{file}"


def receive(client: Client, urls: list[tuple[str, str]]) -> list[str]:
    """A person sends files; the addresses that the API gives them."""
    form = inbound_form(sid(1, "MM"), "", NumMedia=str(len(urls)))
    for place, (url, kind) in enumerate(urls):
        form |= {f"MediaUrl{place}": url, f"MediaContentType{place}": kind}
    assert client.webhook("/api/webhooks/sms", form).ok
    (message,) = client.get("/api/messages", direction="inbound")["items"]
    return [file["url"] for file in message["media"]]


def fetched(client: Client, path: str) -> int:
    """The status of a file, once it is decided."""
    return eventually(lambda: (s := client.call("GET", path).status_code) != 503 and s, "the file")


def test_a_picture_is_fetched_with_credentials_and_shown(
    client: Client, vendor: LoopbackVendor
) -> None:
    vendor.pages[media_path(1)] = Reply(body=PNG, headers={"Content-Type": "image/png"})
    (path,) = receive(client, [(f"https://api.twilio.com{media_path(1)}", "image/png")])
    assert path.startswith("/api/media/med_")
    assert fetched(client, path) == 200
    answer = client.call("GET", path)
    assert answer.content == PNG and answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].startswith("inline")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    (request,) = [r for r in vendor.requests if "/Media/" in r.path]
    assert request.headers["authorization"].startswith("Basic ")
    assert client.stranger().call("GET", path).status_code == 401


@pytest.mark.parametrize("data", [HTML, SVG, b"plain text", b""])
def test_what_calls_itself_a_picture_is_given_as_an_attachment(
    client: Client, vendor: LoopbackVendor, data: bytes
) -> None:
    vendor.pages[media_path(2)] = Reply(body=data, headers={"Content-Type": "image/png"})
    (path,) = receive(client, [(f"https://api.twilio.com{media_path(2)}", "image/png")])
    assert fetched(client, path) == 200
    answer = client.call("GET", path)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_an_address_that_is_not_the_vendor_s_is_never_fetched(
    client: Client, vendor: LoopbackVendor
) -> None:
    urls = [
        "https://api.twilio.com.evil.example" + media_path(1),
        "http://169.254.169.254/latest/meta-data/",
        f"{vendor.url}/other",
        "cat.jpg",
        "file:///etc/passwd",
    ]
    paths = receive(client, [(url, "image/png") for url in urls])
    assert [fetched(client, path) for path in paths] == [410] * 5
    assert vendor.requests == []


def test_a_redirect_to_this_machine_is_not_followed(client: Client, vendor: LoopbackVendor) -> None:
    target = f"{vendor.url}/secret"
    vendor.pages[media_path(3)] = Reply(status=307, headers={"Location": target})
    (path,) = receive(client, [(f"https://api.twilio.com{media_path(3)}", "image/png")])
    assert fetched(client, path) == 410
    assert [r.path for r in vendor.requests] == [media_path(3)]


def test_a_file_that_fails_for_a_moment_is_fetched_later(
    client: Client, vendor: LoopbackVendor
) -> None:
    vendor.pages[media_path(4)] = Reply(status=500)
    (path,) = receive(client, [(f"https://api.twilio.com{media_path(4)}", "image/png")])
    eventually(lambda: vendor.requests, "the first try")
    vendor.pages[media_path(4)] = Reply(body=PNG)
    assert fetched(client, path) == 200


def test_a_file_larger_than_the_cap_is_refused(
    url: str, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    more = {**twilio(vendor.url), "MEDIA_MAX_BYTES": "2048"}
    with in_thread(variables(tmp_path, url, **more)) as client:
        vendor.pages[media_path(5)] = Reply(body=PNG + bytes(4096))
        (path,) = receive(client, [(f"https://api.twilio.com{media_path(5)}", "image/png")])
        assert fetched(client, path) == 410
        assert not [p for p in (tmp_path / "media").rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        (b"GIF89a...", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "application/octet-stream"),
        (b"\x00\x00\x00\x18ftypmp42", "video/mp4"),
        (b"\x00\x00\x00\x18ftyp3gp4", "video/3gpp"),
        (b"OggS\x00", "audio/ogg"),
        (b"%PDF-1.7", "application/pdf"),
        (b"BEGIN:VCARD\r\nVERSION:3.0", "text/vcard"),
        (HTML, "application/octet-stream"),
        (SVG, "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_a_type_is_read_from_the_bytes(data: bytes, kind: str) -> None:
    assert sniff(data) == kind


def test_a_file_is_written_whole_and_for_us_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    asyncio.run(folder.put("default/med_1", PNG, "image/png"))
    path = folder.path("default/med_1")
    assert path.read_bytes() == PNG
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.rglob("*.part")) == []


def test_the_payload_of_a_message_does_not_name_the_vendor_s_address(
    client: Client, vendor: LoopbackVendor
) -> None:
    vendor.pages[media_path(6)] = Reply(body=PNG)
    receive(client, [(f"https://api.twilio.com{media_path(6)}", "image/png")])
    assert "api.twilio.com" not in json.dumps(client.get("/api/messages"))
