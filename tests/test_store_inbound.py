"""Verified webhooks become an inbox row, messages, conversations and events, once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gateway.domain import (
    Channel,
    Engagement,
    Handshake,
    MediaReference,
    MessageType,
    Status,
    Unrecognised,
)
from gateway.store.inbox import RECEIVE, Taken
from tests.stored import (
    CONNECTION,
    DAY,
    HOUR,
    OURS,
    PERSON,
    TENANT,
    Store,
    delivery,
    errors_of,
    future,
    new_message,
    person,
    said,
    update,
)

POOL = "MG0123"


def all_messages(store: Store) -> list[dict[str, Any]]:
    """The inbound messages, oldest first."""
    found = store.rows("SELECT * FROM messages WHERE direction = 'inbound' ORDER BY id")
    return [dict(row._mapping) for row in found]


def test_a_webhook_is_kept_raw_with_an_allow_list_of_its_headers(store: Store) -> None:
    taken = store.receive("k1", said("m1"), kept_headers=frozenset({"x-region"}))
    assert taken == Taken(new=True)
    (row,) = store.rows("SELECT * FROM inbox")
    assert bytes(row.body) == b"raw \x00\xff k1"
    assert json.loads(row.headers) == {"content-type": "text/plain", "x-region": "us1"}
    assert (row.key, row.connection, row.verdict, row.state) == (
        "k1",
        CONNECTION.id,
        "first secret",
        "parsed",
    )
    assert (row.url, row.method) == ("https://gateway.example.com/api/webhooks/test", "POST")


def test_what_came_late_tells_when_it_was_said_and_stands_where_it_was_stored(store: Store) -> None:
    now, hour_ago, day_ago = future(0), future(-HOUR), future(-DAY)
    when = datetime.fromtimestamp(day_ago / 1000, UTC)
    store.receive("k1", said("live"))
    store.receive("k2", said("spooled"), received_at=hour_ago)
    store.receive("k3", said("listed by the vendor", occurred_at=when))
    store.receive("k4", said("a clock ahead", occurred_at=datetime.now(UTC) + timedelta(days=1)))
    live, spooled, listed, ahead = all_messages(store)  # in the order in which they were stored
    assert live["sent_at"] == live["created_at"] >= now
    assert (spooled["sent_at"], listed["sent_at"]) == (hour_ago, day_ago)
    assert ahead["sent_at"] == ahead["created_at"]
    created = [row["created_at"] for row in (live, spooled, listed, ahead)]
    assert created == sorted(created)
    (conversation,) = store.conversations()
    assert conversation["last_inbound_at"] == ahead["sent_at"]


def test_a_person_may_be_answered_for_so_long_since_they_wrote_and_not_since_we_heard(
    store: Store,
) -> None:
    hour_ago = future(-HOUR)
    store.receive("k1", said("m1"), received_at=hour_ago)
    assert store.conversations()[0]["last_inbound_at"] == hour_ago
    store.receive("k2", said("m2"), received_at=hour_ago + 1000)
    store.receive("k3", said("m3"), received_at=hour_ago - 1000)  # an older one, and later
    assert store.conversations()[0]["last_inbound_at"] == hour_ago + 1000


def test_a_message_of_a_person_opens_a_conversation(store: Store) -> None:
    store.receive("k1", said("m1", name="Ada", segments=2, reply_to="SM0"))
    (row,) = all_messages(store)
    (conversation,) = store.conversations()
    assert (row["status"], row["from_address"], row["to_address"]) == ("received", PERSON, OURS)
    assert (row["provider_message_id"], row["segments"], row["reply_to"]) == ("SM-m1", 2, "SM0")
    assert (row["provider"], row["connection"], row["tenant_id"]) == ("test", "c1", TENANT)
    assert row["conversation_id"] == conversation["id"]
    assert (conversation["name"], conversation["unread_count"]) == ("Ada", 1)
    assert conversation["last_inbound_at"] == conversation["last_message_at"] == row["created_at"]
    assert [r.type for r in store.rows("SELECT type FROM events ORDER BY id")] == [
        "conversation.created",
        "message.received",
        "conversation.updated",
    ]


def test_an_answer_joins_the_conversation_that_we_began(store: Store) -> None:
    id_ = store.accept()
    store.receive("k1", said("m1"))
    (conversation,) = store.conversations()
    (row,) = all_messages(store)
    assert store.message(id_)["conversation_id"] == row["conversation_id"] == conversation["id"]
    store.receive("k2", said("m2", name="Ada"))
    (conversation,) = store.conversations()
    assert (conversation["unread_count"], conversation["name"]) == (2, "Ada")


def test_a_name_is_not_forgotten_by_a_message_without_one(store: Store) -> None:
    store.receive("k1", said("m1", name="Ada"))
    store.receive("k2", said("m2"))
    (conversation,) = store.conversations()
    assert conversation["name"] == "Ada"


def test_the_same_signed_bytes_again_change_nothing(store: Store) -> None:
    store.receive("k1", said("m1"), update(Status.SENT, "s1"))
    before = [store.count(t) for t in ("inbox", "messages", "receipts", "events")]
    assert store.receive("k1", said("m1"), update(Status.SENT, "s1")) == Taken(new=False)
    assert [store.count(t) for t in ("inbox", "messages", "receipts", "events")] == before
    assert store.conversations()[0]["unread_count"] == 1


def test_the_same_signed_bytes_twice_in_one_batch_are_taken_once(store: Store) -> None:
    items = [delivery("k1", said("m1")), delivery("k1", said("m1")), delivery("k2", said("m2"))]
    assert store.do(RECEIVE, *items) == [Taken(new=True), Taken(new=False), Taken(new=True)]
    assert len(all_messages(store)) == 2


def test_the_same_message_in_two_requests_is_stored_once(store: Store) -> None:
    store.receive("k1", said("m1"))
    assert store.receive("k2", said("m1")) == Taken(new=True)
    assert store.do(RECEIVE, delivery("k3", said("m1"), said("m2"), said("m2")))
    assert [m["dedupe_key"] for m in all_messages(store)] == ["m1", "m2"]
    assert store.count("inbox") == 3
    assert store.conversations()[0]["unread_count"] == 2


def test_keys_are_each_connections_own(store: Store) -> None:
    store.receive("k1", said("m1"))
    assert store.receive("k1", said("m1"), connection="c2") == Taken(new=True)
    assert len(all_messages(store)) == 2


def test_an_inbox_row_can_be_replayed_without_a_second_message(store: Store) -> None:
    store.receive("k1", state="malformed", detail="not readable")
    assert all_messages(store) == []
    for _ in range(2):
        store.receive("k1", said("m1"), id=None)
    assert len(all_messages(store)) == store.count("inbox") == 1


@pytest.mark.parametrize(
    "event",
    [
        Unrecognised(dedupe_key="u", kind="new_thing"),
        Engagement(dedupe_key="e", kind="opened"),
        Handshake(dedupe_key="h", kind="subscription"),
    ],
)
def test_what_is_no_message_and_no_status_is_kept_raw(store: Store, event: Any) -> None:
    assert store.receive("k1", event, state="unrecognised", detail="new_thing").new
    assert store.value("SELECT detail FROM inbox") == "new_thing"
    assert store.count("messages") == store.count("receipts") == 0


def test_a_conversation_is_one_per_address_of_ours_and_channel(store: Store) -> None:
    other = "+15005550099"
    store.receive("k1", said("m1"), said("m2", to_address=other))
    store.receive("k2", said("m3", channel=Channel.WHATSAPP), said("m4", from_address=person(2)))
    keys = {(c["channel"], c["our_key"], c["address"]) for c in store.conversations()}
    assert keys == {
        ("sms", OURS, PERSON),
        ("sms", other, PERSON),
        ("whatsapp", OURS, PERSON),
        ("sms", OURS, person(2)),
    }


def test_an_answer_to_a_pool_joins_the_pools_conversation(store: Store) -> None:
    item = new_message(from_address=None)
    item.wanted.our_keys, item.wanted.our_address = (POOL,), None
    (id_,) = store.accept_all(item)
    store.receive("k1", said("m1", pool=POOL), pools=frozenset({POOL}))
    (conversation,) = store.conversations()
    assert conversation["id"] == store.message(id_)["conversation_id"]
    assert (conversation["our_key"], conversation["our_address"]) == (POOL, OURS)
    store.receive("k2", said("m2", pool=POOL, to_address=person(7)), pools=frozenset({POOL}))
    assert [c["our_address"] for c in store.conversations()] == [person(7)]


def test_a_pool_that_is_not_ours_is_not_believed(store: Store) -> None:
    store.receive("k1", said("m1", pool="MG9999"), pools=frozenset({POOL}))
    assert [c["our_key"] for c in store.conversations()] == [OURS]


def test_a_conversation_of_the_number_itself_goes_before_its_pool(store: Store) -> None:
    store.receive("k1", said("m1"))
    store.receive("k2", said("m2", pool=POOL), pools=frozenset({POOL}))
    assert [c["our_key"] for c in store.conversations()] == [OURS]


USER = "US.13491208655302741918"


def whatsapp(key: str, from_address: str, *aliases: str) -> Any:
    """A WhatsApp message of one person under several addresses."""
    return said(key, channel=Channel.WHATSAPP, from_address=from_address, aliases=aliases)


@pytest.mark.parametrize(
    "order",
    [
        [(PERSON, USER), (USER,), (PERSON,)],
        [(USER, PERSON), (PERSON,), (USER,)],
        [(PERSON,), (PERSON, USER), (USER,)],
        [(USER,), (PERSON, USER), (PERSON,)],
    ],
)
def test_a_number_and_a_user_id_of_one_person_are_one_conversation(
    store: Store, order: list[tuple[str, ...]]
) -> None:
    for number, addresses in enumerate(order):
        store.receive(f"k{number}", whatsapp(f"m{number}", *addresses))
    assert len(store.conversations()) == 1
    assert store.conversations()[0]["unread_count"] == 3
    assert store.count("conversation_aliases") == 1


def test_they_are_one_conversation_within_a_batch_too(store: Store) -> None:
    store.do(
        RECEIVE,
        delivery("k1", whatsapp("m1", PERSON, USER), whatsapp("m2", USER)),
        delivery("k2", whatsapp("m3", PERSON)),
    )
    assert len(store.conversations()) == 1


def test_we_can_write_to_a_person_under_either_address(store: Store) -> None:
    store.receive("k1", whatsapp("m1", PERSON, USER))
    items = [new_message(to=to, channel="whatsapp") for to in (USER, PERSON)]
    store.accept_all(*items)
    assert len(store.conversations()) == 1


def test_files_of_a_message_are_references_first(store: Store) -> None:
    files = (
        MediaReference(reference="AC1/MM1/ME1", content_type="image/png"),
        MediaReference(reference="https://evil.example/x", fetchable=False),
    )
    store.receive("k1", said("m1", type=MessageType.IMAGE, media=files))
    (row,) = all_messages(store)
    shown = json.loads(row["media"])
    stored = store.rows("SELECT * FROM media ORDER BY position")
    assert [f["url"] for f in shown] == [f"/api/media/{r.id}" for r in stored]
    assert [(r.reference, r.state) for r in stored] == [
        ("AC1/MM1/ME1", "pending"),
        ("https://evil.example/x", "refused"),
    ]
    assert {r.message_id for r in stored} == {row["id"]}


def test_one_unstorable_webhook_fails_alone(store: Store) -> None:
    items = [
        delivery("k1", said("m1")),
        delivery("k2", said("m2", body="\ud800")),
        delivery("k3", said("m3", from_address=None)),
        delivery("k4", said("m4")),
    ]
    results, topics = store.batcher.write(RECEIVE, items)
    assert errors_of(results) in ([1], [1, 2])
    assert {m["dedupe_key"] for m in all_messages(store)} >= {"m1", "m4"}
    assert "events" in topics


def test_a_webhook_of_no_known_connection_is_kept_apart(store: Store) -> None:
    store.receive("k1", connection="c9", tenant_id="", state="quarantined")
    assert store.value("SELECT tenant_id FROM inbox") == ""


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=25), st.integers(1, 4))
def test_however_requests_repeat_each_message_is_stored_and_told_once(
    store: Store, requests: list[tuple[int, int]], size: int
) -> None:
    run = store.count("inbox") + 1  # examples share a database
    items = [
        delivery(f"{run}-k{k}-{m}", said(f"{run}-m{m}", from_address=person(run * 1000 + m % 2)))
        for k, m in requests
    ]
    before, told = len(all_messages(store)), store.count("events")
    for start in range(0, len(items), size):
        store.do(RECEIVE, *items[start : start + size])
    fresh = len({m for _, m in requests})
    people = len({m % 2 for _, m in requests})
    assert len(all_messages(store)) - before == fresh
    unread = store.rows(
        "SELECT SUM(unread_count) AS n FROM conversations WHERE address IN (?, ?)",
        person(run * 1000),
        person(run * 1000 + 1),
    )
    assert int(unread[0].n or 0) == fresh
    received = store.rows(
        "SELECT type FROM events WHERE id > ? AND type <> 'conversation.updated'", told
    )
    assert len(received) == fresh + people
