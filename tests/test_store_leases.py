"""What a crash leaves behind, and answers that come late."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.domain import Connection, Receipt, Sender, Status
from gateway.errors import (
    Ambiguous,
    Rejected,
    Throttled,
    Unreachable,
)
from gateway.store.deliveries import SETTLE, Outcome
from tests.stored import HOUR, Store, update


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
    assert store.do(SETTLE, stranger) == [False]
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
