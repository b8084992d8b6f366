"""`gateway inbox`: the raw webhooks that were verified, another try at reading them, and asking
the vendor for those that never came."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands import inbox_export, process
from gateway.commands.inbox_rows import State, chosen, moment_of
from gateway.commands.terminal import Failure, facts, say, table, visible

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.adapters import Adapters
    from gateway.backfill import Result, Source
    from gateway.settings import Environment
    from gateway.store.database import Database

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at the verified webhooks as they came, and read them again.",
)


commands.command()(inbox_export.export)


@commands.command("list")
def list_(
    state: Annotated[State, typer.Option(help="Only those of a state.")] = State.ALL,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)] = 50,
) -> None:
    """List what came, newest first.

    \b
    Examples:
      gateway inbox list
      gateway inbox list --state malformed
    """
    from gateway.clock import show as moment
    from gateway.store import inbox_queries

    only = None if state is State.ALL else state.value
    with process.store(process.beside()) as database, database.read() as tx:
        rows = inbox_queries.listed(tx, only, limit)
    if not rows:
        say("Nothing.")
        return
    listed = [
        (r["id"], moment(r["received_at"]), r["webhook"], r["state"], r["detail"]) for r in rows
    ]
    table(listed, ("ID", "RECEIVED", "WEBHOOK", "STATE", "DETAIL"))


@commands.command()
def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="As `gateway inbox list` shows it.")],
) -> None:
    """Show one request: what is kept of its headers, how it was verified, and its body.

    \b
    Example:
      gateway inbox show inb_01k…
    """
    from gateway.clock import show as moment
    from gateway.store import inbox_queries

    with process.store(process.beside()) as database, database.read() as tx:
        row = inbox_queries.one(tx, id_)
    if row is None:
        raise Failure(f"there is no {id_} in the inbox: see `gateway inbox list`")
    facts(
        [
            ("id", row["id"]),
            ("received", moment(row["received_at"])),
            ("webhook", row["webhook"]),
            ("connection", row["connection"]),
            ("verdict", row["verdict"]),
            ("state", row["state"]),
            ("detail", row["detail"]),
            ("replayed", moment(row["replayed_at"])),
        ]
    )
    say(f"\n{visible(row['method'])} {visible(row['url'])}")
    for name, value in json.loads(row["headers"]).items():
        say(f"{visible(name)}: {visible(value)}")
    say(f"\n{visible(bytes(row['body']).decode('utf-8', 'backslashreplace'), lines=True)}")


@commands.command()
def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Requests.")] = None,
    state: Annotated[
        State | None, typer.Option(help="All of a state, instead.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="All since then, such as 2h or 2026-11-22T00:00Z.", show_default=False),
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Store nothing, and show what is read differently.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --diff: for programs.")] = False,
) -> None:
    """Read requests again with this version's adapters, and store what they say. Nothing is
    stored twice. With --diff nothing is stored at all: the exit code is 1 if this version reads
    something in another way than it is stored.

    \b
    Examples:
      gateway inbox replay inb_01k…
      gateway inbox replay --state malformed
      gateway inbox replay --diff --since 2h
    """
    if bool(ids) == (state is not None or since is not None):
        raise typer.BadParameter("give either IDs of requests, or --state or --since")
    if as_json and not diff:
        raise typer.BadParameter("--json is for --diff")
    from gateway.adapters import adapters
    from gateway.commands import inbox_diff
    from providers._http import Http

    env, start = process.beside(), moment_of(since) if since is not None else None
    made = adapters(env, Http(), keep=not diff)
    with process.store(env) as database:
        rows = chosen(database, ids or (), state or State.ALL, start)
        if diff:
            inbox_diff.show(database, made, rows, as_json=as_json)
            return
        lost = sum(not _replayed(database, made, row) for row in rows)
    if lost:
        raise Failure(f"{lost} could not be replayed")


def _replayed(database: Database, made: Adapters, row: dict[str, Any]) -> bool:
    """Reads one again; whether that could be done at all."""
    from gateway.inbound import Inbound, verified
    from gateway.store.batcher import Batcher
    from gateway.store.inbox_queries import REPLAY, Replay

    webhook = made.webhooks.get(row["webhook"])
    if webhook is None:
        variable = made.missing.get(row["webhook"], "its adapter")
        say(f"{row['id']}  {row['state']}: {visible(row['webhook'])} is off, {variable} is missing")
        return False
    batcher = Batcher(database, lambda topics: None)
    delivery = Inbound(batcher, made.connections).delivery(webhook, verified(row), None)
    results = batcher.write(REPLAY, [Replay(row["id"], delivery)])[0]
    failed = next((result for result in results if isinstance(result, Exception)), None)
    if failed is not None:
        say(f"{row['id']}  {row['state']}: not stored ({type(failed).__name__})")
        return False
    detail = f" ({visible(delivery.detail)})" if delivery.detail else ""
    say(f"{row['id']}  {row['state']} -> {delivery.state}{detail}")
    return True


@commands.command()
def backfill(
    since: Annotated[
        str, typer.Option(help="How long ago, such as 2h, or a time such as 2026-11-22T00:00Z.")
    ],
    provider: Annotated[
        str | None, typer.Option(help="Only this provider.", show_default=False)
    ] = None,
    limit: Annotated[
        int, typer.Option(help="How many messages are looked at, the newest.", min=1, max=1_000_000)
    ] = 10_000,
    dry_run: Annotated[bool, typer.Option(help="Store nothing, and say what is missing.")] = False,
) -> None:
    """Ask the vendor for what it said since a time, and store what is missing: messages of people,
    and what became of ours. Nothing is stored twice, and nothing is sent.

    \b
    Examples:
      gateway inbox backfill --since 2h --dry-run
      gateway inbox backfill --since 2026-11-22T00:00Z --provider twilio
    """
    env, start = process.beside(), moment_of(since)
    with process.store(env) as database:
        results = asyncio.run(_backfilled(env, database, provider, start, limit, not dry_run))
    rows = [(n, r.seen, r.messages, r.statuses, r.unreadable) for n, r in results.items()]
    said = "MISSING" if dry_run else "STORED"
    table(rows, ("PROVIDER", "LOOKED AT", f"MESSAGES {said}", f"STATUSES {said}", "UNREADABLE"))
    if cut := [name for name, result in results.items() if result.cut]:
        raise Failure(f"{', '.join(cut)} had more than {limit}: older ones were not looked at")


async def _backfilled(
    env: Environment,
    database: Database,
    only: str | None,
    since: datetime,
    limit: int,
    store: bool,
) -> dict[str, Result]:
    from gateway.adapters import adapters
    from gateway.backfill import Backfill
    from gateway.clock import SystemClock
    from gateway.errors import OutcomeUnknown, ProviderError, StoreUnavailable
    from gateway.store.batcher import Batcher
    from providers._http import Http

    http = Http()
    made = adapters(env, http)
    batcher = Batcher(database, lambda topics: None)
    batcher.start()
    results = {}
    try:
        for name, source in _sources(made, batcher, only).items():
            run = Backfill(batcher, source, SystemClock(), since, limit, store)
            try:
                results[name] = await run.run()
            except (ProviderError, StoreUnavailable, OutcomeUnknown) as error:
                raise Failure(f"{name}: {error}; try again, nothing is stored twice") from None
    finally:
        await http.aclose()
        await batcher.stop()
    return results


def _sources(made: Adapters, batcher: Any, only: str | None) -> dict[str, Source]:
    from gateway.backfill import Source
    from gateway.domain import Backfills
    from gateway.fetched import readings
    from gateway.inbound import Inbound

    read = readings(made.providers, made.routes, made.webhooks, Inbound(batcher, made.connections))
    found = {
        name: Source(provider, read[name])
        for name, provider in made.providers.items()
        if isinstance(provider, Backfills) and name in read and only in (None, name)
    }
    if not found:
        who = only or "no provider that is set up"
        raise Failure(f"{visible(who)} can be asked for what it said: only twilio can")
    return found
