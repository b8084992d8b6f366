"""Emails wait in the inbox until they are read."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

WAITING = "state = 'pending'"


def upgrade() -> None:
    """Goes forward."""
    op.add_column("inbox", sa.Column("tries", sa.Integer(), nullable=True))
    op.add_column("inbox", sa.Column("due_at", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_inbox_pending",
        "inbox",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text(WAITING),
        postgresql_where=sa.text(WAITING),
    )


def downgrade() -> None:
    """Goes back. What was not read by then can be replayed."""
    op.drop_index("ix_inbox_pending", table_name="inbox")
    op.execute("UPDATE inbox SET state = 'malformed', detail = 'not read' WHERE state = 'pending'")
    with op.batch_alter_table("inbox", schema=None) as batch_op:
        batch_op.drop_column("due_at")
        batch_op.drop_column("tries")
