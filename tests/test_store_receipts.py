"""Callbacks: kept once, applied where they belong, in whatever order they come."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from gateway.clock import new_id
from gateway.domain import Receipt, Status, StatusUpdate, VendorError
from gateway.errors import Ambiguous, Rejected, Unreachable, Unsupported
from gateway.routing import Retry
from gateway.status import RANKS
from gateway.store.database import Database
from gateway.store.deliveries import SETTLE, Attempt, Outcome
from gateway.store.inbox import RECEIVE
from gateway.store.reports import REPORT, Report
from gateway.store.tx import Tx
from tests.stored import (
    CONNECTION,
    HOUR,
    NOW,
    TENANT,
    Store,
    delivery,
    future,
    new_message,
    update,
)

MANY = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def sent(store: Store, id_: str = "SM1", **columns: Any) -> Attempt:
    """A message that the vendor took under an id."""
    attempt = store.begun(**columns)
    store.settle(attempt, id_)
    return attempt


def about(id_: str, status: Status, **more: Any) -> StatusUpdate:
    """A callback that names the vendor's id only."""
    return update(status, provider_message_id=id_, **more)


def test_callbacks_move_a_message_and_are_told(store: Store) -> None:
    id_ = sent(store).due.message_id
    store.reports(*(about("SM1", s) for s in (Status.SENT, Status.DELIVERED, Status.READ)))
    assert store.told(id_)[-3:] == ["message.sent", "message.delivered", "message.read"]
    assert store.verdicts() == ["applied"] * 3
    row = store.message(id_)
    assert None not in (row["sent_at"], row["delivered_at"], row["read_at"])


def test_a_callback_is_kept_once(store: Store) -> None:
    id_ = sent(store).due.message_id
    same = about("SM1", Status.DELIVERED, key="once")
    for _ in range(3):
        store.receive(new_id("req"), same)
    store.receive(new_id("req"), same, same)
    assert store.count("receipts") == 1
    assert store.told(id_).count("message.delivered") == 1


def test_a_callback_that_changes_nothing_is_kept(store: Store) -> None:
    id_ = sent(store).due.message_id
    store.reports(about("SM1", Status.DELIVERED), about("SM1", Status.SENT))
    assert store.verdicts() == ["applied", "kept"]
    assert store.status(id_) == "delivered"


def test_a_late_sent_does_not_undo_delivered_but_its_time_is_kept(store: Store) -> None:
    id_ = sent(store).due.message_id
    store.reports(
        about("SM1", Status.DELIVERED, occurred_at=NOW),
        about("SM1", Status.SENT, occurred_at=NOW),
    )
    row = store.message(id_)
    assert row["status"] == "delivered"
    assert row["sent_at"] == row["delivered_at"] == int(NOW.timestamp() * 1000)


def test_delivered_after_failed_is_taken(store: Store) -> None:
    id_ = sent(store).due.message_id
    wrong = VendorError(code="30008", message="unknown error")
    store.reports(about("SM1", Status.FAILED, error=wrong))
    assert (store.status(id_), store.message(id_)["error_code"]) == ("failed", "30008")
    store.reports(about("SM1", Status.DELIVERED))
    assert (store.status(id_), store.message(id_)["error_code"]) == ("delivered", None)


def test_failed_after_delivered_is_kept_and_not_applied(store: Store) -> None:
    id_ = sent(store).due.message_id
    wrong = VendorError(code="30008", message="unknown error")
    store.reports(about("SM1", Status.DELIVERED), about("SM1", Status.FAILED, error=wrong))
    assert (store.status(id_), store.message(id_)["error_code"]) == ("delivered", None)
    assert store.verdicts() == ["applied", "kept"]
    assert store.value("SELECT error_code FROM receipts WHERE status = 'failed'") == "30008"


def test_bounced_after_delivered_is_taken(store: Store) -> None:
    id_ = sent(store).due.message_id
    store.reports(about("SM1", Status.DELIVERED), about("SM1", Status.BOUNCED))
    assert store.status(id_) == "bounced"


LIFE = (Status.ACCEPTED, Status.SENT, Status.FAILED, Status.DELIVERED, Status.READ)
KNOWN = ("status", "error_code", "sent_at", "delivered_at", "read_at", "provider_message_id")


