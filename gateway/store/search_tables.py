"""The tables of the search: which message stands where in the index, by which words conversations
are found, and how far the index has come.

On PostgreSQL the index itself is a column here; on SQLite it is `search_words`, a table of FTS5
that has no text of its own (`gateway/store/migrations`).
"""

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
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlmodel import Field

from gateway.store.tables import Base, table

PLAIN = Text(collation="C").with_variant(Text(), "sqlite")  # sorted by bytes on both


class DocumentRow(Base, table=True):
    """A message that can be found. The newer one has the higher number."""

    __tablename__ = "search_documents"
    __table_args__ = (
        UniqueConstraint("tenant_id", "message_id"),
        Index("ix_search_documents_recent", "tenant_id", "n"),
        Index(
            "ix_search_documents_words",
            "words",
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
            sqlite_where=text("words IS NOT NULL"),  # none there
            postgresql_where=text("words IS NOT NULL"),
        ),
    )
    n: int = Field(
        primary_key=True,
        sa_type=BigInteger().with_variant(Integer, "sqlite"),
        sa_column_kwargs={"autoincrement": False},
    )
    tenant_id: str = Field(sa_type=Text)
    message_id: str = Field(sa_type=Text)
    conversation_id: str = Field(sa_type=Text)
    words: str | None = Field(
        default=None,
        sa_type=TSVECTOR().with_variant(Text(), "sqlite"),
        nullable=True,
    )


class TermRow(Base, table=True):
    """One word, or end of a number, by which a conversation is found."""

    __tablename__ = "conversation_terms"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "conversation_id"], ["conversations.tenant_id", "conversations.id"]
        ),
        Index("ix_conversation_terms_term", "tenant_id", "term", "conversation_id"),
    )
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    conversation_id: str = Field(primary_key=True, sa_type=Text)
    term: str = Field(primary_key=True, sa_type=PLAIN)


class ProgressRow(Base, table=True):
    """How far the index has come, of all tenants (`*`): in the feed, and in what was stored before
    there was an index."""

    __tablename__ = "search_progress"
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    name: str = Field(primary_key=True, sa_type=Text)  # feed, past
    place: str = Field(sa_type=Text)  # a number; the last message, or blank at the end


documents = table(DocumentRow)
terms = table(TermRow)
progress = table(ProgressRow)
