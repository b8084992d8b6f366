"""Emails that mean harm: whatever they are, they take bounded time and memory, run nothing, and
come through, or are kept where an operator finds them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from gateway.domain import Mail, WebhookRequest
from gateway.files import Folder
from gateway.inbound import Inbound
from gateway.mail import MailWorker
from gateway.mail_program import LINE, NotRead, Programs, Said
from gateway.store.reader import Reader
from tests.mail_forms import SECRET, fields, form, posted
from tests.mails import ADA, mail
from tests.stored import CONNECTION, Store
from webhooks import _mail_letter
from webhooks.sendgrid_inbound import PROGRAM, SendgridInboundWebhook

HEAD = b"From: Ada <ada@example.com>\r\nSubject: still here\r\n"
LOUD = "https://spy.example/p.gif"


def nested(depth: int) -> bytes:
    """A multipart in a multipart in a multipart."""
    opening = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
        for n in range(depth)
    )
    return HEAD + opening + b"\r\nthe innermost\r\n"


def page(html: str) -> bytes:
    """An email of HTML alone."""
    return HEAD + b"Content-Type: text/html; charset=utf-8\r\n\r\n" + html.encode()


def parts(number: int) -> bytes:
    """One of many parts."""
    one = b"--b\r\nContent-Type: text/plain; name=f.txt\r\n\r\nx\r\n"
    return HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + one * number + b"--b--\r\n"


def typed(kind: str) -> bytes:
    """An email of a type."""
    return HEAD + b"Content-Type: " + kind.encode() + b"\r\n\r\nsaid all the same"


SLOW = "<i>" * 4900 + "<div></i>" * 90_000  # the cleaner takes a minute for it
HOSTILE: dict[str, bytes] = {
    "2,000 deep": nested(2000),
    "a type of 170 kB": typed("text/plain; " + 'x="y\\";' * 24_000),
    "a type of semicolons": typed("text/plain" + ";" * 170_000),
    "a parameter in 9,999 pieces": typed(
        "text/plain; " + "; ".join(f"a*{n}=b" for n in range(9999))
    ),
    "100,000 headers": b"X-A: b\r\n" * 100_000 + typed("text/plain"),
    "a header of 1 MB": b"X-A: " + b"b" * 1_000_000 + b"\r\n" + typed("text/plain"),
    "one folded 100,000 times": b"X-A: b\r\n" + b" c\r\n" * 100_000 + typed("text/plain"),
    "references of 200 kB": b"References: " + b"<a@b> " * 33_000 + b"\r\n" + typed("text/plain"),
    "brackets in brackets": b"Cc: " + b"(" * 9000 + b"\r\n" + typed("text/plain"),
    "encoded words": b"X: y\r\nCc: " + b"=?utf-8?q?=3C?= " * 5000 + b"\r\n" + typed("text/plain"),
    "5,000 parts": parts(5000),
    "no boundary": typed("multipart/mixed"),
    "a boundary that never comes": typed("multipart/mixed; boundary=never"),
    "the same boundary inside": HEAD
    + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" * 50,
    "a boundary of one letter": HEAD
    + b"Content-Type: multipart/mixed; boundary=-\r\n\r\n"
    + b"---\r\n\r\n" * 50_000,
    "a line of 2 MB": HEAD + b"\r\n" + b"x" * 2_000_000,
    "200,000 elements deep": page("<div>" * 200_000 + "deep"),
    "what is slow to clean": page(SLOW),
    "HTML of 2 MB": page("<p>much</p>" * 200_000),
}


@pytest.fixture(scope="module")
def programs() -> Any:
    made = Programs(seconds=60)
    yield made
    made.close()


@cache
def said(programs: Programs, name: str) -> Said:
    """What a hostile email says, by its program, within the bounds of that alone."""
    order = {"envelope": {"from": ADA, "to": ["us@example.com"]}}
    email = Mail(dedupe_key="ma:1", program=PROGRAM, order=order, data=HOSTILE[name])
    return asyncio.run(programs.read(email))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_email_is_read_within_its_bounds_and_nothing_of_it_is_lost(
    name: str, programs: Programs
) -> None:
    found = said(programs, name)
    facts = found.facts
    assert (facts["from"], facts["subject"]) == (ADA, "still here")
    shown = facts["text"] + (facts["html"] or "")
    assert facts["files"] or shown.strip() or not HOSTILE[name].rpartition(b"\r\n\r\n")[2].strip()
    assert len(facts["files"]) <= 90
    assert len(json.dumps(facts)) < LINE


def test_what_lies_too_deep_or_is_too_much_is_given_as_it_came(programs: Programs) -> None:
    deep = said(programs, "2,000 deep")
    assert b"the innermost" in bytes(deep.files)
    many = said(programs, "5,000 parts")
    assert many.facts["content"]["files_left_out"] > 400  # and the request has all of them
    slow = said(programs, "what is slow to clean")
    assert slow.facts["content"]["html_left_out"] is True
    (file,) = slow.facts["files"]
    assert (file["name"], file["size"]) == ("message.html", len(SLOW))
    long = said(programs, "a line of 2 MB")
    assert (long.facts["content"]["cut"], long.facts["files"][0]["size"]) == (True, 2_000_000)


CHARSETS = [
    "no-such-charset", "idna", "punycode", "unicode_escape", "hex", "utf-7", "../../etc/passwd",
    '"', "utf-16", "undefined", "x" * 500,
]  # fmt: skip


@pytest.mark.parametrize("charset", CHARSETS)
def test_text_in_a_charset_that_is_none_can_be_read_all_the_same(charset: str) -> None:
    raw = (
        HEAD
        + f"Content-Type: text/plain; charset={charset}\r\n\r\n".encode()
        + b"gr\xc3\xbc\xc3\x9fe"
    )
    facts, _ = _mail_letter.mime({}, raw)
    assert charset == "utf-16" or facts["text"] == "grüße"
    lying = _mail_letter.mime({}, raw.replace(b"\xc3\xbc\xc3\x9f", b"\xfc\xdf"))[0]["text"]
    assert charset == "utf-16" or lying == "grüße"


def test_headers_of_8_bits_are_read_and_an_address_in_an_encoded_word_is_none() -> None:
    for raw in ("Grüße".encode(), "Grüße".encode("latin-1")):
        facts, _ = _mail_letter.mime(
            {}, b"From: J\xc3\xb6rg <j@x.de>\r\nSubject: " + raw + b"\r\n\r\n."
        )
        assert (facts["name"], facts["subject"]) == ("Jörg", "Grüße")
    name = b"=?utf-8?q?boss=40bank.example_=3Cboss=40bank.example=3E?="
    tricked = b"From: " + name + b" <eve@evil.example>\r\n\r\n."
    facts, _ = _mail_letter.mime({}, tricked)
    assert facts["from"] == "eve@evil.example"


RUNNING = [
    "<script>alert(1)</script>", '<img src=x onerror="alert(1)">', "<svg onload=alert(1)>",
    '<a href="javascript:alert(1)">x</a>', '<a href="jav&#x09;ascript:alert(1)">x</a>',
    '<iframe src="https://evil.example"></iframe>', "<style>@import 'https://evil.example'</style>",
    '<form action="https://evil.example"><input name=password></form>', "<base href=//x>",
    '<meta http-equiv=refresh content="0;url=https://evil.example">', f"<img src={LOUD}>",
    f'<img srcset="{LOUD} 2x" src=//spy.example/p>', f'<table background="{LOUD}"><tr><td>x',
    f'<p style="background:url({LOUD})">x</p>', f'<video poster="{LOUD}"></video>',
    f'<link rel=stylesheet href="{LOUD}">', '<img src="media:0">', '<img src="data:text/html,x">',
    '<math><mtext></p><script>alert(1)</script>',
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    '<object data="https://evil.example"></object>', '<a href="data:text/html,x">x</a>',
]  # fmt: skip
RUNS = re.compile(r"\son\w+\s*=|script|iframe|form|meta|base|link|object")
LOADS = re.compile(r"(?:src|srcset|background|poster|data|style|action)\s*=", re.IGNORECASE)


@pytest.mark.parametrize("html", RUNNING)
def test_nothing_in_an_emails_html_runs_posts_or_calls_anybody(html: str) -> None:
    facts, _ = _mail_letter.mime({}, page(f"<p>before</p>{html}<p>after</p>"))
    made = facts["html"]
    assert "before" in made
    for tag in re.findall(r"<[^>]*>", made):
        assert not LOADS.search(tag), tag
        assert not RUNS.search(tag), tag
    assert "spy.example" not in made


NAMES = {
    "../../etc/passwd": "passwd", "..\\..\\boot.ini": "boot.ini", "/": "", ".": "", "..": "",
    "a\0b.pdf": "ab.pdf", "in\r\nvoice.pdf": "in voice.pdf", "\u202egpj.exe": "gpj.exe",
    "con\x1b[2J.txt": "con[2J.txt", "x" * 900 + ".pdf": "x" * 130 + ".pdf", 'q"<>|:*?.txt': "q.txt",
    "=?utf-8?q?=2E=2E=2Fetc=2Fpasswd?=": "passwd",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda n: n[:20].encode("unicode_escape").decode())
def test_a_files_name_names_a_file_and_nothing_else(name: str) -> None:
    info = json.dumps({"attachment1": {"filename": name, "type": "application/pdf"}})
    body = form(fields(**{"attachment-info": info}), [("x", "application/pdf", b"%PDF-")])
    from webhooks._mail_form import form as read

    facts, _ = read({"content_type": "multipart/form-data; boundary=xYzZY"}, body)
    assert facts["files"][0]["name"] == (NAMES[name] or "attachment-1.pdf")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_damage_to_an_email_breaks_its_reading(data: st.DataObject) -> None:
    whole = bytearray(SAMPLE)
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(whole)))
        piece = data.draw(st.one_of(st.binary(max_size=20), st.sampled_from(PIECES)))
        whole[at : at + data.draw(st.integers(0, 30))] = piece
    order = {"encoding": data.draw(st.sampled_from(["", "utf8", "base64"]))}
    facts, files = _mail_letter.mime(order, bytes(whole))
    text = json.dumps(facts)
    assert "\\u0000" not in text
    assert not re.search(r"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])", text)
    assert len(facts["files"]) == len(files)


PIECES = [
    b"\r\n", b"\r\n\r\n", b"--b", b"--b--\r\n", b"boundary=", b"=?utf-8?b?", b"?=", b"\0", b"\xff",
    b"Content-Type: multipart/mixed; boundary=b\r\n", b";", b'"', b"<", b"&#0;",
    b"charset*=x'", b"message/rfc822", b"base64", b"(", b":",
]  # fmt: skip
SAMPLE = (
    HEAD
    + b"To: us@example.com\r\nReferences: <a@b> <c@d>\r\n"
    + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Hi <img src=cid:1></p>\r\n"
    + b"--b\r\nContent-Type: image/png; name*=utf-8''p.png\r\nContent-ID: <1>\r\n"
    + b"Content-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n--b--\r\n"
)

MISBEHAVING: Mapping[str, str] = {
    "killed": "while True: pass",
    "killed ": "import time; time.sleep(600)",
    "failed": "raise SystemExit(7)",
    "failed ": "import sys; sys.path.insert(0, ROOT)\n"
    "from webhooks._mail_child import limit; limit(); x = bytearray(600_000_000)",
    "killed  ": "import sys\nwhile True: sys.stdout.write('x' * 1_000_000)",
    "said nothing": "print('[1, 2')",
    "said nothing ": "import os, json; print(json.dumps(dict(os.environ)) and 7)",
    "killed   ": "import os; os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("how", MISBEHAVING)
def test_a_program_that_misbehaves_is_ended_and_its_email_not_read(
    how: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    root = str(Path(__file__).parents[1])
    program.write_text(MISBEHAVING[how].replace("ROOT", repr(root)))
    programs = Programs(seconds=1 if how.startswith("killed") else 60)
    email = Mail(dedupe_key="ma:1", program=program, order={}, data=b"x" * 100_000)
    try:
        with pytest.raises(NotRead, match=how.strip()):
            asyncio.run(programs.read(email))
    finally:
        programs.close()


def states(store: Store) -> set[str]:
    """How far the requests of the inbox are."""
    return {row[0] for row in store.rows("SELECT state FROM inbox")}


@pytest.mark.anyio
@pytest.mark.parametrize("only", [True, False])
async def test_what_a_killed_process_was_reading_is_read_at_once_if_nobody_else_can_be(
    store: Store, tmp_path: Path, only: bool
) -> None:
    hook = SendgridInboundWebhook(
        SendgridInboundWebhook.Settings.model_validate({"SENDGRID_INBOUND_SECRET": SECRET}),
        connection=CONNECTION.id,
    )
    inbound = Inbound(store.batcher, {CONNECTION.id: CONNECTION})
    reader = Reader(store.database)
    worker = MailWorker(
        store.batcher, reader, {hook.name: hook}, inbound, Folder(tmp_path), only_process=only
    )
    store.batcher.start()
    try:
        for name in ("begun", "blamed", "new"):
            request = posted(form(fields(email=mail(name).as_bytes())))
            await inbound.receive(hook, await hook.verify(request))
        leased = "UPDATE inbox SET due_at = due_at + 50000, tries = ? WHERE id = ?"
        ids = [row.id for row in store.rows("SELECT id FROM inbox ORDER BY id")]
        for id_, tries in zip(ids, (1, 3), strict=False):
            store.change(leased, tries, id_)
        worker.rounds.start()
        wanted = {"begun", "new"} if only else {"new"}
        async with asyncio.timeout(30):
            while store.count("messages") < len(wanted):
                await asyncio.sleep(0.02)
    finally:
        await worker.stop()
        await store.batcher.stop()
        reader.close()
    said = {row.body.strip() for row in store.rows("SELECT body FROM messages")}
    assert said == wanted


@pytest.mark.anyio
async def test_an_email_that_nobody_can_read_is_kept_and_the_next_one_comes_past_it(
    store: Store, tmp_path: Path
) -> None:
    hook = SendgridInboundWebhook(
        SendgridInboundWebhook.Settings.model_validate({"SENDGRID_INBOUND_SECRET": SECRET}),
        connection=CONNECTION.id,
    )
    inbound = Inbound(store.batcher, {CONNECTION.id: CONNECTION})
    reader = Reader(store.database)
    worker = MailWorker(
        store.batcher, reader, {hook.name: hook}, inbound, Folder(tmp_path), again=10, poll=0.05
    )
    bad: WebhookRequest = posted(b"no form at all")
    store.batcher.start()
    try:
        for request in (bad, posted(form(fields(email=mail().as_bytes())))):
            await inbound.receive(hook, await hook.verify(request))
        worker.rounds.start()
        async with asyncio.timeout(30):
            while states(store) != {"parsed", "malformed"}:
                await asyncio.sleep(0.05)
            store.change("UPDATE inbox SET state = 'pending', due_at = 0 WHERE state = 'parsed'")
            while states(store) != {"parsed", "malformed"}:  # read again, and stored once
                await asyncio.sleep(0.05)
    finally:
        await worker.stop()
        await store.batcher.stop()
        reader.close()
    assert [tuple(row) for row in store.rows("SELECT from_address FROM messages")] == [(ADA,)]
    wanted = "SELECT body, detail, tries FROM inbox WHERE state = 'malformed'"
    ((body, detail, tries),) = store.rows(wanted)
    assert (bytes(body), tries) == (b"no form at all", 3)
    assert "3 tries" in detail
