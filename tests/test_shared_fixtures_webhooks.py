"""Runs the collected Twilio requests, where that collection lies beside the repository.

Each has the facts beside it. Where the folder is absent this file is not collected
(`conftest.py`), and the golden cases of this repository stand alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import (
    Channel,
    Event,
    InboundMessage,
    MessageType,
    Status,
    StatusUpdate,
    Unrecognised,
    WebhookRequest,
)
from gateway.errors import Malformed, SignatureInvalid
from tests.webhook_cases import events_of
from webhooks.twilio import TwilioWebhook, TwilioWebhookSettings

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[2] / "shared" / "wire" / "fixtures" / "twilio-sendgrid" / "cases"
FAMILIES = ("sms", "mms", "wa", "rcs", "form", "status", "seq", "voice", "sig", "neg")
# The collection calls for a 400; ours keeps what is signed and cannot be read, and answers 2xx.
UNREADABLE = ("form_empty_body", "sms_no_params")


@dataclass(frozen=True)
class Fixture:
    """A collected request and what is known of it."""

    name: str
    token: str
    request: WebhookRequest
    valid: bool
    expected: Mapping[str, Any]


def collected() -> list[Fixture]:
    """The requests of the families that are Twilio's."""
    paths = sorted(FOLDER.glob("*.json"))
    chosen = [p for p in paths if p.stem.split("_")[0] in FAMILIES and "neg_sg" not in p.stem]
    return [read(path) for path in chosen]


def read(path: Path) -> Fixture:
    """One collected request."""
    data = json.loads(path.read_text())
    request = WebhookRequest(
        method=data["method"],
        url=data["url"],
        headers={name.lower(): value for name, value in data["headers"].items()},
        body=path.with_suffix(".body").read_bytes(),
        received_at=datetime.now(UTC),
    )
    signature = data["signature"]
    return Fixture(
        path.stem, signature["auth_token"], request, signature["expected_valid"], data["expected"]
    )


ALL = collected()


def only(kind: str) -> pytest.MarkDecorator:
    """Runs a test on the requests of one kind."""
    chosen = [f for f in ALL if f.valid and f.expected["kind"] == kind]
    return pytest.mark.parametrize("fixture", chosen, ids=lambda f: f.name)


def webhook(fixture: Fixture) -> TwilioWebhook:
    """The webhook of the account that signed it."""
    variables = {"TWILIO_AUTH_TOKEN": fixture.token}
    return TwilioWebhook(TwilioWebhookSettings.model_validate(variables))


async def event_of(fixture: Fixture) -> Event:
    """The one event of a request."""
    (event,) = await events_of(webhook(fixture), fixture.request)
    return event


@pytest.mark.parametrize("fixture", ALL, ids=lambda f: f.name)
async def test_a_collected_request_is_believed_exactly_if_it_is_signed(fixture: Fixture) -> None:
    if fixture.valid:
        assert (await webhook(fixture).verify(fixture.request)).key
        return
    with pytest.raises(SignatureInvalid) as caught:
        await webhook(fixture).verify(fixture.request)
    unsigned = "x-twilio-signature" not in fixture.request.headers
    assert caught.value.http_status == (401 if unsigned else 403)


@only("inbound_message")
async def test_a_collected_message_has_its_facts(fixture: Fixture) -> None:
    event, facts = await event_of(fixture), fixture.expected
    assert isinstance(event, InboundMessage)
    assert event.channel == {"mms": Channel.SMS}.get(facts["channel"], facts["channel"])
    assert (event.from_address, event.to_address) == (facts["from"], facts["to"])
    assert event.body == facts["text"]
    ids = facts["provider_ids"]
    found = (event.provider_message_id, event.account, event.pool)
    assert found == (ids["message_sid"], ids["account_sid"], ids["messaging_service_sid"])
    assert event.dedupe_key == f"in:{ids['message_sid']}"
    assert event.segments == (int(facts["num_segments"]) if "num_segments" in facts else None)


@only("inbound_message")
async def test_a_collected_message_has_its_files(fixture: Fixture) -> None:
    event = await event_of(fixture)
    assert isinstance(event, InboundMessage)
    wanted = fixture.expected["media"]
    assert len(event.media) == len(wanted)
    for file, known in zip(event.media, wanted, strict=True):
        assert file.content_type == known["content_type"]
        if not file.fetchable:
            assert file.reference == known["url"]
            continue
        account, message, media = file.reference.split("/")
        path = f"/2010-04-01/Accounts/{account}/Messages/{message}/Media/{media}"
        assert known["url"] == f"https://api.twilio.com{path}"
    if fixture.expected.get("media_trusted") is False:
        assert not any(file.fetchable for file in event.media)