def end_of(store: Store, said: list[Status], *, early: bool = False) -> list[Any]:
    """Where a message ends after these callbacks."""
    attempt, sid = store.begun(to=f"+1555{store.count('messages'):07d}"), new_id("SM")
    to = attempt.due.message["to_address"]
    if not early:
        store.settle(attempt, sid)
    store.reports(*(about(sid, s, recipient=to, occurred_at=NOW) for s in said))
    if early:
        store.settle(attempt, sid)
    row = store.message(attempt.due.message_id)
    assert row["provider_message_id"] == sid
    return [row[name] for name in KNOWN if name != "provider_message_id"]


@MANY
@given(st.permutations(LIFE), st.booleans())
def test_callbacks_in_any_order_end_alike(store: Store, order: list[Status], early: bool) -> None:
    at = int(NOW.timestamp() * 1000)
    assert end_of(store, order, early=early) == ["read", None, at, at, at]


@MANY
@given(st.lists(st.sampled_from(sorted(RANKS)), min_size=1, max_size=5))
def test_a_message_ends_at_the_furthest_that_was_said(store: Store, said: list[Status]) -> None:
    ends = end_of(store, said)[0]
    assert RANKS[Status(ends)] == max(RANKS[Status.ACCEPTED], *(RANKS[status] for status in said))


def test_early_callbacks_wait_for_their_attempt(store: Store) -> None:
    attempt = store.begun()
    store.reports(about("SM1", Status.SENT), about("SM1", Status.DELIVERED))
    assert store.verdicts() == ["parked", "parked"]
    assert store.status(attempt.due.message_id) == "sending"
    store.settle(attempt, "SM1")
    assert store.verdicts() == ["applied", "applied"]
    assert store.status(attempt.due.message_id) == "delivered"
    assert store.told(attempt.due.message_id)[-1] == "message.delivered"


def test_a_parked_callback_is_applied_to_its_own_connection_only(store: Store) -> None:
    attempt = store.begun()
    store.reports(about("SM1", Status.DELIVERED), connection="c2")
    store.settle(attempt, "SM1")
    assert store.status(attempt.due.message_id) == "accepted"
    assert store.verdicts() == ["parked"]


def test_what_two_processes_missed_at_the_same_moment_is_found_by_the_sweep(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, "SM1")
    store.reports(about("SM1", Status.SENT))
    # As if the callback's transaction had not seen the attempt's id, nor the attempt's the callback
    store.change("UPDATE receipts SET verdict = 'parked', attempt_id = NULL")
    store.change("UPDATE attempts SET status = 'accepted', rank = 30")
    store.change("UPDATE messages SET status = 'accepted'")
    store.sweep()
    assert (store.status(attempt.due.message_id), store.verdicts()) == ("sent", ["applied"])


def test_our_attempt_id_settles_what_was_unknown(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, Ambiguous("x"))
    store.reports(update(Status.SENT, attempt_id=attempt.id, provider_message_id="SM1"))
    row = store.message(attempt.due.message_id)
    assert (row["status"], row["provider_message_id"]) == ("sent", "SM1")
    assert row["error_code"] is None
    store.reports(about("SM1", Status.DELIVERED))
    assert store.status(attempt.due.message_id) == "delivered"


def test_a_callback_that_comes_before_the_vendors_answer_ends_the_send(store: Store) -> None:
    attempt = store.begun()
    id_ = attempt.due.message_id
    store.reports(update(Status.SENT, attempt_id=attempt.id, provider_message_id="SM1"))
    assert (store.status(id_), store.queued(id_)) == ("sent", None)
    store.settle(attempt, "SM1")
    assert (store.status(id_), store.verdicts()) == ("sent", ["applied"])


@pytest.mark.parametrize("error", [Ambiguous("x"), Unreachable("x"), Rejected("x")])
def test_an_error_does_not_contradict_the_vendors_own_word(store: Store, error: Any) -> None:
    attempt = store.begun(on_unknown="resend")
    id_ = attempt.due.message_id
    store.reports(update(Status.SENT, attempt_id=attempt.id, provider_message_id="SM1"))
    store.settle(attempt, error, retry_in=0)
    assert (store.status(id_), store.queued(id_)) == ("sent", None)
    assert store.message(id_)["error_code"] is None


