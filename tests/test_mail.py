"""Emails of people, from the vendor's post to the conversation: read after the answer, by a program
apart; with their files, in the thread that they answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Desk
from tests.families import AwsTopics
from tests.mail_forms import BOUNDARY, PATH, SECRET, fields, form
from tests.mails import ADA, BOB, PNG, SUPPORT, mail, received, with_picture
from tests.running import Client, eventually, following, in_thread, variables
from tests.stored import Store
from tests.vendors import LoopbackVendor
from webhooks.endpoint import LARGE_AT_ONCE


@pytest.fixture
def environment(url: str, tmp_path: Path, topics: AwsTopics) -> dict[str, str]:
    given = {
        **topics.variables(),
        "EMAIL_PROVIDERS": "aws_ses",
        "AWS_SES_FROM_EMAIL": "shop@example.com",
        "SENDGRID_INBOUND_SECRET": SECRET,
        "INBOUND_MAIL_MAX_BYTES": str(4 * 1024 * 1024),
    }
    return variables(tmp_path, url, **given)


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[Client]:
    with in_thread(environment) as made:
        yield made


def come(client: Client, topics: AwsTopics, told: dict[str, Any]) -> None:
    """Somebody's email, as SES posts it."""
    answer = topics.posted("/api/webhooks/aws-ses", told).to(client)
    assert answer.status_code == 200, answer.text


def inbound(client: Client, count: int = 1, **query: Any) -> list[dict[str, Any]]:
    """What people said, newest first, once there is so much of it."""

    def look() -> list[dict[str, Any]] | None:
        found = client.get("/api/messages", direction="inbound", **query)["items"]
        return found if len(found) >= count else None

    return eventually(look, f"{count} emails")


def test_an_email_becomes_what_a_person_said_with_its_files_and_without_what_it_would_do(
    client: Client, topics: AwsTopics
) -> None:
    raw = with_picture(
        Message_ID="<q1@mail.example.com>", Cc=f"Bob <{BOB}>", Reply_To="ada@home.example"
    ).as_bytes()
    with following(client) as stream:
        for _ in range(2):  # SNS posts twice what it is not sure of
            come(client, topics, received(raw))
        (one,) = inbound(client)
        eventually(lambda: "message.received" in stream.types(one["id"]))
    assert (one["channel"], one["type"], one["status"]) == ("email", "email", "received")
    assert (one["from"], one["to"], one["subject"]) == (ADA, SUPPORT, "A question")
    assert one["body"].strip() == "Grüße 😀"
    assert one["email"]["message_id"] == "<q1@mail.example.com>"
    assert (one["email"]["cc"], one["email"]["reply_to"]) == ([BOB], "ada@home.example")
    verdicts = {name: one["email"][name] for name in ("spf", "dkim", "dmarc", "dmarc_policy")}
    assert verdicts == {"spf": "pass", "dkim": "pass", "dmarc": "fail", "dmarc_policy": "reject"}
    picture, paper = one["media"]
    assert one["html"].strip() == f'<p>Grüße <img src="{picture["url"]}"><img></p>'
    assert one["content"] == {"remote_images": 1}
    assert (picture["content_type"], paper["filename"]) == ("image/png", "résumé.pdf")
    assert client.call("GET", picture["url"]).content == PNG
    shown = client.call("GET", paper["url"])
    assert shown.content == b"%PDF-1.4\n"
    assert shown.headers["content-disposition"].startswith("attachment")
    thread = client.get(f"/api/conversations/{one['conversation_id']}")
    assert (thread["name"], thread["address"], thread["our_address"]) == (
        "Ada Lovelace", ADA, SUPPORT,
    )  # fmt: skip
    assert thread["unread_count"] == 1


def test_an_answer_joins_the_conversation_that_it_answers_if_it_is_that_persons(
    client: Client, topics: AwsTopics, amazon: LoopbackVendor
) -> None:
    sent = client.send(channel="email", to=ADA, subject="Your order", body="Thanks")
    done = client.until(sent["id"], "accepted")
    ours = f"<{done['attempts'][0]['id']}@example.com>"
    theirs = f"<{done['provider_message_id']}@eu-west-1.amazonses.com>"
    answers = [
        (ADA, {"In_Reply_To": ours}),
        (ADA, {"References": f"<x@y.z> {theirs} <other@y.z>"}),
        (BOB, {"In_Reply_To": ours}),
        (ADA, {"In_Reply_To": "<att_0123456789abcdef0123456789abcdef@example.com>"}),
    ]
    for number, (who, headers) in enumerate(answers):
        made = mail(str(number), From=who, **headers)
        come(client, topics, received(made.as_bytes(), number))
    found = {one["body"].strip(): one for one in inbound(client, 4)}
    for number in "01":
        assert found[number]["conversation_id"] == done["conversation_id"]
        assert found[number]["reply_to"] == done["provider_message_id"]
    for number in "23":  # Bob has seen the id; nobody could guess one
        assert found[number]["conversation_id"] != done["conversation_id"]
        assert found[number]["reply_to"] is None
    thread = client.get(f"/api/conversations/{done['conversation_id']}")
    assert thread["our_address"] == "shop@example.com"
    again = client.call(
        "POST", f"/api/conversations/{done['conversation_id']}/messages", json={"body": "Welcome"}
    )
    client.until(again.json()["id"], "accepted")
    wire = json.loads(amazon.requests[-1].body)
    assert "Re: A question" in json.dumps(wire)


