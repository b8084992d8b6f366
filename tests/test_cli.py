"""The commands, as real processes: what a person types, and what a person reads."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from gateway.commands.terminal import visible
from tests.commands import Desk, Served, serving
from tests.running import eventually

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
PERSON = "+15551230001"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One gateway for the tests of this module, as `make run` starts it."""
    with serving(Desk(tmp_path_factory.mktemp("cli")), "--dev") as served:
        yield served


@pytest.fixture
def desk(served: Served) -> Desk:
    """A shell in the folder of that gateway."""
    return served.desk


def test_the_first_start_shows_all_that_is_needed(served: Served) -> None:
    curl = served.curl
    key = (served.desk.folder / "data" / "development-key").read_text().strip()
    assert curl[2] == f"{served.url}/api/messages"
    assert curl[4] == f"Authorization: Bearer {key}"
    assert key in served.after("key")
    headers = dict(h.split(": ") for h in (curl[4], curl[6]))
    answer = requests.post(curl[2], data=curl[8].encode(), headers=headers, timeout=10)
    assert answer.status_code == 202
    assert served.api.until(answer.json()["id"], "delivered")
    assert "simulate inbound --channel sms" in served.said
    for path in (served.after("page"), served.after("API")):
        assert requests.get(path, timeout=10).status_code == 200


def test_what_it_keeps_is_for_its_owner_only(served: Served) -> None:
    served.wait_for("simulate chat")
    data = served.desk.folder / "data"
    assert data.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in data.iterdir())


def test_send_and_wait(desk: Desk) -> None:
    done = desk.run("send", PERSON, "Tea's ready\x1b[2J", "--priority", "high", "--wait")
    assert (done.code, done.field("status"), done.field("to")) == (0, "delivered", PERSON)
    assert done.field("body") == r"Tea's ready\x1b[2J"


def test_a_file_of_this_machine_is_uploaded_and_sent(served: Served) -> None:
    desk = served.desk
    (desk.folder / "cat.png").write_bytes(PNG)
    done = desk.run("send", PERSON, "look", "--media", "cat.png", "--channel", "whatsapp")
    assert done.code == 0, done.err
    (file,) = served.api.message(done.field("id"))["media"]
    assert (file["content_type"], file["filename"]) == ("image/png", "cat.png")
    assert _fetched(served, file["url"]) == PNG
    missing = desk.run("send", PERSON, "look", "--media", "dog.png")
    assert (missing.code, missing.err) == (
        1,
        "gateway: dog.png cannot be read: No such file or directory\n",
    )


def test_a_template_is_sent_with_its_values(served: Served) -> None:
    words = ("send", PERSON, "--channel", "whatsapp", "--template", "order", "--var", "1=Ada=B")
    done = served.desk.run(*words, "--language", "en", "--outside-window")
    assert done.code == 0, done.err
    said = served.api.message(done.field("id"))["template"]
    assert said == {"name": "order", "language": "en", "variables": {"1": "Ada=B"}}
    for wrong in (("--var", "1=Ada"), ("--template", "order", "--var", "Ada")):
        done = served.desk.run("send", PERSON, "hi", *wrong)
        assert (done.code, done.out) == (2, "")
        assert "--var" in done.err


def test_what_cannot_be_sent_is_told_with_its_field(desk: Desk) -> None:
    done = desk.run("send", "nobody", "hi")
    assert done.code == 1
    assert re.search(r"\bto\b.*must be a phone number", done.err)
    assert "Traceback" not in done.err


def test_a_wrong_key_is_told(desk: Desk) -> None:
    done = desk.run("send", PERSON, "hi", "--key", "gw_wrong_wrong")
    assert done.code == 1
    assert "keys create" in done.err


def test_somebody_writes_an_sms(served: Served) -> None:
    done = served.desk.run("simulate", "inbound", "--channel", "sms", "--body", "hi there")
    assert done.code == 0, done.err
    message = served.api.message(done.field("id"))
    assert (message["from"], message["body"]) == (PERSON, "hi there")
    assert (message["direction"], message["status"]) == ("inbound", "received")


def test_somebody_presses_a_button(served: Served) -> None:
    arguments = ("--channel", "whatsapp", "--name", "Ada", "--button", "Yes:confirm-7")
    done = served.desk.run("simulate", "inbound", *arguments)
    message = served.api.message(done.field("id"))
    assert (message["type"], message["body"]) == ("button", "Yes")
    assert message["content"]["id"] == "confirm-7"
    conversation = served.api.get(f"/api/conversations/{message['conversation_id']}")
    assert conversation["name"] == "Ada"


