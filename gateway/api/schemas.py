"""The bodies of requests, as pydantic models; the OpenAPI document is made of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.domain import Channel, MessageType, OnUnknown, Priority

BODY_MOST = 65_536  # characters; a vendor's own limit is lower and is told by the provider
OLD_NAMES = {"recipient_number": "to", "communication_type": "channel"}
KEPT_NAMES = ("session_id", "channel_id", "sender")
SENDABLE = (Channel.SMS, Channel.WHATSAPP, Channel.EMAIL)


def _when(value: Any) -> Any:
    """A moment is text in RFC 3339; a bare number would be taken for a moment too."""
    if value is not None and not isinstance(value, (str, datetime)):
        raise ValueError("must be a time such as 2030-01-31T09:00:00Z")
    return value


Moment = Annotated[datetime | None, BeforeValidator(_when)]


class Media(BaseModel):
    """A file to send."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(max_length=2048, description="An https URL that the vendor can fetch.")
    content_type: str | None = Field(default=None, max_length=255, pattern=r"^[\w.+-]+/[\w.+-]+$")
    filename: str | None = Field(default=None, max_length=255)


class Template(BaseModel):
    """A template that the vendor knows."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=512)
    language: str | None = Field(default=None, max_length=35)
    variables: dict[str, Any] = Field(default_factory=dict)


class EmailParts(BaseModel):
    """What only an email has."""

    model_config = ConfigDict(extra="forbid")

    reply_to: str | None = Field(default=None, max_length=254)
    cc: list[str] = Field(default_factory=list, max_length=50)
    bcc: list[str] = Field(default_factory=list, max_length=50)
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    attachments: list[Media] = Field(default_factory=list, max_length=20)


def _media(value: Any) -> Any:
    if isinstance(value, list):
        return [{"url": item} if isinstance(item, str) else item for item in value]
    return value


class Content(BaseModel):
    """What is shared by a new message and an answer."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    body: str = Field(default="", max_length=BODY_MOST)
    sender: str | None = Field(
        default=None,
        max_length=254,
        validation_alias=AliasChoices("from"),
        description="One of our addresses; the connection's own where it is left out.",
    )
    type: MessageType | None = None
    content: dict[str, Any] = Field(default_factory=dict)
    media: Annotated[list[Media], BeforeValidator(_media)] = Field(
        default_factory=list, max_length=20
    )
    reply_to: str | None = Field(default=None, max_length=255)
    template: Template | None = None
    subject: str | None = Field(default=None, max_length=998, pattern=r"^[^\r\n]*$")
    html: str | None = Field(default=None, max_length=1_000_000)
    email: EmailParts | None = None
    priority: Priority = Priority.NORMAL
    send_at: Moment = None
    timezone: str | None = Field(
        default=None, max_length=64, description="The zone of a send_at without an offset."
    )
    expires_at: Moment = None
    metadata: dict[str, Any] = Field(default_factory=dict, max_length=50)
    on_unknown: OnUnknown = OnUnknown.HOLD

    @model_validator(mode="before")
    @classmethod
    def _body_as_content(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("content"), str):
            value = dict(value)
            value.setdefault("body", value.pop("content"))
            value.pop("content", None)
        return value

    @model_validator(mode="after")
    def _with_a_zone(self) -> Content:
        self.send_at = zoned(self.send_at, self.timezone, "send_at")
        self.expires_at = zoned(self.expires_at, self.timezone, "expires_at")
        return self


def zoned(when: datetime | None, zone: str | None, name: str) -> datetime | None:
    """A moment in UTC; one without an offset needs a time zone."""
    if when is None:
        return None
    if when.tzinfo is None:
        if zone is None:
            raise ValueError(f"{name} needs an offset such as Z or +02:00, or a timezone beside it")
        try:
            when = when.replace(tzinfo=ZoneInfo(zone))
        except (KeyError, ValueError, OSError):
            raise ValueError("timezone must be an IANA name such as Europe/Berlin") from None
    try:
        return when.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{name} is out of range") from None


class NewMessage(Content):
    """`POST /api/messages`."""

    channel: Channel = Channel.SMS
    to: str = Field(min_length=1, max_length=254)
    conversation_id: str | None = Field(default=None, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        for old, new in OLD_NAMES.items():
            if old in value:
                value.setdefault(new, value.pop(old))
                value.pop(old, None)
        kept = {name: value.pop(name) for name in KEPT_NAMES if name in value}
        if kept:
            metadata = value.get("metadata")
            value["metadata"] = {**kept, **(metadata if isinstance(metadata, dict) else {})}
        return value

    @model_validator(mode="after")
    def _a_channel_we_send_on(self) -> NewMessage:
        if self.channel not in SENDABLE:
            raise ValueError("channel must be sms, whatsapp or email")
        return self


class Reply(Content):
    """`POST /api/conversations/{id}/messages`."""
