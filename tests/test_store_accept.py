"""T1: conversation, message, queue entry and event at once; and a caller's own key."""

from __future__ import annotations

import json
import string
from datetime import UTC, datetime
from random import Random

import pytest

from gateway.domain import Capabilities, Channel, Priority
from gateway.drafts import Draft
from gateway.outbound import Invalid, Outbound
from gateway.routing import Route
from gateway.store import message_lists
from gateway.store.accepts import ACCEPT
from gateway.store.batcher import Batcher
from gateway.store.message_lists import Asked
from tests.stored import (
    CONNECTION,
    DAY,
    HOUR,
    OURS,
    PERSON,
    TENANT,
    Store,
    change_of,
    errors_of,
    future,
    keyed,
    new_message,
    person,
)


class FixedClock:
    """A clock for what is not measured."""

    def now(self) -> datetime:
        """The time of day."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds."""
        return 0.0


def outbound(store: Store) -> Outbound:
    """The use case on a store."""
    route = Route("test", Capabilities(channels=frozenset({Channel.SMS})), CONNECTION)
    return Outbound(
        Batcher(store.database, lambda topics: None),
        {Channel.SMS: (route,)},
        FixedClock(),
        region=None,
        expiry=DAY / 1000,
        idempotency=DAY / 1000,
    )


def test_an_accepted_message_has_its_conversation_queue_entry_and_event(store: Store) -> None:
    (answer,) = store.accepted(new_message(body="hello", meta='{"a":1}'))
    id_ = str(answer.view["id"])
    row = store.message(id_)
    (conversation,) = store.conversations()
    assert (row["status"], row["body"], row["meta"]) == ("queued", "hello", '{"a":1}')
    assert (conversation["our_key"], conversation["address"]) == (OURS, PERSON)
    assert row["conversation_id"] == conversation["id"] == answer.view["conversation_id"]
    assert conversation["last_message_at"] == row["created_at"]
    entry = store.queued(id_)
    assert entry is not None
    assert (entry["lane"], entry["attempts"], entry["claims"]) == (2, 0, 0)
    events = store.rows("SELECT * FROM events ORDER BY id")
    assert [e.type for e in events] == ["conversation.created", "message.queued"]
    assert change_of(events)[1] == {"status": "queued"}


def test_a_scheduled_message_says_so_and_is_due_then(store: Store) -> None:
    when = future(HOUR)
    id_ = store.accept(send_at=when)
    entry = store.queued(id_)
    assert entry is not None
    assert (store.status(id_), entry["due_at"]) == ("scheduled", when)
    assert store.told(id_) == ["message.scheduled"]


def test_a_time_to_send_that_has_passed_is_now(store: Store) -> None:
    id_ = store.accept(send_at=1)
    assert store.status(id_) == "queued"
    assert store.claimed() == [id_]


@pytest.mark.parametrize(
    ("priority", "lane"), [("urgent", 0), ("high", 1), ("normal", 2), ("low", 3)]
)
def test_each_priority_has_its_lane(store: Store, priority: str, lane: int) -> None:
    entry = store.queued(store.accept(priority=priority))
    assert entry is not None
    assert entry["lane"] == lane
    assert len(Priority) == 4


def test_messages_to_one_person_in_one_batch_share_a_conversation(store: Store) -> None:
    store.accept_all(new_message(), new_message(), new_message(to=person(9)))
    assert [c["address"] for c in store.conversations()] == [PERSON, person(9)]
    store.accept_all(new_message(), new_message(to=person(9)))
    assert len(store.conversations()) == 2


def test_tenants_do_not_share_conversations(store: Store) -> None:
    store.accept_all(new_message(), new_message(tenant_id="other"))
    assert sorted(c["tenant_id"] for c in store.conversations()) == [TENANT, "other"]


def test_a_batch_of_any_size_is_stored_whole(store: Store) -> None:
    ids = store.accept_all(*(new_message(to=person(n % 97)) for n in range(700)))
    assert store.count("messages") == store.count("queue") == 700
    assert store.count("conversations") == 97
    assert sorted(ids) == ids
    assert store.count("events") == 797


def test_the_same_key_twice_gives_one_message_and_the_same_answer(store: Store) -> None:
    (first,) = store.accepted(new_message(idempotency=keyed("k")))
    (second,) = store.accepted(new_message(idempotency=keyed("k")))
    assert (first.replayed, second.replayed, second.conflict) == (False, True, False)
    assert second.view == first.view
    assert store.count("messages") == store.count("queue") == 1


def test_the_same_key_twice_in_one_batch_gives_one_message(store: Store) -> None:
    items = [new_message(idempotency=keyed("k")) for _ in range(3)]
    first, *rest = store.accepted(new_message(), *items, new_message(idempotency=keyed("l")))[1:]
    *again, other = rest
    assert [a.replayed for a in again] == [True, True]
    assert all(a.view == first.view for a in again)
    assert other.view["id"] != first.view["id"]
    assert store.count("messages") == 3


