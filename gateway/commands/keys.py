"""`gateway keys`: makes, lists and ends keys of the API, in the database itself."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from gateway.commands import process
from gateway.commands.terminal import Failure, complain, say, table

TENANT = "default"
DAY = 86_400_000
UNITS = {"m": 60_000, "h": 3_600_000, "d": DAY}

commands = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make, list and end keys of the API."
)


def lifetime(text: str | None) -> int | None:
    """A duration such as 90d in milliseconds."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})([mhd])", text)
    if match is None:
        raise typer.BadParameter("must be a time such as 30m, 12h or 90d")
    return int(match[1]) * UNITS[match[2]]


@commands.command()
def create(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    expires: Annotated[
        str | None, typer.Option(help="After how long it ends, such as 90d; else never.")
    ] = None,
) -> None:
    """Make a key. It is shown once.

    \b
    Examples:
      gateway keys create billing
      gateway keys create ci --expires 90d
    """
    from gateway.errors import clean
    from gateway.store import keys

    kept_for = lifetime(expires)
    with process.store(process.beside()) as database, database.write() as tx:
        ends = None if kept_for is None else tx.now + kept_for
        made = keys.make(tx, tenant_id=TENANT, name=clean(name), expires_at=ends)
    say(made)
    complain("keep it now: only its hash is stored")


@commands.command("list")
def list_() -> None:
    """List the keys, without what is secret of them."""
    from gateway.clock import show
    from gateway.store import keys

    with process.store(process.beside()) as database, database.read() as tx:
        now, rows = tx.now, keys.all_of(tx, TENANT)
    if not rows:
        say("There are no keys: `gateway keys create NAME` makes one.")
        return
    listed = [
        (row["id"], row["name"], _state(row, now), show(row["created_at"]), show(row["expires_at"]))
        for row in rows
    ]
    table(listed, ("ID", "NAME", "STATE", "CREATED", "EXPIRES"))


def _state(row: dict[str, int | None], now: int) -> str:
    if row["revoked_at"] is not None:
        return "revoked"
    expires = row["expires_at"]
    return "expired" if expires is not None and expires <= now else "valid"


@commands.command()
def revoke(
    id_: Annotated[str, typer.Argument(metavar="ID", help="As `gateway keys list` shows it.")],
) -> None:
    """End a key: at once in new requests, within 30 seconds where it is in use.

    \b
    Example:
      gateway keys revoke 7h2k9m4x1c0a
    """
    from gateway.store import keys

    with process.store(process.beside()) as database, database.write() as tx:
        done = keys.revoke(tx, TENANT, id_)
    if not done:
        raise Failure(f"there is no valid key {id_}: see `gateway keys list`")
    say(f"{id_} is revoked.")
