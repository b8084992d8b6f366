"""Messages that show the network's id are found by the vendor's, too."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

KNOWN = "network_id IS NOT NULL"


def upgrade() -> None:
    """Goes forward."""
    op.create_index(
        "ix_attempts_sent_as",
        "attempts",
        ["provider_message_id"],
        unique=False,
        sqlite_where=sa.text(KNOWN),
        postgresql_where=sa.text(KNOWN),
    )


def downgrade() -> None:
    """Goes back."""
    op.drop_index(
        "ix_attempts_sent_as",
        table_name="attempts",
        sqlite_where=sa.text(KNOWN),
        postgresql_where=sa.text(KNOWN),
    )
