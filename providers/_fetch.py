"""The one client for addresses that somebody else chose, such as where a vendor keeps its files.

HTTPS only, to a public address only: the address that is really connected to is checked, whether
a name led there or a number. Sends no credentials and no cookies, uses no proxy, follows a
redirect only by the same rules, and never reads more than it was allowed to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from gateway.domain import FetchedMedia
from gateway.errors import AccountRefused, ProviderError, Rejected, Throttled, Unreachable
from providers._http import CONNECT_TIMEOUT

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

SCHEMES = ("https",)
HOPS = 3
REDIRECTS = (301, 302, 303, 307, 308)
FILENAME_LIMIT = 200
TOO_LARGE = "too_large"
NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

# Global unicast is all there is to reach in IPv6, without what embeds an IPv4 address in it (6to4,
# Teredo) or is for documentation. NAT64, mapped and compatible forms lie outside anyway.
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
EXCEPTIONS = tuple(map(ipaddress.IPv6Network, ("2002::/16", "2001::/32", "3fff::/20")))
RELAY_6TO4 = ipaddress.IPv4Network("192.88.99.0/24")


def is_public(address: str) -> bool:
    """Whether an address is one that anybody on the internet could reach, and no disguise."""
    try:
        number = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if not number.is_global or number.is_multicast or number.is_reserved:
        return False
    if isinstance(number, ipaddress.IPv4Address):
        return number not in RELAY_6TO4
    return number in GLOBAL_UNICAST and not any(number in network for network in EXCEPTIONS)


def refusal(status: int, *, ours: bool) -> ProviderError:
    """What a status other than 200 means for a file. `ours`: the request had our credentials.

    Reading twice harms nobody, so what would be `Ambiguous` for a send may simply be repeated.
    """
    code = f"http_{status}"
    if status in (401, 403) and ours:
        return AccountRefused("the vendor refused our credentials for a file", code=code)
    if status == 429:
        return Throttled("too many files at once", code=code)
    if status in (408, 425) or status >= 500:
        return Unreachable("the file cannot be had at the moment", code=code)
    return Rejected("the file cannot be had", code=code)


def too_large(limit: int, size: int | None = None) -> Rejected:
    """The refusal of a file that is larger than allowed; `size` where it is known."""
    error = Rejected(f"the file is larger than {limit} bytes", code=TOO_LARGE)
    error.size = size
    return error


async def fetch(url: str, *, limit: int, timeout: float, hops: int = HOPS) -> FetchedMedia:
    """Reads one file, following at most `hops` redirects.

    Raises:
        Rejected: the address is not allowed, the file is gone or larger than `limit`.
        Unreachable: it may be had later.
    """
    try:
        async with asyncio.timeout(timeout), _session() as session:
            return await _follow(session, url, limit, hops)
    except ProviderError as error:
        failure = error
    except Exception as error:
        text = f"the file could not be fetched ({type(error).__name__})"
        failure = Unreachable(text, code="unreachable")
    failure.__context__ = None  # the library's exceptions hold the address
    raise failure


async def _follow(session: ClientSession, url: str, limit: int, hops: int) -> FetchedMedia:
    from yarl import URL

    for _ in range(hops + 1):
        check(url)
        # As it came: re-quoting would break a signed address.
        async with session.get(URL(url, encoded=True), allow_redirects=False) as response:
            if response.status not in REDIRECTS:
                return await _file(response, limit)
            url = urljoin(url, response.headers.get("Location", ""))
    raise Rejected("the file is behind too many redirects", code="redirects")


def check(url: str) -> None:
    """Refuses an address that may not be visited, before its name is even looked up."""
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        allowed = False
    if not allowed or "@" in parts.netloc or disguised(parts.hostname or ""):
        raise Rejected("the address of a file must be https, without credentials", code="url")


def disguised(host: str) -> bool:
    """Whether a host is a number in another form than that of addresses, such as 2130706433 or
    0x7f.1, which some resolvers take for one (the URL standard, "ends in a number checker")."""
    last = host.rstrip(".").rpartition(".")[2]
    if ":" in host or not NUMBER.fullmatch(last):
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


def described(data: bytes, headers: Mapping[str, str]) -> FetchedMedia:
    """A file and what its headers say it is; the name is cut down to a name."""
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return FetchedMedia(data=data, content_type=kind or None, filename=_filename(headers))


def _filename(headers: Mapping[str, str]) -> str | None:
    from aiohttp.multipart import content_disposition_filename, parse_content_disposition

    _, parameters = parse_content_disposition(headers.get("Content-Disposition"))
    given = content_disposition_filename(parameters) or ""
    name = given.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable()).strip(" .")[:FILENAME_LIMIT] or None


async def _file(response: ClientResponse, limit: int) -> FetchedMedia:
    if response.status != 200:
        raise refusal(response.status, ours=False)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Rejected("the file is compressed, which nobody asked for", code="encoded")
    if (response.content_length or 0) > limit:
        raise too_large(limit, response.content_length)
    data = bytearray()
    while piece := await response.content.readany():
        data += piece
        if len(data) > limit:
            response.close()
            raise too_large(limit)
    return described(bytes(data), response.headers)


def _session() -> ClientSession:
    """A session per file: files are rare, and a kept connection would not be checked again."""
    import aiohttp

    connector = aiohttp.TCPConnector(
        socket_factory=_guarded,
        use_dns_cache=False,
        force_close=True,
        happy_eyeballs_delay=None,  # one address after the other, in this task
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
    )


def _guarded(info: Any) -> socket.socket:
    """Makes the socket for one address, or refuses: asked about every address there is."""
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise Rejected("the file is at an address that is not public", code="forbidden_address")
    return socket.socket(family, kind, protocol)
