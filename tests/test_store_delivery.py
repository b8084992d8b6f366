"""T2 and T3: what is written before the wire, and what an answer makes of it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.clock import new_id
from gateway.domain import Money, Receipt
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unreachable,
    Unsupported,
)
from gateway.store.deliveries import BEGIN, Attempt
from tests.stored import CONNECTION, HOUR, OURS, PERSON, Store, change_of, future


def test_an_attempt_is_written_before_the_wire(store: Store) -> None:
    attempt = store.begun()
    (row,) = store.attempts(attempt.due.message_id)
    assert (row["id"], row["number"], row["status"]) == (attempt.id, 1, "sending")
    assert (row["recipient"], row["sender"], row["account"]) == (PERSON, OURS, "AC1")
    assert store.status(attempt.due.message_id) == "sending"
    assert store.told(attempt.due.message_id) == ["message.queued", "message.sending"]


def test_an_attempt_needs_the_lease_it_was_claimed_with(store: Store) -> None:
    store.accept()
    (due,) = store.claim()
    store.lapse()
    (again,) = store.claim()
    assert store.begin(due) is None
    assert store.begin(again) is not None
    assert len(store.attempts(due.message_id)) == 1


def test_an_attempt_needs_a_lease_that_holds(store: Store) -> None:
    store.accept()
    (due,) = store.claim()
    store.change("UPDATE queue SET lease_until = 1")
    assert store.begin(due) is None
    assert store.attempts(due.message_id) == []
    store.sweep()
    assert store.claimed() == [due.message_id]


def test_a_lease_allows_one_attempt_and_beginning_it_twice_is_the_same(store: Store) -> None:
    attempt = store.begun()
    assert store.do(BEGIN, attempt) == [True]
    assert len(store.attempts(attempt.due.message_id)) == 1


def test_a_canceled_message_is_not_begun(store: Store) -> None:
    id_ = store.accept()
    assert store.cancel(id_)
    assert store.claim() == []


def test_what_is_not_in_the_queue_any_more_is_not_begun(store: Store) -> None:
    store.accept()
    (due,) = store.claim()
    store.change("DELETE FROM queue")
    assert store.do(BEGIN, Attempt(new_id("att"), due, "test", CONNECTION, OURS)) == [False]
    assert store.count("attempts") == 0


def test_a_message_whose_time_is_over_is_not_begun(store: Store) -> None:
    id_ = store.accept()
    (due,) = store.claim()
    store.change("UPDATE messages SET expires_at = 1")
    assert store.begin(due) is None
    assert store.queued(id_) is None
    assert (store.status(id_), store.message(id_)["error_code"]) == ("expired", "expired")
    assert store.told(id_) == ["message.queued", "message.expired"]


def test_a_message_that_waited_too_long_expires_by_itself(store: Store) -> None:
    id_ = store.accept()
    store.change("UPDATE queue SET expires_at = 1")
    assert store.sweep() == 1
    assert (store.status(id_), store.queued(id_)) == ("expired", None)
    assert store.sweep() == 0


def test_a_receipt_settles_the_attempt_and_the_message(store: Store) -> None:
    attempt = store.begun(from_address=None)
    receipt = Receipt(
        provider_message_id="SM1",
        sender="+15005550007",
        segments=2,
        cost=Money(amount=Decimal("0.0079"), currency="USD"),
    )
    store.settle(attempt, receipt)
    row, (tried,) = store.message(attempt.due.message_id), store.attempts(attempt.due.message_id)
    assert (row["status"], row["provider_message_id"], row["segments"]) == ("accepted", "SM1", 2)
    assert (row["cost"], row["currency"], row["from_address"]) == ("0.0079", "USD", "+15005550007")
    assert (tried["status"], tried["rank"], tried["provider_message_id"]) == ("accepted", 30, "SM1")
    assert tried["finished_at"] is not None
    assert store.queued(attempt.due.message_id) is None
    assert store.told(attempt.due.message_id)[-1] == "message.accepted"


@pytest.mark.parametrize(
    ("error", "status", "attempt_status"),
    [
        (Unsupported("no", code="u"), "failed", "failed"),
        (Rejected("no", code="21211"), "failed", "failed"),
        (SenderRefused("no", code="21606"), "failed", "failed"),
        (AccountRefused("no", code="20003"), "failed", "failed"),
        (Throttled("no", code="20429"), "failed", "failed"),
        (Unreachable("no", code="dns"), "failed", "failed"),
        (Ambiguous("no", code="timeout"), "unknown", "unknown"),
    ],
)
def test_each_class_of_error_ends_an_attempt_in_its_own_way(
    store: Store, error: ProviderError, status: str, attempt_status: str
) -> None:
    attempt = store.begun()
    store.settle(attempt, error)
    id_ = attempt.due.message_id
    (tried,) = store.attempts(id_)
    assert (store.status(id_), tried["status"]) == (status, attempt_status)
    assert (tried["error_reason"], tried["error_code"]) == (error.reason, error.code)
    row = store.message(id_)
    assert (row["error_code"], row["error_provider"]) == (error.code, "test")
    assert store.queued(id_) is None
    told = store.rows("SELECT change FROM events WHERE type = ?", f"message.{status}")
    shown = {"code": error.code, "message": "no", "provider": "test"}
    assert change_of(told) == [{"status": status, "error": shown}]


@pytest.mark.parametrize("error", [Throttled("x"), Unreachable("x"), Ambiguous("x")])
def test_a_next_attempt_is_due_when_it_was_said_to_be(store: Store, error: ProviderError) -> None:
    attempt = store.begun(on_unknown="resend")
    before = store.message(attempt.due.message_id)["updated_at"]
    store.settle(attempt, error, retry_in=5000)
    entry = store.queued(attempt.due.message_id)
    assert entry is not None
    assert 5000 <= entry["due_at"] - before < 5000 + 60_000
    assert (entry["attempts"], entry["claims"], entry["lease_until"]) == (1, 0, 0)
    assert store.status(attempt.due.message_id) == "queued"
    assert store.claim() == []
    store.make_due(attempt.due.message_id)
    again = store.next_attempt(attempt.due.message_id)
    assert again.due.attempts == 1
    assert [a["number"] for a in store.attempts(attempt.due.message_id)] == [1, 2]


def test_a_message_that_was_refused_is_not_tried_again_whatever_was_asked(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, Rejected("x"), retry_in=0)
    assert store.queued(attempt.due.message_id) is None


def test_no_attempt_is_planned_after_the_end_of_a_message(store: Store) -> None:
    attempt = store.begun(expires_at=future(HOUR))
    store.settle(attempt, Unreachable("x"), retry_in=2 * HOUR)
    assert store.queued(attempt.due.message_id) is None
    assert store.status(attempt.due.message_id) == "failed"


def test_a_success_clears_the_error_of_the_attempt_before(store: Store) -> None:
    attempt = store.begun()
    id_ = attempt.due.message_id
    store.settle(attempt, Unreachable("x"), retry_in=0)
    assert store.message(id_)["error_code"] == "unreachable"
    store.settle(store.next_attempt(id_), "SM2")
    row = store.message(id_)
    assert (row["status"], row["error_code"], row["provider_message_id"]) == (
        "accepted",
        None,
        "SM2",
    )
