"""The tables of failover: breakers, the pins of operators, and the log of every switch."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Integer, Text
from sqlmodel import Field

from gateway.store.tables import Base, table


class BreakerRow(Base, table=True):
    """Where the breaker of a provider stands, or that of one sender at it; shared by all
    processes. No row: closed, and nothing has failed yet."""

    __tablename__ = "breakers"
    tenant_id: str = Field(sa_type=Text)
    connection: str = Field(primary_key=True, sa_type=Text)
    provider: str = Field(primary_key=True, sa_type=Text)
    sender: str = Field(primary_key=True, sa_type=Text)  # empty: the provider's own
    state: str = Field(sa_type=Text)
    failures: int = Field(sa_type=Integer)
    messages: str = Field(sa_type=Text)  # JSON: those that failed, a few
    successes: int = Field(sa_type=Integer)
    openings: int = Field(sa_type=Integer)
    opened_at: int | None = Field(default=None, sa_type=BigInteger, nullable=True)
    retry_at: int = Field(sa_type=BigInteger)
    probe_token: str | None = Field(default=None, sa_type=Text, nullable=True)
    probe_until: int = Field(sa_type=BigInteger)
    error_reason: str | None = Field(default=None, sa_type=Text, nullable=True)
    error_code: str | None = Field(default=None, sa_type=Text, nullable=True)
    updated_at: int = Field(sa_type=BigInteger)
    version: int = Field(sa_type=BigInteger)  # grows with every write


class PinRow(Base, table=True):
    """A provider that an operator put first for a while."""

    __tablename__ = "provider_pins"
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    provider: str = Field(primary_key=True, sa_type=Text)
    channel: str = Field(primary_key=True, sa_type=Text)  # empty: every channel
    until: int = Field(sa_type=BigInteger)
    created_at: int = Field(sa_type=BigInteger)


class SwitchRow(Base, table=True):
    """One switch, with its cause. Rows are added and never changed.

    `what` is opened, half_open, closed, blocked, unblocked, hurried, pinned or unpinned.
    """

    __tablename__ = "provider_switches"
    __table_args__ = (Index("ix_provider_switches_at", "at"),)
    tenant_id: str = Field(sa_type=Text)
    id: str = Field(primary_key=True, sa_type=Text)
    at: int = Field(sa_type=BigInteger)
    provider: str = Field(sa_type=Text)
    what: str = Field(sa_type=Text)
    connection: str | None = Field(default=None, sa_type=Text, nullable=True)
    sender: str | None = Field(default=None, sa_type=Text, nullable=True)
    channel: str | None = Field(default=None, sa_type=Text, nullable=True)
    error_reason: str | None = Field(default=None, sa_type=Text, nullable=True)
    error_code: str | None = Field(default=None, sa_type=Text, nullable=True)
    until: int | None = Field(default=None, sa_type=BigInteger, nullable=True)


breakers = table(BreakerRow)
pins = table(PinRow)
switches = table(SwitchRow)
