"""The composition root: settings in, ASGI app and worker out.

Everything else is given what it needs from here; nobody else looks into the catalogue.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route as WebRoute
from starlette.types import ASGIApp

from gateway import catalog
from gateway.clock import SystemClock
from gateway.domain import Channel, Clock, Connection, MediaFetcher, Provider, Webhook
from gateway.errors import SettingsError
from gateway.events import Hub
from gateway.health import Watch
from gateway.inbound import Inbound
from gateway.media import Folder, MediaWorker
from gateway.outbound import Outbound
from gateway.routing import Retry, Route
from gateway.settings import Environment, Settings, variables_of
from gateway.store.batcher import Batcher
from gateway.store.database import Database
from gateway.store.listener import Listener
from gateway.store.reader import Reader
from gateway.worker import Limits, Worker
from providers._http import Http

log = logging.getLogger("gateway")

DEVELOPMENT_SECRETS = "development-secrets.json"


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


def development_secrets(settings: Settings) -> dict[str, str]:
    """Secrets of a developer's machine, made once and kept in the data folder, so that signed
    webhooks can be tried without an account. Empty in production."""
    if not settings.development:
        return {}
    path = settings.data_dir / DEVELOPMENT_SECRETS
    known: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    made = dict(known)
    for entry in catalog.CATALOG:
        if entry.webhook is not None:
            for name, value in entry.webhook.development().items():
                made.setdefault(name, value)
    if made != known:
        private_file(path, json.dumps(made, indent=1))
    return made


def private_file(path: Path, text: str) -> None:
    """Writes a file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)


def unset(environment: Environment, model: Any) -> list[str]:
    """The variables that an adapter needs and that are not set."""
    return [name for name in model.required if not environment.has(name)]


def named(settings: Settings) -> tuple[str, ...]:
    """Every provider or family that the settings name."""
    chains = (settings.sms_providers, settings.whatsapp_providers, settings.email_providers)
    first = (settings.messaging_provider,) if settings.messaging_provider else ()
    return (*first, *(name for chain in chains for name in chain))


def adapters(environment: Environment, http: Http) -> Adapters:
    """Builds what the settings allow.

    Raises:
        SettingsError: a provider is named, or half set up, and a variable is missing.
    """
    settings = environment.settings
    made = Adapters()
    _check_names(settings)
    for entry in catalog.CATALOG:
        if entry.provider is not None and _wanted(environment, entry):
            _add_provider(made, environment, entry, http)
    extra = development_secrets(settings)
    for entry in catalog.CATALOG:
        if entry.webhook is not None:
            _add_webhook(made, environment, entry, extra)
    made.chains = {channel: _chain(settings, made, channel) for channel in Channel}
    return made


def _check_names(settings: Settings) -> None:
    if settings.messaging_provider is None and not settings.development:
        raise SettingsError(
            f"MESSAGING_PROVIDER is not set; set it to one of {catalog.known()} "
            "(or GATEWAY_ENV=development to try the gateway without a vendor)."
        )
    for name in named(settings):
        if not list(catalog.entries(name)):
            raise SettingsError(
                f"MESSAGING_PROVIDER or a chain names {name!r}; known are {catalog.known()}."
            )


def _wanted(environment: Environment, entry: catalog.Entry) -> bool:
    """Whether a provider is set up: named, or all that it needs is there.

    Raises:
        SettingsError: it is named, or half set up, and a variable is missing.
    """
    settings, model = environment.settings, entry.provider.Settings  # type: ignore[union-attr]
    asked = any(entry in tuple(catalog.entries(name)) for name in named(settings))
    lacking = unset(environment, model)
    if entry.family == "console":
        return asked or (settings.development and settings.messaging_provider is None)
    if not lacking:
        return True
    if asked:
        raise SettingsError(f"{lacking[0]} is not set, and {entry.name} cannot send without it.")
    webhook = entry.webhook.Settings.required if entry.webhook is not None else ()
    begun = [n for n in variables_of(model) if environment.has(n) and n not in webhook]
    begun = [n for n in begun if not n.endswith("_API_URL")]
    if begun:
        raise SettingsError(f"{lacking[0]} is not set, but {begun[0]} is: set both, or neither.")
    return False


