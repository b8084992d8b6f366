"""What becomes of emails, from HTTP to the vendor and back: statuses, what people did, and who is
not written to again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import WebhookRequest
from tests.aws_account import KEY_ID, REGION, SECRET
from tests.email_events import batch, bounce, event, key, ses, shown
from tests.families import AwsTopics
from tests.outbound_cases import entry_of
from tests.running import Client, eventually, following, in_thread, variables
from tests.vendors import LoopbackVendor

ADA, BOB = "ada@example.com", "bob@example.com"
JO, JO_STORED = "jo@exämple.com", "jo@xn--exmple-cua.com"


@pytest.fixture
def sendgrid() -> Iterator[LoopbackVendor]:
    with LoopbackVendor(answer=entry_of("sendgrid").data["answer"]) as made:
        yield made


@pytest.fixture
def client(
    url: str, tmp_path: Path, sendgrid: LoopbackVendor, amazon: LoopbackVendor, topics: AwsTopics
) -> Iterator[Client]:
    given = {
        **topics.variables(),
        "MESSAGING_PROVIDER": "aws",
        "EMAIL_PROVIDERS": "aws_ses, sendgrid",
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": amazon.url,
        "AWS_SES_FROM_EMAIL": "shop@example.com",
        "SENDGRID_API_KEY": "SG.recognisable-8c21",
        "SENDGRID_FROM_EMAIL": "shop@example.com",
        "SENDGRID_API_URL": sendgrid.url,
        "SENDGRID_WEBHOOK_PUBLIC_KEY": shown(key()),
    }
    with in_thread(variables(tmp_path, url, **given)) as made:
        yield made


def mailed(client: Client, provider: str, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """An email that a vendor took, and its attempt."""
    given = {"to": ADA, "subject": "Hello", "body": "Hi", **more}
    if provider == "sendgrid":
        given["metadata"] = {"by": "sendgrid"}
    sent = client.send(channel="email", **given)
    done = client.until(sent["id"], "accepted")
    return done, done["attempts"][-1]


def about(done: dict[str, Any], attempt: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What an SES event says of which email."""
    tags = {"attempt_id": [attempt["id"]]}
    return {"messageId": done["provider_message_id"], "tags": tags, **more}


def post(client: Client, request: WebhookRequest) -> int:
    """Posts a webhook; the status of its answer."""
    return client.session.post(
        f"{client.url}/api/webhooks/sendgrid", data=request.body, headers=dict(request.headers),
        timeout=20,
    ).status_code  # fmt: skip


def now() -> datetime:
    return datetime.now(UTC)


def test_what_ses_tells_by_its_topic_is_the_emails_status(
    client: Client, topics: AwsTopics
) -> None:
    done, attempt = mailed(client, "aws_ses")
    assert done["provider"] == "aws_ses"
    with following(client) as stream:
        for body in (
            ses("Delivery", {"recipients": [ADA]}, **about(done, attempt)),
            ses("Open", {"userAgent": "Mozilla/5.0"}, **about(done, attempt, tags={})),
        ):
            for _ in range(2):
                sent = topics.posted("/api/webhooks/aws-ses", body).to(client)
                assert sent.status_code == 200, sent.text
        eventually(lambda: "message.opened" in stream.types(done["id"]))
        told = stream.types(done["id"])
        opened = next(e for e in stream.events if e["type"] == "message.opened")
    assert client.message(done["id"])["status"] == "delivered"
    assert (told.count("message.delivered"), told.count("message.opened")) == (1, 1)
    assert opened["data"]["message"]["engagement"]["userAgent"] == "Mozilla/5.0"


def test_who_bounced_for_good_is_not_written_to_again(client: Client, topics: AwsTopics) -> None:
    done, attempt = mailed(client, "aws_ses")
    body = ses("Bounce", bounce("Permanent", "NoEmail", "Ada@Example.com"), **about(done, attempt))
    with following(client) as stream:
        assert topics.posted("/api/webhooks/aws-sns", body).to(client).status_code == 200
        shown_now = client.until(done["id"], "bounced")
        later = client.send(channel="email", to=BOB, subject="x", body="y")
        eventually(lambda: stream.types(later["id"]))
        assert stream.types(done["id"]).count("message.bounced") == 1
    assert shown_now["error"]["code"] == "bounce_permanent:noemail"
    again = client.send(channel="email", to="ada@EXAMPLE.com", subject="x", body="y")
    refused = client.until(again["id"], "rejected")
    assert (refused["attempts"], refused["error"]["code"]) == ([], "suppressed")
    (logged,) = client.get("/api/communications", status="rejected")["items"]
    assert (logged["provider"], logged["attempts"]) == (None, 0)
    (listed,) = client.get("/api/suppressions", reason="bounce")["items"]
    assert (listed["address"], listed["source"], listed["detail"]) == (ADA, "vendor", "bounced")
    client.until(later["id"], "accepted")


