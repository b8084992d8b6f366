"""`/api/conversations/{id}/notes`: what we write down for ourselves. It is never sent."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.context import Context
from gateway.api.messages import json_body
from gateway.api.operation import PAGE, Operation
from gateway.api.problems import not_found, unprocessable
from gateway.api.reading import (
    answer,
    cursor_for,
    cursor_of,
    id_of,
    is_id,
    limit_of,
    validate,
)
from gateway.api.schemas import NewNote
from gateway.api.shapes import MAYBE, TEXT, TIME, list_of, object_of
from gateway.clock import new_id
from gateway.store import conversation_edits, queries
from gateway.store.conversation_edits import ADD_NOTE, REMOVE_NOTE, NoteNamed
from gateway.store.keys import Identity
from gateway.views import note_view


async def index(request: Request, context: Context, identity: Identity) -> Response:
    """The notes of a conversation, newest first."""
    id_ = id_of(request, "conversation")
    limit, cursor = limit_of(request), cursor_of(request)
    if cursor is not None and not (len(cursor) == 1 and is_id(cursor[0])):
        raise unprocessable([("cursor", "must be a next_cursor that this list gave")])
    if await context.reader.call(queries.conversation, identity.tenant_id, id_) is None:
        raise not_found("conversation")
    before = cursor[0] if cursor else None
    rows = await context.reader.call(
        conversation_edits.list_notes, identity.tenant_id, id_, before, limit + 1
    )
    page = rows[:limit]
    following = cursor_for(page[-1]["id"]) if len(rows) > limit else None
    return answer({"items": [note_view(row) for row in page], "next_cursor": following})


async def create(request: Request, context: Context, identity: Identity) -> Response:
    """Adds a note."""
    id_ = id_of(request, "conversation")
    wanted = validate(NewNote, await json_body(request, context))
    new = conversation_edits.NewNote(
        identity.tenant_id, new_id("note"), id_, wanted.author, wanted.body
    )
    row = await context.batcher.submit(ADD_NOTE, new)
    if row is None:
        raise not_found("conversation")
    return answer(note_view(row), 201)


async def remove(request: Request, context: Context, identity: Identity) -> Response:
    """Removes a note."""
    id_, note = id_of(request, "conversation"), id_of(request, "note", "note_id")
    if not await context.batcher.submit(REMOVE_NOTE, NoteNamed(identity.tenant_id, id_, note)):
        raise not_found("note")
    return Response(status_code=204)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/conversations/{id}/notes",
        handler=index,
        summary="List the notes of a conversation, newest first",
        answer="NoteList",
        query=PAGE,
        errors=(404, 422),
        tag="Notes",
    ),
    Operation(
        method="POST",
        path="/api/conversations/{id}/notes",
        handler=create,
        summary="Add a note to a conversation; it is never sent",
        answer="Note",
        status=201,
        body=NewNote,
        errors=(400, 404, 408, 413, 415, 422),
        tag="Notes",
    ),
    Operation(
        method="DELETE",
        path="/api/conversations/{id}/notes/{note_id}",
        handler=remove,
        summary="Remove a note",
        answer="",
        status=204,
        errors=(404,),
        tag="Notes",
    ),
)

SHAPES = {
    "Note": object_of(
        {"id": TEXT, "conversation_id": TEXT, "author": MAYBE, "body": TEXT, "created_at": TIME}
    ),
    "NoteList": list_of("Note"),
}
