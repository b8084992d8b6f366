"""Twilio's list of messages: one whose answer was lost, and what was said while nobody listened.

Only reads, and only Twilio's own account. A message is told as it stands in the list, for the
webhook of the same name to read: what its words mean stands there, once.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from gateway.domain import Channel, Listing, Record, Sought
from gateway.errors import Ambiguous
from providers._twilio_answers import failure

if TYPE_CHECKING:
    from providers._http import Http

# "Messages resource", Read multiple Message resources: PageSize is at most 1,000; sorted by
# DateSent, the most recent first.
PAGE = 500  # of the history
FEW = 100  # of one person's messages
PAGES = 10  # of those, then it is not known how many there are
LIMIT = 16 * 1024 * 1024  # bytes of a page: 500 times 1,600 characters, escaped
TIMEOUT = 20.0
SLACK = timedelta(minutes=1)  # by which the order of a list may be out

# "Free trial account": the one thing that Twilio puts into a text.
TRIAL = "Sent from your Twilio trial account - "

SID = re.compile(r"[SM]M[0-9a-fA-F]{32}")

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mailbox:
    """How the messages of an account are read."""

    http: Http = field(repr=False)
    authorization: str = field(repr=False)
    api_url: str
    sid: str

    def path(self, rest: str) -> str:
        """The path of a list or of a message."""
        return f"/2010-04-01/Accounts/{self.sid}/Messages{rest}.json"


@dataclass(frozen=True, slots=True)
class _Page:
    rows: Sequence[Row]
    time: datetime | None  # Twilio's clock
    last: bool


async def look_up(mailbox: Mailbox, sought: Sought) -> Listing:
    """Every message that may be this one. Without a filter by date: what is queued has not been
    sent at any time, and would not be listed."""
    prefix = "whatsapp:" if sought.channel is Channel.WHATSAPP else ""
    query = {"To": prefix + sought.to, "PageSize": str(FEW)}
    if sought.sender.pool is None and sought.sender.address:
        query["From"] = prefix + sought.sender.address
    found: list[Record] = []
    whole, time, pages = True, None, 0
    async for page in _pages(mailbox, mailbox.path(""), query, "messages"):
        time, pages = time or page.time, pages + 1
        for row in page.rows:
            if _may_be(row, sought, prefix):
                record = _record(mailbox, row)
                found += [record] if record is not None else []
                whole = whole and record is not None
        if page.last or _older(page.rows, time, sought.age):
            return Listing(records=tuple(found), whole=whole, vendor_time=time)
        if pages == PAGES:
            break
    return Listing(records=tuple(found), whole=False, vendor_time=time)


def _may_be(row: Row, sought: Sought, prefix: str) -> bool:
    """ "Messages resource": messaging_service_sid is given to every message, by whatever it was
    sent; `from` is null until a service has picked one."""
    sender = sought.sender
    ours = (
        row.get("messaging_service_sid") == sender.pool
        if sender.pool is not None
        else row.get("from") == prefix + (sender.address or "")
    )
    return (
        ours
        and row.get("direction") == "outbound-api"
        and row.get("to") == prefix + sought.to
        and row.get("body") in (sought.body, TRIAL + sought.body)
        and str(row.get("num_media") or "0") == str(sought.media)
    )


def _older(rows: Sequence[Row], time: datetime | None, age: float) -> bool:
    """Whether what follows in a list was there before the message that is sought."""
    dated = (date for row in reversed(rows) if (date := _date(row.get("date_sent"))) is not None)
    last = next(dated, None)
    return last is not None and time is not None and last < time - timedelta(seconds=age) - SLACK


async def history(mailbox: Mailbox, since: datetime, limit: int) -> Listing:
    """What was sent and received since then. The date of something received is that of its
    webhook, of something sent that of its handing over; what was not sent yet has none."""
    moment = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    query = {"DateSent>": moment, "PageSize": str(min(PAGE, limit))}
    found: list[Record] = []
    whole, time = True, None
    async for page in _pages(mailbox, mailbox.path(""), query, "messages"):
        time = time or page.time
        for row in page.rows:
            record = _record(mailbox, row)
            if record is None:
                whole = False
            elif len(found) < limit:
                found.append(record)
            else:
                return Listing(records=tuple(found), whole=False, vendor_time=time)
    return Listing(records=tuple(found), whole=whole, vendor_time=time)


async def complete(mailbox: Mailbox, record: Record) -> Record:
    """A record with the files of its message ("Media subresource"), of which the list of messages
    tells no more than how many."""
    said = json.loads(record.body)
    files: list[Row] = []
    path = mailbox.path(f"/{record.provider_message_id}/Media")
    async for page in _pages(mailbox, path, {"PageSize": str(FEW)}, "media_list"):
        files += page.rows
        if len(files) > FEW:
            break
    return replace(record, body=_written({**said, "media": files}), partial=False)


def _record(mailbox: Mailbox, row: Row) -> Record | None:
    sid, created = row.get("sid"), _date(row.get("date_created"))
    if not isinstance(sid, str) or SID.fullmatch(sid) is None or created is None:
        return None
    inbound = row.get("direction") == "inbound"
    return Record(
        provider_message_id=sid,
        created_at=created,
        url=mailbox.api_url + mailbox.path(f"/{sid}"),
        body=_written({"message": row}),
        partial=inbound and str(row.get("num_media") or "0") != "0",
    )


def _written(value: object) -> bytes:
    # Half a surrogate pair becomes the escape of JSON, which is what it was.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _date(value: object) -> datetime | None:
    """A moment as Twilio writes it (RFC 2822)."""
    if not isinstance(value, str):
        return None
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


async def _pages(
    mailbox: Mailbox, path: str, query: Mapping[str, str], key: str
) -> AsyncIterator[_Page]:
    """A list, page by page ("Twilio's response", Pagination)."""
    asked = f"{path}?{urlencode(query)}"
    while True:
        headers = {"Authorization": mailbox.authorization, "Accept": "application/json"}
        answer = await mailbox.http.request(
            "GET", mailbox.api_url + asked, headers=headers, timeout=TIMEOUT, limit=LIMIT
        )
        values = _object(answer.body)
        rows = values.get(key)
        if answer.status != 200 or not isinstance(rows, list):
            raise failure(answer, values)
        following = values.get("next_page_uri")
        time = _date(answer.headers.get("Date"))
        yield _Page([row for row in rows if isinstance(row, dict)], time, not following)
        if not following:
            return
        if not isinstance(following, str) or urlsplit(following)[:3] != ("", "", path):
            raise Ambiguous("a list that goes on elsewhere", code="paging")
        asked = following


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
