"""Which providers the messages of a tenant have ever named."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Goes forward."""
    op.create_table(
        "providers_seen",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "provider", name=op.f("pk_providers_seen")),
    )
    op.execute(
        "INSERT INTO providers_seen (tenant_id, provider) "
        "SELECT DISTINCT tenant_id, provider FROM messages WHERE provider IS NOT NULL"
    )


def downgrade() -> None:
    """Goes back."""
    op.drop_table("providers_seen")
