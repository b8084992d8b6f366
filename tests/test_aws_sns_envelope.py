"""What SNS signed is believed, and nothing else: no other byte, no other cut, no header."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from gateway.domain import InboundMessage, Unrecognised
from gateway.errors import CannotVerifyNow, SignatureInvalid
from tests.sns_signing import (
    HOST,
    NOW,
    ORDER,
    PERSON,
    TOKEN,
    TOPIC,
    URL,
    Source,
    confirmation,
    hook,
    laid_out,
    notification,
    posted,
    request,
    said,
    signer,
    source,
)
from tests.webhook_cases import changed, events_of

pytestmark = pytest.mark.anyio

ENVELOPES = {
    "message": notification(said("Hello")),
    "subject": notification("plain", 2, Subject="A subject"),
    "subscription": confirmation(),
    "unsubscribed": confirmation("UnsubscribeConfirmation", 2),
}
both_versions = pytest.mark.parametrize("version", ["1", "2"])


async def refusal(made: Any, fetch: Source | None = None) -> SignatureInvalid:
    """Why a request is refused."""
    with pytest.raises(SignatureInvalid) as caught:
        await hook(fetch or source()).verify(made)
    return caught.value


@both_versions
@pytest.mark.parametrize("which", ENVELOPES)
async def test_what_sns_signed_is_believed(which: str, version: str) -> None:
    verified = await hook(source()).verify(request(ENVELOPES[which], version=version))
    assert verified.verdict == f"sns rsa-{'sha1' if version == '1' else 'sha256'} v{version}"


def flipped(text: str) -> list[str]:
    """A text with one bit of one of its bytes turned over, wherever that is a text still."""
    data, found = text.encode(), []
    for place in range(len(data)):
        for bit in range(8):
            other = bytearray(data)
            other[place] ^= 1 << bit
            try:
                found.append(other.decode())
            except UnicodeDecodeError:
                continue
    return found


@both_versions
@pytest.mark.parametrize("which", ENVELOPES)
async def test_no_flipped_bit_of_a_signed_field_is_believed(which: str, version: str) -> None:
    webhook, fields = hook(fetch := source()), ENVELOPES[which]
    envelope = signer().signed(fields, version)
    await webhook.verify(posted(laid_out(envelope)))
    order = ORDER["Notification" if fields["Type"] == "Notification" else "Confirmation"]
    for name in (n for n in (*order, "Signature") if n in envelope):
        for other in flipped(envelope[name]):
            with pytest.raises(SignatureInvalid):
                await webhook.verify(posted(json.dumps({**envelope, name: other}).encode()))
    assert fetch.asked == [URL]


@pytest.mark.parametrize("which", ENVELOPES)
async def test_every_field_that_is_signed_or_proves_it_is_needed(which: str) -> None:
    envelope = signer().signed(ENVELOPES[which])
    for name in envelope:
        rest = {n: v for n, v in envelope.items() if n != name}
        await refusal(posted(laid_out(rest)))
        for other in (None, 5, True, [], {}, [envelope[name]], {"S": envelope[name]}):
            await refusal(posted(laid_out({**envelope, name: other})))


async def test_a_subject_counts_where_it_is_and_where_it_is_empty() -> None:
    await hook(source()).verify(request(notification("x", Subject="")))
    envelope = signer().signed(notification("x"))
    await refusal(posted(laid_out({**envelope, "Subject": ""})))
    await refusal(posted(laid_out({**envelope, "Subject": None})))


@pytest.mark.parametrize(
    "cut",
    [
        {"Message": "a", "MessageId": "b", "Subject": "c\nMessageId\n1"},
        {"Message": "a", "MessageId": "b\nSubject\nc\nMessageId\n1"},
    ],
)
async def test_the_same_signed_text_cut_in_another_way_is_not_another_message(
    cut: dict[str, str],
) -> None:
    """Values are joined by line feeds, and a message may hold them."""
    whole = notification("a\nMessageId\nb\nSubject\nc", MessageId="1")
    envelope = signer().signed(whole)
    assert signer().text({**whole, **cut}) == signer().text(whole)
    await refusal(posted(laid_out({**envelope, **cut})))
    await hook(source()).verify(posted(laid_out(envelope)))


async def test_a_notification_is_no_confirmation_and_a_confirmation_no_notification() -> None:
    envelope = signer().signed(confirmation())
    for other in ("Notification", "UnsubscribeConfirmation", "notification", "Other", ""):
        await refusal(posted(laid_out({**envelope, "Type": other})))


@pytest.mark.parametrize("version", ["0", "3", "01", "1 ", " 2", "2.0", "", "１", "sha256", 2, 1])
async def test_only_the_two_signature_versions_are_known(version: Any) -> None:
    fetch = source()
    envelope = signer().signed(notification(said()))
    error = await refusal(posted(laid_out({**envelope, "SignatureVersion": version})), fetch)
    assert "SignatureVersion" in error.detail
    assert fetch.asked == []


async def test_neither_version_passes_for_the_other() -> None:
    for signed, named in (("1", "2"), ("2", "1")):
        envelope = signer().signed(notification(said()), signed)
        await refusal(posted(laid_out({**envelope, "SignatureVersion": named})))


async def test_the_signature_is_exact_base64() -> None:
    envelope = signer().signed(notification(said()))
    proof = envelope["Signature"]
    for other in (
        f"{proof}\n",
        f" {proof}",
        f"{proof[:20]}\n{proof[20:]}",
        proof[:-4],
        f"{proof}==",
    ):
        await refusal(posted(laid_out({**envelope, "Signature": other})))
    for other in (proof.replace("+", "-").replace("/", "_"), "é" + proof, proof + "!"):
        if other != proof:
            await refusal(posted(laid_out({**envelope, "Signature": other})))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'"Type"',
        b"17",
        b"null",
        b"Type=Notification",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"Type":NaN}',
        b"9" * 5000,
        b"\xef\xbb\xbf{}",
        b'{"Type": "Notification", "Type": "Notification"}',
    ],
    ids=lambda b: repr(b[:12]),
)
async def test_what_is_no_envelope_is_unsigned(body: bytes) -> None:
    assert (await refusal(posted(body))).http_status == 401


async def test_a_name_that_stands_twice_is_not_read() -> None:
    body = laid_out(signer().signed(notification(said())))
    for name in ("Message", "TopicArn", "SigningCertURL", "Signature"):
        twice = body.replace(b"{\n", b'{\n  "%b" : "x",\n' % name.encode(), 1)
        assert (await refusal(posted(twice))).missing


async def test_deep_attributes_are_refused_and_flat_ones_ignored() -> None:
    envelope = signer().signed(notification(said()))
    attributes = {"kind": {"Type": "String", "Value": "whatever"}}
    (event,) = await events_of(
        hook(source()), posted(laid_out({**envelope, "MessageAttributes": attributes}))
    )
    assert isinstance(event, InboundMessage)
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    await refusal(posted(laid_out({**envelope, "MessageAttributes": deep})))


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff"])
async def test_half_a_character_was_signed_by_nobody(text: str) -> None:
    envelope = signer().signed(notification("whole"))
    for name in ("Message", "MessageId", "Timestamp", "Signature", "SigningCertURL"):
        body = json.dumps({**envelope, name: envelope[name] + text}).encode()
        await refusal(posted(body))


async def test_a_zero_byte_is_verified_and_never_stored_as_text() -> None:
    (event,) = await events_of(hook(source()), request(notification(said("a\x00b"))))
    assert isinstance(event, InboundMessage)
    assert event.body == "a\ufffdb"
    verified = await hook(source()).verify(request(notification("a\x00b", 2)))
    assert isinstance(hook(source()).parse(verified)[0], Unrecognised)


@pytest.mark.parametrize("message", ["a\x00b", '{"a": "\x00"}', said("a\x00b"), said("😀é\u2028")])
async def test_what_the_inbox_has_reads_as_what_was_just_verified(message: Any) -> None:
    webhook = hook(source())
    for fields in (notification(message, 3), *ENVELOPES.values()):
        verified = await webhook.verify(request(fields))
        assert verified.reading
        assert webhook.parse(replace(verified, reading=None)) == webhook.parse(verified)


async def test_a_raw_delivery_is_refused_whatever_it_holds() -> None:
    fetch = source()
    bodies = [json.dumps(said()).encode(), laid_out(signer().signed(notification(said())))]
    for value in ("true", "false", ""):
        for body in bodies:
            error = await refusal(posted(body, **{"x-amz-sns-rawdelivery": value}), fetch)
            assert error.http_status == 401
            assert "raw message delivery" in error.detail
    assert fetch.asked == []


@pytest.mark.parametrize(
    ("age", "fresh"),
    [
        (timedelta(minutes=74, seconds=59), True),
        (timedelta(minutes=50), True),
        (timedelta(minutes=75, seconds=1), False),
        (timedelta(days=400), False),
        (timedelta(minutes=-14, seconds=-59), True),
        (timedelta(minutes=-15, seconds=-1), False),
    ],
)
async def test_an_old_message_and_one_of_the_future_are_refused(
    age: timedelta, fresh: bool
) -> None:
    made = changed(request(notification(said())), received_at=NOW + age)
    fetch = Source({URL: signer().pem})
    if fresh:
        await hook(fetch).verify(made)
        return
    assert "Timestamp" in (await refusal(made, fetch)).detail
    assert fetch.asked == []


@pytest.mark.parametrize(
    "stamp",
    [
        "2026-03-01 12:00:00.000Z",
        "2026-03-01T12:00:00.000",
        "2026-03-01T12:00:00.000+00:00",
        "2026-03-01T12:00:00,000Z",
        "2026-03-01T12:00Z",
        "2026-02-30T12:00:00.000Z",
        "2026-03-01T12:00:60.000Z",
        "20260301T120000Z",
        "２026-03-01T12:00:00.000Z",
        "1772366400",
        "",
    ],
)
async def test_a_timestamp_is_exact(stamp: str) -> None:
    await refusal(request(notification(said(), Timestamp=stamp)))


async def test_headers_decide_nothing() -> None:
    plain = request(notification(said()))
    for headers in (
        {},
        {"x-amz-sns-message-type": "SubscriptionConfirmation"},
        {"x-amz-sns-topic-arn": f"{TOPIC}-of-others", "content-type": "application/json"},
        {"content-type": "multipart/form-data; boundary=x", "x-amz-sns-message-id": "\ud800"},
    ):
        (event,) = await events_of(hook(source()), changed(plain, headers=headers))
        assert isinstance(event, InboundMessage)
        assert event.from_address == PERSON


async def test_only_listed_topics_may_post_and_none_costs_a_fetch() -> None:
    fetch = source()
    strangers = [
        f"{TOPIC}x",
        TOPIC[:-1],
        TOPIC.upper(),
        f"{TOPIC}\n",
        f" {TOPIC}",
        TOPIC.replace("eu-west-1", "eu-west-2"),
        TOPIC.replace("2109", "2108"),
        "",
        "*",
    ]
    for arn in strangers:
        for fields in (notification(said(), TopicArn=arn), confirmation(TopicArn=arn)):
            await refusal(request(fields), fetch)
    assert fetch.asked == []


async def test_what_is_kept_has_no_signature_no_token_twice_and_no_way_to_unsubscribe() -> None:
    secret = f"{HOST}/?Action=Unsubscribe&SubscriptionArn={TOPIC}:1234"
    for fields in ENVELOPES.values():
        envelope = signer().signed(fields) | {"UnsubscribeURL": secret}
        made = posted(laid_out(envelope), **{"content-length": "1", "authorization": "Basic x"})
        kept = (await hook(source()).verify(made)).request
        assert secret.encode() not in kept.body
        assert envelope["Signature"].encode() not in kept.body
        wanted = 1 if fields["Type"] == "SubscriptionConfirmation" else 0
        assert kept.body.count(TOKEN.encode()) == wanted
        assert "content-length" not in kept.headers
    assert hook(source()).kept_headers == frozenset()


async def test_a_refusal_names_the_check_and_shows_no_secret() -> None:
    envelope = signer().signed(confirmation())
    for change, word in (
        ({"SigningCertURL": f"{HOST}/evil.pem"}, "SigningCertURL"),
        ({"SubscribeURL": f"{HOST}/?Token={TOKEN}"}, "SubscribeURL"),
        ({"TopicArn": f"{TOPIC}-2"}, "AWS_SNS_TOPIC_ARNS"),
        ({"Message": "other"}, "Signature is wrong"),
        ({"Timestamp": "2020-01-01T00:00:00.000Z"}, "minutes old"),
    ):
        error = await refusal(posted(laid_out({**envelope, **change})))
        assert word in error.detail
        assert TOKEN not in error.detail
        assert envelope["Signature"] not in error.detail
        assert error.http_status == 403


async def test_a_certificate_that_cannot_be_had_is_no_forgery() -> None:
    with pytest.raises(CannotVerifyNow, match="HTTP 403"):
        await hook(Source()).verify(request(notification(said())))
