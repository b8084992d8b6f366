"""What SNS brings, by its content: messages, their fate, the log, and what nobody reads yet."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from gateway.domain import (
    Channel,
    Event,
    Handshake,
    InboundMessage,
    Money,
    Simulated,
    Status,
    StatusUpdate,
    Unrecognised,
    VendorError,
)
from gateway.errors import REASONS, Malformed
from tests.sns_signing import (
    NOW,
    OURS,
    PERSON,
    ROUTE,
    confirmation,
    happened,
    hook,
    notification,
    request,
    said,
    source,
)
from tests.webhook_cases import events_of
from webhooks import _sns_sms_tables
from webhooks._sns_kinds import read
from webhooks.aws_sns import AwsSnsWebhook, AwsSnsWebhookSettings

pytestmark = pytest.mark.anyio


def event_of(inner: Any) -> Event:
    """The one event of a notification's content."""
    text = inner if isinstance(inner, str) else json.dumps(inner)
    (event,) = read(text, NOW, "k" * 64)
    return event


def update_of(kind: str = "TEXT_DELIVERED", **more: Any) -> StatusUpdate:
    """The fate of a message, of an event's type."""
    event = event_of(happened(kind, **more))
    assert isinstance(event, StatusUpdate)
    return event


FATES = {
    "TEXT_QUEUED": Status.ACCEPTED,
    "TEXT_PENDING": Status.SENT,
    "TEXT_SENT": Status.SENT,
    "TEXT_SUCCESSFUL": Status.DELIVERED,
    "TEXT_DELIVERED": Status.DELIVERED,
    "TEXT_UNKNOWN": Status.ACCEPTED,
    "MEDIA_DELIVERED": Status.DELIVERED,
    "RCS_DELIVERED": Status.DELIVERED,
    "RCS_READ": Status.READ,
    "RCS_FALLEN_BACK_TO_SMS": Status.SENT,
    "VOICE_INITIATED": Status.ACCEPTED,
    "VOICE_RINGING": Status.SENT,
    "VOICE_ANSWERED": Status.DELIVERED,
    "VOICE_COMPLETED": Status.DELIVERED,
}
FAILURES = {
    "TEXT_INVALID": "rejected",
    "TEXT_INVALID_MESSAGE": "rejected",
    "TEXT_SPAM": "rejected",
    "TEXT_BLOCKED": "rejected",
    "TEXT_CARRIER_BLOCKED": "rejected",
    "TEXT_UNREACHABLE": "unreachable",
    "TEXT_CARRIER_UNREACHABLE": "unreachable",
    "TEXT_TTL_EXPIRED": "unreachable",
    "TEXT_PROTECT_BLOCKED": "account_refused",
    "MEDIA_FILE_INACCESSIBLE": "rejected",
    "MEDIA_FILE_TYPE_UNSUPPORTED": "rejected",
    "MEDIA_FILE_SIZE_EXCEEDED": "rejected",
    "RCS_FAILED": "ambiguous",
    "VOICE_BUSY": "unreachable",
    "VOICE_NO_ANSWER": "unreachable",
}


@pytest.mark.parametrize("kind", FATES)
def test_each_type_of_event_means_a_status(kind: str) -> None:
    event = update_of(kind)
    assert (event.status, event.vendor_status, event.error) == (FATES[kind], kind, None)


@pytest.mark.parametrize("kind", FAILURES)
def test_each_type_of_failure_has_its_class(kind: str) -> None:
    event = update_of(kind)
    assert event.status is Status.FAILED
    assert event.error == VendorError(code=kind, message="As it stands", reason=FAILURES[kind])


def test_every_type_that_the_api_has_is_known() -> None:
    from botocore.session import Session

    model = Session().get_service_model("pinpoint-sms-voice-v2")
    kinds = [k for k in model.shape_for("EventType").enum if k.partition("_")[2] not in ("", "ALL")]
    assert len(kinds) > 40
    for kind in kinds:
        assert isinstance(event_of(happened(kind)), StatusUpdate), kind


def test_every_class_of_a_failure_is_one_of_ours() -> None:
    tables = _sns_sms_tables
    known = {*REASONS.values(), "opted_out"}
    assert {*tables.REASONS.values(), *tables.RESPONSES.values()} <= known
    failed = {word for word, status in tables.STATUSES.items() if status is Status.FAILED}
    assert set(tables.REASONS) == failed


