"""What no vendor would take, refused when it is accepted; and what one may take, let through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.aws_social import LoopbackSocial
from tests.databases import sqlite_copy
from tests.families import PERSON, AwsWhatsapp
from tests.running import Client, in_thread, twilio, variables
from tests.vendors import LoopbackVendor

LISTS, WORDS = "/v1/whatsapp/template/list", "/v1/whatsapp/template"
SUMMARY = {
    "templateName": "order_1",
    "metaTemplateId": "1",
    "templateStatus": "APPROVED",
    "templateLanguage": "en_US",
    "templateCategory": "UTILITY",
}
BODY = {"type": "BODY", "text": "Hi {{1}}, it is {{2}}"}
HEADER = {"type": "HEADER", "format": "TEXT", "text": "For {{1}}"}
QUICK = {"type": "QUICK_REPLY", "text": "No"}
LINKS = {"type": "BUTTONS", "buttons": [QUICK, {"type": "URL", "url": "https://e.com/{{1}}"}]}


def fields(answer: Any) -> list[str]:
    """The fields of a problem."""
    assert answer.status_code == 422, answer.text
    return [error["field"] for error in answer.json()["errors"]]


@contextmanager
def listing(url: str, folder: Path, *components: Any) -> Iterator[tuple[Client, LoopbackSocial]]:
    """A gateway whose WhatsApp has a template of these components, which it has listed."""
    family = AwsWhatsapp()
    account = {"AWS_WHATSAPP_BUSINESS_ACCOUNT_ID": "waba-0123456789abcdef"}
    family.vendor.listed = [SUMMARY]
    family.vendor.words["1"] = {"components": list(components)}
    with (
        family.vendor,
        in_thread(variables(folder, url, **family.variables(), **account)) as client,
    ):
        assert len(client.get("/api/templates")["items"]) == 1
        yield client, family.vendor


def templated(client: Client, path: str = "/api/messages", **template: Any) -> Any:
    """The answer to a message by a template."""
    body = {"to": PERSON, "channel": "whatsapp", "template": {"name": "order_1", **template}}
    return client.call("POST", path, json=body)


def asked(vendor: LoopbackSocial, path: str) -> int:
    """How often the vendor was asked at a path."""
    return sum(r.path.partition("?")[0] == path for r in vendor.requests)


def test_variables_that_a_listed_template_has_not_are_refused(
    sqlite_url: str, tmp_path: Path
) -> None:
    with listing(sqlite_url, tmp_path, HEADER, BODY, LINKS) as (client, _):
        good = {"1": "Ada", "2": "ten", "header": "you", "button.1": "x"}
        for wrong in (
            {},
            ["Ada", "ten"],
            {**good, "3": "more"},
            {**good, "header.name": "you"},
            {name: value for name, value in good.items() if name != "button.1"},
            {"name": "Ada", "time": "ten", "header": "you", "button.1": "x"},
        ):
            assert fields(templated(client, variables=wrong)) == ["template.variables"]
        told = templated(client, "/api/messages?dry_run=true", variables=["Ada"])
        assert fields(told) == ["template.variables"]
        assert "takes the variables header, 1, 2, button.1; given were 1" in told.text
        assert client.get("/api/messages")["items"] == []
        also = {**good, "button.0": {"payload": "no"}}
        numbered = {"header.1" if name == "header" else name: good[name] for name in good}
        for right in (also, numbered):
            made = templated(client, variables=right)
            assert made.status_code == 202, made.text
            client.until(made.json()["id"], "accepted")


def test_a_template_that_has_changed_meanwhile_is_asked_for_before_a_refusal(
    sqlite_url: str, tmp_path: Path
) -> None:
    with listing(sqlite_url, tmp_path, BODY) as (client, vendor):
        vendor.words["1"] = {"components": [{"type": "BODY", "text": "Hi {{1}}"}]}
        assert templated(client, variables=["Ada"]).status_code == 202
        assert asked(vendor, LISTS) == asked(vendor, WORDS) == 2
        for _ in range(3):
            assert fields(templated(client, variables=["Ada", "ten"])) == ["template.variables"]
        assert asked(vendor, LISTS) == asked(vendor, WORDS) == 2  # it has just told


def test_what_is_not_known_of_a_template_is_left_to_the_vendor(
    sqlite_url: str, tmp_path: Path
) -> None:
    with listing(sqlite_url, tmp_path, BODY) as (client, vendor):
        assert templated(client, language="de", variables=["x"]).status_code == 202
        assert templated(client, name="order_2").status_code == 202
        vendor.listed = [{**SUMMARY, "templateStatus": "PAUSED"}]
        assert templated(client, variables=["Ada"]).status_code == 202  # its words are not told
        vendor.errors["ListWhatsAppMessageTemplates"] = AwsWhatsapp.unauthorised
        assert templated(client, variables=["Ada"]).status_code == 202


LONG = "x" * 1601


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"body": LONG}, "body"),
        ({"template": {"name": "order_1"}}, "template.name"),
        ({"template": {"name": f"HX{1:032x}", "variables": {"1": None}}}, "template.variables.1"),
        ({"template": {"name": f"HX{1:032x}"}, "media": ["https://e.com/a.png"]}, "media"),
        ({"channel": "whatsapp", "type": "location", "content": {"latitude": 91}},
         "content.latitude"),
        ({"channel": "whatsapp", "type": "template", "body": "x"}, "template"),
    ],
)  # fmt: skip
def test_what_twilio_would_refuse_is_refused_at_every_door(
    body: dict[str, Any], field: str, twilio_alone: Client
) -> None:
    given = {"to": PERSON, **body}
    paths = ["/api/messages", "/api/messages?dry_run=true"]
    paths += ["/api/sms/send", "/api/sms/send?dry_run=true"] if "channel" not in body else []
    for path in paths:
        assert fields(twilio_alone.call("POST", path, json=given)) == [field]
    if "channel" in body:
        return
    good = {"to": PERSON, "body": "x"}
    many = twilio_alone.call("POST", "/api/sms/bulk", json={"messages": [given, good]})
    assert (many.status_code, many.json()["accepted"], many.json()["rejected"]) == (202, 1, 1)
    assert [error["field"] for error in many.json()["items"][0]["errors"]] == [field]


@pytest.fixture(scope="module")
def twilio_alone(sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("twilio")
    url = sqlite_copy(sqlite_file, folder)
    with (
        LoopbackVendor() as vendor,
        in_thread(variables(folder, url, **twilio(vendor.url)), working=False) as client,
    ):
        yield client


def test_what_one_of_a_chain_may_take_is_accepted(sqlite_url: str, tmp_path: Path) -> None:
    family = AwsWhatsapp()
    with LoopbackVendor() as vendor, family.vendor:
        more = {**family.variables(), **twilio(vendor.url)}
        more["WHATSAPP_PROVIDERS"] = "twilio,aws_whatsapp"
        with in_thread(variables(tmp_path, sqlite_url, **more)) as client:
            asked = {"to": PERSON, "channel": "whatsapp", "outside_window": "try"}
            told = client.call("POST", "/api/messages?dry_run=true", json={**asked, "body": LONG})
            made = client.send(**asked, body=LONG)
            shown = client.until(made["id"], "accepted")
            (attempt,) = shown["attempts"]
            assert (attempt["provider"], attempt["why"]) == ("aws_whatsapp", "next in the chain")
            (over,) = attempt["passed_over"]
            assert over["provider"] == "twilio" and over["reason"].startswith("would refuse: Twi")
            first, second = told.json()["route"]
            assert (first["provider"], first["would_be_asked"]) == ("aws_whatsapp", True)
            assert (second["provider"], second["why_not"]) == ("twilio", over["reason"])
            answer = client.call("POST", "/api/messages", json={**asked, "body": "x" * 4097})
            assert fields(answer) == ["body"]
            (error,) = answer.json()["errors"]
            assert "1600" in error["message"] and "4096" in error["message"]
    assert vendor.count == 0
