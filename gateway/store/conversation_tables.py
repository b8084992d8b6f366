"""The tables of what we keep beside a conversation for ourselves: its labels and its notes."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, Text
from sqlmodel import Field

from gateway.store.tables import Base, table


class LabelRow(Base, table=True):
    """One label of a conversation. The conversation's own column lists the same ones, in order."""

    __tablename__ = "conversation_labels"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "conversation_id"], ["conversations.tenant_id", "conversations.id"]
        ),
        Index("ix_conversation_labels_label", "tenant_id", "label", "conversation_id"),
    )
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    conversation_id: str = Field(primary_key=True, sa_type=Text)
    label: str = Field(primary_key=True, sa_type=Text)


class NoteRow(Base, table=True):
    """What somebody of ours wrote down about a conversation; it is never sent."""

    __tablename__ = "conversation_notes"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "conversation_id"], ["conversations.tenant_id", "conversations.id"]
        ),
        Index("ix_conversation_notes_conversation", "tenant_id", "conversation_id", "id"),
    )
    tenant_id: str = Field(primary_key=True, sa_type=Text)
    id: str = Field(primary_key=True, sa_type=Text)
    conversation_id: str = Field(sa_type=Text)
    author: str | None = Field(default=None, sa_type=Text, nullable=True)
    body: str = Field(sa_type=Text)
    created_at: int = Field(sa_type=BigInteger)


labels = table(LabelRow)
notes = table(NoteRow)
