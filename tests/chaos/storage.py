"""The database of a simulation: the product's schema and statements on SQLite in memory, with
virtual time, and with triggers that see every row as it is written.

A trigger is a rule that holds at each write, whoever writes: what breaks it is a `Violation`.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.pool import StaticPool

from gateway.store.database import NOW, Database
from gateway.store.migrate import upgrade
from gateway.store.tx import Tx

EPOCH = 1_800_000_000_000  # milliseconds: when a simulation begins
BROKEN = "broken: "  # how the text of a rule begins

MAY_BEGIN = """
SELECT CASE
  WHEN NOT EXISTS (SELECT 1 FROM queue AS q WHERE q.tenant_id = NEW.tenant_id
    AND q.message_id = NEW.message_id AND q.lease_token = NEW.lease_token
    AND q.lease_until > virtual_now())
  THEN RAISE(ABORT, 'broken: an attempt began without a lease that holds')
  WHEN EXISTS (SELECT 1 FROM messages AS m WHERE m.tenant_id = NEW.tenant_id
    AND m.id = NEW.message_id AND m.ended_as IS NOT NULL)
  THEN RAISE(ABORT, 'broken: an attempt began at a message that we ended')
  WHEN EXISTS (SELECT 1 FROM messages AS m WHERE m.tenant_id = NEW.tenant_id
    AND m.id = NEW.message_id AND m.expires_at <= virtual_now())
  THEN RAISE(ABORT, 'broken: an attempt began at a message whose time was over')
  WHEN EXISTS (SELECT 1 FROM opt_outs AS o WHERE o.tenant_id = NEW.tenant_id
    AND o.address = NEW.recipient AND o.state = 'out')
  THEN RAISE(ABORT, 'broken: an attempt began though the person had opted out')
  WHEN EXISTS (SELECT 1 FROM attempts AS a WHERE a.tenant_id = NEW.tenant_id
    AND a.message_id = NEW.message_id
    AND a.status IN ('sending', 'accepted', 'sent', 'delivered', 'read'))
  THEN RAISE(ABORT, 'broken: an attempt began beside one that was under way or taken')
  WHEN (SELECT m.on_unknown FROM messages AS m WHERE m.tenant_id = NEW.tenant_id
    AND m.id = NEW.message_id) = 'hold'
    AND EXISTS (SELECT 1 FROM attempts AS a WHERE a.tenant_id = NEW.tenant_id
    AND a.message_id = NEW.message_id AND a.status = 'unknown')
  THEN RAISE(ABORT, 'broken: an attempt began though an earlier one may have been taken')
END"""
ONE_AT_A_TIME = """
SELECT CASE WHEN EXISTS (SELECT 1 FROM queue AS e WHERE e.tenant_id = NEW.tenant_id
  AND e.conversation_id = NEW.conversation_id AND e.lane = NEW.lane
  AND e.message_id <> NEW.message_id AND e.lease_until > 0)
  THEN RAISE(ABORT, 'broken: two messages of a conversation were under way at once')
  WHEN EXISTS (SELECT 1 FROM queue AS e WHERE e.tenant_id = NEW.tenant_id
  AND e.conversation_id = NEW.conversation_id AND e.lane = NEW.lane
  AND e.message_id < NEW.message_id AND e.quarantined = 0
  AND (e.attempts > 0 OR e.due_at <= virtual_now()))
  THEN RAISE(ABORT, 'broken: a message overtook an older one of its conversation')
  WHEN NEW.due_at > virtual_now()
  THEN RAISE(ABORT, 'broken: a message was leased before its time')
  WHEN NEW.quarantined <> 0
  THEN RAISE(ABORT, 'broken: a message that is held was leased')
END"""
RULES = f"""
CREATE TEMP TRIGGER begins BEFORE INSERT ON main.attempts BEGIN {MAY_BEGIN}; END;
CREATE TEMP TRIGGER leases BEFORE UPDATE OF lease_token ON main.queue
  WHEN NEW.lease_until > 0 AND OLD.lease_until = 0 BEGIN {ONE_AT_A_TIME}; END;
