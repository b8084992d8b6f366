"""`/health`: alive, ready, and how the providers are."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.context import Context
from gateway.api.problems import Problem
from gateway.api.reading import answer
from gateway.clock import show, to_ms
from gateway.errors import StoreUnavailable
from gateway.health import report
from gateway.store import feed
from gateway.store.keys import Identity


async def alive(request: Request) -> Response:
    """The process answers."""
    return answer({"status": "ok"})


def ready(context: Context) -> Any:
    """The process can do its work: the database answers, and took what was last written; what an
    earlier process spooled is stored, and the spool can be written."""

    async def endpoint(request: Request) -> Response:
        try:
            await context.reader.call(feed.bounds)
        except StoreUnavailable:
            return _away("The database does not answer.")
        if getattr(context.batcher, "failing", False):
            return _away("The database cannot be written.")
        spool = context.spool
        if spool is None:
            return answer({"status": "ready", "database": "ok"})
        if spool.recovering:
            return _away(f"The spool is being stored: {spool.depth} webhooks wait.")
        if spool.failing:
            return _away("The spool cannot be written.")
        waits = {
            "webhooks": spool.depth,
            "bytes": spool.size,
            "oldest_seconds": spool.age(context.clock.now()),
        }
        return answer({"status": "ready", "database": "ok", "spool": waits})

    return endpoint


def _away(detail: str) -> Response:
    return Problem(503, detail, headers={"retry-after": "2"}).response()


async def messaging(request: Request, context: Context, identity: Identity) -> Response:
    """How the providers are; always 200."""
    now = show(to_ms(context.clock.now())) or ""
    return answer(report(context.board, now))
