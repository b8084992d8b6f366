"""Read receipts and typing, from the API to the vendor's wire; nothing depends on them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway import gestures
from gateway.domain import Capabilities, Channel, Connection
from gateway.errors import Throttled
from gateway.gestures import Gestures
from gateway.routing import Route
from tests.running import ACCOUNT, Client, eventually, in_thread, sid, twilio, variables
from tests.vendors import LoopbackVendor, Reply, Request

PERSON, WHATSAPP = "+15550100001", "+15550008888"
TYPING = "/v2/Indicators/Typing.json"


def asked(vendor: LoopbackVendor) -> list[Request]:
    return [request for request in vendor.requests if request.path == TYPING]


def thread(client: Client, number: int = 1, prefix: str = "whatsapp:") -> dict[str, Any]:
    """A conversation in which a person has written."""
    form = {
        "MessageSid": sid(number),
        "AccountSid": ACCOUNT,
        "From": prefix + PERSON,
        "To": prefix + WHATSAPP,
        "Body": "hi",
        "NumMedia": "0",
        "SmsStatus": "received",
    }
    assert client.webhook("/api/webhooks/whatsapp", form).status_code in (200, 204)
    return dict(client.get("/api/conversations")["items"][0])


@pytest.fixture
def shown(vendor: LoopbackVendor) -> LoopbackVendor:
    """A vendor that shows typing."""
    vendor.pages[TYPING] = Reply(body=b'{"success": true}')
    return vendor


def test_typing_is_shown_to_whoever_wrote_last(client: Client, shown: LoopbackVendor) -> None:
    thread(client, 1)
    there = thread(client, 2)
    answer = client.call("POST", f"/api/conversations/{there['id']}/typing")
    assert (answer.status_code, answer.json()["id"]) == (202, there["id"])
    eventually(lambda: asked(shown))
    assert [r.form["messageId"] for r in asked(shown)] == [[sid(2)]]


def test_typing_needs_somebody_who_can_show_it_and_somebody_to_see_it(
    client: Client, shown: LoopbackVendor
) -> None:
    missing = client.call("POST", f"/api/conversations/{'conv_' + '0' * 26}/typing")
    assert missing.status_code == 404
    sent = client.send(to="+15550100009", body="x", channel="whatsapp", outside_window="try")
    silent = client.call("POST", f"/api/conversations/{sent['conversation_id']}/typing")
    assert silent.status_code == 409
    texts = thread(client, prefix="")
    by_sms = client.call("POST", f"/api/conversations/{texts['id']}/typing")
    assert by_sms.status_code == 409
    assert by_sms.headers["content-type"] == "application/problem+json"
    assert asked(shown) == []


@pytest.mark.parametrize("reply", [Reply(status=500, body=b"<html>"), Reply(status=429)])
def test_a_vendor_that_shows_nothing_changes_no_answer(
    client: Client, vendor: LoopbackVendor, reply: Reply
) -> None:
    vendor.pages[TYPING] = reply
    there = thread(client)
    for _ in range(2):
        answer = client.call("POST", f"/api/conversations/{there['id']}/typing")
        assert answer.status_code == 202
    eventually(lambda: len(asked(vendor)) == 2)
    assert client.get("/health/ready")


def test_read_is_not_told_to_a_vendor_that_would_show_typing_with_it(
    client: Client, shown: LoopbackVendor
) -> None:
    there = thread(client)
    message = client.get("/api/messages", direction="inbound")["items"][0]
    assert client.call("POST", f"/api/messages/{message['id']}/read").status_code == 200
    assert client.call("POST", f"/api/conversations/{there['id']}/read").status_code == 200
    assert client.call("POST", f"/api/conversations/{there['id']}/typing").status_code == 202
    eventually(lambda: asked(shown))
    assert len(asked(shown)) == 1


def test_a_gateway_stops_while_a_gesture_is_under_way(
    sqlite_url: str, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    vendor.pages[TYPING] = Reply(body=b'{"success": true}', drip=1.0)
    with in_thread(variables(tmp_path, sqlite_url, **twilio(vendor.url))) as client:
        there = thread(client)
        client.call("POST", f"/api/conversations/{there['id']}/typing")
        eventually(lambda: asked(vendor))
    assert len(asked(vendor)) == 1  # and `in_thread` has seen it stop


# --- bounds


ROW = {
    "id": "msg_1",
    "direction": "inbound",
    "channel": "whatsapp",
    "connection": "test",
    "provider_message_id": "wamid.1",
}


class Vendor:
    """Shows what it is told, as slowly as a test wants."""

    name = "test"
    capabilities = Capabilities(channels=frozenset({Channel.WHATSAPP}), marks_read=True)

    def __init__(self, error: Exception | None = None) -> None:
        self.go, self.error = asyncio.Event(), error
        self.calls: list[tuple[str, bool]] = []

    async def send(self, message: Any) -> Any:
        """Sends nothing."""
        raise AssertionError

    async def aclose(self) -> None:
        """Nothing to free."""

    async def mark_read(
        self, provider_message_id: str, *, typing: bool = False, ours: str | None = None
    ) -> None:
        """Notes it."""
        self.calls.append((provider_message_id, typing))
        await self.go.wait()
        if self.error is not None:
            raise self.error


def made(vendor: Vendor, within: float = 5.0) -> Gestures:
    connection = Connection(id="test", tenant_id="default", family="test")
    routes = {"test": Route("test", vendor.capabilities, connection)}
    return Gestures({"test": vendor}, routes, within=within)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gestures, "GRACE", 0.0)


@pytest.mark.anyio
async def test_no_more_than_a_bounded_number_is_under_way() -> None:
    vendor = Vendor()
    shown = made(vendor)
    for _ in range(gestures.AT_ONCE + 5):
        shown.show(ROW)
    await asyncio.sleep(0)
    assert vendor.calls == [("wamid.1", False)] * gestures.AT_ONCE
    await shown.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("error", [Throttled("no", code="x"), ValueError("a secret"), None])
async def test_whatever_a_vendor_raises_stays_in_the_log(
    error: Exception | None, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    vendor = Vendor(error)
    shown = made(vendor, within=0.05)
    if error is not None:
        vendor.go.set()
    shown.show(ROW)
    async with asyncio.timeout(5):
        while "msg_1" not in caplog.text:
            await asyncio.sleep(0.01)
    assert "wamid" not in caplog.text
    assert "a secret" not in caplog.text
    await shown.stop()


@pytest.mark.parametrize(
    "other",
    [
        {"direction": "outbound"},
        {"channel": "sms"},
        {"connection": "another"},
        {"provider_message_id": None},
    ],
)
@pytest.mark.anyio
async def test_only_the_account_by_which_a_message_came_in_is_told(other: dict[str, Any]) -> None:
    vendor = Vendor()
    shown = made(vendor)
    assert shown.can(ROW)
    assert not shown.can(ROW, typing=True)
    assert not shown.can({**ROW, **other})
    shown.show({**ROW, **other})
    await asyncio.sleep(0)
    assert vendor.calls == []
