"""What the network calls a message, and what vendors tell of what is ours there."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

KNOWN = "network_id IS NOT NULL"


def upgrade() -> None:
    """Goes forward."""
    op.add_column("attempts", sa.Column("network_id", sa.Text(), nullable=True))
    op.create_index(
        "ix_attempts_network_id",
        "attempts",
        ["connection", "network_id"],
        unique=True,
        sqlite_where=sa.text(KNOWN),
        postgresql_where=sa.text(KNOWN),
    )
    op.add_column("receipts", sa.Column("network_id", sa.Text(), nullable=True))
    op.add_column("receipts", sa.Column("aliases", sa.Text(), nullable=True))
    op.create_table(
        "notices",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("dedupe_key", sa.Text(), nullable=False),
        sa.Column("inbox_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_notices")),
        sa.UniqueConstraint(
            "connection", "dedupe_key", name=op.f("uq_notices_connection_dedupe_key")
        ),
    )
    op.create_index("ix_notices_received_at", "notices", ["received_at"], unique=False)


def downgrade() -> None:
    """Goes back."""
    op.drop_table("notices")
    op.drop_index(
        "ix_attempts_network_id",
        table_name="attempts",
        sqlite_where=sa.text(KNOWN),
        postgresql_where=sa.text(KNOWN),
    )
    with op.batch_alter_table("receipts", schema=None) as batch_op:
        batch_op.drop_column("aliases")
        batch_op.drop_column("network_id")
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_column("network_id")
