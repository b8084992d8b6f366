"""`gateway db`: the schema of the database, and what is to be done after a restore."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from gateway.commands import lock, process
from gateway.commands.terminal import Failure, say

if TYPE_CHECKING:
    from gateway.store.database import Database

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at or upgrade the database's schema; say it was restored.",
)


@commands.command()
def upgrade() -> None:
    """Bring the database to this version's revision. Safe to run twice, and by several at once.

    \b
    Example:
      DATABASE_URL=postgresql://gateway@db/gateway gateway db upgrade
    """
    from gateway.store import migrate

    env = process.beside()
    path = process.embedded(env)
    if path is not None:
        process.folder(env)
    with process.store(env, current=False) as database:
        before = after = migrate.current(database)
        if migrate.newer(database):
            raise Failure(process.NEWER)
        if migrate.needed(database):
            with lock.held(path, "db") if path is not None else contextlib.nullcontext():
                after = migrate.upgrade(database)
    text = "nothing to do" if before == after else f"{before or 'empty'} -> {after}"
    say(f"{after}: {text}" if before == after else text)


@commands.command()
def current() -> None:
    """Show the revision the database stands at, and whether it is this version's."""
    from gateway.store import migrate

    with process.store(process.beside(), current=False) as database:
        revision, needed = migrate.current(database), migrate.needed(database)
        fix = process.NEWER if migrate.newer(database) else "run `gateway db upgrade`"
    newest = f"; this version's is {migrate.head()}: {fix}" if needed else ""
    say(f"{revision or 'empty'}{newest}")


@commands.command()
def restored() -> None:
    """Say that the database was restored from a backup, before the first start: what waits in it
    is held, as it may have been sent since. A start notices it by itself where SPOOL_DIR is still
    that of before.

    \b
    Example:
      gateway db restored
    """
    import asyncio

    env = process.beside()
    with process.store(env) as database:
        count = asyncio.run(_restored(database, env.settings.spool))
    say(f"{count} held. See `gateway queue list`, and let go with `gateway queue release`.")


async def _restored(database: Database, spool: Path) -> int:
    from gateway.restores import by_hand
    from gateway.store.batcher import Batcher
    from gateway.store.reader import Reader

    batcher, reader = Batcher(database, lambda topics: None), Reader(database)
    batcher.start()
    try:
        return await by_hand(batcher, reader, spool)
    finally:
        await batcher.stop()
        reader.close()
