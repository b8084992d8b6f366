"""Runs the collected WhatsApp requests of AWS, where that collection lies beside the repository.

Each has the facts beside it, in the collection's words. Where the folder is absent this file is
not collected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gateway.domain import (
    Channel,
    Engagement,
    Event,
    InboundMessage,
    MessageType,
    Notice,
    Status,
    StatusUpdate,
    Unrecognised,
)
from gateway.errors import Malformed
from tests.sns_signing import Source
from tests.test_shared_fixtures_sns import ALL, Fixture, events_of
from webhooks._forms import storable

pytestmark = pytest.mark.anyio

# The collection's classes of failures, in ours.
CLASSES = {
    "throttled": "throttled",
    "transient": "unreachable",
    "window_closed": "rejected",
    "recipient": "rejected",
    "opted_out": "opted_out",
    "policy_retry_later": "rejected",
    "permanent": "rejected",
    "account": "account_refused",
}
TYPES = {"voice": MessageType.AUDIO, "request_welcome": MessageType.SYSTEM}
CHOICES = {"list_reply": "list", "button_reply": "button", "nfm_reply": "flow", "button": "button"}
NOBODY = "wa-courier-no-from"  # there is nobody to talk with: docs/decisions.md
# Its only contact is another number than the sender, so that one's user id is not the sender's.
ANOTHER = "wa-edited-message-image"

HERE = [f for f in ALL if f.name.startswith("wa-") or f.name.startswith("misc-eventbridge-whats")]
READABLE = [f for f in HERE if not f.expected.get("poison")]


@pytest.mark.parametrize("fixture", READABLE, ids=lambda f: f.name)
async def test_a_collected_entry_has_its_facts(fixture: Fixture) -> None:
    events = await events_of(fixture, Source(dict(fixture.pages)))
    for event, facts in zip(events, fixture.expected["events"], strict=True):
        assert facts["channel"] == "whatsapp"
        if fixture.name == NOBODY:
            assert isinstance(event, Unrecognised)
        elif facts["kind"] in ("message", "reaction", "edit", "system"):
            same_message(event, facts)
            users = {facts.get("from_user_id")} - {None}
            assert isinstance(event, InboundMessage)
            if fixture.name != ANOTHER:
                assert users <= {event.from_address, *event.aliases}
        else:
            OTHERS[facts["kind"]](event, facts)


@pytest.mark.parametrize(
    "fixture", [f for f in HERE if f.expected.get("poison")], ids=lambda f: f.name
)
async def test_a_collected_event_without_its_entry_is_kept_as_malformed(fixture: Fixture) -> None:
    with pytest.raises(Malformed):
        await events_of(fixture, Source(dict(fixture.pages)))


def number(said: str | None) -> str | None:
    """A number as we write it; anything else as it is."""
    digits = "".join(c for c in said or "" if c.isdigit())
    return f"+{digits}" if said and not said.strip("+ 0123456789") else said


def same_message(event: Event, facts: Mapping[str, Any]) -> None:
    """What a person said."""
    assert isinstance(event, InboundMessage)
    assert event.provider_message_id == facts["provider_message_id"]
    assert event.from_address == number(facts.get("from") or facts["from_user_id"])
    assert event.to_address == number(facts["to"])
    assert event.name == (storable(facts["profile_name"]) if "profile_name" in facts else None)
    assert event.body == storable(facts.get("text", facts.get("emoji", "")))
    assert event.type == (TYPES.get(facts["type"]) or MessageType(facts["type"]))
    assert event.occurred_at is not None
    assert int(event.occurred_at.timestamp()) == facts["timestamp"]
    content = event.content
    if facts["kind"] == "reaction":
        assert event.reply_to == facts["target"]
    else:
        assert event.reply_to == facts.get("reply_to")
    assert content.get("target") == facts.get("target")
    assert bool(content.get("removed")) == facts.get("removed", False)
    assert bool(content.get("forwarded")) == facts.get("forwarded", False)
    assert content.get("errors") == facts.get("errors")
    same_files(event, facts)
    same_structure(content, facts)
    if facts["kind"] == "system":
        assert content["kind"] == facts["system"]
        assert event.new_address == number(facts.get("new_wa_id"))


def same_files(event: InboundMessage, facts: Mapping[str, Any]) -> None:
    """The files of a message."""
    for file, known in zip(event.media, facts.get("media", []), strict=True):
        pool, _, id_ = file.reference.rpartition("/")
        assert (pool, id_) == (event.pool, known["id"])
        assert pool.startswith("phone-number-id-")
        assert file.fetchable
        assert file.content_type == known["mime_type"]
        assert event.content.get("voice", False) == known.get("voice", False)
        assert event.content.get("animated", False) == known.get("animated", False)
        assert file.filename == known.get("filename")


def same_structure(content: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """What a message holds beside its text."""
    if place := facts.get("location"):
        assert {name: content.get(name) for name in place} == place
    if order := facts.get("order"):
        assert content["order"] == order
    if choice := facts.get("interactive"):
        assert content["kind"] == CHOICES[choice["kind"]]
        assert content.get("id") == choice.get("id", choice.get("payload"))
        assert content.get("description") == choice.get("description")
        assert (content.get("name"), content.get("data")) == (
            choice.get("name"),
            choice.get("data"),
        )


def same_status(event: Event, facts: Mapping[str, Any]) -> None:
    """What became of a message of ours."""
    if facts["status"] in ("unknown", "deleted"):
        assert isinstance(event, (Unrecognised, Engagement))
        assert facts["raw_status"] in event.kind
        return
    assert isinstance(event, StatusUpdate)
    assert (event.status, event.vendor_status) == (facts["status"], facts["raw_status"])
    ids = {facts.get("provider_message_id"), facts["aws_message_id"]} - {None}
    assert {event.network_id, event.provider_message_id} - {None} <= ids
    assert (event.network_id or event.provider_message_id) in ids
    if "recipient" in facts:
        assert event.recipient == number(facts["recipient"])
    if "timestamp" in facts:
        assert event.occurred_at is not None
        assert int(event.occurred_at.timestamp()) == facts["timestamp"]
    assert event.attempt_id is None
    if event.status is Status.FAILED:
        assert event.error is not None
        told = facts["errors"][0]
        assert event.error.code == str(told["code"])
        assert event.error.message == (told.get("details") or told.get("message") or told["title"])
        assert event.error.reason == CLASSES[facts["failure_class"]]


def same_echo(event: Event, facts: Mapping[str, Any]) -> None:
    """What we said ourselves."""
    assert isinstance(event, InboundMessage)
    assert event.echo
    assert event.provider_message_id == facts["provider_message_id"]
    assert (event.from_address, event.to_address) == (facts["from"], facts["to"])
    assert event.type == facts["type"]


def same_template(event: Event, facts: Mapping[str, Any]) -> None:
    """What became of a template."""
    assert isinstance(event, Notice)
    template = event.content["template"]
    assert (template["name"], template["language"]) == (facts["template"], facts["language"])
    assert template["status"] == facts["event"].lower()
    assert template["reason"] == facts["reason"]


def same_fault(event: Event, facts: Mapping[str, Any]) -> None:
    """An error that is about no message."""
    assert isinstance(event, Notice)
    assert event.content["errors"] == facts["errors"]


def unhandled(event: Event, facts: Mapping[str, Any]) -> None:
    """What nobody knows is kept."""
    assert isinstance(event, Unrecognised)
    assert event.kind == f"{Channel.WHATSAPP}:{facts['field']}"


OTHERS = {
    "status": same_status,
    "echo": same_echo,
    "template_status": same_template,
    "error": same_fault,
    "unhandled": unhandled,
}
