"""What an email says: who wrote it, to whom, in answer to what, its text, its HTML made harmless,
its files. Of an email as a whole (MIME); purely.

Everything that it gives is bounded and can be stored. What is too much is given as a file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import getaddresses, parsedate_to_datetime
from typing import Any

from webhooks import _mail_html
from webhooks._mail_mime import Headers, Part, headers_of, parts_of
from webhooks._mail_words import damaged_text_of, file_name, from_base64, text_of, words_of

TEXT = 100_000  # characters of a text that is shown
FILES = 90
OWN = 2  # of these: the text and the HTML, where they are too long to be shown
PEOPLE = 50
MANY = 1000
ID = re.compile(r"<[!-;=?-~]{1,250}>")
ADDRESS = re.compile(r"[^\s<>@,;:\"()\[\]\\]{1,200}@[^\s<>@,;:\"()\[\]\\]{1,250}")
Clean = Callable[[str, Mapping[str, int]], _mail_html.Cleaned | None]
ANSWERED = 30  # of the emails before it, the newest
MACHINES = frozenset({"auto_reply", "bulk", "junk", "list"})


@dataclass(frozen=True, slots=True)
class File:
    """What was attached."""

    data: bytes
    kind: str
    name: str
    content_id: str = ""


@dataclass(slots=True)
class Letter:
    """An email, read."""

    headers: Headers
    text: str = ""
    html: str = ""
    subject: str = ""  # where it came beside the headers,
    person: str = ""  # as who wrote it did
    files: list[File] = field(default_factory=list)
    content: dict[str, Any] = field(default_factory=dict)

    def attach(self, data: bytes, kind: str, name: str | None, content_id: str = "") -> None:
        """Adds a file."""
        known = file_name(name, kind, len(self.files) + 1)
        self.files.append(File(data, kind, known, content_id))


def mime(
    order: Mapping[str, Any], data: bytes, clean: Clean = _mail_html.cleaned
) -> tuple[dict[str, Any], list[File]]:
    """Reads an email that came whole, with what is known of its envelope."""
    whole = from_base64(data) if order.get("encoding") == "base64" else data
    letter = read(whole, damaged=order.get("encoding") == "utf8")
    key = str(order.get("id") or hashlib.sha256(whole).hexdigest())
    return told(letter, order, key, clean)


def read(whole: bytes, *, damaged: bool = False) -> Letter:
    """The parts of an email: what is text, what is HTML, what is a file."""
    letter = Letter(headers_of(whole))
    texts: list[str] = []
    pages: list[str] = []
    for part in parts_of(whole):
        if part.attached or part.kind not in ("text/plain", "text/html"):
            _attach(letter, part)
        else:
            text = _text(part, damaged)
            (texts if part.kind == "text/plain" else pages).append(text)
    letter.text, letter.html = "\n".join(texts), "\n".join(pages)
    return letter


def _text(part: Part, damaged: bool) -> str:
    charset = part.headers.parameter("charset")
    encoded = part.headers.get("content-transfer-encoding").strip().lower()
    if damaged and encoded not in ("base64", "quoted-printable"):
        return damaged_text_of(part.data, charset)
    return text_of(part.data, charset)


def _attach(letter: Letter, part: Part) -> None:
    kind, name = part.kind, part.filename
    if part.opaque:
        kind, name = "application/octet-stream", "unread.eml"
    elif kind == "message/rfc822":
        name = name or f"{part.headers.words('content-description') or 'message'}.eml"
    letter.attach(part.data, kind, name, part.content_id)


def told(
    letter: Letter, order: Mapping[str, Any], key: str, clean: Clean
) -> tuple[dict[str, Any], list[File]]:
    """A letter as the gateway takes it, and its files in their places."""
    headers = letter.headers
    envelope: Mapping[str, Any] = order.get("envelope") or {}
    text, html = _readable(letter, clean)
    person, name = _person(letter, str(envelope.get("from") or ""))
    answers = _ids(headers.last("in-reply-to")) + _ids(headers.last("references"))[::-1]
    facts = {
        "key": key,
        "id": order.get("id"),
        "from": person,
        "name": name,
        "to": list(envelope.get("to") or ())[:MANY] or addresses(headers.get("to"))[:1],
        "subject": " ".join(letter.subject.split()) or headers.words("subject"),
        "text": text,
        "html": html,
        "email": {**_email(headers, envelope), **(order.get("verdicts") or {})},
        "content": {
            **letter.content,
            **_content(headers, envelope),
            **(order.get("content") or {}),
        },
        "answers": list(dict.fromkeys(answers))[:ANSWERED],
        "files": [{"name": f.name, "kind": f.kind} for f in letter.files],
    }
    return facts, letter.files


def _readable(letter: Letter, clean: Clean) -> tuple[str, str | None]:
    """The text and the HTML that are shown. What is too long, or cannot be made harmless, becomes
    a file as it came."""
    html, text = None, letter.text
    if len(letter.files) > FILES - OWN:
        letter.content["files_left_out"] = len(letter.files) - (FILES - OWN)
        del letter.files[FILES - OWN :]
    places = {file.content_id: n for n, file in reversed(list(enumerate(letter.files)))}
    places.pop("", None)
    if letter.html:
        made = clean(letter.html, places)
        if made is None:
            letter.attach(letter.html.encode(), "text/html", "message.html")
            letter.content["html_left_out"] = True
            text = text or "The message is in the file message.html."
        else:
            html = made.html
            text = text if text.strip() else _mail_html.plain(html)
            if made.remote_images:
                letter.content["remote_images"] = made.remote_images
    if len(text) > TEXT:
        letter.attach(text.encode(), "text/plain", "message.txt")
        letter.content["cut"] = True
        text = text[:TEXT]
    return text, html


def _person(letter: Letter, envelope: str) -> tuple[str, str]:
    """Who wrote it: the first address of From, else the envelope's; and their name."""
    listed = [letter.headers.get(name) for name in ("from", "sender", "reply-to")]
    for value in (listed[0], letter.person, *listed[1:]):
        for name, address in _mailboxes(value):
            return address, name
    return next(iter(addresses(envelope)), ""), ""


