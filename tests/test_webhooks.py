"""What every webhook in the catalogue keeps, whoever the vendor is."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from gateway.cases import described
from gateway.catalog import CATALOG
from gateway.domain import (
    Answer,
    Channel,
    InboundMessage,
    MediaReference,
    MessageType,
    Simulated,
    Status,
    StatusUpdate,
    Unrecognised,
    VendorError,
    WebhookRequest,
)
from gateway.errors import CannotVerifyNow, Malformed, SettingsError, SignatureInvalid
from tests.webhook_cases import (
    CASES,
    Case,
    cases_of,
    changed,
    events_of,
    made,
    sayable,
    secrets_of,
    settings_of,
    unproved,
    without_proof,
)

pytestmark = pytest.mark.anyio

HOOKS = {entry.name: entry.webhook for entry in CATALOG if entry.webhook is not None}
FAMILIES = {entry.name: entry.family for entry in CATALOG}
GOLDEN = [case for name in HOOKS for case in cases_of(name)]
TAKEN = [case for case in GOLDEN if "refused" not in case.expect]
READ = [case for case in TAKEN if "events" in case.expect]
every_webhook = pytest.mark.parametrize("name", HOOKS)
SHARED = [n for n, h in HOOKS.items() if secrets_of(h, dict.fromkeys(h.Settings.required, ""))]
every_shared_secret = pytest.mark.parametrize("name", SHARED)
ANYTHING = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def golden(cases: list[Case]) -> pytest.MarkDecorator:
    """Runs a test on each of these cases."""
    return pytest.mark.parametrize("case", cases, ids=str)


def of(case: Case) -> Any:
    """The webhook that a case is for."""
    return made(HOOKS[case.webhook], settings_of(case.webhook))


def expected(case: Case) -> list[dict[str, Any]]:
    """A case's events; keys of unknown kinds are the adapter's own business."""
    return [dict(event) for event in case.expect["events"]]


def facts(events: list[Any]) -> list[dict[str, Any]]:
    """Events as a case file has them."""
    found = [described(event) for event in events]
    for event, seen in zip(events, found, strict=True):
        if isinstance(event, Unrecognised):
            assert seen.pop("dedupe_key")
    return found


@every_webhook
def test_every_webhook_has_golden_requests_of_each_outcome(name: str) -> None:
    outcomes = {outcome for case in cases_of(name) for outcome in case.expect}
    assert outcomes == {"events", "malformed", "refused"}
    assert {case.expect.get("refused") for case in cases_of(name)} >= {401, 403}


def test_every_folder_of_inbound_cases_belongs_to_a_webhook_in_the_catalogue() -> None:
    assert {path.parent.name for path in CASES.glob("*/inbound")} <= set(HOOKS)


@golden(READ)
async def test_a_golden_request_becomes_exactly_its_events(case: Case) -> None:
    assert facts(await events_of(of(case), case.request)) == expected(case)


@golden([case for case in TAKEN if "malformed" in case.expect])
async def test_what_is_signed_and_cannot_be_read_is_verified_and_malformed(case: Case) -> None:
    verified = await of(case).verify(case.request)
    with pytest.raises(Malformed):
        of(case).parse(verified)


@golden([case for case in GOLDEN if "refused" in case.expect])
async def test_what_is_not_proved_is_refused(case: Case) -> None:
    with pytest.raises(SignatureInvalid) as caught:
        await of(case).verify(case.request)
    assert caught.value.http_status == case.expect["refused"]


@golden(TAKEN)
async def test_the_same_request_has_the_same_key_and_the_same_events_again(case: Case) -> None:
    first, second = await of(case).verify(case.request), await of(case).verify(case.request)
    later = changed(case.request, received_at=case.request.received_at + timedelta(seconds=9))
    assert first.key == second.key == (await of(case).verify(later)).key
    assert first.connection == "c1"
    assert first.webhook == case.webhook


async def test_different_requests_have_different_keys() -> None:
    for name in HOOKS:
        keys = [(await of(case).verify(case.request)).key for case in TAKEN if case.webhook == name]
        assert len(set(keys)) == len(keys)


def flips(data: bytes) -> Iterator[bytes]:
    """The same bytes, one of them different in its lowest, its case or its highest bit."""
    for place in range(len(data)):
        for bit in (0x01, 0x20, 0x80):
            yield data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]


async def refused_or_the_same(case: Case, request: WebhookRequest, by: Any = None) -> None:
    """No change of what was signed may become other events."""
    webhook = by or of(case)
    try:
        events = await events_of(webhook, request)
    except (SignatureInvalid, CannotVerifyNow, Malformed):
        return
    assert facts(events) == expected(case)


@golden(READ)
async def test_no_flipped_byte_of_the_body_becomes_other_events(case: Case) -> None:
    webhook = of(case)
    await webhook.verify(case.request)
    for body in flips(case.request.body):
        await refused_or_the_same(case, changed(case.request, body=body), webhook)


@golden(READ)
async def test_no_flipped_byte_of_the_url_becomes_other_events(case: Case) -> None:
    webhook = of(case)
    for url in flips(case.request.url.encode("latin-1")):
        await refused_or_the_same(case, changed(case.request, url=url.decode("latin-1")), webhook)


async def signed_headers(case: Case) -> list[str]:
    """The headers without which the request is not believed."""
    needed = []
    for name in case.request.headers:
        rest = {k: v for k, v in case.request.headers.items() if k != name}
        try:
            await of(case).verify(changed(case.request, headers=rest))
        except SignatureInvalid:
            needed.append(name)
    return needed


@golden(READ)
async def test_no_flipped_byte_of_a_signature_is_believed(case: Case) -> None:
    for name in await signed_headers(case):
        if name == "content-type":
            continue  # not signed: decides only how the same signed bytes are read
        for value in flips(case.request.headers[name].encode("latin-1")):
            headers = {**case.request.headers, name: value.decode("latin-1")}
            with pytest.raises(SignatureInvalid):
                await of(case).verify(changed(case.request, headers=headers))


@golden(READ)
async def test_no_other_content_type_makes_unsigned_bytes_readable(case: Case) -> None:
    for kind in ("", "text/plain", "application/json", "application/x-www-form-urlencoded", "x"):
        headers = {**case.request.headers, "content-type": kind}
        await refused_or_the_same(case, changed(case.request, headers=headers))
        cut = changed(case.request, headers=headers, body=case.request.body[:-1])
        await refused_or_the_same(case, cut)
        empty = changed(case.request, headers=headers, body=b"")
        await refused_or_the_same(case, empty)


@golden(READ)
async def test_a_request_without_its_signature_is_unsigned_and_claimed_by_nobody(
    case: Case,
) -> None:
    webhook = of(case)
    assert webhook.claims(case.request.headers)
    for headers in ({}, {"content-type": "application/json", "x-amz-sns-message-type": "x"}):
        assert not webhook.claims(headers)
        with pytest.raises(SignatureInvalid) as caught:
            await webhook.verify(without_proof(case.request, headers))
        assert caught.value.http_status == 401


@golden(READ)
async def test_no_webhook_claims_or_believes_a_request_of_another_vendor(case: Case) -> None:
    for name, kind in HOOKS.items():
        if FAMILIES[name] != FAMILIES[case.webhook]:
            other = made(kind, settings_of(name))
            assert not other.claims(case.request.headers)
            with pytest.raises(SignatureInvalid):
                await other.verify(case.request)


@every_webhook
def test_development_makes_settings_that_a_webhook_can_be_built_from(name: str) -> None:
    kind = HOOKS[name]
    assert set(kind.Settings.required) <= set(kind.development())
    assert kind.development() != kind.development()
    assert isinstance(made(kind, kind.development()).answer, Answer)


@every_webhook
@pytest.mark.parametrize("blank", ["", " ", ",", " , ,", "\t\n"])
def test_a_blank_secret_cannot_build_a_webhook_and_is_named(name: str, blank: str) -> None:
    kind = HOOKS[name]
    for variable in kind.Settings.required:
        with pytest.raises(SettingsError, match=variable):
            made(kind, {**kind.development(), variable: blank})
        rest = {k: v for k, v in kind.development().items() if k != variable}
        with pytest.raises(SettingsError, match=variable):
            made(kind, rest)


SENDER, OURS = "+15005550142", "+15005550199"
ACCOUNT = "AC0f1e2d3c4b5a69788796a5b4c3d2e1f0"
FILE = f"{ACCOUNT}/MM00112233445566778899aabbccddeeff/MEffeeddccbbaa99887766554433221100"
ATTEMPT = "att_01jmz3x5e8q7v9k2r4t6w8y0ab"


def said(number: int, **more: Any) -> InboundMessage:
    """A message of a person."""
    return InboundMessage(
        **{
            "dedupe_key": "",
            "channel": Channel.SMS,
            "from_address": SENDER,
            "to_address": OURS,
            "provider_message_id": f"SM{number:032x}",
            "account": ACCOUNT,
            "segments": 1,
            **more,
        }
    )


def heard(number: int, status: Status, **more: Any) -> StatusUpdate:
    """A vendor's word on an attempt of ours."""
    return StatusUpdate(
        **{
            "dedupe_key": "",
            "status": status,
            "vendor_status": status.value,
            "attempt_id": ATTEMPT,
            "provider_message_id": f"SM{number:032x}",
            "account": ACCOUNT,
            "channel": Channel.SMS,
            "sender": OURS,
            "recipient": SENDER,
            **more,
        }
    )


