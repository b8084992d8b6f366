"""The guarded client: where it goes, what it takes along and how much it reads."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from gateway.domain import FetchedMedia
from gateway.errors import ProviderError, Rejected, Throttled, Unreachable
from providers import _fetch
from providers._fetch import fetch, is_public
from tests.vendors import Fault, LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

PUBLIC = ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e")
PRIVATE = (
    "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.9",
    "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.88.99.1",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "ff0e::1",
    "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "::8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::1",
    "2001:0:808:808::1", "2001:db8::1", "100::1", "5f00::1", "3fff::1", "4000::1", "localhost", "",
)  # fmt: skip
NOT_ALLOWED = (
    "http://8.8.8.8/", "ftp://8.8.8.8/", "file:///etc/passwd", "gopher://8.8.8.8/", "//8.8.8.8/",
    "https://", "https:///x", "https://user:secret@8.8.8.8/", "https://@8.8.8.8/", "javascript:x",
    "https://8.8.8.8:99999/", "https://8.8.8.8:0/", "https://[::1/", "",
)  # fmt: skip
INSIDE = (
    "https://127.0.0.1/", "https://[::1]/", "https://localhost/", "https://169.254.169.254/meta",
    "https://[::ffff:7f00:1]/", "https://[64:ff9b::7f00:1]/", "https://0.0.0.0/",
)  # fmt: skip
NOT_CANONICAL = ("https://2130706433/", "https://127.1/", "https://0x7f000001/", "https://0177.1/")


@pytest.fixture
def open_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fetch, "SCHEMES", ("http", "https"))
    monkeypatch.setattr(_fetch, "is_public", lambda address: address == "127.0.0.1")


async def get(url: str, limit: int = 1000, timeout: float = 3.0) -> FetchedMedia:
    return await fetch(url, limit=limit, timeout=timeout)


async def refused(url: str, **named: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await get(url, **named)
    assert caught.value.__context__ is None
    return caught.value


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_an_inner_address_is_not_public_whatever_it_is_dressed_as(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("url", NOT_ALLOWED)
async def test_only_https_without_credentials_is_visited(url: str) -> None:
    failed = await refused(url)
    assert (type(failed), failed.code) == (Rejected, "url")


@pytest.mark.parametrize("url", INSIDE)
async def test_an_inner_address_is_not_connected_to(url: str) -> None:
    failed = await refused(url)
    assert (type(failed), failed.code) == (Rejected, "forbidden_address")


@pytest.mark.parametrize("url", NOT_CANONICAL)
async def test_a_number_in_disguise_is_not_even_looked_up(url: str) -> None:
    assert (await refused(url)).code == "url"


async def test_a_name_with_one_inner_address_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(*_: Any, **__: Any) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.1", 443)), (*kind, ("8.8.8.8", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert (await refused("https://files.example.com/")).code == "forbidden_address"


@pytest.mark.usefixtures("open_to_loopback")
async def test_a_file_comes_with_its_type_and_its_name(vendor: LoopbackVendor) -> None:
    named = 'attachment; filename="..\\\\../etc/\x07cat.png"'
    headers = {"Content-Type": "Image/PNG; x=y", "Content-Disposition": named}
    vendor.always = Reply(headers=headers, body=b"\x89PNG")
    assert await get(f"{vendor.url}/a?b=%20c") == FetchedMedia(
        data=b"\x89PNG", content_type="image/png", filename="cat.png"
    )
    assert vendor.requests[0].path == "/a?b=%20c"
    assert vendor.requests[0].headers["accept-encoding"] == "identity"
    assert not {"authorization", "cookie"} & set(vendor.requests[0].headers)


@pytest.mark.usefixtures("open_to_loopback")
async def test_a_signed_address_is_visited_as_it_came(vendor: LoopbackVendor) -> None:
    vendor.plan.append(Reply(status=307, headers={"Location": "/b%2Fc?Sig=a%2Bb%3d~"}))
    vendor.always = Reply(body=b"x")
    await get(f"{vendor.url}/a")
    assert vendor.requests[1].path == "/b%2Fc?Sig=a%2Bb%3d~"


@pytest.mark.usefixtures("open_to_loopback")
async def test_three_redirects_are_followed_and_no_more(vendor: LoopbackVendor) -> None:
    again = Reply(status=302, headers={"Location": "/next", "Set-Cookie": "a=b; Path=/"})
    vendor.plan.extend([again] * 3)
    vendor.always = Reply(body=b"here")
    assert (await get(f"{vendor.url}/a")).data == b"here"
    assert "cookie" not in vendor.requests[-1].headers
    vendor.always = again
    assert (await refused(f"{vendor.url}/a")).code == "redirects"
    assert vendor.count == 8


@pytest.mark.usefixtures("open_to_loopback")
@pytest.mark.parametrize("target", ["https://10.0.0.1/", "file:///etc/passwd", "//169.254.1.1/"])
async def test_a_redirect_is_held_to_the_same_rules(vendor: LoopbackVendor, target: str) -> None:
    vendor.always = Reply(status=307, headers={"Location": target})
    assert (await refused(f"{vendor.url}/a")).code in ("forbidden_address", "url")
    assert vendor.count == 1


@pytest.mark.usefixtures("open_to_loopback")
@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"x" * 1001),
        Reply(body=b"x", declared=1 << 40),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
    ],
    ids=["one_byte_more", "declared", "without_a_length"],
)
async def test_a_file_over_the_limit_is_refused(vendor: LoopbackVendor, reply: Any) -> None:
    vendor.always = reply
    failed = await refused(f"{vendor.url}/a", limit=1000)
    assert (type(failed), failed.code) == (Rejected, "too_large")


@pytest.mark.usefixtures("open_to_loopback")
async def test_a_compressed_file_is_refused_and_not_blown_up(vendor: LoopbackVendor) -> None:
    vendor.always = Reply(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b\x08")
    assert (await refused(f"{vendor.url}/a")).code == "encoded"


@pytest.mark.usefixtures("open_to_loopback")
@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (Reply(status=404), Rejected),
        (Reply(status=410), Rejected),
        (Reply(status=403), Rejected),
        (Reply(status=429), Throttled),
        (Reply(status=500), Unreachable),
        (Reply(status=503), Unreachable),
        (Reply(body=b"x", declared=9, close=True), Unreachable),
        (Reply(body=b"x" * 500, drip=0.05), Unreachable),
        (Fault.DROP_AFTER, Unreachable),
        (Fault.STALL, Unreachable),
    ],
    ids=str,
)
async def test_what_may_be_had_later_is_told_from_what_is_gone(
    vendor: LoopbackVendor, behaviour: Any, kind: type[ProviderError]
) -> None:
    vendor.always = behaviour
    assert type(await refused(f"{vendor.url}/a", timeout=0.4)) is kind


@pytest.mark.usefixtures("open_to_loopback")
async def test_a_cancelled_fetch_leaves_nothing_open(vendor: LoopbackVendor) -> None:
    vendor.always = Fault.STALL
    fetching = asyncio.create_task(get(f"{vendor.url}/a"))
    async with asyncio.timeout(5):
        while not vendor.count:
            await asyncio.sleep(0.005)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        while vendor.open:
            await asyncio.sleep(0.005)
