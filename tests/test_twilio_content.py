"""Twilio's content templates and its typing indicator, which have hosts of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.domain import VendorTemplate
from gateway.errors import AccountRefused, Ambiguous, ProviderError, Throttled, Unsupported
from providers._http import Http
from providers._twilio_content import Desk
from tests.outbound_cases import entry_of, provider
from tests.vendors import LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

SETUP = entry_of("twilio")
LIST, TYPING = "/v1/ContentAndApprovals", "/v2/Indicators/Typing.json"
SID = f"SM{'1' * 32}"


@pytest.fixture
def vendor() -> Iterator[LoopbackVendor]:
    with LoopbackVendor() as made:
        made.pages[TYPING] = said({"success": True})
        yield made


def said(values: Any) -> Reply:
    return Reply(body=json.dumps(values).encode())


def content(number: int, **more: Any) -> dict[str, Any]:
    return {
        "sid": f"HX{number:032x}",
        "friendly_name": "Order",
        "language": "en",
        "variables": {"1": "name"},
        "types": {"twilio/quick-reply": {"body": "Hi {{1}}", "actions": []}},
        "approval_requests": {"status": "approved", "category": "UTILITY"},
        **more,
    }


def page(rows: list[Any], following: str | None = None) -> Reply:
    return said({"contents": rows, "meta": {"key": "contents", "next_page_url": following}})


async def test_templates_are_told_with_their_words_and_variables(vendor: LoopbackVendor) -> None:
    bare = {"sid": f"HX{9:032x}", "types": None, "approval_requests": None}
    vendor.pages[LIST] = page([content(1), bare, "what?"])
    async with provider(SETUP, vendor.url) as made:
        found = await made.templates()
    assert found == [
        VendorTemplate(
            name=f"HX{1:032x}",
            title="Order",
            language="en",
            status="approved",
            category="utility",
            body="Hi {{1}}",
            variables=("1",),
        ),
        VendorTemplate(name=f"HX{9:032x}", status="unsubmitted"),
    ]
    (asked,) = vendor.requests
    assert asked.headers["authorization"].startswith("Basic ")


async def test_a_list_goes_on_here_wherever_it_says_that_it_does(vendor: LoopbackVendor) -> None:
    rows = [content(number) for number in range(250)]
    elsewhere = "https://elsewhere.example.com/v9/x?PageSize=250&Page=1&PageToken=abc&Key=1"
    vendor.plan.extend([page(rows, elsewhere), page([content(251)])])
    async with provider(SETUP, vendor.url) as made:
        assert len(await made.templates()) == 251
    assert [request.path for request in vendor.requests] == [
        f"{LIST}?PageSize=250",
        f"{LIST}?PageSize=250&Page=1&PageToken=abc",
    ]


async def test_no_more_than_a_thousand_templates_are_listed(vendor: LoopbackVendor) -> None:
    rows = [content(number) for number in range(300)]
    vendor.pages[LIST] = page(rows, "https://content.twilio.com/v1/ContentAndApprovals?Page=1")
    async with provider(SETUP, vendor.url) as made:
        assert len(await made.templates()) == 1000
    assert vendor.count == 4


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Reply(status=401, body=b'{"code": 20003, "status": 401}'), AccountRefused),
        (Reply(status=429, body=b'{"code": 20429, "status": 429}'), Throttled),
        (Reply(status=500, body=b"<html>"), Ambiguous),
        (Reply(body=b"<html>"), Ambiguous),
        (said({"other": []}), Ambiguous),
    ],
)
async def test_a_list_that_cannot_be_had_says_why(
    answer: Reply, kind: type[ProviderError], vendor: LoopbackVendor
) -> None:
    vendor.pages[LIST] = answer
    async with provider(SETUP, vendor.url) as made:
        with pytest.raises(ProviderError) as caught:
            await made.templates()
    assert type(caught.value) is kind


async def test_typing_names_the_message_that_is_answered(vendor: LoopbackVendor) -> None:
    async with provider(SETUP, vendor.url) as made:
        await made.mark_read(SID, typing=True)
    (asked,) = vendor.requests
    assert (asked.method, asked.path) == ("POST", TYPING)
    assert asked.form == {"messageId": [SID], "channel": ["whatsapp"]}


@pytest.mark.parametrize(("message", "typing"), [(SID, False), ("wamid.1", True), ("SM1", True)])
async def test_what_twilio_cannot_show_is_not_asked_for(
    message: str, typing: bool, vendor: LoopbackVendor
) -> None:
    async with provider(SETUP, vendor.url) as made:
        with pytest.raises(Unsupported):
            await made.mark_read(message, typing=typing)
    assert vendor.connections == 0


@pytest.mark.parametrize(
    ("api", "asked"),
    [
        ("https://api.twilio.com", "https://content.twilio.com/v1/x"),
        ("https://api.dublin.ie1.twilio.com", "https://content.dublin.ie1.twilio.com/v1/x"),
        ("http://127.0.0.1:9/twilio", "http://127.0.0.1:9/twilio/v1/x"),
    ],
)
def test_each_api_has_a_host_of_its_own_at_twilio(api: str, asked: str) -> None:
    desk = Desk(http=Http(), authorization="", api_url=api, timeout=1.0)
    assert desk.url("content", "/v1/x") == asked
