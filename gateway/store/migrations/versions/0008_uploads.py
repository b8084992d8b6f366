"""Uploads: files that belong to no message, what they hash to, and the keys of their links."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OF_A_MESSAGE = ("message_id", "connection", "reference")


def upgrade() -> None:
    """Goes forward."""
    op.create_table(
        "signing_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_signing_keys")),
    )
    with op.batch_alter_table("media", schema=None) as batch_op:
        batch_op.add_column(sa.Column("sha256", sa.Text(), nullable=True))
        for name in OF_A_MESSAGE:
            batch_op.alter_column(name, existing_type=sa.Text(), nullable=True)
    with op.batch_alter_table("media", schema=None) as batch_op:
        batch_op.create_index("ix_media_id", ["id"], unique=True)
        batch_op.create_index(
            "ix_media_kept",
            ["created_at"],
            unique=False,
            sqlite_where=sa.text("state IN ('stored', 'dropping')"),
            postgresql_where=sa.text("state IN ('stored', 'dropping')"),
        )


def downgrade() -> None:
    """Goes back. Uploads belong to no message, and have no place there."""
    op.execute("DELETE FROM media WHERE message_id IS NULL")
    op.drop_index("ix_media_kept", table_name="media")
    op.drop_index("ix_media_id", table_name="media")
    with op.batch_alter_table("media", schema=None) as batch_op:
        for name in OF_A_MESSAGE:
            batch_op.alter_column(name, existing_type=sa.Text(), nullable=False)
        batch_op.drop_column("sha256")
    op.drop_table("signing_keys")
