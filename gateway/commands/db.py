"""`gateway db`: the schema of the database."""

from __future__ import annotations

import contextlib

import typer

from gateway.commands import lock, process
from gateway.commands.terminal import say

commands = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at or upgrade the database's schema."
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
    newest = f"; this version's is {migrate.head()}: run `gateway db upgrade`" if needed else ""
    say(f"{revision or 'empty'}{newest}")
