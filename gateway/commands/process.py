"""What the commands that run, or look into, the gateway share: settings and a ready database."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.commands.lock import found
from gateway.commands.terminal import Failure

if TYPE_CHECKING:
    from gateway.settings import Environment
    from gateway.store.database import Database

UPGRADE = "The database is not at this version's revision: run `gateway db upgrade` first."
NEWER = (
    "The database was upgraded by a later version than this one: start that version, "
    "or restore the backup from before the upgrade."
)


def environment(**overrides: str | None) -> Environment:
    """The settings of this process; what was given on the command line wins."""
    from gateway.settings import load

    given = {name: value for name, value in overrides.items() if value is not None}
    return load(Path(".env"), **given)


def beside() -> Environment:
    """The settings as the gateway that runs here has them, for commands that talk to it: it may
    have been started with another port, or with --dev."""
    own = environment()
    serving = found(own.settings.data_dir)
    if serving is None or own.has("GATEWAY_ENV"):
        return own
    return own.with_(GATEWAY_ENV=serving.env)


def check_store(env: Environment) -> None:
    """Says what is wrong with DATABASE_URL without showing it.

    Raises:
        SettingsError: it cannot be used.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    from gateway.errors import SettingsError

    try:
        url = make_url(env.settings.store_url)
        kind, file = url.drivername, url.database not in (None, "", ":memory:")
    except ArgumentError:
        kind, file = "", False
    if kind not in ("sqlite", "postgresql+psycopg") or (kind == "sqlite" and not file):
        raise SettingsError(
            "DATABASE_URL must be a URL such as sqlite:////var/lib/gateway/gateway.db or "
            "postgresql://user:password@host/database."
        )
    if kind != "sqlite" and find_spec("psycopg") is None:
        raise SettingsError(
            "DATABASE_URL names PostgreSQL, whose driver is not installed: "
            "install messaging-gateway[postgres]."
        )


def embedded(env: Environment) -> Path | None:
    """Where the embedded database lies; None for a server's."""
    from sqlalchemy import make_url

    url = make_url(env.settings.store_url)
    return Path(url.database) if url.drivername == "sqlite" and url.database else None


def folder(env: Environment) -> Path:
    """The data folder, made where it is missing, for its owner only.

    Raises:
        Failure: it cannot be made or written.
    """
    path = env.settings.data_dir
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Failure(f"DATA_DIR {path} cannot be made: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise Failure(f"DATA_DIR {path} cannot be written: give it to this user, or name another")
    return path


@contextlib.contextmanager
def store(env: Environment, *, current: bool = True) -> Iterator[Database]:
    """The database, closed at the end. `current`: only if its schema is this version's.

    Raises:
        Failure: it cannot be reached, or is not at this version's revision.
    """
    from gateway.store import migrate
    from gateway.store.database import Database

    check_store(env)
    database = Database(env.settings.store_url, retry=env.settings.retry)
    try:
        with readable(database):
            if current and migrate.needed(database):
                raise Failure(unfit(database))
            yield database
    finally:
        database.close()


@contextlib.contextmanager
def readable(database: Database) -> Iterator[None]:
    """Tells in a sentence that a database cannot be used.

    Raises:
        Failure: instead of what the database's library raises.
    """
    from sqlalchemy.exc import DBAPIError, TimeoutError as PoolTimeout

    if database.path is not None:
        database.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        cause = getattr(error, "orig", None) or error
        text = str(cause).strip().partition("\n")[0]
        raise Failure(f"the database cannot be used: {text}") from None


def prepare(database: Database) -> None:
    """Makes the schema of an embedded database this version's; a server's is the operator's.

    Raises:
        Failure: it cannot be used, or is to be upgraded first.
    """
    from gateway.store import migrate

    with readable(database):
        if migrate.needed(database):
            if not database.sqlite or migrate.newer(database):
                raise Failure(unfit(database))
            migrate.upgrade(database)


def unfit(database: Database) -> str:
    """What to do about a schema of another version."""
    from gateway.store import migrate

    return NEWER if migrate.newer(database) else UPGRADE