def test_a_carrier_s_yes_is_the_last_word_only_where_it_is_said_to_be() -> None:
    for final, status in ((True, Status.DELIVERED), (False, Status.SENT), ("true", Status.SENT)):
        assert update_of("TEXT_SUCCESSFUL", isFinal=final).status is status
    facts = happened("MEDIA_SUCCESSFUL")
    del facts["isFinal"]
    event = event_of(facts)
    assert isinstance(event, StatusUpdate)
    assert event.status is Status.SENT


def test_an_opted_out_number_is_recognised_whatever_the_type_says() -> None:
    event = update_of(
        "TEXT_CARRIER_UNREACHABLE", messageStatusDescription="Phone number is opted out"
    )
    assert event.error is not None
    assert (event.error.code, event.error.reason) == ("TEXT_CARRIER_UNREACHABLE", "opted_out")


def test_an_event_has_all_its_facts() -> None:
    attempt = "att_01jmz3x5e8q7v9k2r4t6w8y0ab"
    event = update_of(
        context={"attempt_id": attempt, "message_id": "msg_x"},
        totalMessageParts=3,
        totalMessagePrice=0.00581,
        totalCarrierFee=0.006,
    )
    assert event.attempt_id == attempt
    assert event.provider_message_id == "20000000-0000-4000-8000-000000000001"
    assert (event.sender, event.recipient, event.channel) == (OURS, PERSON, Channel.SMS)
    assert event.segments == 3
    assert event.cost == Money(amount=Decimal("0.01181"), currency="USD")
    assert event.occurred_at == datetime(2026, 3, 1, 11, 59, 58, 500_000, tzinfo=UTC)
    assert event.dedupe_key == f"st:{event.provider_message_id}:TEXT_DELIVERED:1772366398500"


@pytest.mark.parametrize(
    ("kind", "channel"),
    [
        ("TEXT_SENT", Channel.SMS),
        ("MEDIA_QUEUED", Channel.SMS),
        ("RCS_SENT", Channel.RCS),
        ("RCS_FALLEN_BACK_TO_SMS", Channel.SMS),
        ("VOICE_FAILED", None),
    ],
)
def test_the_prefix_says_how_it_travelled(kind: str, channel: Channel | None) -> None:
    assert update_of(kind).channel is channel


@pytest.mark.parametrize(
    "attempt",
    ["att_short", "msg_01jmz3x5e8q7v9k2r4t6w8y0ab", "att_01jmz3x5e8q7v9k2r4t6w8y0ab\n", 7, None],
)
def test_only_an_attempt_s_own_form_names_one(attempt: Any) -> None:
    assert update_of(context={"attempt_id": attempt}).attempt_id is None
    assert update_of(context=attempt).attempt_id is None


@pytest.mark.parametrize(
    ("stamp", "moment"),
    [
        (1467074434, datetime(2016, 6, 28, 0, 40, 34, tzinfo=UTC)),
        (0, NOW),
        (-1, NOW),
        (10**30, NOW),
        ("1772366398500", NOW),
        (True, NOW),
        (None, NOW),
    ],
)
def test_a_time_that_is_none_gives_way_to_that_of_the_envelope(stamp: Any, moment: Any) -> None:
    assert update_of(eventTimestamp=stamp).occurred_at == moment


@pytest.mark.parametrize("price", [None, "0.1", True, -1, 1e9, [0.1]])
def test_a_price_that_is_none_is_left_out(price: Any) -> None:
    assert update_of(totalMessagePrice=price).cost is None
    assert update_of(totalMessagePrice=0.1, totalCarrierFee=price).cost == Money(
        amount=Decimal("0.1"), currency="USD"
    )


def test_counts_and_addresses_that_are_none_are_left_out() -> None:
    for count in (None, 0, -1, True, "2", 10**9, 1.5):
        assert update_of(totalMessageParts=count).segments is None
    for address in (None, "", "\n", 7, "+" * 99, "<script>"):
        assert update_of(destinationPhoneNumber=address).recipient is None
    assert update_of(destinationPhoneNumber="14255550142").recipient == "+14255550142"
    assert update_of(originationPhoneNumber="555555").sender == "555555"
    assert update_of(originationPhoneNumber="My Shop").sender == "My Shop"


@pytest.mark.parametrize("identity", [None, "", 7, "a b", "x" * 201, "a\n"])
def test_an_event_that_names_no_message_is_malformed(identity: Any) -> None:
    with pytest.raises(Malformed):
        event_of(happened(messageId=identity))


