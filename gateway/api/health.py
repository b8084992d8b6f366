"""`/health`: alive, ready, and how the providers are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.context import Context
from gateway.api.problems import Problem
from gateway.api.reading import answer
from gateway.errors import StoreUnavailable
from gateway.store import feed

ORDER = ("PRIMARY", "SECONDARY", "TERTIARY")


async def alive(request: Request) -> Response:
    """The process answers."""
    return answer({"status": "ok"})


def ready(context: Context) -> Any:
    """The process can do its work: the database answers."""

    async def endpoint(request: Request) -> Response:
        try:
            await context.reader.call(feed.bounds)
        except StoreUnavailable:
            problem = Problem(503, "The database does not answer.", headers={"retry-after": "2"})
            return problem.response()
        return answer({"status": "ready", "database": "ok"})

    return endpoint


def now_text() -> str:
    """The time of an answer."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