def _mailboxes(value: str) -> Iterator[tuple[str, str]]:
    """Names and addresses of a header. Encoded words are read afterwards: an address that stands
    in one is none."""
    try:
        found = getaddresses([value[:4000]])
    except (RecursionError, ValueError, IndexError):  # brackets in brackets
        found = [("", address) for address in ADDRESS.findall(value[:4000])]
    for name, address in found:
        if ADDRESS.fullmatch(address):
            yield words_of(name)[:200], address


def addresses(value: str) -> list[str]:
    """The addresses of a header."""
    return [address for _, address in _mailboxes(value)]


def _email(headers: Headers, envelope: Mapping[str, Any]) -> dict[str, Any]:
    """What only an email has, under the names that ours have."""
    found = {
        "to": addresses(headers.get("to"))[:PEOPLE],
        "cc": addresses(headers.get("cc"))[:PEOPLE],
        "reply_to": next(iter(addresses(headers.get("reply-to"))), None),
        "message_id": next(iter(_ids(headers.get("message-id"))), None),
        "in_reply_to": next(iter(_ids(headers.get("in-reply-to"))), None),
        "references": _ids(headers.last("references"))[-ANSWERED:],
        "date": _date(headers.get("date")),
        "envelope_from": envelope.get("from"),
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def _ids(value: str) -> list[str]:
    return ID.findall(value)


def _date(value: str) -> str | None:
    try:
        return parsedate_to_datetime(value[:100]).isoformat() if value else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _content(headers: Headers, envelope: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a machine wrote it (RFC 3834): nobody waits for an answer to that."""
    told_auto = headers.get("auto-submitted").partition(";")[0].strip().lower()
    report = headers.get("content-type").strip().lower().startswith("multipart/report")
    machine = headers.get("precedence").strip().lower() in MACHINES
    nobody = envelope.get("from") in ("", "<>")
    found: dict[str, Any] = {}
    if told_auto not in ("", "no") or machine or nobody or report:
        found["automatic"] = True
    if nobody or report:
        found["report"] = True
    return found


def written(facts: Mapping[str, Any], files: Sequence[File]) -> Iterator[bytes]:
    """A letter as one program gives it to another: a line of JSON, then the files."""
    import json

    sizes = [{**told_, "size": len(f.data)} for told_, f in zip(facts["files"], files, strict=True)]
    yield json.dumps({**facts, "files": sizes}).encode() + b"\n"
    yield from (file.data for file in files)
