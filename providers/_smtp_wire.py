"""Connections to one SMTP server, kept and used again, and the steps of handing a message in.

The message is written without the dot that ends it, then the dot alone: until it is written the
server cannot have taken anything, and from then on nobody can tell without its answer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from gateway.errors import AccountRefused, ProviderError, Unreachable, Unsupported
from providers._smtp_answers import Stale, judged, translated

if TYPE_CHECKING:
    from aiosmtplib import SMTP, SMTPResponse

CONNECT_TIMEOUT = 5.0
IDLE = 20.0  # seconds; servers close idle connections after five minutes (RFC 5321), many sooner
MANY = 100  # messages on one connection: what most servers allow


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """Where mail is handed in. `encryption` is starttls, tls or none."""

    host: str
    port: int
    encryption: str
    user: str = ""
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None  # None: what this system trusts


@dataclass(frozen=True, kw_only=True, slots=True)
class Letter:
    """One message in its envelope: each recipient with the place that it has in the email, such as
    `to` or `cc[0]`. `utf8`: it can only go where RFC 6531 is known."""

    sender: str
    recipients: Mapping[str, str]
    data: bytes = field(repr=False)
    utf8: bool = False


class Stage:
    """How far a message came. `ended`: its last dot is written, or about to be."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = False


class Wire:
    """The connections to one server, of one event loop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: list[Line] = []
        self._lines: set[Line] = set()
        self._tls = server.tls
        self._closed = False

    async def send(self, letter: Letter, stage: Stage) -> str:
        """Hands one message in, in the time of the caller; the server's last answer.

        Raises:
            ProviderError: as the step and the answer say.
        """
        while True:
            line = self._kept()
            kept = line is not None
            line = line or await self._open()
            try:
                async with self._held(line):
                    return await line.hand_in(letter, stage)
            except Stale:
                if not kept:
                    raise Unreachable("the connection was lost", code="connection") from None

    def _kept(self) -> Line | None:
        """A connection that was used before, and is not known to be closed."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            line = self._idle.pop()
            if line.smtp.is_connected and now - line.used < IDLE and line.sent < MANY:
                return line
            self._drop(line)
        return None

    @asynccontextmanager
    async def _held(self, line: Line) -> AsyncIterator[None]:
        """A connection that ends well is kept; one that does not is closed."""
        try:
            yield
        except ProviderError as error:
            if isinstance(error, Stale) or not await line.reset():
                self._drop(line)
            else:
                self._keep(line)
            raise
        except BaseException:
            self._drop(line)
            raise
        else:
            self._keep(line)

    def _keep(self, line: Line) -> None:
        line.used = asyncio.get_running_loop().time()
        if self._closed or not line.smtp.is_connected:
            self._drop(line)
        else:
            self._idle.append(line)

    def _drop(self, line: Line) -> None:
        self._lines.discard(line)
        line.smtp.close()

    async def _open(self) -> Line:
        if self._closed:
            raise Unreachable("the provider is closed", code="closed")
        line = Line(await self._connected())
        self._lines.add(line)
        if self._server.user:
            try:
                await line.log_in(self._server.user, self._server.password)
            except BaseException:
                self._drop(line)
                raise
        return line

    async def check(self) -> None:
        """Connects, and logs in where there is a user. Raises what a send would."""
        line = await self._open()
        self._keep(line)

    async def _connected(self) -> SMTP:
        import aiosmtplib

        server = self._server
        smtp = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            timeout=CONNECT_TIMEOUT,
            use_tls=server.encryption == "tls",
            start_tls=False,
            tls_context=self._context() if server.encryption != "none" else None,
        )
        step = "greeting"
        try:
            await smtp.connect()
            step = "hello"
            await smtp.ehlo()
            if server.encryption == "starttls":
                step = "starttls"
                await smtp.starttls(tls_context=self._context())
                await smtp.ehlo()
        except BaseException as error:
            smtp.close()
            if not isinstance(error, Exception):
                raise
            failure = translated(error, step)
        else:
            return smtp
        raise failure

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    async def aclose(self) -> None:
        """Closes every connection. What is in flight ends as a lost one does. May be called
        twice."""
        self._closed = True
        for line in tuple(self._lines):
            self._drop(line)
        self._idle.clear()