PLACE = {"latitude": -33.86, "longitude": 151.21, "name": "Quay", "address": None}
WHATSAPP: dict[str, Any] = {"channel": Channel.WHATSAPP, "name": "Ada"}
MESSAGES = {
    "text": said(1, body="Ünïcode ☕ & = + %\r\n two  spaces "),
    "pool": said(2, body="x", pool="MG00112233445566778899aabbccddeeff", segments=3),
    "file": said(
        3,
        body="look",
        type=MessageType.IMAGE,
        media=(
            MediaReference(reference=FILE, content_type="image/png"),
            MediaReference(reference="https://files.example/x", fetchable=False),
        ),
    ),
    "short code": said(4, from_address="72345", body="STOP now or later"),
    "whatsapp": said(5, body="olá", aliases=("+15005550777", "BR.7788"), **WHATSAPP),
    "button": said(
        6,
        type=MessageType.BUTTON,
        body="Yes",
        reply_to=f"SM{99:032x}",
        content={"kind": "button", "id": "{yes", "title": "Yes"},
        **WHATSAPP,
    ),
    "list": said(
        7,
        type=MessageType.INTERACTIVE,
        body="Ten",
        content={"kind": "list", "id": "t10", "title": "Ten"},
        **WHATSAPP,
    ),
    "location": said(8, type=MessageType.LOCATION, content=PLACE, **WHATSAPP),
    "user id": said(9, body="hi", from_address="US.13491208655302741918", **WHATSAPP),
    "referral": said(
        10, body="hi", content={"forwarded": True, "referral": {"headline": "Shoes"}}, **WHATSAPP
    ),
}
STATUSES = {
    "accepted": heard(20, Status.ACCEPTED),
    "sent": heard(21, Status.SENT, segments=2),
    "delivered": heard(22, Status.DELIVERED, channel=Channel.WHATSAPP),
    "read": heard(23, Status.READ, attempt_id=None, channel=Channel.WHATSAPP),
    "undelivered": heard(24, Status.UNDELIVERED, error=VendorError(code="30005")),
    "failed": heard(25, Status.FAILED, error=VendorError(code="30001", message="queue is full")),
}
EMAIL = said(30, channel=Channel.EMAIL, from_address="ada@example.com", to_address="us@example.com")
SAME_MESSAGE = {field.name for field in fields(InboundMessage)} - {"dedupe_key", "occurred_at"}
SAME_STATUS = {
    "status",
    "attempt_id",
    "provider_message_id",
    "account",
    "channel",
    "sender",
    "recipient",
    "segments",
}


