"""What the settings allow to be built: providers, webhooks, connections and chains.

Part of the composition root: it reads the catalogue, so that nobody else has to.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway import catalog
from gateway.domain import Channel, Connection, FileStore, MediaFetcher, Provider, Webhook
from gateway.errors import SettingsError
from gateway.files import Folder
from gateway.routing import Route
from gateway.settings import Environment, Settings, variables_of
from providers._http import Http

DEVELOPMENT_SECRETS = "development-secrets.json"
CONSOLE = "console"


@dataclass(kw_only=True)
class Adapters:
    """The providers and webhooks that are set up, and why the others are not."""

    providers: dict[str, Provider] = field(default_factory=dict)
    routes: dict[str, Route] = field(default_factory=dict)
    chains: dict[Channel, tuple[Route, ...]] = field(default_factory=dict)
    webhooks: dict[str, Webhook] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    connections: dict[str, Connection] = field(default_factory=dict)
    fetchers: dict[str, MediaFetcher] = field(default_factory=dict)


def development_secrets(settings: Settings, *, keep: bool = True) -> dict[str, str]:
    """Secrets of a developer's machine, made once and kept in the data folder, so that signed
    webhooks can be tried without an account. Empty in production. Without `keep` nothing is
    written: what is not there is made for this time only.

    Raises:
        SettingsError: the file cannot be read; the text says what to do.
    """
    if not settings.development:
        return {}
    path = settings.data_dir / DEVELOPMENT_SECRETS
    known = _kept(path)
    made = dict(known)
    for entry in catalog.CATALOG:
        # Making a key pair takes a tenth of a second: only where something is missing.
        if entry.webhook is not None and not made.keys() >= set(entry.webhook.Settings.required):
            for name, value in entry.webhook.development().items():
                made.setdefault(name, value)
    if keep and made != known:
        private_file(path, json.dumps(made, indent=1))
    return made


def _kept(path: Path) -> dict[str, str]:
    try:
        known = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError(
            f"{path} in DATA_DIR cannot be read ({error.strerror}): give it to this user."
        ) from None
    except ValueError:
        known = None
    if not isinstance(known, dict) or not all(isinstance(value, str) for value in known.values()):
        raise SettingsError(
            f"{path} in DATA_DIR is damaged: delete it, and the secrets of development are made "
            "anew."
        )
    return known


def private_file(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # for its owner only
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def unset(environment: Environment, model: Any) -> list[str]:
    """The variables that an adapter needs and that are not set."""
    return [name for name in model.required if not environment.has(name)]


def named(settings: Settings) -> tuple[str, ...]:
    """Every provider or family that the settings name."""
    return tuple(name for _, name in _naming(settings))


def _naming(settings: Settings) -> Iterator[tuple[str, str]]:
    """The variables that name providers, each with what it names."""
    if settings.messaging_provider:
        yield "MESSAGING_PROVIDER", settings.messaging_provider
    for channel in (Channel.SMS, Channel.WHATSAPP, Channel.EMAIL):
        for name in settings.chain(channel):
            yield f"{channel.upper()}_PROVIDERS", name


def adapters(environment: Environment, http: Http, *, keep: bool = True) -> Adapters:
    """Builds what the settings allow. Without `keep` nothing is written to the data folder.

    Raises:
        SettingsError: a provider is named, or half set up, and a variable is missing.
    """
    settings = environment.settings
    made = Adapters()
    _check_names(settings)
    for entry in catalog.CATALOG:
        if entry.provider is not None and _wanted(environment, entry):
            _add_provider(made, environment, entry, http)
    _check_named(environment, made)
    extra = development_secrets(settings, keep=keep)
    for entry in catalog.CATALOG:
        if entry.webhook is not None:
            _add_webhook(made, environment, entry, extra)
    made.chains = {channel: _chain(settings, made, channel) for channel in Channel}
    return made


def _check_names(settings: Settings) -> None:
    if settings.messaging_provider is None and not settings.development:
        raise SettingsError(
            f"MESSAGING_PROVIDER is not set; set it to one of {catalog.senders()} "
            "(or GATEWAY_ENV=development to try the gateway without a vendor)."
        )
    for variable, name in _naming(settings):
        if not any(entry.provider is not None for entry in catalog.entries(name)):
            raise SettingsError(f"{variable} names {name!r}; known are {catalog.senders()}.")


def _wanted(environment: Environment, entry: catalog.Entry) -> bool:
    """Whether a provider is set up: named, or all that it needs is there.

    Raises:
        SettingsError: it is named, or half set up, and a variable is missing.
    """
    settings, model = environment.settings, entry.provider.Settings  # type: ignore[union-attr]
    asked = any(entry in tuple(catalog.entries(name)) for name in named(settings))
    # A family is asked for what of it is set up: see `_check_named`.
    by_name = any(entry.name == catalog.plain(name) for name in named(settings))
    if entry.family == CONSOLE:
        return asked or (settings.development and settings.messaging_provider is None)
    # `joins`: what must be set where nobody names it, if that is more than what is required;
    # `shared`: what tells nothing by itself, as other software is configured by it, too.
    joins = () if asked else getattr(model, "joins", ())
    lacking = [name for name in joins or model.required if not environment.has(name)]
    if not lacking:
        return True
    if by_name:
        raise _unable(entry, lacking)
    silent = {*getattr(model, "shared", ())}
    silent |= {*entry.webhook.Settings.required} if entry.webhook is not None else set()
    begun = [n for n in variables_of(model) if environment.has(n) and n not in silent]
    begun = [n for n in begun if not n.endswith("_API_URL")]
    if begun:
        named_too = f", or name {entry.name} in a chain" if joins else ""
        raise SettingsError(
            f"{lacking[0]} is not set, but {begun[0]} is: set both, or neither{named_too}."
        )
    return False


def _check_named(environment: Environment, made: Adapters) -> None:
    """Whoever is named has something to send by.

    Raises:
        SettingsError: a variable is missing.
    """
    for name in named(environment.settings):
        entries = [entry for entry in catalog.entries(name) if entry.provider is not None]
        if entries and not any(entry.name in made.providers for entry in entries):
            model: Any = entries[0].provider
            raise _unable(entries[0], unset(environment, model.Settings))


def _unable(entry: catalog.Entry, lacking: Sequence[str]) -> SettingsError:
    return SettingsError(f"{lacking[0]} is not set, and {entry.name} cannot send without it.")


def _add_provider(made: Adapters, environment: Environment, entry: Any, http: Http) -> None:
    settings = environment.fill(entry.provider.Settings)
    connection: Connection = entry.provider.connection(settings)
    provider = entry.provider(settings, http=http, timeout=environment.settings.send_timeout)
    made.providers[entry.name] = provider
    made.routes[entry.name] = Route(entry.name, provider.capabilities, connection)
    known = made.connections.get(connection.id)  # of another product of the same account
    senders = {**known.senders, **connection.senders} if known else connection.senders
    made.connections[connection.id] = replace(connection, senders=senders)
    if provider.capabilities.fetches_media:
        made.fetchers[connection.id] = provider


def _add_webhook(
    made: Adapters, environment: Environment, entry: Any, extra: Mapping[str, str]
) -> None:
    model: Any = entry.webhook.Settings
    for name in getattr(model, "development_only", ()):  # also where the webhook is off
        if environment.has(name) and not environment.settings.development:
            raise SettingsError(
                f"{name} is for development only: unset it, or set GATEWAY_ENV=development."
            )
    lacking = [n for n in unset(environment, model) if n not in extra]
    if lacking:
        made.missing[entry.name] = lacking[0]
        return
    settings = environment.fill(model, extra)
    webhook = entry.webhook(settings)
    made.webhooks[entry.name] = webhook
    made.connections.setdefault(
        entry.family, Connection(id=entry.family, tenant_id="default", family=entry.family)
    )


def _chain(settings: Settings, made: Adapters, channel: Channel) -> tuple[Route, ...]:
    """The providers of a channel, best first: those that are named for it, else the one that sends
    in general and then every other that has credentials and a sender there."""
    first = settings.messaging_provider or "console"
    wanted = settings.chain(channel)
    entries = [entry for name in wanted or (first,) for entry in catalog.entries(name)]
    listed = [made.routes[entry.name] for entry in entries if entry.name in made.routes]
    # The console stands in for vendors: it helps none out, and none goes on where it ends.
    if not wanted and all(entry.family != CONSOLE for entry in entries):
        others = (made.routes.get(e.name) for e in catalog.CATALOG if e.family != CONSOLE)
        listed += [r for r in others if r is not None and channel in r.connection.senders]
    able = (route for route in listed if channel in route.capabilities.channels)
    return tuple({route.name: route for route in able}.values())


def file_store(environment: Environment) -> FileStore:
    """Where files are kept.

    Raises:
        SettingsError: there is no such place, or a variable that it needs is missing.
    """
    settings = environment.settings
    if settings.media_store is None:
        return Folder(settings.data_dir / "media")
    scheme, _, place = settings.media_store.partition("://")
    kind = catalog.STORES.get(scheme)
    if kind is None:
        listed = " or ".join(f"{known}://…" for known in sorted(catalog.STORES))
        raise SettingsError(f"MEDIA_STORE must be {listed}, or unset for a folder in DATA_DIR.")
    made: FileStore = kind(environment.fill(kind.Settings), place)
    return made
