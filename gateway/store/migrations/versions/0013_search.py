"""The index of what was said, and of whom conversations are with. It fills itself afterwards."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Words begin with five characters for their tenant. Each length of a beginning has an index of its
# own: without one, FTS5 gathers every message with any such word before it gives the first.
LENGTHS = " ".join(str(5 + length) for length in range(1, 16))
WORDS = (
    "CREATE VIRTUAL TABLE search_words USING fts5(words, content='', detail=none, columnsize=0, "
    f"tokenize='ascii', prefix='{LENGTHS}')"
)


def upgrade() -> None:
    """Goes forward."""
    op.create_table(
        "search_documents",
        sa.Column(
            "n",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
            autoincrement=False,
        ),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("words", TSVECTOR().with_variant(sa.Text(), "sqlite"), nullable=True),
        sa.PrimaryKeyConstraint("n", name=op.f("pk_search_documents")),
        sa.UniqueConstraint(
            "tenant_id", "message_id", name=op.f("uq_search_documents_tenant_id_message_id")
        ),
    )
    op.create_index(
        "ix_search_documents_recent", "search_documents", ["tenant_id", "n"], unique=False
    )
    op.create_index(
        "ix_search_documents_words",
        "search_documents",
        ["words"],
        unique=False,
        postgresql_using="gin",
        postgresql_with={"fastupdate": "off"},
        sqlite_where=sa.text("words IS NOT NULL"),
        postgresql_where=sa.text("words IS NOT NULL"),
    )
    op.create_table(
        "conversation_terms",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("term", sa.Text(collation="C").with_variant(sa.Text(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(
            ("tenant_id", "conversation_id"),
            ["conversations.tenant_id", "conversations.id"],
            name=op.f("fk_conversation_terms_conversations"),
        ),
        sa.PrimaryKeyConstraint(
            "tenant_id", "conversation_id", "term", name=op.f("pk_conversation_terms")
        ),
    )
    op.create_index(
        "ix_conversation_terms_term",
        "conversation_terms",
        ["tenant_id", "term", "conversation_id"],
        unique=False,
    )
    op.create_table(
        "search_progress",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_search_progress")),
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute(WORDS)


def downgrade() -> None:
    """Goes back."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE search_words")
    op.drop_table("search_progress")
    op.drop_index("ix_conversation_terms_term", table_name="conversation_terms")
    op.drop_table("conversation_terms")
    op.drop_index("ix_search_documents_words", table_name="search_documents")
    op.drop_index("ix_search_documents_recent", table_name="search_documents")
    op.drop_table("search_documents")