@every_webhook
@pytest.mark.parametrize("which", MESSAGES)
async def test_a_simulated_message_comes_back_as_it_was(name: str, which: str) -> None:
    webhook = made(HOOKS[name], HOOKS[name].development())
    simulated = Simulated(url=f"https://gw.test.example/{name}", message=MESSAGES[which])
    if which in sayable(name).refused:
        with pytest.raises(ValueError, match="simulated"):
            webhook.sign(simulated)
        return
    (event,) = await events_of(webhook, webhook.sign(simulated))
    assert isinstance(event, InboundMessage)
    for fact in SAME_MESSAGE.difference(sayable(name).left_out):
        assert getattr(event, fact) == getattr(MESSAGES[which], fact), fact


@every_webhook
@pytest.mark.parametrize("which", STATUSES)
async def test_a_simulated_status_comes_back_as_it_was(name: str, which: str) -> None:
    webhook = made(HOOKS[name], HOOKS[name].development())
    wanted = STATUSES[which]
    simulated = Simulated(url=f"https://gw.test.example/{name}", status=wanted)
    if which in sayable(name).refused:
        with pytest.raises(ValueError, match="simulated"):
            webhook.sign(simulated)
        return
    (event,) = await events_of(webhook, webhook.sign(simulated))
    assert isinstance(event, StatusUpdate)
    for fact in SAME_STATUS.difference(sayable(name).left_out):
        assert getattr(event, fact) == getattr(wanted, fact), fact
    assert (event.error and event.error.code) == (wanted.error and wanted.error.code)


@every_webhook
def test_nothing_to_simulate_is_an_error_and_not_an_empty_request(name: str) -> None:
    webhook = made(HOOKS[name], HOOKS[name].development())
    with pytest.raises(ValueError, match="simulate"):
        webhook.sign(Simulated(url="https://gw.test.example/"))