def test_somebody_sends_two_files(served: Served) -> None:
    for name in ("cat.png", "dog.png"):
        (served.desk.folder / name).write_bytes(PNG + name.encode())
    arguments = ("--body", "look", "--media", "cat.png", "--media", "dog.png")
    done = served.desk.run("simulate", "inbound", *arguments)
    message = served.api.message(done.field("id"))
    assert message["type"] == "image"
    for file, name in zip(message["media"], ("cat.png", "dog.png"), strict=True):
        url = file["url"]
        fetched = eventually(lambda url=url: _fetched(served, url), url)
        assert fetched == PNG + name.encode()


def _fetched(served: Served, url: str) -> bytes | None:
    answer = served.api.call("GET", url)
    return answer.content if answer.status_code == 200 else None


def test_somebody_writes_an_email_by_inbound_parse(served: Served) -> None:
    email = ("simulate", "inbound", "--channel", "email", "--to", "shop@example.com")
    done = served.desk.run(*email, "--provider", "sendgrid_inbound", "--body", "hi there")
    assert done.code == 0, done.err
    message = served.api.message(done.field("id"))
    assert (message["provider"], message["body"].strip()) == ("sendgrid_inbound", "hi there")
    assert message["provider_message_id"] == message["email"]["message_id"]


def test_a_button_in_an_sms_and_nothing_at_all_are_wrong_usage(desk: Desk) -> None:
    assert desk.run("simulate", "inbound", "--button", "Yes").code == 2
    nothing = desk.run("simulate", "inbound")
    assert nothing.code == 2
    assert "--body" in nothing.err


def test_a_status_comes_for_the_newest_attempt(served: Served) -> None:
    sent = served.desk.run("send", PERSON, "read me", "--wait").field("id")
    done = served.desk.run("simulate", "status", sent, "read")
    assert done.code == 0, done.err
    assert (done.field("was"), done.field("status")) == ("delivered", "read")
    assert served.api.message(sent)["status"] == "read"


def test_no_status_comes_for_a_message_that_is_not_there(desk: Desk) -> None:
    done = desk.run("simulate", "status", "msg_missing", "delivered")
    assert done.code == 1
    assert "no such message" in done.err


def test_a_chat_goes_both_ways(served: Served) -> None:
    person = "+15551230077"
    chat = served.desk.start("simulate", "chat", "--from", person, "--linger", "0")
    assert chat.stdin is not None
    assert chat.stdout is not None
    chat.stdin.write("hello?\n")
    chat.stdin.flush()
    found = eventually(lambda: served.api.get("/api/messages", **{"from": person})["items"])
    assert found[0]["body"] == "hello?"
    path = f"/api/conversations/{found[0]['conversation_id']}/messages"
    served.api.call("POST", path, json={"body": "here\x07 [bold]I am[/bold]"})
    assert chat.stdout.readline() == "+15550000001: here\\x07 [bold]I am[/bold]\n"
    _, errors = chat.communicate(timeout=20)
    assert (chat.returncode, errors) == (0, "")


def test_the_inbox_shows_what_came(desk: Desk) -> None:
    desk.run("simulate", "inbound", "--body", "for the \x1b[1minbox")
    listed = desk.run("inbox", "list", "--limit", "1").out.splitlines()
    assert len(listed) == 2
    shown = desk.run("inbox", "show", listed[1].split()[0])
    assert shown.code == 0
    assert "for+the+%1B%5B1minbox" in shown.out
    assert shown.field("verdict") == "twilio hmac-sha1 token 1 of 1"
    assert "signature" not in shown.out.lower()
    assert desk.run("inbox", "show", "inb_missing").code == 1


def test_what_could_not_be_read_is_replayed_and_stored_once(served: Served) -> None:
    new = "SM" + "5" * 32
    _damage(served.desk.folder / "data" / "gateway.db", new)
    assert "inb_damaged" in served.desk.run("inbox", "list", "--state", "malformed").out
    done = served.desk.run("inbox", "replay", "--state", "malformed")
    assert (done.code, done.out) == (0, "inb_damaged  malformed -> parsed\n")
    again = served.desk.run("inbox", "replay", "inb_damaged")
    assert (again.code, again.out) == (0, "inb_damaged  parsed -> parsed\n")
    found = served.api.get("/api/messages", provider_message_id=new)["items"]
    assert [m["body"] for m in found] == ["late"]
    assert served.desk.run("inbox", "list", "--state", "malformed").out == "Nothing.\n"


