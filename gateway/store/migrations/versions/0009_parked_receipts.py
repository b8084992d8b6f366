"""Callbacks that wait for their attempt, by the time they came."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes forward."""
    op.create_index(
        "ix_receipts_missed",
        "receipts",
        ["id"],
        unique=False,
        sqlite_where=sa.text("verdict = 'parked'"),
        postgresql_where=sa.text("verdict = 'parked'"),
    )


def downgrade() -> None:
    """Goes back."""
    op.drop_index("ix_receipts_missed", table_name="receipts")
