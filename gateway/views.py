"""What the outside sees of a row: the JSON of messages, attempts and conversations.

The same words in answers, in the event feed and in what an idempotency key replays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway import windows
from gateway.clock import show
from gateway.opt_outs import Source, why_blocked
from gateway.status import CHARGED

LONG = 20_000  # characters

View = dict[str, Any]


def _load(text: str | None, empty: Any) -> Any:
    return json.loads(text) if text else empty


def message_view(row: Mapping[str, Any], *, whole: bool = False) -> View:
    """A message as the API shows it: with long HTML only by itself, not in lists and events."""
    error = None
    if row["error_code"] is not None:
        error = {
            "code": row["error_code"],
            "message": row["error_message"],
            "provider": row["error_provider"],
        }
    extra = _load(row["extra"], {})
    view: View = {
        "id": row["id"],
        "conversation_id": row["conversation_id"],
        "direction": row["direction"],
        "channel": row["channel"],
        "type": row["type"],
        "from": row["from_address"],
        "to": row["to_address"],
        "body": row["body"],
        "content": _load(row["content"], {}),
        "reply_to": row["reply_to"],
        "subject": row["subject"],
        "media": _load(row["media"], []),
        "status": row["status"],
        "provider": row["provider"],
        "provider_message_id": row["provider_message_id"],
        "segments": row["segments"],
        "cost": _money(row["cost"], row["currency"], estimated=bool(row["cost_estimated"])),
        "priority": row["priority"],
        "on_unknown": row["on_unknown"],
        "error": error,
        "metadata": _load(row["meta"], {}),
        "created_at": show(row["created_at"]),
        "updated_at": show(row["updated_at"]),
        "send_at": show(row["send_at"]),
        "expires_at": show(row["expires_at"]),
        "sent_at": show(row["sent_at"]),
        "delivered_at": show(row["delivered_at"]),
        "read_at": show(row["read_at"]),
    }
    if extra:
        view.update({name: extra[name] for name in ("html", "email", "template") if name in extra})
        if not whole and len(view.get("html") or "") > LONG:
            del view["html"]
    return view


def attempts_view(rows: Sequence[Mapping[str, Any]]) -> list[View]:
    """The attempts at a message, as `GET /api/messages/{id}` lists them: in order."""
    last = rows[-1]["number"] if rows else 0
    before = (None, *rows)
    return [
        {**attempt_view(row), **_why(row, earlier), "settled_by": _settled_by(row, last)}
        for row, earlier in zip(rows, before, strict=False)
    ]


def _why(row: Mapping[str, Any], before: Mapping[str, Any] | None) -> View:
    """Why this provider was asked, and why not those that come before it."""
    told = _load(row["why"], {})
    why = told.get("why")
    if why is None:
        why = "first of the chain"
        if before is not None:
            cause = f"{before['error_reason']}: {before['error_code']}"
            why = f"tried again after {before['provider']} ({cause})"
    return {"why": why, "passed_over": told.get("passed_over", [])}


def _settled_by(row: Mapping[str, Any], last: int) -> str | None:
    """How a lost answer ended: by a word of the vendor's, by our giving up, by another attempt."""
    if row["error_code"] == "outcome_unknown":
        return "receipt_timeout"
    if row["status"] == "unknown" and row["number"] < last:
        return "resend"
    settled_by: str | None = row["settled_by"]
    return settled_by


def attempt_view(row: Mapping[str, Any]) -> View:
    """One attempt."""
    error = None
    if row["error_code"] is not None:
        error = {
            "class": row["error_reason"],
            "code": row["error_code"],
            "message": row["error_message"],
        }
    return {
        "id": row["id"],
        "number": row["number"],
        "provider": row["provider"],
        "connection": row["connection"],
        "from": row["sender"],
        "status": row["status"],
        "provider_message_id": row["provider_message_id"],
        "network_id": row["network_id"],
        "error": error,
        "segments": row["segments"],
        "cost": _attempt_cost(row),
        "started_at": show(row["started_at"]),
        "finished_at": show(row["finished_at"]),
        "sent_at": show(row["sent_at"]),
        "delivered_at": show(row["delivered_at"]),
        "read_at": show(row["read_at"]),
    }


