"""What a mail server says of people, from HTTP to the wire and back: who is not written to again,
and who of an email was refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import FetchedMedia
from providers import _email, _fetch, smtp
from tests.databases import sqlite_copy
from tests.running import Client, eventually, in_thread, variables
from tests.smtp_servers import Mailbox, smtp_server
from tests.vendors import Fault, LoopbackVendor, Reply

ADA, BOB = "ada@example.com", "bob@example.com"


def mailing(box: Mailbox) -> dict[str, str]:
    return {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(box.port),
        "SMTP_FROM_EMAIL": "shop@example.com",
        "MESSAGING_PROVIDER": "smtp",
        "BREAKER_FAILURES": "1",
        "BREAKER_MESSAGES": "1",
    }


@pytest.fixture(scope="module")
def box() -> Iterator[Mailbox]:
    with smtp_server() as made:
        yield made


@pytest.fixture(scope="module")
def client(
    tmp_path_factory: pytest.TempPathFactory, sqlite_file: Path, box: Mailbox
) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("refusals")
    with in_thread(variables(folder, sqlite_copy(sqlite_file, folder), **mailing(box))) as made:
        yield made


def mail(to: str = ADA, **more: Any) -> dict[str, Any]:
    return {"channel": "email", "to": to, "subject": "s", "body": "b", **more}


def reason_of(client: Client, address: str) -> str | None:
    """Why an address is not written to."""
    answer = client.call("GET", f"/api/suppressions/{address}")
    return answer.json()["reason"] if answer.status_code == 200 else None


def test_a_mailbox_that_there_is_not_is_suppressed_until_it_is_lifted(
    url: str, tmp_path: Path
) -> None:
    with smtp_server() as box, in_thread(variables(tmp_path, url, **mailing(box))) as client:
        box.plan["recipient"] = ["550 5.1.1 <Ada@example.com>: no such user"]
        failed = client.until(client.send(**mail("Ada@Example.com"))["id"], "failed")
        (attempt,) = failed["attempts"]
        assert attempt["error"]["class"] == "bounced"
        assert failed["error"]["code"] == "550 5.1.1"
        known = client.get(f"/api/suppressions/{ADA}")
        assert (known["reason"], known["source"], known["detail"]) == (
            "bounce",
            "vendor",
            "bounced",
        )
        assert (known["message_id"], known["attempt_id"]) == (failed["id"], attempt["id"])
        refused = client.send(**mail(ADA))
        assert (refused["status"], refused["error"]["code"]) == ("rejected", "suppressed")
        copied = client.send(**mail(BOB, email={"cc": [ADA]}))
        assert (copied["status"], copied["error"]["code"]) == ("rejected", "suppressed")
        assert box.seen == []
        assert client.call("DELETE", f"/api/suppressions/{ADA}").json()["state"] == "in"
        client.until(client.send(**mail(ADA))["id"], "accepted")
        assert box.taken[0].rcpt_tos == [ADA]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("550 5.1.10 Recipient not found", "bounce"),
        ("551 5.1.6 moved, and nobody knows where to", "bounce"),
        ("550 5.2.1 receiving mail at a rate that prevents more", None),
        ("550 5.2.2 mailbox full", None),
        ("550 5.7.1 blocked by policy, see 5.1.1", None),
        ("554 5.7.606 access denied, banned sending IP", None),
        ("550 5.1.7 bad sender", None),
        ("550 5.1.8 sender's domain", None),
        ("550 no such user", None),
    ],
)
def test_only_a_mailbox_that_will_never_be_is_suppressed(
    client: Client, box: Mailbox, said: str, why: str | None
) -> None:
    person = f"{''.join(filter(str.isalnum, said))[:40]}@example.com"
    box.plan["recipient"] = [said]
    failed = client.until(client.send(**mail(person))["id"], "failed")
    assert failed["attempts"][0]["error"]["class"] == ("bounced" if why else "rejected")
    assert reason_of(client, person) == why


def test_a_sender_that_is_refused_suppresses_nobody(client: Client, box: Mailbox) -> None:
    box.plan["sender"] = ["550 5.1.1 no such sender"]
    sent = client.send(**mail("carl@example.com", **{"from": "other@example.com"}))
    client.until(sent["id"], "queued")
    assert reason_of(client, "carl@example.com") is None
    client.call("POST", f"/api/messages/{sent['id']}/cancel")


def test_a_copy_that_is_refused_is_named_by_its_place_and_in_no_log(
    client: Client, box: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    box.plan["recipient"] = ["250 OK", "250 OK", "250 OK", "550 5.1.1 <eve@example.com>: nobody"]
    copies = {"cc": [BOB, "dan@example.com"], "bcc": ["eve@example.com"]}
    failed = client.until(client.send(**mail("fay@example.com", email=copies))["id"], "failed")
    told = failed["attempts"][0]["error"]
    assert (told["class"], told["code"]) == ("rejected", "550 5.1.1")
    assert told["message"].startswith("bcc[0] was refused: 5.1.1")
    assert failed["error"]["message"] == told["message"]
    assert reason_of(client, "fay@example.com") is reason_of(client, "eve@example.com") is None
    ours = [r for r in caplog.records if r.name.startswith("gateway")]
    logged = "\n".join(record.getMessage() for record in ours)
    assert "@example.com" not in logged
    assert f"{failed['id']}: rejected by smtp: 550 5.1.1" in logged


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackVendor]:
    """Where files are: the guarded client is opened to this machine, and the address is taken for
    one of https."""
    monkeypatch.setattr(_fetch, "SCHEMES", ("http", "https"))
    monkeypatch.setattr(_fetch, "is_public", lambda address: address == "127.0.0.1")
    with LoopbackVendor() as made:
        made.always = Reply(headers={"Content-Type": "application/pdf"}, body=b"%PDF-1")
        there = _fetch.fetch

        async def fetch(url: str, **named: Any) -> FetchedMedia:
            url = url.replace("https://away.example.com", "http://127.0.0.1:9")
            return await there(url.replace("https://files.example.com", made.url), **named)

        monkeypatch.setattr(_email, "fetch", fetch)
        yield made


@pytest.mark.parametrize("trouble", [Reply(status=503), Fault.DROP_AFTER, None], ids=str)
def test_a_file_that_cannot_be_fetched_is_no_fault_of_a_provider(
    sqlite_file: Path, tmp_path: Path, web: LoopbackVendor, trouble: Any
) -> None:
    with smtp_server() as box, LoopbackVendor() as sendgrid:
        given = {
            **mailing(box),
            "EMAIL_PROVIDERS": "smtp,sendgrid",
            "SENDGRID_API_KEY": "SG.recognisable-8c21",
            "SENDGRID_FROM_EMAIL": "shop@example.com",
            "SENDGRID_API_URL": sendgrid.url,
            "RETRY_CAP": "100ms",
        }
        url = sqlite_copy(sqlite_file, tmp_path)
        with in_thread(variables(tmp_path, url, **given)) as client:
            good = web.always
            web.always = trouble or good
            host = "files" if trouble else "away"
            parts = {"attachments": [f"https://{host}.example.com/{n}.pdf" for n in (1, 2)]}
            id_ = client.send(**mail(email=parts))["id"]
            tried = eventually(lambda: client.message(id_)["attempts"][1:])
            errors = [a["error"] for a in client.message(id_)["attempts"] if a["error"]]
            assert {(e["class"], e["code"]) for e in errors} == {
                ("unreachable", "attachment_unreachable")
            }
            assert tried[0]["why"] is not None
            assert errors[0]["message"].startswith("attachments[0] could not be had: the file")
            told = client.get("/health/messaging")["email_providers"]
            assert {(p["circuit_breaker"], p["failure_count"], p["last_error"]) for p in told} == {
                ("closed", 0, None)
            }
            assert sendgrid.count == 0 and box.seen == []
            if trouble is None:
                return
            web.always = good
            sendgrid.always = Reply(status=202, headers={"X-Message-Id": "abcdefgh"}, body=b"")
            client.until(id_, "accepted")
            assert box.count + sendgrid.count == 1


def test_files_that_are_too_large_together_are_so_by_the_limit_of_all(
    client: Client, web: LoopbackVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "LARGEST", 20)
    upload = client.call("POST", "/api/media", data=b"a dozen of it", headers={
        "Content-Type": "text/plain", "Content-Disposition": 'attachment; filename="a.txt"',
    }).json()["url"]  # fmt: skip
    web.always = Reply(body=b"a dozen of it")
    for name, second in enumerate((upload, "https://files.example.com/b.txt")):
        parts = {"attachments": [upload, second]}
        sent = client.send(**mail(f"large{name}@example.com", email=parts, body=""))
        error = client.until(sent["id"], "failed")["error"]
        assert error["code"] == "too_large"
        assert "20 bytes together" in error["message"]
        (attempt,) = client.message(sent["id"])["attempts"]
        assert attempt["error"]["class"] == "unsupported"  # another provider may take more
