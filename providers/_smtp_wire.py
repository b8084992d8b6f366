"""Connections to one SMTP server, kept and used again; and what each step of sending means.

The message is written without the dot that ends it, then the dot alone: until it is written the
server cannot have taken anything, and from then on nobody can tell without its answer.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from gateway.errors import (
    AccountRefused,
    Ambiguous,
    Breaker,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unreachable,
    Unsupported,
    used_up,
)

if TYPE_CHECKING:
    from aiosmtplib import SMTP, SMTPResponse

CONNECT_TIMEOUT = 5.0
IDLE = 20.0  # seconds; servers close idle connections after five minutes (RFC 5321), many sooner
MANY = 100  # messages on one connection: what most servers allow
HOUR = 3600.0  # seconds until a server that counts by the day is asked again for a message

# RFC 5321 section 4.2, RFC 3463 and RFC 4954. By the step, then by the code; "4" and "5" are what
# is left of those. Until the dot nothing was taken; after it, these codes say that nothing was.
Verdicts = Mapping[str, type[ProviderError]]
TABLE: Mapping[str, Verdicts] = {
    "greeting": {"421": Throttled, "4": Unreachable, "5": AccountRefused},
    "hello": {"4": Unreachable, "5": Unreachable},
    "starttls": {"4": Unreachable, "5": Unreachable},
    "auth": {"421": Throttled, "454": Throttled, "4": Throttled, "5": AccountRefused},
    "sender": {
        "4": Throttled,
        "503": Unreachable,
        "530": AccountRefused,
        "535": AccountRefused,
        "552": Rejected,
        "555": Unsupported,
        "5": SenderRefused,
    },
    "recipient": {"4": Throttled, "503": AccountRefused, "530": AccountRefused, "5": Rejected},
    "data": {"4": Throttled, "530": AccountRefused, "5": Rejected},
    "message": {"4": Throttled, "5": Rejected},
}
# "Gmail SMTP errors and codes" (Google Workspace): 5.4.5, whatever comes with it, is our daily
# limit, and 4.7.28 the rate of our address. Exchange Online has 5.1.90 for it ("NDRs").
DAILY = ("5.4.5", "5.1.90")
RATE = ("4.7.28",)
# Others have no code for it: Amazon SES says "454 Throttling failure: Daily message quota exceeded"
# ("Errors related to the sending quotas").
IN_WORDS = re.compile(r"\bdaily\b.{0,40}\b(?:quota|limit)\b", re.IGNORECASE)


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
    """One message in its envelope. `utf8`: it can only go where RFC 6531 is known."""

    sender: str
    recipients: tuple[str, ...]
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


class Stale(Unreachable):
    """A connection that was lost before anything of a message was on it."""


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
        for recipient in letter.recipients:
            await self._said("recipient", f"RCPT TO:<{recipient}>".encode())
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
        self, step: str, command: bytes, *, wanted: int = 250, stale: bool = False
    ) -> SMTPResponse:
        """A command's answer.

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
            failure = judged(step, answer.code, str(answer.message))
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


def judged(step: str, code: int, text: str) -> ProviderError:
    """What an answer says that was not the wanted one."""
    known = TABLE[step]
    digits = str(code)
    kind = known.get(digits) or known.get(digits[:1])
    if kind is None:  # not an answer that RFC 5321 knows
        kind = Ambiguous if step == "message" else Unreachable
    status = text.partition(" ")[0]
    told = f"{digits} {status}" if status[:2] in ("4.", "5.") else digits
    if status in DAILY or (step != "recipient" and code >= 400 and IN_WORDS.search(text)):
        return used_up("the server's daily quota is used up", code=told, retry_after=HOUR)
    if status in RATE:
        return Throttled(text, code=told, retry_after=HOUR)
    error = kind(text, code=told)
    if step == "recipient" and isinstance(error, Throttled):
        error.breaker = Breaker.IGNORES  # greylisting, or a full mailbox: of that person alone
    return error


def translated(error: BaseException, step: str, *, stale: bool = False) -> ProviderError:
    """Our error for the library's; only the class and the server's code are kept."""
    import aiosmtplib

    name = type(error).__name__
    if isinstance(error, aiosmtplib.SMTPResponseException) and error.code > 0:
        return judged(step, error.code, str(error.message))
    if step == "message":
        code = "timeout" if isinstance(error, TimeoutError) else "no_answer"
        return Ambiguous(f"the message was written and no answer came ({name})", code=code)
    cause: Any = error.__cause__ or error
    if isinstance(cause, ssl.SSLError):
        return Unreachable(f"TLS failed ({type(cause).__name__})", code="tls")
    if isinstance(cause, OSError) and type(cause).__name__ == "gaierror":
        return Unreachable("the name of the server is not known", code="dns")
    if isinstance(error, aiosmtplib.SMTPNotSupported) or (
        isinstance(error, aiosmtplib.SMTPException)
        and step == "starttls"
        and "not supported" in str(error)
    ):
        return Unreachable(f"the server does not offer {step}", code=step)
    if isinstance(error, TimeoutError):
        return Unreachable(f"no answer in time ({step})", code="connect_timeout")
    if stale and isinstance(error, aiosmtplib.SMTPServerDisconnected):
        return Stale("the connection was closed", code="connection")
    return Unreachable(f"the server could not be reached ({name})", code="connect")


def distinct(addresses: Sequence[str]) -> tuple[str, ...]:
    """Each recipient once."""
    return tuple(dict.fromkeys(addresses))
