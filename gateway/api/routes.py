"""THE list of the API's operations: the router and the OpenAPI document are both made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from gateway.api import conversations, events, health, media, messages, metrics, opt_outs
from gateway.api.context import Context, Guarded, Handler
from gateway.api.schemas import NewMessage, OptOutReason, Reply, Reschedule


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One operation: what the router needs and what the document tells."""

    method: str
    path: str
    handler: Handler
    summary: str
    answer: str  # a schema of the document, or a media type
    status: int = 200
    body: type[BaseModel] | None = None
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    tag: str = "Messages"


PAGE = ("limit", "cursor")
OPERATIONS: Sequence[Operation] = (
    Operation(
        method="POST",
        path="/api/messages",
        handler=messages.create,
        summary="Send a message",
        answer="Message",
        status=202,
        body=NewMessage,
        headers=("Idempotency-Key",),
        errors=(400, 408, 413, 415, 422),
    ),
    Operation(
        method="GET",
        path="/api/messages",
        handler=messages.index,
        summary="List messages, newest first",
        answer="MessageList",
        query=(
            "status",
            "channel",
            "direction",
            "to",
            "from",
            "conversation_id",
            "provider_message_id",
            *PAGE,
        ),
        errors=(422,),
    ),
    Operation(
        method="GET",
        path="/api/messages/{id}",
        handler=messages.show,
        summary="Show a message with its attempts",
        answer="MessageWithAttempts",
        errors=(404,),
    ),
    Operation(
        method="POST",
        path="/api/messages/{id}/cancel",
        handler=messages.cancel,
        summary="Cancel a message that nobody has begun to send",
        answer="Message",
        errors=(404, 409),
    ),
    Operation(
        method="POST",
        path="/api/messages/{id}/reschedule",
        handler=messages.reschedule,
        summary="Give a message that nobody has begun to send another time",
        answer="Message",
        body=Reschedule,
        errors=(400, 404, 408, 409, 413, 415, 422),
    ),
    Operation(
        method="POST",
        path="/api/messages/{id}/read",
        handler=messages.read,
        summary="Mark an inbound message as read",
        answer="Message",
        errors=(404, 409),
    ),
    Operation(
        method="GET",
        path="/api/conversations",
        handler=conversations.index,
        summary="List conversations, the one last written in first",
        answer="ConversationList",
        query=("channel", "status", "address", *PAGE),
        errors=(422,),
        tag="Conversations",
    ),
    Operation(
        method="GET",
        path="/api/conversations/{id}",
        handler=conversations.show,
        summary="Show a conversation",
        answer="Conversation",
        errors=(404,),
        tag="Conversations",
    ),
    Operation(
        method="GET",
        path="/api/conversations/{id}/messages",
        handler=conversations.messages,
        summary="List the messages of a conversation, newest first",
        answer="MessageList",
        query=PAGE,
        errors=(404, 422),
        tag="Conversations",
    ),
    Operation(
        method="POST",
        path="/api/conversations/{id}/messages",
        handler=conversations.reply,
        summary="Answer in a conversation, from the address that the person wrote to",
        answer="Message",
        status=202,
        body=Reply,
        headers=("Idempotency-Key",),
        errors=(400, 404, 408, 413, 415, 422),
        tag="Conversations",
    ),
    Operation(
        method="POST",
        path="/api/conversations/{id}/read",
        handler=conversations.read,
        summary="Mark all that the person wrote as read",
        answer="Conversation",
        errors=(404,),
        tag="Conversations",
    ),
    Operation(
        method="GET",
        path="/api/opt-outs",
        handler=opt_outs.index,
        summary="List who is not to be written to; what changed last comes first",
        answer="OptOutList",
        query=("channel", "address", "state", *PAGE),
        errors=(422,),
        tag="Opt-outs",
    ),
    Operation(
        method="GET",
        path="/api/opt-outs/{channel}/{address}",
        handler=opt_outs.show,
        summary="Show whether a person may be written to, with the proof",
        answer="OptOut",
        errors=(404,),
        tag="Opt-outs",
    ),
    Operation(
        method="PUT",
        path="/api/opt-outs/{channel}/{address}",
        handler=opt_outs.block,
        summary="Block a person on a channel, for every provider",
        answer="OptOut",
        body=OptOutReason,
        errors=(400, 404, 408, 413, 415, 422),
        tag="Opt-outs",
    ),
    Operation(
        method="DELETE",
        path="/api/opt-outs/{channel}/{address}",
        handler=opt_outs.lift,
        summary="Let a person be written to again",
        answer="OptOut",
        errors=(404,),
        tag="Opt-outs",
    ),
    Operation(
        method="GET",
        path="/api/opt-outs/{channel}/{address}/history",
        handler=opt_outs.history,
        summary="List every word about a person, newest first",
        answer="OptOutEventList",
        query=PAGE,
        errors=(404, 422),
        tag="Opt-outs",
    ),
    Operation(
        method="GET",
        path="/api/events",
        handler=events.stream,
        summary="Follow the event feed as server-sent events",
        answer="text/event-stream",
        query=("after",),
        headers=("Last-Event-ID",),
        errors=(422, 429),
        tag="Events",
    ),
    Operation(
        method="GET",
        path="/api/media/{id}",
        handler=media.show,
        summary="Get a file that a person sent",
        answer="application/octet-stream",
        errors=(404, 410),
        tag="Media",
    ),
    Operation(
        method="GET",
        path="/health/messaging",
        handler=health.messaging,
        summary="How the providers are",
        answer="MessagingHealth",
        tag="Health",
    ),
    Operation(
        method="GET",
        path="/metrics",
        handler=metrics.metrics,
        summary="This process in numbers, for Prometheus",
        answer="text/plain",
        tag="Health",
    ),
)


def exact(context: Context) -> dict[tuple[str, str], ASGIApp]:
    """The operations whose paths have no parameters, by method and path."""
    return {
        (operation.method, operation.path): Guarded(context, {operation.method: operation.handler})
        for operation in OPERATIONS
        if "{" not in operation.path
    }


def routes(context: Context) -> list[BaseRoute]:
    """The API's routes; one per path, so that a 405 names every method."""
    paths: dict[str, dict[str, Handler]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = operation.handler
    return [Route(path, Guarded(context, by), methods=list(by)) for path, by in paths.items()]
