"""Email through an SMTP server of the operator's: with STARTTLS or TLS, and a login.

One DATA for each message; what is known to be impossible is refused before that. Never sends over
a plain connection unless it was told to.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from gateway.domain import (
    Capabilities,
    Channel,
    Connection,
    Finding,
    Level,
    MessageType,
    OutboundEmail,
    OutboundMessage,
    Receipt,
    Sender,
    VendorTemplate,
)
from gateway.errors import Ambiguous, ProviderError, SettingsError, Unreachable, Unsupported
from providers._email import AT, attachments, composed, files, storable
from providers._email_addresses import needs_utf8, one_line, our_address
from providers._smtp_answers import TO
from providers._smtp_wire import Letter, Server, Stage, Wire

TENANT = "default"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
ENCRYPTIONS = ("starttls", "tls", "none")
CONNECTIONS = 8  # at once: more than many servers allow would only be refused
LARGEST = 20 * 1024 * 1024  # bytes of files, before they grow by a third in base64
EXTRA = "SMTP needs its extra: install messaging-gateway[email]."
QUEUE_ID = re.compile(r"(?:queued as|Ok:? queued|id=)\W*([A-Za-z0-9._-]{4,80})", re.IGNORECASE)


class SmtpSettings(BaseModel):
    """What the environment says of the SMTP server."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True)
    required: ClassVar[tuple[str, ...]] = ("SMTP_HOST", "SMTP_FROM_EMAIL")

    host: str = Field("", alias="SMTP_HOST")
    port: int = Field(587, alias="SMTP_PORT", ge=1, le=65535)
    user: str = Field("", alias="SMTP_USER")
    password: SecretStr = Field(SecretStr(""), alias="SMTP_PASSWORD")
    encryption: str = Field("", alias="SMTP_TLS")
    authorities: str = Field("", alias="SMTP_CA_FILE")
    from_email: str = Field("", alias="SMTP_FROM_EMAIL")
    from_name: str = Field("", alias="SMTP_FROM_NAME")
    daily_quota: int = Field(0, alias="SMTP_DAILY_QUOTA", ge=0, le=10**9)

    @field_validator("host")
    @classmethod
    def _a_host(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}", value.strip()):
            raise ValueError("must be the name of a host, without a scheme and a port")
        return value.strip()

    @field_validator("encryption")
    @classmethod
    def _a_word(cls, value: str) -> str:
        if value and value.lower() not in ENCRYPTIONS:
            raise ValueError(f"must be one of {', '.join(ENCRYPTIONS)}, or unset")
        return value.lower()

    _an_address = field_validator("from_email")(our_address("SMTP_FROM_NAME"))
    _a_line = field_validator("from_name")(one_line)

    @model_validator(mode="after")
    def _whole(self) -> SmtpSettings:
        if bool(self.user) != bool(self.password.get_secret_value()):
            set_one, other = ("SMTP_USER", "SMTP_PASSWORD") if self.user else (
                "SMTP_PASSWORD", "SMTP_USER"
            )  # fmt: skip
            raise ValueError(f"{other} is not set, but {set_one} is: set both, or neither")
        if self.user and self.how == "none" and self.host not in ("", *LOOPBACK):
            raise ValueError("SMTP_TLS is none, and a password would go over an open line")
        return self

    @property
    def how(self) -> str:
        """How the connection is encrypted: port 465 speaks TLS at once, others are asked to. A
        server on this machine is spoken to plainly."""
        if self.encryption:
            return self.encryption
        if self.port == 465:
            return "tls"
        return "none" if self.host in LOOPBACK else "starttls"


