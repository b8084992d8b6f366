"""Search: what was said and whom with is found by words, safely for any words, newest first."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import words
from gateway.indexing import _documents, _terms_of
from gateway.store import conversation_lists, conversation_search, search, search_index
from gateway.store.conversation_edits import CHANGE, Change
from gateway.store.message_lists import Asked
from gateway.store.search_index import ADD, Found, Piece
from tests.running import Client, eventually, inbound_form, sid
from tests.stored import DAY, TENANT, Store, person, said


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("Grüße aus Łódź", ["grusse", "aus", "lodz"]),
        ("ČESKÝ krém", ["cesky", "krem"]),
        ("naïve ﬁne Ⅷ", ["naive", "fine", "viii"]),
        ("o'clock @ 8:30pm_x", ["o", "clock", "8", "30pm", "x"]),
        ("ΣΊΣΥΦΟΣ Смысл", ["σισυφοσ", "смысл"]),
        ("你好 世界 🔥", ["你好", "世界"]),
        ("\"' OR 1=1; -- * NEAR( \x00", ["or", "1", "1", "near"]),
        ("x" * 100, ["x" * 40]),
        ("", []),
    ],
)
def test_words_are_folded_the_same_way_everywhere(text: str, found: list[str]) -> None:
    assert words.words_of(text) == found


def test_a_number_is_found_by_any_part_of_it() -> None:
    terms = words.terms_of(("Ada Lovelace", None), ("+15551230001", "ada@example.com"))
    assert {"ada", "lovelace", "example", "com", "15551230001", "001"} <= terms
    assert "01" not in terms
    assert words.question("+1 (555) 123-0001").number == "15551230001"
    assert words.question("12").number == words.question("room 1234").number == ""


def index(store: Store, name: str = "both") -> None:
    """Lets the index come up to date, as the process beside the requests does."""
    seen = 0
    while True:
        with store.database.read() as tx:
            found = search_index.following(tx, seen) or search_index.earlier(tx)
        if found is None:
            return
        assert store.do(ADD, piece(found)) == [True]
        seen = int(found.place) if found.name == search_index.FEED else seen


def piece(found: Found) -> Piece:
    """What a process makes of what it found."""
    terms = tuple(
        ((row["tenant_id"], row["id"]), frozenset(_terms_of(row))) for row in found.conversations
    )
    return Piece(found, _documents(found), terms)


def bodies(store: Store, text: str, *, limit: int = 50, tenant: str = TENANT, **only: Any) -> Any:
    """What a search finds, all pages of it."""
    found: list[str] = []
    before = None
    times = {name: only.pop(name) for name in ("after", "before") if name in only}
    for _ in range(100):
        with store.database.read() as tx:
            page = search.found_messages(
                tx, tenant, words.question(text), Asked(only, **times), before, limit
            )
        found += [row["body"] for row in page.rows]
        assert len(page.rows) <= limit
        before = page.following
        if before is None:
            return found
    raise AssertionError("the search has no end")


def people(store: Store, text: str, **filters: str) -> list[str]:
    """The addresses of the conversations that a search finds."""
    with store.database.read() as tx:
        asked = conversation_search.matching(tx, TENANT, words.question(text))
        conditions = [asked, *conversation_lists.conditions(TENANT, filters)]
        rows = conversation_lists.listed(tx, TENANT, conditions, None, 50)
    return [row["address"] for row in rows]


def test_messages_are_found_by_all_their_words_and_the_last_may_be_begun(store: Store) -> None:
    store.accept(body="Your table is booked for eight o'clock")
    store.accept(body="The TABLE is gone, désolé")
    store.receive("k", said("m1", body="thanks for the tablecloth"))
    index(store)
    assert bodies(store, "table")[0] == "thanks for the tablecloth"
    assert len(bodies(store, "table")) == 3
    assert bodies(store, "table is desol") == ["The TABLE is gone, désolé"]
    assert bodies(store, "is tab") == bodies(store, "TÀBLE is")
    assert bodies(store, "tablec") == ["thanks for the tablecloth"]
    assert bodies(store, "tab is") == []  # only the last one may be begun
    assert bodies(store, "chair") == bodies(store, "!!! 🔥") == []


def test_a_subject_is_found_too(store: Store) -> None:
    store.accept(channel="email", type="email", subject="Invoice 2026-114", body="see attached")
    index(store)
    assert bodies(store, "invoice 2026 11") == ["see attached"]


STRANGE = (
    *('"', "'", '" OR "a"', "* ", "a*", "NEAR(a b)", "a AND NOT b", "-a", ":*", "a:*", "(", "%"),
    *("\\", "{a b} : c", "^a", "a & !b", "a' | 'b", "\u0301", "\ud7ff\U0010ffff", "a\tb\nc"),
    *("\u0663\u0664", "\xaa"),
)


@pytest.mark.parametrize("text", STRANGE)
def test_no_question_is_anything_but_words(store: Store, text: str) -> None:
    store.accept(body="nothing of that")
    index(store)
    assert bodies(store, text) == []
    assert people(store, text) == []


def test_results_are_the_newest_first_and_pages_neither_repeat_nor_lose(store: Store) -> None:
    for number in range(23):
        store.accept(body=f"common {number}", to=person(number))
    index(store)
    wanted = [f"common {number}" for number in reversed(range(23))]
    assert bodies(store, "common", limit=5) == wanted
    assert bodies(store, "comm", limit=23) == wanted


@pytest.mark.parametrize("window", [3, 5000])
def test_other_filters_narrow_a_search(
    store: Store, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "WINDOW", window)
    monkeypatch.setattr(search, "MANY", -1 if window < 5000 else 0)
    monkeypatch.setattr(search, "ENOUGH", 2)
    monkeypatch.setattr(search, "STEP", 4)
    monkeypatch.setattr(search, "EXAMINED", 6)
    for number in range(12):
        channel = "whatsapp" if number % 3 == 0 else "sms"
        store.accept(body=f"word {number}", to=person(number % 4), channel=channel)
    store.receive("k", said("m1", body="word said", from_address=person(1)))
    index(store)
    assert bodies(store, "word", limit=3, channel="whatsapp") == [
        "word 9",
        "word 6",
        "word 3",
        "word 0",
    ]
    assert bodies(store, "word", limit=2, direction="inbound") == ["word said"]
    assert bodies(store, "wor", limit=2, to=person(2)) == ["word 10", "word 6", "word 2"]
    (row,) = store.rows("SELECT conversation_id FROM messages WHERE body = 'word 5'")
    mine = bodies(store, "word", limit=1, conversation_id=row.conversation_id)
    assert mine == ["word said", "word 5", "word 1"]
    assert bodies(store, "word", status="failed") == []
    (middle,) = store.rows("SELECT created_at FROM messages WHERE body = 'word 6'")
    store.change("UPDATE messages SET created_at = created_at - 5 WHERE body < 'word 6'")
    early = bodies(store, "word", before=middle.created_at)
    assert "word 0" in early and "word said" not in early
    assert bodies(store, "word", after=middle.created_at + 3 * DAY) == []


def test_a_tenant_finds_its_own_only(store: Store) -> None:
    store.accept(body="secret plan")
    store.accept(body="another plan", tenant_id="other")
    index(store)
    assert bodies(store, "plan") == ["secret plan"]
    assert bodies(store, "plan", tenant="other") == ["another plan"]
    assert bodies(store, "secret", tenant="other") == []


def test_conversations_are_found_by_name_number_and_words(store: Store) -> None:
    store.receive("k1", said("m1", from_address="+15551230001", name="Ada Lovelace", body="tea"))
    store.receive("k2", said("m2", from_address="+15559870002", name="Zoë Ångström", body="coffee"))
    index(store)
    ada, zoe = "+15551230001", "+15559870002"
    assert people(store, "ada") == people(store, "lovelace ad") == people(store, "tea") == [ada]
    assert people(store, "zoe angst") == people(store, "9870") == people(store, "0002") == [zoe]
    assert people(store, "+1 555 987-0002") == people(store, "(555) 98") == [zoe]
    assert people(store, "555") == [zoe, ada]
    assert people(store, "555", status="closed") == []
    assert people(store, "ada coffee") == []
    assert people(store, "123 98") == []


def test_a_conversation_that_is_called_otherwise_is_found_by_that(store: Store) -> None:
    store.receive("k1", said("m1", name="Ada"))
    index(store)
    (row,) = store.conversations()
    store.do(CHANGE, Change(TENANT, row["id"], {"own_name": "Grace Hopper"}))
    index(store)
    assert people(store, "hopper") == people(store, "ada") == [row["address"]]
    store.do(CHANGE, Change(TENANT, row["id"], {"own_name": None}))
    index(store)
    assert people(store, "hopper") == []


def test_common_words_of_conversations_find_the_newest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        store.receive(f"k{number}", said(f"m{number}", from_address=person(number), name="Ann"))
    index(store)
    for number, row in enumerate(store.conversations()):
        moved = "UPDATE conversations SET last_message_at = ? WHERE id = ?"
        store.change(moved, 100 - number, row["id"])
    everybody = [person(number) for number in range(9)]
    for few in (3, 2000):
        monkeypatch.setattr(conversation_lists, "FEW", few)
        monkeypatch.setattr(conversation_search, "FEW", few)
        assert people(store, "ann") == people(store, "1555000") == everybody
        assert people(store, "ann 1555", status="open") == everybody
        assert people(store, "ann", address=person(4)) == [person(4)]


def test_what_is_sent_again_is_in_the_index_once(store: Store) -> None:
    id_ = store.accept(body="once")
    index(store)
    store.change("DELETE FROM search_progress WHERE name = 'feed'")
    index(store)
    assert (bodies(store, "once"), store.count("search_documents")) == (["once"], 1)
    assert store.message(id_)["body"] == "once"


def test_what_was_stored_before_there_was_an_index_is_found_after_what_is_new(
    store: Store,
) -> None:
    for number in range(230):
        store.accept(body=f"old {number}", to=person(number % 7))
    store.change("DELETE FROM events")
    store.accept(body="old but new")
    index(store)
    found = bodies(store, "old")
    assert found == ["old but new", *(f"old {number}" for number in reversed(range(230)))]
    assert len(people(store, "1555000000")) == 7
    assert store.rows("SELECT place FROM search_progress WHERE name = 'past'")[0].place == ""


def test_events_that_are_gone_unseen_make_it_look_at_everything_again(store: Store) -> None:
    store.accept(body="seen")
    index(store)
    store.accept(body="missed")
    store.change("DELETE FROM events")
    store.accept(body="later")
    index(store)
    assert sorted(bodies(store, "seen") + bodies(store, "missed") + bodies(store, "later")) == [
        "later",
        "missed",
        "seen",
    ]


def test_of_two_processes_one_adds_a_piece(store: Store) -> None:
    store.accept(body="twice")
    with store.database.read() as tx:
        found = search_index.following(tx, 0)
    assert found is not None
    assert store.do(ADD, piece(found)) == [True]
    assert store.do(ADD, piece(found)) == [False]
    assert store.count("search_documents") == 1


def test_over_http_everything_said_is_found_soon(client: Client) -> None:
    sent = client.send(to="+15550100001", body="Ihr Tisch für Freitag")
    form = inbound_form(sid(1), "Vielen Dänk, bis Freitag", From="+15550100002")
    assert client.webhook("/api/webhooks/sms", form).ok

    def found(path: str, **query: Any) -> list[Any]:
        return list(client.get(path, **query)["items"])

    both = eventually(lambda: len(found("/api/search", q="freitag")) == 2 and True, "both")
    assert both
    (said_back,) = found("/api/search", q="dank", channel="sms")
    assert said_back["body"].startswith("Vielen")
    assert found("/api/search", q="dank", channel="whatsapp") == []
    assert [m["id"] for m in found("/api/messages", q="tisch", direction="outbound")] == [
        sent["id"]
    ]
    thread = f"/api/conversations/{sent['conversation_id']}/messages"
    assert [m["id"] for m in found(thread, q="frei")] == [sent["id"]]
    for query in ({"q": "100002"}, {"q": "dank"}):
        (one,) = found("/api/search", type="conversations", **query)
        assert one["address"] == "+15550100002"
        assert found("/api/conversations", **query) == [one]
    first = client.get("/api/search", q="freitag", limit=1)
    rest = client.get("/api/search", q="freitag", limit=1, cursor=first["next_cursor"])
    assert [m["id"] for m in (*first["items"], *rest["items"])] == [said_back["id"], sent["id"]]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "q"),
        ({"q": ""}, "q"),
        ({"q": "x" * 10_000}, "q"),
        ({"q": "a\x00b"}, "q"),
        ({"q": "x", "type": "files"}, "type"),
        ({"q": "x", "status": "open"}, "status"),
        ({"q": "x", "cursor": "WyJtc2dfMSJd"}, "cursor"),
        ({"q": "x", "cursor": "Wzk5OTk5OTk5OTk5OTk5OTk5OTk5XQ"}, "cursor"),
    ],
)
def test_what_cannot_be_looked_for_is_refused_by_name(
    idle: Client, query: dict[str, str], field: str
) -> None:
    answer = idle.call("GET", "/api/search", params=query)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
