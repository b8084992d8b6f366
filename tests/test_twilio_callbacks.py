"""How Twilio's status callbacks are read, and what is neither message nor callback."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.domain import (
    Money,
    Status,
    StatusUpdate,
    Unrecognised,
    VendorError,
)
from gateway.errors import REASONS as ERROR_REASONS, Malformed
from providers._twilio_answers import ERRORS
from tests.twilio_forms import (
    ACCOUNT,
    ATTEMPT,
    CALLBACK,
    HOOK,
    PERSON,
    SID,
    one,
)
from webhooks._twilio_tables import KNOWN, REASONS, STATUSES, TYPES, WORDS
from webhooks.twilio import TwilioWebhook

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("word", "status", "code"),
    [
        ("queued", Status.ACCEPTED, None),
        ("accepted", Status.ACCEPTED, None),
        ("scheduled", Status.ACCEPTED, None),
        ("sending", Status.ACCEPTED, None),
        ("sent", Status.SENT, None),
        ("delivered", Status.DELIVERED, None),
        ("undelivered", Status.UNDELIVERED, None),
        ("failed", Status.FAILED, None),
        ("read", Status.READ, None),
        ("canceled", Status.FAILED, "canceled"),
        ("partially_delivered", Status.UNDELIVERED, "partially_delivered"),
    ],
)
async def test_every_word_of_twilio_is_a_status_of_ours(
    word: str, status: Status, code: str | None
) -> None:
    for name in ("MessageStatus", "SmsStatus"):
        event = await one({"MessageSid": SID, name: word})
        assert isinstance(event, StatusUpdate)
        assert (event.status, event.vendor_status) == (status, word)
        assert (event.error and event.error.code) == code
        assert event.dedupe_key == f"st:{SID}:{word}:{code or ''}::"
        assert event.occurred_at is None


async def test_a_word_about_somebody_else_is_not_the_same_word() -> None:
    said = {"MessageSid": SID, "MessageStatus": "delivered", "AccountSid": ACCOUNT, "To": PERSON}
    others = {"To": "+15550100008"}, {"AccountSid": "AC" + "9" * 32}, {}
    keys = [(await one({**said, **other})).dedupe_key for other in others]
    assert len(set(keys)) == 3
    assert (await one(said)).dedupe_key == keys[2]


def test_the_tables_are_whole() -> None:
    assert len(STATUSES) == 11
    assert set(WORDS) == set(STATUSES.values())
    assert set(REASONS.values()) <= {*ERROR_REASONS.values(), "opted_out"}
    assert all(code.isdigit() for code in REASONS)


def test_what_an_answer_may_say_of_delivery_a_callback_may_say_too() -> None:
    told = {str(code) for code in ERRORS if str(code).startswith(("3", "6"))}
    assert told <= REASONS.keys()
    assert all(value.value == word for word, value in TYPES.items())
    assert {"From", "To", "MessageSid", "MediaUrl9", "ReferralCtwaClid", "ToZip"} <= KNOWN


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("", None),
        ("0", None),
        ("30001", VendorError(code="30001", message="words", reason="throttled")),
        ("63018", VendorError(code="63018", message="words", reason="throttled")),
        ("21610", VendorError(code="21610", message="words", reason="opted_out")),
        ("63014", VendorError(code="63014", message="words", reason="opted_out")),
        ("30006", VendorError(code="30006", message="words", reason="rejected")),
        ("30034", VendorError(code="30034", message="words", reason="sender_refused")),
        ("30002", VendorError(code="30002", message="words", reason="account_refused")),
        ("30008", VendorError(code="30008", message="words", reason="ambiguous")),
        ("99999", VendorError(code="99999", message="words", reason=None)),
    ],
)
async def test_an_error_code_says_why(code: str, expected: VendorError | None) -> None:
    fields = {"MessageSid": SID, "MessageStatus": "failed", "ErrorCode": code}
    for name in ("ErrorMessage", "ChannelStatusMessage"):
        event = await one({**fields, name: "words"})
        assert isinstance(event, StatusUpdate)
        assert event.error == expected


@pytest.mark.parametrize(
    ("price", "currency", "expected"),
    [
        ("-0.0075", "USD", Money(amount=Decimal("0.0075"), currency="USD")),
        ("0.10", "eur", Money(amount=Decimal("0.10"), currency="EUR")),
        ("-0.0075", "", None),
        ("", "USD", None),
        ("NaN", "USD", None),
        ("-1e9", "USD", None),
        ("1,5", "USD", None),
    ],
)
async def test_a_price_is_what_we_pay(price: str, currency: str, expected: Money | None) -> None:
    fields = {"MessageSid": SID, "MessageStatus": "sent", "Price": price, "PriceUnit": currency}
    event = await one(fields)
    assert isinstance(event, StatusUpdate)
    assert event.cost == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"?attempt={ATTEMPT}", ATTEMPT),
        (f"?x=1&attempt={ATTEMPT}", ATTEMPT),
        (f"?attempt={ATTEMPT}&x=1", ATTEMPT),
        (f"?attempt={ATTEMPT}&attempt={ATTEMPT}", None),
        ("?attempt=", None),
        ("?attempt=att_short", None),
        ("?attempt=att_" + "a" * 41, None),
        (f"?attempt={ATTEMPT}%00", None),
        (f"?battempt={ATTEMPT}", None),
        ("", None),
    ],
)
async def test_the_attempt_is_read_from_the_signed_url_only(
    query: str, expected: str | None
) -> None:
    event = await one(CALLBACK, HOOK + query)
    assert isinstance(event, StatusUpdate)
    assert event.attempt_id == expected


async def test_messagestatus_and_messagesid_stand_above_their_older_names() -> None:
    fields = {
        "MessageSid": "SMyyy",
        "MessageStatus": "sent",
        "SmsSid": "SMxxx",
        "SmsStatus": "delivered",
    }
    event = await one(fields)
    assert isinstance(event, StatusUpdate)
    assert (event.provider_message_id, event.status) == ("SMyyy", Status.SENT)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"MessageSid": SID, "MessageStatus": "huh"}, "status:huh"),
        ({"MessageSid": SID, "MessageStatus": "<huh>"}, "status:unreadable"),
        ({"MessageSid": SID, "From": PERSON}, "message:empty"),
        ({"CallSid": "CA1", "CallStatus": "busy"}, "call:busy"),
        ({"CallSid": "CA1", "RecordingSid": "RE1"}, "call"),
        ({"ConversationSid": "CH1", "EventType": "onMessageAdded"}, "other:conversation"),
    ],
)
async def test_what_we_do_not_know_is_kept_under_its_kind(
    fields: dict[str, str], kind: str
) -> None:
    event = await one(fields)
    assert isinstance(event, Unrecognised)
    assert event.kind == kind


@pytest.mark.parametrize(
    "fields", [{}, {"Body": "x"}, {" ": ""}, {"AccountSid": ACCOUNT}, {"Cat": "1"}]
)
async def test_a_form_that_names_no_message_is_malformed(fields: dict[str, str]) -> None:
    with pytest.raises(Malformed):
        await one(fields)


def test_the_answer_says_nothing_to_the_person() -> None:
    answer = TwilioWebhook.answer
    assert (answer.status, answer.content_type) == (200, "text/xml")
    assert answer.body.endswith(b"<Response/>")
