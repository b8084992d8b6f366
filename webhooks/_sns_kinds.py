"""Which kinds of content SNS brings, told by the signed content alone: one line a kind.

Any topic may bring any kind. What is authentic and of no kind here is kept as `Unrecognised`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.domain import Event, Fake, Unrecognised
from webhooks import _sns_mail, _sns_ses, _sns_sms, _sns_whatsapp, _sns_whatsapp_statuses
from webhooks._forms import read_json

# Members that hold nothing but a vendor's own words.
SPOKEN = frozenset(
    {
        *("eventType", "eventVersion", "messageStatus", "messageType", "totalMessageParts"),
        *("notificationType", "encoding"),
        *("field", "messaging_product", "type", "status", "mime_type", "event", "currency"),
        *("category", "pricing_model", "code", "isoCountryCode", "detail-type", "source", "reason"),
    }
)
WORD = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Inner:
    """What a notification brings: a JSON object, when it was published, and the request's key."""

    facts: Mapping[str, Any]
    published: datetime
    key: str


Recognise = Callable[[Mapping[str, Any]], bool]
Read = Callable[[Inner], Sequence[Event]]

# A person may write the first in a text: it is looked for among the members only.
OTHERS = {_sns_whatsapp.ENTRY: "aws_whatsapp", "mail": "aws_ses"}

KINDS: tuple[tuple[Recognise, Read], ...] = (
    (
        _sns_sms.is_message,
        lambda inner: [_sns_sms.message(inner.facts, inner.published, inner.key)],
    ),
    (_sns_sms.is_event, lambda inner: [_sns_sms.event(inner.facts, inner.published, inner.key)]),
    (_sns_sms.is_log, lambda inner: [_sns_sms.log(inner.facts, inner.published, inner.key)]),
    (_sns_mail.is_received, lambda i: [_sns_mail.read(i.facts, i.published, i.key)]),
    (_sns_ses.is_event, lambda i: _sns_ses.read(i.facts, i.published, i.key)),
    (_sns_whatsapp.is_event, lambda i: _sns_whatsapp.read(i.facts, i.published, i.key)),
    (
        _sns_whatsapp_statuses.is_bridged,
        lambda i: [_sns_whatsapp_statuses.bridged(i.facts, i.published, i.key)],
    ),
)


def product(message: str) -> str | None:
    """The webhook whose content this is, whichever topic and route it came by; None: no matter."""
    if not any(f'"{member}"' in message for member in OTHERS):
        return None
    try:
        facts = read_json(message)
    except ValueError:
        return None
    found = facts if isinstance(facts, dict) else {}
    return next((name for member, name in OTHERS.items() if member in found), None)


def read(message: str, published: datetime, key: str) -> Sequence[Event]:
    """The events of a notification's `Message`.

    Raises:
        Malformed: it is of a known kind, and not readable.
    """
    try:
        facts = read_json(message)
    except ValueError:
        return [_unknown(_kind_of_text(message), key)]
    if not isinstance(facts, dict):
        return [_unknown("json", key)]
    for recognise, reader in KINDS:
        if recognise(facts):
            return reader(Inner(facts, published, key))
    return [_unknown(_kind_of(facts), key)]


def faked(message: str, fake: Fake) -> str:
    """The same content, with every fact of it given through `fake`.

    Raises:
        ValueError: an entry of WhatsApp in it is no JSON.
    """
    try:
        facts = read_json(message)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        return str(fake("Message", message))
    entry = facts.pop(_sns_whatsapp.ENTRY, None)
    email = facts.pop("content", None) if _sns_mail.is_received(facts) else None
    made = fake("Message", facts)
    if email is not None:
        made["content"] = _sns_mail.another(facts)
    if entry is not None:
        told = fake("entry", read_json(entry) if isinstance(entry, str) else entry)
        made[_sns_whatsapp.ENTRY] = json.dumps(told, ensure_ascii=False)
    return json.dumps(made, ensure_ascii=False)


def _unknown(kind: str, key: str) -> Unrecognised:
    return Unrecognised(dedupe_key=f"un:{key}", kind=kind)


def _kind_of_text(message: str) -> str:
    # SES posts this once, when event publishing to a topic is set up.
    setup = message.strip().startswith("Successfully validated SNS topic for Amazon SES")
    return "ses:setup" if setup else "plain-text"


def _kind_of(facts: Mapping[str, Any]) -> str:
    """A word for a kind that nobody here reads, for whoever looks into the inbox."""
    told = facts.get("eventType") or facts.get("notificationType")
    if told == "AmazonSnsSubscriptionSucceeded":
        return "ses:setup"
    if isinstance(facts.get("mail"), dict) and isinstance(told, str):
        return f"ses:{_word(told)}"
    if "detail-type" in facts:
        return f"eventbridge:{_word(str(facts.get('source', '')).removeprefix('aws.'))}"
    return f"event:{_word(told)}" if isinstance(told, str) else "json"


def _word(text: str) -> str:
    return WORD.sub("-", text.lower()[:40]).strip("-") or "unknown"