@pytest.mark.parametrize("status", [Status.ACCEPTED, Status.SENT, Status.DELIVERED, Status.READ])
def test_a_callback_that_the_vendor_has_it_calls_off_the_next_attempt(
    store: Store, status: Status
) -> None:
    attempt = store.begun()
    store.settle(attempt, Unreachable("x"), retry_in=HOUR)
    store.reports(update(Status.DELIVERED, attempt_id=attempt.id, provider_message_id="SM1"))
    assert store.queued(attempt.due.message_id) is None
    assert store.status(attempt.due.message_id) == "delivered"
    other = store.begun(to="+15551230009", on_unknown="resend")
    store.settle(other, Ambiguous("x"), retry_in=HOUR)
    store.reports(update(status, attempt_id=other.id, recipient="+15551230009"))
    assert store.queued(other.due.message_id) is None


def test_a_callback_about_an_older_attempt_calls_off_the_next_one_too(store: Store) -> None:
    first = store.begun(on_unknown="resend")
    id_ = first.due.message_id
    store.lapse()
    store.settle(store.next_attempt(id_), Unreachable("x"), retry_in=HOUR)
    store.reports(update(Status.DELIVERED, attempt_id=first.id))
    assert (store.status(id_), store.queued(id_)) == ("delivered", None)


def test_bad_news_about_an_older_attempt_leaves_the_next_one_be(store: Store) -> None:
    first = store.begun(on_unknown="resend")
    id_ = first.due.message_id
    store.settle(first, Ambiguous("x"), retry_in=0)
    store.reports(update(Status.FAILED, attempt_id=first.id))
    assert store.status(id_) == "queued"
    second = store.next_attempt(id_)
    store.reports(update(Status.UNDELIVERED, attempt_id=first.id))
    assert store.status(id_) == "sending"
    store.settle(second, "SM2")
    assert store.status(id_) == "accepted"


def throttled(id_: str, status: Status = Status.FAILED, **more: Any) -> StatusUpdate:
    """A callback that the vendor had no room after all."""
    error = VendorError(code="30001", message="queue overflow", reason="throttled")
    return about(id_, status, error=error, **more)


def test_what_a_vendor_throttles_after_it_took_it_is_due_again(store: Store) -> None:
    attempt = sent(store)
    id_ = attempt.due.message_id
    store.reports(throttled("SM1"))
    entry, row = store.queued(id_), store.message(id_)
    assert entry is not None
    assert (row["status"], row["error_code"]) == ("queued", "30001")
    assert 60_000 <= entry["due_at"] - row["updated_at"] <= 62_000
    store.make_due(id_)
    store.settle(store.next_attempt(id_), "SM2")
    assert [a["status"] for a in store.attempts(id_)] == ["failed", "accepted"]
    store.reports(throttled("SM2"))
    again = store.queued(id_)
    assert again is not None
    assert 120_000 <= again["due_at"] - store.message(id_)["updated_at"] <= 122_000


def test_only_the_newest_attempt_is_repeated_so_and_only_once(store: Store) -> None:
    id_ = sent(store).due.message_id
    store.reports(throttled("SM1"))
    store.make_due(id_)
    store.settle(store.next_attempt(id_), "SM2")
    store.reports(throttled("SM1"), throttled("SM1", Status.UNDELIVERED))
    assert (store.status(id_), store.queued(id_)) == ("accepted", None)


def test_a_throttling_of_an_older_attempt_repeats_nothing(store: Store) -> None:
    first = store.begun(on_unknown="resend")
    id_ = first.due.message_id
    store.settle(first, Ambiguous("x"), retry_in=0)
    store.settle(store.next_attempt(id_), Rejected("x"))
    store.reports(throttled("SM1", attempt_id=first.id))
    assert [a["status"] for a in store.attempts(id_)] == ["failed", "failed"]
    assert (store.status(id_), store.queued(id_)) == ("failed", None)


def test_a_throttling_that_comes_after_the_failure_repeats_nothing(store: Store) -> None:
    id_ = sent(store).due.message_id
    store.reports(about("SM1", Status.FAILED, error=VendorError(code="30003")))
    store.reports(throttled("SM1"))
    assert store.verdicts() == ["applied", "kept"]
    assert (store.status(id_), store.queued(id_)) == ("failed", None)


