"""Addresses: what is normalised, what is refused, what is left alone."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given, settings, strategies as st

from gateway.addresses import AddressError, already_e164, email, ours, person, phone
from gateway.domain import Channel


@pytest.mark.parametrize(
    ("text", "region", "expected"),
    [
        ("+15551230001", None, "+15551230001"),
        (" +1 (555) 123-0001 ", None, "+15551230001"),
        ("+44 20 7946 0958", None, "+442079460958"),
        ("+49\u00a030/123456", None, "+4930123456"),
        ("030 123456", "DE", "+4930123456"),
        ("(555) 123.0001", "US", "+15551230001"),
    ],
)
def test_a_phone_number_becomes_e164(text: str, region: str | None, expected: str) -> None:
    assert phone(text, region) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5551230001",
        "+1555",
        "+155512300011111111",
        "+999123456789",
        "+1555123000a",
        "whatsapp:+15551230001",
        "+1555123\x000001",
        "١٢٣٤٥٦٧٨٩",
        "++15551230001x",
        "+1 555 123 0001;ext=3",
    ],
)
def test_what_cannot_be_a_phone_number_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        phone(text)


def test_a_number_of_a_range_that_is_not_assigned_yet_is_taken() -> None:
    assert phone("+19991230001") == "+19991230001"


@pytest.mark.parametrize("text", ["US.13491208655302741918", "DE.ENT.11815799212886844830"])
def test_a_whatsapp_user_id_is_left_as_it_is(text: str) -> None:
    assert person(Channel.WHATSAPP, text) == text
    with pytest.raises(AddressError):
        person(Channel.SMS, text)


@pytest.mark.parametrize(
    ("channel", "text", "expected"),
    [
        (Channel.SMS, "12345", "12345"),
        (Channel.SMS, "ACME", "ACME"),
        (Channel.SMS, "Acme Inc 7", "Acme Inc 7"),
        (Channel.SMS, "+1 555 123 0001", "+15551230001"),
        (Channel.WHATSAPP, "+1 555 123 0001", "+15551230001"),
        (Channel.EMAIL, "Shop@Example.COM", "Shop@example.com"),
    ],
)
def test_our_own_address_may_be_a_code_or_a_name(
    channel: Channel, text: str, expected: str
) -> None:
    assert ours(channel, text) == expected


@pytest.mark.parametrize(
    ("channel", "text"),
    [
        (Channel.SMS, "a name too long"),
        (Channel.SMS, "123456789"),
        (Channel.SMS, "acme\n"),
        (Channel.WHATSAPP, "ACME"),
        (Channel.WHATSAPP, "12345"),
        (Channel.EMAIL, "ACME"),
    ],
)
def test_what_cannot_be_an_address_of_ours_is_refused(channel: Channel, text: str) -> None:
    with pytest.raises(AddressError):
        ours(channel, text)


def test_a_person_is_no_short_code_and_no_name() -> None:
    for text in ("12345", "ACME"):
        with pytest.raises(AddressError):
            person(Channel.SMS, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada@example.com", "ada@example.com"),
        ("Ada.L+tag@Sub.Example.COM", "Ada.L+tag@sub.example.com"),
        ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
    ],
)
def test_an_email_address_keeps_its_local_part(text: str, expected: str) -> None:
    assert email(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ada",
        "ada@",
        "@example.com",
        "ada@example",
        "a da@example.com",
        "ada@exa mple.com",
        "ada@example.com\nBcc: eve@example.com",
        "ada@example.com,eve@example.com",
        "<ada@example.com>",
        "ada@@example.com",
        "ada@ex..ample.com",
        "a\x00da@example.com",
        "a\x1bda@example.com",
        "ada@ex\x07ample.com",
        "a" * 65 + "@example.com",
        "ada@" + "a" * 64 + ".com",
        "a@" + "b." * 126 + "com",
    ],
)
def test_what_cannot_be_an_email_address_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        email(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(list(Channel)), st.text(max_size=40))
def test_an_address_is_printable_and_stays_what_it_is_once_normalised(
    channel: Channel, text: str
) -> None:
    for read in (person, ours):
        try:
            once = read(channel, text)
        except AddressError:
            continue
        assert read(channel, once) == once
        assert once.isprintable()


@settings(max_examples=600, derandomize=True, deadline=None)
@given(
    code=st.sampled_from(sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)),
    rest=st.text("0123456789", min_size=3, max_size=13),
)
def test_the_quick_way_says_yes_only_to_what_the_library_would_leave_as_it_is(
    code: int, rest: str
) -> None:
    text = f"+{code}{rest}"
    if already_e164(text):
        number = phonenumbers.parse(text, None)
        assert phonenumbers.is_possible_number(number)
        assert phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) == text


def test_the_quick_way_knows_ordinary_numbers() -> None:
    for text in ("+15550100001", "+447700900123", "+4915112345678", "+5511987654321"):
        assert already_e164(text), text
