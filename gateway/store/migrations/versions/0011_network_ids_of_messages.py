"""Messages show the network's id beside the vendor's, and are found by it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

KNOWN = "network_id IS NOT NULL"


def upgrade() -> None:
    """Goes forward."""
    op.add_column("messages", sa.Column("network_id", sa.Text(), nullable=True))
    op.create_index(
        "ix_messages_network_id",
        "messages",
        ["network_id"],
        unique=False,
        sqlite_where=sa.text(KNOWN),
        postgresql_where=sa.text(KNOWN),
    )


def downgrade() -> None:
    """Goes back."""
    op.drop_index("ix_messages_network_id", table_name="messages")
    with op.batch_alter_table("messages", schema=None) as batch_op:
        batch_op.drop_column("network_id")
