"""Emails as vendors post them, for `gateway simulate` and cases: written, never read, here."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, formataddr

from gateway.domain import Channel, InboundMessage

BOUNDARY = "xYzZY"
NOBODYS = InboundMessage(
    dedupe_key="",
    channel=Channel.EMAIL,
    from_address="person@example.com",
    to_address="ours@example.com",
    subject="Redacted",
    body="Redacted",
)


def mime_of(said: InboundMessage, now: datetime) -> bytes:
    """An email as its sender wrote it; where an address is not in ASCII, its headers are in UTF-8
    (RFC 6532)."""
    plain = f"{said.from_address}{said.to_address or ''}".isascii()
    mail = EmailMessage(policy=SMTP.clone(cte_type="7bit") if plain else SMTPUTF8)
    mail["From"] = _mailbox(said.name or "", said.from_address)
    mail["To"] = said.to_address or ""
    mail["Subject"] = " ".join((said.subject or "").split())
    mail["Date"] = format_datetime(said.occurred_at or now)
    mail["Message-ID"] = _message_id(said)
    if said.answers:
        mail["In-Reply-To"] = said.answers[0]
    mail.set_content(said.body)
    if said.html:
        mail.add_alternative(said.html, subtype="html")
    return mail.as_bytes()


def _mailbox(name: str, address: str) -> str:
    if address.isascii():
        return formataddr((name, address))
    quoted = re.sub(r'(["\\])', r"\\\1", name)
    return f'"{quoted}" <{address}>' if name else address


def _message_id(said: InboundMessage) -> str:
    told = said.email.get("message_id")
    return told if isinstance(told, str) else f"<{uuid.uuid4()}@simulated.invalid>"


def form_of(said: InboundMessage, now: datetime) -> tuple[bytes, str]:
    """The same as Inbound Parse posts it, taken apart; and its Content-Type.

    Raises:
        ValueError: it is no email, or has files.
    """
    if said.channel is not Channel.EMAIL or said.media:
        raise ValueError("Inbound Parse can be simulated for emails without files only")
    head = mime_of(said, now).partition(b"\r\n\r\n")[0] + b"\r\n"
    envelope = {"to": [said.to_address or ""], "from": said.from_address}
    fields = {
        "headers": head.decode("utf-8", "replace"),
        "from": _mailbox(said.name or "", said.from_address),
        "to": said.to_address or "",
        "subject": said.subject or "",
        "text": said.body,
        "html": said.html or "",
        "envelope": json.dumps(envelope),
        "attachments": "0",
        "SPF": "pass",
        "dkim": f"{{@{said.from_address.rpartition('@')[2]} : pass}}",
        "charsets": json.dumps(dict.fromkeys(("to", "from", "subject", "text", "html"), "UTF-8")),
    }
    parts = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
        if value
    )
    body = "".join(parts) + f"--{BOUNDARY}--\r\n"
    return body.encode("utf-8", "replace"), f"multipart/form-data; boundary={BOUNDARY}"
