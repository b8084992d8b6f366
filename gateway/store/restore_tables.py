"""The table of what this database has been through: which one it is, and its restores."""

from __future__ import annotations

from sqlalchemy import BigInteger, Integer, Text
from sqlmodel import Field

from gateway.store.tables import Base, table


class TimelineRow(Base, table=True):
    """A span of a database's life, which ends when it goes back in time; the newest is the
    present. `name` is the database's own, and goes with it into its copies.

    The feed's numbers in `(lost_after, lost_until]` are those of events that a restore took away.
    At `held_at` all that waited at its beginning was held; at `settled_at` nothing of it was any
    more.
    """

    __tablename__ = "timelines"
    tenant_id: str = Field(sa_type=Text, default="")  # of all of them
    epoch: int = Field(primary_key=True, sa_type=Integer, sa_column_kwargs={"autoincrement": False})
    name: str = Field(sa_type=Text)
    lost_after: int = Field(sa_type=BigInteger, default=0)
    lost_until: int = Field(sa_type=BigInteger, default=0)
    began_at: int = Field(sa_type=BigInteger)
    held_at: int | None = Field(sa_type=BigInteger, nullable=True, default=None)
    settled_at: int | None = Field(sa_type=BigInteger, nullable=True, default=None)


timelines = table(TimelineRow)
