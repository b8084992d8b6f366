"""Who may send a message, kept beyond its place in the queue, so that it can be sent again."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes forward."""
    op.add_column("messages", sa.Column("route", sa.Text(), nullable=True))


def downgrade() -> None:
    """Goes back."""
    with op.batch_alter_table("messages", schema=None) as batch_op:
        batch_op.drop_column("route")
