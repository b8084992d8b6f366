"""Runs the collected events about email, where that collection lies beside the repository. Where
the folder is absent this file is not collected."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Engagement, Notice, Status, StatusUpdate, WebhookRequest
from gateway.errors import Malformed, SignatureInvalid
from tests.sns_signing import Source, hook
from tests.test_shared_fixtures_sns import ALL, TOPICS
from webhooks.sendgrid import SendgridWebhook

pytestmark = pytest.mark.anyio

FOLDER = Path(__file__).parents[2] / "shared" / "wire" / "fixtures" / "twilio-sendgrid" / "cases"
WORDS = {
    Status.SENT: "sent", Status.BOUNCED: "bounced", Status.DELIVERED: "delivered",
    Status.FAILED: "rejected",
}  # fmt: skip
CLASSES = {"recipient": "rejected", "transient": "unreachable", "permanent": "rejected"}
KINDS = {
    Status.ACCEPTED: "accepted", Status.DELIVERED: "delivered", Status.BOUNCED: "bounced",
    Status.FAILED: "failed", Status.UNDELIVERED: "bounced",
}  # fmt: skip
DONE = {"delayed": "deferred"}
SES = [
    f for f in ALL
    if f.verdict == "accept" and any(e.get("channel") == "email" for e in f.expected["events"])
    and all(e["kind"] == "status" for e in f.expected["events"])
]  # fmt: skip


@pytest.mark.parametrize("fixture", SES, ids=lambda f: f.name)
async def test_what_ses_told_has_its_facts(fixture: Any) -> None:
    webhook = hook(Source(dict(fixture.pages)), ",".join(TOPICS))
    events = list(webhook.parse(await webhook.verify(fixture.request)))
    (facts,) = fixture.expected["events"]
    said = [e for e in events if not (isinstance(e, Engagement) and e.kind == "bounced")]
    assert {e.recipient for e in said} == set(facts["recipients"])  # type: ignore[union-attr]
    for each in said:
        assert isinstance(each, StatusUpdate | Engagement)
        assert each.provider_message_id == facts.get("provider_message_id")
        word = WORDS[each.status] if isinstance(each, StatusUpdate) else each.kind
        assert word == facts["status"]
        if isinstance(each, StatusUpdate) and each.error and facts.get("failure_class"):
            assert each.error.reason == CLASSES[facts["failure_class"]]
        if "link" in facts:
            assert isinstance(each, Engagement)
            assert each.content["link"] == facts["link"]


def read(path: Path) -> tuple[WebhookRequest, dict[str, Any], str]:
    data = json.loads(path.read_text())
    stamp = {k.lower(): v for k, v in data["headers"].items()}.get(
        "x-twilio-email-event-webhook-timestamp", ""
    )
    at = datetime.fromtimestamp(int(stamp), UTC) if stamp.isdigit() else datetime.now(UTC)
    request = WebhookRequest(
        method="POST",
        url=data["url"],
        headers={name.lower(): value for name, value in data["headers"].items()},
        body=path.with_suffix(".body").read_bytes(),
        received_at=at,
    )
    return request, data["expected"], data["signature"]["public_key"]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*sg_ev*.json")), ids=lambda p: p.stem)
async def test_what_sendgrid_told_has_its_facts(path: Path) -> None:
    request, expected, public = read(path)
    webhook = SendgridWebhook(SendgridWebhook.Settings(public_key=public))
    if path.stem.startswith("neg_") and "stale" not in path.stem:
        with pytest.raises(SignatureInvalid):
            await webhook.verify(request)
        return
    verified = await webhook.verify(request)
    if expected["kind"] != "email_events":
        with pytest.raises(Malformed):
            webhook.parse(verified)
        return
    events = [
        e for e in webhook.parse(verified)
        if not (isinstance(e, Engagement) and (e.kind == "bounced" or e.earlier))
    ]  # fmt: skip
    for each, facts in zip(events, expected["events"], strict=True):
        if facts["type"] is None or isinstance(each, Notice):
            continue
        assert isinstance(each, StatusUpdate | Engagement)
        kind = KINDS[each.status] if isinstance(each, StatusUpdate) else each.kind
        assert DONE.get(kind, kind) == facts["type"]
        assert each.provider_message_id == facts["x_message_id"]
        assert each.occurred_at is not None
        assert int(each.occurred_at.timestamp()) == facts["timestamp"]
        if "@" in (facts["email"] or "") and facts["email"].islower():
            assert each.recipient == facts["email"]
