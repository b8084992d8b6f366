"""The log of what was sent, as a view; what messages are sent for has a column to be found by."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

KNOWN = "purpose IS NOT NULL"
SAID = {  # by metadata.purpose, where that is a text
    "sqlite": "json_extract(meta, '$.purpose')",
    "postgresql": "meta::json ->> 'purpose'",
}
KIND = {
    "sqlite": "json_type(meta, '$.purpose') = 'text'",
    "postgresql": "json_typeof(meta::json -> 'purpose') = 'string'",
}
VIEW = """
CREATE VIEW communication_logs AS
SELECT
  m.tenant_id, m.id AS message_id, m.conversation_id, m.channel, m.type,
  m.to_address AS recipient, m.from_address AS sender, m.purpose, m.status,
  m.provider, m.provider_message_id,
  (SELECT COUNT(*) FROM attempts AS a
   WHERE a.tenant_id = m.tenant_id AND a.message_id = m.id) AS attempts,
  m.segments, m.cost, m.currency, m.cost_estimated,
  m.created_at, m.send_at, m.sent_at, m.delivered_at, m.read_at,
  m.error_code, m.error_message, m.error_provider, m.meta AS metadata
FROM messages AS m WHERE m.direction = 'outbound'
"""


def upgrade() -> None:
    """Goes forward."""
    op.add_column("messages", sa.Column("purpose", sa.Text(), nullable=True))
    dialect = op.get_bind().dialect.name
    op.execute(
        f"UPDATE messages SET purpose = {SAID[dialect]} WHERE direction = 'outbound' "
        f"AND meta LIKE '%\"purpose\"%' AND {KIND[dialect]} "
        f"AND length({SAID[dialect]}) BETWEEN 1 AND 100"
    )
    op.create_index(
        "ix_messages_purpose",
        "messages",
        ["tenant_id", "purpose", "id"],
        unique=False,
        sqlite_where=sa.text(KNOWN),
        postgresql_where=sa.text(KNOWN),
    )
    op.execute(VIEW)


def downgrade() -> None:
    """Goes back."""
    op.execute("DROP VIEW communication_logs")
    op.drop_index(
        "ix_messages_purpose",
        table_name="messages",
        sqlite_where=sa.text(KNOWN),
        postgresql_where=sa.text(KNOWN),
    )
    op.drop_column("messages", "purpose")
