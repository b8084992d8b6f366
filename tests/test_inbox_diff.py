"""`gateway inbox replay --diff`: what this version would read in another way, and nothing done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import Desk
from tests.running import Client, inbound_form, sid, twilio, variables
from tests.stored import Store
from tests.vendors import LoopbackVendor

DIFF = ("inbox", "replay", "--diff", "--state", "all")
CALM = "read again, 0 in another way than they are stored.\n"


@pytest.fixture
def desk(url: str, tmp_path: Path, vendor: LoopbackVendor) -> Desk:
    """A shell with the settings of the gateway under test."""
    return Desk(tmp_path, variables(tmp_path, url, **twilio(vendor.url)))


def come(client: Client) -> tuple[str, str]:
    """A message with a file, and what became of one of ours; the ids of their requests."""
    form = inbound_form(sid(1, "MM"), "hello", NumMedia="1", MediaContentType0="image/png")
    form["MediaUrl0"] = "https://files.example/x"
    assert client.webhook("/api/webhooks/sms", form).ok
    sent = client.send(channel="sms", to="+15551230001", body="hi")
    done = client.until(sent["id"], "accepted", "sent", "delivered")
    told = {"MessageSid": done["provider_message_id"], "MessageStatus": "sent"}
    told |= {"To": "+15551230001", "From": done["from"], "AccountSid": form["AccountSid"]}
    assert client.webhook("/api/webhooks/sms", told).ok
    return done["id"], done["provider_message_id"]


def test_what_is_read_as_it_is_stored_is_no_difference(
    client: Client, desk: Desk, store: Store
) -> None:
    come(client)
    done = desk.run(*DIFF)
    assert done.out == f"2 {CALM}"
    assert (done.code, done.err) == (0, "")
    done = desk.run("inbox", "replay", "--diff", "--since", "1h", "--json")
    assert (done.code, done.out, done.err) == (0, "", "")
    assert desk.run("inbox", "replay", "--state", "all").code == 0
    assert desk.run(*DIFF).out == f"2 {CALM}"


def test_each_is_replayed_once_whatever_becomes_of_its_state(
    client: Client, desk: Desk, store: Store
) -> None:
    come(client)
    store.change("UPDATE inbox SET body = ?", b"")
    done = desk.run("inbox", "replay", "--state", "all")
    assert [line.split()[1:4] for line in done.out.splitlines()] == [
        ["parsed", "->", "malformed"]
    ] * 2


def test_a_difference_is_shown_by_field_and_changes_nothing(
    client: Client, desk: Desk, store: Store
) -> None:
    come(client)
    store.change("UPDATE messages SET body = ? WHERE direction = 'inbound'", "\x1b[2J [red]was[/]")
    store.change("UPDATE receipts SET vendor_status = 'posted'")
    store.change("UPDATE media SET declared_type = 'image/gif'")
    before = [store.rows(f"SELECT * FROM {name}") for name in ("inbox", "messages", "receipts")]
    done = desk.run(*DIFF)
    assert (done.code, done.err) == (1, "")
    assert "\x1b" not in done.out
    lines = [line.strip() for line in done.out.splitlines()]
    at = next(n for n, line in enumerate(lines) if line.endswith(": body"))
    assert lines[at + 1 : at + 3] == [r'- "\u001b[2J [red]was[/]"', '+ "hello"']
    assert lines[lines.index('- "posted"') :][:2] == ['- "posted"', '+ "sent"']
    assert lines[-1] == "2 read again, 2 in another way than they are stored."
    after = [store.rows(f"SELECT * FROM {name}") for name in ("inbox", "messages", "receipts")]
    assert before == after


def test_programs_get_a_line_of_json_for_each_request_that_differs(
    client: Client, desk: Desk, store: Store
) -> None:
    come(client)
    store.change("UPDATE inbox SET state = 'malformed', detail = 'old'")
    store.change("UPDATE receipts SET dedupe_key = 'other'")
    ids = [row.id for row in store.rows("SELECT id FROM inbox ORDER BY id")]
    done = desk.run("inbox", "replay", "--diff", *ids, "--json")
    assert done.code == 1
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert (first["id"], first["webhook"]) == (ids[0], "twilio")
    changed = {(one["field"]): (one["stored"], one["today"]) for one in first["differences"]}
    assert changed == {"state": ("malformed", "parsed"), "detail": ("old", None)}
    (new,) = (one for one in second["differences"] if one["subject"] == "status")
    assert (new["field"], new["stored"], new["today"]["status"]) == (None, None, "sent")


def test_what_another_request_said_first_is_compared_by_its_presence_alone(
    client: Client, desk: Desk, store: Store
) -> None:
    come(client)
    store.change("UPDATE messages SET body = 'x', created_at = created_at - 60000")
    store.change("UPDATE receipts SET vendor_status = 'x', inbox_id = 'inb_other'")
    assert desk.run(*DIFF).code == 0


def test_what_cannot_be_asked_for_is_wrong_usage_or_told(desk: Desk) -> None:
    assert desk.run("inbox", "replay", "--diff").code == 2
    assert desk.run("inbox", "replay", "inb_1", "--json").code == 2
    assert desk.run("inbox", "replay", "inb_1", "--since", "1h").code == 2
    missing = desk.run("inbox", "replay", "--diff", "inb_missing")
    assert (missing.code, missing.out) == (1, "")
    assert "there is no inb_missing" in missing.err