class Smtp:
    """Sends email through one server."""

    name = "smtp"
    Settings = SmtpSettings
    capabilities = Capabilities(
        channels=frozenset({Channel.EMAIL}),
        media=frozenset({Channel.EMAIL}),
        max_media=20,
        html=True,
        types=frozenset({MessageType.EMAIL}),
        replies=True,
        seats=CONNECTIONS,
    )

    @classmethod
    def connection(cls, settings: SmtpSettings) -> Connection:
        """The connection that the environment makes."""
        senders = {Channel.EMAIL: Sender(address=settings.from_email)}
        return Connection(
            id="smtp", tenant_id=TENANT, family="smtp", account=settings.user, senders=senders
        )

    def __init__(
        self, settings: SmtpSettings, *, http: object = None, timeout: float = 10.0
    ) -> None:
        """Loads the library.

        Raises:
            SettingsError: it is not installed, or the file of SMTP_CA_FILE cannot be used.
        """
        for variable, value in zip(
            settings.required, (settings.host, settings.from_email), strict=True
        ):
            if not value:
                raise SettingsError(f"{variable} is not set; SMTP cannot be used without it.")
        try:
            import aiosmtplib  # noqa: F401
        except ImportError:
            raise SettingsError(EXTRA) from None
        self._settings = settings
        self.capabilities = replace(self.capabilities, daily=settings.daily_quota or None)
        self._timeout = timeout
        self._wire = Wire(
            Server(
                host=settings.host,
                port=settings.port,
                encryption=settings.how,
                user=settings.user,
                password=settings.password.get_secret_value(),
                tls=_trusting(settings.authorities) if settings.authorities else None,
            )
        )

    async def send(self, message: OutboundMessage) -> Receipt:
        """Hands one email to the server."""
        self._check(message)
        clock = asyncio.get_running_loop().time
        ends = clock() + self._timeout
        letter = self._letter(message, await self._written(message))
        return await self._handed(letter, message, max(ends - clock(), 0.1))

    async def _written(self, message: OutboundMessage) -> bytes:
        """The email; its files are not kept beside it while it is handed in."""
        attached = await attachments(message, limit=LARGEST, within=self._timeout / 2)
        name = self._settings.from_name
        return await composed(message, attached, from_name=name, utf8=needs_utf8(message))

    async def _handed(self, letter: Letter, message: OutboundMessage, within: float) -> Receipt:
        begun = Stage()
        try:
            async with asyncio.timeout(within):
                answer = await self._wire.send(letter, begun)
        except TimeoutError:
            if begun.ended:
                raise Ambiguous("no answer in time", code="timeout") from None
            raise Unreachable("the message was not taken in time", code="timeout") from None
        ours = message.email.message_id if message.email is not None else None
        queued = QUEUE_ID.search(answer)
        id_ = (ours or "").strip("<>") or (queued[1] if queued else message.attempt_id)
        return Receipt(provider_message_id=id_, sender=message.sender.address)

    def _letter(self, message: OutboundMessage, data: bytes) -> Letter:
        parts = message.email or OutboundEmail()
        return Letter(
            sender=message.sender.address or self._settings.from_email,
            recipients=_people(message, parts),
            data=data,
            utf8=needs_utf8(message),
        )

    def _check(self, message: OutboundMessage) -> None:
        """Refuses what is no email, before anything is written."""
        refusals = (
            (message.channel is not Channel.EMAIL, "channel", f"no {message.channel}"),
            (message.template is not None, "template", "no templates"),
            (message.type is not MessageType.EMAIL, "type", f"no {message.type} messages"),
            (not message.sender.address, "sender", "no address to send from"),
            (not (message.body.strip() or message.html or files(message)), "empty", "no text"),
            (not storable(message), "text", "a character that no wire carries"),
            (len(files(message)) > self.capabilities.max_media, "media", "too many files"),
        )
        for refused, code, text in refusals:
            if refused:
                raise Unsupported(f"SMTP: {text}", code=code, field=AT.get(code, ""))

    def foresee(self, message: OutboundMessage, listed: Sequence[VendorTemplate]) -> None:
        """Refuses what the server could never take."""
        self._check(message)

    async def check(self, webhook_url: str) -> Sequence[Finding]:
        """Connects and logs in, for `gateway doctor`; sends nothing."""
        subject = f"SMTP {self._settings.host}:{self._settings.port}"
        try:
            async with asyncio.timeout(self._timeout):
                await self._wire.check()
        except TimeoutError:
            found: ProviderError = Unreachable("no answer in time", code="timeout")
        except ProviderError as error:
            found = error
        else:
            return [Finding(subject=subject, level=Level.OK, text="connects and logs in")]
        fix = "check SMTP_HOST, SMTP_PORT and SMTP_TLS"
        if found.reason == "account_refused":
            fix = "check SMTP_USER and SMTP_PASSWORD; many servers want a password for applications"
        return [Finding(subject=subject, level=Level.PROBLEM, text=str(found), fix=fix)]

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._wire.aclose()


def _people(message: OutboundMessage, parts: OutboundEmail) -> dict[str, str]:
    """Each recipient once, with the first place that it has in the email."""
    people = {message.to: TO}
    for kind, copies in (("cc", parts.cc), ("bcc", parts.bcc)):
        for number, address in enumerate(copies):
            people.setdefault(address, f"{kind}[{number}]")
    return people


def _trusting(file: str) -> ssl.SSLContext:
    """TLS that trusts a file of certificates beside those of the system.

    Raises:
        SettingsError: the file cannot be used.
    """
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:  # also an OSError
        why = "holds no certificate that can be read"
    except (OSError, ValueError) as error:
        why = f"cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})"
    else:
        return context
    raise SettingsError(
        f"SMTP_CA_FILE: the file {why}: name a file of certificates in PEM, or leave it unset."
    )