CREATE TEMP TRIGGER hands BEFORE INSERT ON main.queue
  WHEN NEW.lease_until > 0 BEGIN {ONE_AT_A_TIME}; END;
CREATE TEMP TRIGGER ranks BEFORE UPDATE OF status, rank ON main.attempts
  WHEN NEW.rank < OLD.rank OR (NEW.rank = OLD.rank AND NEW.status <> OLD.status
    AND NOT (OLD.status = 'unknown' AND NEW.error_code = 'outcome_unknown'))
  BEGIN SELECT RAISE(ABORT, 'broken: evidence moved an attempt back'); END;
CREATE TEMP TRIGGER ids BEFORE UPDATE OF provider_message_id ON main.attempts
  WHEN OLD.provider_message_id IS NOT NULL
    AND OLD.provider_message_id IS NOT NEW.provider_message_id
  BEGIN SELECT RAISE(ABORT, 'broken: a vendor id was taken from its attempt'); END;
CREATE TEMP TRIGGER stays BEFORE UPDATE OF status ON main.messages
  WHEN (OLD.status = 'delivered' AND NEW.status NOT IN ('delivered', 'read'))
    OR (OLD.status = 'read' AND NEW.status <> 'read')
  BEGIN SELECT RAISE(ABORT, 'broken: a delivery was undone'); END;
CREATE TEMP TRIGGER keeps BEFORE DELETE ON main.messages
  BEGIN SELECT RAISE(ABORT, 'broken: a message was deleted'); END;
"""


class Violation(Exception):
    """A rule was broken."""


def broken(error: BaseException) -> Violation | None:
    """The rule that an error tells of, be it the database's, if it is one."""
    if isinstance(error, Violation):
        return error
    cause = getattr(error, "orig", None) or error.__cause__ or error
    text = str(cause)
    return Violation(text.removeprefix(BROKEN)) if text.startswith(BROKEN) else None


@cache
def schema() -> bytes:
    """An empty database as the product's own migrations leave it."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        database = Database(f"sqlite:///{Path(folder) / 'empty.db'}")
        upgrade(database)
        database.close()
        with sqlite3.connect(Path(folder) / "empty.db") as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
            found = connection.serialize()
        connection.close()
        return found


class Storage:
    """One database of all simulated processes. There is one connection: transactions run to their
    end without a turn of the loop, as serialised ones appear to."""

    dialect, sqlite = "sqlite", True

    def __init__(self, time: Callable[[], float]) -> None:
        self.url = make_url("sqlite://")
        self._time = time
        self._engine = create_engine(
            "sqlite://",
            poolclass=StaticPool,
            hide_parameters=True,
            connect_args={"cached_statements": 2048, "check_same_thread": False},
        )
        self.connection: Connection = self._engine.connect()
        self.driver: Any = self.connection.connection.dbapi_connection
        self.driver.isolation_level = None
        self.driver.deserialize(schema())
        # The one place where the product asks what time it is (`NOW`) gets ours.
        self.driver.create_function("julianday", 1, self._julianday)
        self.driver.create_function("virtual_now", 0, self.now)
        self.driver.execute("PRAGMA foreign_keys=ON")
        self.driver.execute("PRAGMA journal_mode=MEMORY")
        self.driver.execute("PRAGMA synchronous=OFF")
        self.driver.executescript(RULES)

    def now(self) -> int:
        """The database's time, in milliseconds."""
        return EPOCH + int(self._time() * 1000)

    def _julianday(self, _: str) -> float:
        return (self.now() + 0.5) / 86_400_000 + 2440587.5

    def begin(self) -> Tx:
        """A transaction."""
        self.driver.execute("BEGIN")
        tx = Tx(self.connection, self.dialect, 0)
        tx.now = int(tx.run(NOW[self.dialect]).scalar())
        return tx

    def commit(self) -> None:
        """Keeps it."""
        self.driver.execute("COMMIT")

    def rollback(self) -> None:
        """Undoes it."""
        if self.driver.in_transaction:
            self.driver.execute("ROLLBACK")

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """What a query finds."""
        return list(self.driver.execute(sql, values).fetchall())

    def close(self) -> None:
        """Forgets everything."""
        self.connection.close()
        self._engine.dispose()
