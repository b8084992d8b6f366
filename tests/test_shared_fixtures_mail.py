"""Runs the collected emails that came in, where that collection lies beside the repository. Where
the folder is absent this file is not collected."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from email.utils import parseaddr
from pathlib import Path
from typing import Any

import pytest

from gateway import letters
from gateway.domain import Event, InboundMessage, KeptFile, Mail, WebhookRequest
from gateway.mail_program import Programs
from tests.mail_forms import SECRET, URL
from tests.sns_signing import Source, hook
from tests.test_shared_fixtures_email import FOLDER
from tests.test_shared_fixtures_sns import ALL, TOPICS
from webhooks.sendgrid import TIMESTAMP
from webhooks.sendgrid_inbound import SendgridInboundWebhook

RECEIVED = [
    f for f in ALL
    if any(e["kind"] == "message" and e.get("channel") == "email" for e in f.expected["events"])
]  # fmt: skip


def read(events: list[Event]) -> list[InboundMessage]:
    """The messages of emails, as their program reads them."""
    programs = Programs(seconds=60)
    try:
        found = []
        for mail in events:
            assert isinstance(mail, Mail)
            said = asyncio.run(programs.read(mail))
            files = [
                (f, KeptFile(id="med_1", content_type=f.kind, size=len(f.data), sha256=""))
                for f in letters.enclosed(said)
            ]
            found += [letters.message(mail, said, to, files) for to in letters.recipients(said)]
        return found
    finally:
        programs.close()


def test_there_are_emails_in_the_collection() -> None:
    assert len([f for f in RECEIVED if f.name.startswith("ses-in")]) == 2
    assert len(PARSED) == 10


@pytest.mark.parametrize("fixture", RECEIVED, ids=lambda f: f.name)
def test_an_email_that_ses_received_has_its_facts(fixture: Any) -> None:
    webhook = hook(Source(dict(fixture.pages)), ",".join(TOPICS))
    verified = asyncio.run(webhook.verify(fixture.request))
    messages = read(list(webhook.parse(verified)))
    (facts,) = fixture.expected["events"]
    assert [one.to_address for one in messages] == facts["to"]
    one = messages[0]
    assert one.provider_message_id == facts["provider_message_id"]
    told = {
        "rfc_message_id": one.email.get("message_id"),
        "envelope_from": one.email["envelope_from"],
        "from": one.from_address,
        "subject": one.subject,
    }
    known = {name: facts[name] for name in told.keys() & facts.keys()}
    if "from" in known:
        known["from"] = parseaddr(known["from"])[1]
    assert {name: told[name] for name in known} == known
    verdicts = {name: one.email[name].upper() for name in facts["verdicts"]}
    assert verdicts == facts["verdicts"]
    assert one.body.replace("\r\n", "\n").strip() == facts["text"].replace("\r\n", "\n").strip()
    assert (one.html is not None) == facts["has_html"]
    assert [file.filename for file in one.media] == facts.get("attachments", [])


PARSED = sorted(FOLDER.glob("ip_*.json"))


@pytest.mark.parametrize("path", PARSED, ids=lambda p: p.stem)
def test_an_email_that_inbound_parse_posted_has_its_facts(path: Path) -> None:
    data = json.loads(path.read_text())
    facts, proof = data["expected"], data["signature"]
    headers = {name.lower(): value for name, value in data["headers"].items()}
    stamp = headers.get(TIMESTAMP)
    request = WebhookRequest(
        method="POST",
        url=URL,
        headers=headers,
        body=path.with_suffix(".body").read_bytes(),
        received_at=datetime.fromtimestamp(int(stamp), UTC) if stamp else datetime.now(UTC),
    )
    given = {"SENDGRID_INBOUND_SECRET": SECRET}
    if proof is not None:
        given["SENDGRID_INBOUND_PUBLIC_KEY"] = proof["public_key"]
    webhook = SendgridInboundWebhook(SendgridInboundWebhook.Settings.model_validate(given))
    one, *others = read(list(webhook.parse(asyncio.run(webhook.verify(request)))))
    assert not others
    person = parseaddr(facts["from"] or "")
    assert (one.name or "", one.from_address) == person
    people = (facts["envelope"] or {}).get("to") or [parseaddr(facts["to"] or "")[1] or None]
    assert [one.to_address] == people
    assert one.subject == (facts["subject"] or "")
    assert one.body.strip() == (facts["text"] or "").strip()
    assert (one.html is not None) == facts["html_present"]
    assert one.email.get("envelope_from") == (facts["envelope"] or {}).get("from")
    assert one.email.get("spf") == ((facts["spf"] or "").strip() or None)
    assert one.email.get("sender_ip") == facts["sender_ip"]
    score = facts["spam_score"]
    assert one.email.get("spam_score") == (str(score) if score is not None else None)
    assert one.email.get("message_id") == facts["message_id"]
    assert one.content.get("automatic", False) == facts.get("auto_generated", False)
    found = [(file.content_type, file.kept.size) for file in one.media if file.kept]
    assert found == [(f["content_type"], f["size"]) for f in facts["attachments"]]
    for file, known in zip(one.media, facts["attachments"], strict=True):
        assert file.filename
        assert not set(file.filename) & set("/\\\0")
        if known["filename"].replace(".", "").isalnum():
            assert file.filename == known["filename"]
