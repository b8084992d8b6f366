"""WhatsApp as AWS End User Messaging Social brings it: an entry of Meta's webhook, as a text
within the notification. Pure; raises nothing but `Malformed`.

Several changes may stand in an entry, and several sorts of news in a change; what is not known, or
not readable, leaves the rest be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from gateway.domain import Channel, Engagement, Event, Notice, Unrecognised
from gateway.errors import Malformed
from webhooks import _sns_whatsapp_messages, _sns_whatsapp_statuses
from webhooks._forms import read_json
from webhooks._sns_whatsapp_exact import (
    ARN,
    Facts,
    address,
    errors,
    identity,
    moment,
    objects,
    part,
    parts,
    plain,
    shown_number,
    text,
)
from webhooks._sns_whatsapp_messages import Side
from webhooks._sns_whatsapp_tables import LOWERED, NOTICES, TEMPLATE, WISHES

ENTRY = "whatsAppWebhookEntry"
NEWS = ("messages", "message_echoes", "statuses", "user_preferences")  # in this order


def is_event(facts: Facts) -> bool:
    """End User Messaging Social, "Message and event destinations"."""
    return ENTRY in facts or "MetaWabaIds" in part(facts, "context")


def read(facts: Facts, published: datetime, key: str) -> Sequence[Event]:
    """The events of an entry."""
    entry = _entry(facts)
    found: list[Event] = []
    for number, change in enumerate(parts(entry, "changes")):
        if isinstance(change, dict):
            found += _Change(facts, entry, change, published, f"{key}:{number}").events()
        else:
            found.append(_unknown(f"{key}:{number}", "unreadable"))
    return found or [_unknown(key, "empty")]


def _entry(facts: Facts) -> Facts:
    """Meta's entry: JSON in a text, in AWS's documentation also as it is."""
    entry = facts.get(ENTRY)
    try:
        entry = read_json(entry) if isinstance(entry, str) else entry
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise Malformed(f"{ENTRY} is not there, or not an entry")
    return entry


def _unknown(key: str, kind: str) -> Unrecognised:
    word = "".join(c for c in kind[:40] if c.isalnum() or c in "_-")
    return Unrecognised(dedupe_key=f"un:{key}", kind=f"whatsapp:{word or 'unreadable'}")


class _Change:
    """One change of an entry."""

    def __init__(
        self, facts: Facts, entry: Facts, change: Facts, published: datetime, key: str
    ) -> None:
        self.facts, self.entry, self.key = facts, entry, key
        self.field, self.value = text(change, "field"), part(change, "value")
        meta = part(self.value, "metadata")
        self.side = Side(
            number=shown_number(meta, "display_phone_number"),
            pool=_pool(facts, text(meta, "phone_number_id")),
            published=published,
        )

    def events(self) -> Iterator[Event]:
        """What it tells, each by itself."""
        if not any(name in self.value for name in (*NEWS, "errors")):
            yield self._notice() if self.field in NOTICES else _unknown(self.key, self.field)
            return
        readers: dict[str, Callable[[Facts, str], Event]] = {
            "messages": self._said,
            "message_echoes": self._echoed,
            "statuses": self._happened,
            "user_preferences": self._preferred,
        }
        for name in NEWS:
            for number, item in enumerate(parts(self.value, name)):
                key = f"{self.key}:{name}:{number}"
                try:
                    yield (
                        readers[name](item, key) if isinstance(item, dict) else _unknown(key, name)
                    )
                except Malformed:
                    yield _unknown(key, name)
        if faults := errors(self.value):
            yield self._told("account.error", {"errors": faults})

    def _said(self, item: Facts, key: str) -> Event:
        return _sns_whatsapp_messages.said(item, self.value, self.side, key)

    def _echoed(self, item: Facts, key: str) -> Event:
        return _sns_whatsapp_messages.echoed(item, self.value, self.side, key)

    def _happened(self, item: Facts, key: str) -> Event:
        send_id = identity(self.facts, "messageId") if len(_about(self.entry)) == 1 else None
        return _sns_whatsapp_statuses.happened(item, send_id, self.side, key)

    def _preferred(self, item: Facts, key: str) -> Event:
        """A person's word about marketing, which they gave to WhatsApp."""
        person = address(item, "wa_id") or address(item, "user_id")
        wish = WISHES.get(text(item, "value"))
        if person is None or wish is None:
            raise Malformed("the preference is of nobody, or unheard of")
        at = moment(item)
        stamp = f"{at.timestamp():.0f}" if at else key  # or the next one would be taken for it
        return Engagement(
            dedupe_key=f"en:{person}:{text(item, 'category')[:40]}:{wish}:{stamp}",
            kind=wish,
            channel=Channel.WHATSAPP,
            recipient=person,
            content=plain(item, "wa_id", "user_id", "timestamp"),
            occurred_at=at or self.side.published,
        )

    def _notice(self) -> Notice:
        kind = NOTICES[self.field]
        told: dict[str, Any] = {"detail": self.value}
        if kind == "template.updated":
            told = {"template": _template(self.value), **told}
        elif kind == "number.updated":
            told = {"number": shown_number(self.value, "display_phone_number"), **told}
        return self._told(kind, told)

    def _told(self, kind: str, content: dict[str, Any]) -> Notice:
        """The same news of the same moment counts once, also in two envelopes."""
        account, at = identity(self.entry), moment(self.entry, "time")
        told = json.dumps(self.value, sort_keys=True).encode()
        stamp = f"{account}:{self.field[:40]}:{hashlib.sha256(told).hexdigest()[:32]}"
        return Notice(
            dedupe_key=f"no:{stamp}:{at.timestamp():.0f}" if at else f"no:{stamp}:{self.key}",
            kind=kind,
            content={
                "channel": "whatsapp",
                "account": account,
                "field": self.field[:80],
                **content,
            },
            occurred_at=at or self.side.published,
        )


def _about(entry: Facts) -> set[str | None]:
    """The messages that an entry's statuses are about. The envelope's id can be that of one only:
    where there are several, it is taken for none's."""
    values = (part(change, "value") for change in objects(entry, "changes"))
    return {identity(status) for value in values for status in objects(value, "statuses")}


def _template(value: Facts) -> dict[str, Any]:
    """A template in the words of our own list of them. Meta's id of it is a number."""
    found: dict[str, Any] = {}
    for name, members in TEMPLATE.items():
        said = next((value[m] for m in members if value.get(m) not in (None, "", "NONE")), None)
        if isinstance(said, (str, int)):
            found[name] = str(said).lower() if name in LOWERED else str(said)
    return found


def _pool(facts: Facts, meta_id: str) -> str | None:
    """What sends from the number at AWS: Meta's own id of it is another one."""
    numbers = {
        text(one, "metaPhoneNumberId"): f"phone-number-id-{match[1]}"
        for one in objects(part(facts, "context"), "MetaPhoneNumberIds")
        if (match := ARN.fullmatch(text(one, "arn")))
    }
    if meta_id in numbers:
        return numbers[meta_id]
    return next(iter(numbers.values())) if len(numbers) == 1 else None
