"""`/api/communications`: the log of what was sent, as a list, or whole as CSV in pieces."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.api.auth import header
from gateway.api.context import Context
from gateway.api.operation import PAGE, Choices, Operation
from gateway.api.problems import unprocessable
from gateway.api.reading import (
    answer,
    chosen,
    cursor_for,
    cursor_of,
    filters_of,
    in_order,
    is_id,
    limit_of,
    when_of,
)
from gateway.api.shapes import (
    COUNT,
    MAYBE,
    MONEY,
    OBJECT,
    TEXT,
    TIME,
    enum_of,
    error_of,
    list_of,
    object_of,
)
from gateway.cells import guarded
from gateway.clock import show
from gateway.domain import Channel, MessageType, Status
from gateway.store import communications
from gateway.store.communications import COLUMNS, Row
from gateway.store.keys import Identity
from gateway.store.message_lists import Asked
from gateway.views import communication_view

EQUAL = ("channel", "status", "provider", "recipient", "purpose")
FILTERS = (*EQUAL, "since", "until")
FORMATS = ("json", "csv")
CHOICES: Choices = {"channel": tuple(Channel), "status": tuple(Status), "format": FORMATS}
CSV = "text/csv"
PIECE = 500  # rows that are read at once
TIMES = frozenset(name for name in COLUMNS if name.endswith("_at"))


async def index(request: Request, context: Context, identity: Identity) -> Response:
    """What was sent, newest first."""
    asked, wanted = _asked(request, context)
    if wanted == "csv":
        return await _file(context, identity, asked)
    limit, cursor = limit_of(request), cursor_of(request)
    if cursor is not None and not (len(cursor) == 1 and is_id(cursor[0])):
        raise unprocessable([("cursor", "must be a next_cursor that this list gave")])
    older = cursor[0] if cursor else None
    rows = await context.reader.call(
        communications.listed, identity.tenant_id, asked, older, limit + 1
    )
    page = rows[:limit]
    following = cursor_for(page[-1]["message_id"]) if len(rows) > limit else None
    return answer({"items": [communication_view(row) for row in page], "next_cursor": following})


def _asked(request: Request, context: Context) -> tuple[Asked, str]:
    """Which messages, and in which form."""
    filters = filters_of(request)
    chosen(filters, {**CHOICES, "provider": context.known})
    form = "csv" if CSV in header(request, b"accept").lower() else "json"
    form = filters.pop("format", form)
    for name in ("since", "until"):
        filters.pop(name, None)
    only = {"direction": "outbound", **filters}
    if "recipient" in only:
        only["to"] = context.outbound.as_stored(only.pop("recipient"))
    after, before = when_of(request, "since"), when_of(request, "until")
    in_order(("since", after), ("until", before))
    return Asked(only, after, before), form


async def _file(context: Context, identity: Identity, asked: Asked) -> Response:
    """All of it. The first piece is read before the answer begins, so that it can be a problem."""
    first = await _piece(context, identity, asked, None)
    headers = {
        "content-disposition": 'attachment; filename="communications.csv"',
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    return StreamingResponse(
        _pieces(context, identity, asked, first), media_type=CSV, headers=headers
    )


async def _pieces(
    context: Context, identity: Identity, asked: Asked, rows: list[Row]
) -> AsyncIterator[str]:
    yield _text([COLUMNS])
    while rows:
        yield _text(_cells(row) for row in rows)
        if len(rows) < PIECE:
            return
        rows = await _piece(context, identity, asked, rows[-1]["message_id"])


async def _piece(
    context: Context, identity: Identity, asked: Asked, older: str | None
) -> list[Row]:
    return await context.reader.call(communications.listed, identity.tenant_id, asked, older, PIECE)


def _text(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()


def _cells(row: Row) -> list[str]:
    shown = {**row, "cost_estimated": "true" if row["cost_estimated"] else None}
    shown.update({name: show(row[name]) for name in TIMES})
    return [guarded("" if shown[name] is None else str(shown[name])) for name in COLUMNS]


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/communications",
        handler=index,
        summary="List what was sent, newest first; or all of it as CSV",
        answer="CommunicationList",
        file=CSV,
        query=(*FILTERS, "format", *PAGE),
        choices=CHOICES,
        errors=(422,),
        tag="Costs",
    ),
)

COMMUNICATION = object_of(
    {
        "message_id": TEXT,
        "conversation_id": TEXT,
        "channel": enum_of(Channel),
        "type": enum_of(MessageType),
        "recipient": MAYBE,
        "sender": MAYBE,
        "purpose": MAYBE,
        "status": enum_of(Status),
        "provider": MAYBE,
        "provider_message_id": MAYBE,
        "attempts": {"type": "integer"},
        "segments": COUNT,
        "cost": MONEY,
        "error": error_of("code", "message", "provider"),
        "created_at": TIME,
        "send_at": TIME,
        "sent_at": TIME,
        "delivered_at": TIME,
        "read_at": TIME,
        "metadata": OBJECT,
    }
)
SHAPES = {"Communication": COMMUNICATION, "CommunicationList": list_of("Communication")}
