"""`GET /api/search`: messages, or conversations, by words. The lists take the same `q`."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import conversations, messages
from gateway.api.context import Context
from gateway.api.operation import PAGE, Choices, Operation
from gateway.api.problems import unprocessable
from gateway.api.reading import chosen, filters_of, question_of
from gateway.api.shapes import ref
from gateway.domain import Channel
from gateway.store.keys import Identity
from gateway.store.message_lists import Asked

TYPES = ("messages", "conversations")
CHOICES: Choices = {"channel": tuple(Channel), "type": TYPES}


async def find(request: Request, context: Context, identity: Identity) -> Response:
    """Messages with some words, newest first; or conversations."""
    filters = filters_of(request)
    chosen(filters, CHOICES)
    kind = filters.pop("type", TYPES[0])
    asked = question_of(filters)
    if asked is None:
        raise unprocessable([("q", "is needed: the words to look for")])
    if kind == TYPES[1]:
        return await conversations.listed(request, context, identity, filters, asked)
    return await messages.listed(request, context, identity, Asked(filters), asked)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/search",
        handler=find,
        summary="Find messages, or conversations, by words",
        answer="Findings",
        query=("q", "channel", "type", *PAGE),
        choices=CHOICES,
        needs=("q",),
        errors=(422,),
        tag="Search",
    ),
)

SHAPES = {"Findings": {"anyOf": [ref("MessageList"), ref("ConversationList")]}}