def _add_provider(made: Adapters, environment: Environment, entry: Any, http: Http) -> None:
    settings = environment.fill(entry.provider.Settings)
    connection: Connection = entry.provider.connection(settings)
    provider = entry.provider(settings, http=http, timeout=environment.settings.send_timeout)
    made.providers[entry.name] = provider
    made.routes[entry.name] = Route(entry.name, provider.capabilities, connection)
    made.connections[connection.id] = connection
    if provider.capabilities.fetches_media:
        made.fetchers[connection.id] = provider


def _add_webhook(
    made: Adapters, environment: Environment, entry: Any, extra: Mapping[str, str]
) -> None:
    lacking = [n for n in unset(environment, entry.webhook.Settings) if n not in extra]
    if lacking:
        made.missing[entry.name] = lacking[0]
        return
    settings = environment.fill(entry.webhook.Settings, extra)
    webhook = entry.webhook(settings)
    made.webhooks[entry.name] = webhook
    made.connections.setdefault(
        entry.family, Connection(id=entry.family, tenant_id="default", family=entry.family)
    )


def _chain(settings: Settings, made: Adapters, channel: Channel) -> tuple[Route, ...]:
    """The providers of a channel, best first."""
    first = settings.messaging_provider or "console"
    wanted = settings.chain(channel) or (first,)
    listed: list[Route] = []
    for name in wanted:
        for entry in catalog.entries(name):
            route = made.routes.get(entry.name)
            if route and channel in route.capabilities.channels and route not in listed:
                listed.append(route)
    return tuple(listed)


@dataclass(kw_only=True)
class Gateway:
    """One process: its store, its adapters, its worker, its API."""

    environment: Environment
    clock: Clock = field(default_factory=SystemClock)
    serving: bool = True
    working: bool = True

    def __post_init__(self) -> None:
        settings = self.environment.settings
        self.settings = settings
        self.http = Http()
        self.adapters = adapters(self.environment, self.http)
        self.database = Database(settings.store_url)
        self.batcher = Batcher(self.database, self._committed)
        self.reader = Reader(self.database)
        self.hub = Hub(self.reader)
        self.listener = Listener(self.database, self._committed)
        self.folder = Folder(settings.data_dir / "media")
        self.inbound = Inbound(self.batcher, self.adapters.connections)
        self.outbound = Outbound(
            self.batcher,
            self.adapters.chains,
            self.clock,
            region=settings.default_region,
            expiry=settings.message_expiry,
            idempotency=settings.idempotency_retention,
        )
        self.watch = Watch()
        self.worker = Worker(
            self.batcher,
            self.adapters.providers,
            self.adapters.routes,
            self.clock,
            limits(settings),
            origin=settings.origin,
            observe=self.watch.observe,
            only_process=self.database.sqlite,
        )
        self.media = MediaWorker(
            self.batcher,
            self._fetchers(),
            self.folder,
            limit=settings.media_max_bytes,
        )
        self.housekeeping: asyncio.Task[None] | None = None

    def _fetchers(self) -> dict[str, MediaFetcher]:
        from gateway.simulation import SimulatedMedia

        if not self.settings.development:
            return self.adapters.fetchers
        simulated = SimulatedMedia(self.settings.data_dir)
        return {
            id_: self.adapters.fetchers.get(id_, simulated) for id_ in self.adapters.connections
        }

    def _committed(self, topics: set[str]) -> None:
        """Something was written, here or elsewhere: wake those whom it concerns."""
        if "events" in topics:
            self.hub.poke()
        if "queue" in topics:
            self.worker.poke()
        if "media" in topics:
            self.media.poke()

    async def start(self) -> None:
        """Starts what runs beside the requests."""
        self.batcher.start()
        await self.listener.start()
        if self.serving:
            await self.hub.start()
        if self.working:
            await self.worker.start()
            self.media.start()
            self.housekeeping = asyncio.create_task(self._prune(), name="gateway-retention")

    async def stop(self) -> None:
        """Ends everything: streams, claims, what is in flight, then the store."""
        if self.serving:
            await self.hub.stop()
        if self.housekeeping is not None:
            self.housekeeping.cancel()
        if self.working:
            await self.media.stop()
            await self.worker.stop(self.settings.shutdown_timeout)
        for provider in self.adapters.providers.values():
            await provider.aclose()
        await self.http.aclose()
        await self.listener.stop()
        await self.batcher.stop()
        self.reader.close()
        self.database.close()

    async def _prune(self) -> None:
        from gateway.store.retention import PIECE, PRUNE, Kept

        kept = Kept(
            int(self.settings.events_retention * 1000), int(self.settings.inbox_retention * 1000)
        )
        while True:
            try:
                gone = await self.batcher.submit(PRUNE, kept)
            except Exception as error:
                log.warning("cannot prune: %s", error)
                gone = 0
            await asyncio.sleep(1 if gone >= PIECE else 60)


