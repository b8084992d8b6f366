"""`gateway providers`: who sends on each channel, how they are, and what an operator says to that.

Everything is read from, and written to, the database itself: running processes follow within a
second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands import process
from gateway.commands.keys import lifetime
from gateway.commands.terminal import Failure, say, table
from gateway.domain import Channel

if TYPE_CHECKING:
    from gateway.adapters import Adapters
    from gateway.settings import Environment
    from gateway.store.breakers import Place
    from gateway.store.pins import Snapshot

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List the providers with their breakers, and put one first for a while.",
)

Name = Annotated[
    str, typer.Argument(metavar="PROVIDER", help="As `gateway providers list` has it.")
]
Only = Annotated[
    Channel | None,
    typer.Option("--channel", help="On one channel; else on all.", show_default=False),
]
RECENT = 5  # switches that a list shows


@commands.command("list")
def list_() -> None:
    """List the chain of each channel in the order in which it is asked, with breakers, blocked
    senders, pins and the last switches.

    \b
    Example:
      gateway providers list
    """
    from gateway.store.pins import snapshot, switched

    env = process.beside()
    made = _adapters(env)
    with process.store(env) as database, database.read() as tx:
        seen, switches = snapshot(tx), switched(tx, None, RECENT)
    rows = [row for channel in Channel for row in _chain(made, channel, seen)]
    if not rows:
        say("No provider is set up.")
        return
    heads = (
        "CHANNEL",
        "PLACE",
        "PROVIDER",
        "BREAKER",
        "FAILURES",
        "LAST ERROR",
        "NEXT PROBE",
        "PINNED",
    )
    table(rows, heads)
    _senders(seen)
    _quotas(made, seen)
    if switches:
        say("\nThe last switches:")
        _switches(switches)


def _adapters(env: Environment) -> Adapters:
    from gateway.adapters import adapters
    from providers._http import Http

    return adapters(env, Http())


def _chain(made: Adapters, channel: Channel, seen: Snapshot) -> list[tuple[object, ...]]:
    held = {pin.provider: pin for pin in reversed(seen.pins) if pin.channel in ("", channel)}
    first = [pin.provider for pin in seen.pins if pin.channel in ("", channel)]
    chain = [route.name for route in made.chains.get(channel, ())]
    chain.sort(key=lambda name: first.index(name) if name in first else len(first))
    return [
        (channel.value, place, name, *_breaker(made, name, seen), _moment(held.get(name)))
        for place, name in enumerate(chain, 1)
    ]


def _breaker(made: Adapters, name: str, seen: Snapshot) -> tuple[object, ...]:
    from gateway import breaker
    from gateway.breaker import Circuit, State
    from gateway.clock import show

    key = (made.routes[name].connection.id, name, "")
    circuit = next((s.circuit for s in seen.standings if s.place.key == key), Circuit())
    error = circuit.error_reason and f"{circuit.error_reason}: {circuit.error_code}"
    waits = None if circuit.state is State.CLOSED else show(breaker.free_at(circuit, seen.now))
    return breaker.shown(circuit, seen.now).value, circuit.failures, error, waits


def _moment(pin: Any) -> str | None:
    from gateway.clock import show

    return show(pin.until) if pin is not None else None


def _senders(seen: Snapshot) -> None:
    from gateway.breaker import State
    from gateway.clock import show

    blocked = [
        (s.place.provider, s.place.sender, s.circuit.error_code, show(s.circuit.retry_at))
        for s in seen.standings
        if s.place.sender and s.circuit.state is not State.CLOSED
    ]
    if blocked:
        say("\nBlocked senders:")
        table(blocked, ("PROVIDER", "SENDER", "CODE", "NEXT PROBE"))


def _quotas(made: Adapters, seen: Snapshot) -> None:
    from gateway.clock import show
    from gateway.quotas import Quotas

    quotas = Quotas(made.routes.values(), lambda: seen.now)
    quotas.see(seen.usage)
    listed = []
    for name in made.routes:
        used, full = quotas.used(name), quotas.may(name, 1)
        if used is not None:
            listed.append((name, *used, show(full.free_at) if full else None))
    if listed:
        say("\nDaily quotas, in people:")
        table(listed, ("PROVIDER", "USED", "LIMIT", "FREE AT"))


def _switches(rows: Any) -> None:
    from gateway.clock import show

    listed = [
        (
            show(row["at"]),
            row["provider"],
            row["what"],
            row["sender"] or row["channel"],
            row["error_reason"] and f"{row['error_reason']}: {row['error_code']}",
            show(row["until"]),
        )
        for row in rows
    ]
    table(listed, ("AT", "PROVIDER", "WHAT", "OF", "CAUSE", "UNTIL"))


@commands.command()
def features() -> None:
    """Print what each provider can do, as the tables of docs/providers.md.

    \b
    Example:
      gateway providers features
    """
    say(_features())


def _features() -> str:
    """What is in the catalogue, whether it is set up here or not."""
    from gateway import catalog, features
    from gateway.adapters import CONSOLE

    named: dict[str, Any] = {}
    for entry in catalog.CATALOG:
        if entry.provider is not None and entry.family != CONSOLE:
            given = getattr(entry.provider, "variants", None)
            variants = given() if given else {"": entry.provider.capabilities}
            named |= {f"{entry.name} {name}".strip(): can for name, can in variants.items()}
    return features.tables(named)


@commands.command()
def log(
    provider: Annotated[str | None, typer.Argument(help="Only of this provider.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=10_000)] = 50,
) -> None:
    """Show what was switched, newest first, each with its cause.

    \b
    Examples:
      gateway providers log
      gateway providers log twilio --limit 200
    """
    from gateway.store.pins import switched

    with process.store(process.beside()) as database, database.read() as tx:
        rows = switched(tx, provider and _plain(provider), limit)
    if not rows:
        say("Nothing.")
        return
    _switches(rows)


@commands.command()
def pin(
    provider: Name,
    duration: Annotated[str, typer.Option("--for", help="For how long, such as 30m, 2h or 1d.")],
    channel: Only = None,
) -> None:
    """Put a provider first for a while. One whose breaker is open is passed over all the same.

    \b
    Examples:
      gateway providers pin twilio --for 2h
      gateway providers pin aws_sns --for 30m --channel sms
    """
    from gateway.clock import show
    from gateway.store import pins

    span = lifetime(duration)
    assert span is not None
    env = process.beside()
    name = _known(env, provider, channel)
    with process.store(env) as database, database.write() as tx:
        made = pins.pin(tx, name, channel.value if channel else "", span)
    say(f"{name} is first{f' on {channel}' if channel else ''} until {show(made.until)}.")


@commands.command()
def unpin(provider: Name, channel: Only = None) -> None:
    """Take a pin off: the provider is back in its place.

    \b
    Example:
      gateway providers unpin twilio
    """
    from gateway.store import pins

    name = _plain(provider)
    with process.store(process.beside()) as database, database.write() as tx:
        gone = pins.unpin(tx, name, channel.value if channel else None)
    if not gone:
        raise Failure(f"{name} is not pinned: see `gateway providers list`")
    say(f"{name} is back in its place.")


@commands.command()
def unblock(
    provider: Name,
    sender: Annotated[
        str | None,
        typer.Option(help="Only this sender of ours; else its breaker and all its senders."),
    ] = None,
) -> None:
    """Ask a provider, or a sender at it, again at once, after something was repaired: with one
    message first.

    \b
    Examples:
      gateway providers unblock twilio
      gateway providers unblock twilio --sender +15550000001
    """
    from gateway.store.batcher import Batcher
    from gateway.store.breakers import HURRY, Hurry

    name = _plain(provider)
    with process.store(process.beside()) as database:
        with database.read() as tx:
            places = _blocked(tx, name, sender)
        if not places:
            raise Failure(f"nothing of {name} is blocked: see `gateway providers list`")
        batcher = Batcher(database, lambda topics: None)
        for result in batcher.write(HURRY, [Hurry(places=tuple(places))])[0]:
            if isinstance(result, Exception):
                raise result
    for place in places:
        say(f"{place.provider}{f', {place.sender},' if place.sender else ''} is asked again.")


def _blocked(tx: Any, name: str, sender: str | None) -> list[Place]:
    from gateway.breaker import State
    from gateway.store.breakers import listed, place_of

    found = [row for row in listed(tx) if row["provider"] == name and row["state"] != State.CLOSED]
    return [place_of(row) for row in found if sender in (None, row["sender"])]


def _plain(provider: str) -> str:
    return provider.lower().replace("-", "_")


def _known(env: Environment, provider: str, channel: Channel | None) -> str:
    """The name of a provider that some chain has.

    Raises:
        Failure: none has.
    """
    name, made = _plain(provider), _adapters(env)
    chains = [made.chains.get(channel, ())] if channel else list(made.chains.values())
    known = sorted({route.name for chain in chains for route in chain})
    if name not in known:
        where = f" of {channel}" if channel else ""
        raise Failure(f"{name} is in no chain{where}: there are {', '.join(known) or 'none'}")
    return name
