"""The table of the keys with which we sign addresses of our own."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text
from sqlmodel import Field

from gateway.store.tables import Base, table


class SigningKeyRow(Base, table=True):
    """A key of a tenant, made once for all processes. It opens links only, and no API."""

    __tablename__ = "signing_keys"
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    name: str = Field(primary_key=True, sa_type=Text)
    secret: str = Field(sa_type=Text)  # in hexadecimal
    created_at: int = Field(sa_type=BigInteger)


signing_keys = table(SigningKeyRow)