def _damage(database: Path, sid: str) -> None:
    """Puts a request into the inbox that an earlier version could not read."""
    body = f"MessageSid={sid}&SmsStatus=received&From=%2B15551230009&To=%2B15550000001&Body=late"
    row = {
        "tenant_id": "default",
        "id": "inb_damaged",
        "webhook": "twilio",
        "connection": "twilio",
        "key": "damaged",
        "method": "POST",
        "url": "http://127.0.0.1/api/webhooks/sms",
        "headers": '{"content-type":"application/x-www-form-urlencoded"}',
        "body": body.encode(),
        "verdict": "test",
        "state": "malformed",
        "detail": "an earlier version",
        "received_at": int(time.time() * 1000),
        "replayed_at": None,
    }
    with sqlite3.connect(database, timeout=10) as connection:
        marks = ", ".join(f":{name}" for name in row)
        connection.execute(f"INSERT INTO inbox ({', '.join(row)}) VALUES ({marks})", row)
    connection.close()


def test_keys_are_made_listed_and_revoked(served: Served) -> None:
    desk = served.desk
    made = desk.run("keys", "create", "billing", "--expires", "90d")
    key = made.out.strip()
    assert made.code == 0
    assert key.startswith("gw_")
    id_ = key.split("_")[1]
    listed = desk.run("keys", "list").out
    assert re.search(rf"{id_} +billing +valid", listed)
    assert key.split("_", 2)[2] not in listed
    assert desk.run("keys", "revoke", id_).code == 0
    assert desk.run("send", PERSON, "hi", "--key", key).code == 1
    assert re.search(rf"{id_} +billing +revoked", desk.run("keys", "list").out)
    assert desk.run("keys", "revoke", id_).code == 1
    assert desk.run("keys", "create", "x", "--expires", "soon").code == 2


def test_the_schema_is_told_and_an_upgrade_changes_nothing(desk: Desk) -> None:
    current = desk.run("db", "current")
    assert (current.code, current.out.strip().isdigit()) == (0, True)
    assert desk.run("db", "upgrade").out == f"{current.out.strip()}: nothing to do\n"


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_second_process_is_refused_with_the_fix(desk: Desk, command: str) -> None:
    port = ("--port", "0") if command == "serve" else ()
    done = desk.run(command, *port, GATEWAY_ENV="development")
    assert done.code == 1
    assert "already serves" in done.err
    assert "PostgreSQL" in done.err


def test_every_command_has_help_with_an_example(desk: Desk) -> None:
    names = ("serve", "worker", "send", "simulate inbound", "simulate status", "simulate chat")
    more = ("keys create", "inbox list", "inbox show", "inbox replay", "db upgrade")
    for name in (*names[2:4], *more[2:4]):
        done = desk.run(*name.split(), "--help")
        assert done.code == 0
        assert f"gateway {name}" in done.out.split("Example", 1)[1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünï 👩‍👩‍👧", "plain ünï 👩‍👩‍👧"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\rb\nc", r"a\rb\nc"),
        ("\u202eright to left", r"\u202eright to left"),
        ("\ud83d", r"\ud83d"),
    ],
)
def test_outside_text_cannot_steer_a_terminal(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_an_email_that_bounces_on_the_console_suppresses_its_person(served: Served) -> None:
    for error, listed in (("bounce_transient:mailboxfull", False), (None, True)):
        to = f"ada{listed}@exämple.com"
        sent = served.api.send(channel="email", to=to, subject="s", body="b")
        served.api.until(sent["id"], "delivered")
        more = ("--error", error) if error else ()
        done = served.desk.run("simulate", "status", sent["id"], "bounced", *more)
        assert (done.code, done.field("status")) == (0, "bounced"), done.err
        shown = [row["address"] for row in served.api.get("/api/suppressions")["items"]]
        assert (to.replace("exämple", "xn--exmple-cua").lower() in shown) is listed
        again = served.api.send(channel="email", to=to, subject="s", body="b")
        assert (again["status"] == "rejected") is listed
