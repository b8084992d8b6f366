"""Email as Amazon SES tells of it by SNS: what became of ours ("Event publishing", and the older
notifications of an identity), and what people did with it.

Recognises each by its members and reads it, purely; raises nothing but `Malformed`. A message to
several people has one id, and an event only speaks of those it lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import getaddresses
from typing import Any

from gateway.domain import (
    Channel,
    Engagement,
    Event,
    Status,
    StatusUpdate,
    Unrecognised,
    VendorError,
)
from gateway.errors import Malformed, clean

Facts = Mapping[str, Any]

ID = re.compile(r"[!-~]{1,200}")
ATTEMPT_ID = re.compile(r"att_[0-9A-Za-z]{20,40}")
WORD = re.compile(r"[^a-z0-9]+")
PEOPLE = 60  # of one event

# "Contents of event data", eventType; the older notifications have three of them. What is a
# state of the message is here; what a person did is in `DONE`.
STATES: Mapping[str, tuple[Status, str]] = {
    "send": (Status.SENT, "send"),
    "delivery": (Status.DELIVERED, "delivery"),
    "bounce": (Status.BOUNCED, "bounce"),
    "reject": (Status.FAILED, "reject"),
    "rendering failure": (Status.FAILED, "failure"),
}
DONE: Mapping[str, tuple[str, str]] = {
    "complaint": ("complained", "complaint"),
    "open": ("opened", "open"),
    "click": ("clicked", "click"),
    "deliverydelay": ("delayed", "deliveryDelay"),
    "subscription": ("unsubscribed", "subscription"),
}
# "Bounce types": Permanent is about the address, and Transient about now.
REASONS = {"permanent": "rejected", "transient": "unreachable", "undetermined": "ambiguous"}


def is_event(facts: Facts) -> bool:
    """What became of an email; what comes in is told otherwise."""
    return isinstance(facts.get("mail"), dict) and _kind(facts) in {*STATES, *DONE}


def _kind(facts: Facts) -> str:
    told = facts.get("eventType") or facts.get("notificationType")
    return told.lower() if isinstance(told, str) else ""


def read(facts: Facts, published: datetime, key: str) -> Sequence[Event]:
    """The events about an email of ours, one for each person that they are about."""
    kind = _kind(facts)
    mail = facts["mail"]
    if kind in STATES:
        status, member = STATES[kind]
        return list(_states(kind, status, _object(facts, member), mail, published, key))
    done, member = DONE[kind]
    events = list(_done(done, _object(facts, member), mail, published, key))
    return events or [Unrecognised(dedupe_key=f"un:{key}", kind=f"ses:{done}")]


def _states(
    kind: str, status: Status, told: Facts, mail: Facts, published: datetime, key: str
) -> Iterator[Event]:
    identity = _id(mail.get("messageId"))
    if identity is None:
        raise Malformed("the event names no email")
    happened = _moment(told.get("timestamp")) or published
    stamp = _id(told.get("feedbackId")) or f"{happened:%Y%m%dT%H%M%S%f}"
    for person, detail in _about(kind, told, mail):
        error = _error(kind, told, detail) if status in (Status.BOUNCED, Status.FAILED) else None
        yield StatusUpdate(
            dedupe_key=f"st:{identity}:{_word(kind)}:{stamp}:{person or ''}",
            status=status,
            vendor_status=kind,
            attempt_id=_attempt(mail),
            provider_message_id=identity,
            channel=Channel.EMAIL,
            recipient=person,
            error=error,
            occurred_at=happened,
        )
        if error is not None and error.code.startswith("bounce_permanent") and person:
            yield Engagement(
                dedupe_key=f"bo:{identity}:{stamp}:{person}",
                kind="bounced",
                channel=Channel.EMAIL,
                attempt_id=_attempt(mail),
                provider_message_id=identity,
                recipient=person,
                content={"code": error.code},
                occurred_at=happened,
            )


def _done(
    done: str, told: Facts, mail: Facts, published: datetime, key: str
) -> Iterator[Engagement]:
    if (done == "unsubscribed" and not _leaves(told)) or _takes_back(done, told):
        return
    identity = _id(mail.get("messageId"))
    happened = _moment(told.get("timestamp")) or published
    stamp = _id(told.get("feedbackId")) or f"{happened:%Y%m%dT%H%M%S%f}"
    for person, _ in _about(done, told, mail):
        yield Engagement(
            dedupe_key=f"en:{identity or key}:{done}:{stamp}:{person or ''}",
            kind=done,
            channel=Channel.EMAIL,
            attempt_id=_attempt(mail),
            provider_message_id=identity,
            recipient=person,
            content=_content(done, told),
            occurred_at=happened,
        )


def _leaves(told: Facts) -> bool:
    """Whether a change of topics is a goodbye to all of them."""
    return _object(told, "newTopicPreferences").get("unsubscribeAll") is True


def _takes_back(done: str, told: Facts) -> bool:
    """ "Complaint types": `not-spam` says that an email was taken for spam and is none."""
    return done == "complained" and _word(told.get("complaintFeedbackType")) == "not_spam"


# Where an event lists whom it is about.
LISTS = {
    "bounce": "bouncedRecipients",
    "complained": "complainedRecipients",
    "delayed": "delayedRecipients",
    "delivery": "recipients",
}


def _about(kind: str, told: Facts, mail: Facts) -> list[tuple[str | None, Facts]]:
    """Whom an event is about, with what is told of each. Where it lists nobody it is about whom
    the email went to, if that was one; else nobody can say."""
    listed = told.get(LISTS.get(kind, ""))
    found: list[tuple[str | None, Facts]] = []
    for item in listed[:PEOPLE] if isinstance(listed, list) else []:
        detail = item if isinstance(item, dict) else {}
        person = _person(detail.get("emailAddress") if detail else item)
        if person is not None:
            found.append((person, detail))
    if found:
        return found
    whole = mail.get("destination")
    people = [p for each in whole if (p := _person(each))] if isinstance(whole, list) else []
    return [(people[0], {})] if len(people) == 1 else [(None, {})]


def _person(text: object) -> str | None:
    """An address without the name before it; the domain in lower case."""
    if not isinstance(text, str) or len(text) > 1000:
        return None
    found = getaddresses([text])
    address = found[0][1] if len(found) == 1 else ""
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.lower()}" if local and domain else None


def _error(kind: str, told: Facts, detail: Facts) -> VendorError:
    if kind == "bounce":
        sort, sub = _word(told.get("bounceType")), _word(told.get("bounceSubType"))
        text = detail.get("diagnosticCode")
        return VendorError(
            code=f"bounce_{sort or 'undetermined'}:{sub or 'undetermined'}",
            message=clean(text) if isinstance(text, str) else None,
            reason=REASONS.get(sort, "ambiguous"),
        )
    text = told.get("reason") or told.get("errorMessage")
    return VendorError(
        code=_word(kind) or "failed",
        message=clean(text) if isinstance(text, str) else None,
        reason="rejected",
    )


def _content(done: str, told: Facts) -> dict[str, Any]:
    names = {
        "complained": ("complaintFeedbackType", "complaintSubType"),
        "opened": ("ipAddress", "userAgent"),
        "clicked": ("link", "ipAddress", "userAgent"),
        "delayed": ("delayType", "expirationTime"),
    }.get(done, ())
    return {name: told[name][:2000] for name in names if isinstance(told.get(name), str)}


def _attempt(mail: Facts) -> str | None:
    """Our attempt, from the tags that it was sent with: each has a list of values."""
    value = _object(mail, "tags").get("attempt_id")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) and ATTEMPT_ID.fullmatch(value) else None


def _object(facts: Facts, name: str) -> Facts:
    value = facts.get(name)
    return value if isinstance(value, dict) else {}


def _id(value: object) -> str | None:
    return value if isinstance(value, str) and ID.fullmatch(value) else None


def _word(text: object) -> str:
    return WORD.sub("_", text.lower()[:60]).strip("_") if isinstance(text, str) else ""


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
