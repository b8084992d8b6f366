"""What Meta tells of WhatsApp, as AWS publishes it: pieces for the tests to put together.

`python -m tests.whatsapp_entries` writes the golden cases of `aws_whatsapp` anew.
"""

from __future__ import annotations

import json
from typing import Any

from gateway.domain import WebhookRequest
from tests.sns_signing import (
    NOW,
    laid_out,
    notification,
    posted,
    request,
    signer,
    write,
)

WABA, META_ID = "1200000000000034", "3400000000000056"
HEX = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
POOL = f"phone-number-id-{HEX}"
ARN = "arn:aws:social-messaging:eu-west-1:210987654321"
OURS, PERSON, USER = "+15005550006", "+5511955550142", "BR.81726354455362718190"
SEND_ID = "5d2f0b7c-6a1e-4f43-9c80-1b2a3c4d5e6f"
ATTEMPT = "att_019a0b1c2d3e4f5061728394a5b6c7d8"
CONTEXT = {
    "MetaWabaIds": [{"wabaId": WABA, "arn": f"{ARN}:waba/{HEX[::-1]}"}],
    "MetaPhoneNumberIds": [
        {"metaPhoneNumberId": META_ID, "arn": f"{ARN}:phone-number-id/{HEX}"},
        {"metaPhoneNumberId": "99", "arn": f"{ARN}:phone-number-id/{HEX[::-1]}"},
    ],
}
AT = int(NOW.timestamp()) - 3


