"""An email as a form ("Inbound Parse Webhook"): taken apart into fields, each in a charset of its
own, or whole in one of them.

Reads the form as bytes: who decodes it all as UTF-8 loses what is in another charset.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from webhooks._forms import read_json
from webhooks._mail_html import cleaned
from webhooks._mail_letter import Clean, File, Letter, addresses, read, told
from webhooks._mail_mime import Headers, between, head_end
from webhooks._mail_words import text_of

NAME = re.compile(r';\s*name="([^"]{1,100})"')
FILE_NAME = re.compile(r';\s*filename="(.*)"\s*$')
ATTACHED = re.compile(r"attachment\d{1,4}")
SIGNED = re.compile(r"@([A-Za-z0-9.-]{1,250})\s*:\s*([a-z]{1,20})")
FIELDS = 1000


@dataclass(frozen=True, slots=True)
class Field:
    """A part of the form."""

    data: bytes
    file_name: str
    kind: str


def form(
    order: Mapping[str, Any], data: bytes, clean: Clean = cleaned
) -> tuple[dict[str, Any], list[File]]:
    """Reads an email that came as a form.

    Raises:
        ValueError: it is no form.
    """
    fields = dict(_fields(str(order.get("content_type") or ""), data))
    if not fields:
        raise ValueError("there is no field in the form")
    said = _Said(fields)
    letter = read(fields["email"].data) if "email" in fields else _taken_apart(said)
    if "subject" in fields:
        letter.subject = said.text("subject").strip()
    letter.person = said.text("from").strip()
    found = {**order, "envelope": _envelope(said), "verdicts": _verdicts(said, letter)}
    facts, files = told(letter, found, _key(fields), clean)
    facts["id"] = facts["email"].get("message_id")
    return facts, files


def _fields(content_type: str, data: bytes) -> Iterator[tuple[str, Field]]:
    shim = Headers(b"Content-Type: " + content_type.encode("utf-8", "replace"))
    boundary = shim.parameter("boundary")
    if not boundary:
        return
    mark = b"--" + boundary.encode("utf-8", "replace")
    for number, (start, end) in enumerate(between(data, mark, 0, len(data))):
        if number == FIELDS:
            return
        body = head_end(data, start, end)
        headers = Headers(data[start:body])
        how = headers.get("content-disposition")
        name, file_name = NAME.search(how), FILE_NAME.search(how)
        if name is not None:
            kind = headers.get("content-type")
            yield name[1], Field(data[body:end], file_name[1] if file_name else "", kind)


class _Said:
    """The fields of a form as text."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self.fields = fields
        charsets = self.object("charsets")
        self._charsets = {n: c for n, c in charsets.items() if isinstance(c, str)}

    def text(self, name: str) -> str:
        """A field in its own charset; blank where there is none."""
        field = self.fields.get(name)
        charsets = getattr(self, "_charsets", {})
        return text_of(field.data, charsets.get(name)) if field is not None else ""

    def object(self, name: str) -> dict[str, Any]:
        """A field of JSON; empty where it is none."""
        field = self.fields.get(name)
        try:
            found = read_json(field.data) if field is not None else None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _taken_apart(said: _Said) -> Letter:
    head = said.fields.get("headers")
    letter = Letter(Headers(head.data if head is not None else b""))
    letter.text, letter.html = said.text("text"), said.text("html")
    listed, ids = said.object("attachment-info"), said.object("content-ids")
    named = {place: cid for cid, place in ids.items() if isinstance(place, str)}
    for name in sorted(filter(ATTACHED.fullmatch, said.fields), key=lambda n: (len(n), n)):
        field = said.fields[name]
        info = listed.get(name)
        info = info if isinstance(info, dict) else {}
        kind = str(info.get("type") or field.kind)
        cid = str(info.get("content-id") or named.get(name) or "").strip().strip("<>")
        letter.attach(field.data, kind, str(info.get("filename") or field.file_name), cid)
    return letter


def _envelope(said: _Said) -> dict[str, Any]:
    """Whom the mail system was told: not what stands in To, which lists and blind copies lack."""
    envelope = said.object("envelope")
    listed = envelope.get("to")
    people = [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []
    sender = envelope.get("from")
    found: dict[str, Any] = {"to": people or addresses(said.text("to"))[:1]}
    if isinstance(sender, str):
        found["from"] = sender[:320]
    return found


def _verdicts(said: _Said, letter: Letter) -> dict[str, str]:
    """What was found out about the sender. DMARC is not told: it is worked out of the two that
    are, by whether one passed for the domain that people see."""
    spf = said.text("SPF").strip().lower()[:40]
    signed = SIGNED.findall(said.text("dkim").lower()[:4000])
    passed = [domain for domain, verdict in signed if verdict == "pass"]
    dkim = "pass" if passed else signed[0][1] if signed else said.text("dkim").strip()[:40]
    person = next(iter(addresses(letter.headers.get("from") or letter.person)), "")
    visible = person.rpartition("@")[2].lower()
    if spf == "pass":
        sender = str(said.object("envelope").get("from") or "")
        passed.append(sender.rpartition("@")[2].lower())
    dmarc = ""
    if visible and (spf or dkim):
        dmarc = "pass" if any(_aligned(each, visible) for each in passed) else "fail"
    found = {
        "spf": spf,
        "dkim": dkim.lower(),
        "dmarc": dmarc,
        "spam_score": said.text("spam_score").strip()[:20],
        "sender_ip": said.text("sender_ip").strip()[:60],
    }
    return {name: value for name, value in found.items() if value}


def _aligned(domain: str, visible: str) -> bool:
    """Whether one domain speaks for the other: the same, or one below it (RFC 7489, relaxed)."""
    if "." not in domain:
        return False
    return domain == visible or domain.endswith(f".{visible}") or visible.endswith(f".{domain}")


def _key(fields: Mapping[str, Field]) -> str:
    """The same email again has the same, however the form is cut."""
    digest = hashlib.sha256()
    for name in sorted(fields):
        digest.update(b"%s %d " % (name.encode("utf-8", "replace"), len(fields[name].data)))
        digest.update(fields[name].data)
    return digest.hexdigest()
