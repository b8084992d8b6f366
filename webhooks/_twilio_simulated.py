"""Makes the form that Twilio would post, for `gateway simulate` and for tests. Signs nothing."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from gateway.domain import (
    Channel,
    InboundMessage,
    MessageType,
    Simulated,
    StatusUpdate,
    WebhookRequest,
)
from webhooks._twilio_exact import REAL_SID
from webhooks._twilio_tables import FLAGS, GEO, REFERRAL, STATUSES, WORDS

VERSION = "2010-04-01"
ATTEMPT = re.compile(r"[?&]attempt=")


def post(simulated: Simulated, account: str, api: str) -> tuple[str, bytes]:
    """The URL that Twilio would call and the body that it would post."""
    if simulated.message is not None:
        fields = _message(simulated.message, account, api)
        return simulated.url, urlencode(fields).encode()
    if simulated.status is None:
        raise ValueError("there is neither a message nor a status to simulate")
    fields = _status(simulated.status, account)
    return _callback(simulated.url, simulated.status), urlencode(fields).encode()


def request(url: str, body: bytes, headers: Mapping[str, str]) -> WebhookRequest:
    """The request around a body, with the headers that Twilio sends besides its signature."""
    return WebhookRequest(
        method="POST",
        url=url,
        headers={
            "content-type": "application/x-www-form-urlencoded; charset=utf-8",
            "user-agent": "TwilioProxy/1.1",
            "i-twilio-idempotency-token": str(uuid.uuid4()),
            "x-home-region": "us1",
            **headers,
        },
        body=body,
        received_at=datetime.now(UTC),  # for show: a Twilio signature has no time
    )


def _callback(url: str, status: StatusUpdate) -> str:
    if status.attempt_id is None or ATTEMPT.search(url):
        return url
    return f"{url}{'&' if '?' in url else '?'}attempt={status.attempt_id}"


def _wire(channel: Channel | None, address: str | None) -> str | None:
    prefix = f"{channel.value}:" if channel in (Channel.WHATSAPP, Channel.RCS) else ""
    return None if address is None else prefix + address


def _filled(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items() if value is not None}


def _message(message: InboundMessage, account: str, api: str) -> dict[str, str]:
    prefix = "MM" if message.media else "SM"
    sid = message.provider_message_id or prefix + secrets.token_hex(16)
    fields = {
        "ApiVersion": VERSION,
        "SmsMessageSid": sid,
        "SmsSid": sid,
        "SmsStatus": "received",
        "MessageSid": sid,
        "AccountSid": message.account or account or None,
        "MessagingServiceSid": message.pool,
        "NumMedia": len(message.media),
        "NumSegments": message.segments or 1,
        "Body": message.body,
        "From": _wire(message.channel, message.from_address),
        "To": _wire(message.channel, message.to_address),
        "OriginalRepliedMessageSid": message.reply_to,
    }
    for number, file in enumerate(message.media):
        fields[f"MediaUrl{number}"] = _media_url(file.reference, api)
        fields[f"MediaContentType{number}"] = file.content_type
    if message.channel is Channel.WHATSAPP:
        fields |= _person(message)
    return _filled({**fields, **_content(message.content)})


def _media_url(reference: str, api: str) -> str:
    ids = reference.split("/")
    if len(ids) != 3 or not all(REAL_SID.fullmatch(part) for part in ids):
        return reference
    return f"{api}/{VERSION}/Accounts/{ids[0]}/Messages/{ids[1]}/Media/{ids[2]}"


def _person(message: InboundMessage) -> dict[str, Any]:
    addresses = (*message.aliases, message.from_address)
    number = next((a for a in addresses if a.startswith("+")), None)
    user = next((a for a in message.aliases if not a.startswith("+")), None)
    return {
        "ProfileName": message.name,
        "WaId": number.removeprefix("+") if number else None,
        "ExternalUserId": f"whatsapp:{user}" if user else None,
        "MessageType": None if message.type is MessageType.UNKNOWN else message.type.value,
    }


def _content(content: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "Latitude": content.get("latitude"),
        "Longitude": content.get("longitude"),
        "Label": content.get("name"),
        "Address": content.get("address"),
        "OptOutType": content.get("opt_out_type"),
    }
    if content.get("kind") == "button":
        fields |= {"ButtonText": content.get("title"), "ButtonPayload": content.get("id")}
    elif content.get("kind") == "list":
        fields |= {"ListId": content.get("id"), "ListTitle": content.get("title")}
    geo, referral = content.get("geo", {}), content.get("referral", {})
    fields |= {name: geo.get(ours) for name, ours in GEO.items()}
    fields |= {name: referral.get(ours) for name, ours in REFERRAL.items()}
    flags = {name: content[ours] for name, ours in FLAGS.items() if ours in content}
    return fields | {name: str(value).lower() for name, value in flags.items()}


def _status(status: StatusUpdate, account: str) -> dict[str, str]:
    given = STATUSES.get(status.vendor_status)
    word = status.vendor_status if given is status.status else WORDS.get(status.status)
    if word is None:
        raise ValueError(f"Twilio has no word for the status {status.status.value}")
    sid = status.provider_message_id or "SM" + secrets.token_hex(16)
    return _filled(
        {
            "ErrorCode": status.error.code if status.error and status.error.code != word else None,
            "ErrorMessage": status.error.message if status.error else None,
            "ApiVersion": VERSION,
            "SmsSid": sid,
            "MessageSid": sid,
            "SmsStatus": word,
            "MessageStatus": word,
            "AccountSid": status.account or account or None,
            "From": _wire(status.channel, status.sender),
            "To": _wire(status.channel, status.recipient),
            "NumSegments": status.segments,
            "Price": f"-{status.cost.amount}" if status.cost else None,
            "PriceUnit": status.cost.currency if status.cost else None,
        }
    )
