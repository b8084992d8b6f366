"""Email through SendGrid's v3 API: one POST for each message, over the shared HTTP client.

Its yes is an id in a header. Every event about the message brings our attempt back, as it stands
in `custom_args`; nothing personal does.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from secrets import token_hex
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from gateway.domain import (
    Capabilities,
    Channel,
    Connection,
    Finding,
    MessageType,
    OutboundEmail,
    OutboundMessage,
    Receipt,
    Sender,
    VendorTemplate,
)
from gateway.errors import SettingsError, Unsupported
from providers import _sendgrid_setup
from providers._email import (
    AT,
    ONE_CLICK,
    SMALL,
    Attachment,
    attachments,
    encoded,
    files,
    plain_of,
    spliced,
    storable,
)
from providers._email_addresses import bounced_by, one_line, our_address
from providers._sendgrid_answers import receipt

if TYPE_CHECKING:
    from providers._http import Http, HttpAnswer

TENANT = "default"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LARGEST = 20 * 1024 * 1024  # bytes of files; SendGrid takes 30 MB, and base64 adds a third


class SendgridSettings(BaseModel):
    """What the environment says of SendGrid."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True)
    required: ClassVar[tuple[str, ...]] = ("SENDGRID_API_KEY", "SENDGRID_FROM_EMAIL")

    api_key: SecretStr = Field(SecretStr(""), alias="SENDGRID_API_KEY")
    from_email: str = Field("", alias="SENDGRID_FROM_EMAIL")
    from_name: str = Field("", alias="SENDGRID_FROM_NAME")
    daily_quota: int = Field(0, alias="SENDGRID_DAILY_QUOTA", ge=0, le=10**9)
    api_url: str = Field("https://api.sendgrid.com", alias="SENDGRID_API_URL")

    @field_validator("api_key")
    @classmethod
    def _a_key(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value().strip()
        if text and re.fullmatch(r"[!-~]+", text) is None:
            raise ValueError("must be of ASCII letters, digits and signs, without spaces")
        return SecretStr(text)

    _an_address = field_validator("from_email")(our_address("SENDGRID_FROM_NAME", ascii_only=True))
    _a_line = field_validator("from_name")(one_line)

    @field_validator("api_url")
    @classmethod
    def _an_origin(cls, value: str) -> str:
        value = value.strip().rstrip("/")
        parts = urlsplit(value)
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        if not secure or not parts.hostname or parts.username is not None or parts.query:
            raise ValueError("must be an https URL; http only for a loopback address")
        return value


class Sendgrid:
    """Sends email through one SendGrid account."""

    name = "sendgrid"
    Settings = SendgridSettings
    capabilities = Capabilities(
        channels=frozenset({Channel.EMAIL}),
        media=frozenset({Channel.EMAIL}),
        max_media=20,
        html=True,
        types=frozenset({MessageType.EMAIL}),
        reports_delivery=True,
        replies=True,
    )

    @classmethod
    def connection(cls, settings: SendgridSettings) -> Connection:
        """The connection that the environment makes."""
        senders = {Channel.EMAIL: Sender(address=settings.from_email)}
        return Connection(id="sendgrid", tenant_id=TENANT, family="sendgrid", senders=senders)

    def __init__(self, settings: SendgridSettings, *, http: Http, timeout: float) -> None:
        """Takes what it needs.

        Raises:
            SettingsError: a variable is missing.
        """
        given = (settings.api_key.get_secret_value(), settings.from_email)
        for variable, value in zip(settings.required, given, strict=True):
            if not value:
                raise SettingsError(f"{variable} is not set; SendGrid cannot be used without it.")
        self._settings = settings
        self.capabilities = replace(self.capabilities, daily=settings.daily_quota or None)
        self._http = http
        self._timeout = timeout
        self._headers = {
            "Authorization": f"Bearer {given[0]}",
            "Content-Type": "application/json",
        }

    async def send(self, message: OutboundMessage) -> Receipt:
        """Hands one email to SendGrid, by one POST."""
        check(message)
        clock = asyncio.get_running_loop().time
        ends = clock() + self._timeout
        body = await self._body(message)
        answer = await self._http.request(
            "POST",
            f"{self._settings.api_url}/v3/mail/send",
            headers=self._headers,
            data=body,
            timeout=self._timeout if not files(message) else max(ends - clock(), 0.1),
        )
        return receipt(answer)

    async def _body(self, message: OutboundMessage) -> bytes:
        """What is posted; the files are not kept beside it while it is on its way."""
        attached = await attachments(message, limit=LARGEST, within=self._timeout / 2)
        if sum(len(each.data) for each in attached) < SMALL:
            return self._encoded(message, attached)
        return await asyncio.to_thread(self._encoded, message, attached)

    def _encoded(self, message: OutboundMessage, attached: Sequence[Attachment]) -> bytes:
        """The body as bytes. The files are put in afterwards: as text each is there three times."""
        marks = [token_hex(24) for _ in attached]
        parts = [_attached(each, mark) for each, mark in zip(attached, marks, strict=True)]
        text = json.dumps(self._mail(message, parts), ensure_ascii=True).encode("ascii")
        found = (mark.encode() for mark in marks)
        return spliced(text, found, (b64encode(each.data) for each in attached))

    def _mail(self, message: OutboundMessage, attached: list[dict[str, str]]) -> dict[str, Any]:
        """ "Mail Send", the body."""
        parts = message.email or OutboundEmail()
        name = parts.from_name or self._settings.from_name
        fields: dict[str, Any] = {
            "personalizations": [_people(message, parts)],
            "from": {"email": message.sender.address, **({"name": name} if name else {})},
            "reply_to": {"email": parts.reply_to} if parts.reply_to else None,
            "subject": message.subject or " ",  # it refuses an empty one
            "content": _content(message),
            "attachments": attached,
            "headers": _headers(parts),
            "categories": list(parts.tags),
            "custom_args": {"attempt_id": message.attempt_id, "message_id": message.message_id},
        }
        return {name: value for name, value in fields.items() if value}

    def foresee(self, message: OutboundMessage, listed: Sequence[VendorTemplate]) -> None:
        """Refuses what SendGrid could never take."""
        check(message)

    async def check(self, webhook_url: str) -> Sequence[Finding]:
        """Asks what the key may do and what is left of the plan, for `gateway doctor`."""

        async def ask(path: str) -> HttpAnswer:
            url = f"{self._settings.api_url}{path}"
            return await self._http.request(
                "GET", url, headers=self._headers, timeout=self._timeout
            )

        return await _sendgrid_setup.check(ask)

    async def aclose(self) -> None:
        """Holds nothing: the session belongs to all."""


def check(message: OutboundMessage) -> None:
    """Refuses what SendGrid cannot do, before anything is written."""
    refusals = (
        (message.channel is not Channel.EMAIL, "channel", f"no {message.channel}"),
        (message.template is not None, "template", "no templates"),
        (message.type is not MessageType.EMAIL, "type", f"no {message.type} messages"),
        (not message.sender.address, "sender", "no address to send from"),
        (not (message.body.strip() or message.html or files(message)), "empty", "no text"),
        (len(files(message)) > Sendgrid.capabilities.max_media, "media", "too many files"),
        (not storable(message), "text", "a character that no wire carries"),
    )
    for refused, code, text in refusals:
        if refused:
            raise Unsupported(f"SendGrid: {text}", code=code, field=AT.get(code, ""))
    bounced_by(message, "SendGrid")


def _people(message: OutboundMessage, parts: OutboundEmail) -> dict[str, Any]:
    """Each address once: SendGrid refuses one that is named twice."""
    seen: set[str] = set()
    people: dict[str, Any] = {}
    for name, addresses in (("to", (message.to,)), ("cc", parts.cc), ("bcc", parts.bcc)):
        new = [each for each in addresses if each.lower() not in seen]
        seen |= {each.lower() for each in new}
        if new:
            people[name] = [{"email": each} for each in new]
    return people


def _content(message: OutboundMessage) -> list[dict[str, str]]:
    """The text first, as it has to be."""
    text = message.body or plain_of(message.html or "")
    kinds = [{"type": "text/plain", "value": text if text.strip() else " "}]
    if message.html:
        kinds.append({"type": "text/html", "value": message.html})
    return kinds


def _attached(each: Attachment, content: str) -> dict[str, str]:
    return {
        "content": content,
        "type": each.content_type,
        "filename": each.filename or "attachment",
        "disposition": "attachment",
    }


def _headers(parts: OutboundEmail) -> dict[str, str]:
    # "Mail Send", headers: who gives them encodes them.
    headers = {name: encoded(value) for name, value in parts.headers.items()}
    if parts.message_id:
        headers["Message-ID"] = parts.message_id
    if parts.in_reply_to:
        headers["In-Reply-To"] = parts.in_reply_to
    if parts.references:
        headers["References"] = " ".join(parts.references)
    if parts.unsubscribe_url:
        headers["List-Unsubscribe"] = f"<{parts.unsubscribe_url}>"
        headers["List-Unsubscribe-Post"] = ONE_CLICK
    return headers
