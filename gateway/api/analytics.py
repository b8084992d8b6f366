"""`/api/sms/stats` and `/api/sms/analytics`: messages counted, over a bounded time."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.analytics import series, summary
from gateway.api.context import Context
from gateway.api.operation import Operation
from gateway.api.problems import unprocessable
from gateway.api.reading import answer, when_of
from gateway.api.shapes import TEXT, TIME, enum_of, object_of, ref
from gateway.clock import show, to_ms
from gateway.domain import Channel
from gateway.store.keys import Identity
from gateway.store.tallies import WIDTHS

DAY = WIDTHS["day"]
MOST = {"day": 366 * DAY, "hour": 31 * DAY}


def range_of(request: Request, context: Context, most: int, usual: int) -> tuple[int, int]:
    """From when to when, of the query: `usual` milliseconds up to now, where it says nothing."""
    until = when_of(request, "until")
    until = to_ms(context.clock.now()) + 1 if until is None else until
    since = when_of(request, "since")
    since = until - usual if since is None else since
    if since >= until:
        raise unprocessable([("since", "must be before until")])
    if until - since > most:
        raise unprocessable([("since", f"must be at most {most // DAY} days before until")])
    return since, until


async def stats(request: Request, context: Context, identity: Identity) -> Response:
    """SMS in sum."""
    since, until = range_of(request, context, MOST["day"], DAY)
    found = await context.analytics.tallies(identity.tenant_id, Channel.SMS, "day", since, until)
    return answer(_told(since, until) | summary(found))


async def analytics(request: Request, context: Context, identity: Identity) -> Response:
    """SMS by hour or by day, in UTC."""
    width = request.query_params.get("interval", "day")
    if width not in WIDTHS:
        raise unprocessable([("interval", "must be hour or day")])
    since, until = range_of(request, context, MOST[width], 7 * DAY)
    found = await context.analytics.tallies(identity.tenant_id, Channel.SMS, width, since, until)
    items = [{"start": show(ms), **one} for ms, one in series(found, width, since, until)]
    told = {**_told(since, until), "interval": width}
    return answer({**told, "items": items, "totals": summary(found)})


def _told(since: int, until: int) -> dict[str, Any]:
    return {"channel": Channel.SMS.value, "since": show(since), "until": show(until)}


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/sms/stats",
        handler=stats,
        summary="Count SMS: by status, direction and provider",
        answer="SmsStats",
        query=("since", "until"),
        errors=(422,),
        tag="SMS",
    ),
    Operation(
        method="GET",
        path="/api/sms/analytics",
        handler=analytics,
        summary="Count SMS by hour or by day",
        answer="SmsAnalytics",
        query=("since", "until", "interval"),
        errors=(422,),
        tag="SMS",
    ),
)

_COUNTS = {"type": "object", "additionalProperties": {"type": "integer"}}
_SUMMARY = {
    "total": {"type": "integer"},
    "by_status": _COUNTS,
    "by_direction": _COUNTS,
    "by_provider": _COUNTS,
    "success_rate": {"type": ["number", "null"]},
    "segments": {"type": "integer"},
    "cost": {"type": "array", "items": object_of({"amount": TEXT, "currency": TEXT})},
}
_RANGE = {"channel": enum_of(Channel), "since": TIME, "until": TIME}
SHAPES = {
    "SmsSummary": object_of(_SUMMARY),
    "SmsStats": object_of({**_RANGE, **_SUMMARY}),
    "SmsBucket": object_of({"start": TIME, **_SUMMARY}),
    "SmsAnalytics": object_of(
        {
            **_RANGE,
            "interval": {"type": "string", "enum": [*WIDTHS]},
            "items": {"type": "array", "items": ref("SmsBucket")},
            "totals": ref("SmsSummary"),
        }
    ),
}
