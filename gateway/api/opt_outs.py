"""`/api/opt-outs`: who is not to be written to by channel: block, lift, and every word on it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway import addresses
from gateway.api.auth import header
from gateway.api.context import Context
from gateway.api.json_text import UNSTORABLE, json_of
from gateway.api.operation import PAGE, Choices, Operation
from gateway.api.problems import not_found, unprocessable
from gateway.api.reading import (
    answer,
    body_of,
    chosen,
    cursor_for,
    cursor_of,
    filters_of,
    is_id,
    limit_of,
    validate,
)
from gateway.api.schemas import OptOutReason
from gateway.api.shapes import MAYBE, TEXT, TIME, enum_of, list_of, object_of
from gateway.domain import Channel
from gateway.opt_outs import Source, State, Verdict
from gateway.store import opt_out_edits
from gateway.store.keys import Identity
from gateway.store.opt_out_edits import EDIT, Place
from gateway.views import opt_out_event_view, opt_out_view

MOST = 2**63 - 1
LONGEST = 254  # characters of an address
CHOICES: Choices = {"channel": tuple(Channel)}


async def index(request: Request, context: Context, identity: Identity) -> Response:
    """Who is not to be written to; with `state`, who came back, or all."""
    filters = filters_of(request)
    chosen(filters, CHOICES)
    state = filters.pop("state", State.OUT.value)
    if state not in (*State, "all"):
        raise unprocessable([("state", "must be out, in or all")])
    if state != "all":
        filters["state"] = state
    names = context.outbound.names(filters.pop("address")) if "address" in filters else ()
    limit, before = limit_of(request), place_of(request)
    rows = await context.reader.call(
        opt_out_edits.listed, identity.tenant_id, filters, before, limit + 1, names=names
    )
    page, following = rows[:limit], None
    if len(rows) > limit:
        following = cursor_for(*(page[-1][name] for name in ("updated_at", "channel", "address")))
    return answer({"items": [opt_out_view(row) for row in page], "next_cursor": following})


def place_of(request: Request) -> Place | None:
    """Where a list of opt-outs goes on."""
    cursor = cursor_of(request)
    if cursor is None:
        return None
    numbered = len(cursor) == 3 and type(cursor[0]) is int and 0 <= cursor[0] <= MOST
    if not numbered or not all(storable(part) for part in cursor[1:]):
        raise unprocessable([("cursor", "must be a next_cursor that this list gave")])
    return cursor[0], cursor[1], cursor[2]


def storable(text: object) -> bool:
    """Whether this may be an address."""
    return isinstance(text, str) and len(text) <= LONGEST and UNSTORABLE.search(text) is None


async def show(request: Request, context: Context, identity: Identity) -> Response:
    """Whether a person may be written to, as far as anything was ever said."""
    channel, names = _known(request, context)
    row = await context.reader.call(opt_out_edits.one, identity.tenant_id, channel, *names)
    if row is None:
        raise not_found("opt-out")
    return answer(opt_out_view(row))


async def block(request: Request, context: Context, identity: Identity) -> Response:
    """Blocks a person on a channel."""
    channel, address = _named(request, context)
    body = await body_of(request, context.bounds.request_bytes, context.bounds.request_time)
    value = json_of(body, header(request, b"content-type")) if body else {}
    reason = validate(OptOutReason, value).reason
    word = opt_out_edits.operator(
        identity.tenant_id, channel, address, State.OUT, Source.API, reason
    )
    return answer(await context.batcher.submit(EDIT, word))


async def lift(request: Request, context: Context, identity: Identity) -> Response:
    """Lets a person be written to again."""
    channel, (address, *also) = _known(request, context)
    word = opt_out_edits.operator(
        identity.tenant_id, channel, address, State.IN, Source.API, None, also
    )
    view = await context.batcher.submit(EDIT, word)
    if view is None:
        raise not_found("opt-out")
    return answer(view)


async def history(request: Request, context: Context, identity: Identity) -> Response:
    """Every word about a person, the newest first."""
    channel, names = _known(request, context)
    limit, cursor = limit_of(request), cursor_of(request)
    if cursor is not None and not (len(cursor) == 1 and is_id(cursor[0])):
        raise unprocessable([("cursor", "must be a next_cursor that this list gave")])
    before = cursor[0] if cursor else None
    rows = await context.reader.call(
        opt_out_edits.history, identity.tenant_id, channel, names, before, limit + 1
    )
    if not rows and before is None:
        raise not_found("opt-out")
    page = rows[:limit]
    following = cursor_for(page[-1]["id"]) if len(rows) > limit else None
    return answer({"items": [opt_out_event_view(row) for row in page], "next_cursor": following})


def _known(request: Request, context: Context) -> tuple[Channel, tuple[str, ...]]:
    """The person of a path, by each name that may be stored: they may also have written from what
    is no address to write to."""
    channel, text = _channel(request), str(request.path_params["address"])
    if not storable(text):
        raise not_found("opt-out")
    return channel, context.outbound.names(text)


def _named(request: Request, context: Context) -> tuple[Channel, str]:
    """The person of a path, whom a message could be sent to."""
    channel, text = _channel(request), str(request.path_params["address"])
    try:
        return channel, addresses.person(channel, context.outbound.as_stored(text))
    except addresses.AddressError as error:
        raise unprocessable([("address", str(error))]) from None


def _channel(request: Request) -> Channel:
    text = request.path_params["channel"]
    if text not in tuple(Channel):
        raise not_found("channel")
    return Channel(text)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/opt-outs",
        handler=index,
        summary="List who is not to be written to; what changed last comes first",
        answer="OptOutList",
        query=("channel", "address", "state", *PAGE),
        choices=CHOICES,
        errors=(422,),
        tag="Opt-outs",
    ),
    Operation(
        method="GET",
        path="/api/opt-outs/{channel}/{address}",
        handler=show,
        summary="Show whether a person may be written to, with the proof",
        answer="OptOut",
        errors=(404,),
        tag="Opt-outs",
    ),
    Operation(
        method="PUT",
        path="/api/opt-outs/{channel}/{address}",
        handler=block,
        summary="Block a person on a channel, for every provider",
        answer="OptOut",
        body=OptOutReason,
        bare=True,
        errors=(400, 404, 408, 413, 415, 422),
        tag="Opt-outs",
    ),
    Operation(
        method="DELETE",
        path="/api/opt-outs/{channel}/{address}",
        handler=lift,
        summary="Let a person be written to again",
        answer="OptOut",
        errors=(404,),
        tag="Opt-outs",
    ),
    Operation(
        method="GET",
        path="/api/opt-outs/{channel}/{address}/history",
        handler=history,
        summary="List every word about a person, newest first",
        answer="OptOutEventList",
        query=PAGE,
        errors=(404, 422),
        tag="Opt-outs",
    ),
)

PROOF = {
    "source": enum_of(Source),
    "detail": MAYBE,
    "our_address": MAYBE,
    "message_id": MAYBE,
    "attempt_id": MAYBE,
    "inbox_id": MAYBE,
}
OPT_OUT = object_of(
    {
        "channel": enum_of(Channel),
        "address": TEXT,
        "state": enum_of(State),
        **PROOF,
        "since": TIME,
        "created_at": TIME,
        "updated_at": TIME,
    }
)
OPT_OUT_EVENT = object_of(
    {
        "id": TEXT,
        "channel": enum_of(Channel),
        "address": TEXT,
        "state": enum_of(State),
        "verdict": enum_of(Verdict),
        **PROOF,
        "said_at": TIME,
        "created_at": TIME,
    }
)
SHAPES = {
    "OptOut": OPT_OUT,
    "OptOutEvent": OPT_OUT_EVENT,
    "OptOutList": list_of("OptOut"),
    "OptOutEventList": list_of("OptOutEvent"),
}
