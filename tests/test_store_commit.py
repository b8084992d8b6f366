"""A COMMIT whose answer never came: one message and not two, and the right answer."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from gateway.clock import new_id
from gateway.domain import Receipt, Status
from gateway.errors import OutcomeUnknown, StoreUnavailable, Unreachable
from gateway.store import batcher as batching
from gateway.store.accepts import ACCEPT, HandOff
from gateway.store.claims import CLAIM, Claim
from gateway.store.database import Database
from gateway.store.deliveries import BEGIN, SETTLE, Attempt, Outcome
from gateway.store.edits import CANCEL, Named
from gateway.store.failures import definite
from gateway.store.inbox import RECEIVE, Taken
from tests.databases import Cut, Postgres, Wire
from tests.stored import (
    CONNECTION,
    PROVIDERS,
    TENANT,
    Store,
    delivery,
    keyed,
    new_message,
    said,
    update,
)


class Failing(sqlite3.Connection):
    """A real connection whose next COMMIT ends in an error of the disk."""

    cut = Cut.NEVER
    always = False  # whether no COMMIT that writes comes through
    cuts = 0

    def commit(self) -> None:
        """Commits, or fails before or after it."""
        cut, Failing.cut = Failing.cut, Cut.NEVER
        if Failing.always and self.total_changes:
            cut = Cut.BEFORE_COMMIT
        if cut is Cut.BEFORE_COMMIT:
            self.rollback()
        elif self.in_transaction:
            super().commit()
        if cut is not Cut.NEVER:
            Failing.cuts += 1
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error


class Cutter:
    """Cuts the next COMMIT of a store, whichever database it is."""

    def __init__(self, store: Store, wire: Wire | None) -> None:
        self.store, self._wire = store, wire

    def cut(self, when: Cut) -> None:
        """From here on the next COMMIT is cut."""
        Failing.cuts = 0
        if self._wire is None:
            Failing.cut = when
        else:
            self._wire.cuts = 0
            self._wire.cut = when

    @property
    def cuts(self) -> int:
        """How many were cut."""
        return Failing.cuts if self._wire is None else self._wire.cuts


@pytest.fixture
def cutter(dialect: str, url: str, request: pytest.FixtureRequest) -> Iterator[Cutter]:
    """A store whose COMMITs can be cut."""
    wire = request.getfixturevalue("wire") if dialect == "postgresql" else None
    store = failing(url) if wire is None else Store(Database(wire.url(url)))
    yield Cutter(store, wire)
    store.database.close()


def failing(url: str) -> Store:
    """A store on SQLite whose COMMITs can fail."""

    def with_failing(dialect: Any, record: Any, args: Any, options: dict[str, Any]) -> None:
        options["factory"] = Failing

    database = Database(url)
    with database.connect() as connection:
        engine = connection.engine
    engine.dispose()
    event.listen(engine, "do_connect", with_failing)
    Failing.cuts = 0
    return Store(database)


both_cuts = pytest.mark.parametrize("when", [Cut.BEFORE_COMMIT, Cut.AFTER_COMMIT])


@both_cuts
def test_a_message_whose_commit_was_cut_is_there_once(
    cutter: Cutter, store: Store, when: Cut
) -> None:
    items = [new_message(), new_message(idempotency=keyed("k"))]
    cutter.cut(when)
    answers = cutter.store.accepted(*items)
    assert cutter.cuts == 1
    assert [a.view["id"] for a in answers] == [item.row["id"] for item in items]
    assert [(a.replayed, a.conflict) for a in answers] == [(False, False)] * 2
    assert store.count("messages") == store.count("queue") == 2
    assert store.count("conversations") == store.count("idempotency") == 1
    kinds = [row.type for row in store.rows("SELECT type FROM events ORDER BY id")]
    assert kinds == ["conversation.created", "message.queued", "message.queued"]
    again = cutter.store.accepted(new_message(idempotency=keyed("k")))
    assert again[0].view == answers[1].view


@both_cuts
def test_a_message_that_was_handed_over_in_a_cut_commit_is_begun_once(
    cutter: Cutter, store: Store, when: Cut
) -> None:
    new = new_message()
    new.handoff = HandOff("att_1", "lease_1", 60_000, 0.0, "test", CONNECTION, None)
    cutter.cut(when)
    cutter.store.accepted(new)
    assert cutter.cuts == 1
    assert new.handoff.attempt is not None
    assert [a["id"] for a in store.attempts(new.row["id"])] == ["att_1"]
    assert store.status(new.row["id"]) == "sending"
    assert store.told(new.row["id"]) == ["message.queued", "message.sending"]


@both_cuts
def test_the_topics_of_a_commit_that_was_cut_are_told(cutter: Cutter, when: Cut) -> None:
    cutter.cut(when)
    _, topics = cutter.store.batcher.write(ACCEPT, [new_message()])
    assert topics == {"events", "queue"}
    assert cutter.cuts == 1


@both_cuts
def test_a_webhook_whose_commit_was_cut_is_taken_once(
    cutter: Cutter, store: Store, when: Cut
) -> None:
    cutter.cut(when)
    taken = cutter.store.do(RECEIVE, delivery("k1", said("m1"), update(Status.SENT, "s1")))
    assert (taken, cutter.cuts) == ([Taken(new=True)], 1)
    assert store.count("inbox") == store.count("messages") == store.count("receipts") == 1
    assert store.conversations()[0]["unread_count"] == 1


@both_cuts
def test_a_claim_whose_commit_was_cut_is_had_at_once(
    cutter: Cutter, store: Store, when: Cut
) -> None:
    id_ = store.accept()
    cutter.cut(when)
    ((due,),) = cutter.store.do(CLAIM, Claim(new_id("lease"), 10, 60_000, PROVIDERS))
    assert (due.message_id, cutter.cuts) == (id_, 1)
    assert cutter.store.begin(due) is not None


@both_cuts
def test_an_attempt_whose_commit_was_cut_is_begun_once(
    cutter: Cutter, store: Store, when: Cut
) -> None:
    id_ = store.accept()
    (due,) = store.claim()
    cutter.cut(when)
    attempt = Attempt(new_id("att"), due, "test", CONNECTION, None)
    assert cutter.store.do(BEGIN, attempt) == [True]
    assert cutter.cuts == 1
    assert [a["id"] for a in store.attempts(id_)] == [attempt.id]


@both_cuts
@pytest.mark.parametrize("late", [False, True])
def test_a_settlement_whose_commit_was_cut_is_made(
    cutter: Cutter, store: Store, when: Cut, late: bool
) -> None:
    attempt = store.begun()
    if late:
        store.lapse()
    cutter.cut(when)
    outcome = Outcome(attempt, receipt=Receipt(provider_message_id="SM1"))
    _, topics = cutter.store.batcher.write(SETTLE, [outcome])
    assert (topics, cutter.cuts) == ({"events"}, 1)
    row = store.message(attempt.due.message_id)
    assert (row["status"], row["provider_message_id"]) == ("accepted", "SM1")
    assert store.told(attempt.due.message_id).count("message.accepted") == 1


@both_cuts
def test_a_retry_whose_commit_was_cut_is_planned_once(
    cutter: Cutter, store: Store, when: Cut
) -> None:
    attempt = store.begun()
    cutter.cut(when)
    cutter.store.do(SETTLE, Outcome(attempt, error=Unreachable("x"), retry_in=0))
    entry = store.queued(attempt.due.message_id)
    assert entry is not None
    assert (entry["attempts"], cutter.cuts) == (1, 1)
    assert store.status(attempt.due.message_id) == "queued"


@both_cuts
def test_a_cancel_whose_commit_was_cut_is_answered_rightly(
    cutter: Cutter, store: Store, when: Cut
) -> None:
    id_ = store.accept()
    cutter.cut(when)
    assert cutter.store.do(CANCEL, Named(TENANT, id_)) == [True]
    assert (store.status(id_), cutter.cuts) == ("canceled", 1)


def test_a_commit_that_comes_through_while_it_is_looked_up_is_not_doubled(store: Store) -> None:
    """The lost COMMIT is still under way on the server when the batch is run again."""
    item = new_message()
    running = threading.Event()
    with store.database.connect() as connection:
        transaction = connection.begin()
        tx = store.database.begun(connection)
        ACCEPT.run(tx, [item])
        again = new_message(**{name: item.row[name] for name in ("id", "to_address")})
        other = Store(Database(store.database.url.render_as_string(hide_password=False)))

        def rerun() -> None:
            running.set()
            other.accepted(again)

        thread = threading.Thread(target=rerun)
        thread.start()
        running.wait()
        transaction.commit()
    thread.join(10)
    store.change("DELETE FROM queue")  # it was sent in the meantime
    other.accepted(again)
    assert store.count("messages") == 1
    assert store.count("queue") == 0
    other.database.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives up after a moment, so that tests need not wait."""
    monkeypatch.setattr(batching, "PATIENCE", 0.5)


