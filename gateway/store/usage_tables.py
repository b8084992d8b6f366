"""The table of what was used of daily quotas."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text
from sqlmodel import Field

from gateway.store.tables import Base, table


class UsageRow(Base, table=True):
    """How many people a provider was asked to write to in one piece of time; only of providers
    with a daily quota."""

    __tablename__ = "provider_usage"
    tenant_id: str = Field(sa_type=Text)
    connection: str = Field(primary_key=True, sa_type=Text)
    provider: str = Field(primary_key=True, sa_type=Text)
    piece: int = Field(primary_key=True, sa_type=BigInteger)  # when it begins
    people: int = Field(sa_type=BigInteger)


provider_usage = table(UsageRow)
