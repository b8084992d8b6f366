"""Runs the collected SNS requests, where that collection lies beside the repository.

Some were really signed by AWS. The clock stands where each was valid, and the certificate comes
from the collection: nothing else may be asked for. Where the folder is absent this file is not
collected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import (
    Event,
    Handshake,
    InboundMessage,
    Status,
    StatusUpdate,
    Unrecognised,
    WebhookRequest,
)
from gateway.errors import CannotVerifyNow, SignatureInvalid
from tests.sns_signing import Source, hook
from webhooks._sns_sms_tables import RESPONSES

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[2] / "shared" / "wire" / "fixtures" / "aws"
TOPICS = (
    "arn:aws:sns:us-east-1:123456789012:gateway-inbound",
    "arn:aws:sns:af-south-1:123456789012:gateway-inbound",
    "arn:aws:sns:us-west-2:131990247566:dongie-standard-topic",
    "arn:aws:sns:us-east-1:364852123998:test-email",
    "arn:aws:sns:us-west-2:123456789012:MyTopic",
    "arn:aws:sns:us-east-1:000000000000:probe",
)
# The collection's classes of failures, in ours.
CLASSES = {
    "transient": {"unreachable"},
    "permanent": {"rejected"},
    "recipient": {"rejected"},
    "opted_out": {"opted_out"},
    "account": {"account_refused"},
    "expired": {"unreachable"},
    "unknown": {"ambiguous", None},
}


@dataclass(frozen=True)
class Fixture:
    """A collected request and what is known of it."""

    name: str
    request: WebhookRequest
    pages: Mapping[str, bytes]
    expected: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """What must come of it."""
        return str(self.expected["verdict"])


def read(path: Path) -> Fixture:
    """One collected request."""
    data = json.loads(path.read_text())
    sns = data["sns"]
    request = WebhookRequest(
        method=data["method"],
        url=f"https://gateway.example.com{data['path']}",
        headers={name.lower(): value for name, value in data["headers"].items()},
        body=path.with_suffix(".body").read_bytes(),
        received_at=datetime.fromisoformat(sns["verify_at"]),
    )
    served = sns.get("cert") and (FOLDER / sns["cert"]).read_bytes()
    pages = {sns["signing_cert_url"]: served} if served else {}
    return Fixture(path.stem, request, pages, data["expected"])


ALL = [read(path) for path in sorted((FOLDER / "cases").glob("*.json"))]
READ_HERE = [f for f in ALL if f.name.startswith(("sns-", "sms-", "misc-"))]
BEFORE = (
    "bad_cert_url",
    "bad_envelope",
    "bad_signature_version",
    "bad_subscribe_url",
    "bad_type",
    "raw_delivery_unsigned",
    "stale",
    "topic_not_allowed",
)
# Fetching nothing proves nothing, so what no key is known for can only be put off.
KEYLESS = "sns-docs-notification"


def only(*verdicts: str) -> pytest.MarkDecorator:
    """Runs a test on the requests of some verdicts."""
    chosen = [f for f in READ_HERE if f.verdict in verdicts]
    return pytest.mark.parametrize("fixture", chosen, ids=lambda f: f.name)


async def events_of(fixture: Fixture, source: Source) -> list[Event]:
    """What a request becomes."""
    webhook = hook(source, ",".join(TOPICS))
    return list(webhook.parse(await webhook.verify(fixture.request)))


@pytest.mark.parametrize("fixture", ALL, ids=lambda f: f.name)
async def test_a_collected_request_is_believed_exactly_if_it_should_be(fixture: Fixture) -> None:
    source = Source(dict(fixture.pages))
    webhook = hook(source, ",".join(TOPICS))
    if fixture.verdict in ("accept", "confirm", "duplicate", "ignore"):
        assert (await webhook.verify(fixture.request)).key
    elif fixture.verdict == "reject":
        with pytest.raises((SignatureInvalid, CannotVerifyNow)) as caught:
            await webhook.verify(fixture.request)
        assert isinstance(caught.value, SignatureInvalid) or fixture.name == KEYLESS
        if fixture.expected["reason"] in BEFORE:
            assert source.asked == []
    assert len(source.asked) <= 1
    if fixture.pages:
        assert set(source.asked) <= set(fixture.pages)


def test_the_collection_has_what_aws_itself_signed() -> None:
    real = [f for f in ALL if f.name.startswith("sns-aws-real")]
    assert len(real) >= 5
    assert all(f.verdict in ("accept", "confirm") for f in real)


@only("accept", "accept_or_reject", "duplicate")
async def test_a_collected_message_has_its_facts(fixture: Fixture) -> None:
    try:
        events = await events_of(fixture, Source(dict(fixture.pages)))
    except SignatureInvalid:
        assert fixture.verdict == "accept_or_reject"
        return
    wanted = fixture.expected["events"]
    if fixture.expected.get("optional") or any(e.get("channel") == "email" for e in wanted):
        return  # of a kind that is read elsewhere
    if not wanted:
        assert [type(event) for event in events] == [Unrecognised]
    for event, facts in zip(events, wanted, strict=bool(wanted)):
        if facts["kind"] == "message":
            same_message(event, facts)
        else:
            same_status(event, facts)


def same_message(event: Event, facts: Mapping[str, Any]) -> None:
    """An inbound message, in the collection's words."""
    assert isinstance(event, InboundMessage)
    assert event.channel == facts["channel"]
    assert (event.from_address, event.to_address) == (facts["from"], facts["to"])
    assert event.body == facts["text"]
    assert event.provider_message_id == facts["provider_message_id"]
    assert event.content.get("keyword") == facts.get("keyword")
    assert event.reply_to == facts.get("in_reply_to")


def same_status(event: Event, facts: Mapping[str, Any]) -> None:
    """The fate of a message, in the collection's words."""
    assert isinstance(event, StatusUpdate)
    assert (event.status, event.vendor_status) == (facts["status"], facts["raw_status"])
    assert (event.sender, event.recipient) == (facts.get("from"), facts["to"])
    assert event.provider_message_id == facts["provider_message_id"]
    assert event.channel == facts["channel"]
    assert event.segments == facts.get("parts")
    assert event.cost is not None
    assert float(event.cost.amount) >= facts["price_usd"]
    stamp = facts.get("event_timestamp_raw")
    if stamp is not None:
        assert event.occurred_at is not None
        assert int(event.occurred_at.timestamp() * (1000 if stamp > 10**11 else 1)) == stamp
    if event.status is Status.FAILED:
        assert event.error is not None
        assert event.error.message == facts["description"]
        known = CLASSES[facts["failure_class"]] if "failure_class" in facts else {None}
        assert event.error.reason in known | {RESPONSES.get(facts["description"])}


@only("confirm")
async def test_a_collected_confirmation_is_asked_for_and_not_yet_made(fixture: Fixture) -> None:
    source = Source(dict(fixture.pages))
    (event,) = await events_of(fixture, source)
    assert isinstance(event, Handshake)
    wanted = fixture.expected["confirm"]
    assert event.content["topic_arn"] == wanted["topic_arn"]
    assert event.content["token"] == wanted["token"]
    assert source.asked == list(fixture.pages)
