"""The tables. Rows are not domain types: they hold what is written, in the form it is stored.

Times are whole milliseconds since 1970 UTC; JSON is text that we wrote ourselves. Every table
has the tenant, and every foreign key goes through it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlmodel import Field, SQLModel

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(SQLModel):
    """What the tables share: their metadata, with named constraints so that they can be changed."""

    metadata = MetaData(naming_convention=NAMES)


def _key(**more: Any) -> Any:
    return Field(primary_key=True, sa_type=Text, **more)


def _text(**more: Any) -> Any:
    return Field(sa_type=Text, **more)


def _maybe_text(**more: Any) -> Any:
    return Field(default=None, sa_type=Text, nullable=True, **more)


def _time(**more: Any) -> Any:
    return Field(sa_type=BigInteger, **more)


def _maybe_time(**more: Any) -> Any:
    return Field(default=None, sa_type=BigInteger, nullable=True, **more)


def _part(name: str, only: str, *columns: str, unique: bool = False) -> Index:
    """An index over some of the rows."""
    where = text(only)
    return Index(name, *columns, unique=unique, sqlite_where=where, postgresql_where=where)


class ConversationRow(Base, table=True):
    """One thread between one of our addresses, or pools, and one person."""

    __tablename__ = "conversations"
    __table_args__ = (
        UniqueConstraint("tenant_id", "channel", "our_key", "address"),
        Index("ix_conversations_recent", "tenant_id", "last_message_at", "id"),
        _part(
            "ix_conversations_person",
            "channel IN ('whatsapp', 'rcs')",
            "tenant_id",
            "channel",
            "address",
        ),
        Index("ix_conversations_address", "tenant_id", "address", "id"),
        Index("ix_conversations_ours", "tenant_id", "our_address", "id"),
        Index("ix_conversations_status", "tenant_id", "status", "id"),
        _part("ix_conversations_assignee", "assignee IS NOT NULL", "tenant_id", "assignee", "id"),
        _part("ix_conversations_unread", "unread_count > 0", "tenant_id", "id"),
    )
    tenant_id: str = _key()
    id: str = _key()
    channel: str = _text()
    our_key: str = _text()  # pool or address: the identity
    our_address: str | None = _maybe_text()  # the address last written to, or from
    address: str = _text()
    name: str | None = _maybe_text()  # what the person calls themselves
    own_name: str | None = _maybe_text()  # what we call them, if we do
    status: str = _text(default="open")
    assignee: str | None = _maybe_text()
    labels: str | None = _maybe_text()  # JSON; none: null
    unread_count: int = Field(default=0, sa_type=Integer)
    last_message_at: int = _time()
    last_inbound_at: int | None = _maybe_time()
    meta: str | None = _maybe_text()
    created_at: int = _time()
    updated_at: int = _time()


class AliasRow(Base, table=True):
    """A further address of the person of a conversation: a WhatsApp user id beside a number."""

    __tablename__ = "conversation_aliases"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "conversation_id"], ["conversations.tenant_id", "conversations.id"]
        ),
        Index("ix_conversation_aliases_conversation", "tenant_id", "conversation_id"),
        Index("ix_conversation_aliases_person", "tenant_id", "channel", "address"),
    )
    tenant_id: str = _key()
    channel: str = _key()
    our_key: str = _key()
    address: str = _key()
    conversation_id: str = _text()
    created_at: int = _time()


class MessageRow(Base, table=True):
    """One message, either way."""

    __tablename__ = "messages"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "conversation_id"], ["conversations.tenant_id", "conversations.id"]
        ),
        UniqueConstraint("connection", "dedupe_key"),
        Index("ix_messages_conversation", "tenant_id", "conversation_id", "id"),
        Index("ix_messages_provider_message", "provider_message_id"),
        Index("ix_messages_status", "tenant_id", "status", "id"),
        Index("ix_messages_to", "tenant_id", "to_address", "id"),
        Index("ix_messages_from", "tenant_id", "from_address", "id"),
        Index("ix_messages_channel", "tenant_id", "channel", "id"),
        _part("ix_messages_type", "type <> 'text'", "tenant_id", "type", "id"),
        _part("ix_messages_purpose", "purpose IS NOT NULL", "tenant_id", "purpose", "id"),
    )
    tenant_id: str = _key()
    id: str = _key()
    conversation_id: str = _text()
    direction: str = _text()
    channel: str = _text()
    type: str = _text()
    from_address: str | None = _maybe_text()
    to_address: str | None = _maybe_text()
    body: str = _text()
    content: str | None = _maybe_text()
    reply_to: str | None = _maybe_text()
    subject: str | None = _maybe_text()
    extra: str | None = _maybe_text()  # html, email, template: what only a provider reads
    media: str | None = _maybe_text()
    status: str = _text()
    ended_as: str | None = _maybe_text()  # how we ended it: rejected, canceled, expired
    provider: str | None = _maybe_text()
    connection: str | None = _maybe_text()
    provider_message_id: str | None = _maybe_text()  # the network's, as soon as that is known
    dedupe_key: str | None = _maybe_text()  # inbound only
    segments: int | None = Field(default=None, sa_type=Integer, nullable=True)
    cost: str | None = _maybe_text()
    currency: str | None = _maybe_text()
    cost_estimated: int | None = Field(default=None, sa_type=Integer, nullable=True)  # 1: by us
    priority: str = _text()
    on_unknown: str = _text(default="hold")
    error_code: str | None = _maybe_text()
    error_message: str | None = _maybe_text()
    error_provider: str | None = _maybe_text()
    meta: str | None = _maybe_text()
    purpose: str | None = _maybe_text()  # what it is sent for, as its metadata says
    created_at: int = _time()
    updated_at: int = _time()
    send_at: int | None = _maybe_time()
    expires_at: int | None = _maybe_time()
    sent_at: int | None = _maybe_time()
    delivered_at: int | None = _maybe_time()
    read_at: int | None = _maybe_time()


class QueueRow(Base, table=True):
    """A message that waits for its next attempt. No row: nothing is due. Written in one
    transaction with its message, so a foreign key would check what cannot be otherwise."""

    __tablename__ = "queue"
    __table_args__ = (
        _part("ix_queue_ready", "lease_until = 0", "route", "lane", "due_at", "message_id"),
        _part("ix_queue_leased", "lease_until > 0", "lease_until"),
        Index("ix_queue_expires", "expires_at"),
        Index("ix_queue_conversation", "tenant_id", "conversation_id", "lane", "message_id"),
    )
    tenant_id: str = _key()
    message_id: str = _key()
    conversation_id: str = _text()
    route: str = _text()  # who may send it, best first: names with commas between
    lane: int = Field(sa_type=Integer)  # 0 urgent … 3 low
    due_at: int = _time()
    expires_at: int = _time()
    attempts: int = Field(default=0, sa_type=Integer)  # made so far
    claims: int = Field(default=0, sa_type=Integer)  # since the last attempt
    lease_token: str | None = _maybe_text()
    lease_until: int = _time(default=0)
    quarantined: int = Field(default=0, sa_type=Integer)


class AttemptRow(Base, table=True):
    """One provider call for one message."""

    __tablename__ = "attempts"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "message_id"], ["messages.tenant_id", "messages.id"]),
        UniqueConstraint("tenant_id", "message_id", "number"),
        UniqueConstraint("connection", "provider_message_id"),
        _part("ix_attempts_open", "status IN ('sending', 'unknown')", "started_at"),
        _part("ix_attempts_sent_as", "network_id IS NOT NULL", "provider_message_id"),
        _part(
            "ix_attempts_network_id",
            "network_id IS NOT NULL",
            "connection",
            "network_id",
            unique=True,
        ),
    )
    tenant_id: str = _text()
    id: str = _key()
    message_id: str = _text()
    number: int = Field(sa_type=Integer)
    provider: str = _text()
    connection: str = _text()
    account: str = _text(default="")
    sender: str | None = _maybe_text()
    recipient: str = _text()
    status: str = _text()
    rank: int = Field(sa_type=Integer)
    provider_message_id: str | None = _maybe_text()
    network_id: str | None = _maybe_text()  # what the network calls it, where that is another
    error_reason: str | None = _maybe_text()
    error_code: str | None = _maybe_text()
    error_message: str | None = _maybe_text()
    retry_at: int | None = _maybe_time()  # before when the vendor does not want to be asked
    why: str | None = _maybe_text()  # JSON: this provider and not another, if not the first
    route: str | None = _maybe_text()  # who may send the message, if that is not this one only
    segments: int | None = Field(default=None, sa_type=Integer, nullable=True)
    cost: str | None = _maybe_text()
    currency: str | None = _maybe_text()
    country: str | None = _maybe_text()  # where it goes; and what it is expected to cost
    units: int | None = Field(default=None, sa_type=Integer, nullable=True)
    estimated_cost: str | None = _maybe_text()
    estimated_currency: str | None = _maybe_text()
    lease_token: str = _text(default="")
    settled_by: str | None = _maybe_text()  # callback, look_up: where it was not its answer
    started_at: int = _time()
    finished_at: int | None = _maybe_time()
    sent_at: int | None = _maybe_time()
    delivered_at: int | None = _maybe_time()
    read_at: int | None = _maybe_time()


class ReceiptRow(Base, table=True):
    """One word of a vendor about an attempt; kept once, also when it changes nothing.

    `source` is `callback`, or `look_up` or `backfill` where we asked. `verdict` is `applied`,
    `kept` (older than what we knew), `parked` (its attempt is not known yet) or `foreign` (it
    contradicts the attempt it names).
    """

    __tablename__ = "receipts"
    __table_args__ = (
        UniqueConstraint("connection", "dedupe_key"),
        Index("ix_receipts_attempt", "attempt_id"),
        _part("ix_receipts_parked", "verdict = 'parked'", "connection", "provider_message_id"),
        _part("ix_receipts_missed", "verdict = 'parked'", "id"),
        _part("ix_receipts_foreign", "verdict = 'foreign'", "received_at"),
    )
    tenant_id: str = _text()
    id: str = _key()
    connection: str = _text()
    dedupe_key: str = _text()
    inbox_id: str | None = _maybe_text()
    source: str | None = _maybe_text()
    attempt_id: str | None = _maybe_text()
    provider_message_id: str | None = _maybe_text()  # or else the network's, which it waits for
    network_id: str | None = _maybe_text()
    account: str | None = _maybe_text()
    sender: str | None = _maybe_text()
    recipient: str | None = _maybe_text()
    aliases: str | None = _maybe_text()  # JSON: further addresses of the recipient
    status: str = _text()
    vendor_status: str = _text()
    error_reason: str | None = _maybe_text()
    error_code: str | None = _maybe_text()
    error_message: str | None = _maybe_text()
    segments: int | None = Field(default=None, sa_type=Integer, nullable=True)
    cost: str | None = _maybe_text()
    currency: str | None = _maybe_text()
    occurred_at: int | None = _maybe_time()
    received_at: int = _time()
    verdict: str = _text()


class InboxRow(Base, table=True):
    """One verified webhook, raw. `state` is parsed, malformed, unrecognised or quarantined; or
    pending, while there is an email in it that is not read yet."""

    __tablename__ = "inbox"
    __table_args__ = (
        UniqueConstraint("connection", "key"),
        _part("ix_inbox_unusual", "state <> 'parsed'", "state", "id"),
        _part("ix_inbox_pending", "state = 'pending'", "due_at"),
    )
    tenant_id: str = _text()
    id: str = _key()
    webhook: str = _text()
    connection: str = _text()
    key: str = _text()
    method: str = _text()
    url: str = _text()
    headers: str = _text()  # an allow-list
    body: bytes = Field(sa_type=LargeBinary)
    verdict: str = _text()
    state: str = _text()
    detail: str | None = _maybe_text()
    received_at: int = _time()
    replayed_at: int | None = _maybe_time()
    tries: int | None = Field(default=None, sa_type=Integer, nullable=True)  # at reading it,
    due_at: int | None = _maybe_time()  # and when to try again


class EventRow(Base, table=True):
    """The numbered feed. `id` is given in commit order; rows hold ids and what changed."""

    __tablename__ = "events"
    __table_args__ = ({"sqlite_autoincrement": True},)
    id: int | None = Field(
        default=None,
        primary_key=True,
        sa_type=BigInteger().with_variant(Integer, "sqlite"),
    )
    tenant_id: str = _text()
    type: str = _text()
    message_id: str | None = _maybe_text()
    conversation_id: str | None = _maybe_text()
    change: str | None = _maybe_text()
    created_at: int = _time()


class IdempotencyRow(Base, table=True):
    """The first answer to a key, for as long as it is kept."""

    __tablename__ = "idempotency"
    __table_args__ = (Index("ix_idempotency_expires", "expires_at"),)
    tenant_id: str = _key()
    route: str = _key()
    key: str = _key()
    body_hash: str = _text()
    message_id: str = _text()
    response: str = _text()
    created_at: int = _time()
    expires_at: int = _time()


class ApiKeyRow(Base, table=True):
    """A key of the HTTP API; only its hash is here."""

    __tablename__ = "api_keys"
    tenant_id: str = _text()
    id: str = _key()
    name: str = _text()
    hash: str = _text()
    scopes: str = _text(default="full")
    created_at: int = _time()
    expires_at: int | None = _maybe_time()
    revoked_at: int | None = _maybe_time()


def table(row: type[Base]) -> Any:
    """The Core table behind a row class; statements are written on it."""
    return row.__table__  # type: ignore[attr-defined]


conversations = table(ConversationRow)
aliases = table(AliasRow)
messages = table(MessageRow)
queue = table(QueueRow)
attempts = table(AttemptRow)
receipts = table(ReceiptRow)
inbox = table(InboxRow)
events = table(EventRow)
idempotency = table(IdempotencyRow)
api_keys = table(ApiKeyRow)
