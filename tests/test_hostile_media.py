"""Hostile files and addresses: nothing is fetched that should not be, nothing bursts in our hands,
and nothing is run by a browser."""

from __future__ import annotations

import _socket
import asyncio
import gzip
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ProviderError, Rejected
from providers import _fetch, twilio as twilio_provider
from tests.aws_servers import LoopbackAws
from tests.hostile import MEGA, that_burst, that_run
from tests.running import Client, eventually, in_thread, twilio, variables
from tests.test_media import fetched, media_path, receive
from tests.test_media_places import amazon
from tests.test_media_uploads import PNG, post
from tests.vendors import LoopbackVendor, Reply

WITNESS = "http://127.0.0.1:9"  # nobody, where nothing is to be run
RUN = that_run(WITNESS)
SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "same-origin",
}
SHOWN = re.compile(r"(?:image/(?:png|jpeg|gif|webp)|(?:audio|video)/[a-z0-9]+)")


@pytest.fixture
def trap() -> Iterator[LoopbackVendor]:
    """A listener inside, which nobody should ever reach."""
    with LoopbackVendor() as made:
        yield made
        assert made.connections == 0
        assert made.requests == []


# --- what people send


@pytest.mark.parametrize("name", RUN)
def test_what_a_person_sends_is_given_as_nothing_that_runs(
    client: Client, vendor: LoopbackVendor, name: str
) -> None:
    vendor.pages[media_path(1)] = Reply(body=RUN[name], headers={"Content-Type": "image/png"})
    (path,) = receive(client, [(f"https://api.twilio.com{media_path(1)}", "image/png")])
    assert fetched(client, path) == 200
    answer = client.call("GET", path)
    assert answer.content == RUN[name]
    assert (
        SAFE.items() <= dict(answer.headers).items()
        or SAFE.items() <= {k.lower(): v for k, v in answer.headers.items()}.items()
    )
    kind = answer.headers["content-type"]
    shown = answer.headers["content-disposition"].startswith("inline")
    assert not shown or SHOWN.fullmatch(kind), kind
    assert not re.search("html|xml|script|css", kind)
    assert client.call("GET", path + "/thumbnail").status_code == 415


@pytest.mark.parametrize(
    "given",
    [
        "https://api.twilio.com.evil.example{path}",
        "https://api.twilio.com@evil.example{path}",
        "https://evil.example/#@api.twilio.com{path}",
        "https://evil.example\\@api.twilio.com{path}",
        "https://api-twilio.com{path}",
        "https://api.twilio.com.{path}",
        "https://api.twilio.com:444{path}",
        "https://api.twilio.com%2eevil.example{path}",
        "https://арi.twilio.com{path}",
        "http://api.twilio.com{path}",
        "//api.twilio.com{path}",
        "{trap}{path}",
        "https://127.0.0.1{path}",
        "https://[::ffff:127.0.0.1]{path}",
        "https://[64:ff9b::7f00:1]{path}",
        "https://169.254.169.254/latest/meta-data/",
        "https://api.twilio.com/../..{path}",
        "https://api.twilio.com{path}/../../secret",
        "https://api.twilio.com{path}?x=y",
        "file://{path}",
        "data:text/html,<script>1</script>",
    ],
)
def test_a_host_that_looks_like_the_vendor_s_is_not_visited(
    client: Client, vendor: LoopbackVendor, trap: LoopbackVendor, given: str
) -> None:
    there = given.format(path=media_path(1), trap=trap.url)
    vendor.pages[media_path(1)] = Reply(body=PNG)
    (path,) = receive(client, [(there, "image/png")])
    status = fetched(client, path)
    # What leads to the vendor's own file, by ids alone, may be had; nothing else is asked for.
    assert status in (200, 410)
    assert [r.path for r in vendor.requests] == [media_path(1)] * (status == 200)


@pytest.mark.parametrize(
    "target",
    [
        "{trap}/secret",
        "https://127.0.0.1:{port}/",
        "https://localhost:{port}/",
        "https://[::1]:{port}/",
        "https://[::ffff:127.0.0.1]:{port}/",
        "https://[64:ff9b::7f00:1]:{port}/",
        "https://[2002:7f00:1::]:{port}/",
        "https://2130706433:{port}/",
        "https://0x7f.1:{port}/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fe80::1]/",
        "https://10.0.0.1/",
        "https://user:secret@127.0.0.1:{port}/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/x",
    ],
)
def test_a_redirect_of_the_vendor_s_leads_nowhere_inside(
    client: Client,
    vendor: LoopbackVendor,
    trap: LoopbackVendor,
    numbers: list[str],
    target: str,
) -> None:
    there = target.format(trap=trap.url, port=trap.port)
    vendor.pages[media_path(3)] = Reply(status=307, headers={"Location": there})
    (path,) = receive(client, [(f"https://api.twilio.com{media_path(3)}", "image/png")])
    assert fetched(client, path) == 410
    assert [r.path for r in vendor.requests] == [media_path(3)]
    assert "secret" not in client.call("GET", path).text


