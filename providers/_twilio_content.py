"""Twilio's content templates as its Content API lists them, and its typing indicator.

Reads only the account's own templates, and follows no address that a list names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

from gateway.domain import VendorTemplate
from gateway.errors import Ambiguous, Unsupported
from providers._twilio_answers import failure

if TYPE_CHECKING:
    from providers._http import Http

# "ContentAndApprovals resource": PageSize is at most 1,000, and a template has up to some kilobytes
PAGE, TEMPLATES = 250, 1000
LIMIT = 8 * 1024 * 1024
LIST = "/v1/ContentAndApprovals"
# "Typing Indicators resource" (public beta)
TYPING = "/v2/Indicators/Typing.json"
MESSAGE = re.compile(r"[SM]M[0-9a-fA-F]{32}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """How the APIs beside the main one are reached: each has a host of its own at Twilio."""

    http: Http = field(repr=False)
    authorization: str = field(repr=False)
    api_url: str
    timeout: float

    def url(self, name: str, path: str) -> str:
        """A URL of one of them."""
        parts = urlsplit(self.api_url)
        host = parts.netloc
        if host.startswith("api.") and host.endswith(".twilio.com"):
            host = f"{name}.{host.removeprefix('api.')}"
        return f"{parts.scheme}://{host}{parts.path}{path}"

    async def ask(
        self, method: str, url: str, form: Mapping[str, str] | None = None
    ) -> Mapping[str, Any]:
        """One request, whose answer is a yes."""
        headers = {"Authorization": self.authorization, "Accept": "application/json"}
        answer = await self.http.request(
            method, url, headers=headers, data=form, timeout=self.timeout, limit=LIMIT
        )
        try:
            said = json.loads(answer.body)
        except (ValueError, RecursionError):
            said = None
        values: Mapping[str, Any] = said if isinstance(said, dict) else {}
        if not 200 <= answer.status < 300 or not values:
            raise failure(answer, values)
        return values


async def typing(desk: Desk, provider_message_id: str) -> None:
    """Shows that an answer to a person's message is being written, for 25 seconds at most; Twilio
    marks the message as read with it."""
    if not MESSAGE.fullmatch(provider_message_id):
        raise Unsupported("Twilio: only a message of its own can be answered", code="message")
    form = {"messageId": provider_message_id, "channel": "whatsapp"}
    await desk.ask("POST", desk.url("messaging", TYPING), form)


async def templates(desk: Desk) -> Sequence[VendorTemplate]:
    """Every content template with what WhatsApp says to it."""
    found: list[VendorTemplate] = []
    query = {"PageSize": str(PAGE)}
    while len(found) < TEMPLATES:
        said = await desk.ask("GET", desk.url("content", f"{LIST}?{urlencode(query)}"))
        rows = said.get("contents")
        if not isinstance(rows, list):
            raise Ambiguous("a list without templates", code="paging")
        found += [_template(row) for row in rows if isinstance(row, dict)]
        following = _following(said.get("meta"))
        if not rows or not following:
            break
        query = following
    return found[:TEMPLATES]


def _following(meta: object) -> dict[str, str]:
    """Where a list goes on: only the query of that address is used."""
    url = meta.get("next_page_url") if isinstance(meta, Mapping) else None
    if not isinstance(url, str):
        return {}
    asked = parse_qs(urlsplit(url).query)
    known = ("PageSize", "Page", "PageToken")
    return {name: asked[name][0] for name in known if name in asked}


def _template(row: Mapping[str, Any]) -> VendorTemplate:
    approval = row.get("approval_requests")
    asked: Mapping[str, Any] = approval if isinstance(approval, Mapping) else {}
    variables, category = row.get("variables"), asked.get("category")
    return VendorTemplate(
        name=_text(row.get("sid")),
        language=_text(row.get("language")) or None,
        status=(_text(asked.get("status")) or "unsubmitted").lower(),
        category=_text(category).lower() or None,
        body=_body(row.get("types")),
        variables=tuple(str(name) for name in variables) if isinstance(variables, Mapping) else (),
        title=_text(row.get("friendly_name")) or None,
    )


def _body(types: object) -> str:
    """What a person would read, of whichever kind it is."""
    kinds = types.values() if isinstance(types, Mapping) else ()
    bodies = (_text(kind.get("body")) for kind in kinds if isinstance(kind, Mapping))
    return next((body for body in bodies if body), "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
