"""What people of ours change about a conversation: whose it is, open or closed, labels, name."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.context import Context
from gateway.api.json_text import UNSTORABLE
from gateway.api.messages import json_body
from gateway.api.operation import Operation
from gateway.api.problems import not_found, unprocessable
from gateway.api.reading import answer, id_of, validate
from gateway.api.schemas import Assignment, ConversationChange, Label, Labels
from gateway.store.conversation_edits import CHANGE, Change, TooManyLabels
from gateway.store.keys import Identity
from gateway.views import conversation_view

BODY = (400, 404, 408, 413, 415, 422)


async def _changed(
    request: Request, context: Context, identity: Identity, **change: Any
) -> Response:
    """Changes the conversation of the path, and shows it."""
    id_ = id_of(request, "conversation")
    try:
        row = await context.batcher.submit(CHANGE, Change(identity.tenant_id, id_, **change))
    except TooManyLabels as error:
        raise unprocessable([("label", f"is one too many: {error}")]) from None
    if row is None:
        raise not_found("conversation")
    return answer(conversation_view(row))


async def assign(request: Request, context: Context, identity: Identity) -> Response:
    """Gives a conversation to somebody, or to nobody."""
    wanted = validate(Assignment, await json_body(request, context))
    return await _changed(request, context, identity, columns={"assignee": wanted.assignee})


async def close(request: Request, context: Context, identity: Identity) -> Response:
    """Closes a conversation; the person's next message opens it again."""
    return await _changed(request, context, identity, columns={"status": "closed"})


async def reopen(request: Request, context: Context, identity: Identity) -> Response:
    """Opens a conversation that was closed."""
    return await _changed(request, context, identity, columns={"status": "open"})


async def change(request: Request, context: Context, identity: Identity) -> Response:
    """Changes a conversation's name and metadata."""
    wanted = validate(ConversationChange, await json_body(request, context))
    columns: dict[str, Any] = {}
    if "name" in wanted.model_fields_set:
        columns["own_name"] = wanted.name
    if "metadata" in wanted.model_fields_set:
        text = json.dumps(wanted.metadata, separators=(",", ":"), ensure_ascii=False)
        columns["meta"] = text if wanted.metadata else None
    return await _changed(request, context, identity, columns=columns)


async def set_labels(request: Request, context: Context, identity: Identity) -> Response:
    """Gives a conversation these labels and no others."""
    wanted = validate(Labels, await json_body(request, context))
    labels = tuple(dict.fromkeys(wanted.labels))
    return await _changed(request, context, identity, labels=labels)


async def add_label(request: Request, context: Context, identity: Identity) -> Response:
    """Gives a conversation one more label."""
    wanted = validate(Label, await json_body(request, context))
    return await _changed(request, context, identity, add=wanted.label)


async def remove_label(request: Request, context: Context, identity: Identity) -> Response:
    """Takes a label off a conversation."""
    label = str(request.path_params["label"])
    if UNSTORABLE.search(label):
        raise not_found("label")
    return await _changed(request, context, identity, remove=label)


OPERATIONS = (
    Operation(
        method="PATCH",
        path="/api/conversations/{id}",
        handler=change,
        summary="Change what a conversation is called, and its metadata",
        answer="Conversation",
        body=ConversationChange,
        errors=BODY,
        tag="Conversations",
    ),
    Operation(
        method="POST",
        path="/api/conversations/{id}/assign",
        handler=assign,
        summary="Give a conversation to somebody, or to nobody",
        answer="Conversation",
        body=Assignment,
        errors=BODY,
        tag="Conversations",
    ),
    Operation(
        method="POST",
        path="/api/conversations/{id}/close",
        handler=close,
        summary="Close a conversation; the person's next message opens it again",
        answer="Conversation",
        errors=(404,),
        tag="Conversations",
    ),
    Operation(
        method="POST",
        path="/api/conversations/{id}/reopen",
        handler=reopen,
        summary="Open a conversation that was closed",
        answer="Conversation",
        errors=(404,),
        tag="Conversations",
    ),
    Operation(
        method="PUT",
        path="/api/conversations/{id}/labels",
        handler=set_labels,
        summary="Give a conversation these labels and no others",
        answer="Conversation",
        body=Labels,
        errors=BODY,
        tag="Conversations",
    ),
    Operation(
        method="POST",
        path="/api/conversations/{id}/labels",
        handler=add_label,
        summary="Give a conversation one more label",
        answer="Conversation",
        body=Label,
        errors=BODY,
        tag="Conversations",
    ),
    Operation(
        method="DELETE",
        path="/api/conversations/{id}/labels/{label}",
        handler=remove_label,
        summary="Take a label off a conversation",
        answer="Conversation",
        errors=(404,),
        tag="Conversations",
    ),
)
