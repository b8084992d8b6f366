"""Files as they are given: ranges, conditions, thumbnails, links, and their end."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from gateway.files import PIECE
from tests.databases import sqlite_copy
from tests.running import Client, eventually, in_thread, variables
from tests.test_media_uploads import picture, post

DATA = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
SIZE = len(DATA)


@pytest.fixture(scope="module")
def gateway(sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A gateway with room for files."""
    folder = tmp_path_factory.mktemp("serving")
    with in_thread(variables(folder, sqlite_copy(sqlite_file, folder))) as client:
        client.data = folder  # type: ignore[attr-defined]
        yield client


@pytest.fixture(scope="module")
def path(gateway: Client) -> str:
    """Where a file is."""
    return str(post(gateway, DATA).json()["url"])


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        (f"bytes=10-{SIZE * 9}", 10, SIZE),
        ("Bytes=5-6", 5, 7),
    ],
)
def test_a_part_is_given(gateway: Client, path: str, wanted: str, start: int, end: int) -> None:
    answer = gateway.call("GET", path, headers={"Range": wanted})
    assert answer.status_code == 206
    assert answer.content == DATA[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "wanted",
    ["bytes=0-1,5-6", "bytes=5-2", "bytes=", "bytes=-", "bytes=a-b", "lines=0-1", "0-1", "bytes=1"],
)
def test_what_is_no_single_range_gets_the_whole(gateway: Client, path: str, wanted: str) -> None:
    answer = gateway.call("GET", path, headers={"Range": wanted})
    assert answer.status_code == 200 and answer.content == DATA
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", f"bytes={SIZE * 2}-{SIZE * 3}", "bytes=-0"])
def test_a_range_outside_of_the_file_is_told(gateway: Client, path: str, wanted: str) -> None:
    answer = gateway.call("GET", path, headers={"Range": wanted})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


def test_a_head_has_no_body_and_no_range(gateway: Client, path: str) -> None:
    answer = gateway.call("HEAD", path, headers={"Range": "bytes=0-1"})
    assert answer.status_code == 200 and answer.content == b""
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["content-type"] == "image/png"


def test_what_a_client_has_is_not_given_again(gateway: Client, path: str) -> None:
    tag = gateway.call("GET", path).headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        answer = gateway.call("GET", path, headers={"If-None-Match": known})
        assert answer.status_code == 304 and answer.content == b""
        assert answer.headers["etag"] == tag
    answer = gateway.call("GET", path, headers={"If-None-Match": '"other"'})
    assert answer.status_code == 200
    later = {"Range": "bytes=0-1", "If-Range": '"other"'}
    assert gateway.call("GET", path, headers=later).status_code == 200
    assert gateway.call("GET", path, headers={**later, "If-Range": tag}).status_code == 206


def test_a_large_file_goes_in_pieces(gateway: Client) -> None:
    data = b"%PDF-" + bytes(5 * PIECE + 17)
    path = post(gateway, data).json()["url"]
    answer = gateway.call("GET", path)
    assert answer.content == data
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"].startswith("attachment; ")
    middle = gateway.call("GET", path, headers={"Range": f"bytes={PIECE - 1}-{3 * PIECE}"})
    assert middle.content == data[PIECE - 1 : 3 * PIECE + 1]


def test_a_file_whose_bytes_are_gone_is_told(gateway: Client) -> None:
    made = post(gateway, DATA).json()
    (found,) = gateway.data.rglob(made["id"])  # type: ignore[attr-defined]
    found.unlink()
    assert gateway.call("GET", made["url"]).status_code == 410
    assert gateway.call("GET", made["url"] + "/thumbnail").status_code == 410


# --- thumbnails


def chunk(kind: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says that it is huge."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_picture_has_a_thumbnail(gateway: Client, kind: str) -> None:
    path = post(gateway, picture(kind, (1600, 800))).json()["url"] + "/thumbnail"
    answer = gateway.call("GET", path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    with Image.open(io.BytesIO(answer.content)) as small:
        assert small.size == (320, 160)
    again = gateway.call("GET", path, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_a_thumbnail_stands_upright_and_tells_nothing_of_its_picture(gateway: Client) -> None:
    made, exif = io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where and when"  # turned, with a description
    Image.new("RGB", (800, 400)).save(made, "JPEG", exif=exif)
    path = post(gateway, made.getvalue()).json()["url"] + "/thumbnail"
    answer = gateway.call("GET", path)
    with Image.open(io.BytesIO(answer.content)) as small:
        assert small.size == (160, 320) and not small.getexif()


@pytest.mark.parametrize(
    "data",
    [bomb(30_000), bomb(65_000), b"\x89PNG\r\n\x1a\n" + bytes(99), b"GIF89a", b"%PDF-1.7", b"text"],
    ids=["bomb", "larger_bomb", "no_png", "no_gif", "pdf", "text"],
)
def test_what_is_no_sensible_picture_has_none(gateway: Client, data: bytes) -> None:
    path = post(gateway, data).json()["url"]
    for _ in range(2):
        assert gateway.call("GET", path + "/thumbnail").status_code == 415
    assert gateway.call("GET", path).content == data


def test_a_thumbnail_is_made_once(gateway: Client) -> None:
    made = post(gateway, picture("PNG", (900, 900))).json()
    first = gateway.call("GET", made["url"] + "/thumbnail").content
    (kept,) = gateway.data.rglob(f"{made['id']}.thumb")  # type: ignore[attr-defined]
    assert kept.read_bytes() == first
    assert kept.stat().st_mode & 0o077 == 0
    (original,) = gateway.data.rglob(made["id"])  # type: ignore[attr-defined]
    original.write_bytes(b"changed")
    assert gateway.call("GET", made["url"] + "/thumbnail").content == first


def test_another_path_below_a_file_is_nothing(gateway: Client, path: str) -> None:
    assert gateway.call("GET", "/api/media/med_nothing").status_code == 404
    assert gateway.call("GET", "/api/media/med_nothing/thumbnail").status_code == 404
    assert gateway.call("GET", "/api/media/..%2f..%2fgateway.db").status_code == 404
    assert gateway.call("DELETE", path).status_code == 405


# --- what is too old


def test_files_are_kept_for_as_long_as_is_said(url: str, tmp_path: Path) -> None:
    from gateway.store.database import Database

    environment = variables(tmp_path, url, MEDIA_RETENTION="1h")
    with in_thread(environment) as client:
        old, new = (post(client, picture()).json() for _ in range(2))
        assert client.call("GET", old["url"] + "/thumbnail").status_code == 200
    database = Database(url)
    with database.write() as tx:
        tx.run("UPDATE media SET created_at = ? WHERE id = ?", (tx.now - 3_700_000, old["id"]))
    database.close()
    with in_thread(environment) as client:
        gone = lambda: not [*(tmp_path / "media").rglob(f"{old['id']}*")]  # noqa: E731
        eventually(gone, "the end of the file")
        assert client.call("GET", old["url"]).status_code == 410
        assert client.call("GET", new["url"]).status_code == 200


def test_what_an_upload_left_that_was_killed_is_deleted(url: str, tmp_path: Path) -> None:
    import os

    folder = tmp_path / "media" / ".incoming"
    folder.mkdir(parents=True)
    (folder / "old").write_bytes(b"x")
    (folder / "new").write_bytes(b"x")
    os.utime(folder / "old", (1, 1))
    with in_thread(variables(tmp_path, url)):
        eventually(lambda: not (folder / "old").exists(), "the end of what was left")
        assert (folder / "new").exists()
