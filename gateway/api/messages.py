"""`/api/messages`: send, look up, list, cancel, reschedule, mark as read."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway import emails
from gateway.api import rehearsal
from gateway.api.auth import header
from gateway.api.context import Context
from gateway.api.json_text import json_of
from gateway.api.operation import PAGE, Choices, Operation
from gateway.api.problems import Problem, not_found, unprocessable
from gateway.api.reading import (
    answer,
    body_of,
    chosen,
    cursor_for,
    cursor_of,
    filters_of,
    id_of,
    in_order,
    is_id,
    limit_of,
    moment_of,
    question_of,
    validate,
)
from gateway.api.schemas import Content, NewMessage, Reschedule
from gateway.api.templates import refusal
from gateway.clock import to_ms
from gateway.domain import Channel, Direction, MessageType, Status
from gateway.drafts import Draft, Thread
from gateway.explain import NOTHING, waiting
from gateway.outbound import FARTHEST, Invalid
from gateway.status import WAITING
from gateway.store import message_lists, queries, search
from gateway.store.accepts import Accepted, IdempotencyKey
from gateway.store.edits import CANCEL, READ_MESSAGE, RESCHEDULE, Moved, Named
from gateway.store.keys import Identity
from gateway.store.message_lists import Asked
from gateway.views import attempts_view, message_view
from gateway.windows import WindowClosed
from gateway.words import Question

ROUTE = "POST /api/messages"
FILTERS = (*message_lists.EQUAL, "created_after", "created_before", "q")
CHOICES: Choices = {
    "channel": tuple(Channel),
    "direction": tuple(Direction),
    "status": tuple(Status),
    "type": tuple(MessageType),
}


async def create(request: Request, context: Context, identity: Identity) -> Response:
    """Accepts a message: stored durably, sent from then on."""
    value = await json_body(request, context)
    key = idempotency_key(request, context, ROUTE, value)

    async def draft() -> Draft:
        wanted = validate(NewMessage, value)
        thread = None
        if wanted.conversation_id is not None:
            thread = await thread_of(context, identity, wanted.conversation_id, wanted.channel)
        return draft_of(wanted, wanted.channel, wanted.to, thread)

    async def accept() -> Accepted:
        return await context.outbound.accept(await draft(), tenant_id=identity.tenant_id, key=key)

    if rehearsal.asked(request):
        return await rehearsal.rehearse(context, identity, await draft())
    return accepted(await once(accept(), context, identity, key))


async def once(
    accepting: Awaitable[Accepted], context: Context, identity: Identity, key: IdempotencyKey | None
) -> Accepted:
    """What was accepted under a key is answered again, also where it would be refused by now:
    its time has passed meanwhile, or a provider or the conversation has gone."""
    try:
        return await accepting
    except WindowClosed as closed:
        raise await refusal(context, closed) from None
    except (Invalid, Problem) as wrong:
        if key is None or (isinstance(wrong, Problem) and wrong.status not in (404, 422)):
            raise
        earlier = await context.reader.call(
            queries.earlier_answer, identity.tenant_id, key.route, key.key
        )
        if earlier is None:
            raise
    conflict = earlier["body_hash"] != key.body_hash
    return Accepted(json.loads(earlier["response"]), replayed=True, conflict=conflict)


async def json_body(request: Request, context: Context) -> Any:
    """The JSON that a request carries."""
    bounds = context.bounds
    body = await body_of(request, bounds.request_bytes, bounds.request_time)
    return json_of(body, header(request, b"content-type"))


def idempotency_key(
    request: Request, context: Context, route: str, value: Any
) -> IdempotencyKey | None:
    """The caller's `Idempotency-Key`, if there is one."""
    key = header(request, b"idempotency-key")
    if not key:
        return None
    if sum(name == b"idempotency-key" for name, _ in request.scope["headers"]) > 1:
        raise unprocessable([("Idempotency-Key", "must be given once")])
    if not 1 <= len(key) <= 255 or not key.isprintable():
        raise unprocessable([("Idempotency-Key", "must have 1 to 255 printable characters")])
    return context.outbound.idempotency(route, key, value)