@every_shared_secret
async def test_both_secrets_hold_while_rotating_and_the_first_signs(name: str) -> None:
    kind = HOOKS[name]
    old, new = kind.development(), kind.development()
    both = {v: f"{new[v]}, {old[v]}" if v in kind.Settings.required else new[v] for v in new}
    message = EMAIL if "text" in sayable(name).refused else MESSAGES["text"]
    simulated = Simulated(url=f"https://gw.test.example/{name}", message=message)
    rotating = made(kind, both)
    for variables in (old, new):
        verified = await rotating.verify(made(kind, variables).sign(simulated))
        assert verified.verdict
    await made(kind, new).verify(rotating.sign(simulated))
    with pytest.raises(SignatureInvalid):
        await made(kind, old).verify(rotating.sign(simulated))


@every_webhook
async def test_no_secret_and_no_signature_shows_in_what_may_be_logged(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    kind = HOOKS[name]
    variables = kind.development()
    webhook = made(kind, variables)
    what: Any = {"message": said(1)}
    if "text" in (mute := sayable(name).refused):
        what = {"status": STATUSES["delivered"]}
    if "delivered" in mute:
        what = {"message": EMAIL}
    request = webhook.sign(Simulated(url="https://u:pass@gw.test.example/x", **what))
    shown = [repr(webhook), repr(kind.Settings.model_validate(variables)), repr(request)]
    verified = await webhook.verify(request)
    shown += [repr(verified), verified.verdict, verified.key]
    other = made(kind, kind.development())
    with pytest.raises(SignatureInvalid) as caught:
        await other.verify(request)
    shown += [str(caught.value), repr(caught.value), caught.value.detail, caplog.text]
    signatures = [v for k, v in request.headers.items() if k.endswith("signature")]
    for secret in (*secrets_of(kind, variables).values(), *signatures):
        assert all(secret not in text for text in shown)
    assert "pass" not in caught.value.detail


@every_webhook
@ANYTHING
@given(data=st.data())
def test_a_damaged_request_is_refused_or_read_and_never_breaks_anything(
    name: str, data: st.DataObject
) -> None:
    case = data.draw(st.sampled_from([case for case in TAKEN if case.webhook == name]))
    webhook = of(case)
    body = damaged(data, case.request.body)
    kind = data.draw(
        st.sampled_from([case.request.headers["content-type"], "", "application/json"])
    )
    headers = {**case.request.headers, "content-type": kind}
    request = changed(case.request, body=body, headers=headers)
    with suppress(SignatureInvalid, CannotVerifyNow):
        asyncio.run(webhook.verify(request))
    with suppress(Malformed):
        webhook.parse(unproved(webhook, request))


def damaged(data: st.DataObject, body: bytes) -> bytes:
    """A body with a piece of it replaced, or something else altogether."""
    if data.draw(st.integers(0, 9)) == 0:
        return data.draw(st.binary(max_size=200))
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 40)))
    return body[:start] + data.draw(piece) + body[end:]


piece = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            *(
                b"&",
                b"=",
                b"%",
                b"%00",
                b"%ED%A0%80",
                b"\xff",
                b"&From=",
                b"&To=x",
                b"&MessageSid=",
            ),
            *(b'"', b"{", b"{}", b"null", b"NaN", b"1e999", b"-1", b'"\\ud800"', b"\\u0000"),
            *(
                b"[" * 99,
                b"9" * 5000,
                b"&MediaUrl0=",
                b"&MediaUrl00=x",
                b"&Price=-1e9",
                b"&AddOns={",
            ),
            b"&Latitude=nan&Longitude=inf",
        ]
    ),
)


@every_webhook
@ANYTHING
@given(
    header=st.text(max_size=60),
    url=st.text(max_size=60),
    names=st.lists(st.sampled_from(["content-type", "x-gateway-timestamp", "x-twilio-signature"])),
)
@example(header="\ud800", url="http://[::1", names=["x-twilio-signature"])
async def test_no_header_and_no_url_breaks_a_verification(
    name: str, header: str, url: str, names: list[str]
) -> None:
    case = next(case for case in READ if case.webhook == name)
    for key in (*case.request.headers, *names):
        request = changed(case.request, headers={**case.request.headers, key: header}, url=url)
        if name not in SHARED:  # its proof stands in the body and covers neither
            await refused_or_the_same(case, request)
            continue
        with pytest.raises(SignatureInvalid):
            await of(case).verify(request)


@golden(READ)
async def test_events_can_be_stored_as_json_and_hold_no_nul_and_no_lone_surrogate(
    case: Case,
) -> None:
    for nasty in (b"\\u0000", b"\\ud800", b"%00", b"%ED%A0%80"):
        body = case.request.body.replace(b"e", b"e" + nasty, 3)
        try:
            events = of(case).parse(unproved(of(case), changed(case.request, body=body)))
        except Malformed:
            continue
        text = json.dumps([described(event) for event in events], allow_nan=False)
        assert "\\u0000" not in text
        assert "\\ud800" not in text
