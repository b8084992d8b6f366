"""The shapes of answers in the OpenAPI document: the words they are made of, and those that
several resources give. A resource's own stand in its module, as `SHAPES`."""

from __future__ import annotations

from typing import Any

from gateway.domain import Channel, Direction, MessageType, OnUnknown, Priority, Status

TIME = {"type": ["string", "null"], "format": "date-time"}
WAITING_FOR = (
    *("schedule", "retry", "breaker", "quota", "sender"),
    *("earlier_message", "worker", "provider", "operator"),
)
TEXT = {"type": "string"}
MAYBE = {"type": ["string", "null"]}
COUNT = {"type": ["integer", "null"]}
OBJECT = {"type": "object", "additionalProperties": True}
MONEY = {
    "type": ["object", "null"],
    "properties": {"amount": TEXT, "currency": MAYBE, "estimated": {"type": "boolean"}},
    "required": ["amount", "currency"],
}


def enum_of(kind: Any) -> dict[str, Any]:
    """One of the words of an enumeration."""
    return {"type": "string", "enum": [member.value for member in kind]}


def object_of(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object; what is not optional is always there."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def error_of(*names: str) -> dict[str, Any]:
    """An error with these fields, or null."""
    properties: dict[str, Any] = dict.fromkeys(names, MAYBE)
    return {"type": ["object", "null"], "properties": properties, "required": list(names)}


def ref(name: str) -> dict[str, str]:
    """A shape by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(name: str) -> dict[str, Any]:
    """A page of a list."""
    return object_of({"items": {"type": "array", "items": ref(name)}, "next_cursor": MAYBE})


MESSAGE = object_of(
    {
        "id": TEXT,
        "conversation_id": TEXT,
        "direction": enum_of(Direction),
        "channel": enum_of(Channel),
        "type": enum_of(MessageType),
        "from": MAYBE,
        "to": MAYBE,
        "body": TEXT,
        "content": OBJECT,
        "reply_to": MAYBE,
        "subject": MAYBE,
        "html": TEXT,
        "email": OBJECT,
        "template": OBJECT,
        "media": {
            "type": "array",
            "items": object_of({"url": TEXT, "content_type": MAYBE, "filename": MAYBE}),
        },
        "status": enum_of(Status),
        "provider": MAYBE,
        "provider_message_id": MAYBE,
        "segments": COUNT,
        "cost": MONEY,
        "priority": enum_of(Priority),
        "on_unknown": enum_of(OnUnknown),
        "error": error_of("code", "message", "provider"),
        "metadata": OBJECT,
        "created_at": TIME,
        "updated_at": TIME,
        "send_at": TIME,
        "expires_at": TIME,
        "sent_at": TIME,
        "delivered_at": TIME,
        "read_at": TIME,
    },
    optional=("html", "email", "template"),
)
ATTEMPT = object_of(
    {
        "id": TEXT,
        "number": {"type": "integer"},
        "provider": TEXT,
        "connection": TEXT,
        "from": MAYBE,
        "status": enum_of(Status),
        "provider_message_id": MAYBE,
        "network_id": MAYBE,
        "error": error_of("class", "code", "message"),
        "why": TEXT,
        "passed_over": {
            "type": "array",
            "items": object_of({"provider": TEXT, "reason": TEXT}),
        },
        "settled_by": MAYBE,
        "segments": COUNT,
        "cost": MONEY,
        "started_at": TIME,
        "finished_at": TIME,
        "sent_at": TIME,
        "delivered_at": TIME,
        "read_at": TIME,
    }
)
CONVERSATION = object_of(
    {
        "id": TEXT,
        "channel": enum_of(Channel),
        "address": TEXT,
        "our_address": MAYBE,
        "name": MAYBE,
        "status": {"type": "string", "enum": ["open", "closed"]},
        "assignee": MAYBE,
        "labels": {"type": "array", "items": TEXT},
        "unread_count": {"type": "integer"},
        "last_message_at": TIME,
        "last_inbound_at": TIME,
        "window_expires_at": TIME,
        "metadata": OBJECT,
        "created_at": TIME,
        "updated_at": TIME,
    }
)
PROBLEM = object_of(
    {
        "type": TEXT,
        "title": TEXT,
        "status": {"type": "integer"},
        "detail": TEXT,
        "errors": {"type": "array", "items": object_of({"field": TEXT, "message": TEXT})},
        "window_expired_at": TIME,
        "templates": {
            "type": "array",
            "items": object_of(
                {
                    "name": TEXT,
                    "language": MAYBE,
                    "body": TEXT,
                    "variables": {"type": "array", "items": TEXT},
                }
            ),
        },
    },
    optional=("errors", "window_expired_at", "templates"),
)
SHAPES: dict[str, Any] = {
    "Message": MESSAGE,
    "Attempt": ATTEMPT,
    "MessageWithAttempts": {
        "allOf": [
            ref("Message"),
            object_of(
                {
                    "attempts": {"type": "array", "items": ref("Attempt")},
                    "next_attempt_at": TIME,
                    "waiting_for": {"type": ["string", "null"], "enum": [*WAITING_FOR, None]},
                }
            ),
        ]
    },
    "Conversation": CONVERSATION,
    "MessageList": list_of("Message"),
    "ConversationList": list_of("Conversation"),
    "Problem": PROBLEM,
}