@both_cuts
@pytest.mark.usefixtures("impatient")
def test_if_the_server_stays_away_the_outcome_is_unknown_and_repeating_is_safe(
    postgres: Postgres, postgres_url: str, when: Cut
) -> None:
    wire = Wire(postgres, then_down=True)
    far, near = Store(Database(wire.url(postgres_url))), Store(Database(postgres_url))
    far.accept(to="+15551230009")
    wire.cut = when
    with pytest.raises(OutcomeUnknown):
        far.accepted(new_message(idempotency=keyed("k")))
    assert wire.cuts == 1
    assert wire.refused > 0
    wire.come_back()
    (answer,) = far.accepted(new_message(idempotency=keyed("k")))
    assert answer.replayed is (when is Cut.AFTER_COMMIT)
    assert near.count("messages") == near.count("queue") == 2
    for store in (far, near):
        store.database.close()
    wire.close()


@pytest.mark.usefixtures("impatient")
def test_nothing_was_written_if_the_server_was_away_before(postgres_url: str, wire: Wire) -> None:
    far, near = Store(Database(wire.url(postgres_url))), Store(Database(postgres_url))
    far.accept()
    wire.go_down()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        far.accept()
    assert time.monotonic() - started < 5
    wire.come_back()
    far.accept()
    assert near.count("messages") == 2
    for store in (far, near):
        store.database.close()


