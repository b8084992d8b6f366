"""Email from HTTP to the wire: what is taken, what is refused by field, and what a server gets."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import emails
from tests.databases import sqlite_copy
from tests.running import Client, in_thread, variables
from tests.smtp_servers import Mailbox, smtp_server

ADA = "ada@example.com"
# What ends a line for somebody, and what no header carries.
CUTS = ("\r\n", "\x00", "\x0b", "\x0c", "\x1b", "\x1c", "\x7f", "\x85", "\x9b", "\u2028", "\u2029")


def mailing(box: Mailbox | None) -> dict[str, str]:
    return {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(box.port if box is not None else 9),
        "SMTP_FROM_EMAIL": "shop@example.com",
        "SMTP_FROM_NAME": "The Shop",
        "MESSAGING_PROVIDER": "smtp",
    }


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with smtp_server(utf8=True) as made:
        yield made


@pytest.fixture
def client(url: str, tmp_path: Path, box: Mailbox) -> Iterator[Client]:
    with in_thread(variables(tmp_path, url, **mailing(box))) as made:
        yield made


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path) -> Iterator[Client]:
    """One gateway for the many small refusals."""
    folder = tmp_path_factory.mktemp("email")
    url = sqlite_copy(sqlite_file, folder)
    with in_thread(variables(folder, url, **mailing(None)), working=False) as made:
        yield made


def read(box: Mailbox, number: int = -1) -> Any:
    content = box.taken[number].original_content
    assert isinstance(content, bytes)
    return email.message_from_bytes(content.replace(b"\r\n", b"\n"), policy=email.policy.default)


def test_an_email_goes_from_http_to_the_wire(client: Client, box: Mailbox) -> None:
    sent = client.send(
        channel="email",
        to="Ada@Example.COM",
        subject="Grüße",
        body="Hello",
        html="<p>Hello</p>",
        email={
            "cc": ["bob@example.com"],
            "bcc": ["carl@example.com"],
            "reply_to": "help@example.com",
            "headers": {"X-Order": "7"},
            "tags": ["welcome"],
        },
    )
    assert (sent["type"], sent["subject"], sent["to"]) == ("email", "Grüße", "Ada@example.com")
    assert sent["from"] == "shop@example.com"
    done = client.until(sent["id"], "accepted")
    assert (done["provider"], done["segments"]) == ("smtp", None)
    found = read(box)
    assert found["Subject"] == "Grüße"
    assert str(found["From"]) == "The Shop <shop@example.com>"
    assert (found["To"], found["Cc"]) == ("Ada@example.com", "bob@example.com")
    assert (found["Reply-To"], found["X-Order"]) == ("help@example.com", "7")
    assert found["Date"] is not None
    attempt = done["attempts"][0]["id"]
    assert found["Message-ID"] == f"<{attempt}@example.com>"
    assert box.taken[0].rcpt_tos == ["Ada@example.com", "bob@example.com", "carl@example.com"]


def test_only_html_is_given_a_text(client: Client, box: Mailbox) -> None:
    sent = client.send(
        channel="email", to=ADA, subject="x", html="<h1>Hi</h1><p>you &amp; me</p><style>no</style>"
    )
    client.until(sent["id"], "accepted")
    assert read(box).get_body(("plain",)).get_content().split() == ["Hi", "you", "&", "me"]


def test_a_name_may_stand_before_our_address(client: Client, box: Mailbox) -> None:
    sent = client.send(
        channel="email", to=ADA, subject="x", body="y", **{"from": '"Ann, Sales" <ann@example.com>'}
    )
    assert sent["from"] == "ann@example.com"
    client.until(sent["id"], "accepted")
    sender = read(box)["From"].addresses[0]
    assert (sender.display_name, sender.addr_spec) == ("Ann, Sales", "ann@example.com")
    assert box.taken[0].mail_from == "ann@example.com"


def test_an_internationalised_address_is_one_person(client: Client, box: Mailbox) -> None:
    first = client.send(channel="email", to="jürgen@bücher.example", subject="a", body="1")
    other = client.send(channel="email", to="jürgen@xn--bcher-kva.example", subject="b", body="2")
    assert first["to"] == other["to"] == "jürgen@xn--bcher-kva.example"
    assert first["conversation_id"] == other["conversation_id"]
    client.until(other["id"], "accepted")
    assert box.taken[0].rcpt_tos == ["jürgen@xn--bcher-kva.example"]


@pytest.mark.parametrize("wide", [True, False])
def test_an_internationalised_reply_to_is_written_as_it_is_or_not_at_all(
    sqlite_file: Path, tmp_path: Path, wide: bool
) -> None:
    with smtp_server(utf8=wide) as box:
        given = variables(tmp_path, sqlite_copy(sqlite_file, tmp_path), **mailing(box))
        with in_thread(given) as client:
            parts = {"reply_to": "jörg@exämple.com", "from_name": "Jörg"}
            sent = client.send(channel="email", to=ADA, subject="x", body="y", email=parts)
            done = client.until(sent["id"], "accepted" if wide else "failed")
            plain = {"reply_to": "jorg@exämple.com", "cc": ["bob@exämple.com"]}
            other = client.send(channel="email", to=ADA, subject="x", body="y", email=plain)
            client.until(other["id"], "accepted")
    content = box.taken[-1].original_content
    assert isinstance(content, bytes)
    assert b"Reply-To: jorg@xn--exmple-cua.com\r\n" in content
    assert b"\r\nCc: bob@xn--exmple-cua.com\r\n" in content
    assert "SMTPUTF8" not in box.taken[-1].mail_options
    if wide:
        assert "SMTPUTF8" in box.taken[0].mail_options
        content = box.taken[0].original_content
        assert isinstance(content, bytes)
        assert "\r\nReply-To: jörg@xn--exmple-cua.com\r\n".encode() in content
    else:
        assert (done["error"]["code"], len(box.taken)) == ("smtputf8", 1)
        assert "internationalised" in done["error"]["message"]


def test_an_answer_in_a_conversation_keeps_its_subject(client: Client, box: Mailbox) -> None:
    first = client.send(channel="email", to=ADA, subject="Your order", body="1")
    path = f"/api/conversations/{first['conversation_id']}/messages"
    answer = client.call("POST", path, json={"body": "And one more thing"}).json()
    assert answer["subject"] == "Re: Your order"
    client.until(answer["id"], "accepted")
    assert read(box)["Subject"] == "Re: Your order"


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"subject": None}, "subject"),
        ({"subject": " \t\u00a0\u200b"}, "subject"),
        *(({"subject": f"two{end}lines"}, "subject") for end in CUTS),
        *(({"email": {"from_name": f"two{end}lines"}}, "email.from_name") for end in CUTS),
        *(({"email": {"headers": {"X-A": f"1{end}2"}}}, "email.headers.X-A") for end in CUTS),
        *(({"email": {"tags": [f"a{end}b"]}}, "email.tags.0") for end in CUTS[:3]),
        ({"body": ""}, "body"),
        ({"body": " \t\r\n"}, "body"),
        ({"body": "", "html": "\n "}, "body"),
        ({"body": "Leave: {{unsubscribe_url}}"}, "email.unsubscribe"),
        ({"html": "<a href='{{ unsubscribe_url }}'>Leave</a>"}, "email.unsubscribe"),
        ({"to": "ada"}, "to"),
        ({"to": "ada@example.com, eve@example.com"}, "to"),
        ({"to": "ada@example.com\nBcc: eve@example.com"}, "to"),
        ({"from": "shop"}, "from"),
        ({"from": "a <shop@example.com> b"}, "from"),
        ({"from": "The\u2028Shop <shop@example.com>"}, "from"),
        ({"email": {"cc": ["bob@example.com", "no"]}}, "email.cc.1"),
        ({"email": {"bcc": ["<eve@example.com>"]}}, "email.bcc.0"),
        ({"email": {"cc": [f"p{n}@example.com" for n in range(50)]}}, "email"),
        ({"email": {"reply_to": "x\r\nBcc: eve@example.com"}}, "email.reply_to"),
        ({"email": {"headers": {"Bcc": "eve@example.com"}}}, "email.headers.Bcc"),
        ({"email": {"headers": {"X Y": "1"}}}, "email.headers.X Y"),
        ({"email": {"headers": {"X-A:": "1"}}}, "email.headers.X-A:"),
        ({"email": {"headers": {"X-A\r\nBcc": "1"}}}, "email.headers.'X-A\\r\\nBcc'"),
        ({"email": {"headers": {"X-A": "1\r\nBcc: eve@example.com"}}}, "email.headers.X-A"),
        ({"email": {"headers": {"X-A": "1\nX"}}}, "email.headers.X-A"),
        ({"email": {"headers": {"X-A": "\u2028x"}}}, "email.headers.X-A"),
        ({"email": {"headers": {"X-A": "x" * 901}}}, "email.headers.X-A"),
        ({"email": {"headers": {"X-A": "1", "x-a": "2"}}}, "email.headers.x-a"),
        ({"email": {"tags": ["a b"]}}, "email.tags.0"),
        ({"email": {"from_name": "a\nb"}}, "email.from_name"),
        ({"email": {"attachments": ["http://example.com/a.pdf"]}}, "email.attachments.0.url"),
        ({"email": {"colour": "red"}}, "email.colour"),
        ({"template": {"name": "welcome"}}, "template"),
    ],
    ids=str,
)
def test_what_cannot_be_mailed_is_refused_by_field(
    idle: Client, more: dict[str, Any], field: str
) -> None:
    body = {"channel": "email", "to": ADA, "subject": "x", "body": "y", **more}
    answer = idle.call("POST", "/api/messages", json={k: v for k, v in body.items() if v != ""})
    assert answer.status_code == 422, answer.text
    named = [error["field"] for error in answer.json()["errors"]]
    assert field in named
    assert idle.get("/api/messages")["items"] == []


@pytest.mark.parametrize(
    "name", [*sorted(emails.OURS), "DKIM-Signature", "X-SES-Tag", "X-MC-Tags", "X-SG-EID"]
)
def test_a_header_that_others_set_cannot_be_given(name: str) -> None:
    problems: list[tuple[str, str]] = []
    emails.normalised({"headers": {name.title(): "1"}}, None, problems)
    assert [field for field, _ in problems] == [f"email.headers.{name.title()}"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Your\u2028 order\x0b7", "Re: Your order 7"),
        ("RE: Your\x85order", "RE: Your order"),
        ("Grüße 👩\u200d👧", "Re: Grüße 👩\u200d👧"),
        ("\x0c ", ""),
    ],
)
def test_the_subject_of_an_answer_is_one_line_however_it_came(before: str, after: str) -> None:
    assert emails.answering(before) == after


def test_the_references_of_an_answer_are_bounded_and_clean() -> None:
    many = tuple(f"<{n}@example.com>" for n in range(60))
    listed = emails.thread(
        emails.Answered(message_id="<last@x>", references=(*many, "no", "<a b>"))
    )
    assert (listed[0], listed[-1], len(listed)) == ("<0@example.com>", "<last@x>", 20)
