"""The log of what was sent: as a list, as a file, and as a view for those who ask in SQL."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.api.openapi import document
from gateway.store import communications
from gateway.store.accepts import ACCEPT
from gateway.store.database import Database
from gateway.store.message_lists import Asked
from tests.running import Client, in_thread, inbound_form, sid, variables
from tests.stored import OURS, PERSON, Store, new_message, person, said
from tests.test_migrations import empty, empty_url

__all__ = ("empty", "empty_url")  # fixtures


@pytest.fixture
def logged(url: str, tmp_path: Path) -> Iterator[Client]:
    """A gateway that sent two messages and was sent one."""
    with in_thread(variables(tmp_path, url)) as client:
        first = client.send(to="+15550100001", body="one", metadata={"purpose": "\n=1+1", "n": 1})
        client.until(first["id"], "delivered")
        mail = {"channel": "email", "to": "ada@example.com", "subject": "s", "body": "b"}
        client.until(client.send(**mail, metadata={"purpose": "otp"})["id"], "delivered")
        assert client.webhook("/api/webhooks/sms", inbound_form(sid(1))).ok
        yield client


def lines(client: Client, **more: Any) -> list[dict[str, str]]:
    """The file, read."""
    answer = client.call("GET", "/api/communications", **more)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["x-content-type-options"] == "nosniff"
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def test_what_was_sent_is_listed_found_and_written_to_a_file(logged: Client) -> None:
    mail, text = logged.get("/api/communications")["items"]
    assert (text["recipient"], text["purpose"], text["status"]) == (
        "+15550100001",
        "\n=1+1",
        "delivered",
    )
    assert (text["provider"], text["attempts"], text["cost"]) == ("console", 1, None)
    assert text["metadata"] == {"purpose": "\n=1+1", "n": 1}
    assert text["sent_at"] and text["delivered_at"] and text["error"] is None

    def found(**only: str) -> list[str]:
        listed = logged.get("/api/communications", **only)["items"]
        return [item["message_id"] for item in listed]

    assert found(channel="email") == found(purpose="otp") == [mail["message_id"]]
    assert found(recipient="+1 555 010 0001") == [text["message_id"]]
    assert found(provider="twilio") == found(status="failed") == found(until="2020-01-01") == []
    assert found(since="2020-01-01", status="delivered", provider="console") == found()
    assert [m["id"] for m in logged.get("/api/messages", purpose="otp")["items"]] == found(
        purpose="otp"
    )
    page = logged.get("/api/communications", limit=1)
    rest = logged.get("/api/communications", cursor=page["next_cursor"])
    assert [page["items"][0], *rest["items"]] == [mail, text] and rest["next_cursor"] is None

    written = lines(logged, headers={"Accept": "text/csv"})
    assert [line["message_id"] for line in written] == found()
    assert written == lines(logged, params={"format": "csv"})
    (told,) = lines(logged, params={"format": "csv", "channel": "sms"})
    assert (told["recipient"], told["purpose"]) == ("+15550100001", "'\n=1+1")
    assert (told["created_at"], told["cost"]) == (text["created_at"], "")
    assert found(recipient="whatsapp:+15550100001") == [text["message_id"]]
    assert found(recipient="Ada <ada@EXAMPLE.com>") == [mail["message_id"]]
    for wrong in ({"format": "xml"}, {"since": "yesterday"}, {"cursor": "x"}, {"colour": "red"}):
        assert logged.call("GET", "/api/communications", params=wrong).status_code == 422
    assert logged.stranger().call("GET", "/api/communications").status_code == 401


def test_a_long_file_comes_in_pieces_and_whole(url: str, tmp_path: Path) -> None:
    database = Database(url)
    store = Store(database)
    made = [new_message(to=person(n), purpose="news" if n % 2 else None) for n in range(1101)]
    store.do(ACCEPT, *made)
    others = new_message(tenant_id="other", to=person(1))
    store.do(ACCEPT, others)
    with in_thread(variables(tmp_path, url), working=False) as client:
        written = lines(client, params={"format": "csv"})
        assert [line["message_id"] for line in written] == sorted(
            (m.row["id"] for m in made), reverse=True
        )
        assert len(lines(client, params={"format": "csv", "purpose": "news"})) == 550
        assert lines(client, params={"format": "csv", "recipient": "+15559999999"}) == []
    database.close()


def test_the_view_says_what_the_api_says(store: Store) -> None:
    (accepted,) = store.do(ACCEPT, new_message(meta='{"purpose":"otp"}', purpose="otp"))
    (row,) = store.rows(
        "SELECT tenant_id, message_id, recipient, channel, purpose, status, provider, cost, "
        "currency, sent_at, delivered_at, error_code, metadata, created_at, attempts "
        "FROM communication_logs"
    )
    assert row[:7] == (
        *("default", accepted.view["id"], "+15551230001", "sms"),
        *("otp", "queued", None),
    )
    assert row[7:12] == (None,) * 5 and row[12] == '{"purpose":"otp"}' and row[14] == 0


def test_what_was_sent_before_is_found_by_its_purpose_after_the_upgrade(empty: Database) -> None:
    from alembic import command
    from alembic.config import Config

    from gateway.store.migrate import SCRIPTS, upgrade

    upgrade(empty)
    store = Store(empty)
    for meta in ('{"purpose":"otp"}', '{"purpose":5}', '{"of":{"purpose":"x"}}', None):
        store.do(ACCEPT, new_message(meta=meta))
    for target, move in (("0014", command.downgrade), ("head", command.upgrade)):
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS))
        with empty.migrate() as tx:
            config.attributes["connection"] = tx.connection
            move(config, target)
    assert store.rows("SELECT purpose FROM communication_logs WHERE purpose IS NOT NULL") == [
        ("otp",)
    ]
    assert store.value("SELECT COUNT(*) FROM communication_logs") == 4


def test_a_provider_is_named_only_where_it_was_asked(store: Store) -> None:
    tried = store.begun()
    (waits,) = store.do(ACCEPT, new_message(to=person(7)))
    echo = replace(said("m1"), echo=True, from_address=OURS, to_address=person(8))
    store.receive("k", echo)
    rows = dict(store.rows("SELECT recipient, provider FROM communication_logs"))
    assert rows == {PERSON: "test", person(7): None, person(8): "test"}
    with store.database.read() as tx:
        asked = Asked({"direction": "outbound", "provider": "test"})
        found = communications.listed(tx, "default", asked, None, 10)
    assert {row["recipient"] for row in found} == {PERSON, person(8)}
    assert tried and waits.view["provider"] == "test"


UNHEARD_OF = [
    ("communications", "status", "foo", "delivered"),
    ("communications", "channel", "fax", "email"),
    ("communications", "provider", "foo", "console"),
    ("communications", "since", "", "a day such as"),
    ("communications", "until", "2026-02-30", "a day such as"),
    ("messages", "status", "Delivered", "delivered"),
    ("messages", "channel", "", "email"),
    ("messages", "direction", "out", "outbound"),
    ("messages", "type", "sms", "text"),
    ("messages", "provider", "foo", "console"),
    ("conversations", "status", "shut", "closed"),
    ("conversations", "channel", "fax", "sms"),
    ("opt-outs", "channel", "fax", "sms"),
    ("search?q=x", "channel", "fax", "sms"),
]
BACKWARDS = [("communications", "since", "until"), ("messages", "created_after", "created_before")]


def test_a_filter_that_would_find_nothing_is_refused_and_told(
    sqlite_url: str, tmp_path: Path
) -> None:
    def refusal(path: str, **given: str) -> list[dict[str, str]]:
        answer = client.call("GET", f"/api/{path}", params=given)
        assert answer.status_code == 422, answer.text
        return list(answer.json()["errors"])

    with in_thread(variables(tmp_path, sqlite_url), working=False) as client:
        for path, name, value, known in UNHEARD_OF:
            (error,) = refusal(path, **{name: value})
            assert error["field"] == name and known in error["message"]
        for path, first, last in BACKWARDS:
            told = refusal(path, **{first: "2026-03-02T00:00:00Z", last: "2026-03-01T00:00:00Z"})
            assert told == [{"field": first, "message": f"must be before {last}"}]


def test_the_document_tells_what_each_filter_may_be() -> None:
    paths = document()["paths"]
    for path, name in (
        ("communications", "status"), ("communications", "channel"), ("communications", "format"),
        ("messages", "type"), ("messages", "direction"), ("conversations", "status"),
        ("opt-outs", "channel"), ("search", "type"), ("costs", "channel"),
        ("templates", "channel"),
    ):  # fmt: skip
        told = paths[f"/api/{path}"]["get"]["parameters"]
        (schema,) = (p["schema"] for p in told if p["name"] == name)
        assert len(schema["enum"]) > 1