def test_a_writer_outlives_a_short_absence(postgres_url: str, wire: Wire) -> None:
    far = Store(Database(wire.url(postgres_url)))
    far.accept()
    wire.go_down()
    threading.Timer(0.3, wire.come_back).start()
    far.accept()
    assert wire.refused > 0
    assert far.count("messages") == 2
    far.database.close()


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_takes_no_commit_at_all_is_given_up_in_time(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = failing(sqlite_url)
    monkeypatch.setattr(Failing, "always", True)
    with pytest.raises(OutcomeUnknown):
        made.accepted(new_message(idempotency=keyed("k")))
    assert 1 < Failing.cuts < 20  # with a pause between two tries
    assert "RecursionError" not in caplog.text
    monkeypatch.setattr(Failing, "always", False)
    (answer,) = made.accepted(new_message(idempotency=keyed("k")))
    assert not answer.replayed
    assert made.count("messages") == made.count("queue") == 1
    made.database.close()


def test_a_full_disk_is_no_unknown_outcome() -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorname = "SQLITE_FULL"
    assert definite(OperationalError("COMMIT", None, full))
    torn = sqlite3.OperationalError("disk I/O error")
    torn.sqlite_errorname = "SQLITE_IOERR"
    assert not definite(OperationalError("COMMIT", None, torn))
