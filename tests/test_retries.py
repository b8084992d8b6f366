"""A message that failed is sent once more because somebody asks, and never by mistake twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain import Status
from gateway.errors import Ambiguous, Rejected, Unreachable
from gateway.opt_outs import Source, State
from gateway.store import opt_out_edits
from gateway.store.retries import AGAIN, Again
from tests.commands import Desk
from tests.running import Client, inbound_form, sid, variables
from tests.stored import DAY, HOUR, PERSON, TENANT, Store, future, person, update
from tests.vendors import Fault, LoopbackVendor, Reply


def again(store: Store, id_: str, **more: object) -> str | None:
    """Asks to send a message again; why not, or None."""
    given = {"route": "test,vendor", "expiry": DAY, **more}
    item = Again(TENANT, id_, (TENANT, "sms", PERSON), **given)  # type: ignore[arg-type]
    return store.do(AGAIN, item)[0]


def failed(store: Store) -> str:
    """A message that a vendor refused."""
    attempt = store.begun()
    store.settle(attempt, Rejected("a landline", code="21614"))
    assert store.status(attempt.due.message_id) == "failed"
    return attempt.due.message_id


def test_a_failed_message_gets_its_next_attempt(store: Store) -> None:
    id_ = failed(store)
    assert again(store, id_) is None
    row, entry = store.message(id_), store.queued(id_)
    assert (row["status"], row["error_code"]) == ("queued", None)
    assert entry is not None and (entry["route"], entry["attempts"]) == ("test,vendor", 0)
    assert row["expires_at"] == entry["expires_at"] > future(DAY - HOUR)
    attempt = store.next_attempt(id_)
    store.settle(attempt, "SM2")
    assert [a["number"] for a in store.attempts(id_)] == [1, 2]
    assert store.status(id_) == "accepted"
    told = ["message.queued", "message.sending", "message.failed"]
    assert store.told(id_) == [*told, *told[:2], "message.accepted"]


def test_a_second_request_finds_it_under_way(store: Store) -> None:
    id_ = failed(store)
    assert again(store, id_) is None
    why = again(store, id_)
    assert why is not None and "queued" in why
    assert store.told(id_).count("message.queued") == 2


def test_its_chain_and_its_count_of_tries_start_anew(store: Store) -> None:
    attempt = store.begun()
    id_ = attempt.due.message_id
    for _ in range(3):
        store.settle(attempt, Unreachable("away"), retry_in=0)
        attempt = store.next_attempt(id_)
    store.settle(attempt, Unreachable("away"))
    assert again(store, id_) is None
    (due,) = store.claim()
    assert (due.attempts, due.tried, due.route) == (0, (), "test,vendor")
    begun = store.begin(due)
    assert begun is not None
    store.settle(begun, Unreachable("away"), retry_in=0)
    (due,) = store.claim()
    assert (due.attempts, len(due.tried)) == (1, 1)


@pytest.mark.parametrize("status", [Status.UNDELIVERED, Status.FAILED, Status.BOUNCED])
def test_what_the_network_gave_back_can_be_sent_again(store: Store, status: Status) -> None:
    attempt = store.begun()
    store.settle(attempt, "SM1")
    store.reports(update(status, attempt_id=attempt.id, provider_message_id="SM1"))
    assert again(store, attempt.due.message_id) is None
    second = store.next_attempt(attempt.due.message_id)
    store.settle(second, "SM2")
    assert store.status(attempt.due.message_id) == "accepted"


def test_what_expired_can_be_sent_again_with_a_time_of_its_own(store: Store) -> None:
    id_ = store.accept()
    store.change("UPDATE queue SET expires_at = 1")
    store.sweep()
    assert store.status(id_) == "expired"
    until = future(HOUR)
    assert again(store, id_, expires_at=until) is None
    assert (store.status(id_), store.message(id_)["expires_at"]) == ("queued", until)


def test_what_waits_is_on_its_way_arrived_or_was_canceled_is_not_sent_again(store: Store) -> None:
    waiting = store.accept()
    why = {waiting: "queued"}
    for status in (Status.ACCEPTED, Status.SENT, Status.DELIVERED, Status.READ):
        store.claim()
        store.change("DELETE FROM queue")
        attempt = store.begun()
        store.settle(attempt, f"SM-{status}")
        if status is not Status.ACCEPTED:
            store.reports(update(status, attempt_id=attempt.id))
        why[attempt.due.message_id] = status.value
    store.change("DELETE FROM queue")
    canceled = store.accept()
    store.cancel(canceled)
    why[canceled] = "canceled"
    for id_, word in why.items():
        said = again(store, id_, even_if_sent=True)
        assert said is not None and word in said
    assert again(store, "msg_unknown") is not None


@pytest.mark.parametrize("given_up", [False, True])
def test_what_may_have_been_sent_is_sent_again_only_by_who_says_so(
    store: Store, given_up: bool
) -> None:
    attempt = store.begun()
    id_ = attempt.due.message_id
    store.settle(attempt, Ambiguous("lost"))
    if given_up:
        store.sweep(receipt_timeout=-1)
    assert store.status(id_) == ("failed" if given_up else "unknown")
    why = again(store, id_)
    assert why is not None and "even_if_sent" in why
    assert store.queued(id_) is None
    assert again(store, id_, even_if_sent=True) is None
    store.reports(update(Status.DELIVERED, attempt_id=attempt.id))  # the first one, after all
    assert (store.status(id_), store.queued(id_)) == ("delivered", None)


def test_who_has_opted_out_stays_refused_until_they_are_back(store: Store) -> None:
    def says(state: State) -> None:
        word = opt_out_edits.operator(TENANT, "sms", PERSON, state, Source.API, None)
        store.do(opt_out_edits.EDIT, word)

    says(State.OUT)
    id_ = store.accept()
    assert store.status(id_) == "rejected"
    why = again(store, id_)
    assert why is not None and "opted out" in why
    says(State.IN)
    assert again(store, id_) is None
    assert store.status(id_) == "queued"


def test_over_http_the_same_message_goes_out_again(client: Client, vendor: LoopbackVendor) -> None:
    vendor.plan.append(Reply(status=400, body=b'{"code": 21614, "message": "x", "status": 400}'))
    sent = client.send(to="+15550100001", body="hi")
    client.until(sent["id"], "failed")
    answer = client.call("POST", f"/api/messages/{sent['id']}/retry")
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/messages/{sent['id']}"
    assert (answer.json()["id"], answer.json()["error"]) == (sent["id"], None)
    shown = client.until(sent["id"], "accepted")
    assert [a["status"] for a in shown["attempts"]] == ["failed", "accepted"]
    assert [r.form["Body"] for r in vendor.requests] == [["hi"], ["hi"]]
    refused = client.call("POST", f"/api/messages/{sent['id']}/retry", json={})
    assert refused.status_code == 409 and "accepted" in refused.json()["detail"]


def test_over_http_a_lost_answer_needs_a_word(client: Client, vendor: LoopbackVendor) -> None:
    vendor.plan.append(Fault.DROP_AFTER)
    sent = client.send(to="+15550100001", body="hi")
    client.until(sent["id"], "unknown")
    path = f"/api/messages/{sent['id']}/retry"
    refused = client.call("POST", path)
    assert refused.status_code == 409 and "even_if_sent" in refused.json()["detail"]
    for body, field in (({"even_if_sent": "perhaps"}, "even_if_sent"), ({"sure": 1}, "sure")):
        answer = client.call("POST", path, json=body)
        assert [error["field"] for error in answer.json()["errors"]] == [field]
    past = client.call("POST", path, json={"expires_at": "2001-01-01T00:00:00Z"})
    assert [error["field"] for error in past.json()["errors"]] == ["expires_at"]
    assert client.call("POST", path, json={"even_if_sent": True}).status_code == 202
    assert len(client.until(sent["id"], "accepted")["attempts"]) == 2


def test_the_command_line_sends_again_too(store: Store, url: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, variables(tmp_path, url))
    known, lost = failed(store), store.begun(to=person(2))
    store.settle(lost, Ambiguous("lost"))
    done = desk.run("queue", "retry", known)
    assert (done.code, done.out.split()) == (0, [known, "queued"])
    entry = store.queued(known)
    assert entry is not None and entry["route"] == "test"
    refused = desk.run("queue", "retry", lost.due.message_id)
    assert refused.code == 1 and "--even-if-sent" in refused.err
    assert desk.run("queue", "retry", lost.due.message_id, "--even-if-sent").code == 0
    assert desk.run("queue", "retry", "msg_unknown").code == 1


def test_what_a_person_said_and_what_nobody_knows_cannot_be_sent_again(idle: Client) -> None:
    assert idle.webhook("/api/webhooks/sms", inbound_form(sid(1))).ok
    (heard,) = idle.get("/api/messages")["items"]
    assert idle.call("POST", f"/api/messages/{heard['id']}/retry").status_code == 409
    assert idle.call("POST", "/api/messages/msg_unknown/retry").status_code == 404
