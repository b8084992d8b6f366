"""`/api/suppressions`: the email addresses that are not written to, and why: the opt-outs of email,
by the reasons that mail knows."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway import addresses
from gateway.api.auth import header
from gateway.api.context import Context
from gateway.api.json_text import json_of
from gateway.api.operation import PAGE, Operation
from gateway.api.opt_outs import PROOF, place_of, storable
from gateway.api.problems import not_found, unprocessable
from gateway.api.reading import (
    answer,
    body_of,
    cursor_for,
    filters_of,
    limit_of,
    one_of,
    validate,
)
from gateway.api.schemas import SuppressionReason
from gateway.api.shapes import TEXT, TIME, enum_of, list_of, object_of
from gateway.domain import Channel
from gateway.opt_outs import SAID, Source, State, Why
from gateway.store import opt_out_edits
from gateway.store.keys import Identity
from gateway.store.opt_out_edits import EDIT
from gateway.views import suppression_view

EMAIL = Channel.EMAIL
FILTERS = ("reason", "address")
ONE = "/api/suppressions/{address}"


async def index(request: Request, context: Context, identity: Identity) -> Response:
    """Who is not written to by email, what changed last first."""
    filters = filters_of(request)
    one_of(filters, "reason", Why)
    why = Why(filters["reason"]) if "reason" in filters else None
    only = {"channel": EMAIL.value, "state": State.OUT.value}
    names = context.outbound.names(filters["address"]) if "address" in filters else ()
    limit, before = limit_of(request), place_of(request)
    rows = await context.reader.call(
        opt_out_edits.listed, identity.tenant_id, only, before, limit + 1, why, names
    )
    page, following = rows[:limit], None
    if len(rows) > limit:
        following = cursor_for(*(page[-1][name] for name in ("updated_at", "channel", "address")))
    return answer({"items": [suppression_view(row) for row in page], "next_cursor": following})


async def show(request: Request, context: Context, identity: Identity) -> Response:
    """One address that is not written to."""
    names = _known(request, context)
    row = await context.reader.call(opt_out_edits.one, identity.tenant_id, EMAIL, *names)
    if row is None or row["state"] != State.OUT:
        raise not_found("suppression")
    return answer(suppression_view(row))


async def suppress(request: Request, context: Context, identity: Identity) -> Response:
    """Writes to an address no more."""
    try:
        address = addresses.email(str(request.path_params["address"]))
    except addresses.AddressError as error:
        raise unprocessable([("address", str(error))]) from None
    body = await body_of(request, context.bounds.request_bytes, context.bounds.request_time)
    value = json_of(body, header(request, b"content-type")) if body else {}
    why = validate(SuppressionReason, value).reason
    return await _said(context, identity, (address,), State.OUT, SAID[why])


async def lift(request: Request, context: Context, identity: Identity) -> Response:
    """Writes to an address again."""
    return await _said(context, identity, _known(request, context), State.IN, None)


async def _said(
    context: Context, identity: Identity, names: tuple[str, ...], state: State, detail: str | None
) -> Response:
    address, *also = names
    word = opt_out_edits.operator(
        identity.tenant_id, EMAIL, address, state, Source.API, detail, also
    )
    if await context.batcher.submit(EDIT, word) is None:
        raise not_found("suppression")
    row = await context.reader.call(opt_out_edits.one, identity.tenant_id, EMAIL, *names)
    if row is None:
        raise not_found("suppression")
    return answer(suppression_view(row))


def _known(request: Request, context: Context) -> tuple[str, ...]:
    text = str(request.path_params["address"])
    if not storable(text):
        raise not_found("suppression")
    return context.outbound.names(text)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/suppressions",
        handler=index,
        summary="List the email addresses that are not written to; what changed last comes first",
        answer="SuppressionList",
        query=(*FILTERS, *PAGE),
        errors=(422,),
        tag="Opt-outs",
    ),
    Operation(
        method="GET",
        path=ONE,
        handler=show,
        summary="Show why an email address is not written to",
        answer="Suppression",
        errors=(404,),
        tag="Opt-outs",
    ),
    Operation(
        method="PUT",
        path=ONE,
        handler=suppress,
        summary="Write to an email address no more",
        answer="Suppression",
        body=SuppressionReason,
        bare=True,
        errors=(400, 408, 413, 415, 422),
        tag="Opt-outs",
    ),
    Operation(
        method="DELETE",
        path=ONE,
        handler=lift,
        summary="Write to an email address again",
        answer="Suppression",
        errors=(404,),
        tag="Opt-outs",
    ),
)

SUPPRESSION = object_of(
    {
        "address": TEXT,
        "state": enum_of(State),
        "reason": enum_of(Why),
        **PROOF,
        "since": TIME,
        "created_at": TIME,
        "updated_at": TIME,
    }
)
SHAPES = {"Suppression": SUPPRESSION, "SuppressionList": list_of("Suppression")}