def test_the_same_event_has_the_same_key_and_another_one_another() -> None:
    keys = {
        update_of("TEXT_SENT").dedupe_key,
        update_of("TEXT_DELIVERED").dedupe_key,
        update_of("TEXT_SENT", number=2).dedupe_key,
        update_of("TEXT_SENT", eventTimestamp=1).dedupe_key,
    }
    assert len(keys) == 4
    assert update_of("TEXT_SENT").dedupe_key in keys
    passing, final = (update_of("TEXT_SUCCESSFUL", isFinal=final) for final in (False, True))
    assert passing.occurred_at == final.occurred_at
    assert passing.dedupe_key != final.dedupe_key


def test_a_message_has_all_its_facts() -> None:
    event = event_of(said("STOP\nplease 👋", previousPublishedMessageId="20-1"))
    assert event == InboundMessage(
        dedupe_key="in:10000000-0000-4000-8000-000000000001",
        channel=Channel.SMS,
        from_address=PERSON,
        to_address=OURS,
        provider_message_id="10000000-0000-4000-8000-000000000001",
        body="STOP\nplease 👋",
        content={"keyword": "HELLO"},
        reply_to="20-1",
        occurred_at=NOW,
    )


@pytest.mark.parametrize("sender", [None, "", 7, " ", "\x00", "+" * 80])
def test_a_message_of_nobody_is_malformed(sender: Any) -> None:
    with pytest.raises(Malformed):
        event_of(said(originationNumber=sender))


def test_a_message_without_an_id_has_the_envelope_s_key() -> None:
    facts = said()
    del facts["inboundMessageId"]
    event = event_of(facts)
    assert isinstance(event, InboundMessage)
    assert event.dedupe_key == "in:" + "k" * 64
    with pytest.raises(Malformed):
        event_of(said(messageBody=7))


def log_entry(status: Any = "FAILURE", said_by: str = "Phone has blocked SMS") -> dict[str, Any]:
    """An entry of the delivery log."""
    facts = {"destination": PERSON, "priceInUSD": 0.0642, "numberOfMessageParts": 2}
    return {
        "notification": {"messageId": "30-1", "timestamp": "2026-03-01 11:00:00.5"},
        "delivery": {**facts, "providerResponse": said_by},
        "status": status,
    }


@pytest.mark.parametrize("sentence", _sns_sms_tables.RESPONSES)
def test_the_log_s_sentences_have_their_class(sentence: str) -> None:
    event = event_of(log_entry(said_by=sentence))
    assert isinstance(event, StatusUpdate)
    assert event.status is Status.FAILED
    assert event.error is not None
    assert event.error.reason == _sns_sms_tables.RESPONSES[sentence]
    assert (event.provider_message_id, event.recipient) == ("30-1", PERSON)
    assert event.occurred_at == datetime(2026, 3, 1, 11, 0, 0, 500_000, tzinfo=UTC)
    assert event.cost == Money(amount=Decimal("0.0642"), currency="USD")
    assert event.segments == 2


def test_the_log_tells_of_success_and_of_what_nobody_knows() -> None:
    event = event_of(log_entry("SUCCESS", "Message has been accepted by phone carrier"))
    assert isinstance(event, StatusUpdate)
    assert (event.status, event.error) == (Status.DELIVERED, None)
    unheard_of = event_of(log_entry(said_by="Something new"))
    assert isinstance(unheard_of, StatusUpdate)
    assert unheard_of.error == VendorError(code="FAILURE", message="Something new")
    for odd in ("PENDING", None, 7, []):
        assert isinstance(event_of(log_entry(odd)), Unrecognised)
    with pytest.raises(Malformed):
        event_of({**log_entry(), "notification": {}})


UNREAD: dict[str, Any] = {
    "plain-text": "Only words.\n",
    "json": "42",
    "ses:setup": "Successfully validated SNS topic for Amazon SES event publishing.",
    "ses:tomorrow": {"eventType": "Tomorrow", "mail": {}},
    "ses:received": {"notificationType": "Received", "mail": {}, "content": "x"},
    "eventbridge:social-messaging": {"detail-type": "x", "source": "aws.social-messaging"},
    "event:registration-changed": {"eventType": "Registration changed", "messageId": "x"},
    "status:text_dreamt_of": {"eventType": "TEXT_DREAMT_OF", "messageId": "x"},
}


@pytest.mark.parametrize("kind", UNREAD)
def test_what_nobody_reads_is_kept_under_a_telling_word(kind: str) -> None:
    event = event_of(UNREAD[kind])
    assert isinstance(event, Unrecognised)
    assert event.kind == kind
    assert event.dedupe_key == "un:" + "k" * 64