@only("inbound_message")
async def test_a_collected_message_has_its_structure(fixture: Fixture) -> None:
    event, facts = await event_of(fixture), fixture.expected
    assert isinstance(event, InboundMessage)
    content = event.content
    assert event.name == facts.get("profile_name")
    assert event.reply_to == (facts.get("reply_to") or {}).get("message_sid")
    assert content.get("opt_out") == facts.get("opt_out")
    assert content.get("opt_out_type") == facts.get("opt_out_type")
    assert content.get("addons") == facts.get("addons")
    assert content.get("channel_metadata") == facts.get("channel_metadata")
    assert content.get("decoded") == facts.get("text_decoded_optional")
    assert chosen(content) == (facts.get("button") or facts.get("list"))
    if "message_type" in facts:
        assert event.type == MessageType(facts["message_type"])
    if place := facts.get("location"):
        assert place == {
            "latitude": content["latitude"],
            "longitude": content["longitude"],
            "label": content["name"],
            "address": content["address"],
        }
        assert event.type is MessageType.LOCATION
    if event.type is MessageType.REACTION:
        target = (facts.get("reply_to") or {}).get("message_sid")
        assert (content["target"], content["emoji"]) == (target, facts["text"])
    if facts.get("from_type") == "bsuid":
        assert "." in event.from_address
    referral = facts.get("referral") or {}
    assert sorted(content.get("referral", {}).values()) == sorted(referral.values())
    assert aliases(facts) == set(event.aliases)


def chosen(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the person pressed, in the collection's words."""
    if content.get("kind") == "button":
        return {"text": content["title"], "payload": content["id"]}
    if content.get("kind") == "list":
        return {"id": content["id"], "title": content["title"]}
    return None


def aliases(facts: Mapping[str, Any]) -> set[str]:
    """The person's other addresses: what is no user id is none."""
    user = str(facts.get("external_user_id", "")).removeprefix("whatsapp:")
    number = f"+{facts['wa_id']}" if "wa_id" in facts else ""
    return {user if "." in user else "", number} - {"", facts["from"]}


@only("message_status")
async def test_a_collected_callback_has_its_facts(fixture: Fixture) -> None:
    event, facts = await event_of(fixture), fixture.expected
    if facts["status"] is None:
        assert isinstance(event, Unrecognised)
        assert event.kind == f"status:{facts['unknown_status']}"
        return
    assert isinstance(event, StatusUpdate)
    assert event.vendor_status == facts["status"]
    assert event.channel == facts["channel"]
    assert (event.sender, event.recipient) == (facts["from"], facts["to"])
    assert event.provider_message_id == facts["provider_ids"]["message_sid"]
    assert event.account == facts["provider_ids"]["account_sid"]
    final = (Status.DELIVERED, Status.READ, Status.UNDELIVERED, Status.FAILED)
    assert (event.status in final) == facts["is_final"]
    assert event.occurred_at is None
    assert error_of(event) == error_in(facts)
    if "price" in facts:
        assert event.cost is not None
        assert (f"-{event.cost.amount}", event.cost.currency) == (
            facts["price"],
            facts["price_unit"],
        )


def error_of(event: StatusUpdate) -> tuple[str, str | None] | None:
    """Twilio's code and words; a code that is Twilio's word for the status is ours."""
    error = event.error
    return (error.code, error.message) if error and error.code.isdigit() else None


def error_in(facts: Mapping[str, Any]) -> tuple[str, str | None] | None:
    """The same, as the collection has it."""
    error = facts["error"]
    return (str(error["code"]), error["message"]) if error else None


@only("reject")
async def test_a_collected_request_with_nothing_in_it_is_kept_as_malformed(
    fixture: Fixture,
) -> None:
    assert fixture.name in UNREADABLE
    verified = await webhook(fixture).verify(fixture.request)
    with pytest.raises(Malformed):
        webhook(fixture).parse(verified)


@pytest.mark.parametrize("kind", ["call_inbound", "call_status", "ignore"])
async def test_collected_calls_are_of_an_unknown_kind(kind: str) -> None:
    for fixture in [f for f in ALL if f.valid and f.expected["kind"] == kind]:
        event = await event_of(fixture)
        assert isinstance(event, Unrecognised)
        assert event.kind.startswith("call")
