"""`gateway suppressions`: the email addresses that are not written to, in the database itself."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.commands import opt_outs, process
from gateway.commands.opt_outs import Which
from gateway.commands.terminal import Failure, say, table
from gateway.domain import Channel
from gateway.opt_outs import SAID, Source, State, Why, why_blocked

HEADS = ("address", "reason", "source", "detail", "since", "message_id")

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, add and remove email addresses that are not written to.",
)

Who = Annotated[str, typer.Argument(metavar="ADDRESS", help="Such as ada@example.com.")]


@commands.command("list")
def list_(
    reason: Annotated[
        Why | None, typer.Option(help="Only of a reason.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)] = 50,
) -> None:
    """List the email addresses that are not written to; what changed last comes first.

    \b
    Examples:
      gateway suppressions list
      gateway suppressions list --reason bounce
    """
    from gateway.clock import show

    with process.store(process.beside()) as database:
        found = opt_outs.people(database, Channel.EMAIL, Which.OUT, reason)
        rows = list(opt_outs.some(found, limit))
    if not rows:
        say("None.")
        return
    listed = [
        {
            **row,
            "since": show(row["since"]),
            "reason": why_blocked(Source(row["source"]), row["detail"]),
        }
        for row in rows
    ]
    table([[row[head] for head in HEADS] for row in listed], [head.upper() for head in HEADS])


@commands.command()
def add(
    address: Who,
    reason: Annotated[Why, typer.Option(help="What it is known by.")] = Why.MANUAL,
) -> None:
    """Write to an email address no more, by any provider.

    \b
    Examples:
      gateway suppressions add ada@example.com
      gateway suppressions add ada@example.com --reason complaint
    """
    person = opt_outs.address_of(Channel.EMAIL, address, None)
    with process.store(process.beside()) as database:
        word = opt_outs.word(Channel.EMAIL, person, State.OUT, SAID[reason])
        opt_outs.say_all(database, [word])
    say(f"{person} is not written to any more.")


@commands.command()
def remove(address: Who) -> None:
    """Write to an email address again. Vendors keep lists of their own: what they suppress stays
    suppressed there.

    \b
    Example:
      gateway suppressions remove ada@example.com
    """
    person, *also = opt_outs.names(Channel.EMAIL, address, None)
    with process.store(process.beside()) as database:
        word = opt_outs.word(Channel.EMAIL, person, State.IN, None, also)
        (done,) = opt_outs.say_all(database, [word])
    if done is None:
        raise Failure(f"nothing is known of {person}: see `gateway suppressions list`")
    say(f"{person} may be written to.")
