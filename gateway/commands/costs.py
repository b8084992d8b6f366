"""`gateway costs`: what sending cost, and what it would have elsewhere, in the database itself."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands import process
from gateway.commands.terminal import say, table
from gateway.domain import Channel

if TYPE_CHECKING:
    from gateway.prices import Prices
    from gateway.store.database import Database
    from gateway.store.spending import Spent

TENANT = "default"
WAYS = ("provider", "channel", "country", "day")

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Show what sending cost, and what it would have cost with other providers.",
)

Month = Annotated[
    str | None,
    typer.Option(help="Such as 2026-10; this month, if none is named.", show_default=False),
]
Only = Annotated[
    Channel | None, typer.Option("--channel", help="Only of a channel.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


@commands.command("show")
def show_(
    by: Annotated[str, typer.Option(help="provider, channel, country or day.")] = "provider",
    month: Month = None,
    channel: Only = None,
    as_json: AsJson = False,
) -> None:
    """Show what a month's sending cost: as vendors say, else as the list of prices has it.

    \b
    Examples:
      gateway costs show
      gateway costs show --month 2026-10 --by country --channel sms
    """
    from gateway.costs import By, Free, sums

    if by not in WAYS:
        raise typer.BadParameter(f"must be one of {', '.join(WAYS)}", param_hint="--by")
    prices, lines = _spent(month, channel)
    items = sums(Free(prices).billed(lines), By(by))
    if as_json:
        say(json.dumps(items, indent=2))
        return
    rows = [row for item in items for row in _rows(item["key"], item)]
    if not rows:
        say("Nothing was sent.")
        return
    heads = (by, "messages", "segments", "amount", "currency", "reported", "estimated", "free")
    table(rows, [head.upper() for head in (*heads, "unpriced")])


@commands.command()
def compare(month: Month = None, channel: Only = None, as_json: AsJson = False) -> None:
    """Show what a month's messages would have cost with each provider first, by the list of prices.

    \b
    Examples:
      gateway costs compare --month 2026-10
      gateway costs compare --channel email --json
    """
    from gateway.costs import compared

    prices, lines = _spent(month, channel)
    found = compared(lines, prices)
    if as_json:
        say(json.dumps(found, indent=2))
        return
    if not found:
        say("Nothing was sent.")
        return
    rows: list[list[Any]] = []
    for one in found:
        rows += _compared(one["channel"], "as it was", one["actual"])
        for first in one["first"]:
            rows += _compared(one["channel"], first["provider"], first)
    heads = ("channel", "first", "messages", "amount", "currency", "free", "unpriced", "notes")
    table(rows, [head.upper() for head in heads])


def _rows(key: str | None, item: dict[str, Any]) -> list[list[Any]]:
    """An item, a row for each currency."""
    start, end = [key, item["messages"], item["segments"]], [item["unpriced"]]
    names = ("amount", "currency", "reported", "estimated", "free")
    money = [[cost[name] for name in names] for cost in item["cost"]]
    return [[*start, *cells, *end] for cells in money or [[None] * len(names)]]


def _compared(channel: str, first: str, item: dict[str, Any]) -> list[list[Any]]:
    names = ("amount", "currency", "free")
    money = [[cost[name] for name in names] for cost in item["cost"]]
    start = [channel, first, item["messages"]]
    end = [item["unpriced"], "; ".join(item.get("notes", ()))]
    return [[*start, *cells, *end] for cells in money or [[None] * len(names)]]


def _spent(month: str | None, channel: Channel | None) -> tuple[Prices, list[Spent]]:
    """A month, and the list of prices."""
    from gateway import catalog, prices

    env = process.beside()
    known = prices.load(env.settings.prices_file, catalog.providers())
    since, until = _range(month)
    with process.store(env) as database:
        return known, _read(database, since, until, channel)


def _read(database: Database, since: int, until: int, channel: Channel | None) -> list[Spent]:
    """Day by day, so that nothing is held for long."""
    from gateway.costs import pieces
    from gateway.store.spending import spent

    found: list[Spent] = []
    for start, end in pieces(since, until):
        with database.read() as tx:
            found += spent(tx, TENANT, start, end, channel.value if channel else None)
    return found


def _range(month: str | None) -> tuple[int, int]:
    """A month (UTC), in milliseconds."""
    from gateway.clock import SystemClock, to_ms

    if month is None:
        first = SystemClock().now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    elif re.fullmatch(r"[12][0-9]{3}-(?:0[1-9]|1[0-2])", month):
        first = datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC)
    else:
        raise typer.BadParameter("must be such as 2026-10", param_hint="--month")
    later = first.month == 12
    following = first.replace(year=first.year + later, month=1 if later else first.month + 1)
    return to_ms(first), to_ms(following)
