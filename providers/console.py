"""Prints messages instead of sending them, for development. Never logs one, never uses a network.

Whatever a person wrote is printed with its control characters escaped: a message must not be
able to move the cursor or hide a line.
"""

from __future__ import annotations

import sys
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.domain import (
    Capabilities,
    Channel,
    Connection,
    MessageType,
    OutboundMessage,
    Receipt,
    Sender,
    Status,
    StatusUpdate,
)
from gateway.errors import Unreachable
from providers._email_addresses import our_address

CHANNELS = frozenset(Channel)
# Joiners hold emoji and some scripts together; every other unprintable character is escaped,
# also those that turn the direction of text around.
JOINERS = "\u200c\u200d"


class ConsoleSettings(BaseModel):
    """What the console's messages come from."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True)
    required: ClassVar[tuple[str, ...]] = ()

    phone_number: str = Field("+15550000001", alias="CONSOLE_PHONE_NUMBER")
    from_email: str = Field("gateway@example.com", alias="CONSOLE_FROM_EMAIL")

    _an_address = field_validator("from_email")(our_address())


class Console:
    """A provider whose network is the terminal."""

    name = "console"
    Settings = ConsoleSettings
    capabilities = Capabilities(
        channels=CHANNELS,
        media=CHANNELS,
        max_media=100,
        html=True,
        templates=True,
        types=frozenset(MessageType),
        reports_delivery=True,
        replies=True,
        user_ids=True,
        marks_read=True,
        shows_typing=True,
        has_window=False,  # a terminal hears everything, also from somebody who is new here
    )

    @classmethod
    def connection(cls, settings: ConsoleSettings) -> Connection:
        """The connection that the environment makes."""
        phone = Sender(address=settings.phone_number)
        senders = dict.fromkeys(CHANNELS, phone) | {
            Channel.EMAIL: Sender(address=settings.from_email)
        }
        return Connection(id="console", tenant_id="default", family="console", senders=senders)

    def __init__(
        self, settings: ConsoleSettings, *, http: object = None, timeout: float = 0.0
    ) -> None:
        """Takes what every provider takes, and needs none of it."""

    async def send(self, message: OutboundMessage) -> Receipt:
        """Prints it, and reports at once that it was delivered."""
        _print(rendered(message))
        identity = f"console-{message.attempt_id}"
        return Receipt(
            provider_message_id=identity,
            sender=message.sender.address,
            updates=tuple(_update(message, identity, s) for s in (Status.SENT, Status.DELIVERED)),
        )

    async def mark_read(
        self, provider_message_id: str, *, typing: bool = False, ours: str | None = None
    ) -> None:
        """Prints what the person would see."""
        _print(f"({'typing' if typing else 'read'}) {visible(provider_message_id)}\n")

    async def aclose(self) -> None:
        """Holds nothing."""


def _update(message: OutboundMessage, identity: str, status: Status) -> StatusUpdate:
    return StatusUpdate(
        dedupe_key=f"{message.attempt_id}:{status}",
        status=status,
        vendor_status=status,
        attempt_id=message.attempt_id,
        provider_message_id=identity,
        channel=message.channel,
        sender=message.sender.address,
        recipient=message.to,
    )


def rendered(message: OutboundMessage) -> str:
    """The message as it is printed: a line of addresses, then what it says, indented."""
    lines = [f"[{message.channel}] {message.sender.key} -> {message.to} ({message.attempt_id})"]
    if message.type is not MessageType.TEXT:
        lines.append(f"({message.type})")
    if message.subject:
        lines.append(f"Subject: {message.subject}")
    if message.template:
        lines.append(f"Template: {message.template.get('name', '')}")
    lines += (message.body or message.html or "").split("\n")
    lines += [f"<{file.content_type or 'file'}> {file.url}" for file in message.media]
    shown = [visible(line) for line in lines if line]
    return "\n    ".join(shown) + "\n"


def visible(text: str) -> str:
    """Text with everything that is not to be seen written out."""
    return "".join(
        c if c.isprintable() or c in JOINERS else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def _print(text: str) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except (OSError, ValueError) as error:  # closed, or a pipe that nobody reads
        failure = Unreachable(f"the terminal is closed ({type(error).__name__})", code="stdout")
    else:
        return
    raise failure
