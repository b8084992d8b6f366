"""What a program said of an email, as the messages that it is: one for each of our addresses that
it came to. Purely; what is not as it should be is left out or cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway import addresses
from gateway.domain import (
    Channel,
    InboundMessage,
    KeptFile,
    Mail,
    MediaReference,
    MessageType,
)
from gateway.mail_program import NotRead, Said

FILES = 90  # their places have two digits in an id
PEOPLE = 50
LINE = 2000  # characters of a line that is shown
KIND = re.compile(r"[\w.+-]{1,100}/[\w.+-]{1,150}", re.ASCII)
PLACE = re.compile(r'"media:(\d{1,2})"')


@dataclass(frozen=True, slots=True)
class Enclosed:
    """A file of an email, not kept yet."""

    name: str
    kind: str
    data: bytes


def enclosed(said: Said) -> list[Enclosed]:
    """The files of an email.

    Raises:
        NotRead: the program counted them otherwise than it gave them.
    """
    found, at = [], 0
    listed = said.facts.get("files")
    for told in listed[:FILES] if isinstance(listed, list) else []:
        size = told.get("size") if isinstance(told, dict) else None
        if not isinstance(size, int) or not 0 <= size <= len(said.files) - at:
            raise NotRead("gave other files than it told of")
        data = bytes(said.files[at : at + size])
        kind = _line(told.get("kind"))
        kind = kind if KIND.fullmatch(kind) else "application/octet-stream"
        found.append(Enclosed(_line(told.get("name")) or "file", kind, data))
        at += size
    return found


def file_id(inbox_id: str, number: int) -> str:
    """The id of a file: the same whenever the same email is read again."""
    return f"med_{inbox_id.removeprefix('inb_')}{number:02d}"


def recipients(said: Said) -> list[str]:
    """Our addresses that get it; a blank one where nobody told."""
    return _everybody(said)[:PEOPLE] or [""]


def _everybody(said: Said) -> list[str]:
    listed = said.facts.get("to")
    found = [_address(_line(each)) for each in listed] if isinstance(listed, list) else []
    return list(dict.fromkeys(each for each in found if each))


def message(
    mail: Mail, said: Said, recipient: str, files: Sequence[tuple[Enclosed, KeptFile]]
) -> InboundMessage:
    """The email as it came to one address of ours."""
    facts = said.facts
    return InboundMessage(
        dedupe_key=dedupe_key(said, recipient),
        channel=Channel.EMAIL,
        from_address=_address(_line(facts.get("from"))),
        to_address=recipient or None,
        provider_message_id=_line(facts.get("id")) or None,
        type=MessageType.EMAIL,
        body=_text(facts.get("text")),
        content={**_object(facts.get("content")), **_left_out(said)},
        subject=_line(facts.get("subject")),
        html=_with_files(_text(facts.get("html")), [kept for _, kept in files]) or None,
        email=_object(facts.get("email")),
        answers=tuple(_lines(facts.get("answers"))),
        media=tuple(
            MediaReference(
                reference=f"mail:{kept.id}", content_type=file.kind, filename=file.name, kept=kept
            )
            for file, kept in files
        ),
        name=_line(facts.get("name")) or None,
        occurred_at=mail.occurred_at,
    )


def dedupe_key(said: Said, recipient: str) -> str:
    """The same email to the same address is stored once."""
    return f"mail:{_line(said.facts.get('key'))}:{recipient}"


def _left_out(said: Said) -> dict[str, int]:
    """How many of our addresses got none of it."""
    more = len(_everybody(said)) - PEOPLE
    return {"recipients_left_out": more} if more > 0 else {}


def _with_files(html: str, files: Sequence[KeptFile]) -> str:
    """The pictures that the email brought, from where they are kept now."""

    def at(found: re.Match[str]) -> str:
        place = int(found[1])
        return f'"/api/media/{files[place].id}"' if place < len(files) else '""'

    return PLACE.sub(at, html)


def _address(text: str) -> str:
    """An address as every other of a person's is written."""
    try:
        return addresses.email(text)
    except addresses.AddressError:
        local, _, domain = text[:254].rpartition("@")
        return f"{local}@{domain.lower()}" if local and domain else ""


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _line(value: object) -> str:
    return value[:LINE] if isinstance(value, str) else ""


def _lines(value: object) -> Iterator[str]:
    for each in value[:FILES] if isinstance(value, list) else []:
        if isinstance(each, str):
            yield each[:LINE]
