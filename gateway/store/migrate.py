"""Brings a database's schema up to date, one process at a time, without losing data.

Whether there is anything to do is learned without loading the migration library, since the
answer is nearly always no and a start should be quick.
"""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy import inspect

from gateway.store.database import Database

SCRIPTS = Path(__file__).parent / "migrations"

log = logging.getLogger("gateway.store")


def head() -> str:
    """The newest revision: the last of the numbered files."""
    return max(path.stem for path in (SCRIPTS / "versions").glob("[0-9]*.py"))[:4]


def current(database: Database) -> str | None:
    """The revision a database stands at; None for an empty one."""
    with database.read() as tx:
        if not inspect(tx.connection).has_table("alembic_version"):
            return None
        row = tx.run("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row is not None else None


def needed(database: Database) -> bool:
    """Whether `upgrade` has anything to do."""
    return current(database) != head()


def newer(database: Database) -> bool:
    """Whether a later version has upgraded it: nothing here leads back."""
    return (current(database) or "") > head()


def upgrade(database: Database) -> str:
    """Runs what is missing, under a lock, in one transaction. Returns the revision reached."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    with database.migrate() as tx:
        config.attributes["connection"] = tx.connection
        command.upgrade(config, "head")
    log.info("the database stands at revision %s", head())
    return head()
