"""WhatsApp templates as AWS lists them, with the words that it tells of one at a time.

Asks for the words of a bounded number at each list, and keeps them; for no more of them as soon as
AWS refuses one. A template whose words are not known has none.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.domain import VendorTemplate
from gateway.errors import ProviderError
from providers._aws import Aws
from providers._aws_whatsapp_tables import SOCIAL

PAGE, TEMPLATES = 100, 1000
READ = 40  # templates whose words are asked for at each list: one request for each
KEPT = 3600.0  # seconds before words are asked for again; AWS does not tell when they changed
APPROVED = "approved"
OPEN = re.compile(r"\{\{\s*(\w{1,100})\s*\}\}")  # what a template leaves open


@dataclass(frozen=True, slots=True)
class Words:
    """What a template says, and what it leaves open, as it was told at a moment."""

    body: str
    variables: tuple[str, ...]
    at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """The templates of a business account."""

    aws: Aws = field(repr=False)
    social: Any = field(repr=False)
    account: str
    timeout: float
    known: dict[str, Words] = field(default_factory=dict)  # by Meta's id

    async def templates(self, anew: str = "") -> Sequence[VendorTemplate]:
        """Every template, at most 1,000; of the one named `anew` with its words as they are now.

        Raises:
            ProviderError: AWS does not list them; that it does not tell words is no error.
        """
        clock = asyncio.get_running_loop().time
        ends, found, asked = clock() + self.timeout, list[VendorTemplate](), {"id": self.account}
        while len(found) < TEMPLATES:
            page = await self._page(asked, ends - clock())
            found += [_template(each) for each in page.get("templates", ())]
            if not (token := page.get("nextToken")):
                break
            asked = {"id": self.account, "nextToken": token}
        found = found[:TEMPLATES]
        for one in found:
            if one.name == anew:
                self.known.pop(one.id or "", None)
        await self._read(found, clock() + (ends - clock()) / 2)
        return [self._worded(each) for each in found]

    async def _page(self, asked: Mapping[str, str], within: float) -> Mapping[str, Any]:
        page: Mapping[str, Any] = await self.aws.call(
            lambda _: self.social.list_whatsapp_message_templates(**asked, maxResults=PAGE),
            SOCIAL,
            within=within,
        )
        return page

    async def _read(self, found: Iterable[VendorTemplate], ends: float) -> None:
        """Learns words: first those that are not known, then the oldest."""
        clock = asyncio.get_running_loop().time
        ids = [one.id for one in found if one.id and one.status == APPROVED]
        for gone in self.known.keys() - set(ids):  # what is changed is approved anew
            del self.known[gone]
        since = {id_: self.known[id_].at if id_ in self.known else -KEPT for id_ in ids}
        due = [id_ for id_ in sorted(ids, key=since.__getitem__) if clock() - since[id_] >= KEPT]
        for id_ in due[:READ]:
            if clock() >= ends:
                return
            try:
                told = await self._told(id_, ends - clock())
            except ProviderError:
                return  # it may not, or not now: another time
            self.known[id_] = replace(told, at=clock())

    async def _told(self, id_: str, within: float) -> Words:
        """ "GetWhatsAppMessageTemplate" """
        said = await self.aws.call(
            lambda _: self.social.get_whatsapp_message_template(
                id=self.account, metaTemplateId=id_
            ),
            SOCIAL,
            within=within,
        )
        return _words(said.get("template"))

    def _worded(self, one: VendorTemplate) -> VendorTemplate:
        words = self.known.get(one.id or "")
        return one if words is None else replace(one, body=words.body, variables=words.variables)


def _template(given: Mapping[str, Any]) -> VendorTemplate:
    """ "TemplateSummary" """
    category = given.get("templateCategory")
    return VendorTemplate(
        name=str(given.get("templateName") or ""),
        language=given.get("templateLanguage"),
        status=str(given.get("templateStatus") or "unknown").lower(),
        category=str(category).lower() if category else None,
        id=given.get("metaTemplateId"),
    )


def _words(definition: object) -> Words:
    """Meta's "Template components", as JSON in a text. What cannot be read has no words."""
    try:
        read = json.loads(definition) if isinstance(definition, str) else None
    except (ValueError, RecursionError):
        read = None
    parts = read.get("components") if isinstance(read, dict) else None
    body, opened = "", list[str]()
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, dict):
            continue
        kind, text = str(part.get("type") or "").lower(), part.get("text")
        if kind == "body" and isinstance(text, str):
            body = text
            opened += OPEN.findall(text)
        elif kind == "header":
            opened += _header(part)
        elif kind == "buttons":
            opened += _buttons(part.get("buttons"))
    return Words(body, tuple(dict.fromkeys(opened)), 0.0)


def _header(part: Mapping[str, Any]) -> list[str]:
    """As a message's variables name them: `header`, or `header.name`."""
    text = part.get("text")
    names = OPEN.findall(text) if isinstance(text, str) else []
    return ["header" if name.isdecimal() else f"header.{name}" for name in names]


def _buttons(buttons: object) -> list[str]:
    """Those that need something: the end of a URL, or the code to copy."""
    given = buttons if isinstance(buttons, list) else ()
    return [
        f"button.{number}"
        for number, one in enumerate(given)
        if isinstance(one, dict)
        and (str(one.get("type") or "").lower() == "copy_code" or OPEN.search(str(one.get("url"))))
    ]
