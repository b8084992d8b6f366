"""T2, T3, and what a crash between them leaves behind."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from gateway.clock import new_id
from gateway.domain import Connection, Money, Receipt, Sender, Status
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
from gateway.store.deliveries import BEGIN, SETTLE, Attempt, Outcome
from tests.stored import CONNECTION, HOUR, OURS, PERSON, Store, change_of, future, update


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


def test_a_lease_without_an_attempt_is_given_back_at_once(store: Store) -> None:
    id_ = store.accept()
    (due,) = store.claim()
    store.lapse()
    assert store.status(id_) == "queued"
    assert store.claimed() == [id_]
    assert store.attempts(id_) == []
    assert store.begin(due) is None


def test_a_lease_that_holds_is_left_alone(store: Store) -> None:
    store.accept()
    store.claim()
    assert store.sweep() == 0
    assert store.claim() == []


def test_three_claims_without_an_attempt_put_a_message_aside_visibly(store: Store) -> None:
    id_ = store.accept()
    for _ in range(3):
        assert store.claimed() == [id_]
        store.lapse()
    assert store.claim() == []
    assert (store.status(id_), store.message(id_)["error_code"]) == ("held", "quarantined")
    assert store.told(id_) == ["message.queued", "message.held"]


def test_an_attempt_starts_the_count_of_claims_anew(store: Store) -> None:
    id_ = store.accept()
    for _ in range(2):
        store.claim()
        store.lapse()
    store.settle(store.next_attempt(id_), Unreachable("x"), retry_in=0)
    store.claim()
    store.lapse()
    assert store.status(id_) == "queued"


def test_what_was_put_aside_can_be_canceled_and_expires(store: Store) -> None:
    one, two = store.accept(), store.accept(to="+15551230009")
    for _ in range(3):
        store.claim()
        store.lapse()
    assert store.status(one) == store.status(two) == "held"
    assert store.cancel(one)
    store.change("UPDATE queue SET expires_at = 1")
    store.sweep()
    assert (store.status(one), store.status(two)) == ("canceled", "expired")


def test_an_interrupted_attempt_is_unknown_and_held(store: Store) -> None:
    attempt = store.begun()
    id_ = attempt.due.message_id
    store.lapse()
    row = store.message(id_)
    assert (row["status"], row["error_code"]) == ("unknown", "interrupted")
    assert store.queued(id_) is None
    assert store.sweep() == 0
    assert store.claim() == []


def test_an_interrupted_attempt_is_made_again_where_a_copy_harms_nobody(store: Store) -> None:
    attempt = store.begun(on_unknown="resend")
    id_ = attempt.due.message_id
    store.lapse()
    assert store.status(id_) == "queued"
    assert store.next_attempt(id_).id != attempt.id
    assert [a["status"] for a in store.attempts(id_)] == ["unknown", "sending"]


def test_a_message_that_kills_its_process_is_not_sent_for_ever(store: Store) -> None:
    attempt = store.begun(on_unknown="resend")
    id_ = attempt.due.message_id
    for _ in range(2):
        store.lapse()
        store.next_attempt(id_)
    store.lapse()
    assert store.queued(id_) is None
    assert (store.status(id_), len(store.attempts(id_))) == ("unknown", 3)


def test_every_lease_is_dead_when_the_only_process_starts(store: Store) -> None:
    begun = store.begun()
    waiting = store.accept(to="+15551230009")
    store.claim()
    assert store.sweep() == 0
    assert store.sweep(all_leases=True) == 2
    assert store.status(begun.due.message_id) == "unknown"
    assert store.claimed() == [waiting]


def test_a_late_receipt_is_applied_though_its_lease_is_gone(store: Store) -> None:
    attempt = store.begun()
    store.lapse()
    store.settle(attempt, "SM1")
    row = store.message(attempt.due.message_id)
    assert (row["status"], row["error_code"]) == ("accepted", None)
    assert row["provider_message_id"] == "SM1"


def test_a_late_answer_that_nothing_was_sent_sends_it_again(store: Store) -> None:
    attempt = store.begun()
    store.lapse()
    store.settle(attempt, Unreachable("x"), retry_in=0)
    assert store.status(attempt.due.message_id) == "queued"
    assert store.claimed() == [attempt.due.message_id]


def test_a_late_answer_does_not_bring_a_canceled_message_back(store: Store) -> None:
    attempt = store.begun(on_unknown="resend")
    id_ = attempt.due.message_id
    store.lapse()
    store.cancel(id_)
    assert (store.status(id_), store.queued(id_)) == ("unknown", None)
    store.settle(attempt, Unreachable("x"), retry_in=0)
    assert (store.status(id_), store.queued(id_)) == ("canceled", None)


def test_a_late_receipt_calls_off_the_next_attempt(store: Store) -> None:
    attempt = store.begun(on_unknown="resend")
    store.lapse()
    store.settle(attempt, "SM1")
    assert store.queued(attempt.due.message_id) is None
    assert store.status(attempt.due.message_id) == "accepted"


def test_a_late_receipt_of_an_older_attempt_calls_off_the_next_one_too(store: Store) -> None:
    first = store.begun(on_unknown="resend")
    id_ = first.due.message_id
    store.lapse()
    store.settle(store.next_attempt(id_), Unreachable("x"), retry_in=HOUR)
    store.settle(first, "SM1")
    assert (store.status(id_), store.queued(id_)) == ("accepted", None)


def test_a_late_error_does_not_send_again_what_another_attempt_achieved(store: Store) -> None:
    first = store.begun(on_unknown="resend")
    id_ = first.due.message_id
    store.lapse()
    second = store.next_attempt(id_)
    store.settle(first, "SM1")
    store.settle(second, Unreachable("x"), retry_in=0)
    assert (store.status(id_), store.queued(id_)) == ("accepted", None)


def test_settling_twice_is_settling_once(store: Store) -> None:
    attempt = store.begun()
    id_ = attempt.due.message_id
    for _ in range(2):
        store.settle(attempt, Throttled("x"), retry_in=0)
    entry = store.queued(id_)
    assert entry is not None
    assert entry["attempts"] == 1
    again = store.next_attempt(id_)
    store.settle(attempt, Throttled("x"), retry_in=0)
    assert store.status(id_) == "sending"
    for _ in range(2):
        store.settle(again, "SM1")
    assert store.told(id_).count("message.accepted") == 1


def test_an_outcome_of_nobodys_attempt_changes_nothing(store: Store) -> None:
    attempt = store.begun()
    stranger = Outcome(replace(attempt, id="att_unknown"), receipt=Receipt(provider_message_id="S"))
    assert store.do(SETTLE, stranger) == [None]
    assert store.status(attempt.due.message_id) == "sending"


def test_a_vendors_id_belongs_to_one_attempt_for_ever(store: Store) -> None:
    one, two = store.begun(), store.begun(to="+15551230009")
    store.settle(one, "SM1")
    store.settle(two, "SM1")
    ids = [store.message(a.due.message_id)["provider_message_id"] for a in (one, two)]
    assert ids == ["SM1", None]
    assert store.status(two.due.message_id) == "accepted"


def test_a_vendors_id_belongs_to_the_first_of_a_batch_too(store: Store) -> None:
    one, two = store.begun(), store.begun(to="+15551230009")
    receipt = Receipt(provider_message_id="SM1")
    store.do(SETTLE, Outcome(one, receipt=receipt), Outcome(two, receipt=receipt))
    assert store.attempts(one.due.message_id)[0]["provider_message_id"] == "SM1"
    assert store.attempts(two.due.message_id)[0]["provider_message_id"] is None


def test_the_same_id_of_two_vendor_accounts_is_two_ids(store: Store) -> None:
    one = store.begun()
    store.accept(to="+15551230009")
    (due,) = store.claim()
    elsewhere = Connection(id="c2", tenant_id="default", family="test", senders={}, account="")
    two = store.begin(due, elsewhere)
    assert two is not None
    store.settle(one, "SM1")
    store.settle(two, "SM1")
    assert store.message(due.message_id)["provider_message_id"] == "SM1"
    assert Sender().key == ""


def test_what_stays_unknown_fails_in_the_end(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, Ambiguous("x"))
    assert store.sweep(receipt_timeout=HOUR) == 0
    store.change("UPDATE attempts SET started_at = started_at - ?", HOUR)
    assert store.sweep(receipt_timeout=HOUR) == 1
    row = store.message(attempt.due.message_id)
    assert (row["status"], row["error_code"]) == ("failed", "outcome_unknown")
    assert store.sweep(receipt_timeout=HOUR) == 0


@pytest.mark.parametrize("status", [Status.ACCEPTED, Status.SENT, Status.DELIVERED])
def test_any_later_word_of_the_vendor_raises_what_was_given_up(
    store: Store, status: Status
) -> None:
    attempt = store.begun()
    store.settle(attempt, Ambiguous("x"))
    store.change("UPDATE attempts SET started_at = 1")
    store.sweep()
    store.reports(update(status, attempt_id=attempt.id, provider_message_id="SM1"))
    row = store.message(attempt.due.message_id)
    assert (row["status"], row["error_code"]) == (status.value, None)


def test_a_message_shows_the_attempt_that_speaks_for_it(store: Store) -> None:
    first = store.begun(on_unknown="resend")
    id_ = first.due.message_id
    store.lapse()
    store.settle(store.next_attempt(id_), Rejected("bad number", code="21211"))
    store.settle(first, "SM1")
    row = store.message(id_)
    assert (row["status"], row["provider_message_id"], row["error_code"]) == (
        "accepted",
        "SM1",
        None,
    )