async def thread_of(
    context: Context, identity: Identity, id_: str, channel: Channel | None = None
) -> Thread:
    """The conversation that a message answers."""
    row = None
    if is_id(id_):
        row = await context.reader.call(queries.conversation, identity.tenant_id, id_)
    if row is None:
        if channel is None:
            raise not_found("conversation")
        raise unprocessable([("conversation_id", "is not a conversation of yours")])
    if channel is not None and row["channel"] != channel:
        raise unprocessable([("channel", f"must be {row['channel']}, as the conversation is")])
    return Thread(
        id=row["id"],
        channel=Channel(row["channel"]),
        address=row["address"],
        our_key=row["our_key"],
        our_address=row["our_address"],
        answered=await _answered(context, identity, row),
    )


async def _answered(
    context: Context, identity: Identity, row: Mapping[str, Any]
) -> emails.Answered | None:
    """The email that is answered in a conversation."""
    if row["channel"] != Channel.EMAIL:
        return None
    last = await context.reader.call(queries.last_email, identity.tenant_id, row["id"])
    if last is None:
        return None
    return emails.answered(last["subject"], json.loads(last["extra"]) if last["extra"] else {})


def draft_of(wanted: Content, channel: Channel, to: str, thread: Thread | None) -> Draft:
    """A validated body as the core takes it."""
    return Draft(
        channel=channel,
        to=to,
        body=wanted.body,
        sender=wanted.sender,
        type=MessageType(wanted.type) if wanted.type else None,
        content=wanted.content,
        media=tuple(file.model_dump() for file in wanted.media),
        reply_to=wanted.reply_to,
        template=wanted.template.model_dump() if wanted.template else None,
        subject=wanted.subject,
        html=wanted.html,
        email=wanted.email.model_dump() if wanted.email else None,
        priority=wanted.priority,
        send_at=wanted.send_at,
        expires_at=wanted.expires_at,
        metadata=wanted.metadata,
        on_unknown=wanted.on_unknown,
        thread=thread,
        outside_window=wanted.outside_window == "try",
    )


def accepted(done: Accepted) -> Response:
    """The answer to a message that was accepted, now or earlier under the same key."""
    if done.conflict:
        raise unprocessable([("Idempotency-Key", "was used for a request with another body")])
    headers = {"location": f"/api/messages/{done.view['id']}"}
    if done.replayed:
        headers["idempotency-replayed"] = "true"
    return answer(done.view, 202, headers)


async def show(request: Request, context: Context, identity: Identity) -> Response:
    """One message, with its attempts."""
    id_ = id_of(request, "message")
    row = await context.reader.call(queries.message, identity.tenant_id, id_)
    if row is None:
        raise not_found("message")
    return answer(await shown(row, context, identity))


async def shown(row: queries.Row, context: Context, identity: Identity) -> dict[str, Any]:
    """A message with its attempts, and what it waits for."""
    id_ = row["id"]
    attempts = await context.reader.call(queries.attempts_of, identity.tenant_id, id_)
    waits = NOTHING
    if row["status"] in WAITING:
        place = await context.reader.call(queries.place_of, identity.tenant_id, id_)
        waits = waiting(place, row, attempts, context.board)
    return {**message_view(row, whole=True), "attempts": attempts_view(attempts), **waits}


async def index(request: Request, context: Context, identity: Identity) -> Response:
    """Messages, newest first."""
    filters = filters_of(request)
    chosen(filters, {**CHOICES, "provider": context.known})
    for name in {"to", "from"} & filters.keys():
        filters[name] = context.outbound.as_stored(filters[name])
    after, before = moment_of(filters, "created_after"), moment_of(filters, "created_before")
    in_order(("created_after", after), ("created_before", before))
    asked = question_of(filters)
    return await listed(request, context, identity, Asked(filters, after, before), asked)


async def listed(
    request: Request,
    context: Context,
    identity: Identity,
    only: Asked,
    asked: Question | None = None,
) -> Response:
    """A page of messages."""
    if asked is not None:
        return await searched(request, context, identity, only, asked)
    limit, cursor = limit_of(request), cursor_of(request)
    if cursor is not None and not (len(cursor) == 1 and is_id(cursor[0])):
        raise unprocessable([("cursor", "must be a next_cursor that this list gave")])
    older = cursor[0] if cursor else None
    rows = await context.reader.call(
        message_lists.listed, identity.tenant_id, only, older, limit + 1
    )
    page = rows[:limit]
    following = cursor_for(page[-1]["id"]) if len(rows) > limit else None
    return answer({"items": [message_view(row) for row in page], "next_cursor": following})


