"""Runs migrations on a connection that `gateway.store.migrate` opened and locked."""

from alembic import context

from gateway.store import (
    breaker_tables,
    conversation_tables,
    opt_out_tables,
    restore_tables,
    search_tables,
    seen_tables,
    signing_tables,
    vendor_tables,
)
from gateway.store.tables import Base

EVERY = (
    breaker_tables,
    conversation_tables,
    opt_out_tables,
    restore_tables,
    search_tables,
    seen_tables,
    signing_tables,
    vendor_tables,
)  # they add theirs to the metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