def test_a_throttling_that_comes_before_the_vendors_answer_is_not_forgotten(store: Store) -> None:
    attempt = store.begun()
    store.reports(throttled("SM1", attempt_id=attempt.id))
    store.settle(attempt, "SM1")
    assert store.status(attempt.due.message_id) == "queued"
    assert store.queued(attempt.due.message_id) is not None


def test_delivered_after_it_calls_the_next_attempt_off(store: Store) -> None:
    id_ = sent(store).due.message_id
    store.reports(throttled("SM1"), about("SM1", Status.DELIVERED))
    assert (store.status(id_), store.queued(id_)) == ("delivered", None)


def test_a_throttled_message_is_repeated_as_often_as_any_other(url: str) -> None:
    store = Store(Database(url, retry=Retry(limit=3)))
    id_ = sent(store, "SM0").due.message_id
    for n in range(1, 4):
        store.reports(throttled(f"SM{n - 1}"))
        assert store.status(id_) == "queued"
        store.make_due(id_)
        store.settle(store.next_attempt(id_), f"SM{n}")
    store.reports(throttled("SM3"))
    assert (store.status(id_), store.queued(id_)) == ("failed", None)
    store.database.close()


def test_a_throttled_message_is_due_at_once_for_whom_nobody_asked_yet(store: Store) -> None:
    new = new_message()
    new.route = "test,vendor"
    (id_,) = store.accept_all(new)
    attempt = store.next_attempt(id_)
    store.settle(attempt, "SM1")
    assert store.queued(id_) is None
    store.reports(throttled("SM1"))
    entry, (row,) = store.queued(id_), store.attempts(id_)
    assert entry is not None
    assert (entry["route"], entry["due_at"] - row["retry_at"]) == ("test,vendor", -60_000)
    store.settle(store.next_attempt(id_), "SM2")  # the same one all the same
    store.reports(throttled("SM2"))
    entry, (_, row) = store.queued(id_), store.attempts(id_)
    assert entry is not None
    assert (entry["route"], entry["due_at"] - row["retry_at"]) == ("test,vendor", -120_000)


def test_who_has_dropped_out_of_a_route_does_not_come_back_by_a_throttling(store: Store) -> None:
    new = new_message()
    new.route = "vendor,test"
    (id_,) = store.accept_all(new)
    error = Unsupported("x", code="no_mms")
    store.do(SETTLE, Outcome(store.next_attempt(id_), error=error, retry_in=0, route="test"))
    store.settle(store.next_attempt(id_), "SM2")
    store.reports(throttled("SM2"))
    entry = store.queued(id_)
    assert entry is not None
    assert entry["route"] == "test"
    assert entry["due_at"] > store.message(id_)["updated_at"]


