"""Unsubscribing with one click (RFC 8058): from the headers of a received email to the next one,
which is not sent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.databases import sqlite_copy
from tests.running import PUBLIC, Client, eventually, following, in_thread, variables
from tests.smtp_servers import Mailbox, smtp_server
from tests.test_email import mailing, read

ADA = "ada@example.com"
ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with smtp_server() as made:
        yield made


@pytest.fixture
def client(url: str, tmp_path: Path, box: Mailbox) -> Iterator[Client]:
    with in_thread(variables(tmp_path, url, **mailing(box))) as made:
        yield made


@pytest.fixture
def one(sqlite_url: str, tmp_path: Path, box: Mailbox) -> Iterator[Client]:
    """The same where the database is no matter."""
    with in_thread(variables(tmp_path, sqlite_url, **mailing(box))) as made:
        yield made


def newsletter(client: Client, to: str = ADA, **more: Any) -> dict[str, Any]:
    asked = {"unsubscribe": True, **more}
    return client.send(channel="email", to=to, subject="News", body="Buy!", email=asked)


def link(client: Client, box: Mailbox, to: str = ADA) -> str:
    """The address in an email that was received; the proxy is left out."""
    client.until(newsletter(client, to)["id"], "accepted")
    found = read(box)
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    (url,) = re.fullmatch(r"<(.+)>", found["List-Unsubscribe"]).groups()  # type: ignore[union-attr]
    assert url.startswith(f"{PUBLIC}/unsubscribe/")
    return str(url.removeprefix(PUBLIC))


def click(client: Client, path: str, **more: Any) -> requests.Response:
    """What a mail provider does: no key, no cookie, no redirect."""
    return requests.post(
        client.url + path, **(more or {"data": ONE_CLICK}), timeout=20, allow_redirects=False
    )


def state(client: Client, address: str = ADA) -> str | None:
    answer = client.call("GET", f"/api/opt-outs/email/{address}")
    return str(answer.json()["state"]) if answer.status_code == 200 else None


def test_one_click_takes_a_person_out_of_email_once_and_for_all(
    client: Client, box: Mailbox
) -> None:
    path = link(client, box, to="Ada@Example.com")
    assert ADA not in path.lower() and "example.com" not in path
    first = client.get("/api/messages")["items"][0]
    answer = click(client, path)
    assert answer.status_code == 200 and "set-cookie" not in answer.headers
    found = client.get(f"/api/opt-outs/email/{ADA}")
    assert (found["state"], found["source"]) == ("out", "unsubscribe")
    assert (found["message_id"], found["our_address"]) == (first["id"], "shop@example.com")

    # Said again, nothing is written again.
    assert click(client, path).status_code == 200
    assert len(client.get(f"/api/opt-outs/email/{ADA}/history")["items"]) == 1

    # What follows is not sent.
    next_one = client.until(newsletter(client)["id"], "rejected")
    assert next_one["error"]["code"] == "opted_out"
    assert len(box.taken) == 1

    # Whoever is let in again may leave by the same address again.
    assert client.call("DELETE", f"/api/opt-outs/email/{ADA}").ok
    client.until(newsletter(client)["id"], "accepted")
    assert click(client, path).status_code == 200
    assert state(client) == "out"
    with following(client, 0) as stream:
        eventually(lambda: stream.types().count("contact.opted_out") == 2, "the feed")


def test_a_wish_is_kept_beside_another_reason(one: Client, box: Mailbox) -> None:
    path = link(one, box)
    one.call("PUT", f"/api/opt-outs/email/{ADA}", json={"reason": "asked on the phone"})
    for _ in range(3):
        assert click(one, path).status_code == 200
    words = one.get(f"/api/opt-outs/email/{ADA}/history")["items"]
    assert [(w["source"], w["verdict"]) for w in words] == [
        ("unsubscribe", "repeated"),
        ("api", "applied"),
    ]
    assert one.get(f"/api/opt-outs/email/{ADA}")["detail"] == "asked on the phone"


class Page(HTMLParser):
    """What a person can do on a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fields: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(f"{tag} {given.get('method', '')}".strip())
        if tag == "input":
            self.fields[str(given["name"])] = str(given["value"])


def test_to_look_changes_nothing_and_the_button_does(one: Client, box: Mailbox) -> None:
    path = link(one, box)
    for method in ("GET", "HEAD", "GET"):
        seen = requests.request(method, one.url + path, timeout=20)
        assert seen.status_code == 200 and state(one) is None
    assert seen.headers["content-type"] == "text/html; charset=utf-8"
    policy = seen.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "form-action 'self'" in policy
    assert "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert seen.headers["cache-control"] == "no-store"
    assert seen.headers["referrer-policy"] == "no-referrer"
    page = Page(seen.text)
    assert "form post" in page.tags and "button" in page.tags and "script" not in page.tags
    assert ADA not in seen.text and "shop@example.com" in seen.text
    done = click(one, path, data=page.fields)
    assert done.status_code == 200 and "unsubscribed" in done.text
    assert state(one) == "out"
    assert "button" not in Page(requests.get(one.url + path, timeout=20).text).tags
    assert requests.put(one.url + path, timeout=20).status_code == 405