def event(*changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What AWS publishes: an entry with changes."""
    entry = {"id": WABA, "changes": list(changes)}
    if "time" in more:
        entry["time"] = more.pop("time")
    return {
        "context": CONTEXT,
        "whatsAppWebhookEntry": json.dumps(entry, ensure_ascii=False),
        "aws_account_id": "210987654321",
        "message_timestamp": "2026-03-01T11:59:59.123456789Z",
        **more,
    }


def change(field: str = "messages", **value: Any) -> dict[str, Any]:
    """One change of a field, of our number."""
    metadata = {"display_phone_number": "+1 500-555-0006", "phone_number_id": META_ID}
    return {
        "field": field,
        "value": {"messaging_product": "whatsapp", "metadata": metadata, **value},
    }


def message(type_: str = "text", number: int = 1, **more: Any) -> dict[str, Any]:
    """One message of a person, as Meta has it."""
    body = {"text": {"body": "Olá 👋"}} if type_ == "text" and "text" not in more else {}
    found = {
        "from": PERSON[1:],
        "id": f"wamid.in{number:04d}",
        "timestamp": str(AT),
        "type": type_,
        **body,
        **more,
    }
    return {name: value for name, value in found.items() if value is not None}


def contact(name: str = "Ada", wa_id: str | None = PERSON[1:], **more: Any) -> dict[str, Any]:
    """One contact."""
    shown = {"profile": {"name": name}, **({"wa_id": wa_id} if wa_id else {})}
    return {**shown, **more}


def status(word: str = "delivered", number: int = 1, **more: Any) -> dict[str, Any]:
    """What became of a message of ours, as Meta has it."""
    found = {
        "id": f"wamid.out{number:04d}",
        "status": word,
        "timestamp": str(AT),
        "recipient_id": PERSON[1:],
        **more,
    }
    return {name: value for name, value in found.items() if value is not None}


def failed(code: int, number: int = 1, **more: Any) -> dict[str, Any]:
    """A failure with a code."""
    error = {"code": code, "title": "Title", "message": "Words", "error_data": {"details": "Why"}}
    return status("failed", number, errors=[error], **more)


def said(type_: str = "text", number: int = 1, **more: Any) -> dict[str, Any]:
    """An event with one message."""
    return event(change(contacts=[contact()], messages=[message(type_, number, **more)]))


def happened(*statuses: dict[str, Any], send_id: str | None = SEND_ID) -> dict[str, Any]:
    """An event with statuses."""
    return event(change(statuses=list(statuses)), **({"messageId": send_id} if send_id else {}))


TEMPLATE = {
    "event": "PAUSED",
    "message_template_id": 1689556908129835,
    "message_template_name": "greeting",
    "message_template_language": "pt_BR",
    "message_template_category": "MARKETING",
    "reason": "NONE",
}


def bodies() -> dict[str, dict[str, Any]]:
    """What is published in the golden cases whose events are written down."""
    file = {"id": "778899", "mime_type": "image/jpeg", "sha256": "q=", "caption": "the cat"}
    together = event(
        change(
            contacts=[contact("Bob", "4915550003"), contact()],
            messages=[
                message(number=20, context={"id": "wamid.out0001", "forwarded": True}),
                message(number=21, **{"from": "4915550003"}, group_id="120363"),
            ],
            statuses=[status("read", 2), failed(131056, 3), status("pondered", 4)],
            brand_new=[1],
        ),
        {"field": "message_template_status_update", "value": TEMPLATE},
        {"field": "tomorrow", "value": {"x": 1}},
        time=AT,
        messageId=SEND_ID,
    )
    hidden = event(
        change(
            contacts=[contact("Eve", None, user_id=USER)],
            messages=[message(number=30, **{"from": None}, from_user_id=USER)],
        )
    )
    listed = {"type": "list_reply", "list_reply": {"id": "t10", "title": "Ten", "description": "-"}}
    flow = {"name": "flow", "body": "Sent", "response_json": '{"rating": "4"}'}
    moved = {"type": "user_changed_number", "body": "A to B", "wa_id": "5511955550143"}
    edit = {"type": "image", "image": file, "context": {"id": "M0"}}
    echo = message(number=60, **{"from": OURS[1:]}, to=PERSON[1:], to_user_id=USER)
    wish = {"wa_id": PERSON[1:], "category": "marketing_messages", "value": "stop"}
    return {
        "text": said(),
        "image": said("image", 2, image=file),
        "voice": said("audio", 3, audio={"id": "aud", "mime_type": "audio/ogg; codecs=opus"})
        | {"context": {"MetaWabaIds": [], "MetaPhoneNumberIds": []}},
        "location": said(
            "location", 4, location={"latitude": -33.5, "longitude": 151, "name": "Q"}
        ),
        "contacts": said(
            "contacts",
            5,
            contacts=[{"name": {"formatted_name": "Ann B"}, "phones": [{"phone": "+1 555"}]}],
        ),
        "button": said("button", 6, button={"payload": "{yes", "text": "Yes"}),
        "list": said("interactive", 7, interactive=listed),
        "flow": said("interactive", 8, interactive={"type": "nfm_reply", "nfm_reply": flow}),
        "reaction": said("reaction", 9, reaction={"message_id": "wamid.out0001", "emoji": "👍"}),
        "reaction_taken_back": said("reaction", 10, reaction={"message_id": "wamid.out0001"}),
        "order": said(
            "order",
            11,
            order={
                "catalog_id": "c",
                "text": "soon",
                "product_items": [
                    {
                        "product_retailer_id": "p",
                        "quantity": 2,
                        "item_price": 3.5,
                        "currency": "BRL",
                    }
                ],
            },
        ),
        "changed_number": said("system", 12, system=moved),
        "deletion": said("revoke", 13, revoke={"original_message_id": "wamid.in0001"}),
        "edit": said("edit", 14, edit={"original_message_id": "wamid.in0002", "message": edit}),
        "unsupported": said("unsupported", 15, errors=[{"code": 131051, "title": "Unknown"}]),
        "type_of_tomorrow": said("hologram", 16, hologram={"depth": 3}),
        "advertisement": said(
            number=17, referral={"headline": "Shoes", "image_url": "https://x.example/1"}
        ),
        "user_id": hidden,
        "together": together,
        "status": happened(status(biz_opaque_callback_data=ATTEMPT)),
        "status_of_a_user_id": happened(
            status("sent", recipient_id=None, recipient_user_id=USER), send_id=None
        ),
        "deleted": happened(status("deleted")),
        "opted_out": happened(failed(131050)),
        "preference": event(change("user_preferences", user_preferences=[wish])),
        "echo": event(change("smb_message_echoes", message_echoes=[echo])),
        "template": event({"field": "message_template_status_update", "value": TEMPLATE}, time=AT),
        "quality": event(
            {
                "field": "phone_number_quality_update",
                "value": {"display_phone_number": OURS[1:], "event": "FLAGGED"},
            },
            time=AT,
        ),
        "fault": event(change(errors=[{"code": 0, "title": "We cannot"}]), time=AT),
        "unknown_field": event({"field": "brand_new_field", "value": {"something": [1]}}),
        "bridged": {
            "source": "aws.social-messaging",
            "detail-type": "WhatsApp Message Delivered",
            "detail": {"messageId": SEND_ID, "status": "delivered", "eventTimestamp": str(AT)},
        },
    }


def golden() -> dict[str, tuple[WebhookRequest, str]]:
    """The golden cases."""
    read = {name: request(notification(b, n)) for n, (name, b) in enumerate(bodies().items(), 1)}
    decoded = said(number=40)
    decoded["whatsAppWebhookEntry"] = json.loads(decoded["whatsAppWebhookEntry"])
    read["entry_is_no_text"] = request(notification(decoded, 70))
    malformed = {name: value for name, value in said().items() if name != "whatsAppWebhookEntry"}
    refused = {
        "refused_other_key": (request(notification(said(), 80), by=signer("another")), "403"),
        "refused_unsigned": (posted(laid_out(notification(said(), 81))), "401"),
    }
    return {
        **{name: (made, "events") for name, made in read.items()},
        "no_entry": (request(notification(malformed, 82)), "malformed"),
        **refused,
    }


if __name__ == "__main__":
    write("aws_whatsapp", golden())
