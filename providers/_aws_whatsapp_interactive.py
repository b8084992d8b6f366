"""Buttons and lists, as Meta's "Interactive" objects: checked before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.domain import OutboundMessage
from providers._aws_whatsapp_limits import members, optional, refused, text_of, unlike

# "Interactive Reply Buttons Messages", "Interactive List Messages" (WhatsApp Cloud API)
BODY = {"buttons": 1024, "list": 4096}
HEADER = FOOTER = 60
BUTTONS, BUTTON_ID, BUTTON_TITLE = 3, 256, 20
ROWS = SECTIONS = 10
ROW_ID, ROW_TITLE, ROW_DESCRIPTION, SECTION_TITLE = 200, 24, 72, 24


def interactive(message: OutboundMessage, header: Mapping[str, Any] | None) -> dict[str, Any]:
    """The object of a message's `content`. `header` is its file, if it has one."""
    content = message.content
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in BODY:
        raise refused('content.kind must be "buttons" or "list"', field="content.kind")
    if header is not None and kind == "list":
        raise refused("a list has no file", "media", field="media")
    body = text_of(message.body, f"the body above {kind}", BODY[kind], "body")
    made: dict[str, Any] = {"type": "button" if kind == "buttons" else "list"}
    head = header or _header(content)
    if head is not None:
        made["header"] = head
    made["body"] = {"text": body}
    if (footer := _short(content, "footer", FOOTER)) is not None:
        made["footer"] = {"text": footer}
    made["action"] = _buttons(content) if kind == "buttons" else _list(content)
    return made


def _header(content: Mapping[str, Any]) -> dict[str, Any] | None:
    text = _short(content, "header", HEADER)
    return None if text is None else {"type": "text", "text": text}


def _short(content: Mapping[str, Any], name: str, most: int) -> str | None:
    return optional(content.get(name), f"content.{name}", most, f"content.{name}")


def _buttons(content: Mapping[str, Any]) -> dict[str, Any]:
    given = members(content.get("buttons"), "content.buttons", BUTTONS)
    made = [
        {
            "id": text_of(each.get("id"), "a button's id", BUTTON_ID, f"{at}.id"),
            "title": text_of(each.get("title"), "a button's title", BUTTON_TITLE, f"{at}.title"),
        }
        for at, each in _placed(given, "content.buttons")
    ]
    unlike([each["id"] for each in made], "the ids of buttons", "content.buttons")
    unlike([each["title"] for each in made], "the titles of buttons", "content.buttons")
    return {"buttons": [{"type": "reply", "reply": each} for each in made]}


def _list(content: Mapping[str, Any]) -> dict[str, Any]:
    button = text_of(content.get("button"), "content.button", BUTTON_TITLE, "content.button")
    given = members(content.get("sections"), "content.sections", SECTIONS)
    several = len(given) > 1
    sections = [_section(s, at, several=several) for at, s in _placed(given, "content.sections")]
    rows = [row for section in sections for row in section["rows"]]
    if len(rows) > ROWS:
        text = f"a list may have {ROWS} rows in all its sections"
        raise refused(text, "too_many", field="content.sections")
    unlike([row["id"] for row in rows], "the ids of rows", "content.sections")
    return {"button": button, "sections": sections}


def _section(section: Mapping[str, Any], at: str, *, several: bool) -> dict[str, Any]:
    read = text_of if several else optional
    title = read(section.get("title"), "a section's title", SECTION_TITLE, f"{at}.title")
    rows = _placed(members(section.get("rows"), f"{at}.rows", ROWS), f"{at}.rows")
    named = {} if title is None else {"title": title}
    return {**named, "rows": [_row(row, place) for place, row in rows]}


def _row(row: Mapping[str, Any], at: str) -> dict[str, str]:
    made = {
        "id": text_of(row.get("id"), "a row's id", ROW_ID, f"{at}.id"),
        "title": text_of(row.get("title"), "a row's title", ROW_TITLE, f"{at}.title"),
    }
    told = row.get("description")
    more = optional(told, "a row's description", ROW_DESCRIPTION, f"{at}.description")
    return made if more is None else {**made, "description": more}


def _placed(
    given: Sequence[Mapping[str, Any]], field: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each with its field."""
    return ((f"{field}.{number}", each) for number, each in enumerate(given))
