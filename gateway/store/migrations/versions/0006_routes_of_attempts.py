"""Who else might have sent an attempt's message: what is throttled afterwards goes there."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes forward."""
    op.add_column("attempts", sa.Column("route", sa.Text(), nullable=True))


def downgrade() -> None:
    """Goes back."""
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_column("route")
