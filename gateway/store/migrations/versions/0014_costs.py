"""What attempts are expected to cost, and where they go. What is older has no estimate."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes forward."""
    op.add_column("messages", sa.Column("cost_estimated", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("country", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("units", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("estimated_cost", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("estimated_currency", sa.Text(), nullable=True))


def downgrade() -> None:
    """Goes back; a message keeps no price that its vendor did not tell."""
    op.execute("UPDATE messages SET cost = NULL, currency = NULL WHERE cost_estimated = 1")
    for name in ("estimated_currency", "estimated_cost", "units", "country"):
        op.drop_column("attempts", name)  # a copy of a table would break what refers to it
    op.drop_column("messages", "cost_estimated")
