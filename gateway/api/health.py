"""`/health`: alive, ready, and how the providers are."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.context import Context
from gateway.api.operation import Operation
from gateway.api.problems import Problem
from gateway.api.reading import answer
from gateway.api.shapes import MAYBE, TEXT, TIME, object_of, ref
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
        well = {"status": "ready", "database": "ok", **_restored(context)}
        spool = context.spool
        if spool is None:
            return answer(well)
        if spool.recovering:
            return _away(f"The spool is being stored: {spool.depth} webhooks wait.")
        if spool.failing:
            return _away("The spool cannot be written.")
        waits = {
            "webhooks": spool.depth,
            "bytes": spool.size,
            "oldest_seconds": spool.age(context.clock.now()),
        }
        return answer({**well, "spool": waits})

    return endpoint


def _restored(context: Context) -> dict[str, Any]:
    """What waits for somebody since the database was restored, as long as something does."""
    now = context.restores.standing
    if now is None or not now.held:
        return {}
    return {"restored": {"noticed_at": show(now.restored_at), "held": now.held}}


def _away(detail: str) -> Response:
    return Problem(503, detail, headers={"retry-after": "2"}).response()


async def messaging(request: Request, context: Context, identity: Identity) -> Response:
    """How the providers are; always 200."""
    now = show(to_ms(context.clock.now())) or ""
    return answer(report(context.board, now))


OPERATIONS = (
    Operation(
        method="GET",
        path="/health/messaging",
        handler=messaging,
        summary="How the providers are",
        answer="MessagingHealth",
        tag="Health",
    ),
)

PROVIDER_HEALTH = object_of(
    {
        "name": TEXT,
        "priority": {"type": "string", "enum": ["PRIMARY", "SECONDARY", "TERTIARY", "FALLBACK"]},
        "circuit_breaker": {"type": "string", "enum": ["closed", "open", "half_open"]},
        "is_healthy": {"type": "boolean"},
        "failure_count": {"type": "integer"},
        "last_error": MAYBE,
        "daily_quota": object_of(
            {"used": {"type": "integer"}, "limit": {"type": "integer"}, "free_at": TIME}
        ),
    },
    optional=("daily_quota",),
)
_PROVIDERS = {"type": "array", "items": ref("ProviderHealth")}
MESSAGING_HEALTH = object_of(
    {
        "timestamp": TEXT,
        "sms_providers": _PROVIDERS,
        "whatsapp_providers": _PROVIDERS,
        "email_providers": _PROVIDERS,
        "overall_status": {"type": "string", "enum": ["healthy", "degraded", "unhealthy"]},
        "active_providers": object_of({"sms": MAYBE, "whatsapp": MAYBE, "email": MAYBE}),
    }
)
SHAPES = {"ProviderHealth": PROVIDER_HEALTH, "MessagingHealth": MESSAGING_HEALTH}
