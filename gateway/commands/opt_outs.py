"""`gateway opt-outs`: who is not to be written to, in the database itself; and lists as CSV files.

A file only ever blocks people: nobody is let in by it.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from gateway.cells import guarded, unguarded
from gateway.commands import process
from gateway.commands.terminal import Failure, complain, say, table
from gateway.domain import Channel

if TYPE_CHECKING:
    from gateway.opt_outs import Why
    from gateway.store.database import Database
    from gateway.store.opt_outs import Word

TENANT = "default"
PAGE = 500
SHOWN = 20  # lines of a file that are complained about
HEADS = ("channel", "address", "state", "source", "detail", "our_address", "since", "message_id")

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, block and let in people who do not want to be written to.",
)

By = Annotated[Channel, typer.Option("--channel", help="On which channel.")]
Only = Annotated[
    Channel | None, typer.Option("--channel", help="Only of a channel.", show_default=False)
]
Who = Annotated[str, typer.Argument(metavar="ADDRESS", help="Such as +15551230001.")]


class Which(StrEnum):
    """Which people to list."""

    OUT = "out"
    IN = "in"
    ALL = "all"


Of = Annotated[Which, typer.Option("--state", help="Who is out, who came back, or all.")]


@commands.command("list")
def list_(
    channel: Only = None,
    state: Of = Which.OUT,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)] = 50,
) -> None:
    """List who is not to be written to; what changed last comes first.

    \b
    Examples:
      gateway opt-outs list
      gateway opt-outs list --channel whatsapp --state all
    """
    with process.store(process.beside()) as database:
        rows = list(some(people(database, channel, state), limit))
    if not rows:
        say("Nobody.")
        return
    table([_cells(row) for row in rows], [head.upper() for head in HEADS])


@commands.command()
def add(
    address: Who,
    channel: By = Channel.SMS,
    reason: Annotated[
        str | None, typer.Option(help="Kept as proof, such as how they said so.")
    ] = None,
) -> None:
    """Block a person on a channel, for every provider.

    \b
    Examples:
      gateway opt-outs add +15551230001 --reason "called the desk"
      gateway opt-outs add ada@example.com --channel email
    """
    from gateway.opt_outs import State

    env = process.beside()
    person = address_of(channel, address, env.settings.default_region)
    with process.store(env) as database:
        say_all(database, [word(channel, person, State.OUT, reason)])
    say(f"{person} is not written to by {channel} any more.")


@commands.command()
def remove(address: Who, channel: By = Channel.SMS) -> None:
    """Let a person be written to again. Vendors keep lists of their own: what they block stays
    blocked there.

    \b
    Example:
      gateway opt-outs remove +15551230001
    """
    from gateway.opt_outs import State

    env = process.beside()
    person, *also = names(channel, address, env.settings.default_region)
    with process.store(env) as database:
        (done,) = say_all(database, [word(channel, person, State.IN, None, also)])
    if done is None:
        raise Failure(f"nothing is known of {person} on {channel}: see `gateway opt-outs list`")
    say(f"{person} may be written to by {channel}.")


@commands.command()
def history(address: Who, channel: By = Channel.SMS) -> None:
    """Show every word about a person, the newest first, with its proof.

    \b
    Example:
      gateway opt-outs history +15551230001
    """
    from gateway.clock import show
    from gateway.store import opt_out_edits

    env = process.beside()
    named = names(channel, address, env.settings.default_region)
    with process.store(env) as database, database.read() as tx:
        rows = opt_out_edits.history(tx, TENANT, channel, named, None, PAGE)
    if not rows:
        raise Failure(f"nothing is known of {named[0]} on {channel}")
    heads = ("said_at", "state", "verdict", "source", "detail", "our_address", "message_id")
    listed = [[show(row["said_at"]), *(row[name] for name in heads[1:])] for row in rows]
    table(listed, [head.upper() for head in heads])


@commands.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a line of names.")
    ],
    channel: Annotated[
        Channel, typer.Option("--channel", help="Where the file has no column of that name.")
    ] = Channel.SMS,
    reason: Annotated[str | None, typer.Option(help="The same, for `detail`.")] = None,
) -> None:
    """Block the people of a CSV file: its columns are `address` and, if they are there, `channel`,
    `detail` and `state`. Lines with the state `in` are left out. Safe to run twice.

    \b
    Examples:
      gateway opt-outs import people.csv
      gateway opt-outs import people.csv --channel whatsapp --reason "old system"
    """
    from gateway.opt_outs import State

    env, wrong, count = process.beside(), 0, 0
    with process.store(env) as database, file.open(encoding="utf-8-sig", newline="") as text:
        words: list[Word] = []
        for number, row in _lines(text):
            try:
                if row.get("state") == "in":
                    continue
                by = Channel(row.get("channel") or channel)
                person = _person(by, row.get("address") or "", env.settings.default_region)
            except ValueError as error:
                wrong += 1
                if wrong <= SHOWN:
                    complain(f"line {number}: {error}")
                continue
            words.append(word(by, person, State.OUT, row.get("detail") or reason))
            count += 1
            if len(words) == PAGE:
                say_all(database, words)
                words = []
        say_all(database, words)
    say(f"{count} blocked.")
    if wrong:
        raise Failure(f"{wrong} lines were left out; repair them and import the file again")


def _lines(text: TextIO) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of a file, by their names, without what guards cells from spreadsheets."""
    reader = csv.DictReader(text)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    if "address" not in reader.fieldnames:
        raise Failure("the first line must name the columns, and one must be `address`")
    for row in reader:
        cells = {name: value for name, value in row.items() if name and isinstance(value, str)}
        yield reader.line_num, {name: unguarded(value.strip()) for name, value in cells.items()}


