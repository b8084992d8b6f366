"""`/api/costs`: what sending cost, over a bounded time: as vendors say, else as we expect."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.analytics import DAY, MOST, range_of
from gateway.api.context import Context
from gateway.api.operation import Choices, Operation
from gateway.api.reading import answer, chosen, filters_of, one_of
from gateway.api.shapes import MAYBE, TEXT, TIME, enum_of, object_of, ref
from gateway.clock import show
from gateway.costs import By
from gateway.domain import Channel
from gateway.store.keys import Identity

FILTERS = ("by", "since", "until", "channel")
CHOICES: Choices = {"channel": tuple(Channel)}


async def index(request: Request, context: Context, identity: Identity) -> Response:
    """Costs in sum, by provider, channel, country or day."""
    filters = filters_of(request)
    one_of(filters, "by", By)
    chosen(filters, CHOICES)
    by, channel = By(filters.get("by", By.PROVIDER)), filters.get("channel")
    since, until = range_of(request, context, MOST["day"], 30 * DAY)
    items = await context.costs.items(identity.tenant_id, since, until, channel, by)
    told = {"by": by.value, "channel": channel, "since": show(since), "until": show(until)}
    return answer({**told, "items": items})


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/costs",
        handler=index,
        summary="Add up what sending cost, by provider, channel, country or day",
        answer="Costs",
        query=FILTERS,
        choices=CHOICES,
        errors=(422,),
        tag="Costs",
    ),
)

_WHOLE = {"type": "integer"}
SHAPES = {
    "CostItem": object_of(
        {
            "key": MAYBE,
            "messages": _WHOLE,
            "segments": _WHOLE,
            "unpriced": _WHOLE,
            "cost": {
                "type": "array",
                "items": object_of(
                    dict.fromkeys(("amount", "currency", "reported", "estimated", "free"), TEXT)
                ),
            },
        }
    ),
    "Costs": object_of(
        {
            "by": enum_of(By),
            "channel": {"type": ["string", "null"], "enum": [*Channel, None]},
            "since": TIME,
            "until": TIME,
            "items": {"type": "array", "items": ref("CostItem")},
        }
    ),
}
