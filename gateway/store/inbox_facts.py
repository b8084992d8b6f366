"""What the row of an inbound message has of the event alone, whatever was stored before it."""

from __future__ import annotations

import json
from typing import Any

from gateway.domain import Direction, InboundMessage


def facts_of(event: InboundMessage) -> dict[str, Any]:
    """What a message's row has of the event alone."""
    return {
        "direction": (Direction.OUTBOUND if event.echo else Direction.INBOUND).value,
        "channel": event.channel.value,
        "type": event.type.value,
        "from_address": event.from_address,
        "to_address": event.to_address,
        "body": event.body,
        "content": json.dumps(dict(event.content)) if event.content else None,
        "reply_to": event.reply_to,
        "subject": event.subject,
        "extra": _extra(event),
        "provider_message_id": event.provider_message_id,
        "segments": event.segments,
    }


def _extra(event: InboundMessage) -> str | None:
    extra = {"html": event.html, "email": dict(event.email) or None}
    told = {name: value for name, value in extra.items() if value is not None}
    return json.dumps(told) if told else None
