"""What can be asked next with an answer, as links of the OpenAPI document: by what is answered."""

from __future__ import annotations

import re
from typing import Any

# Operations by their ids in the document that take a message, or a conversation, by its `id`.
OF_A_MESSAGE = (
    *tuple(f"messages_{name}" for name in ("show", "cancel", "reschedule", "read")),
    "retries_retry",
)
OF_A_CONVERSATION = (
    *(f"conversations_{name}" for name in ("show", "messages", "reply", "read")),
    *(f"conversation_edits_{name}" for name in ("change", "assign", "close", "reopen")),
    *(f"conversation_edits_{name}" for name in ("set_labels", "add_label")),
    *("notes_index", "notes_create"),
)
MESSAGE = {
    **{key: {"id": "/id"} for key in OF_A_MESSAGE},
    "conversations_show": {"id": "/conversation_id"},
    "conversations_messages": {"id": "/conversation_id"},
}
CONVERSATION = {key: {"id": "/id"} for key in OF_A_CONVERSATION}
NOTE = {"notes_remove": {"id": "/conversation_id", "note_id": "/id"}}

Leads = dict[str, dict[str, str]]  # operation: parameter: where in the answer


def _of_the_first(leads: Leads) -> Leads:
    """The same for the first item of a list."""
    return {
        operation: {name: f"/items/0{place}" for name, place in given.items()}
        for operation, given in leads.items()
    }


LEADS: dict[str, Leads] = {
    "Message": MESSAGE,
    "MessageWithAttempts": MESSAGE,
    "MessageList": _of_the_first(MESSAGE),
    "Conversation": CONVERSATION,
    "ConversationList": _of_the_first(CONVERSATION),
    "Note": NOTE,
    "NoteList": _of_the_first(NOTE),
}


def links(answer: str, operation_id: str, path: str, query: tuple[str, ...]) -> dict[str, Any]:
    """The links of an answer; a list leads to its next page, too."""
    found = {
        operation: {
            "operationId": operation,
            "parameters": {name: f"$response.body#{place}" for name, place in given.items()},
        }
        for operation, given in LEADS.get(answer, {}).items()
    }
    if "cursor" in query:
        following = {"cursor": "$response.body#/next_cursor"}
        following |= {name: f"$request.path.{name}" for name in re.findall(r"\{(\w+)\}", path)}
        found["next"] = {"operationId": operation_id, "parameters": following}
    return found