@commands.command()
def export(
    channel: Only = None,
    state: Of = Which.OUT,
    output: Annotated[
        Path | None, typer.Option("--output", help="A new file; else it is printed.")
    ] = None,
) -> None:
    """Write who is not to be written to as CSV.

    \b
    Examples:
      gateway opt-outs export > people.csv
      gateway opt-outs export --state all --output people.csv
    """
    with process.store(process.beside()) as database:
        rows = people(database, channel, state)
        if output is None:
            _write(sys.stdout, rows)
            return
        try:
            with output.open("x", encoding="utf-8", newline="") as text:
                _write(text, rows)
        except OSError as error:
            raise Failure(f"{output} cannot be written: {error.strerror}") from None


def _write(text: TextIO, rows: Iterable[dict[str, Any]]) -> None:
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADS)
    for row in rows:
        writer.writerow([guarded(str(cell or "")) for cell in _cells(row)])


def _cells(row: dict[str, Any]) -> list[Any]:
    from gateway.clock import show

    return [show(row[name]) if name == "since" else row[name] for name in HEADS]


def people(
    database: Database, channel: Channel | None, state: Which, why: Why | None = None
) -> Iterator[dict[str, Any]]:
    """Everybody, page by page, what changed last first."""
    from gateway.store import opt_out_edits

    filters = {"channel": channel.value} if channel is not None else {}
    if state is not Which.ALL:
        filters["state"] = state.value
    place = None
    while True:
        with database.read() as tx:
            rows = opt_out_edits.listed(tx, TENANT, filters, place, PAGE, why)
        yield from rows
        if len(rows) < PAGE:
            return
        last = rows[-1]
        place = (last["updated_at"], last["channel"], last["address"])


def some(rows: Iterator[dict[str, Any]], most: int) -> Iterator[dict[str, Any]]:
    """The first of them."""
    for _, row in zip(range(most), rows, strict=False):
        yield row


def word(
    channel: Channel, address: str, state: Any, reason: str | None, also: Sequence[str] = ()
) -> Word:
    """What is said here of a person, who has further addresses."""
    from gateway.errors import clean
    from gateway.opt_outs import Source
    from gateway.store.opt_out_edits import operator

    said = clean(reason)[:200] if reason else None
    return operator(TENANT, channel.value, address, state, Source.CLI, said or None, also)


def say_all(database: Database, words: Sequence[Word]) -> Sequence[Any]:
    """Stores words as one batch.

    Raises:
        Failure: the database did not take them.
    """
    from gateway.errors import OutcomeUnknown, StoreUnavailable
    from gateway.store.batcher import Batcher
    from gateway.store.opt_out_edits import EDIT

    if not words:
        return []
    try:
        results = Batcher(database, lambda topics: None).write(EDIT, words)[0]
    except (StoreUnavailable, OutcomeUnknown) as error:
        raise Failure(f"{error}; it is safe to do it again") from None
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise Failure(f"not stored: {type(failed[0]).__name__}")
    return results


def _person(channel: Channel, text: str, region: str | None) -> str:
    """An address, normalised.

    Raises:
        AddressError: it is none of that channel.
    """
    from gateway import addresses

    return addresses.person(channel, text, region)


def address_of(channel: Channel, text: str, region: str | None) -> str:
    """An address that could be written to, normalised.

    Raises:
        BadParameter: it is none of that channel.
    """
    from gateway.addresses import AddressError

    try:
        return _person(channel, text, region)
    except AddressError as error:
        raise typer.BadParameter(f"{text}: {error}", param_hint="ADDRESS") from None


def names(channel: Channel, text: str, region: str | None) -> list[str]:
    """How an address to look for may be stored: as every other, and as it was written. It need
    not be one that could be written to."""
    from gateway.addresses import AddressError

    try:
        return list(dict.fromkeys((_person(channel, text, region), text)))
    except AddressError:
        return [text]
