"""The tables of opt-outs: what holds for a person now, and every word that was ever said of it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Text, text
from sqlmodel import Field

from gateway.store.tables import Base, table


class OptOutRow(Base, table=True):
    """Whether a person may be written to on a channel, with the word that made it so.

    `said_at` is the time of the newest word, also of one that only repeats the state: an older
    one changes nothing. The ids are the proof.
    """

    __tablename__ = "opt_outs"
    __table_args__ = (
        Index("ix_opt_outs_recent", "tenant_id", "updated_at", "channel", "address"),
        Index(
            "ix_opt_outs_out",
            "channel",
            sqlite_where=text("state = 'out'"),
            postgresql_where=text("state = 'out'"),
        ),
    )
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    channel: str = Field(primary_key=True, sa_type=Text)
    address: str = Field(primary_key=True, sa_type=Text)
    state: str = Field(sa_type=Text)  # out or in
    source: str = Field(sa_type=Text)  # keyword, vendor, api or cli
    detail: str | None = Field(default=None, sa_type=Text, nullable=True)  # the word, code, reason
    connection: str | None = Field(default=None, sa_type=Text, nullable=True)
    our_address: str | None = Field(default=None, sa_type=Text, nullable=True)
    message_id: str | None = Field(default=None, sa_type=Text, nullable=True)
    attempt_id: str | None = Field(default=None, sa_type=Text, nullable=True)
    inbox_id: str | None = Field(default=None, sa_type=Text, nullable=True)
    since: int = Field(sa_type=BigInteger)
    said_at: int = Field(sa_type=BigInteger)
    created_at: int = Field(sa_type=BigInteger)
    updated_at: int = Field(sa_type=BigInteger)


class OptOutEventRow(Base, table=True):
    """One word about a person. Rows are added and never changed.

    `verdict` is `applied`, `repeated` (it was so already) or `older` (a newer word stands).
    """

    __tablename__ = "opt_out_events"
    __table_args__ = (Index("ix_opt_out_events_person", "tenant_id", "channel", "address", "id"),)
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    id: str = Field(primary_key=True, sa_type=Text)
    channel: str = Field(sa_type=Text)
    address: str = Field(sa_type=Text)
    state: str = Field(sa_type=Text)
    source: str = Field(sa_type=Text)
    detail: str | None = Field(default=None, sa_type=Text, nullable=True)
    connection: str | None = Field(default=None, sa_type=Text, nullable=True)
    our_address: str | None = Field(default=None, sa_type=Text, nullable=True)
    message_id: str | None = Field(default=None, sa_type=Text, nullable=True)
    attempt_id: str | None = Field(default=None, sa_type=Text, nullable=True)
    inbox_id: str | None = Field(default=None, sa_type=Text, nullable=True)
    verdict: str = Field(sa_type=Text)
    said_at: int = Field(sa_type=BigInteger)
    created_at: int = Field(sa_type=BigInteger)


opt_outs = table(OptOutRow)
opt_out_events = table(OptOutEventRow)
