"""The tables of what we ask of vendors: files, subscriptions, lost answers, what was missed;
and what they tell of what is ours there."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    ForeignKeyConstraint,
    Index,
    Integer,
    Text,
    UniqueConstraint,
    text,
)
from sqlmodel import Field

from gateway.store.tables import Base, table


class MediaRow(Base, table=True):
    """A file: of an inbound message, first a reference and, after its fetch, bytes; or an upload,
    which belongs to no message.

    `state` is pending, stored, refused (never fetched: not the vendor's) or failed; dropping while
    its bytes are deleted because of their age, then gone.
    """

    __tablename__ = "media"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "message_id"], ["messages.tenant_id", "messages.id"]),
        Index("ix_media_message", "tenant_id", "message_id"),
        Index(
            "ix_media_pending",
            "due_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_media_id", "id", unique=True),
        Index(
            "ix_media_kept",
            "created_at",
            sqlite_where=text("state IN ('stored', 'dropping')"),
            postgresql_where=text("state IN ('stored', 'dropping')"),
        ),
    )
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    id: str = Field(primary_key=True, sa_type=Text)
    message_id: str | None = Field(default=None, sa_type=Text, nullable=True)
    position: int = Field(sa_type=Integer)
    connection: str | None = Field(default=None, sa_type=Text, nullable=True)
    reference: str | None = Field(default=None, sa_type=Text, nullable=True)
    declared_type: str | None = Field(default=None, sa_type=Text, nullable=True)
    content_type: str | None = Field(default=None, sa_type=Text, nullable=True)  # sniffed
    filename: str | None = Field(default=None, sa_type=Text, nullable=True)
    size: int | None = Field(default=None, sa_type=BigInteger, nullable=True)
    sha256: str | None = Field(default=None, sa_type=Text, nullable=True)
    state: str = Field(sa_type=Text)
    detail: str | None = Field(default=None, sa_type=Text, nullable=True)
    tries: int = Field(default=0, sa_type=Integer)
    due_at: int = Field(sa_type=BigInteger)
    created_at: int = Field(sa_type=BigInteger)


class SubscriptionRow(Base, table=True):
    """A topic of a vendor that posts to us, or wants to: by whose word, and how far we are.

    `state` is pending (a confirmation of ours is due), confirmed, failed or unsubscribed.
    """

    __tablename__ = "subscriptions"
    __table_args__ = (
        UniqueConstraint("connection", "topic_arn", "endpoint"),
        Index(
            "ix_subscriptions_pending",
            "due_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    id: str = Field(primary_key=True, sa_type=Text)
    connection: str = Field(sa_type=Text)
    topic_arn: str = Field(sa_type=Text)
    endpoint: str = Field(sa_type=Text)  # our address that it posts to
    webhook: str = Field(sa_type=Text)
    state: str = Field(sa_type=Text)
    subscription_arn: str | None = Field(default=None, sa_type=Text, nullable=True)
    token: str | None = Field(default=None, sa_type=Text, nullable=True)  # while pending
    subscribe_url: str | None = Field(
        default=None, sa_type=Text, nullable=True
    )  # where to confirm, without the token
    tries: int = Field(default=0, sa_type=Integer)
    due_at: int = Field(sa_type=BigInteger)
    said_at: int = Field(sa_type=BigInteger)  # the vendor's time of its newest word
    detail: str | None = Field(default=None, sa_type=Text, nullable=True)
    created_at: int = Field(sa_type=BigInteger)
    updated_at: int = Field(sa_type=BigInteger)


class LookupRow(Base, table=True):
    """An attempt whose outcome was unknown: when its vendor is asked next. Stays until a vendor's
    id proves the attempt, so that no other one of the same text is taken for it."""

    __tablename__ = "lookups"
    __table_args__ = (Index("ix_lookups_due", "due_at"),)
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    attempt_id: str = Field(primary_key=True, sa_type=Text)
    provider: str = Field(sa_type=Text)
    tries: int = Field(default=0, sa_type=Integer)
    due_at: int = Field(sa_type=BigInteger)  # also the lease of whoever asks
    created_at: int = Field(sa_type=BigInteger)


class BackfillRow(Base, table=True):
    """Until when somebody listened to a vendor account, and what is to be asked for since."""

    __tablename__ = "backfills"
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    connection: str = Field(primary_key=True, sa_type=Text)
    account: str = Field(primary_key=True, sa_type=Text)
    heard_at: int = Field(sa_type=BigInteger)  # when a serving process last could store
    missing_since: int | None = Field(default=None, sa_type=BigInteger, nullable=True)
    tries: int = Field(default=0, sa_type=Integer)
    token: str | None = Field(default=None, sa_type=Text, nullable=True)  # of the process that asks
    due_at: int = Field(default=0, sa_type=BigInteger)  # also its lease


class NoticeRow(Base, table=True):
    """What a vendor told of what is ours there, such as a template that was paused; once."""

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("connection", "dedupe_key"),
        Index("ix_notices_received_at", "received_at"),
    )
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    id: str = Field(primary_key=True, sa_type=Text)
    connection: str = Field(sa_type=Text)
    dedupe_key: str = Field(sa_type=Text)
    inbox_id: str | None = Field(default=None, sa_type=Text, nullable=True)
    kind: str = Field(sa_type=Text)
    content: str = Field(sa_type=Text)
    occurred_at: int | None = Field(default=None, sa_type=BigInteger, nullable=True)
    received_at: int = Field(sa_type=BigInteger)


media = table(MediaRow)
subscriptions = table(SubscriptionRow)
lookups = table(LookupRow)
backfills = table(BackfillRow)
notices = table(NoticeRow)
