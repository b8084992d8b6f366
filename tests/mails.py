"""Emails as people send them, written by the standard library, and what SES says when it has
received one."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from email.message import EmailMessage
from typing import Any

ADA, BOB, SUPPORT = "ada@example.com", "bob@example.com", "support@example.com"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def mail(text: str = "Hello", **headers: str) -> EmailMessage:
    """An email of Ada's; names of headers with `_` for `-`."""
    made = EmailMessage()
    usual = {"From": f"Ada Lovelace <{ADA}>", "To": SUPPORT, "Subject": "A question"}
    for name, value in {**usual, **headers}.items():
        made[name.replace("_", "-")] = value
    made.set_content(text)
    return made


def with_picture(**headers: str) -> EmailMessage:
    """One with HTML, a picture in it, and a file."""
    made = mail("Grüße 😀", **headers)
    made.add_alternative(
        '<p>Grüße <img src="cid:pic@1"><img src="https://spy.example/p.gif"></p>'
        "<script>alert(1)</script>",
        subtype="html",
    )
    page = made.get_payload(1)
    page.add_related(PNG, "image", "png", cid="<pic@1>", filename="p.png")  # type: ignore[union-attr]
    made.add_attachment(
        b"%PDF-1.4\n", maintype="application", subtype="pdf", filename="../résumé.pdf"
    )
    return made


def received(
    raw: bytes | None,
    number: int = 1,
    to: tuple[str, ...] = (SUPPORT,),
    source: str = ADA,
    **more: Any,
) -> dict[str, Any]:
    """ "Contents of notifications for Amazon SES email receiving", with the email in base64."""
    told: dict[str, Any] = {
        "notificationType": "Received",
        "mail": {
            "timestamp": "2026-03-01T11:59:50.000Z",
            "source": source,
            "messageId": f"d6iitobk75ur44p8kdnnp7g2n{number:04}",
            "destination": list(to),
        },
        "receipt": {
            "timestamp": "2026-03-01T11:59:51.000Z",
            "recipients": list(to),
            **{f"{name}Verdict": {"status": "PASS"} for name in ("spam", "virus", "spf", "dkim")},
            "dmarcVerdict": {"status": "FAIL"},
            "dmarcPolicy": "reject",
            "action": {"type": "SNS", "encoding": "BASE64"},
        },
    }
    if raw is not None:
        told["content"] = base64.b64encode(raw).decode()
    for name, value in more.items():
        if isinstance(value, Mapping):
            told[name] = {**told[name], **value}
        else:
            told[name] = value
    return told