def test_a_full_mailbox_and_a_word_that_it_was_no_spam_stop_nobody(
    client: Client, topics: AwsTopics
) -> None:
    done, attempt = mailed(client, "aws_ses")
    taken_back = {
        "complainedRecipients": [{"emailAddress": ADA}],
        "complaintFeedbackType": "not-spam",
    }
    for body in (
        ses("Complaint", taken_back, **about(done, attempt)),
        ses("Bounce", bounce("Transient", "MailboxFull"), **about(done, attempt)),
    ):
        assert topics.posted("/api/webhooks/aws-sns", body).to(client).status_code == 200
    client.until(done["id"], "bounced")
    again = client.send(channel="email", to=ADA, subject="x", body="y")
    client.until(again["id"], "accepted")


def test_a_copys_bounce_is_not_the_persons(client: Client, topics: AwsTopics) -> None:
    done, attempt = mailed(client, "aws_ses", email={"cc": [BOB]})
    both = about(done, attempt, destination=[ADA, BOB])
    for body in (
        ses("Bounce", bounce("Permanent", "General", BOB), **both),
        ses("Delivery", {"recipients": [ADA]}, **both),
    ):
        assert topics.posted("/api/webhooks/aws-sns", body).to(client).status_code == 200
    assert client.until(done["id"], "delivered")["error"] is None
    again = client.send(channel="email", to=BOB, subject="x", body="y")
    client.until(again["id"], "rejected")


def test_sendgrids_batches_count_once_in_whatever_order(
    client: Client, amazon: LoopbackVendor
) -> None:
    amazon.stop()
    done, attempt = mailed(client, "sendgrid")
    assert done["provider"] == "sendgrid"
    id_ = f"{done['provider_message_id']}.filter0001.16648.5515E0B88.0"
    known = {"sg_message_id": id_, "attempt_id": attempt["id"], "timestamp": int(now().timestamp())}
    whole = batch(
        event("click", 3, url="https://shop.example.com", **known),
        event("delivered", 2, **known),
        event("processed", 1, **known),
        "what is this",
        at=now(),
    )
    with following(client) as stream:
        for _ in range(3):
            assert post(client, whole) == 204
        eventually(lambda: "message.clicked" in stream.types(done["id"]))
        told = stream.types(done["id"])
    assert client.message(done["id"])["status"] == "delivered"
    assert (told.count("message.delivered"), told.count("message.clicked")) == (1, 1)


def test_an_asynchronous_bounce_without_an_id_finds_its_email(
    client: Client, amazon: LoopbackVendor
) -> None:
    amazon.stop()
    done, attempt = mailed(client, "sendgrid")
    made = event("bounce", 1, sg_message_id=None, attempt_id=attempt["id"], reason="550 5.1.1 no")
    assert post(client, batch(made, at=now())) == 204
    assert client.until(done["id"], "bounced")["error"]["message"] == "550 5.1.1 no"
    again = client.send(channel="email", to=ADA, subject="x", body="y")
    client.until(again["id"], "rejected")


def test_whom_sendgrid_has_on_its_lists_is_suppressed_here_too(
    client: Client, amazon: LoopbackVendor
) -> None:
    amazon.stop()
    for number, (reason, why) in enumerate((
        ("Bounced Address", "bounce"),
        ("Spam Reporting Address", "complaint"),
        ("Unsubscribed Address", "unsubscribe"),
        ("Invalid", "bounce"),
        ("Spam Content", None),
        ("Recipient List over Package Quota", None),
    )):  # fmt: skip
        to, copied = f"p{number}@example.com", f"copy{number}@example.com"
        done, attempt = mailed(client, "sendgrid", to=to, email={"cc": [copied]})
        known = {"reason": reason, "attempt_id": attempt["id"], "sg_message_id": None}
        told = [
            event("dropped", 2 * number + n, email=email, **known)
            for n, email in enumerate((to, copied))
        ]
        with following(client) as stream:
            assert post(client, batch(*told, at=now())) == 204
            failed = client.until(done["id"], "failed")
            assert failed["error"]["message"] == reason
            for address in (to, copied):
                found = client.call("GET", f"/api/suppressions/{address}")
                if why is None:
                    assert found.status_code == 404
                    continue
                row = found.json()
                assert (row["reason"], row["source"]) == (why, "vendor")
                assert (row["message_id"], row["attempt_id"]) == (done["id"], attempt["id"])
            if why is not None:
                assert refused(client, to)[0] == "rejected"
                eventually(lambda: "message.rejected" in stream.types())
            # The complaint was about an earlier email, so this one's event is that it failed.
            assert not {"message.complained", "message.unsubscribed"} & {*stream.types()}