@pytest.mark.parametrize(
    "inner",
    [
        *("", "null", "true", '"x"', "[]", "{}", "NaN", "[" * 90 + "]" * 90, "1e999", "9" * 5000),
        *({"eventType": None}, {"eventType": {}, "messageId": 1}, {"context": 5}),
        *({"mail": 1, "eventType": "a" * 999}, {"detail-type": 1, "source": []}),
        {"notification": 1, "delivery": 2},
    ],
    ids=lambda i: str(i)[:24],
)
def test_odd_content_breaks_nothing(inner: Any) -> None:
    event = event_of(inner)
    assert isinstance(event, Unrecognised)
    assert len(event.kind) < 60


def test_ses_says_that_it_is_set_up_in_json_too() -> None:
    event = event_of({"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "…"})
    assert isinstance(event, Unrecognised)
    assert event.kind == "ses:setup"


async def test_confirmations_are_values_and_nothing_is_visited() -> None:
    fetch = source()
    webhook = hook(fetch)
    (wanted,) = await events_of(webhook, request(confirmation()))
    (lost,) = await events_of(webhook, request(confirmation("UnsubscribeConfirmation", 2)))
    assert isinstance(wanted, Handshake) and isinstance(lost, Handshake)
    assert (wanted.kind, lost.kind) == ("subscription", "unsubscribed")
    assert set(wanted.content) == {"topic_arn", "token", "subscribe_url"}
    assert set(lost.content) == {"topic_arn"}
    assert len(fetch.asked) == 1  # the certificate


async def test_the_same_message_id_is_the_same_request_whatever_it_says() -> None:
    webhook = hook(source())
    keys = [(await webhook.verify(request(notification(said(text), 7)))).key for text in ("a", "b")]
    other = (await webhook.verify(request(notification(said("a"), 8)))).key
    assert keys[0] == keys[1] != other


DEVELOPMENT = AwsSnsWebhook.development()


def developer() -> AwsSnsWebhook:
    """A webhook of a developer's machine."""
    return AwsSnsWebhook(AwsSnsWebhookSettings.model_validate(DEVELOPMENT))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (Status.ACCEPTED, "TEXT_QUEUED"),
        (Status.SENT, "TEXT_SENT"),
        (Status.DELIVERED, "TEXT_DELIVERED"),
        (Status.FAILED, "TEXT_UNREACHABLE"),
    ],
)
async def test_a_simulated_status_is_an_event_that_names_its_attempt(
    status: Status, kind: str
) -> None:
    attempt = "att_01jmz3x5e8q7v9k2r4t6w8y0ab"
    update = StatusUpdate(
        dedupe_key="", status=status, vendor_status="", attempt_id=attempt, channel=Channel.SMS
    )
    (event,) = await events_of(developer(), developer().sign(Simulated(url=ROUTE, status=update)))
    assert isinstance(event, StatusUpdate)
    assert (event.status, event.vendor_status, event.attempt_id) == (status, kind, attempt)


async def test_a_simulated_failure_has_the_type_that_was_asked_for() -> None:
    def simulated(code: str) -> Simulated:
        failed = StatusUpdate(
            dedupe_key="",
            status=Status.FAILED,
            vendor_status="failed",
            error=VendorError(code=code, message="Phone number is opted out"),
        )
        return Simulated(url=ROUTE, status=failed)

    (event,) = await events_of(developer(), developer().sign(simulated("TEXT_SPAM")))
    assert isinstance(event, StatusUpdate)
    assert event.error is not None
    assert (event.error.code, event.error.reason) == ("TEXT_SPAM", "opted_out")
    for code in ("30003", "TEXT_DELIVERED", "TEXT_", "RCS_FAILED", ""):
        with pytest.raises(ValueError, match="simulated"):
            developer().sign(simulated(code))


def test_what_a_simulation_needs_is_there_in_development_only() -> None:
    webhook = developer()
    assert webhook.certificate == DEVELOPMENT["AWS_SNS_DEVELOPMENT_CERTIFICATE"]
    assert webhook.certificate_url.startswith(DEVELOPMENT["AWS_SNS_EMULATOR_URL"] + "/")
    keys = {n: v for n, v in DEVELOPMENT.items() if "DEVELOPMENT" in n}
    production = hook(source(), **keys)
    assert (production.certificate, production.certificate_url) == ("", "")
    message = InboundMessage(
        dedupe_key="", channel=Channel.SMS, from_address=PERSON, to_address=OURS
    )
    with pytest.raises(ValueError, match="development only"):
        production.sign(Simulated(url=ROUTE, message=message))
