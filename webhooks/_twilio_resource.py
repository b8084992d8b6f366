"""Reads a message as Twilio's API tells it: as the form that Twilio would have posted of it.

So one reading and one set of tables serve both, and a message is the same whichever came first.
Pure; raises nothing but `Malformed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from gateway.domain import Event, InboundMessage, StatusUpdate
from gateway.errors import Malformed
from webhooks._forms import Form, read_json

# Twilio, "Messages resource", properties, beside "Messaging webhooks", request parameters.
BOTH = {
    "sid": "MessageSid",
    "account_sid": "AccountSid",
    "from": "From",
    "to": "To",
    "messaging_service_sid": "MessagingServiceSid",
}
RECEIVED = {**BOTH, "status": "SmsStatus", "body": "Body", "num_media": "NumMedia"}
SENT = {
    **BOTH,
    "status": "MessageStatus",
    "error_code": "ErrorCode",
    "error_message": "ErrorMessage",
    "price": "Price",
    "price_unit": "PriceUnit",
}

Row = Mapping[str, Any]


def form_of(body: bytes, api: str) -> tuple[Form, datetime | None]:
    """The form, and when what it says happened; `api` is the origin of the URLs of files.

    Raises:
        Malformed: it is no message.
    """
    try:
        said = read_json(body)
    except ValueError as error:
        raise Malformed(f"the record cannot be read: {error}") from None
    message = said.get("message") if isinstance(said, dict) else None
    if not isinstance(message, dict):
        raise Malformed("the record holds no message")
    inbound = message.get("direction") == "inbound"
    names = RECEIVED if inbound else SENT
    pairs = [(name, _text(message.get(ours))) for ours, name in names.items()]
    # "num_segments is initially 0, since a sender hasn't yet been assigned."
    if (segments := _text(message.get("num_segments"))) not in ("", "0"):
        pairs.append(("NumSegments", segments))
    if inbound:
        pairs += _files(said.get("media"), message, api)
    when = message.get("date_sent") if inbound else message.get("date_updated")
    return Form([(name, value) for name, value in pairs if value]), _moment(when)


def dated(event: Event, when: datetime | None) -> Event:
    """What it says, with its time, which a form has not."""
    if isinstance(event, InboundMessage | StatusUpdate):
        return replace(event, occurred_at=when)
    return event


def _files(media: object, message: Row, api: str) -> Iterator[tuple[str, str]]:
    """ "Media subresource": the address of each file, as a webhook has it."""
    rows = [row for row in media if isinstance(row, dict)] if isinstance(media, list) else []
    for number, row in enumerate(rows):
        path = f"/2010-04-01/Accounts/{message.get('account_sid')}/Messages/{message.get('sid')}"
        yield f"MediaUrl{number}", f"{api}{path}/Media/{row.get('sid')}"
        yield f"MediaContentType{number}", _text(row.get("content_type"))


def _text(value: object) -> str:
    """A value as a form has it; null is blank."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _moment(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
