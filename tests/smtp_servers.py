"""An SMTP server on loopback, by aiosmtpd: says what it is told to, and counts what it took."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import ip_address
from threading import Event, Thread
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HERE = ip_address("127.0.0.1")
USER, PASSWORD = "gateway", "recognisable-5d1e"


class End(Enum):
    """How a message may end that is answered by nobody."""

    BEFORE_DOT = "the connection is lost before the final dot"
    AFTER_DOT = "the connection is lost after the final dot"
    STALL = "no answer after the final dot"


Answer = str | End


@dataclass
class Mailbox:
    """What a server took, and what it says next: by step, each answer once, then yes."""

    plan: dict[str, list[Answer]] = field(default_factory=dict)
    taken: list[Envelope] = field(default_factory=list)
    seen: list[Envelope] = field(default_factory=list)  # whole, with or without a yes
    connections: int = 0
    logins: int = 0
    shut: Event = field(default_factory=Event)  # while it is set, nothing is answered
    port: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def count(self) -> int:
        """How many messages it has taken."""
        return len(self.taken)

    def next(self, step: str) -> Answer | None:
        answers = self.plan.get(step)
        return answers.pop(0) if answers else None

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self.next("sender")
        if isinstance(answer, str):
            return answer
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self.next("recipient")
        if isinstance(answer, str):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.seen.append(envelope)
        while self.shut.is_set():
            await asyncio.sleep(0.005)
        answer = self.next("message")
        if answer is End.AFTER_DOT:
            assert server.transport is not None
            server.transport.abort()
            await asyncio.sleep(3600)
        if answer is End.STALL:
            await asyncio.sleep(3600)
        if isinstance(answer, str):
            return answer
        self.taken.append(envelope)
        return f"250 2.0.0 Ok: queued as {len(self.taken):08X}"


class Server(SMTP):
    """Counts connections, and can hang up in the middle of a message."""

    def connection_made(self, transport: Any) -> None:
        self.event_handler.connections += 1
        super().connection_made(transport)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        box: Mailbox = self.event_handler
        first = (box.plan.get("data") or [None])[0]
        if isinstance(first, str):
            box.next("data")
            await self.push(first)
            return
        if first is End.BEFORE_DOT:
            box.next("data")
            await self.push("354 End data with <CR><LF>.<CR><LF>")
            assert self.transport is not None
            self.transport.abort()
            return
        await super().smtp_DATA(arg)


def key_and_certificate() -> tuple[bytes, bytes]:
    """A key and a certificate of its own making for 127.0.0.1, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, made.public_bytes(Encoding.PEM)


@contextmanager
def smtp_server(
    *, tls: ssl.SSLContext | None = None, at_once: bool = False, login: bool = False, **more: Any
) -> Iterator[Mailbox]:
    """A running server; `tls` offers STARTTLS, or speaks TLS at once."""
    box = Mailbox()

    def authenticator(
        server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> AuthResult:
        box.logins += 1
        good = isinstance(data, LoginPassword) and data == LoginPassword(
            USER.encode(), PASSWORD.encode()
        )
        return AuthResult(success=good, handled=False)

    def protocol() -> SMTP:
        return Server(
            box,
            hostname="mail.example.com",
            tls_context=tls if not at_once else None,
            authenticator=authenticator if login else None,
            auth_require_tls=False,
            enable_SMTPUTF8=more.get("utf8", False),
            data_size_limit=more.get("largest", 10 << 20),
            loop=loop,
        )

    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    opening = loop.create_server(protocol, "127.0.0.1", 0, ssl=tls if at_once else None)
    server = asyncio.run_coroutine_threadsafe(opening, loop).result(10)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        asyncio.run_coroutine_threadsafe(_ended(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _ended(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
