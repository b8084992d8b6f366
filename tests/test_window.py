"""The 24 hours after a person's message, from the API: what is refused, and what is offered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from gateway.domain import Capabilities, Channel, MessageType
from gateway.store.database import Database
from gateway.windows import binding
from tests.running import Client, eventually, in_thread, inbound_form, sid, twilio, variables
from tests.stored import Store
from tests.vendors import LoopbackVendor, Reply

PERSON, OURS = "+15550100007", "+15550008888"
CHAT = {"From": f"whatsapp:{PERSON}", "To": f"whatsapp:{OURS}", "WaId": PERSON[1:]}
HOUR = 3_600_000
LIST = "/v1/ContentAndApprovals"
TEMPLATE = {"name": f"HX{1:032x}"}


def listed(*statuses: str) -> Reply:
    """What Twilio lists: a template for each status."""
    contents = [
        {
            "sid": f"HX{number:032x}",
            "friendly_name": "Order",
            "language": "en",
            "variables": {"1": "name"},
            "types": {"twilio/text": {"body": "Hi {{1}}"}},
            "approval_requests": {"status": status, "category": "UTILITY"},
        }
        for number, status in enumerate(statuses, 1)
    ]
    page = {"contents": contents, "meta": {"key": "contents", "next_page_url": None}}
    return Reply(body=json.dumps(page).encode())


def writes(client: Client, number: int = 1, body: str = "hi", **more: str) -> None:
    """The person writes to our number."""
    form = inbound_form(sid(number), body, **{**CHAT, **more})
    assert client.webhook("/api/webhooks/whatsapp", form).ok


def age(url: str, milliseconds: int) -> None:
    """Lets time pass since every person wrote."""
    database = Database(url)
    Store(database).change(
        "UPDATE conversations SET last_inbound_at = last_inbound_at - ?", milliseconds
    )
    database.close()


def post(client: Client, path: str = "/api/messages", **body: Any) -> requests.Response:
    """Asks for a WhatsApp message to the person."""
    there = {} if "conversations" in path else {"to": PERSON, "channel": "whatsapp"}
    return client.call("POST", path, json={**there, "body": "hello", **body})


def refused(answer: requests.Response) -> dict[str, Any]:
    """The problem, which is that of a closed window."""
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = dict(answer.json())
    assert problem["type"].endswith("/window-closed")
    assert [error["field"] for error in problem["errors"]] == ["template"]
    return problem


def test_a_stranger_is_not_written_to_freely_and_nothing_is_stored(
    idle: Client, vendor: LoopbackVendor
) -> None:
    vendor.pages[LIST] = listed("approved", "rejected")
    problem = refused(post(idle))
    assert problem["window_expired_at"] is None
    (offer,) = problem["templates"]
    assert offer == {
        "name": TEMPLATE["name"],
        "language": "en",
        "body": "Hi {{1}}",
        "variables": ["1"],
    }
    assert idle.get("/api/messages")["items"] == idle.get("/api/conversations")["items"] == []


def test_whoever_wrote_lately_is_answered_and_later_no_more(idle: Client, url: str) -> None:
    writes(idle)
    assert post(idle).status_code == 202
    (there,) = idle.get("/api/conversations")["items"]
    age(url, 23 * HOUR)
    path = f"/api/conversations/{there['id']}/messages"
    assert post(idle, path).status_code == 202
    age(url, HOUR)
    for answer in (post(idle), post(idle, path)):
        assert refused(answer)["window_expired_at"] is not None
    assert "not written to this number for 24 hours" in post(idle).json()["detail"]
    assert len(idle.get("/api/messages", direction="outbound")["items"]) == 2
    writes(idle, 2)
    assert post(idle).status_code == 202


def test_a_window_is_of_one_number_of_ours(idle: Client) -> None:
    writes(idle)
    refused(post(idle, **{"from": "+15550009999"}))
    refused(post(idle, to="+15550100008"))
    (there,) = idle.get("/api/conversations")["items"]
    path = f"/api/conversations/{there['id']}/messages"
    refused(post(idle, path, **{"from": "+15550009999"}))
    assert post(idle, path, **{"from": OURS}).status_code == 202


@pytest.mark.parametrize(
    "body",
    [
        {"template": TEMPLATE, "body": ""},
        {"outside_window": "try"},
        {"channel": "sms"},
    ],
)
def test_what_needs_no_window_is_accepted(idle: Client, body: dict[str, Any]) -> None:
    assert post(idle, **body).status_code == 202


def test_what_is_scheduled_has_to_be_in_the_window_then(idle: Client, url: str) -> None:
    writes(idle)
    age(url, 22 * HOUR)
    (there,) = idle.get("/api/conversations")["items"]
    assert post(idle, send_at=there["last_message_at"]).status_code == 202
    refused(post(idle, send_at=there["window_expires_at"]))


def test_a_key_of_what_was_refused_is_free_and_of_what_was_accepted_is_kept(
    idle: Client, url: str
) -> None:
    def keyed() -> requests.Response:
        body = {"to": PERSON, "channel": "whatsapp", "body": "hello"}
        return idle.call("POST", "/api/messages", json=body, headers={"Idempotency-Key": "the-key"})

    refused(keyed())
    writes(idle)
    first = keyed()
    assert first.status_code == 202
    age(url, 25 * HOUR)
    again = keyed()
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["idempotency-replayed"] == "true"


def test_a_refusal_of_one_does_not_touch_the_others(client: Client, vendor: LoopbackVendor) -> None:
    writes(client)
    for number in range(20):
        refused(post(client, to=f"+155501001{number:02}"))
    sent = post(client).json()
    client.until(sent["id"], "accepted")
    assert eventually(lambda: vendor.requests)


def test_the_console_hears_everything(url: str, tmp_path: Path) -> None:
    with in_thread(variables(tmp_path, url)) as client:
        sent = client.send(to=PERSON, channel="whatsapp", body="hello")
        assert client.until(sent["id"], "delivered")["attempts"][0]["provider"] == "console"


@pytest.mark.parametrize(
    ("channel", "kind", "template", "bound"),
    [
        (Channel.WHATSAPP, MessageType.TEXT, False, True),
        (Channel.WHATSAPP, MessageType.IMAGE, False, True),
        (Channel.WHATSAPP, MessageType.TEXT, True, False),
        (Channel.WHATSAPP, MessageType.REACTION, False, False),
        (Channel.SMS, MessageType.TEXT, False, False),
        (Channel.EMAIL, MessageType.EMAIL, False, False),
    ],
)
def test_which_messages_are_held_to_a_window(
    channel: Channel, kind: MessageType, template: bool, bound: bool
) -> None:
    held = Capabilities(channels=frozenset(Channel))
    free = Capabilities(channels=frozenset(Channel), has_window=False)
    assert bool(binding(channel, kind, template=template, able=[held, held])) is bound
    assert binding(channel, kind, template=template, able=[held, free]) == 0


# --- templates


def test_templates_are_listed_once_and_by_name_and_status(
    idle: Client, vendor: LoopbackVendor
) -> None:
    vendor.pages[LIST] = listed("approved", "rejected", "approved")
    found = idle.get("/api/templates")
    assert (found["next_cursor"], found["stale"]) == (None, False)
    first = found["items"][0]
    assert (first["provider"], first["title"], first["status"]) == ("twilio", "Order", "approved")
    good = idle.get("/api/templates", channel="whatsapp", status="approved")["items"]
    assert [one["name"] for one in good] == [f"HX{1:032x}", f"HX{3:032x}"]
    assert len(idle.get("/api/templates", name=f"HX{2:032x}")["items"]) == 1
    assert idle.get("/api/templates", channel="rcs")["items"] == []
    page = idle.get("/api/templates", limit=2)
    rest = idle.get("/api/templates", limit=2, cursor=page["next_cursor"])
    assert [*page["items"], *rest["items"]] == found["items"]
    assert vendor.count == 1
    assert idle.call("GET", "/api/templates?channel=fax").status_code == 422
    assert idle.call("GET", "/api/templates?state=x").status_code == 422


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (Reply(status=401, body=b'{"code": 20003, "message": "secret"}'), 502, "account_refused"),
        (Reply(status=429, body=b'{"code": 20429, "message": "secret"}'), 503, "throttled"),
    ],
)
def test_a_vendor_that_lists_nothing_is_told_by_its_class(
    idle: Client, vendor: LoopbackVendor, answer: Reply, status: int, reason: str
) -> None:
    vendor.pages[LIST] = answer
    for _ in range(2):
        told = idle.call("GET", "/api/templates")
        assert told.status_code == status
        assert f"twilio: {reason}" in told.json()["detail"] and "secret" not in told.text
    assert vendor.count == 1
    assert refused(post(idle))["templates"] == []


def test_old_templates_are_shown_while_the_vendor_is_away(
    sqlite_url: str, tmp_path: Path, vendor: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.templates.FRESH", 0.0)
    with in_thread(variables(tmp_path, sqlite_url, **twilio(vendor.url)), working=False) as client:
        vendor.pages[LIST] = listed("approved")
        fresh = client.get("/api/templates")
        vendor.pages[LIST] = Reply(status=500, body=b"<html>")
        stale = client.get("/api/templates")
        assert (fresh["stale"], stale["stale"]) == (False, True)
        assert stale["items"] == fresh["items"]
        assert len(refused(post(client))["templates"]) == 1
