"""Who does not want to be written to, with the proof, and finding a person by any address."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CHATS = "channel IN ('whatsapp', 'rcs')"


def upgrade() -> None:
    """Goes forward."""
    op.create_table(
        "opt_outs",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        *_proof(),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("said_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "channel", "address", name=op.f("pk_opt_outs")),
    )
    with op.batch_alter_table("opt_outs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_opt_outs_recent", ["tenant_id", "updated_at", "channel", "address"], unique=False
        )
        batch_op.create_index(
            "ix_opt_outs_out",
            ["channel"],
            unique=False,
            sqlite_where=sa.text("state = 'out'"),
            postgresql_where=sa.text("state = 'out'"),
        )
    op.create_table(
        "opt_out_events",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        *_proof(),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("said_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_opt_out_events")),
    )
    with op.batch_alter_table("opt_out_events", schema=None) as batch_op:
        batch_op.create_index(
            "ix_opt_out_events_person", ["tenant_id", "channel", "address", "id"], unique=False
        )
    with op.batch_alter_table("conversations", schema=None) as batch_op:
        batch_op.create_index(
            "ix_conversations_person",
            ["tenant_id", "channel", "address"],
            unique=False,
            sqlite_where=sa.text(CHATS),
            postgresql_where=sa.text(CHATS),
        )
    with op.batch_alter_table("conversation_aliases", schema=None) as batch_op:
        batch_op.create_index(
            "ix_conversation_aliases_person", ["tenant_id", "channel", "address"], unique=False
        )


def _proof() -> list[sa.Column[str]]:
    """Who said it, and where that stands."""
    return [
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("connection", sa.Text(), nullable=True),
        sa.Column("our_address", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("attempt_id", sa.Text(), nullable=True),
        sa.Column("inbox_id", sa.Text(), nullable=True),
    ]


def downgrade() -> None:
    """Goes back."""
    with op.batch_alter_table("conversation_aliases", schema=None) as batch_op:
        batch_op.drop_index("ix_conversation_aliases_person")
    with op.batch_alter_table("conversations", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_conversations_person",
            sqlite_where=sa.text(CHATS),
            postgresql_where=sa.text(CHATS),
        )
    op.drop_table("opt_out_events")
    op.drop_table("opt_outs")
