"""An answer goes out in one piece; a head whose body takes its time does not wait for it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.commands.server import COPIED, Serving, bound, configured

pytestmark = pytest.mark.anyio

LARGE = b"x" * (COPIED + 1)
ASK = b"GET / HTTP/1.1\r\nHost: a.test\r\n%s\r\n"


def answering(*pieces: bytes, status: int = 200, pause: float = 0.0) -> ASGIApp:
    """An application that gives these pieces, each after a pause."""
    size = str(sum(map(len, pieces))).encode()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for word in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{word}.complete"})
            return
        headers = [(b"content-length", size)] if status != 204 else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, piece in enumerate(pieces, 1):
            await asyncio.sleep(pause)
            more = number < len(pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    return app


async def received(
    app: ASGIApp, asked: bytes, done: Callable[[bytes], bool], *, says_no_more: bool = False
) -> list[bytes]:
    """What a client gets, in the pieces in which it came."""
    listener = bound("127.0.0.1", 0)
    ready = asyncio.Event()
    server = Serving(configured(app, 5), ready=ready.set, leaving=lambda: None)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await ready.wait()
    loop, pieces = asyncio.get_running_loop(), list[bytes]()
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, listener.getsockname())
        await loop.sock_sendall(client, asked)
        if says_no_more:
            client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(30):
            while not done(b"".join(pieces)) and (piece := await loop.sock_recv(client, 1 << 20)):
                pieces.append(piece)
    server.should_exit = True
    await serving
    return pieces


def ends(body: bytes) -> Callable[[bytes], bool]:
    """Whether all of an answer is there."""
    return lambda got: got.endswith(b"\r\n\r\n" + body)


async def test_head_and_body_come_in_one_piece() -> None:
    pieces = await received(answering(b"hello"), ASK % b"", ends(b"hello"))
    assert len(pieces) == 1
    assert pieces[0].startswith(b"HTTP/1.1 200 OK\r\n")


async def test_answers_to_requests_that_came_together_keep_their_order() -> None:
    got = b"".join(
        await received(answering(b"hello"), ASK % b"" * 5, lambda got: got.count(b"hello") == 5)
    )
    assert [part[:12] for part in got.split(b"hello")] == [b"HTTP/1.1 200"] * 5 + [b""]


async def test_a_head_whose_body_takes_longer_goes_alone() -> None:
    pieces = await received(answering(b"a", b"b", pause=0.3), ASK % b"", ends(b"ab"))
    assert pieces[0].endswith(b"\r\n\r\n")
    assert pieces[1:] == [b"a", b"b"]


@pytest.mark.parametrize("body", [LARGE, LARGE * 20, b"x" * COPIED])
async def test_large_bodies_come_whole(body: bytes) -> None:
    got = b"".join(await received(answering(body), ASK % b"", ends(body)))
    assert got.partition(b"\r\n\r\n")[2] == body


async def test_an_answer_without_a_body_ends_with_its_head() -> None:
    pieces = await received(answering(b"", status=204), ASK % b"", ends(b""))
    assert len(pieces) == 1
    assert pieces[0].startswith(b"HTTP/1.1 204 No Content\r\n")


async def test_the_head_of_a_request_for_heads_comes() -> None:
    asked = (ASK % b"").replace(b"GET", b"HEAD")
    pieces = await received(answering(b"hello"), asked, ends(b""))
    assert b"content-length: 5" in b"".join(pieces)


async def test_a_client_that_says_no_more_gets_the_head_it_asked_for() -> None:
    asked = (ASK % b"").replace(b"GET", b"HEAD")
    pieces = await received(answering(b"hello"), asked, lambda got: False, says_no_more=True)
    assert b"".join(pieces).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_connection_that_ends_with_its_answer_gives_all_of_it() -> None:
    asked = ASK % b"Connection: close\r\n"
    got = b"".join(await received(answering(LARGE), asked, lambda got: False))
    assert got.endswith(LARGE)


async def test_an_application_that_fails_in_the_middle_has_sent_its_head() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answering()(scope, receive, send)
            return
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        raise RuntimeError("in the middle")

    got = b"".join(await received(app, ASK % b"", lambda got: False))
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\n")


async def test_a_body_that_is_waited_for_is_asked_for_at_once() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answering()(scope, receive, send)
            return
        await receive()
        await answering(b"thanks")(scope, receive, send)

    asked = (ASK % b"Content-Length: 3\r\nExpect: 100-continue\r\n").replace(b"GET", b"POST")
    pieces = await received(app, asked, lambda got: b"100 Continue\r\n\r\n" in got)
    assert pieces == [b"HTTP/1.1 100 Continue\r\n\r\n"]
