"""`gateway webhooks`: where vendors are to post, and telling them so.

Changes nothing at a vendor unless it is told to apply what it shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands import process
from gateway.commands.client import client
from gateway.commands.terminal import Failure, complain, say, table, visible
from gateway.domain import Change, Installs

if TYPE_CHECKING:
    from gateway.adapters import Adapters
    from gateway.settings import Environment

WITHIN = 60.0  # seconds for one vendor
SILENT = "no answer in time; run this without --apply to see what is left to be changed"
USERINFO = re.compile(r"(?<=://)\S+@")  # up to the last @: a password may hold one, or a slash

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Show where vendors are to post, and set it at the vendors.",
)

Of = Annotated[
    str | None,
    typer.Option("--provider", help="Only this provider or family.", show_default=False),
]
Apply = Annotated[bool, typer.Option("--apply", help="Make the changes; else they are only shown.")]


def route(name: str) -> str:
    """The path of a webhook that is its own: `-` for `_`, as people write URLs."""
    return f"/api/webhooks/{name.replace('_', '-')}"


def address(origin: str, provider: str) -> str:
    """Where the vendor of a provider is to post: to its own webhook, or else to its family's."""
    from gateway import catalog

    own = next(entry for entry in catalog.CATALOG if entry.name == provider)
    kin = [e for e in catalog.CATALOG if e.family == own.family and e.webhook is not None]
    name = provider if own in kin or not kin else kin[0].name
    return origin + route(name)


def without_password(text: str) -> str:
    """A URL's text as it may be shown."""
    return USERINFO.sub("…@", text)


@commands.command("list")
def list_() -> None:
    """Show each webhook, its URL, whether it is on, and which subscriptions are confirmed.

    \b
    Example:
      gateway webhooks list
    """
    from gateway import catalog
    from gateway.adapters import adapters
    from providers._http import Http

    api = client(None, None)
    made = adapters(api.env, Http())
    rows = [
        (entry.name, _state(made, entry.name), without_password(api.origin + route(entry.name)))
        for entry in catalog.CATALOG
        if entry.webhook is not None
    ]
    table(rows, ("WEBHOOK", "STATE", "URL"))
    shared = [without_password(api.origin + route(name)) for name in ("sms", "whatsapp")]
    say(f"\nEach that is on is also taken at {shared[0]} and {shared[1]}.")
    if api.env.settings.public_url is None:
        complain("PUBLIC_URL is not set, so these are the URLs on this machine only")
    _subscriptions(api.env)


def _state(made: Adapters, name: str) -> str:
    if name in made.webhooks:
        return "on"
    return f"off: {made.missing[name]} is not set" if name in made.missing else "off"


def _subscriptions(env: Environment) -> None:
    from gateway.clock import show as moment
    from gateway.store import subscriptions

    path = process.embedded(env)
    if path is not None and not path.exists():
        return  # nobody has started it yet
    try:
        with process.store(env) as database, database.read() as tx:
            rows = subscriptions.listed(tx)
    except Failure as failure:
        complain(f"the subscriptions cannot be shown: {failure}")
        return
    if rows:
        say()
        listed = [(r["topic"], r["state"], moment(r["changed_at"]), r["detail"]) for r in rows]
        table(listed, ("TOPIC", "STATE", "SINCE", "DETAIL"))


@commands.command()
def install(provider: Of = None, apply: Apply = False) -> None:
    """Tell vendors where to post what comes in. Shows the changes; --apply makes them. Safe to
    run twice.

    \b
    Examples:
      gateway webhooks install
      gateway webhooks install --provider twilio --apply
    """
    import asyncio

    asyncio.run(_install(provider, apply))


async def _install(provider: str | None, apply: bool) -> None:
    import asyncio

    from gateway.adapters import adapters
    from gateway.errors import ProviderError
    from providers._http import Http

    api, http, failed = client(None, None), Http(), 0
    made = adapters(api.env, http)
    try:
        for name, one in _installers(made, provider).items():
            try:
                async with asyncio.timeout(WITHIN):
                    changes = await one.install(address(api.origin, name), apply=apply)
            except TimeoutError:
                failed += 1
                complain(f"{name}: {SILENT}")
            except ProviderError as error:
                failed += 1
                if error.changes:
                    _show(name, error.changes, apply)
                complain(f"{name}: {error.text}")
            else:
                _show(name, changes, apply)
    finally:
        for used in made.providers.values():
            await used.aclose()
        await http.aclose()
    if failed:
        raise Failure("not everything is installed; it is safe to run this again")


def _installers(made: Adapters, provider: str | None) -> dict[str, Installs]:
    """Those that can be told where to post."""
    from gateway import catalog

    asked = None if provider is None else {e.name for e in catalog.entries(provider)}
    if asked is not None and not asked:
        raise typer.BadParameter(f"there is no {provider!r}; known are {catalog.known()}")
    able = {n: one for n, one in made.providers.items() if isinstance(one, Installs)}
    chosen: dict[str, Installs] = {n: able[n] for n in able if asked is None or n in asked}
    if not chosen:
        who = f"{provider} is not set up, or has no" if provider else "no provider set up has"
        raise Failure(f"{who} webhooks that can be installed: see `gateway doctor`")
    return chosen


def _show(name: str, changes: Sequence[Change], apply: bool) -> None:
    if not changes:
        say(f"{name}: nothing to change")
        return
    for change in changes:
        before, after = (
            visible(without_password(text)) or "(not set)" for text in (change.before, change.after)
        )
        say(f"{name}: {visible(change.subject)}: {visible(change.setting)}: {before} -> {after}")
    count = f"{len(changes)} change{'s' if len(changes) > 1 else ''}"
    say(f"{name}: {count} made" if apply else f"{name}: {count} to make: add --apply to make them")
