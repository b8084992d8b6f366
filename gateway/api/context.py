"""What the API's handlers work with; the composition root fills it in."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.analytics import Analytics
from gateway.api import query
from gateway.api.auth import Keys
from gateway.api.problems import Problem, unprocessable
from gateway.costs import Costs
from gateway.domain import Channel, Clock, FileStore, Provider
from gateway.errors import FilesUnavailable, OutcomeUnknown, StoreUnavailable
from gateway.estimates import Estimates
from gateway.events import Hub
from gateway.gestures import Gestures
from gateway.links import Links
from gateway.outbound import Invalid, Outbound
from gateway.restores import Restores
from gateway.routing import Route
from gateway.scrape import Scrape
from gateway.spool import Spool
from gateway.store.batcher import Batcher
from gateway.store.keys import Identity
from gateway.store.reader import Reader
from gateway.switchboard import Switchboard
from gateway.templates import Templates
from gateway.thumbnails import Thumbnails
from gateway.unsubscribes import Unsubscribes
from gateway.uploads import Uploads

log = logging.getLogger("gateway.media")

Handler = Callable[[Request, "Context", Identity], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits on callers. Times in seconds."""

    request_bytes: int
    request_time: float
    streams: int
    streams_per_key: int
    stall: float


@dataclass(eq=False)
class Context:
    """The parts that handlers share."""

    batcher: Batcher
    reader: Reader
    keys: Keys
    outbound: Outbound
    hub: Hub
    files: FileStore
    uploads: Uploads
    thumbnails: Thumbnails
    links: Links
    unsubscribes: Unsubscribes
    bounds: Bounds
    providers: Mapping[str, Provider]
    chains: Mapping[Channel, tuple[Route, ...]]
    board: Switchboard
    gestures: Gestures
    clock: Clock
    scrape: Scrape
    analytics: Analytics
    restores: Restores
    templates: Templates
    estimates: Estimates
    costs: Costs
    known: tuple[str, ...]  # the names of all adapters that there are, set up or not
    spool: Spool | None = None
    streams: dict[str, int] = field(default_factory=dict)


class Guarded:
    """The handlers of a path, by method, with the parameters that each knows: all need a key, and
    every error is a problem."""

    def __init__(
        self, context: Context, handlers: Mapping[str, tuple[Handler, Sequence[str]]]
    ) -> None:
        self._context = context
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        request = Request(scope, receive)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        try:
            identity = await self._context.keys.identify(request)
            handler, parameters = self._handlers[method]
            query.only(request, parameters)
            response = await handler(request, self._context, identity)
        except Exception as error:
            response = problem_of(error).response()
        await response(scope, receive, send)


def problem_of(error: Exception) -> Problem:
    """What the caller is told of an error; what is not known is raised again."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Invalid):
        return unprocessable(error.problems)
    if isinstance(error, OutcomeUnknown):
        return Problem(
            503,
            "Whether it was stored is not known. Repeat it with the same Idempotency-Key.",
            kind="outcome-unknown",
            headers={"retry-after": "2"},
        )
    if isinstance(error, StoreUnavailable):
        return Problem(
            503, "The database is away; nothing was stored.", headers={"retry-after": "2"}
        )
    if isinstance(error, FilesUnavailable):
        log.error("files: %s", error)
        return Problem(503, "The place of files cannot be reached.", headers={"retry-after": "2"})
    raise error