def test_a_suppression_names_the_email_by_the_vendors_id_alone(
    client: Client, amazon: LoopbackVendor
) -> None:
    amazon.stop()
    done, attempt = mailed(client, "sendgrid")
    known = {"sg_message_id": f"{done['provider_message_id']}.filter0001.1.0", "attempt_id": None}
    assert post(client, batch(event("spamreport", 1, **known), at=now())) == 204
    (row,) = client.get("/api/suppressions")["items"]
    assert row["reason"] == "complaint"
    assert (row["message_id"], row["attempt_id"]) == (done["id"], attempt["id"])


def test_what_is_not_signed_by_sendgrid_changes_nothing(
    client: Client, amazon: LoopbackVendor
) -> None:
    amazon.stop()
    done, attempt = mailed(client, "sendgrid")
    good = batch(event("delivered", attempt_id=attempt["id"]), at=now())
    assert post(client, replace(good, body=good.body.replace(b"delivered", b"spamreport"))) == 403
    bare = {n: v for n, v in good.headers.items() if "signature" not in n}
    assert post(client, replace(good, headers=bare)) == 401
    assert client.message(done["id"])["status"] == "accepted"


def refused(client: Client, to: str) -> tuple[str, str]:
    """What becomes of an email to somebody who is not written to."""
    again = client.send(channel="email", to=to, subject="x", body="y")
    return again["status"], again["error"]["code"]


def test_who_bounced_is_the_same_person_however_a_vendor_writes_the_address(
    client: Client, amazon: LoopbackVendor
) -> None:
    amazon.stop()
    for number, written in enumerate((
        "{}jo@exämple.com",
        "{}JO@EXÄMPLE.COM",
        "{}jo@exa\u0308mple.com",
        '"Jörg, of Example" <{}jo@exämple.com>',
        "{}jo@XN--EXMPLE-CUA.com",
    )):  # fmt: skip
        to = f"p{number}{JO}"
        done, attempt = mailed(client, "sendgrid", to=to)
        told = written.format(f"p{number}")
        made = event("bounce", number, email=told, sg_message_id=None, attempt_id=attempt["id"])
        assert post(client, batch(made, at=now())) == 204
        assert client.until(done["id"], "bounced")["error"]["code"].startswith("bounce_permanent")
        assert refused(client, to) == ("rejected", "suppressed")
        for asked in (to, f"P{number}{JO}", f"p{number}{JO_STORED}"):
            assert client.get(f"/api/suppressions/{asked}")["address"] == f"p{number}{JO_STORED}"
        (found,) = client.get("/api/opt-outs", address=to)["items"]
        assert client.call("DELETE", f"/api/suppressions/{to}").json()["state"] == "in"
        client.until(client.send(channel="email", to=to, subject="x", body="y")["id"], "accepted")
    assert (found["address"], found["detail"]) == (f"p4{JO_STORED}", "bounced")


def test_complaints_and_goodbyes_block_the_person_of_an_international_address(
    client: Client, topics: AwsTopics
) -> None:
    done, attempt = mailed(client, "aws_ses", to=JO)
    told = {"feedbackId": "0100-2", "complainedRecipients": [{"emailAddress": f'"J" <{JO}>'}]}
    body = ses("Complaint", told, **about(done, attempt))
    assert topics.posted("/api/webhooks/aws-ses", body).to(client).status_code == 200
    assert refused(client, JO) == ("rejected", "suppressed")
    assert post(client, batch(event("unsubscribe", 1, email=f"ada@{JO}"), at=now())) == 204
    left = event("unsubscribe", 2, email="ada@EXÄMPLE.com", sg_message_id=None, attempt_id=None)
    assert post(client, batch(left, at=now())) == 204
    assert refused(client, "ada@exämple.com") == ("rejected", "opted_out")
    assert [row["address"] for row in client.get("/api/suppressions")["items"]] == [
        "ada@xn--exmple-cua.com",
        f"ada@{JO}",  # what is no address stays as it came
        JO_STORED,
    ]
