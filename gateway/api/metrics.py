"""`GET /metrics`: this process in numbers, for Prometheus. Needs a key like every other route."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.auth import header
from gateway.api.context import Context
from gateway.api.operation import Operation
from gateway.store.keys import Identity


async def metrics(request: Request, context: Context, identity: Identity) -> Response:
    """The counts of this process, and what waits in the database."""
    accept = header(request, b"accept")
    streams = sum(context.streams.values())
    page, content_type = await context.scrape.page(accept, streams)
    return Response(page, headers={"content-type": content_type, "cache-control": "no-store"})


OPERATIONS = (
    Operation(
        method="GET",
        path="/metrics",
        handler=metrics,
        summary="This process in numbers, for Prometheus",
        answer="text/plain",
        tag="Health",
    ),
)