class Line:
    """One connection, logged in."""

    def __init__(self, smtp: SMTP) -> None:
        self.smtp = smtp
        self.used = 0.0
        self.sent = 0

    async def log_in(self, user: str, password: str) -> None:
        """Proves who we are.

        Raises:
            AccountRefused: the server does not believe it.
        """
        offered = {name.lower() for name in self.smtp.supported_auth_methods}
        ways = {
            "plain": self.smtp.auth_plain,
            "login": self.smtp.auth_login,
            "cram-md5": self.smtp.auth_crammd5,
        }
        # One way, once: the library tries each it knows, and some servers lock out after three.
        way = next((ways[name] for name in ways if name in offered), None)
        if way is None:
            raise AccountRefused("the server offers no login that we know", code="no_login")
        try:
            await way(user, password)
        except Exception as error:
            failure = translated(error, "auth")
        else:
            return
        raise failure

    async def hand_in(self, letter: Letter, stage: Stage) -> str:
        """One message."""
        self._fits(letter)
        options = [f"SIZE={len(letter.data)}"] if self.smtp.supports_extension("size") else []
        if letter.utf8:
            options += ["SMTPUTF8", "BODY=8BITMIME"]
        command = b" ".join(
            [b"MAIL", f"FROM:<{letter.sender}>".encode(), *(o.encode() for o in options)]
        )
        await self._said("sender", command, stale=True)
        for recipient, place in letter.recipients.items():
            await self._said("recipient", f"RCPT TO:<{recipient}>".encode(), place=place)
        await self._said("data", b"DATA", wanted=354)
        await self._write(letter.data)
        self.sent += 1
        stage.ended = True
        return str((await self._said("message", b".")).message)

    def _fits(self, letter: Letter) -> None:
        """Refuses what the server said that it does not take."""
        if letter.utf8 and not self.smtp.supports_extension("smtputf8"):
            raise Unsupported("the server takes no internationalised addresses", code="smtputf8")
        bound = self.smtp.esmtp_extensions.get("size", "")
        if bound.isdigit() and 0 < int(bound) < len(letter.data):
            raise Unsupported(f"the server takes at most {bound} bytes", code="too_large")

    async def _write(self, data: bytes) -> None:
        """The message without its last dot, all of it on its way before the dot is."""
        protocol, transport = self.smtp.protocol, self.smtp.transport
        lost = Unreachable("the connection was lost before the message ended", code="connection")
        if protocol is None or transport is None:
            raise lost
        line = cast(asyncio.WriteTransport, transport)  # uvloop's are none of asyncio's classes
        try:
            protocol.write(stuffed(data))
            while self.smtp.is_connected and line.get_write_buffer_size() > 0:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            await asyncio.sleep(0)  # an end that came meanwhile is heard
        except Exception:
            raise lost from None
        if not self.smtp.is_connected:
            raise lost

    async def _said(
        self, step: str, command: bytes, *, wanted: int = 250, stale: bool = False, place: str = ""
    ) -> SMTPResponse:
        """A command's answer; `place` is that of the recipient whom it names.

        Raises:
            ProviderError: it is not the wanted one.
        """
        try:
            answer = await self.smtp.execute_command(command, timeout=None)
        except Exception as error:
            failure = translated(error, step, stale=stale)
        else:
            good = answer.code == wanted or (step == "recipient" and answer.code in (251, 252))
            if good:
                return answer
            failure = judged(step, answer.code, str(answer.message), place)
        raise failure

    async def reset(self) -> bool:
        """Whether the connection can take another message."""
        if not self.smtp.is_connected:
            return False
        try:
            async with asyncio.timeout(2.0):
                answer = await self.smtp.execute_command(b"RSET", timeout=None)
        except Exception:
            return False
        return bool(answer.code == 250)


def stuffed(data: bytes) -> bytes:
    """Lines that begin with a dot begin with two (RFC 5321, 4.5.2); it ends with a line's end."""
    ended = data if data.endswith(b"\r\n") else data + b"\r\n"
    doubled = ended.replace(b"\r\n.", b"\r\n..")
    return b"." + doubled if doubled.startswith(b".") else doubled