def test_a_throttled_message_that_would_be_late_has_failed(store: Store) -> None:
    id_ = sent(store, expires_at=future(30_000)).due.message_id
    store.reports(throttled("SM1"))
    assert (store.status(id_), store.queued(id_)) == ("failed", None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"account": "AC2"},
        {"recipient": "+15559999999"},
        {"provider_message_id": "SM9"},
        {"connection": "c2"},
        {"tenant_id": "other"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_callback_that_contradicts_its_attempt_changes_nothing(
    store: Store, wrong: dict[str, str]
) -> None:
    attempt = sent(store)
    facts = {"provider_message_id": "SM1"} | wrong
    where = {name: facts.pop(name) for name in ("connection", "tenant_id") if name in facts}
    before = store.message(attempt.due.message_id)
    store.reports(update(Status.DELIVERED, attempt_id=attempt.id, **facts), **where)
    assert store.verdicts() == ["foreign"]
    assert store.message(attempt.due.message_id) == before
    assert store.told(attempt.due.message_id)[-1] == "message.accepted"


def test_facts_that_a_callback_does_not_tell_contradict_nothing(store: Store) -> None:
    attempt = sent(store)
    store.reports(about("SM1", Status.DELIVERED, account=None, recipient=None))
    assert store.status(attempt.due.message_id) == "delivered"


def test_an_id_that_another_attempt_has_makes_a_callback_foreign(store: Store) -> None:
    one, two = sent(store), store.begun(to="+15551230009")
    store.settle(two, Ambiguous("x"))
    said = update(
        Status.DELIVERED,
        attempt_id=two.id,
        provider_message_id="SM1",
        recipient="+15551230009",
    )
    store.reports(said)
    assert store.verdicts() == ["foreign"]
    assert (store.status(one.due.message_id), store.status(two.due.message_id)) == (
        "accepted",
        "unknown",
    )


def test_two_callbacks_of_one_batch_cannot_give_two_attempts_the_same_id(store: Store) -> None:
    one, two = store.begun(), store.begun(to="+15551230009")
    for attempt in (one, two):
        store.settle(attempt, Ambiguous("x"))
    said = [
        update(
            Status.SENT,
            attempt_id=attempt.id,
            provider_message_id="SM1",
            recipient=attempt.due.message["to_address"],
        )
        for attempt in (one, two)
    ]
    store.receive("both", *said)
    assert store.verdicts() == ["applied", "foreign"]
    assert store.status(two.due.message_id) == "unknown"


def test_an_attempt_that_nobody_knows_is_not_guessed_at(store: Store) -> None:
    attempt = sent(store)
    store.reports(update(Status.DELIVERED, attempt_id="att_unknown"))
    assert store.verdicts() == ["parked"]
    assert store.status(attempt.due.message_id) == "accepted"


def test_what_a_callback_knows_more_is_shown(store: Store) -> None:
    attempt = sent(store, from_address=None)
    store.reports(about("SM1", Status.SENT, sender="+15005550007", segments=3))
    row = store.message(attempt.due.message_id)
    assert (row["from_address"], row["segments"]) == ("+15005550007", 3)


@pytest.mark.parametrize("order", list(permutations((0, 1, 2))))
def test_callbacks_of_one_batch_are_applied_in_their_order(
    store: Store, order: tuple[int, ...]
) -> None:
    attempt = sent(store)
    life = (Status.SENT, Status.DELIVERED, Status.READ)
    store.do(RECEIVE, *(delivery(f"r{n}", about("SM1", life[n])) for n in order))
    assert store.status(attempt.due.message_id) == "read"
    assert store.count("receipts") == 3


def test_a_provider_may_report_without_a_webhook(store: Store) -> None:
    attempt = sent(store)
    said = (
        update(Status.SENT, "a", attempt_id=attempt.id),
        update(Status.DELIVERED, "b", attempt_id=attempt.id),
    )
    for _ in range(2):
        store.do(REPORT, Report(TENANT, CONNECTION.id, said))
    assert store.status(attempt.due.message_id) == "delivered"
    assert store.count("receipts") == 2


def test_a_batch_settles_many_messages_and_their_parked_callbacks(store: Store) -> None:
    attempts = [store.begun(to=f"+1555{n:07d}") for n in range(40)]
    store.reports(
        *(
            about(f"SM{n}", Status.DELIVERED, recipient=a.due.message["to_address"])
            for n, a in enumerate(attempts)
            if n % 2
        )
    )
    outcomes = [
        Outcome(a, receipt=Receipt(provider_message_id=f"SM{n}")) for n, a in enumerate(attempts)
    ]
    store.do(SETTLE, *outcomes)
    ends = [store.status(a.due.message_id) for a in attempts]
    assert ends == ["accepted", "delivered"] * 20


def test_what_waits_for_an_attempt_is_found_without_reading_what_was_ever_said(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(Database(sqlite_url))
    attempt, plans, real = store.begun(), list[str](), Tx.run

    def run(self: Tx, sql: str, values: Any = ()) -> Any:
        if "receipts" in sql and ("SELECT" in sql or "UPDATE" in sql):
            plan = real(self, f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
            plans.extend(str(row[3]) for row in plan)
        return real(self, sql, values)

    monkeypatch.setattr(Tx, "run", run)
    store.settle(attempt, "SM1")
    store.sweep()
    store.database.close()
    assert any("ix_receipts_parked (connection=? AND provider_message_id=?)" in p for p in plans)
    assert any("ix_receipts_missed" in plan for plan in plans)
    read = [p for p in plans if p.startswith(("SCAN t", "SCAN r", "SEARCH t", "SEARCH r"))]
    assert all("parked" in plan or "missed" in plan for plan in read), read
