"""The queue holds whom a message may be sent by; breakers, pins and switches are shared."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WAITING = "lease_until = 0"


def upgrade() -> None:
    """Goes forward."""
    _ready("provider", "route", ["route", "lane", "due_at", "message_id"])
    op.add_column("attempts", sa.Column("retry_at", sa.BigInteger(), nullable=True))
    op.add_column("attempts", sa.Column("why", sa.Text(), nullable=True))
    op.create_table(
        "breakers",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("messages", sa.Text(), nullable=False),
        sa.Column("successes", sa.Integer(), nullable=False),
        sa.Column("openings", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=True),
        sa.Column("retry_at", sa.BigInteger(), nullable=False),
        sa.Column("probe_token", sa.Text(), nullable=True),
        sa.Column("probe_until", sa.BigInteger(), nullable=False),
        sa.Column("error_reason", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("connection", "provider", "sender", name=op.f("pk_breakers")),
    )
    op.create_table(
        "provider_pins",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "provider", "channel", name=op.f("pk_provider_pins")),
    )
    op.create_table(
        "provider_switches",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("connection", sa.Text(), nullable=True),
        sa.Column("sender", sa.Text(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("error_reason", sa.Text(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provider_switches")),
    )
    op.create_index("ix_provider_switches_at", "provider_switches", ["at"], unique=False)


def downgrade() -> None:
    """Goes back: a message is left to the first of those that may send it."""
    op.drop_table("provider_switches")
    op.drop_table("provider_pins")
    op.drop_table("breakers")
    with op.batch_alter_table("attempts", schema=None) as batch_op:
        batch_op.drop_column("why")
        batch_op.drop_column("retry_at")
    first = "split_part(route, ',', 1)"
    if op.get_bind().dialect.name == "sqlite":
        first = "substr(route, 1, instr(route || ',', ',') - 1)"
    op.execute(f"UPDATE queue SET route = {first}")
    _ready("route", "provider", ["lane", "due_at", "message_id"])


def _ready(old: str, new: str, columns: list[str]) -> None:
    """Renames the column, without copying the table, and makes the index of what is due anew."""
    op.drop_index("ix_queue_ready", "queue")
    op.execute(f"ALTER TABLE queue RENAME COLUMN {old} TO {new}")
    op.create_index(
        "ix_queue_ready",
        "queue",
        columns,
        unique=False,
        sqlite_where=sa.text(WAITING),
        postgresql_where=sa.text(WAITING),
    )
