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
ADDRESS = "{address}"
OPERATIONS = tuple(operation for resource in RESOURCES for operation in resource.OPERATIONS)


def exact(context: Context) -> dict[tuple[str, str], ASGIApp]:
    """The operations whose paths have no parameters, by method and path."""
    return {
        (operation.method, operation.path): Guarded(
            context, {operation.method: (operation.handler, operation.query)}
        )
        for operation in OPERATIONS
        if "{" not in operation.path
    }


def routes(context: Context) -> list[BaseRoute]:
    """The API's routes; one per path, so that a 405 names every method. A person's address may have
    slashes (`a/b@example.com`): one at the end of a path is all that follows, and is looked for
    last."""
    paths: dict[str, dict[str, tuple[Handler, tuple[str, ...]]]] = {}
    for operation in sorted(OPERATIONS, key=lambda each: each.path.endswith(ADDRESS)):
        path = operation.path.replace(ADDRESS, "{address:path}")
        paths.setdefault(path, {})[operation.method] = operation.handler, operation.query
    made = [Route(path, Guarded(context, by), methods=list(by)) for path, by in paths.items()]
    return [*made, WebSocketRoute(sockets.PATH, sockets.Sockets(context))]
