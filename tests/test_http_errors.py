"""The shared HTTP client: what each failure means, and what it never does."""

from __future__ import annotations

import asyncio
import http
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from hypothesis import given, strategies as st

from gateway.errors import Ambiguous, ProviderError, Rejected, Unreachable
from providers import _http
from providers._http import Http, encode, translate, unwritten
from tests.vendors import Fault, LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

# Every exception of aiohttp's family, and what it means as long as nothing was written. One that
# a new aiohttp brings is missing here, and the first test below fails until somebody has decided.
FAMILY: dict[str, tuple[type[ProviderError], str]] = {
    "ClientConnectionError": (Unreachable, "connect"),
    "ClientConnectionResetError": (Unreachable, "connect"),
    "ClientConnectorCertificateError": (Unreachable, "tls"),
    "ClientConnectorDNSError": (Unreachable, "dns"),
    "ClientConnectorError": (Unreachable, "connect"),
    "ClientConnectorSSLError": (Unreachable, "tls"),
    "ClientError": (Ambiguous, "no_answer"),
    "ClientHttpProxyError": (Ambiguous, "no_answer"),
    "ClientOSError": (Unreachable, "connect"),
    "ClientPayloadError": (Ambiguous, "no_answer"),
    "ClientProxyConnectionError": (Unreachable, "connect"),
    "ClientResponseError": (Ambiguous, "no_answer"),
    "ClientSSLError": (Unreachable, "tls"),
    "ConnectionTimeoutError": (Unreachable, "connect_timeout"),
    "ContentTypeError": (Ambiguous, "no_answer"),
    "InvalidURL": (Unreachable, "url"),
    "InvalidUrlClientError": (Unreachable, "url"),
    "InvalidUrlRedirectClientError": (Unreachable, "url"),
    "NonHttpUrlClientError": (Unreachable, "url"),
    "NonHttpUrlRedirectClientError": (Unreachable, "url"),
    "RedirectClientError": (Ambiguous, "no_answer"),
    "ServerConnectionError": (Unreachable, "connect"),
    "ServerDisconnectedError": (Unreachable, "connect"),
    "ServerFingerprintMismatch": (Unreachable, "tls"),
    "ServerTimeoutError": (Unreachable, "connect"),
    "SocketTimeoutError": (Unreachable, "connect"),
    "TooManyRedirects": (Ambiguous, "no_answer"),
    "UnixClientConnectorError": (Unreachable, "connect"),
    "UploadAbortedError": (Ambiguous, "no_answer"),
    "WSServerHandshakeError": (Ambiguous, "no_answer"),
}
OTHERS: dict[type[BaseException], tuple[type[ProviderError], str]] = {
    TimeoutError: (Unreachable, "connect_timeout"),
    OSError: (Unreachable, "connect"),
    ConnectionError: (Unreachable, "connect"),
    ConnectionRefusedError: (Unreachable, "connect"),
    ConnectionResetError: (Unreachable, "connect"),
    ConnectionAbortedError: (Unreachable, "connect"),
    BrokenPipeError: (Unreachable, "connect"),
    socket.gaierror: (Unreachable, "dns"),
    ssl.SSLError: (Unreachable, "tls"),
    ssl.SSLCertVerificationError: (Unreachable, "tls"),
    ssl.SSLEOFError: (Unreachable, "tls"),
    asyncio.IncompleteReadError: (Ambiguous, "no_answer"),
    UnicodeEncodeError: (Rejected, "text"),
    aiohttp.http_exceptions.HttpProcessingError: (Ambiguous, "no_answer"),
    RuntimeError: (Ambiguous, "no_answer"),
    KeyError: (Ambiguous, "no_answer"),
    ValueError: (Ambiguous, "no_answer"),
    MemoryError: (Ambiguous, "no_answer"),
}