def test_one_that_came_to_two_of_our_addresses_is_two_messages_and_other_hands_keep_theirs(
    client: Client, topics: AwsTopics
) -> None:
    raw = with_picture().as_bytes()
    come(client, topics, received(raw, 1, ("sales@example.com", SUPPORT)))
    found = inbound(client, 2)
    assert {one["to"] for one in found} == {"sales@example.com", SUPPORT}
    urls = [file["url"] for one in found for file in one["media"]]
    assert len(set(urls)) == 2  # each is kept once
    assert all(client.call("GET", each).status_code == 200 for each in urls)


def test_one_that_lies_elsewhere_is_told_of_with_its_place(
    client: Client, topics: AwsTopics
) -> None:
    listed = [{"name": "From", "value": "Ada <ada@example.com>"},
              {"name": "Subject", "value": "=?utf-8?q?Gr=C3=BC=C3=9Fe?="},
              {"name": "Content-Type", "value": "multipart/mixed; boundary=b"}]  # fmt: skip
    action = {"type": "S3", "bucketName": "mail", "objectKey": "in/1"}
    told = received(None, mail={"headers": listed})
    told["receipt"]["action"] = action
    come(client, topics, told)
    (one,) = inbound(client)
    assert (one["from"], one["subject"], one["body"], one["media"]) == (ADA, "Grüße", "", [])
    assert one["content"] == {"kept_at": {"type": "S3", "bucket": "mail", "key": "in/1"}}


def test_emails_wait_in_the_inbox_until_somebody_reads_them_also_over_a_restart(
    environment: dict[str, str], topics: AwsTopics, tmp_path: Path, store: Store
) -> None:
    def waiting() -> list[str]:
        return [row[0] for row in store.rows("SELECT id FROM inbox WHERE state = 'pending'")]

    with in_thread(environment, working=False) as client:
        come(client, topics, received(mail("Are you there?").as_bytes()))
        assert client.get("/api/messages", direction="inbound")["items"] == []
    (id_,) = waiting()
    with in_thread(environment) as client:
        (one,) = inbound(client)
        assert one["body"].strip() == "Are you there?"
        told = eventually(lambda: counted(client))
        assert told == ['gateway_inbox_total{state="parsed",webhook="aws_ses"} 1.0']
    assert not waiting()
    assert "parsed -> pending" in Desk(tmp_path, environment).run("inbox", "replay", id_).out
    assert waiting() == [id_]


def counted(client: Client) -> list[str]:
    """The requests that were read, as a scrape tells."""
    shown = client.call("GET", "/metrics").text.splitlines()
    return [line for line in shown if line.startswith("gateway_inbox_total{")]


FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def parse(client: Client, body: bytes, path: str = f"{PATH}/{SECRET}", **more: Any) -> int:
    """Somebody's email, as Inbound Parse posts it; the status of the answer."""
    answer = client.stranger().session.post(
        client.url + path, data=body, headers=FORM, timeout=20, **more
    )
    return answer.status_code


def test_a_form_becomes_what_a_person_said_each_field_in_its_own_charset(
    client: Client,
) -> None:
    said = fields(
        subject="Pidi\u00f3".encode("cp850"),
        text="Test \u2019 \u2026\r\n".encode("windows-1252"),
        html="<p>\u00bfS\u00ed?</p>".encode("iso-8859-1"),
        charsets=json.dumps({"subject": "cp850", "text": "windows-1252", "html": "iso-8859-1"}),
        **{"attachment-info": json.dumps({"attachment1": {"filename": "../../etc/p\0.png"}})},
    )
    body = form(said, [("x", "image/png", PNG)])
    assert parse(client, body) == 200
    assert parse(client, body) == 200
    (one,) = inbound(client)
    assert (one["subject"], one["html"]) == ("Pidi\u00f3", "<p>\u00bfS\u00ed?</p>")
    assert one["body"] == "Test \u2019 \u2026\r\n"
    assert one["provider"] == "sendgrid_inbound"
    assert one["email"]["dmarc"] == "pass"
    (file,) = one["media"]
    assert file["filename"] == "p.png"
    assert client.call("GET", file["url"]).content == PNG


def test_who_does_not_know_the_secret_is_refused_and_nothing_shows_it(
    client: Client, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    body = form(fields())
    assert parse(client, body, PATH) == 401
    assert parse(client, body, f"{PATH}/{'x' * 40}") == 403
    assert parse(client, body, PATH, auth=("gateway", "x" * 40)) == 403
    assert parse(client, b"x" * (5 * 1024 * 1024)) == 413
    assert parse(client, body, PATH, auth=("gateway", SECRET)) == 200
    assert parse(client, form(fields(text="another"))) == 200
    inbound(client, 2)
    assert client.call("GET", f"{PATH}/{SECRET}").status_code == 405
    kept = store.rows("SELECT url, headers FROM inbox")
    assert len(kept) == 2
    for url, headers in kept:
        assert url.endswith(PATH)
        assert SECRET not in headers
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("gateway")]
    assert ours
    assert not [line for line in ours if SECRET in line]


def test_large_emails_are_taken_a_few_at_a_time_and_others_come_past_them(client: Client) -> None:
    said = fields(text="see file")
    large = form(said, [("b.bin", "application/x-b", b"x" * 3_000_000)])
    host = client.url.removeprefix("http://")
    with ExitStack() as held:
        for _ in range(LARGE_AT_ONCE):  # they say what comes, and then it does not come
            slow = held.enter_context(closing(HTTPConnection(host, timeout=20)))
            slow.putrequest("POST", f"{PATH}/{SECRET}")
            for name, value in {**FORM, "content-length": str(len(large))}.items():
                slow.putheader(name, value)
            slow.endheaders(b"--")
        eventually(lambda: parse(client, large) == 503)
        assert parse(client, form(fields())) == 200
    eventually(lambda: parse(client, large) == 200)
    found = next(one for one in inbound(client, 2) if one["media"])
    assert len(client.call("GET", found["media"][0]["url"]).content) == 3_000_000
