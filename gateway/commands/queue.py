"""`gateway queue`: what is held back in the queue, in the database itself; hold it, let it go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands import process
from gateway.commands.terminal import Failure, say, table

if TYPE_CHECKING:
    from gateway.store.database import Database

PAGE = 500
HEADS = ("MESSAGE", "CHANNEL", "STATUS", "WHY", "ATTEMPTS", "SINCE")

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at what is held back in the queue, hold it, let it go.",
)

Ids = Annotated[list[str] | None, typer.Argument(metavar="[MESSAGE]...", help="Ids of messages.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@commands.command("list")
def list_(
    held: Annotated[
        bool, typer.Option("--held/--waiting", help="What is held, or what waits for its turn.")
    ] = True,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)] = 50,
) -> None:
    """List what is held, oldest first; or what waits.

    \b
    Examples:
      gateway queue list
      gateway queue list --waiting --limit 200
    """
    from gateway.store.holds import waiting

    with process.store(process.beside()) as database, database.read() as tx:
        rows = waiting(tx, held=held, limit=limit)
    if not rows:
        say("Nothing.")
        return
    table([_cells(row) for row in rows], HEADS)


@commands.command()
def hold(ids: Ids = None, all_: All = False) -> None:
    """Hold what waits: nothing of it is sent until it is released. After a restore, before the
    first start, so that what was sent since the backup is not sent again.

    \b
    Examples:
      gateway queue hold --all
    """
    from gateway.store.holds import HOLD, Hold

    _change(ids, all_, HOLD, Hold, held=False, word="held")


@commands.command()
def release(ids: Ids = None, all_: All = False) -> None:
    """Let held messages go: what was put aside after claims that led nowhere, or held by you.

    \b
    Examples:
      gateway queue release msg_0199…
      gateway queue release --all
    """
    from gateway.store.holds import FREE, Free

    _change(ids, all_, FREE, Free, held=True, word="released")


@commands.command()
def retry(
    id_: Annotated[str, typer.Argument(metavar="MESSAGE", help="The id of a message.")],
    even_if_sent: Annotated[
        bool, typer.Option("--even-if-sent", help="Also if it may have been sent already.")
    ] = False,
) -> None:
    """Send a message once more that failed, by those who might send it at first.

    \b
    Examples:
      gateway queue retry msg_0199…
      gateway queue retry msg_0199… --even-if-sent
    """
    from gateway.store.queries import attempts_of, message
    from gateway.store.retries import AGAIN, Again, first_route

    env = process.beside()
    with process.store(env) as database:
        with database.read() as tx:
            row, attempts = message(tx, "default", id_), attempts_of(tx, "default", id_)
        if row is None or row["direction"] != "outbound":
            raise Failure(f"{id_} is no message of ours")
        person = (row["tenant_id"], row["channel"], row["to_address"])
        route = first_route(attempts) or row["provider"]
        expiry = int(env.settings.message_expiry * 1000)
        item = Again("default", id_, person, route, expiry, even_if_sent=even_if_sent)
        refused = _result(database, AGAIN, item)
    if refused is not None:
        raise Failure(refused.replace('send {"even_if_sent": true}', "give --even-if-sent"))
    say(f"{id_} queued")


def _change(
    ids: list[str] | None, all_: bool, operation: Any, item: Any, *, held: bool, word: str
) -> None:
    if bool(ids) == all_:
        raise typer.BadParameter("name messages, or give --all")
    with process.store(process.beside()) as database:
        if all_:
            say(f"{_everything(database, operation, item, held=held)} {word}")
            return
        for id_ in ids or ():
            if not _write(database, operation, item((("default", id_),))):
                raise Failure(f"{id_} is not {'held' if held else 'waiting'}; others may be {word}")
            say(f"{id_} {word}")


def _everything(database: Database, operation: Any, item: Any, *, held: bool) -> int:
    from gateway.store.holds import waiting

    done = 0
    while True:
        with database.read() as tx:
            rows = waiting(tx, held=held, limit=PAGE)
        keys = tuple((row["tenant_id"], row["message_id"]) for row in rows)
        changed = _write(database, operation, item(keys)) if keys else 0
        done += changed
        if not changed:
            return done


def _write(database: Database, operation: Any, item: Any) -> int:
    return int(_result(database, operation, item))


def _result(database: Database, operation: Any, item: Any) -> Any:
    from gateway.store.batcher import Batcher

    (result,), _ = Batcher(database, lambda topics: None).write(operation, [item])
    if isinstance(result, Exception):
        raise Failure(str(result))
    return result


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    from gateway.clock import show

    why = row["error_code"] or ""
    return (
        str(row["message_id"]),
        str(row["channel"]),
        str(row["status"]),
        str(why),
        str(row["attempts"]),
        str(show(row["created_at"])),
    )
