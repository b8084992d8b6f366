"""Conversations as the people who answer them use them: whose, closed, labelled, with notes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.store import conversation_lists
from gateway.store.conversation_edits import (
    ADD_NOTE,
    CHANGE,
    REMOVE_NOTE,
    Change,
    NewNote,
    NoteNamed,
    TooManyLabels,
)
from gateway.store.conversation_lists import conditions, listed
from tests.running import OURS, Client, following, inbound_form, sid
from tests.stored import TENANT, Store, person, said

PERSON = "+15550100001"


def heard(client: Client, number: int = 1, body: str = "hello", **more: str) -> dict[str, Any]:
    """A person writes; the conversation."""
    form = inbound_form(sid(number), body, **more)
    assert client.webhook("/api/webhooks/sms", form).ok
    found = client.get("/api/conversations", address=form["From"])["items"]
    return dict(found[0])


def changed(client: Client, id_: str, path: str, method: str = "POST", **body: Any) -> Any:
    """A conversation after a change that must be taken."""
    more = {"json": body} if body else {}
    answer = client.call(method, f"/api/conversations/{id_}{path}", **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def updates(store: Store) -> int:
    """How often the feed told of a changed conversation."""
    return int(store.value("SELECT COUNT(*) FROM events WHERE type = 'conversation.updated'"))


def test_a_conversation_is_given_to_somebody_and_to_nobody(idle: Client) -> None:
    made = heard(idle)
    assert (made["assignee"], made["labels"], made["status"]) == (None, [], "open")
    assert changed(idle, made["id"], "/assign", assignee="ada")["assignee"] == "ada"
    assert [c["id"] for c in idle.get("/api/conversations", assignee="ada")["items"]] == [
        made["id"]
    ]
    assert idle.get("/api/conversations", assignee="")["items"] == []
    assert changed(idle, made["id"], "/assign", assignee=None)["assignee"] is None
    assert len(idle.get("/api/conversations", assignee="")["items"]) == 1


def test_a_closed_conversation_is_opened_by_the_persons_next_message(idle: Client) -> None:
    made = heard(idle)
    assert changed(idle, made["id"], "/close")["status"] == "closed"
    assert idle.get("/api/conversations", status="open")["items"] == []
    answer = idle.call("POST", f"/api/conversations/{made['id']}/messages", json={"body": "bye"})
    assert answer.status_code == 202
    assert idle.get(f"/api/conversations/{made['id']}")["status"] == "closed"
    with following(idle) as stream:
        assert heard(idle, 2, "one more thing")["status"] == "open"
        idle.get(f"/api/conversations/{made['id']}")
        told = _until_told(stream, "conversation.updated")
    assert told["data"]["conversation"]["status"] == "open"
    assert changed(idle, made["id"], "/close")["status"] == "closed"
    assert changed(idle, made["id"], "/reopen")["status"] == "open"


def _until_told(stream: Any, kind: str) -> Any:
    from tests.running import eventually

    return eventually(lambda: next((e for e in list(stream.events) if e["type"] == kind), None))


def test_labels_are_set_added_and_taken_off(idle: Client) -> None:
    made = heard(idle)
    id_ = made["id"]
    shown = changed(idle, id_, "/labels", "PUT", labels=["vip", " late ", "vip"])
    assert shown["labels"] == ["vip", "late"]
    assert changed(idle, id_, "/labels", label="größer & wichtig?")["labels"][-1].startswith("gr")
    assert changed(idle, id_, "/labels", label="vip")["labels"].count("vip") == 1
    gone = changed(idle, id_, "/labels/gr%C3%B6%C3%9Fer%20&%20wichtig%3F", "DELETE")
    assert gone["labels"] == ["vip", "late"]
    assert len(idle.get("/api/conversations", label="late")["items"]) == 1
    assert changed(idle, id_, "/labels", "PUT", labels=[])["labels"] == []
    assert idle.get("/api/conversations", label="late")["items"] == []


@pytest.mark.parametrize(
    ("path", "method", "body", "field"),
    [
        ("/assign", "POST", {}, "assignee"),
        ("/assign", "POST", {"assignee": "x" * 101}, "assignee"),
        ("/labels", "POST", {"label": "a/b"}, "label"),
        ("/labels", "POST", {"label": "  "}, "label"),
        ("/labels", "PUT", {"labels": ["ok", "x" * 51]}, "labels.1"),
        ("/labels", "PUT", {"labels": [str(n) for n in range(51)]}, "labels"),
        ("/notes", "POST", {"body": ""}, "body"),
        ("/notes", "POST", {"body": "x", "to": "y"}, "to"),
        ("", "PATCH", {"name": ""}, "name"),
        ("", "PATCH", {"status": "closed"}, "status"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(
    idle: Client, path: str, method: str, body: dict[str, Any], field: str
) -> None:
    made = heard(idle)
    answer = idle.call(method, f"/api/conversations/{made['id']}{path}", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_name_of_ours_stays_when_the_person_writes_again(idle: Client) -> None:
    form = {"From": "whatsapp:+15550100007", "To": "whatsapp:+15550008888", "ProfileName": "Ada"}
    assert idle.webhook("/api/webhooks/whatsapp", inbound_form(sid(1), "hi", **form)).ok
    (made,) = idle.get("/api/conversations", channel="whatsapp")["items"]
    assert made["name"] == "Ada"
    shown = changed(idle, made["id"], "", "PATCH", name="Ada (sales)", metadata={"crm": 7})
    assert (shown["name"], shown["metadata"]) == ("Ada (sales)", {"crm": 7})
    assert idle.webhook("/api/webhooks/whatsapp", inbound_form(sid(2), "again", **form)).ok
    shown = idle.get(f"/api/conversations/{made['id']}")
    assert (shown["name"], shown["metadata"]) == ("Ada (sales)", {"crm": 7})
    shown = changed(idle, made["id"], "", "PATCH", name=None, metadata={})
    assert (shown["name"], shown["metadata"]) == ("Ada", {})


def test_notes_are_kept_listed_with_cursors_and_removed_and_never_sent(idle: Client) -> None:
    id_ = heard(idle)["id"]
    path = f"/api/conversations/{id_}/notes"
    made = []
    for number in range(3):
        answer = idle.call("POST", path, json={"body": f"note {number}", "author": "ada"})
        assert answer.status_code == 201
        made.append(answer.json())
    first = idle.get(path, limit=2)
    assert [note["body"] for note in first["items"]] == ["note 2", "note 1"]
    rest = idle.get(path, limit=2, cursor=first["next_cursor"])
    assert rest == {"items": [made[0]], "next_cursor": None}
    assert idle.call("DELETE", f"{path}/{made[1]['id']}").status_code == 204
    assert idle.call("DELETE", f"{path}/{made[1]['id']}").status_code == 404
    assert [note["id"] for note in idle.get(path)["items"]] == [made[2]["id"], made[0]["id"]]
    assert [m["direction"] for m in idle.get(f"/api/conversations/{id_}/messages")["items"]] == [
        "inbound"
    ]


def test_what_does_not_exist_is_a_404_everywhere(idle: Client) -> None:
    for id_ in ("conv_unknown", "nonsense!"):
        for method, path, body in (
            ("POST", "/assign", {"assignee": None}),
            ("POST", "/close", None),
            ("POST", "/reopen", None),
            ("PUT", "/labels", {"labels": []}),
            ("POST", "/labels", {"label": "x"}),
            ("DELETE", "/labels/x", None),
            ("PATCH", "", {}),
            ("GET", "/notes", None),
            ("POST", "/notes", {"body": "x"}),
            ("DELETE", "/notes/note_1", None),
        ):
            answer = idle.call(method, f"/api/conversations/{id_}{path}", json=body)
            assert answer.status_code == 404, (method, path, answer.text)


def test_an_unknown_filter_is_refused_by_its_name(idle: Client) -> None:
    id_ = heard(idle)["id"]
    for path in (
        "/api/conversations",
        f"/api/conversations/{id_}/messages",
        f"/api/conversations/{id_}/notes",
        "/api/messages",
        "/api/opt-outs",
    ):
        answer = idle.call("GET", path, params={"stauts": "open", "limit": 2})
        assert answer.status_code == 422, path
        assert [error["field"] for error in answer.json()["errors"]] == ["stauts"]


def test_conversations_are_found_by_whether_they_are_unread_and_by_our_address(
    idle: Client,
) -> None:
    read, unread = heard(idle, 1), heard(idle, 2, From="+15550100002", To="+15550007777")
    changed(idle, read["id"], "/read")
    by = {
        "true": [c["id"] for c in idle.get("/api/conversations", unread="true")["items"]],
        "false": [c["id"] for c in idle.get("/api/conversations", unread="false")["items"]],
    }
    assert by == {"true": [unread["id"]], "false": [read["id"]]}
    (ours,) = idle.get("/api/conversations", our_address="+1 555 000 7777")["items"]
    assert ours["id"] == unread["id"]
    (both,) = idle.get("/api/conversations", our_address=OURS, unread="false", status="open")[
        "items"
    ]
    assert both["id"] == read["id"]
    answer = idle.call("GET", "/api/conversations", params={"unread": "yes"})
    assert answer.status_code == 422


def test_messages_are_found_by_kind_provider_and_time(idle: Client) -> None:
    first = idle.send(to=PERSON, body="one")
    second = idle.send(to=PERSON, media=["https://example.com/a.png"])
    ids = lambda **query: [m["id"] for m in idle.get("/api/messages", **query)["items"]]  # noqa: E731
    assert ids(type="image") == [second["id"]]
    assert ids(type="text") == [first["id"]]
    assert ids(provider="twilio", status="queued") == [second["id"], first["id"]]
    assert ids(provider="console") == []
    assert ids(created_after=second["created_at"]) in (
        [second["id"]],
        [second["id"], first["id"]],  # both in one millisecond
    )
    assert second["id"] not in ids(created_before=second["created_at"])
    assert ids(created_before="2001-01-01T00:00:00Z") == []
    assert len(ids(created_after="2001-01-01T02:00:00+02:00", direction="outbound")) == 2
    assert ids(direction="inbound") == []
    for text in ("yesterday", "2030-01-31", "2030-01-31T09:00:00", "9" * 400):
        answer = idle.call("GET", "/api/messages", params={"created_after": text})
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == ["created_after"]


def change(store: Store, id_: str, **what: Any) -> Any:
    """Changes a conversation in the store."""
    return store.do(CHANGE, Change(TENANT, id_, **what))[0]


def test_a_change_is_told_once_and_one_that_changes_nothing_is_not(store: Store) -> None:
    store.receive("k", said("m1"))
    id_, before = store.conversations()[0]["id"], updates(store)
    for what in (
        {"columns": {"status": "closed"}},
        {"columns": {"assignee": "ada"}},
        {"labels": ("a", "b")},
        {"add": "c"},
        {"remove": "a"},
        {"columns": {"own_name": "Ada"}},
    ):
        for _ in range(2):
            change(store, id_, **what)
        before += 1
        assert updates(store) == before
    row = store.conversations()[0]
    assert json.loads(row["labels"]) == ["b", "c"]
    found = store.rows("SELECT label FROM conversation_labels ORDER BY label")
    assert [r.label for r in found] == ["b", "c"]


def test_changes_of_one_batch_are_made_in_turn_and_written_once(store: Store) -> None:
    store.receive("k", said("m1"))
    id_, before = store.conversations()[0]["id"], updates(store)
    first, _, unknown = store.do(
        CHANGE,
        Change(TENANT, id_, add="x"),
        Change(TENANT, id_, add="y", columns={"status": "closed"}),
        Change("other", id_, add="z"),
    )
    assert first["status"] == "closed" and unknown is None
    assert json.loads(store.conversations()[0]["labels"]) == ["x", "y"]
    assert updates(store) == before + 1


def test_a_conversation_has_at_most_fifty_labels(store: Store) -> None:
    store.receive("k", said("m1"))
    id_ = store.conversations()[0]["id"]
    change(store, id_, labels=tuple(str(n) for n in range(50)))
    with pytest.raises(TooManyLabels):
        change(store, id_, add="one more")
    assert change(store, id_, remove="7") is not None
    assert change(store, id_, add="one more") is not None


def test_a_note_is_told_with_its_id_and_stored_once(store: Store) -> None:
    store.receive("k", said("m1"))
    id_, before = store.conversations()[0]["id"], updates(store)
    note = NewNote(TENANT, "note_1", id_, None, "call back")
    for _ in range(2):  # as after a commit that was thought to be lost
        assert store.do(ADD_NOTE, note)[0] is not None
    assert (store.count("conversation_notes"), updates(store)) == (1, before + 1)
    assert store.do(ADD_NOTE, NewNote("other", "note_2", id_, None, "x")) == [None]
    assert store.do(REMOVE_NOTE, NoteNamed("other", id_, "note_1")) == [False]
    assert store.do(REMOVE_NOTE, NoteNamed(TENANT, id_, "note_1")) == [True]
    (last,) = store.rows("SELECT change FROM events ORDER BY id DESC LIMIT 1")
    assert json.loads(last.change) == {"note_id": "note_1"}


def found(store: Store, before: Any = None, limit: int = 100, **filters: str) -> list[str]:
    """The ids that a list finds."""
    with store.database.read() as tx:
        rows = listed(tx, TENANT, conditions(TENANT, filters), before, limit)
    return [row["id"] for row in rows]


@pytest.mark.parametrize("few", [0, 2000])
def test_both_ways_of_a_list_find_the_same_in_the_same_order(
    store: Store, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        store.receive(f"k{number}", said(f"m{number}", from_address=person(number)))
    rows = store.conversations()
    for number, row in enumerate(rows):
        columns = {"status": "closed" if number % 2 else "open", "assignee": f"a{number % 3}"}
        change(store, row["id"], columns=columns, labels=("x",) if number % 4 == 0 else ())
        store.change(
            "UPDATE conversations SET last_message_at = ? WHERE id = ?", 50 - number, row["id"]
        )
    ids = [row["id"] for row in rows]
    monkeypatch.setattr(conversation_lists, "FEW", few)
    assert found(store, status="closed") == ids[1::2]
    assert found(store, assignee="a0", status="open") == ids[0::6]
    assert found(store, label="x") == ids[0::4]
    assert found(store, label="x", assignee="a0") == [ids[0]]
    assert found(store, unread="true", channel="sms", limit=3) == ids[:3]
    assert found(store, (48, ids[2]), status="open", limit=2) == [ids[4], ids[6]]
    assert found(store, address=person(5)) == [ids[5]]
    assert found(store, label="y") == found(store, assignee="a9") == []
