"""The one client for what SNS names by URL: a certificate, a confirmation. One GET each.

Follows no redirect, uses no proxy, checks the TLS certificate, and reads a bounded answer in
bounded time, in a thread of its own. Checks no URL: that was done before.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Fetch: TypeAlias = Callable[[str], bytes]

EACH = 5.0  # seconds for a connection, and between two bytes
TOTAL = 10.0
LIMIT = 64 * 1024
PIECE = 16 * 1024


class Unanswered(Exception):
    """There is no answer of use; `status` where there was one at all."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


def fetch(url: str, *, each: float = EACH, total: float = TOTAL) -> bytes:
    """The body of a 200, of at most `LIMIT` bytes.

    Raises:
        Unanswered: whatever else came, or nothing. The text holds no URL.
    """
    import requests
    from urllib3.exceptions import HTTPError

    ends = time.monotonic() + total
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy, no netrc
            with session.get(
                url,
                headers={"Accept-Encoding": "identity"},
                timeout=(each, each),
                allow_redirects=False,
                stream=True,
            ) as response:
                return _body(response, ends)
    except (requests.RequestException, HTTPError, OSError, ValueError) as error:
        failure = Unanswered(type(error).__name__)
    raise failure  # not from the library's: its text holds the URL, and a URL may hold a token


def _body(response: Any, ends: float) -> bytes:
    if response.status_code != 200:
        raise Unanswered(f"HTTP {response.status_code}", response.status_code)
    found = bytearray()
    while piece := response.raw.read1(PIECE, decode_content=False):
        found += piece
        if len(found) > LIMIT:
            raise Unanswered(f"more than {LIMIT} bytes")
        if time.monotonic() > ends:
            raise Unanswered("too slow")
    return bytes(found)


async def in_thread(work: Callable[[], T], within: float = TOTAL) -> T:
    """Runs something that blocks, in a thread that nobody waits for at the end of the process.

    Raises:
        TimeoutError: it takes too long. It goes on by itself, and its result is dropped.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failed = None, None
        try:
            result = work()
        except Exception as error:
            failed = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, name="gateway-sns", daemon=True).start()
    async with asyncio.timeout(within):
        return await future