def test_another_body_under_the_same_key_is_a_conflict(store: Store) -> None:
    item, other = (new_message(idempotency=keyed("k", h)) for h in ("h1", "h2"))
    first, second = store.accepted(item, other)
    (third,) = store.accepted(new_message(idempotency=keyed("k", "h3")))
    assert (first.conflict, second.conflict, third.conflict) == (False, True, True)
    assert store.count("messages") == 1


def test_a_key_is_its_tenants_and_its_routes_own(store: Store) -> None:
    here = keyed("k")
    elsewhere = type(here)("POST /api/other", "k", "h1", DAY)
    store.accept_all(
        new_message(idempotency=here),
        new_message(idempotency=elsewhere),
        new_message(idempotency=keyed("k"), tenant_id="other"),
    )
    assert store.count("messages") == 3


def test_a_key_is_free_again_after_its_time(store: Store) -> None:
    store.accept(idempotency=keyed("k"))
    store.change("UPDATE idempotency SET expires_at = 1")
    (again,) = store.accepted(new_message(idempotency=keyed("k", "h2")))
    assert (again.replayed, again.conflict) == (False, False)
    assert store.count("messages") == 2
    (kept,) = store.rows("SELECT * FROM idempotency")
    assert (kept.body_hash, kept.message_id) == ("h2", again.view["id"])


def test_the_answer_that_is_replayed_is_the_first_one(store: Store) -> None:
    (first,) = store.accepted(new_message(idempotency=keyed("k")))
    due = store.claim()[0]
    attempt = store.begin(due)
    assert attempt is not None
    store.settle(attempt, "SM1")
    (second,) = store.accepted(new_message(idempotency=keyed("k")))
    assert second.view == first.view
    assert second.view["status"] == "queued"


@pytest.mark.anyio
async def test_what_cannot_be_accepted_leaves_its_key_free(store: Store) -> None:
    use = outbound(store)
    key = use.idempotency("POST /api/messages", "k", {"to": "nobody"})
    with pytest.raises(Invalid):
        await use.accept(Draft(channel=Channel.SMS, to="nobody"), tenant_id=TENANT, key=key)
    assert store.count("idempotency") == store.count("messages") == 0
    right = use.prepare(Draft(channel=Channel.SMS, to=PERSON, body="hi"), TENANT, key)
    (answer,) = store.accepted(right)
    assert not answer.replayed


def test_the_hash_of_a_key_does_not_depend_on_the_order_of_fields(store: Store) -> None:
    use = outbound(store)
    one = use.idempotency("r", "k", {"a": 1, "b": {"c": 2, "d": 3}})
    two = use.idempotency("r", "k", {"b": {"d": 3, "c": 2}, "a": 1})
    assert one == two
    assert one != use.idempotency("r", "k", {"a": 1, "b": {"c": 2, "d": 4}})


def test_a_prepared_draft_is_stored_as_it_was_asked_for(store: Store) -> None:
    draft = Draft(
        channel=Channel.SMS,
        to="+1 (555) 123-0001",
        body="€ and ж",
        metadata={"order": 7},
        priority=Priority.HIGH,
    )
    (answer,) = store.accepted(outbound(store).prepare(draft, TENANT))
    row = store.message(str(answer.view["id"]))
    assert (row["to_address"], row["from_address"]) == (PERSON, OURS)
    assert (row["body"], json.loads(row["meta"])) == ("€ and ж", {"order": 7})
    assert (row["segments"], row["provider"], row["connection"]) == (1, "test", "c1")


def incompressible() -> str:
    """A text that no database can make smaller."""
    return "".join(Random(7).choices(string.printable[:94], k=9000))


@pytest.mark.parametrize(
    "poison",
    [
        {"body": None},
        {"priority": None},
        {"body": object()},
        {"body": "\ud800"},
        {"created_by": "nobody"},
        {"send_at": 2**70},
    ],
    ids=["null", "missing", "type", "surrogate", "column", "number"],
)
def test_one_poisonous_message_fails_alone(store: Store, poison: dict[str, object]) -> None:
    bad = new_message(to=person(1))
    bad.row.update(poison)
    items = [new_message(), bad, new_message(to=person(2)), new_message(idempotency=keyed("k"))]
    results, _ = store.batcher.write(ACCEPT, items)
    assert errors_of(results) == [1]
    assert store.count("messages") == store.count("queue") == 3
    assert store.count("idempotency") == 1


def test_a_key_that_is_too_long_for_an_index_fails_alone_or_is_stored(store: Store) -> None:
    long = new_message(idempotency=keyed(incompressible()))
    results, _ = store.batcher.write(ACCEPT, [new_message(), long, new_message()])
    failed = errors_of(results)
    assert failed == ([1] if store.database.dialect == "postgresql" else [])
    assert store.count("messages") == 3 - len(failed)


def test_lists_are_of_one_tenant_newest_first(store: Store) -> None:
    mine = store.accept_all(*(new_message() for _ in range(3)))
    store.accept(tenant_id="other")
    with store.database.read() as tx:
        found = message_lists.listed(tx, TENANT, Asked({"status": "queued"}), None, 10)
        older = message_lists.listed(tx, TENANT, Asked(), mine[2], 1)
    assert [row["id"] for row in found] == mine[::-1]
    assert [row["id"] for row in older] == [mine[1]]
