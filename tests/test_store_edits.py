"""Cancel and read marks: what people ask for while the engine is at work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from gateway.domain import Status
from gateway.errors import Ambiguous, Unreachable
from gateway.store.database import Database
from gateway.store.edits import CANCEL, READ_CONVERSATION, READ_MESSAGE, Named
from tests.stored import HOUR, TENANT, Store, future, new_message, person, said, update


def test_what_waits_can_be_canceled(store: Store) -> None:
    id_ = store.accept()
    assert store.cancel(id_)
    assert (store.status(id_), store.queued(id_)) == ("canceled", None)
    assert store.claim() == []
    assert store.told(id_) == ["message.queued", "message.canceled"]


def test_canceling_twice_is_canceling_once(store: Store) -> None:
    id_ = store.accept()
    assert store.cancel(id_)
    assert store.cancel(id_)
    assert store.told(id_).count("message.canceled") == 1


def test_what_is_scheduled_or_waits_for_a_retry_can_be_canceled(store: Store) -> None:
    later = store.accept(send_at=future(HOUR))
    attempt = store.begun(to=person(2))
    store.settle(attempt, Unreachable("x"), retry_in=HOUR)
    assert store.cancel(later)
    assert store.cancel(attempt.due.message_id)
    assert store.status(later) == store.status(attempt.due.message_id) == "canceled"


def test_what_is_claimed_sent_or_unknown_cannot_be_canceled(store: Store) -> None:
    claimed = store.accept()
    store.claim()
    sent, unknown = store.begun(to=person(2)), store.begun(to=person(3))
    store.settle(sent, "SM1")
    store.settle(unknown, Ambiguous("x"))
    for id_, status in (
        (claimed, "queued"),
        (sent.due.message_id, "accepted"),
        (unknown.due.message_id, "unknown"),
    ):
        assert not store.cancel(id_)
        assert store.status(id_) == status


def test_a_copy_that_is_due_is_called_off_though_the_first_may_be_out(store: Store) -> None:
    attempt = store.begun(on_unknown="resend")
    store.settle(attempt, Ambiguous("x"), retry_in=HOUR)
    assert store.cancel(attempt.due.message_id)
    assert store.queued(attempt.due.message_id) is None
    assert store.status(attempt.due.message_id) == "unknown"
    store.reports(update(Status.DELIVERED, attempt_id=attempt.id))
    assert store.status(attempt.due.message_id) == "delivered"


def test_nobody_cancels_what_is_another_tenants_or_does_not_exist(store: Store) -> None:
    id_ = store.accept()
    assert not store.cancel(id_, tenant_id="other")
    assert not store.cancel("msg_unknown")
    assert store.status(id_) == "queued"


def test_a_cancel_and_a_claim_at_the_same_moment_never_both_win(store: Store, url: str) -> None:
    ids = store.accept_all(*(new_message(to=person(n)) for n in range(120)))
    ready = Barrier(3)

    def canceler(mine: list[str]) -> set[str]:
        own = Store(Database(url))
        ready.wait()
        done = {id_ for id_ in mine if own.cancel(id_)}
        own.database.close()
        return done

    def sender() -> set[str]:
        own, begun = Store(Database(url)), set()
        ready.wait()
        for _ in range(200):
            got = own.claim(limit=4)
            begun |= {due.message_id for due in got if own.begin(due) is not None}
            if not got and own.count("queue") == own.value(
                "SELECT COUNT(*) FROM queue WHERE lease_until > 0"
            ):
                break
        own.database.close()
        return begun

    with ThreadPoolExecutor(3) as pool:
        halves = [pool.submit(canceler, part) for part in (ids[60:], ids[:60])]
        sent = pool.submit(sender)
        canceled = halves[0].result() | halves[1].result()
    assert canceled.isdisjoint(sent.result())
    assert canceled | sent.result() == set(ids)
    for id_ in ids:
        assert store.status(id_) == ("canceled" if id_ in canceled else "sending")


@pytest.fixture
def heard(store: Store) -> list[str]:
    """Three messages of one person, and one of another."""
    store.receive("k", *(said(f"m{n}") for n in range(3)), said("m9", from_address=person(9)))
    return [r.id for r in store.rows("SELECT id FROM messages ORDER BY id")]


def unread(store: Store) -> list[int]:
    """How many messages are unread in each conversation."""
    return [c["unread_count"] for c in store.conversations()]


def test_reading_a_message_counts_it_once(store: Store, heard: list[str]) -> None:
    before = store.count("events")
    for _ in range(2):
        assert store.do(READ_MESSAGE, Named(TENANT, heard[1])) == [True]
    assert unread(store) == [2, 1]
    assert store.message(heard[1])["read_at"] is not None
    assert store.count("events") == before + 1


def test_reading_a_conversation_reads_all_of_it(store: Store, heard: list[str]) -> None:
    conversation = store.conversations()[0]["id"]
    assert store.do(READ_CONVERSATION, Named(TENANT, conversation)) == [True]
    assert unread(store) == [0, 1]
    assert all(store.message(id_)["read_at"] for id_ in heard[:3])
    assert store.message(heard[3])["read_at"] is None
    store.do(READ_MESSAGE, Named(TENANT, heard[0]))
    assert unread(store) == [0, 1]


def test_only_what_a_person_wrote_to_this_tenant_can_be_read(
    store: Store, heard: list[str]
) -> None:
    ours = store.accept(to=person(9))
    conversation = store.conversations()[0]["id"]
    for item in (Named(TENANT, ours), Named("other", heard[0]), Named(TENANT, "msg_unknown")):
        assert store.do(READ_MESSAGE, item) == [False]
    for item in (Named("other", conversation), Named(TENANT, "conv_unknown")):
        assert store.do(READ_CONVERSATION, item) == [False]
    assert unread(store) == [3, 1]


def test_a_batch_of_edits_answers_each(store: Store, heard: list[str]) -> None:
    ours = store.accept()
    asked = [Named(TENANT, ours), Named(TENANT, heard[0]), Named(TENANT, ours)]
    assert store.do(CANCEL, *asked) == [True, False, True]