def communication_view(row: Mapping[str, Any]) -> View:
    """A line of the log of what was sent."""
    error = None
    if row["error_code"] is not None:
        names = ("code", "message", "provider")
        error = {name: row[f"error_{name}"] for name in names}
    plain = ("message_id", "conversation_id", "channel", "type", "recipient", "sender", "purpose")
    where = ("status", "provider", "provider_message_id", "attempts", "segments")
    times = ("created_at", "send_at", "sent_at", "delivered_at", "read_at")
    return {
        **{name: row[name] for name in (*plain, *where)},
        "cost": _money(row["cost"], row["currency"], estimated=bool(row["cost_estimated"])),
        "error": error,
        **{name: show(row[name]) for name in times},
        "metadata": _load(row["metadata"], {}),
    }


def conversation_view(row: Mapping[str, Any]) -> View:
    """A conversation as the API shows it."""
    window = windows.expires(windows.length(row["channel"]), row["last_inbound_at"])
    return {
        "id": row["id"],
        "channel": row["channel"],
        "address": row["address"],
        "our_address": row["our_address"],
        "name": row["own_name"] or row["name"],
        "status": row["status"],
        "assignee": row["assignee"],
        "labels": _load(row["labels"], []),
        "unread_count": row["unread_count"],
        "last_message_at": show(row["last_message_at"]),
        "last_inbound_at": show(row["last_inbound_at"]),
        "window_expires_at": show(window),
        "metadata": _load(row["meta"], {}),
        "created_at": show(row["created_at"]),
        "updated_at": show(row["updated_at"]),
    }


def note_view(row: Mapping[str, Any]) -> View:
    """A note as the API shows it."""
    return {
        "id": row["id"],
        "conversation_id": row["conversation_id"],
        "author": row["author"],
        "body": row["body"],
        "created_at": show(row["created_at"]),
    }


def opt_out_view(row: Mapping[str, Any]) -> View:
    """Whether a person may be written to on a channel, as the API shows it, with the proof."""
    return {
        "channel": row["channel"],
        "address": row["address"],
        "state": row["state"],
        **_proof(row),
        "since": show(row["since"]),
        "created_at": show(row["created_at"]),
        "updated_at": show(row["updated_at"]),
    }


def suppression_view(row: Mapping[str, Any]) -> View:
    """Whether an email address is written to, as the API shows it, with the proof."""
    why = why_blocked(Source(row["source"]), row["detail"])
    return {
        "address": row["address"],
        "state": row["state"],
        "reason": why.value,
        **_proof(row),
        "since": show(row["since"]),
        "created_at": show(row["created_at"]),
        "updated_at": show(row["updated_at"]),
    }


def opt_out_event_view(row: Mapping[str, Any]) -> View:
    """One word about a person, as the API shows it."""
    return {
        "id": row["id"],
        "channel": row["channel"],
        "address": row["address"],
        "state": row["state"],
        "verdict": row["verdict"],
        **_proof(row),
        "said_at": show(row["said_at"]),
        "created_at": show(row["created_at"]),
    }


def _proof(row: Mapping[str, Any]) -> View:
    names = ("source", "detail", "our_address", "message_id", "attempt_id", "inbox_id")
    return {name: row[name] for name in names}


def _attempt_cost(row: Mapping[str, Any]) -> View | None:
    if row["cost"] is not None:
        return _money(row["cost"], row["currency"])
    if row["status"] not in CHARGED:
        return None
    return _money(row["estimated_cost"], row["estimated_currency"], estimated=True)


def _money(amount: str | None, currency: str | None, *, estimated: bool = False) -> View | None:
    """What a vendor said that something costs; `estimated` stands there where we do."""
    if amount is None:
        return None
    return {"amount": amount, "currency": currency, **({"estimated": True} if estimated else {})}
