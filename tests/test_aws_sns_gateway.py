"""SNS through a whole gateway: posted over HTTP, verified by a certificate on loopback, stored."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.running import eventually, following, in_thread, variables
from tests.sns_played import FILE, PATH, Sns, playing
from tests.sns_signing import (
    OURS,
    PERSON,
    TOKEN,
    TOPIC,
    confirmation,
    happened,
    headers,
    notification,
    said,
)
from tests.test_aws_sns_confirm import MADE, confirmed
from tests.vendors import Reply


@pytest.fixture
def sns(url: str, tmp_path: Path) -> Iterator[Sns]:
    """A gateway on each database in turn."""
    with playing(url, tmp_path) as sns:
        yield sns


def test_a_person_s_message_reaches_the_application(sns: Sns) -> None:
    with following(sns.client) as stream:
        answer = sns.post(notification(said("Wie geht's? 👋")))
        assert (answer.status_code, answer.content) == (200, b"")
        eventually(lambda: "message.received" in stream.types())
    (message,) = sns.client.get("/api/messages", direction="inbound")["items"]
    assert (message["from"], message["to"]) == (PERSON, OURS)
    assert (message["body"], message["channel"]) == ("Wie geht's? 👋", "sms")
    assert message["content"] == {"keyword": "HELLO"}
    assert message["provider"] == "aws_sns"
    assert [r.path for r in sns.vendor.requests] == [FILE]


@pytest.mark.parametrize(
    "path",
    [
        *("/api/webhooks/sms", "/api/webhooks/whatsapp", "/api/webhooks/aws"),
        *("/api/webhooks/aws_sns", "/api/webhooks/aws-whatsapp", "/api/sms/webhook/aws"),
    ],
)
def test_every_route_of_sns_takes_every_kind(sns: Sns, path: str) -> None:
    assert sns.post(notification(said()), path).status_code == 200
    assert sns.post(notification("Only words", 2), path).status_code == 200
    assert len(sns.client.get("/api/messages", direction="inbound")["items"]) == 1


def test_a_subscription_is_confirmed_by_itself_and_only_once(
    sns: Sns, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert sns.post(confirmation()).status_code == 200
    row = sns.subscription("confirmed")
    assert (row["topic"], row["subscription_arn"]) == (TOPIC, MADE)
    assert row["endpoint"] == f"https://gateway.example.com{PATH}"
    assert sns.visits == [f"/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}"]
    assert sns.post(confirmation()).status_code == 200
    assert sns.rows("SELECT token FROM subscriptions") == [{"token": None}]
    assert len(sns.rows("SELECT id FROM inbox")) == 1
    assert TOKEN not in caplog.text
    assert len(sns.visits) == 1


def test_a_subscription_that_sns_cannot_confirm_yet_is_confirmed_later(sns: Sns) -> None:
    sns.vendor.pages["/"] = Reply(status=500)
    sns.post(confirmation())
    waiting = eventually(lambda: sns.rows("SELECT * FROM subscriptions WHERE detail IS NOT NULL"))
    assert (waiting[0]["state"], waiting[0]["token"]) == ("pending", TOKEN)
    sns.vendor.pages["/"] = Reply(body=confirmed())
    assert sns.subscription("confirmed")["detail"] is None
    assert len(sns.visits) == 2


def test_an_unsubscription_is_told_loudly_and_never_visited(
    sns: Sns, caplog: pytest.LogCaptureFixture
) -> None:
    sns.post(confirmation(), age=timedelta(seconds=30))
    sns.subscription("confirmed")
    visits = sns.visits
    assert sns.post(confirmation("UnsubscribeConfirmation", 2)).status_code == 200
    assert sns.subscription("unsubscribed")["subscription_arn"] == MADE
    (told,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert TOPIC in told
    assert "subscribe it again" in told
    sns.post(notification("later", 9))
    assert sns.visits == visits


def test_an_event_that_comes_before_its_attempt_waits_for_it(sns: Sns) -> None:
    assert sns.post(notification(happened())).status_code == 200
    (receipt,) = sns.rows("SELECT * FROM receipts")
    assert (receipt["verdict"], receipt["status"]) == ("parked", "delivered")
    assert receipt["provider_message_id"] == happened()["messageId"]


def test_repetitions_change_nothing(sns: Sns) -> None:
    for number, inner in enumerate((said(), happened(), "words"), 1):
        for _ in range(3):
            assert sns.post(notification(inner, number)).status_code == 200
    sns.post(notification(said(), 4))  # the same message, published twice
    sns.post(notification(happened(), 5))
    assert len(sns.rows("SELECT id FROM inbox")) == 5
    assert len(sns.rows("SELECT id FROM messages")) == 1
    assert len(sns.rows("SELECT id FROM receipts")) == 1


def test_what_is_kept_can_neither_unsubscribe_nor_be_posted_again(sns: Sns) -> None:
    sns.post(notification(said()))
    sns.post(confirmation())
    for row in sns.rows("SELECT body, headers FROM inbox"):
        kept = bytes(row["body"]) + row["headers"].encode()
        assert b"Unsubscribe" not in kept
        assert b'"Signature"' not in kept
        assert b"x-amz" not in kept


def test_what_is_not_proved_is_refused_and_not_kept(
    sns: Sns, caplog: pytest.LogCaptureFixture
) -> None:
    others = notification(said(), TopicArn=f"{TOPIC}-of-others")
    assert sns.post(others).status_code == 403
    assert sns.post(confirmation(TopicArn=f"{TOPIC}-of-others")).status_code == 403
    assert sns.post(notification(said()), age=timedelta(minutes=80)).status_code == 403
    raw = sns.client.session.post(
        sns.client.url + PATH,
        json=said(),
        headers={**headers(), "x-amz-sns-rawdelivery": "true"},
        timeout=20,
    )
    assert raw.status_code == 401
    assert sns.vendor.requests == []
    assert sns.rows("SELECT id FROM inbox") == []
    lines = [r.getMessage() for r in caplog.records if r.name == "gateway.webhooks"]
    words = ("AWS_SNS_TOPIC_ARNS", "AWS_SNS_TOPIC_ARNS", "minutes old", "raw message delivery")
    for line, word in zip(lines, words, strict=True):
        assert word in line


def test_a_certificate_that_is_away_puts_the_vendor_off(sns: Sns) -> None:
    sns.vendor.pages[FILE] = Reply(status=500)
    answer = sns.post(notification(said()))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert sns.rows("SELECT id FROM inbox") == []


def test_without_topics_the_route_is_off_and_the_log_names_the_variable(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with in_thread(variables(tmp_path, sqlite_url)) as client:
        for name in ("aws-sns", "aws", "aws-whatsapp"):
            answer = client.session.post(
                f"{client.url}/api/webhooks/{name}", data=b"{}", timeout=20
            )
            assert answer.status_code == 403
    lines = [r.getMessage() for r in caplog.records if "is off" in r.getMessage()]
    assert len(lines) == 3
    assert all("AWS_SNS_TOPIC_ARNS" in line for line in lines)