def limits(settings: Settings) -> Limits:
    """The worker's limits."""
    return Limits(
        seats=settings.worker_seats,
        send=settings.send_timeout,
        lease=settings.lease_time,
        poll=settings.worker_poll,
        receipts=settings.receipt_timeout,
        retry=Retry(settings.retry_base, settings.retry_cap, settings.retry_limit),
    )


def asgi(gateway: Gateway) -> Starlette:
    """The whole HTTP application of a process."""
    from starlette.middleware import Middleware

    from gateway.api.access import Access

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await gateway.start()
        try:
            yield
        finally:
            await gateway.stop()

    app = Starlette(
        routes=_routes(gateway),
        lifespan=lifespan,
        middleware=[Middleware(Access)],
        exception_handlers=_handlers(),
    )
    app.router.redirect_slashes = False  # a redirected POST comes back as a GET without its form
    return app


def _routes(gateway: Gateway) -> list[BaseRoute]:
    from gateway.api import health, openapi
    from gateway.api.auth import Keys
    from gateway.api.context import Bounds, Context
    from gateway.api.reading import answer
    from gateway.api.routes import routes
    from gateway.web.page import routes as web_routes

    settings = gateway.settings
    static = settings.gateway_api_key
    context = Context(
        batcher=gateway.batcher,
        reader=gateway.reader,
        keys=Keys(gateway.reader, static.get_secret_value() if static else None),
        outbound=gateway.outbound,
        hub=gateway.hub,
        folder=gateway.folder,
        bounds=Bounds(
            settings.request_max_bytes,
            settings.request_timeout,
            settings.events_max_clients,
            settings.events_max_clients_per_key,
            settings.events_stall,
        ),
        providers=gateway.adapters.providers,
        chains=gateway.adapters.chains,
        watch=gateway.watch,
        clock=gateway.clock,
    )

    async def document(request: Request) -> Response:
        return answer(openapi.document())

    async def docs(request: Request) -> Response:
        return HTMLResponse(
            openapi.page(),
            headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    return [
        *routes(context),
        *_webhooks(gateway).routes(),
        WebRoute("/health", health.alive),
        WebRoute("/health/ready", health.ready(context)),
        WebRoute("/openapi.json", document),
        WebRoute("/docs", docs),
        *web_routes(),
    ]


def _webhooks(gateway: Gateway) -> Any:
    from webhooks.endpoint import Endpoint

    settings, made = gateway.settings, gateway.adapters
    hooks: dict[str, list[Webhook]] = {"sms": [], "whatsapp": []}
    missing: dict[str, str] = {}
    for entry in catalog.CATALOG:
        webhook = made.webhooks.get(entry.name)
        for key in {entry.name, entry.family}:
            if webhook is not None:
                hooks.setdefault(key, []).append(webhook)
            elif entry.name in made.missing:
                missing[key] = made.missing[entry.name]
        if webhook is not None:
            hooks["sms"].append(webhook)
            hooks["whatsapp"].append(webhook)
    for shared in ("sms", "whatsapp"):
        vendors = [made.missing[e.name] for e in catalog.CATALOG if e.name in made.missing]
        if not hooks[shared] and vendors:
            missing[shared] = vendors[-1]  # the console stands first, and is nobody's vendor
    return Endpoint(
        hooks=hooks,
        missing=missing,
        receive=gateway.inbound.receive,
        origin=settings.origin,
        max_bytes=settings.webhook_max_bytes,
        timeout=settings.request_timeout,
        clock=gateway.clock,
    )


def _handlers() -> dict[Any, Any]:
    from starlette.exceptions import HTTPException

    from gateway.api.problems import Problem

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return Problem(error.status_code, headers=error.headers).response()

    async def internal(request: Request, error: Exception) -> Response:
        return Problem(500, "Something went wrong here; the log knows more.").response()

    return {HTTPException: http_error, Exception: internal}


def new_key() -> str:
    """A random key for GATEWAY_API_KEY."""
    return secrets.token_urlsafe(32)


__all__ = ["ASGIApp", "Adapters", "Gateway", "adapters", "asgi", "limits"]
