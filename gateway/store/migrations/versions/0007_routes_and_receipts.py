"""Who else might have sent an attempt's message: what is throttled afterwards goes there. And an
index of the receipts that belong to nobody, so that they can be forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes forward."""
    op.add_column("attempts", sa.Column("route", sa.Text(), nullable=True))
    op.create_index(
        "ix_receipts_foreign",
        "receipts",
        ["received_at"],
        unique=False,
        sqlite_where=sa.text("verdict = 'foreign'"),
        postgresql_where=sa.text("verdict = 'foreign'"),
    )


def downgrade() -> None:
    """Goes back."""
    op.drop_index("ix_receipts_foreign", table_name="receipts")
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_column("route")
