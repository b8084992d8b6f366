"""THE list of the API's resources: the router and the OpenAPI document are both made of it."""

from __future__ import annotations

from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from gateway.api import (
    analytics,
    communications,
    conversation_edits,
    conversations,
    costs,
    events,
    health,
    media,
    messages,
    metrics,
    notes,
    opt_outs,
    retries,
    search,
    sms,
    sockets,
    suppressions,
    templates,
)
from gateway.api.context import Context, Guarded, Handler

# Each has `OPERATIONS`, and `SHAPES` where it has answers of its own.
RESOURCES = (
    *(messages, retries, sms, analytics, communications, costs),
    *(conversations, conversation_edits, notes, search, opt_outs, suppressions, templates),
    *(events, sockets, media, health, metrics),
)
OPERATIONS = tuple(operation for resource in RESOURCES for operation in resource.OPERATIONS)


def exact(context: Context) -> dict[tuple[str, str], ASGIApp]:
    """The operations whose paths have no parameters, by method and path."""
    return {
        (operation.method, operation.path): Guarded(context, {operation.method: operation.handler})
        for operation in OPERATIONS
        if "{" not in operation.path
    }


def routes(context: Context) -> list[BaseRoute]:
    """The API's routes; one per path, so that a 405 names every method."""
    paths: dict[str, dict[str, Handler]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = operation.handler
    made = [Route(path, Guarded(context, by), methods=list(by)) for path, by in paths.items()]
    return [*made, WebSocketRoute(sockets.PATH, sockets.Sockets(context))]
