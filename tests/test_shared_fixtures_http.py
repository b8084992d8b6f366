"""Collected webhooks through the front door: posted over HTTP, seen through the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COLLECTED
from tests.databases import sqlite_copy
from tests.running import Client, in_thread, variables

CASES = COLLECTED / "twilio-sendgrid" / "cases"
FAMILIES = ("sms_", "mms_", "wa_", "rcs_")


def inbound_cases() -> list[Path]:
    """The messages that people sent, to this gateway's address."""
    found = []
    for path in sorted(CASES.glob("*.json")):
        case = json.loads(path.read_text())
        ours = str(case["url"]).startswith("https://gateway.example.com/api/")
        said = case["expected"]["kind"] == "inbound_message"
        if path.name.startswith(FAMILIES) and ours and said:
            found.append(path)
    return found


@pytest.fixture
def client(tmp_path: Path, sqlite_file: Path) -> Iterator[Client]:
    """A gateway with the token that signed the cases, and nothing in it."""
    token = "test-auth-token-0123456789abcdef"
    url = sqlite_copy(sqlite_file, tmp_path)
    environment = variables(tmp_path, url, TWILIO_AUTH_TOKEN=token)
    with in_thread(environment, working=False) as made:
        yield made


@pytest.mark.parametrize("path", inbound_cases(), ids=lambda p: p.stem)
def test_a_collected_message_is_stored_with_its_facts(path: Path, client: Client) -> None:
    case: dict[str, Any] = json.loads(path.read_text())
    body = path.with_suffix(".body").read_bytes()
    for _ in range(2):  # the second time it changes nothing
        answer = client.session.post(
            client.url + case["path"], data=body, headers=case["headers"], timeout=10
        )
        assert answer.status_code in (200, 204), answer.text
    (message,) = client.get("/api/messages")["items"]
    expected = case["expected"]
    assert message["direction"] == "inbound" and message["status"] == "received"
    assert message["channel"] == {"mms": "sms"}.get(expected["channel"], expected["channel"])
    assert (message["from"], message["to"]) == (expected["from"], expected["to"])
    if expected["text"]:
        assert message["body"] == expected["text"]
    assert len(message["media"]) == len(expected["media"])
    assert message["provider_message_id"] == expected["provider_ids"]["message_sid"]
    (conversation,) = client.get("/api/conversations")["items"]
    assert (conversation["address"], conversation["unread_count"]) == (expected["from"], 1)
