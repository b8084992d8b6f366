"""The table of the providers that a tenant's messages have ever named."""

from __future__ import annotations

from sqlalchemy import Text
from sqlmodel import Field

from gateway.store.tables import Base, table


class ProviderSeenRow(Base, table=True):
    """One provider of one tenant. It stays when its messages have gone."""

    __tablename__ = "providers_seen"
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    provider: str = Field(primary_key=True, sa_type=Text)


providers_seen = table(ProviderSeenRow)
