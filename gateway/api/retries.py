"""`POST /api/messages/{id}/retry`: a message that failed, sent once more because somebody asks."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.auth import header
from gateway.api.context import Context
from gateway.api.json_text import json_of
from gateway.api.operation import Operation
from gateway.api.problems import Problem, not_found, unprocessable
from gateway.api.reading import answer, body_of, id_of, validate
from gateway.api.schemas import Retry
from gateway.clock import to_ms
from gateway.domain import Direction
from gateway.store import queries
from gateway.store.keys import Identity
from gateway.store.retries import AGAIN, Again
from gateway.views import message_view


async def retry(request: Request, context: Context, identity: Identity) -> Response:
    """Sends a message once more that failed."""
    id_ = id_of(request, "message")
    wanted = await _wanted(request, context)
    row = await context.reader.call(queries.message, identity.tenant_id, id_)
    if row is None:
        raise not_found("message")
    if row["direction"] != Direction.OUTBOUND:
        raise Problem(409, "Only a message of ours can be sent again.")
    expires_at = to_ms(wanted.expires_at) if wanted.expires_at is not None else None
    if expires_at is not None and expires_at <= to_ms(context.clock.now()):
        raise unprocessable([("expires_at", "must be after now")])
    attempts = await context.reader.call(queries.attempts_of, identity.tenant_id, id_)
    again = Again(
        identity.tenant_id,
        id_,
        (identity.tenant_id, row["channel"], row["to_address"]),
        context.outbound.route_again(row, attempts),
        context.outbound.expiry,
        expires_at,
        wanted.even_if_sent,
    )
    if not again.route:
        raise Problem(409, f"No provider that is set up for {row['channel']} can send it.")
    refused = await context.batcher.submit(AGAIN, again)
    if refused is not None:
        raise Problem(409, refused)
    row = await context.reader.call(queries.message, identity.tenant_id, id_)
    assert row is not None
    return answer(message_view(row), 202, {"location": f"/api/messages/{id_}"})


async def _wanted(request: Request, context: Context) -> Retry:
    """What the body asks for, if there is one."""
    body = await body_of(request, context.bounds.request_bytes, context.bounds.request_time)
    return validate(Retry, json_of(body, header(request, b"content-type")) if body else {})


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/messages/{id}/retry",
        handler=retry,
        summary="Send a message once more that failed",
        answer="Message",
        status=202,
        body=Retry,
        bare=True,
        errors=(400, 404, 408, 409, 413, 415, 422),
    ),
)
