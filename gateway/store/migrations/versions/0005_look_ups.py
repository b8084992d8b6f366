"""Look-ups and backfill: by what an outcome was settled, when to ask next, who last listened."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes forward."""
    op.add_column("attempts", sa.Column("settled_by", sa.Text(), nullable=True))
    op.add_column("receipts", sa.Column("source", sa.Text(), nullable=True))
    op.create_table(
        "lookups",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "attempt_id", name=op.f("pk_lookups")),
    )
    op.create_index("ix_lookups_due", "lookups", ["due_at"], unique=False)
    op.create_table(
        "backfills",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("heard_at", sa.BigInteger(), nullable=False),
        sa.Column("missing_since", sa.BigInteger(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("token", sa.Text(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "connection", "account", name=op.f("pk_backfills")),
    )


def downgrade() -> None:
    """Goes back."""
    op.drop_table("backfills")
    op.drop_index("ix_lookups_due", table_name="lookups")
    op.drop_table("lookups")
    with op.batch_alter_table("receipts", schema=None) as batch_op:
        batch_op.drop_column("source")
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_column("settled_by")
