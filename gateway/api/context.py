"""What the API's handlers work with; the composition root fills it in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.auth import Keys
from gateway.api.problems import Problem
from gateway.domain import Channel, Provider
from gateway.errors import OutcomeUnknown, StoreUnavailable
from gateway.events import Hub
from gateway.media import Folder
from gateway.outbound import Invalid, Outbound
from gateway.routing import Route
from gateway.store.batcher import Batcher
from gateway.store.keys import Identity
from gateway.store.reader import Reader

Handler = Callable[[Request, "Context", Identity], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]


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
    folder: Folder
    bounds: Bounds
    providers: Mapping[str, Provider]
    chains: Mapping[Channel, tuple[Route, ...]]
    streams: dict[str, int] = field(default_factory=dict)
    failures: dict[str, Any] = field(default_factory=dict)


def guarded(context: Context, handler: Handler) -> Endpoint:
    """An endpoint that needs a key and answers every error as a problem."""

    @wraps(handler)
    async def endpoint(request: Request) -> Response:
        try:
            identity = await context.keys.identify(request)
            return await handler(request, context, identity)
        except Exception as error:
            return problem_of(error).response()

    return endpoint


def problem_of(error: Exception) -> Problem:
    """What the caller is told of an error; what is not known is raised again."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Invalid):
        from gateway.api.problems import unprocessable

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
    raise error
