"""Whose a conversation is, labels and notes, and what finds conversations and messages quickly."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

CONVERSATION = ("tenant_id", "conversation_id")
ASSIGNED, UNREAD, NOT_TEXT = "assignee IS NOT NULL", "unread_count > 0", "type <> 'text'"
INDEXES = (
    ("conversations", "address", ("tenant_id", "address", "id"), None),
    ("conversations", "ours", ("tenant_id", "our_address", "id"), None),
    ("conversations", "status", ("tenant_id", "status", "id"), None),
    ("conversations", "assignee", ("tenant_id", "assignee", "id"), ASSIGNED),
    ("conversations", "unread", ("tenant_id", "id"), UNREAD),
    ("messages", "status", ("tenant_id", "status", "id"), None),
    ("messages", "to", ("tenant_id", "to_address", "id"), None),
    ("messages", "from", ("tenant_id", "from_address", "id"), None),
    ("messages", "channel", ("tenant_id", "channel", "id"), None),
    ("messages", "type", ("tenant_id", "type", "id"), NOT_TEXT),
)


def upgrade() -> None:
    """Goes forward."""
    for name in ("assignee", "labels", "own_name"):
        op.add_column("conversations", sa.Column(name, sa.Text(), nullable=True))
    op.create_table(
        "conversation_labels",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        _of_a_conversation("conversation_labels"),
        sa.PrimaryKeyConstraint(*CONVERSATION, "label", name=op.f("pk_conversation_labels")),
    )
    op.create_index(
        "ix_conversation_labels_label",
        "conversation_labels",
        ["tenant_id", "label", "conversation_id"],
        unique=False,
    )
    op.create_table(
        "conversation_notes",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        _of_a_conversation("conversation_notes"),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_conversation_notes")),
    )
    op.create_index(
        "ix_conversation_notes_conversation",
        "conversation_notes",
        [*CONVERSATION, "id"],
        unique=False,
    )
    for table, name, columns, only in INDEXES:
        op.create_index(f"ix_{table}_{name}", table, list(columns), unique=False, **_where(only))


def _of_a_conversation(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        CONVERSATION,
        ["conversations.tenant_id", "conversations.id"],
        name=op.f(f"fk_{table}_conversations"),
    )


def _where(only: str | None) -> dict[str, Any]:
    if only is None:
        return {}
    return {"sqlite_where": sa.text(only), "postgresql_where": sa.text(only)}


def downgrade() -> None:
    """Goes back."""
    for table, name, _, only in INDEXES:
        op.drop_index(f"ix_{table}_{name}", table_name=table, **_where(only))
    op.drop_index("ix_conversation_notes_conversation", table_name="conversation_notes")
    op.drop_table("conversation_notes")
    op.drop_index("ix_conversation_labels_label", table_name="conversation_labels")
    op.drop_table("conversation_labels")
    for name in ("own_name", "labels", "assignee"):
        op.drop_column("conversations", name)  # a copy of the table would break what refers to it