def test_the_form_may_come_in_parts_and_nothing_else_counts(one: Client, box: Mailbox) -> None:
    path = link(one, box)
    refused: list[tuple[dict[str, Any], int]] = [
        ({"data": b""}, 400),
        ({"data": {"List-Unsubscribe": "No"}}, 400),
        ({"json": ONE_CLICK}, 400),
        ({"data": {f"f{n}": "1" for n in range(20)}}, 400),
        ({"files": {"List-Unsubscribe": (None, "No")}}, 400),
        ({"data": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"data": b"\xff\xfe", "headers": {"Content-Type": "multipart/form-data; b=\xe9"}}, 400),
        ({"data": {"List-Unsubscribe": "One-Click", "more": "x" * 9000}}, 413),
        ({"data": b"\x1f\x8b", "headers": {"Content-Encoding": "gzip"}}, 415),
    ]
    for more, status in refused:
        answer = click(one, path, **more)
        assert answer.status_code == status and "Nothing was changed" in answer.text, more
    assert state(one) is None
    parts = {"List-Unsubscribe": (None, "One-Click")}
    assert click(one, path, files=parts).status_code == 200
    assert state(one) == "out"


def test_an_address_holds_for_one_email_and_no_other_way(one: Client, box: Mailbox) -> None:
    path = link(one, box)
    other = link(one, box, to="bob@example.com")
    start, id_, proof = path.rsplit("/", 1)[1].split(".")
    _, theirs, their_proof = other.rsplit("/", 1)[1].split(".")
    forged = [
        f"{start}.{theirs}.{proof}",
        f"{start}.{id_}.{their_proof}",
        f"{start}.{id_}.{'A' * 43}",
        f"{start}.{id_}",
        f"AA.{id_}.{proof}",
        f"b3RoZXI.{id_}.{proof}",
        f"{start}.{id_}.{proof}=",
        f"{start}.{id_}.{proof}%00",
        "x",
        "x" * 5000,
    ]
    for token in forged:
        answer = click(one, f"/unsubscribe/{token}")
        assert answer.status_code == 404, token
        assert "text/html" in answer.headers["content-type"]
    assert requests.get(f"{one.url}/unsubscribe/x", timeout=20).status_code == 404
    assert state(one) is None and state(one, "bob@example.com") is None


def test_the_log_has_neither_the_address_nor_the_person(
    one: Client, box: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    path = link(one, box)
    with caplog.at_level("DEBUG"):
        click(one, path)
        click(one, path[:-1] + ("A" if path[-1] != "A" else "B"))
        eventually(lambda: "POST /unsubscribe/{token} 404" in caplog.text, "the log")
    told = [r.getMessage() for r in caplog.records if r.name.startswith("gateway")]
    assert not [line for line in told if path[-43:-1] in line or ADA in line]


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("unsubscribe")
    given = variables(folder, sqlite_copy(sqlite_file, folder), **mailing(None), PUBLIC_URL="")
    with in_thread(given, working=False) as made:
        yield made


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, "PUBLIC_URL"),
        ({"email": {"cc": ["bob@example.com"]}}, "one person"),
        ({"email": {"bcc": ["bob@example.com"]}}, "one person"),
        ({"priority": "urgent"}, "urgent"),
    ],
    ids=str,
)
def test_where_it_cannot_be_or_makes_no_sense_it_is_refused(
    idle: Client, more: dict[str, Any], text: str
) -> None:
    body = {"channel": "email", "to": ADA, "subject": "x", "body": "y", **more}
    body["email"] = {"unsubscribe": True, **more.get("email", {})}
    answer = idle.call("POST", "/api/messages", json=body)
    assert answer.status_code == 422
    told = [e["message"] for e in answer.json()["errors"] if e["field"] == "email.unsubscribe"]
    assert any(text in message for message in told), told


def test_the_address_stands_where_the_text_has_a_place_for_it(one: Client, box: Mailbox) -> None:
    place = "{{unsubscribe_url}}"
    text = {"body": f"No more? {place}", "html": f'<a href="{place}">No more?</a>'}
    asked = {"channel": "email", "to": ADA, "subject": "x", **text}
    one.until(one.send(**asked, email={"unsubscribe": True})["id"], "accepted")
    found = read(box)
    url = found["List-Unsubscribe"].strip("<>")
    shown = [found.get_body((kind,)).get_content() for kind in ("plain", "html")]
    assert [each.strip() for each in shown] == [
        f"No more? {url}",
        f'<a href="{url}">No more?</a>',
    ]
    spaced = {**asked, "body": "No more? {{ unsubscribe_url }}", "email": {"unsubscribe": True}}
    one.until(one.send(**spaced)["id"], "accepted")
    assert f"No more? {PUBLIC}/unsubscribe/" in read(box).get_body(("plain",)).get_content()


def test_a_place_for_an_address_that_was_not_asked_for_is_refused_with_the_fix(one: Client) -> None:
    asked = {"channel": "email", "to": ADA, "subject": "x", "body": "No more? {{unsubscribe_url}}"}
    answer = one.call("POST", "/api/messages", json=asked)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "email.unsubscribe"
    assert error["message"].startswith("must be true where the text says {{unsubscribe_url}}")


def test_who_asks_for_none_gets_none(one: Client, box: Mailbox) -> None:
    sent = one.send(channel="email", to=ADA, subject="Your code", body="123456", priority="urgent")
    one.until(sent["id"], "accepted")
    assert read(box)["List-Unsubscribe"] is None
