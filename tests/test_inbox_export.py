"""`gateway inbox export`: stored webhooks become redacted cases that hold as golden cases do."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.cases import exported
from gateway.clock import new_id, to_ms
from gateway.domain import Simulated, Verified, Webhook
from gateway.redaction import Fakes
from gateway.store.inbox import RECEIVE, Delivery
from tests import test_webhooks as contract, webhook_cases
from tests.commands import Desk
from tests.running import variables
from tests.stored import TENANT, Store
from tests.webhook_cases import Case, cases_of

pytestmark = pytest.mark.anyio

PRIVATE = ("5005550142", "5511955550142", "1715550142", "Grüße", "Bia", "Ada", "SMe1671797c52e")
CHECKS = (
    contract.test_a_golden_request_becomes_exactly_its_events,
    contract.test_the_same_request_has_the_same_key_and_the_same_events_again,
    contract.test_no_flipped_byte_of_a_signature_is_believed,
    contract.test_a_request_without_its_signature_is_unsigned_and_claimed_by_nobody,
    contract.test_no_webhook_claims_or_believes_a_request_of_another_vendor,
)
CHOSEN = {
    "aws_ses": "delivery",
    "aws_sns": "sms",
    "aws_whatsapp": "text",
    "console": "message",
    "sendgrid": "delivered",
    "sendgrid_inbound": "taken_apart",
    "twilio": "whatsapp_button",
}


@pytest.fixture
def desk(url: str, tmp_path: Path) -> Desk:
    """A shell beside a database."""
    return Desk(tmp_path, variables(tmp_path, url))


async def kept(case: Case) -> Verified:
    """A golden request as the inbox has it."""
    verified = await contract.of(case).verify(case.request)
    return dataclasses.replace(verified, reading=None)


def development(name: str) -> Webhook:
    """A webhook with secrets of its own."""
    return webhook_cases.made(contract.HOOKS[name], contract.HOOKS[name].development())


async def stored(store: Store, case: Case) -> str:
    """Puts a golden request into the inbox; its id."""
    id_ = new_id("inb")
    verified = dataclasses.replace(await kept(case), connection=case.webhook)
    headers = contract.HOOKS[case.webhook].kept_headers
    when = to_ms(case.request.received_at)
    made = Delivery(
        id_, TENANT, verified, (), "parsed", None, kept_headers=headers, received_at=when
    )
    store.batcher.write(RECEIVE, [made])
    return id_


def chosen(name: str, case: str) -> Case:
    """A golden case by its name."""
    return next(one for one in cases_of(name) if one.name == case)


def all_but_settings(folder: str, names: list[str]) -> list[str]:
    """The files of a folder of cases that are no settings."""
    return [one for one in names if Path(folder, one).is_file() and one != "_settings.json"]


@pytest.mark.parametrize("dialect", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", sorted(contract.HOOKS))
async def test_a_request_of_every_webhook_becomes_a_case_that_holds_as_a_golden_one_does(
    name: str, store: Store, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = desk.folder / "made"
    shutil.copytree(webhook_cases.CASES, out, ignore=all_but_settings)
    shutil.rmtree(out / name)
    id_ = await stored(store, chosen(name, CHOSEN[name]))
    done = desk.run("inbox", "export", id_, "--case", "mine", "--out", str(out))
    assert (done.code, done.err) == (0, "")
    assert Path(done.out.strip()) == out / name / "inbound" / "mine.json"
    for path in out.rglob("mine.*"):
        text = path.read_text()
        assert not [word for word in PRIVATE if word in text], path
    monkeypatch.setattr(webhook_cases, "CASES", out)
    (case,) = cases_of(name)
    for check in CHECKS:
        await check(case)


@contract.golden(contract.TAKEN)
async def test_what_is_exported_holds_nothing_of_a_number_and_else_it_is_refused(
    case: Case,
) -> None:
    made, why = None, ""
    try:
        made = await exported(development(case.webhook), await kept(case), "x")
    except ValueError as error:
        why = str(error)
    if made is None:
        assert why.startswith(("it is ", "its body ", "an id or a number "))
        return
    text = json.dumps(dict(made.facts), ensure_ascii=False) + made.body.decode()
    assert not [word for word in PRIVATE if word in text]


@pytest.mark.parametrize("name", ["aws_sns", "aws_whatsapp", "aws_ses", "twilio"])
async def test_what_was_simulated_can_be_exported(name: str) -> None:
    webhook, exports = development(name), 0
    for field, told in (("message", contract.MESSAGES), ("status", contract.STATUSES)):
        for one in told.values():
            simulated: Any = {"url": f"https://gw.test.example/api/webhooks/{name}", field: one}
            try:
                request = webhook.sign(Simulated(**simulated))
            except ValueError:
                continue  # the vendor has no way to say it
            verified = dataclasses.replace(await webhook.verify(request), reading=None)
            assert (await exported(webhook, verified, "x")).facts
            exports += 1
    assert exports > 10


async def test_what_cannot_be_redacted_is_refused_and_nothing_is_written(
    store: Store, desk: Desk
) -> None:
    for name, case, why in (
        ("twilio", "json_events", "it is no form"),
        ("console", "not_json", "its body is no JSON"),
        ("aws_sns", "subscription", "whose token is a secret"),
    ):
        id_ = await stored(store, chosen(name, case))
        done = desk.run(
            "inbox", "export", id_, "--case", "mine", "--out", str(desk.folder / "made")
        )
        assert (done.code, done.out) == (1, "")
        assert why in done.err
    assert not (desk.folder / "made").exists()


def test_the_same_is_replaced_by_the_same_and_a_fake_tells_nothing() -> None:
    fakes = Fakes(frozenset({"status"}))
    told: Any = fakes.value(
        "x", {"a": "+15551230009 Zoë", "b": "whatsapp:+15551230009", "status": "sent", "n": None}
    )
    number = told["a"].split()[0]
    assert number.startswith("+1500555")
    assert told["b"] == f"whatsapp:{number}"
    assert (told["status"], told["n"]) == ("sent", None)
    assert "Zo" not in told["a"]
    assert fakes.value("status", "call 5551230009") != "call 5551230009"
    assert fakes.value("m", "ada@lovelace.org").endswith("@example.com")
    with pytest.raises(ValueError, match="may be private"):
        fakes.value("x", {"+15551230009": "x"})
