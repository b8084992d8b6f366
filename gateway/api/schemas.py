"""The bodies of requests, as pydantic models; the OpenAPI document is made of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from gateway.api import names
from gateway.domain import Channel, MessageType, OnUnknown, Priority
from gateway.emails import ONE_LINE, UNPRINTABLE
from gateway.opt_outs import Why

BODY_MOST = 65_536  # characters; a vendor's own limit is lower and is told by the provider
DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
NO_CONTROLS = f"^[^{UNPRINTABLE.pattern[1:-1]}]*$"
KEPT_NAMES = ("session_id", "channel_id", "sender")
SENDABLE = (Channel.SMS, Channel.WHATSAPP, Channel.EMAIL)


def _when(value: Any) -> Any:
    """A moment is text in RFC 3339, or that without an offset; a date, or a number, even as text,
    would be taken for a moment too."""
    if value is None or (isinstance(value, str) and DATE_TIME.fullmatch(value)):
        return value
    raise ValueError("must be a date and a time such as 2030-01-31T09:00:00Z")


# A validator is built when it is first needed: a start waits for none of them.
STRICT = ConfigDict(extra="forbid", defer_build=True)
Moment = Annotated[datetime | None, BeforeValidator(_when)]


def _known(value: str | None) -> str | None:
    if value is not None:
        zone_of(value)
    return value


def placed(value: datetime | None, info: ValidationInfo) -> datetime | None:
    """A moment in UTC, by the zone that stands before it; a wrong zone is told by its own field."""
    if value is None or "timezone" not in info.data:
        return value
    return in_utc(value, info.data["timezone"])


Zone = Annotated[
    str | None,
    Field(max_length=64, description="The zone of times without an offset."),
    AfterValidator(_known),
]


class Media(BaseModel):
    """A file to send."""

    model_config = STRICT

    url: str = Field(max_length=2048, description="An https URL that the vendor can fetch.")
    content_type: str | None = Field(default=None, max_length=255, pattern=r"^[\w.+-]+/[\w.+-]+$")
    filename: str | None = Field(default=None, max_length=255)


class Template(BaseModel):
    """A template that the vendor knows."""

    model_config = STRICT

    name: str = Field(max_length=512)
    language: str | None = Field(default=None, max_length=35)
    variables: dict[str, Any] | list[Any] = Field(
        default_factory=dict,
        max_length=100,
        description="By number or name, as the template has them; a list counts from 1.",
    )


def _one_line(value: str | None) -> str | None:
    if value is not None and UNPRINTABLE.search(value):
        raise ValueError(ONE_LINE)
    return value


def _media(value: Any) -> Any:
    if isinstance(value, list):
        return [{"url": item} if isinstance(item, str) else item for item in value]
    return value


class EmailParts(BaseModel):
    """What only an email has."""

    model_config = STRICT

    reply_to: str | None = Field(default=None, max_length=254)
    cc: list[str] = Field(default_factory=list, max_length=50)
    bcc: list[str] = Field(default_factory=list, max_length=50)
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    attachments: Annotated[list[Media], BeforeValidator(_media)] = Field(
        default_factory=list, max_length=20
    )
    from_name: str | None = Field(default=None, max_length=200, description="Beside our address.")
    tags: list[str] = Field(default_factory=list, max_length=10)
    unsubscribe: bool = Field(
        default=False,
        description="Adds List-Unsubscribe with one click, which the gateway answers itself.",
    )


class Content(BaseModel):
    """What is shared by a new message and an answer."""

    model_config = STRICT

    body: str = Field(default="", max_length=BODY_MOST)
    sender: str | None = Field(
        default=None,
        max_length=254,
        validation_alias="from",
        description="One of our addresses; the connection's own where it is left out.",
    )
    type: MessageType | None = None
    content: dict[str, Any] = Field(default_factory=dict)
    media: Annotated[list[Media], BeforeValidator(_media)] = Field(
        default_factory=list, max_length=20
    )
    reply_to: str | None = Field(default=None, max_length=255)
    template: Template | None = None
    subject: Annotated[str | None, AfterValidator(_one_line)] = Field(
        default=None, max_length=998, json_schema_extra={"pattern": NO_CONTROLS}
    )
    html: str | None = Field(default=None, max_length=1_000_000)
    email: EmailParts | None = None
    priority: Priority = Priority.NORMAL
    timezone: Zone = None
    send_at: Moment = None
    expires_at: Moment = None
    metadata: dict[str, Any] = Field(default_factory=dict, max_length=50)
    on_unknown: OnUnknown = OnUnknown.HOLD
    outside_window: Literal["try"] | None = Field(
        default=None, description="Sends it also where the person's window is closed."
    )

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        # Programs write null for what they do not set.
        said = {n: v for n, v in value.items() if v is not None or n not in cls._may_be_null()}
        return _without_older_names(said)

    @classmethod
    @cache
    def _may_be_null(cls) -> frozenset[str]:
        return frozenset({"from", *cls.model_fields} - {"sender"})

    _in_utc = field_validator("send_at", "expires_at")(placed)


def _without_older_names(value: dict[str, Any]) -> dict[str, Any]:
    """What the chat UI calls otherwise, under today's names; what has none goes to metadata."""
    value = dict(value)
    if isinstance(value.get("content"), str):
        names.under(value, "body", ("content",))
    kept = {name: value.pop(name) for name in KEPT_NAMES if name in value}
    metadata = value.get("metadata", {})
    if kept and isinstance(metadata, dict):
        value["metadata"] = {**kept, **metadata}
    return value


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("must be an IANA name such as Europe/Berlin") from None


