"""Runs the collected emails that came in, where that collection lies beside the repository. Where
the folder is absent this file is not collected."""

from __future__ import annotations

import asyncio
from email.utils import parseaddr
from typing import Any

import pytest

from gateway import letters
from gateway.domain import Event, InboundMessage, KeptFile, Mail
from gateway.mail_program import Programs
from tests.sns_signing import Source, hook
from tests.test_shared_fixtures_sns import ALL, TOPICS

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