def test_a_file_of_the_vendor_s_that_bursts_is_refused(
    url: str, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    bomb = gzip.compress(bytes(16 * MEGA))
    packed = {"Content-Encoding": "gzip", "Content-Type": "image/png"}
    vendor.pages[media_path(1)] = Reply(body=bomb, headers=packed)
    vendor.pages[media_path(2)] = Reply(body=PNG, declared=1 << 40)
    vendor.pages[media_path(4)] = Reply(body=PNG + bytes(MEGA))
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + PNG + bytes(2 * MEGA)
    vendor.pages[media_path(5)] = endless
    more = {**twilio(vendor.url), "MEDIA_MAX_BYTES": str(MEGA)}
    with in_thread(variables(tmp_path, url, **more)) as client:
        there = [f"https://api.twilio.com{media_path(n)}" for n in (1, 4, 5)]
        paths = receive(client, [(each, "image/png") for each in there])
        assert [fetched(client, path) for path in paths] == [410] * 3
    assert not [p for p in (tmp_path / "media").rglob("med_*") if p.is_file()]


def test_a_file_that_drips_or_lies_about_its_length_is_given_up(
    url: str, tmp_path: Path, vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio_provider, "MEDIA_TIMEOUT", 0.5)
    vendor.pages[media_path(1)] = Reply(body=PNG * 99, drip=0.1)
    vendor.pages[media_path(2)] = Reply(body=PNG, declared=len(PNG) + 99, close=True)
    with in_thread(variables(tmp_path, url, **twilio(vendor.url))) as client:
        there = [f"https://api.twilio.com{media_path(n)}" for n in (1, 2)]
        paths = receive(client, [(each, "image/png") for each in there])
        eventually(lambda: vendor.count >= 2, "a first try of each")
        assert [client.call("GET", path).status_code for path in paths] == [503] * 2
        for number in (1, 2):
            vendor.pages[media_path(number)] = Reply(body=PNG)
        assert [fetched(client, path) for path in paths] == [200] * 2


# --- what the application uploads


@pytest.mark.parametrize("name", RUN)
@pytest.mark.parametrize("declared", ["image/png", "image/svg+xml", "text/html", "video/mp4"])
def test_what_could_run_is_no_picture_by_any_name(
    uploader: Client, declared: str, name: str
) -> None:
    answer = post(uploader, RUN[name], declared, f"?filename={name}.png")
    if answer.status_code == 201:
        made = answer.json()
        # A polyglot is what its first bytes say, and is given as that alone.
        assert made["content_type"] == declared and SHOWN.fullmatch(declared)
        assert uploader.call("GET", made["url"]).headers["x-content-type-options"] == "nosniff"
    else:
        assert answer.status_code == 422, answer.text


@pytest.fixture(scope="module")
def uploader(sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    from tests.databases import sqlite_copy

    folder = tmp_path_factory.mktemp("hostile")
    with in_thread(variables(folder, sqlite_copy(sqlite_file, folder))) as made:
        yield made


@pytest.mark.parametrize("name", that_burst())
def test_what_bursts_when_it_is_unpacked_is_never_unpacked(uploader: Client, name: str) -> None:
    data = that_burst()[name]
    made = post(uploader, data, "application/octet-stream").json()
    assert made["size"] == len(data)
    answer = uploader.call("GET", made["url"] + "/thumbnail")
    assert answer.status_code in ((200, 415) if name == "png-text" else (415,))
    assert uploader.call("GET", made["url"]).content == data


@pytest.mark.parametrize("declared", ["image/png", ""])
def test_an_upload_that_is_packed_for_the_way_is_refused(uploader: Client, declared: str) -> None:
    bomb = gzip.compress(bytes(16 * MEGA))
    refused = post(uploader, bomb, declared, **{"Content-Encoding": "gzip"})
    assert (refused.status_code, refused.headers["accept-encoding"]) == (415, "identity")
    made = post(uploader, bomb, "").json()  # a packed file is a file
    assert made["size"] == len(bomb)


# --- addresses that the application gives


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Knows hosts that are numbers in any form, as every resolver does; no names. Notes what was
    asked."""
    asked: list[str] = []

    def look_up(host: Any, port: Any, *rest: Any, **named: Any) -> Any:
        asked.append(str(host))
        host = "127.0.0.1" if host == "localhost" else host
        try:
            return _socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        except OSError:
            raise socket.gaierror(socket.EAI_NONAME, "no such name") from None

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


INSIDE = (
    "https://127.0.0.1:{port}/a.png",
    "https://127.1:{port}/a.png",
    "https://2130706433:{port}/a.png",
    "https://0x7f000001:{port}/a.png",
    "https://0177.0.0.1:{port}/a.png",
    "https://017700000001:{port}/a.png",
    "https://0:{port}/a.png",
    "https://[::1]:{port}/a.png",
    "https://[::]:{port}/a.png",
    "https://[::ffff:127.0.0.1]:{port}/a.png",
    "https://[::ffff:7f00:1]:{port}/a.png",
    "https://[::127.0.0.1]:{port}/a.png",
    "https://[64:ff9b::7f00:1]:{port}/a.png",
    "https://[64:ff9b::127.0.0.1]:{port}/a.png",
    "https://[64:ff9b:1::7f00:1]:{port}/a.png",
    "https://[2002:7f00:1::]:{port}/a.png",
    "https://[2001:0:7f00:1::]:{port}/a.png",
    "https://[fe80::1%25lo]:{port}/a.png",
    "https://[fd00:ec2::254]/latest/meta-data",
    "https://169.254.169.254/latest/meta-data/",
    "https://0xa9fea9fe/latest/meta-data/",
    "https://100.100.100.200/latest/meta-data/",
    "https://10.0.0.1/",
    "https://files.example.com@127.0.0.1:{port}/",
    "https://127.0.0.1:{port}\\@files.example.com/",
    "https://127.0.0.1:{port}#@files.example.com/",
    "https://127.0.0.1:{port}/?@files.example.com",
)


@pytest.mark.parametrize("url", INSIDE)
def test_an_address_inside_is_not_connected_to_in_any_form(
    trap: LoopbackVendor, numbers: list[str], url: str
) -> None:
    with pytest.raises(ProviderError) as caught:
        asyncio.run(_fetch.fetch(url.format(port=trap.port), limit=1000, timeout=5))
    assert isinstance(caught.value, Rejected) or caught.value.sent_nothing


@contextmanager
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every address that anybody connects to."""
    made: list[str] = []
    connect = socket.socket.connect

    def noted(self: socket.socket, address: Any) -> Any:
        made.append(str(address[0]))
        return connect(self, address)

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", noted)
        yield made


@pytest.mark.parametrize(
    "answers", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"]]
)
def test_a_name_that_changes_its_mind_leads_nowhere_inside(
    trap: LoopbackVendor, monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    asked: list[str] = []

    def look_up(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        answer = answers[min(len(asked), len(answers) - 1)]
        asked.append(answer)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, trap.port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = f"https://rebinding.example.com:{trap.port}/a.png"
    with connections(monkeypatch) as made:
        for _ in range(3):
            with pytest.raises(ProviderError):
                asyncio.run(_fetch.fetch(url, limit=1000, timeout=5))
    # One look-up for each visit, and what it gave is what is connected to, or refused.
    assert len(asked) == 3
    assert made == [answer for answer in asked if answer == "8.8.8.8"]


def test_a_redirect_to_a_name_that_is_inside_is_refused(
    vendor: LoopbackVendor, trap: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = {"outside.example.com": "127.0.0.1", "inside.example.com": "127.0.0.2"}

    def look_up(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (hosts[host], port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(_fetch, "SCHEMES", ("http", "https"))
    monkeypatch.setattr(_fetch, "is_public", lambda address: address == "127.0.0.1")
    there = f"http://inside.example.com:{trap.port}/secret"
    vendor.always = Reply(status=302, headers={"Location": there})
    url = f"http://outside.example.com:{vendor.port}/"
    with connections(monkeypatch) as made, pytest.raises(Rejected) as caught:
        asyncio.run(_fetch.fetch(url, limit=1000, timeout=5))
    assert caught.value.code == "forbidden_address"
    assert set(made) == {"127.0.0.1"} and vendor.count == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:{port}/a.png",
        "https://[::ffff:127.0.0.1]:{port}/a.png",
        "https://[64:ff9b::7f00:1]:{port}/a.png",
        "https://2130706433:{port}/a.png",
        "https://169.254.169.254/latest/meta-data/",
    ],
)
def test_a_message_with_such_an_address_fails_and_nothing_is_fetched(
    sqlite_url: str, tmp_path: Path, trap: LoopbackVendor, numbers: list[str], url: str
) -> None:
    with (
        LoopbackAws() as aws,
        in_thread(variables(tmp_path, sqlite_url, **amazon(aws))) as client,
    ):
        sent = client.send(to="+15550100001", media=[url.format(port=trap.port)])
        failed = client.until(sent["id"], "failed", "rejected")
        assert failed["error"]["code"] in ("forbidden_address", "url")
        assert aws.sent == [] and aws.files == {}


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example.com/a.png",
        "file:///etc/passwd",
        "javascript:1",
        "data:,x",
        "//x/a",
        "/x",
    ],
)
def test_a_message_takes_no_other_kind_of_address(uploader: Client, url: str) -> None:
    body = {"to": "+15550100001", "media": [url]}
    answer = uploader.call("POST", "/api/messages", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "media.0.url"


def test_what_a_vendor_fetches_itself_is_not_fetched_by_us(
    client: Client, vendor: LoopbackVendor, trap: LoopbackVendor
) -> None:
    url = f"https://127.0.0.1:{trap.port}/a.png"
    client.until(client.send(to="+15550100001", media=[url])["id"], "accepted")
    assert vendor.requests[-1].form["MediaUrl"] == [url]
