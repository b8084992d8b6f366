"""The other half of the composition root: the HTTP application over a process's parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route as WebRoute
from starlette.types import ASGIApp

from gateway import catalog
from gateway.api.front import Exact
from gateway.app import Gateway
from gateway.domain import Admits, Webhook

if TYPE_CHECKING:
    from gateway.api.context import Context


def asgi(gateway: Gateway) -> ASGIApp:
    """The whole HTTP application of a process."""
    from gateway.api.front import Front

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await gateway.start()
        try:
            yield
        finally:
            await gateway.stop()

    routes, exact = _routes(gateway)
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers=_handlers(),
    )
    app.router.redirect_slashes = False  # a redirected POST comes back as a GET without its form
    return Front(app, exact, gateway.metrics.request)


def _context(gateway: Gateway) -> Context:
    """What the API works with."""
    from gateway.analytics import Analytics
    from gateway.api.auth import Keys
    from gateway.api.context import Bounds, Context
    from gateway.catalog import CATALOG
    from gateway.costs import Costs

    settings = gateway.settings
    static = settings.gateway_api_key
    return Context(
        batcher=gateway.batcher,
        reader=gateway.reader,
        keys=Keys(gateway.reader, static.get_secret_value() if static else None),
        outbound=gateway.outbound,
        hub=gateway.hub,
        files=gateway.files,
        uploads=gateway.uploads,
        thumbnails=gateway.thumbnails,
        links=gateway.links,
        unsubscribes=gateway.unsubscribes,
        bounds=Bounds(
            settings.request_max_bytes,
            settings.request_timeout,
            settings.events_max_clients,
            settings.events_max_clients_per_key,
            settings.events_stall,
        ),
        providers=gateway.adapters.providers,
        chains=gateway.adapters.chains,
        board=gateway.board,
        gestures=gateway.gestures,
        clock=gateway.clock,
        scrape=gateway.scrape,
        analytics=Analytics(gateway.reader, gateway.clock),
        restores=gateway.restores,
        templates=gateway.templates,
        estimates=gateway.estimates,
        costs=Costs(gateway.reader, gateway.prices),
        known=tuple(entry.name for entry in CATALOG),
        spool=gateway.spool,
    )


def _routes(gateway: Gateway) -> tuple[list[BaseRoute], Exact]:
    """Every route, and again those without parameters by method and path."""
    from gateway.api import health, media, openapi, unsubscribe
    from gateway.api.reading import answer
    from gateway.api.routes import exact, routes
    from gateway.web.page import routes as web_routes

    context = _context(gateway)

    async def document(request: Request) -> Response:
        return answer(openapi.document())

    async def docs(request: Request) -> Response:
        return HTMLResponse(
            openapi.page(),
            headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    webhooks = _webhooks(gateway)
    listed = [
        *routes(context),
        *webhooks.routes(),
        WebRoute("/health", health.alive),
        WebRoute("/health/ready", health.ready(context)),
        WebRoute("/media/{id}", media.linked(context)),
        WebRoute(unsubscribe.PATH, unsubscribe.endpoint(context), methods=["GET", "POST"]),
        WebRoute("/openapi.json", document),
        WebRoute("/docs", docs),
        *web_routes(),
    ]
    return listed, {**exact(context), **webhooks.exact()}


def _webhooks(gateway: Gateway) -> Any:
    from webhooks.endpoint import Endpoint

    settings, made = gateway.settings, gateway.adapters
    hooks: dict[str, list[Webhook]] = {"sms": [], "whatsapp": []}
    missing: dict[str, str] = {}
    for entry in catalog.CATALOG:
        webhook = made.webhooks.get(entry.name)
        alone = entry.webhook is not None and issubclass(entry.webhook, Admits)
        for key in {entry.name} if alone else {entry.name, entry.family}:
            if webhook is not None:
                hooks.setdefault(key, []).append(webhook)
            elif entry.name in made.missing:
                missing[key] = made.missing[entry.name]
        if webhook is not None and not alone:
            hooks["sms"].append(webhook)
            hooks["whatsapp"].append(webhook)
    for shared in ("sms", "whatsapp"):
        vendors = [made.missing[e.name] for e in catalog.CATALOG if e.name in made.missing]
        if not hooks[shared] and vendors:
            missing[shared] = vendors[-1]  # the console stands first, and is nobody's vendor
    return Endpoint(
        hooks=hooks,
        missing=missing,
        receive=gateway.metrics.storing(gateway.inbound.receive),
        origin=settings.origin,
        max_bytes=settings.webhook_max_bytes,
        timeout=settings.request_timeout,
        clock=gateway.clock,
        on_verdict=gateway.metrics.verdict,
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