async def searched(
    request: Request, context: Context, identity: Identity, only: Asked, asked: Question
) -> Response:
    """A page of the messages with some words."""
    limit, cursor = limit_of(request), cursor_of(request)
    if cursor is not None and not (
        len(cursor) == 1 and type(cursor[0]) is int and abs(cursor[0]) < search.NEWEST
    ):
        raise unprocessable([("cursor", "must be a next_cursor that this list gave")])
    before = cursor[0] if cursor else None
    page = await context.reader.call(
        search.found_messages, identity.tenant_id, asked, only, before, limit
    )
    following = None if page.following is None else cursor_for(page.following)
    return answer({"items": [message_view(row) for row in page.rows], "next_cursor": following})


async def cancel(request: Request, context: Context, identity: Identity) -> Response:
    """Cancels a message that nobody has begun to send."""
    id_ = id_of(request, "message")
    done = await context.batcher.submit(CANCEL, Named(identity.tenant_id, id_))
    row = await context.reader.call(queries.message, identity.tenant_id, id_)
    if row is None:
        raise not_found("message")
    if not done and row["status"] != "canceled":
        raise Problem(409, f"It is {row['status']}; only what waits to be sent can be canceled.")
    return answer(message_view(row))


async def reschedule(request: Request, context: Context, identity: Identity) -> Response:
    """Gives a message that nobody has begun to send another time."""
    id_ = id_of(request, "message")
    moved = _moved(validate(Reschedule, await json_body(request, context)), context, identity, id_)
    done = await context.batcher.submit(RESCHEDULE, moved)
    row = await context.reader.call(queries.message, identity.tenant_id, id_)
    if row is None:
        raise not_found("message")
    if not done:
        raise Problem(
            409, f"It is {row['status']}; only what nobody has begun to send can be rescheduled."
        )
    return answer(message_view(row))


def _moved(wanted: Reschedule, context: Context, identity: Identity, id_: str) -> Moved:
    now, send_at = to_ms(context.clock.now()), to_ms(wanted.send_at)
    expires_at = to_ms(wanted.expires_at) if wanted.expires_at is not None else None
    problems = []
    if send_at > now + FARTHEST:
        problems.append(("send_at", "must be within a hundred years"))
    if expires_at is not None and expires_at <= max(now, send_at):
        problems.append(("expires_at", "must be after now and after send_at"))
    if problems:
        raise unprocessable(problems)
    return Moved(identity.tenant_id, id_, send_at, expires_at)


async def read(request: Request, context: Context, identity: Identity) -> Response:
    """Marks an inbound message as read; at the vendor, too, where it can."""
    id_ = id_of(request, "message")
    before = await context.reader.call(queries.message, identity.tenant_id, id_)
    done = await context.batcher.submit(READ_MESSAGE, Named(identity.tenant_id, id_))
    row = await context.reader.call(queries.message, identity.tenant_id, id_)
    if row is None:
        raise not_found("message")
    if not done:
        raise Problem(409, "Only an inbound message can be marked as read.")
    if before is not None and before["read_at"] is None:
        context.gestures.show(row)
    return answer(message_view(row))


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/messages",
        handler=create,
        summary="Send a message",
        answer="Message",
        status=202,
        body=NewMessage,
        query=rehearsal.QUERY,
        also=rehearsal.GOOD,
        headers=("Idempotency-Key",),
        errors=(400, 408, 413, 415, 422),
    ),
    Operation(
        method="GET",
        path="/api/messages",
        handler=index,
        summary="List messages, newest first",
        answer="MessageList",
        query=(*FILTERS, *PAGE),
        choices=CHOICES,
        errors=(422,),
    ),
    Operation(
        method="GET",
        path="/api/messages/{id}",
        handler=show,
        summary="Show a message with its attempts",
        answer="MessageWithAttempts",
        errors=(404,),
    ),
    Operation(
        method="POST",
        path="/api/messages/{id}/cancel",
        handler=cancel,
        summary="Cancel a message that nobody has begun to send",
        answer="Message",
        errors=(404, 409),
    ),
    Operation(
        method="POST",
        path="/api/messages/{id}/reschedule",
        handler=reschedule,
        summary="Give a message that nobody has begun to send another time",
        answer="Message",
        body=Reschedule,
        errors=(400, 404, 408, 409, 413, 415, 422),
    ),
    Operation(
        method="POST",
        path="/api/messages/{id}/read",
        handler=read,
        summary="Mark an inbound message as read",
        answer="Message",
        errors=(404, 409),
    ),
)
