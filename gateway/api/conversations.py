"""`/api/conversations`: list, open, answer, mark as read."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import rehearsal
from gateway.api.context import Context
from gateway.api.messages import (
    accepted,
    draft_of,
    idempotency_key,
    json_body,
    listed as messages_listed,
    once,
    thread_of,
)
from gateway.api.operation import PAGE, Choices, Operation
from gateway.api.problems import Problem, not_found, unprocessable
from gateway.api.reading import (
    answer,
    chosen,
    cursor_for,
    cursor_of,
    filters_of,
    id_of,
    is_id,
    limit_of,
    question_of,
    validate,
)
from gateway.api.schemas import Reply
from gateway.domain import Channel
from gateway.drafts import Draft
from gateway.store import conversation_lists, queries
from gateway.store.accepts import Accepted
from gateway.store.conversation_lists import Place
from gateway.store.conversation_search import matching
from gateway.store.edits import READ_CONVERSATION, Named
from gateway.store.keys import Identity
from gateway.store.message_lists import Asked
from gateway.store.tx import Tx
from gateway.views import conversation_view
from gateway.words import Question

MOST = 2**63 - 1
FILTERS = (*conversation_lists.FILTERS, "q")
CHOICES: Choices = {
    "channel": tuple(Channel),
    "status": ("open", "closed"),
    "unread": ("true", "false"),
}


async def index(request: Request, context: Context, identity: Identity) -> Response:
    """Conversations, the one last written in first."""
    filters = filters_of(request)
    asked = question_of(filters)
    chosen(filters, CHOICES)
    for name in {"address", "our_address"} & filters.keys():
        filters[name] = context.outbound.as_stored(filters[name])
    return await listed(request, context, identity, filters, asked)


async def listed(
    request: Request,
    context: Context,
    identity: Identity,
    filters: dict[str, str],
    asked: Question | None,
) -> Response:
    """A page of conversations."""
    limit, before = limit_of(request), _place(request)
    rows = await context.reader.call(_rows, identity.tenant_id, filters, asked, before, limit + 1)
    page, following = rows[:limit], None
    if len(rows) > limit:
        following = cursor_for(page[-1]["last_message_at"], page[-1]["id"])
    return answer({"items": [conversation_view(row) for row in page], "next_cursor": following})


def _rows(
    tx: Tx,
    tenant_id: str,
    filters: dict[str, str],
    asked: Question | None,
    before: Place | None,
    limit: int,
) -> list[dict[str, Any]]:
    conditions = conversation_lists.conditions(tenant_id, filters)
    if asked is not None:
        conditions.insert(0, matching(tx, tenant_id, asked))
    return conversation_lists.listed(tx, tenant_id, conditions, before, limit)


def _place(request: Request) -> Place | None:
    cursor = cursor_of(request)
    if cursor is None:
        return None
    numbered = len(cursor) == 2 and type(cursor[0]) is int and 0 <= cursor[0] <= MOST
    if not numbered or not is_id(cursor[1]):
        raise unprocessable([("cursor", "must be a next_cursor that this list gave")])
    return cursor[0], cursor[1]


async def show(request: Request, context: Context, identity: Identity) -> Response:
    """One conversation."""
    id_ = id_of(request, "conversation")
    row = await context.reader.call(queries.conversation, identity.tenant_id, id_)
    if row is None:
        raise not_found("conversation")
    return answer(conversation_view(row))


async def messages(request: Request, context: Context, identity: Identity) -> Response:
    """The messages of a conversation, newest first."""
    id_ = id_of(request, "conversation")
    if await context.reader.call(queries.conversation, identity.tenant_id, id_) is None:
        raise not_found("conversation")
    asked = question_of(filters_of(request))
    return await messages_listed(request, context, identity, Asked({"conversation_id": id_}), asked)


async def reply(request: Request, context: Context, identity: Identity) -> Response:
    """Answers in a conversation, from the address that the person wrote to."""
    id_ = id_of(request, "conversation")
    value = await json_body(request, context)
    key = idempotency_key(request, context, f"POST /api/conversations/{id_}/messages", value)

    async def draft() -> Draft:
        wanted = validate(Reply, value)
        thread = await thread_of(context, identity, id_)
        return draft_of(wanted, thread.channel, thread.address, thread)

    async def accept() -> Accepted:
        return await context.outbound.accept(await draft(), tenant_id=identity.tenant_id, key=key)

    if rehearsal.asked(request):
        return await rehearsal.rehearse(context, identity, await draft())
    return accepted(await once(accept(), context, identity, key))


async def read(request: Request, context: Context, identity: Identity) -> Response:
    """Marks all that the person wrote as read; at the vendor, too, where it can: there the newest
    message stands for those before it."""
    id_ = id_of(request, "conversation")
    newest = await context.reader.call(queries.newest_inbound, identity.tenant_id, id_)
    if not await context.batcher.submit(READ_CONVERSATION, Named(identity.tenant_id, id_)):
        raise not_found("conversation")
    if newest is not None and newest["read_at"] is None:
        context.gestures.show(newest)
    return await show(request, context, identity)


async def typing(request: Request, context: Context, identity: Identity) -> Response:
    """Shows the person that an answer is being written."""
    id_ = id_of(request, "conversation")
    row = await context.reader.call(queries.conversation, identity.tenant_id, id_)
    if row is None:
        raise not_found("conversation")
    newest = await context.reader.call(queries.newest_inbound, identity.tenant_id, id_)
    if newest is None:
        raise Problem(409, "The person has written nothing yet: there is nobody to show it to.")
    if not context.gestures.can(newest, typing=True):
        raise Problem(409, f"Nobody here can show it on {row['channel']} for this conversation.")
    context.gestures.show(newest, typing=True)
    return answer(conversation_view(row), 202)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/conversations",
        handler=index,
        summary="List conversations, the one last written in first",
        answer="ConversationList",
        query=(*FILTERS, *PAGE),
        choices=CHOICES,
        errors=(422,),
        tag="Conversations",
    ),
    Operation(
        method="GET",
        path="/api/conversations/{id}",
        handler=show,
        summary="Show a conversation",
        answer="Conversation",
        errors=(404,),
        tag="Conversations",
    ),
    Operation(
        method="GET",
        path="/api/conversations/{id}/messages",
        handler=messages,
        summary="List the messages of a conversation, newest first",
        answer="MessageList",
        query=("q", *PAGE),
        errors=(404, 422),
        tag="Conversations",
    ),
    Operation(
        method="POST",
        path="/api/conversations/{id}/messages",
        handler=reply,
        summary="Answer in a conversation, from the address that the person wrote to",
        answer="Message",
        status=202,
        body=Reply,
        query=rehearsal.QUERY,
        also=rehearsal.GOOD,
        headers=("Idempotency-Key",),
        errors=(400, 404, 408, 413, 415, 422),
        tag="Conversations",
    ),
    Operation(
        method="POST",
        path="/api/conversations/{id}/read",
        handler=read,
        summary="Mark all that the person wrote as read",
        answer="Conversation",
        errors=(404,),
        tag="Conversations",
    ),
    Operation(
        method="POST",
        path="/api/conversations/{id}/typing",
        handler=typing,
        summary="Show the person that an answer is being written",
        answer="Conversation",
        status=202,
        errors=(404, 409),
        tag="Conversations",
    ),
)