def family(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("aiohttp."):
            yield from family(child)


CLASSES = {kind.__name__: kind for kind in family(aiohttp.ClientError)}


def raised(kind: type[BaseException]) -> BaseException:
    """An exception of a class, whatever its constructor wants."""
    return kind.__new__(kind)


async def post(client: Http, vendor: LoopbackVendor, **named: Any) -> _http.HttpAnswer:
    given = {"headers": {"Authorization": "Bearer s3cret"}, "data": {"a": "b"}, "timeout": 2.0}
    return await client.request("POST", f"{vendor.url}/x", **{**given, **named})


def test_every_class_of_aiohttps_family_has_a_meaning() -> None:
    assert set(CLASSES) == set(FAMILY)


@pytest.mark.parametrize("name", FAMILY)
def test_an_error_of_the_family_means_what_is_written_here(name: str) -> None:
    failed = translate(raised(CLASSES[name]), written=False)
    assert (type(failed), failed.code) == FAMILY[name]


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_an_error_of_the_standard_library_means_what_is_written_here(
    kind: type[BaseException],
) -> None:
    failed = translate(raised(kind), written=False)
    assert (type(failed), failed.code) == OTHERS[kind]


@pytest.mark.parametrize("kind", [*CLASSES.values(), *OTHERS], ids=lambda kind: kind.__name__)
def test_once_something_was_written_every_error_is_ambiguous(kind: type[BaseException]) -> None:
    assert type(translate(raised(kind), written=True)) is Ambiguous


@pytest.mark.parametrize("kind", [*CLASSES.values(), *OTHERS], ids=lambda kind: kind.__name__)
def test_only_the_class_of_the_librarys_error_is_told(kind: type[BaseException]) -> None:
    for written in (False, True):
        error = raised(kind)
        error.args = ("s3cret", "https://user:s3cret@example.com")
        assert "s3cret" not in repr(translate(error, written=written))


def test_the_table_holds_no_class_that_nobody_tests() -> None:
    assert set(unwritten()) <= {*CLASSES.values(), *OTHERS}


@given(
    st.lists(
        st.tuples(
            st.text(alphabet="ABCabc", min_size=1),
            st.one_of(
                st.text(alphabet=st.characters(exclude_categories=["Cs"])),
                st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]))),
                st.integers(),
            ),
        )
    )
)
def test_a_form_is_encoded_as_the_standard_library_does(pairs: list[tuple[str, Any]]) -> None:
    assert encode(pairs) == urlencode(pairs, doseq=True).encode()


async def test_what_is_cancelled_stays_cancelled(vendor: LoopbackVendor) -> None:
    vendor.always = Fault.STALL
    client = Http()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await post(client, vendor)
    finally:
        await client.aclose()


async def test_a_client_whose_mark_is_out_of_order_proves_nothing(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "_marking", lambda: aiohttp.ClientRequest)
    client = Http()
    try:
        with pytest.raises(Ambiguous):
            await post(client, vendor)
    finally:
        await client.aclose()


async def test_no_proxy_no_cookie_and_no_netrc_is_used(
    vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    vendor.plan.append(Reply(headers={"Set-Cookie": "a=b; Path=/"}))
    client = Http()
    with LoopbackVendor() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("NETRC", str(netrc))
        await post(client, vendor)
        await post(client, vendor, headers={})
        assert proxy.connections == 0
    await client.aclose()
    assert "cookie" not in vendor.requests[1].headers
    assert "authorization" not in vendor.requests[1].headers


async def test_connections_are_kept(vendor: LoopbackVendor) -> None:
    client = Http()
    await post(client, vendor)
    await post(client, vendor)
    await client.aclose()
    assert vendor.connections == 1


async def test_connections_that_the_vendor_closed_unnoticed_are_not_written_to(
    vendor: LoopbackVendor,
) -> None:
    client = Http()
    await asyncio.gather(*(post(client, vendor) for _ in range(20)))
    vendor.drop_all()  # and this event loop has no chance to see it before the next request
    answers = [await post(client, vendor) for _ in range(3)]
    await client.aclose()
    assert [answer.status for answer in answers] == [201] * 3
    assert (vendor.connections, vendor.count) == (21, 23)


async def test_nobody_waits_for_a_connection(vendor: LoopbackVendor) -> None:
    vendor.always = Fault.STALL
    client = Http()
    waiting = [asyncio.create_task(post(client, vendor, timeout=30.0)) for _ in range(300)]
    async with asyncio.timeout(10):
        while vendor.count < len(waiting):
            await asyncio.sleep(0.005)
    await client.aclose()
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(failed) for failed in failures} == {Ambiguous}


async def test_a_closed_client_reaches_nobody(vendor: LoopbackVendor) -> None:
    client = Http()
    await client.aclose()
    with pytest.raises(Unreachable, match="closed"):
        await post(client, vendor)
    await client.aclose()
    assert vendor.connections == 0


@pytest.mark.parametrize("size", [0, 1, 9999, 10000])
async def test_an_answer_is_read_up_to_its_limit(vendor: LoopbackVendor, size: int) -> None:
    vendor.always = Reply(body=b"x" * size)
    client = Http()
    answer = await post(client, vendor, limit=10000)
    await client.aclose()
    assert answer.body == b"x" * size
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_over_its_limit_is_ambiguous(vendor: LoopbackVendor, chunked: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    endless = head + b"2710\r\n" + b"x" * 10000 + b"\r\n" + b"1\r\nx\r\n0\r\n\r\n"
    vendor.always = endless if chunked else Reply(body=b"x" * 10001)
    client = Http()
    with pytest.raises(Ambiguous, match="answer_too_large"):
        await post(client, vendor, limit=10000)
    await client.aclose()


@pytest.mark.parametrize("status", [s.value for s in http.HTTPStatus if s.value >= 200])
async def test_no_status_is_an_error_of_this_client(vendor: LoopbackVendor, status: int) -> None:
    vendor.always = Reply(status=status, headers={"Location": "/elsewhere"}, close=True)
    client = Http()
    answer = await post(client, vendor)
    await client.aclose()
    assert answer.status == status
    assert vendor.count == 1