def in_utc(when: datetime, zone: str | None) -> datetime:
    """A moment in UTC; one without an offset needs a time zone."""
    if when.tzinfo is None:
        if zone is None:
            raise ValueError("needs an offset such as Z or +02:00, or a timezone beside it")
        when = when.replace(tzinfo=zone_of(zone))
    try:
        return when.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None


class NewMessage(Content):
    """`POST /api/messages`."""

    channel: Channel = Channel.SMS
    to: str = Field(min_length=1, max_length=254)
    conversation_id: str | None = Field(default=None, max_length=64)

    @model_validator(mode="before")
    @classmethod
    def _older_address(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        names.under(value, "to", ("recipient_number",), names.address)
        if "communication_type" in value:
            value["communication_type"] = names.lower(value["communication_type"])
            names.under(value, "channel", ("communication_type",), names.lower)
        return value

    @field_validator("channel")
    @classmethod
    def _one_we_send_on(cls, value: Channel) -> Channel:
        if value not in SENDABLE:
            raise ValueError("must be sms, whatsapp or email")
        return value


class Reply(Content):
    """`POST /api/conversations/{id}/messages`."""


class Reschedule(BaseModel):
    """`POST /api/messages/{id}/reschedule`."""

    model_config = STRICT

    timezone: Zone = None
    send_at: Annotated[datetime, BeforeValidator(_when)]
    expires_at: Moment = None

    _in_utc = field_validator("send_at", "expires_at")(placed)


class Retry(BaseModel):
    """`POST /api/messages/{id}/retry`."""

    model_config = STRICT

    timezone: Zone = None
    expires_at: Moment = None
    even_if_sent: bool = Field(
        default=False, description="Also if it may have been sent: they may get it twice."
    )

    _in_utc = field_validator("expires_at")(placed)


class OptOutReason(BaseModel):
    """`PUT /api/opt-outs/{channel}/{address}`."""

    model_config = STRICT

    reason: str | None = Field(
        default=None, max_length=200, description="Kept as proof, such as how they said so."
    )


class SuppressionReason(BaseModel):
    """`PUT /api/suppressions/{address}`."""

    model_config = STRICT

    reason: Why = Field(default=Why.MANUAL, description="What it is known by from then on.")


class Assignment(BaseModel):
    """`POST /api/conversations/{id}/assign`."""

    model_config = STRICT

    assignee: Annotated[
        str | None,
        Field(min_length=1, max_length=100, description="Yours, such as a user id; null: nobody."),
    ]


def _a_label(value: str) -> str:
    value = value.strip()
    if not value or not value.isprintable() or "/" in value or value in (".", ".."):
        raise ValueError("must have 1 to 50 printable characters and no /")
    return value


LABEL_MOST = 50  # characters
LabelText = Annotated[str, Field(max_length=LABEL_MOST), AfterValidator(_a_label)]


class Label(BaseModel):
    """`POST /api/conversations/{id}/labels`."""

    model_config = STRICT

    label: LabelText


class Labels(BaseModel):
    """`PUT /api/conversations/{id}/labels`: all of them, in place of those that there are."""

    model_config = STRICT

    labels: list[LabelText] = Field(max_length=50)


class ConversationChange(BaseModel):
    """`PATCH /api/conversations/{id}`: what is left out stays as it is."""

    model_config = STRICT

    name: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="What we call the person; null: what they call themselves.",
    )
    metadata: dict[str, Any] = Field(default_factory=dict, max_length=50)


class NewNote(BaseModel):
    """`POST /api/conversations/{id}/notes`."""

    model_config = STRICT

    body: str = Field(min_length=1, max_length=10_000)
    author: str | None = Field(default=None, min_length=1, max_length=100)
