"""Twilio's messages on loopback, with a memory: what was sent to it, what people sent, and the
lists of both, in the shapes of its API reference. Its answers can be lost."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.running import ACCOUNT, OURS, TOKEN, sid
from tests.vendors import Behaviour, Fault, LoopbackVendor, Reply, Request

PERSON = "+15550100001"
ROOT = f"/2010-04-01/Accounts/{ACCOUNT}/Messages"
SERVICE = "MG000000000000000000000000000000ff"
TAKEN = (None, Fault.DROP_AFTER, Fault.STALL)
PROOF = "Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()


def when(moment: datetime) -> str:
    """A moment as Twilio writes it."""
    return format_datetime(moment, usegmt=True).replace("GMT", "+0000")


class TwilioMessages(LoopbackVendor):
    """One account's messages. `loses` the next so many answers to what it takes; takes nothing
    while `deaf`, but drops the connection all the same. `ahead` is by how much its clock is."""

    def __init__(self, *, page: int = 1000) -> None:
        super().__init__()
        self.page = page  # the most that it puts on a page, whatever was asked for
        self.loses = 0
        self.deaf = False
        self.ahead = timedelta()
        self.dated = True  # whether answers have a Date
        self.messages: list[dict[str, Any]] = []
        self.media: dict[str, list[dict[str, Any]]] = {}
        self.lists: list[Behaviour] = []  # what lists get instead, in turn
        self._numbers = iter(range(1, 1_000_000))
        self._made: dict[int, dict[str, Any]] = {}

    @property
    def now(self) -> datetime:
        """What its clock says."""
        return datetime.now(UTC) + self.ahead

    @property
    def sent(self) -> list[Request]:
        """The messages that it was asked to send."""
        return [r for r in self.requests if r.method == "POST"]

    @property
    def asked(self) -> list[str]:
        """The lists that it was asked for, with their queries."""
        return [r.path for r in self.requests if r.path.startswith(f"{ROOT}.json?")]

    def add(self, **more: Any) -> dict[str, Any]:
        """A message as the account has it."""
        message = {
            "account_sid": ACCOUNT,
            "api_version": "2010-04-01",
            "body": "hi",
            "date_created": when(self.now),
            "date_sent": when(self.now),
            "date_updated": when(self.now),
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": OURS,
            "messaging_service_sid": None,
            "num_media": "0",
            "num_segments": "1",
            "price": None,
            "price_unit": "USD",
            "sid": sid(next(self._numbers)),
            "status": "queued",
            "subresource_uris": {},
            "to": PERSON,
            **more,
        }
        message["uri"] = f"{ROOT}/{message['sid']}.json"
        self.messages.append(message)
        return message

    def inbound(self, body: str, **more: Any) -> dict[str, Any]:
        """What somebody wrote to us."""
        said = {"direction": "inbound", "status": "received", "from": PERSON, "to": OURS}
        return self.add(body=body, **{**said, **more})

    def picture(self, body: str, *types: str, **more: Any) -> dict[str, Any]:
        """Files that somebody sent to us."""
        message = self.inbound(
            body, num_media=str(len(types)), sid=sid(next(self._numbers), "MM"), **more
        )
        self.media[message["sid"]] = [
            {"sid": sid(number, "ME"), "parent_sid": message["sid"], "content_type": kind}
            for number, kind in enumerate(types, 1)
        ]
        return message

    def behave(self, request: Request) -> Behaviour | None:
        if request.method == "GET":
            return self.pages.get(request.path) or self._told(request)
        behaviour = super().behave(request)
        if behaviour is None and (self.loses or self.deaf):
            self.loses -= bool(self.loses)
            behaviour = Fault.DROP_AFTER
        if behaviour in TAKEN and not self.deaf:
            self._made[id(request)] = self._take(request)
        return behaviour

    def ordinary(self, request: Request) -> bytes:
        made = self._made.pop(id(request))
        return Reply(status=201, body=json.dumps(made).encode()).wire()

    def _take(self, request: Request) -> dict[str, Any]:
        form = {name: values[0] for name, values in request.form.items()}
        service = form.get("MessagingServiceSid")
        return self.add(
            body=form.get("Body", ""),
            to=form["To"],
            messaging_service_sid=service,
            num_media=str(len(request.form.get("MediaUrl", []))),
            status="accepted" if service else "queued",
            **{"from": form.get("From")},
        )

    def _told(self, request: Request) -> Behaviour:
        parts = urlsplit(request.path)
        if self.lists and parts.path == f"{ROOT}.json":
            return self.lists.pop(0)
        if request.headers.get("authorization") != PROOF:
            return self._answer({"code": 20003, "status": 401}, 401)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path == f"{ROOT}.json":
            return self._listed(self._found(query), query, parts.path, "messages")
        message = parts.path.removeprefix(f"{ROOT}/").partition("/")[0]
        if message in self.media and parts.path.endswith("/Media.json"):
            return self._listed(self.media[message], query, parts.path, "media_list")
        return self._answer({"code": 20404, "status": 404}, 404)

    def _found(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        since = query.get("DateSent>")
        rows = [
            row
            for row in self.messages
            if query.get("To") in (None, row["to"])
            and query.get("From") in (None, row["from"])
            and (since is None or self._sent(row) >= datetime.fromisoformat(since))
        ]
        return sorted(rows, key=self._sent, reverse=True)

    def _sent(self, row: Mapping[str, Any]) -> datetime:
        if row["date_sent"] is None:
            return datetime.min.replace(tzinfo=UTC)
        return datetime.strptime(row["date_sent"], "%a, %d %b %Y %H:%M:%S %z")

    def _listed(
        self, rows: list[dict[str, Any]], query: Mapping[str, str], path: str, key: str
    ) -> Reply:
        size = min(self.page, int(query.get("PageSize", "50")))
        number = int(query.get("Page", "0"))
        start = number * size
        following = None
        if start + size < len(rows):
            more = {**query, "Page": str(number + 1), "PageToken": f"PA{number + 1}"}
            following = f"{path}?{urlencode(more)}"
        return self._answer({key: rows[start : start + size], "next_page_uri": following})

    def _answer(self, value: object, status: int = 200) -> Reply:
        headers = {"Date": format_datetime(self.now, usegmt=True)} if self.dated else {}
        return Reply(status=status, headers=headers, body=json.dumps(value).encode())
