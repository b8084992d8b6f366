"""What an email may say beside its text: who gets it, headers, tags. Pure, and of no vendor.

A header that a mail system sets, or reads as an order, cannot be given; nothing given can end a
line and begin another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway import addresses

PEOPLE = 50  # that one email goes to, all kinds together
HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,76}")
# What the gateway writes itself, what mail systems write, and what some take for an order.
OURS = frozenset({
    "from", "sender", "to", "cc", "bcc", "return-path", "received", "subject", "date",
    "message-id", "mime-version", "reply-to", "in-reply-to", "references", "resent-from",
    "resent-to", "resent-cc", "resent-bcc", "resent-sender", "list-unsubscribe",
    "list-unsubscribe-post", "authentication-results", "x-smtpapi",
})  # fmt: skip
ORDERS = ("dkim-", "x-ses-", "x-mc-", "x-sg-", "arc-", "content-")
TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# What no header carries, and what ends a line for somebody.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
ONE_LINE = "must be one line, without control characters"
UNSUBSCRIBE_URL = re.compile(r"\{\{[ \t]*unsubscribe_url[ \t]*\}\}")  # in a text that people read
LONGEST_VALUE = 900  # octets: a line of mail has at most 998

Problems = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The email that another answers: its own id and those before it, as they stand in headers."""

    message_id: str | None = None
    references: tuple[str, ...] = ()
    subject: str | None = None


def normalised(
    asked: Mapping[str, Any], before: Answered | None, problems: Problems
) -> dict[str, Any]:
    """The parts of an email as they are stored: addresses as every wire has them. What is wrong
    is added to `problems`, each with its field."""
    kept: dict[str, Any] = {}
    people = 1
    for name in ("cc", "bcc"):
        found = _people(name, asked.get(name) or (), problems)
        people += len(found)
        kept[name] = found
    if people > PEOPLE:
        problems.append(("email", f"may go to {PEOPLE} people at most"))
    if asked.get("reply_to"):
        kept["reply_to"] = _one("email.reply_to", asked["reply_to"], problems)
    kept["headers"] = _headers(asked.get("headers") or {}, problems)
    kept["tags"] = _tags(asked.get("tags") or (), problems)
    kept["from_name"] = _name(asked.get("from_name"), problems)
    kept["attachments"] = list(asked.get("attachments") or ())
    kept["unsubscribe"] = bool(asked.get("unsubscribe"))
    if before is not None and before.message_id and _an_id(before.message_id):
        kept["in_reply_to"] = before.message_id
        kept["references"] = list(thread(before))
    return {name: value for name, value in kept.items() if value}


def unsubscribing(
    kept: Mapping[str, Any], *, urgent: bool, reachable: bool
) -> Iterable[tuple[str, str]]:
    """What speaks against an address to unsubscribe at (RFC 8058)."""
    field = "email.unsubscribe"
    if not reachable:
        yield field, "needs PUBLIC_URL, an https address at which people reach this gateway"
    if any(everybody(kept)):
        yield field, "is for one person: whoever gets a copy would unsubscribe somebody else"
    if urgent:
        yield field, "is not for what is urgent: nobody unsubscribes from a code or an alarm"


def promising(texts: Iterable[str | None]) -> Iterable[tuple[str, str]]:
    """What is wrong with texts that have a place for an address which was not asked for."""
    if any(text and UNSUBSCRIBE_URL.search(text) for text in texts):
        text = "must be true where the text says {{unsubscribe_url}}: it would be sent as it stands"
        yield "email.unsubscribe", text


def answered(subject: str | None, extra: Mapping[str, Any]) -> Answered:
    """An email that is answered, as it is stored."""
    parts = extra.get("email", {})
    known = parts.get("references") or ()
    return Answered(
        message_id=parts.get("message_id"),
        references=tuple(known) if isinstance(known, list | tuple) else (),
        subject=subject,
    )


def thread(before: Answered) -> tuple[str, ...]:
    """The References of an answer: those of what it answers, and that itself; the first, and the
    last nineteen."""
    last = (before.message_id,) if before.message_id else ()
    known = dict.fromkeys(one for one in (*before.references, *last) if _an_id(one))
    listed = tuple(known)
    return listed if len(listed) <= 20 else (listed[0], *listed[-19:])


def _an_id(text: str) -> bool:
    return re.fullmatch(r"<[!-;=?-~]{1,250}>", text) is not None


def answering(subject: str) -> str:
    """The subject of an answer, in one line, however it came; blank, where that is."""
    line = " ".join(UNPRINTABLE.sub(" ", subject).split())
    return line if line[:3].lower() == "re:" or is_blank(line) else f"Re: {line}"


def is_blank(text: str) -> bool:
    """Whether a text has nothing that anybody would see."""
    return not any(c.isprintable() and not c.isspace() for c in text)


def everybody(parts: Mapping[str, Any]) -> Iterable[str]:
    """Who gets an email beside the person that it is to."""
    return (*parts.get("cc", ()), *parts.get("bcc", ()))


def _people(name: str, given: Sequence[str], problems: Problems) -> list[str]:
    found = [_one(f"email.{name}.{n}", text, problems) for n, text in enumerate(given)]
    return list(dict.fromkeys(found))


def _one(field: str, text: str, problems: Problems) -> str:
    try:
        return addresses.email(text)
    except addresses.AddressError as error:
        problems.append((field, str(error)))
        return ""


def _headers(given: Mapping[str, str], problems: Problems) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in given.items():
        field, lower = f"email.headers.{_shown(name)}", name.lower()
        if HEADER_NAME.fullmatch(name) is None:
            problems.append((field, "must have a name of letters, digits and hyphens"))
        elif lower in OURS or lower.startswith(ORDERS):
            problems.append((field, "may not be given: it is set by the gateway or by the vendor"))
        elif lower in {known.lower() for known in kept}:
            problems.append((field, "is given twice"))
        elif UNPRINTABLE.search(value) or len(value.encode()) > LONGEST_VALUE:
            problems.append((field, f"must be one line of at most {LONGEST_VALUE} octets"))
        else:
            kept[name] = value
    return kept


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) <= 76 else repr(name[:76])


def _tags(given: Sequence[str], problems: Problems) -> list[str]:
    wrong = [n for n, tag in enumerate(given) if TAG.fullmatch(tag) is None]
    problems += [
        (f"email.tags.{n}", "must have 1 to 64 letters, digits, dots, hyphens or underscores")
        for n in wrong
    ]
    return list(dict.fromkeys(given))


def _name(given: str | None, problems: Problems) -> str | None:
    if given and UNPRINTABLE.search(given):
        problems.append(("email.from_name", ONE_LINE))
    return given or None
