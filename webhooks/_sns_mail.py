"""Email that Amazon SES received for us ("Contents of notifications for Amazon SES email
receiving"): what it says of the envelope, and the email as it came.

Reads nothing of the email itself: that is for `_mail_child`, later and apart.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.domain import Event, Mail, Unrecognised

Facts = Mapping[str, Any]

PROGRAM = Path(__file__).with_name("_mail_child.py")
VERDICTS = ("spam", "virus", "spf", "dkim", "dmarc")
PEOPLE = 1000
LONGEST = 320  # octets of an address
HEADERS = 500
NOBODYS = b"From: person@example.com\r\nSubject: Redacted\r\n\r\nRedacted\r\n"


def is_received(facts: Facts) -> bool:
    """An email of somebody's, as a receipt rule passes it on."""
    return facts.get("notificationType") == "Received" and isinstance(facts.get("mail"), dict)


def read(facts: Facts, published: datetime, key: str) -> Event:
    """The email; one of which only the headers came says where the rest is."""
    mail, receipt = facts["mail"], _object(facts, "receipt")
    action, content = _object(receipt, "action"), facts.get("content")
    people = receipt.get("recipients") or mail.get("destination")
    identity = _line(mail.get("messageId"), 200)
    if not identity:
        return Unrecognised(dedupe_key=f"un:{key}", kind="ses:received")
    order: dict[str, Any] = {
        "id": identity,
        "encoding": _encoding(action, content),
        "envelope": {
            "from": _line(mail.get("source"), LONGEST),
            "to": _people(people),
        },
        "verdicts": _verdicts(receipt),
    }
    if not isinstance(content, str):
        order["content"] = {"kept_at": _place(action)}
    text = content if isinstance(content, str) else _head(mail)
    return Mail(
        dedupe_key=f"ma:{identity}:{key}",
        program=PROGRAM,
        order=order,
        data=text.encode("utf-8", "replace"),
        occurred_at=_moment(receipt.get("timestamp") or mail.get("timestamp")) or published,
    )


def another(facts: Facts) -> str:
    """An email of nobody's, as it may stand in place of the one that came."""
    told = _encoding(_object(_object(facts, "receipt"), "action"), "")
    return base64.b64encode(NOBODYS).decode() if told == "base64" else NOBODYS.decode()


def _encoding(action: Facts, content: object) -> str:
    """ "SNS action", encoding: an email is made UTF-8 of, whatever it was, unless it is base64."""
    told = action.get("encoding")
    return "base64" if isinstance(content, str) and told == "BASE64" else "utf8"


def _people(listed: object) -> list[str]:
    found = [_line(each, LONGEST) for each in listed] if isinstance(listed, list) else []
    return [each for each in found if each][:PEOPLE]


def _verdicts(receipt: Facts) -> dict[str, str]:
    found = {n: _line(_object(receipt, f"{n}Verdict").get("status"), 40) for n in VERDICTS}
    found["dmarc_policy"] = _line(receipt.get("dmarcPolicy"), 40)  # told where DMARC failed
    return {name: word.lower() for name, word in found.items() if word}


def _place(action: Facts) -> dict[str, str]:
    """ "S3 action": where the email lies instead."""
    names = {"type": "type", "bucket": "bucketName", "key": "objectKey"}
    found = {name: _line(action.get(theirs), 1100) for name, theirs in names.items()}
    return {name: value for name, value in found.items() if value}


def _head(mail: Facts) -> str:
    """An email's headers, where they are all that came."""
    listed = mail.get("headers")
    lines = [
        f"{_line(each.get('name'), 200)}: {_line(each.get('value'), 8000)}\n"
        for each in (listed[:HEADERS] if isinstance(listed, list) else [])
        if isinstance(each, dict)
    ]
    kind = ("content-type:", "content-transfer-encoding:")
    return "".join(line for line in lines if not line.lower().startswith(kind)) + "\n"


def _object(facts: Facts, name: str) -> Facts:
    value = facts.get(name)
    return value if isinstance(value, dict) else {}


def _line(value: object, most: int) -> str:
    return " ".join(value[:most].split()) if isinstance(value, str) else ""


def _moment(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if found is None:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
