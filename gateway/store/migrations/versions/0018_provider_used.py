"""The log of what was sent names a provider only where one was asked: before an attempt it is only
who is first in the chain."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

OF_MESSAGE = "FROM attempts AS a WHERE a.tenant_id = m.tenant_id AND a.message_id = m.id"
# What has a key of the vendor's was said by ourselves in an application of the vendor's: it was
# sent, and never tried.
USED = f"CASE WHEN m.dedupe_key IS NOT NULL OR EXISTS (SELECT 1 {OF_MESSAGE}) THEN m.provider END"
VIEW = f"""
VIEW communication_logs AS
SELECT
  m.tenant_id, m.id AS message_id, m.conversation_id, m.channel, m.type,
  m.to_address AS recipient, m.from_address AS sender, m.purpose, m.status,
  {{provider}} AS provider, m.provider_message_id,
  (SELECT COUNT(*) {OF_MESSAGE}) AS attempts,
  m.segments, m.cost, m.currency, m.cost_estimated,
  m.created_at, m.send_at, m.sent_at, m.delivered_at, m.read_at,
  m.error_code, m.error_message, m.error_provider, m.meta AS metadata
FROM messages AS m WHERE m.direction = 'outbound'
"""


def upgrade() -> None:
    """Goes forward."""
    _change(USED)


def downgrade() -> None:
    """Goes back."""
    _change("m.provider")


def _change(provider: str) -> None:
    view = VIEW.format(provider=provider)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"CREATE OR REPLACE {view}")  # who may read it, may read it still
        return
    op.execute("DROP VIEW communication_logs")
    op.execute(f"CREATE {view}")
