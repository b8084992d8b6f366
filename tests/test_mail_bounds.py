"""What emails may not do to those who read them: break lists and the feed, or fill them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway._spool_drain import _bounded
from gateway.domain import Verified, WebhookRequest
from gateway.store.inbox import Delivery, _by_size
from tests.mail_forms import BOUNDARY, PATH, SECRET, fields, form
from tests.mails import ADA, SUPPORT
from tests.running import Client, eventually, following, in_thread, variables
from tests.test_mail import inbound
from webhooks import _mail_html
from webhooks._mail_letter import FILES, OWN, TEXT

HALF = "half \ud800 of a pair, and \x00"


@pytest.fixture
def client(url: str, tmp_path: Path) -> Iterator[Client]:
    """A gateway on each database in turn."""
    with in_thread(variables(tmp_path, url, SENDGRID_INBOUND_SECRET=SECRET)) as made:
        yield made


def come(client: Client, body: bytes) -> None:
    """An email by Inbound Parse."""
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = client.call("POST", f"{PATH}/{SECRET}", data=body, headers=kind)
    assert answer.status_code == 200, answer.text


def test_text_that_cannot_be_stored_is_replaced_and_the_feed_goes_on(client: Client) -> None:
    odd = {"to": [SUPPORT, f"{HALF}@example.com"], "from": f"x{HALF}@example.com"}
    info = {"attachment1": {"type": f"image/{HALF}", "filename": f"{HALF}.png"}}
    told = {"envelope": json.dumps(odd), "attachment-info": json.dumps(info)}
    with following(client) as stream:
        come(client, form(fields(**told), [("a.png", "image/png", b"data")]))
        (one, *_) = inbound(client)
        come(client, form(fields(headers=f"From: {ADA}\r\nMessage-ID: <2@x>\r\n", text="after")))
        inbound(client, 2)
        eventually(lambda: stream.types().count("message.received") >= 2, "the feed")
    (file,) = one["media"]
    assert file["content_type"] == "application/octet-stream"
    assert "\ud800" not in file["filename"] and "\x00" not in file["filename"]


def test_long_texts_are_files_and_long_html_stands_in_no_list(client: Client) -> None:
    page = "<p>" + "long " * 10_000 + "</p>"
    come(client, form(fields(text="y" * (TEXT + 1), html=page)))
    with following(client, 0) as stream:
        (one,) = inbound(client)
    assert (len(one["body"]), one["content"]["cut"]) == (TEXT, True)
    assert [file["filename"] for file in one["media"]] == ["message.txt"]
    assert "html" not in one
    assert all("html" not in event["data"].get("message", {}) for event in stream.events)
    assert client.message(one["id"])["html"] == page


def test_html_that_grows_when_it_is_cleaned_is_a_file(client: Client) -> None:
    opened = "".join(f"<b title={number}>" for number in range(300))
    page = f"<p>{opened}</p>" + "<p>x" * 2000
    assert _mail_html.cleaned(page, {}) is None
    come(client, form(fields(html=page)))
    (one,) = inbound(client)
    assert "html" not in client.message(one["id"])
    assert one["content"]["html_left_out"] is True
    assert [file["filename"] for file in one["media"]] == ["message.html"]


def test_the_text_is_kept_before_the_last_of_many_files(client: Client) -> None:
    many = [(f"{number}.txt", "text/plain", b"x") for number in range(FILES + 5)]
    come(client, form(fields(text="y" * (TEXT + 1)), many))
    (one,) = inbound(client)
    assert one["content"]["files_left_out"] == 5 + OWN
    assert one["media"][-1]["filename"] == "message.txt"
    assert len(one["media"]) == FILES - OWN + 1


def test_addresses_beyond_the_bound_are_counted_and_its_files_are_kept_once(
    client: Client,
    tmp_path: Path,
) -> None:
    people = [f"box{number}@example.com" for number in range(60)]
    envelope = json.dumps({"to": [*people, "box1@EXAMPLE.com"], "from": ADA})
    come(client, form(fields(envelope=envelope), [("a.txt", "text/plain", b"once")]))
    found = inbound(client, 50, limit=200)
    assert len({one["to"] for one in found}) == 50
    assert {one["content"]["recipients_left_out"] for one in found} == {10}
    (url,) = {one["media"][0]["url"] for one in found}
    assert client.call("GET", url).content == b"once"
    assert len([path for path in (tmp_path / "media").rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize("encoded", ["\\ud800", "\\u0000"])
def test_escapes_of_json_are_no_way_around_it(client: Client, encoded: str) -> None:
    envelope = f'{{"to": ["{SUPPORT}"], "from": "x{encoded}@example.org"}}'
    come(client, form(fields(envelope=envelope)))
    (one,) = inbound(client)
    assert "\ud800" not in json.dumps(one, ensure_ascii=False)


def test_a_statement_and_a_batch_of_the_spool_take_so_many_bytes_at_most() -> None:
    mib = 1024 * 1024
    rows = [{"body": bytes(size)} for size in (1, mib, mib, 5 * mib, 1, 1)]
    assert [len(piece) for piece in _by_size(rows)] == [2, 1, 1, 2]
    assert list(_by_size([])) == []


def holding(body: bytes) -> Delivery:
    """A webhook of the spool with this body."""
    request = WebhookRequest(
        method="POST",
        url="https://x",
        headers={},
        body=body,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    said = Verified(webhook="w", connection="c", request=request, key="k", verdict="v")
    return Delivery("inb_1", "default", said, (), "parsed", None)


@pytest.mark.parametrize(("sizes", "taken"), [((9, 1), 1), ((3, 3, 3, 1), 2), ((1, 0, 1), 3)])
def test_the_spool_gives_back_a_bounded_part_of_what_it_holds(
    sizes: tuple[int, ...], taken: int
) -> None:
    batch = [holding(bytes(size * 1024 * 1024)) for size in sizes]
    assert list(_bounded(batch)) == batch[:taken]
    assert list(_bounded([None, None])) == [None, None]
