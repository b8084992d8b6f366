"""Rows that are in the order of time need no index of it: each message wrote five entries more."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

UNUSUAL = "state <> 'parsed'"


def upgrade() -> None:
    """Goes forward."""
    op.drop_index("ix_events_created", table_name="events")
    op.drop_index("ix_inbox_received", table_name="inbox")
    op.drop_index("ix_inbox_state", table_name="inbox")
    op.create_index(
        "ix_inbox_unusual",
        "inbox",
        ["state", "id"],
        unique=False,
        sqlite_where=sa.text(UNUSUAL),
        postgresql_where=sa.text(UNUSUAL),
    )


def downgrade() -> None:
    """Goes back."""
    op.drop_index("ix_inbox_unusual", table_name="inbox")
    op.create_index("ix_inbox_state", "inbox", ["state", "id"], unique=False)
    op.create_index("ix_inbox_received", "inbox", ["received_at"], unique=False)
    op.create_index("ix_events_created", "events", ["created_at"], unique=False)
