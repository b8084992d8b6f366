"""Opt-outs in the database: whom they block, where a message is stopped, and which word counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest

from gateway.clock import new_id
from gateway.domain import (
    Channel,
    Engagement,
    InboundMessage,
    Sender,
    Status,
    StatusUpdate,
    VendorError,
)
from gateway.errors import Ambiguous, Rejected, Unreachable
from gateway.opt_outs import TEXT, Source, State
from gateway.store import opt_out_edits, opt_outs
from gateway.store.accepts import HandOff, NewMessage
from gateway.store.conversations import ALIASED, Wanted
from gateway.store.database import Database
from gateway.store.inbox_queries import REPLAY, Replay
from gateway.store.opt_out_edits import EDIT, operator
from gateway.store.opt_out_tables import opt_outs as opt_outs_table
from gateway.store.rows import LARGEST, select
from tests.stored import (
    CONNECTION,
    HOUR,
    NOW,
    OURS,
    PERSON,
    TENANT,
    Store,
    change_of,
    delivery,
    future,
    keyed,
    new_message,
    person,
    said,
    update,
)
from tests.working import Vendor, at_work, ended

USER, OTHER_NUMBER = "US.13491208655302741918", "+5511987650001"


def says(store: Store, body: str, key: str | None = None, **more: Any) -> None:
    """A person writes."""
    key = key or new_id("m")
    store.receive(key, said(key, body=body), **more)


def stop(store: Store, **more: Any) -> None:
    """A person stops."""
    says(store, "STOP", **more)


def start(store: Store, **more: Any) -> None:
    """A person comes back."""
    says(store, "START", **more)


def word(store: Store, state: State, address: str = PERSON, channel: str = "sms") -> Any:
    """What an operator says."""
    return store.do(EDIT, operator(TENANT, channel, address, state, Source.API, "they called"))[0]


def out(store: Store, address: str = PERSON, channel: str = "sms", tenant: str = TENANT) -> bool:
    """Whether a person is not to be written to."""
    with store.database.read() as tx:
        return bool(opt_outs.blocked(tx, [(tenant, channel, address)]))


def row(store: Store, address: str = PERSON, channel: str = "sms") -> dict[str, Any]:
    """What holds for a person."""
    with store.database.read() as tx:
        found = opt_out_edits.one(tx, TENANT, channel, address)
    assert found is not None
    return found


def words(store: Store) -> list[tuple[str, str, str]]:
    """Every word that was taken, oldest first."""
    found = store.rows("SELECT state, source, verdict FROM opt_out_events ORDER BY id")
    return [tuple(row) for row in found]


def told(store: Store) -> list[str]:
    """The events about people."""
    found = store.rows("SELECT type FROM events WHERE type LIKE ? ORDER BY id", "contact.%")
    return [str(event.type) for event in found]


def chat(key: str, sender: str, *also: str, body: str = "hi", ours: str = OURS) -> InboundMessage:
    """A message of a person who has several addresses."""
    return said(
        key, channel=Channel.WHATSAPP, from_address=sender, to_address=ours, aliases=also, body=body
    )


def opted_out(**more: Any) -> StatusUpdate:
    """A vendor's callback that says so."""
    error = VendorError(code="X610", message="unsubscribed", reason="opted_out")
    return update(Status.FAILED, error=error, **more)


# Accept


def test_who_stopped_is_not_written_to(store: Store) -> None:
    stop(store)
    (answer,) = store.accepted(new_message())
    view = answer.view
    assert view["status"] == "rejected"
    assert view["error"] == {"code": "opted_out", "message": TEXT, "provider": None}
    id_ = view["id"]
    stored = store.message(id_)
    assert (stored["status"], stored["ended_as"]) == ("rejected", "rejected")
    assert (store.queued(id_), store.attempts(id_), store.claim()) == (None, [], [])
    assert store.told(id_) == ["message.rejected"]
    events = store.rows("SELECT change FROM events WHERE message_id = ?", id_)
    assert change_of(events) == [{"status": "rejected", "error": view["error"]}]


def test_others_of_the_same_batch_are_written_to(store: Store) -> None:
    stop(store)
    ids = store.accept_all(
        new_message(to=person(1)), new_message(), new_message(to=person(2)), new_message()
    )
    assert [store.status(id_) for id_ in ids] == ["queued", "rejected", "queued", "rejected"]
    assert len(store.claimed()) == 2


def test_it_holds_for_the_person_the_channel_and_the_tenant(store: Store) -> None:
    stop(store)
    assert out(store)
    assert not out(store, person(5))
    assert not out(store, channel="whatsapp")
    assert not out(store, tenant="another")
    ids = [
        store.accept(from_address="+15005550007"),  # whichever address we write from
        store.accept(provider="vendor", connection="c2"),  # and whoever sends it
        store.accept(priority="urgent", on_unknown="resend"),  # also a one-time code
        store.accept(send_at=future(HOUR)),
        store.accept(channel="whatsapp"),
    ]
    statuses = [store.status(id_) for id_ in ids]
    assert statuses == ["rejected"] * 4 + ["queued"]


def test_who_starts_again_is_written_to_again(store: Store) -> None:
    stop(store)
    rejected = store.accept()
    start(store)
    assert not out(store)
    id_ = store.accept()
    assert (store.status(rejected), store.status(id_)) == ("rejected", "queued")
    assert store.begin(next(d for d in store.claim() if d.message_id == id_)) is not None


def test_a_repeated_request_has_the_first_answer(store: Store) -> None:
    stop(store)
    first = store.accepted(new_message(idempotency=keyed("k")))[0]
    start(store)
    again = store.accepted(new_message(idempotency=keyed("k")))[0]
    assert (again.view, again.replayed) == (first.view, True)
    assert again.view["status"] == "rejected"
    assert store.count("queue") == 0


def test_a_batch_that_is_repeated_decides_anew(store: Store) -> None:
    new = new_message()
    stop(store)
    with store.database.connect() as connection:
        transaction = connection.begin()
        from gateway.store.accepts import run

        run(store.database.begun(connection), [new])
        transaction.rollback()
    start(store)
    (answer,) = store.accepted(new)
    assert (answer.view["status"], answer.view["error"]) == ("queued", None)
    assert store.status(new.row["id"]) == "queued"


def test_a_rejected_message_is_not_handed_over(store: Store) -> None:
    stop(store)
    new, other = new_message(), new_message(to=person(2))
    for item in (new, other):
        item.handoff = HandOff(
            new_id("att"), new_id("lease"), 60_000, 0.0, "test", CONNECTION, CONNECTION.id
        )
    store.accepted(new, other)
    assert new.handoff is not None and new.handoff.attempt is None
    assert other.handoff is not None and other.handoff.attempt is not None
    assert store.count("attempts") == 1


# T2


def test_who_stops_between_accept_and_send_is_not_written_to(store: Store) -> None:
    id_ = store.accept()
    (due,) = store.claim()
    stop(store)
    assert store.begin(due) is None
    stored = store.message(id_)
    assert (stored["status"], stored["error_code"]) == ("rejected", "opted_out")
    assert (store.attempts(id_), store.queued(id_)) == ([], None)
    assert store.told(id_) == ["message.queued", "message.rejected"]


def test_what_waits_for_its_time_is_stopped_when_it_comes(store: Store) -> None:
    later, back = store.accept(send_at=future(HOUR)), store.accept(send_at=future(HOUR))
    stop(store)
    assert store.status(later) == "scheduled"
    store.make_due(later)
    assert store.begin(store.claim()[0]) is None
    assert store.status(later) == "rejected"
    start(store)
    store.make_due(back)
    assert store.begin(store.claim()[0]) is not None


def test_a_retry_is_stopped_too(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, Unreachable("x"), retry_in=0)
    stop(store)
    assert store.begin(store.claim()[0]) is None
    stored = store.message(attempt.due.message_id)
    assert (stored["status"], stored["error_code"]) == ("rejected", "opted_out")


def test_a_copy_is_stopped_and_what_may_be_out_stays_unknown(store: Store) -> None:
    attempt = store.begun(on_unknown="resend")
    store.settle(attempt, Ambiguous("x", code="timeout"), retry_in=0)
    stop(store)
    assert store.begin(store.claim()[0]) is None
    id_ = attempt.due.message_id
    assert (store.status(id_), store.message(id_)["error_code"]) == ("unknown", "timeout")
    store.reports(update(Status.DELIVERED, attempt_id=attempt.id))
    assert store.status(id_) == "delivered"


@pytest.mark.anyio
async def test_a_worker_sends_nothing_to_who_stopped(store: Store) -> None:
    ids = [store.accept(), store.accept(to=person(2))]
    stop(store)
    vendor = Vendor()
    async with at_work(store, vendor):
        await ended(store, ids[0], status="rejected")
        await ended(store, ids[1])
    assert [call.message_id for call in vendor.calls] == [ids[1]]


def test_a_stop_beside_senders_is_after_it_or_before_it(store: Store, url: str) -> None:
    """Whatever is begun was begun before the stop was stored; nothing after it."""
    ids = store.accept_all(*(new_message(to=person(n)) for n in range(150)))
    ready, stored = Barrier(3), threading.Event()
    late: list[str] = []

    def sender() -> None:
        own = Store(Database(url))
        ready.wait()
        while due := own.claim(limit=3):
            for one in due:
                after = stored.is_set()
                if own.begin(one) is not None and after:
                    late.append(one.message_id)
        own.database.close()

    def person_who_stops() -> None:
        own = Store(Database(url))
        ready.wait()
        own.receive("k", *(said(f"m{n}", from_address=person(n), body="Stop") for n in range(150)))
        stored.set()
        own.database.close()

    with ThreadPoolExecutor(3) as pool:
        for done in [*(pool.submit(sender) for _ in range(2)), pool.submit(person_who_stops)]:
            done.result()
    store.lapse()
    while due := store.claim():
        assert [store.begin(one) for one in due] == [None] * len(due)
    assert late == []
    for id_ in ids:
        begun = bool(store.attempts(id_))
        assert store.status(id_) in (("sending", "unknown") if begun else ("rejected",))
    assert all(out(store, person(n)) for n in range(150))


# Words


def test_the_proof_is_kept(store: Store) -> None:
    store.receive("k1", said("m1", body=" stop. "))
    ((message, conversation),) = store.rows("SELECT id, conversation_id FROM messages")
    inbox = store.value("SELECT id FROM inbox")
    found = row(store)
    assert (found["state"], found["source"], found["detail"]) == ("out", "keyword", "stop.")
    assert (found["message_id"], found["inbox_id"]) == (message, inbox)
    assert (found["our_address"], found["connection"]) == (OURS, CONNECTION.id)
    assert words(store) == [("out", "keyword", "applied")]
    (event,) = store.rows("SELECT * FROM events WHERE type = 'contact.opted_out'")
    assert event.conversation_id == conversation
    (change,) = change_of([event])
    assert (change["address"], change["state"], change["message_id"]) == (PERSON, "out", message)


def test_a_repetition_changes_nothing_and_is_kept(store: Store) -> None:
    stop(store, key="m1")
    before = row(store)
    stop(store, key="m1")
    assert (words(store), row(store)) == ([("out", "keyword", "applied")], before)
    stop(store, key="m2")
    assert words(store)[1:] == [("out", "keyword", "repeated")]
    assert row(store) == before | {"said_at": row(store)["said_at"]}
    assert told(store) == ["contact.opted_out"]


def test_the_last_word_of_one_batch_counts(store: Store) -> None:
    store.receive("k", said("a", body="START"), said("b", body="STOP"))
    assert out(store)
    store.receive("k2", said("c", body="STOP"), said("d", body="START"))
    assert not out(store)
    assert told(store) == ["contact.opted_out", "contact.opted_in"]


def test_an_older_stop_does_not_undo_a_newer_start(store: Store) -> None:
    stop(store)
    start(store)
    stop(store, received_at=future(-HOUR))  # out of the spool
    assert not out(store)
    assert words(store)[-1] == ("out", "keyword", "older")


def test_an_older_start_does_not_undo_a_newer_stop(store: Store) -> None:
    stop(store)
    start(store, received_at=future(-HOUR))
    assert out(store)
    assert told(store) == ["contact.opted_out"]


def test_a_start_is_remembered_against_an_older_stop(store: Store) -> None:
    start(store)
    stop(store, received_at=future(-HOUR))
    assert not out(store)
    assert (words(store), told(store)) == (
        [("in", "keyword", "applied"), ("out", "keyword", "older")],
        [],
    )


def test_a_repeated_stop_counts_from_its_last_time(store: Store) -> None:
    stop(store, received_at=future(-3 * HOUR))
    stop(store, received_at=future(-HOUR))
    start(store, received_at=future(-2 * HOUR))
    assert out(store)


def test_what_a_backfill_brings_dates_from_when_it_was_said(store: Store) -> None:
    start(store)
    hours_ago = datetime.now(UTC) - timedelta(hours=5)
    store.receive("k", said("m", body="STOP", occurred_at=hours_ago))
    assert not out(store)
    seconds_ago = datetime.now(UTC) - timedelta(seconds=5)  # clocks differ by as much
    store.receive("k2", said("m2", body="STOP", occurred_at=seconds_ago))
    assert out(store)


def test_a_clock_that_was_set_back_does_not_keep_anybody_from_stopping(store: Store) -> None:
    start(store)
    store.change("UPDATE opt_outs SET said_at = said_at + ?", HOUR)
    stop(store)
    assert out(store)
    start(store)
    assert out(store)  # in doubt, until the time has come round
    word(store, State.IN)  # or somebody says so
    assert not out(store)


def test_a_replay_of_the_inbox_changes_nothing(store: Store) -> None:
    stop(store, key="m1")
    start(store, key="m2")
    before = (row(store), words(store), told(store))
    for key, body in (("m1", "STOP"), ("m2", "START"), ("m1", "STOP")):
        again = delivery(key, said(key, body=body), id=None)
        store.do(REPLAY, Replay("inb_x", again))
    assert (row(store), words(store), told(store)) == before


def test_what_a_replay_reads_for_the_first_time_dates_from_its_receipt(store: Store) -> None:
    start(store)
    assert future(0) > NOW.timestamp() * 1000
    store.do(REPLAY, Replay("inb_x", delivery("old", said("old", body="STOP"), id=None)))
    assert not out(store)
    assert words(store)[-1] == ("out", "keyword", "older")


def test_yes_lifts_what_the_person_or_a_vendor_began(store: Store) -> None:
    says(store, "Yes")
    assert words(store) == []  # an ordinary answer
    stop(store)
    says(store, "yes")
    assert not out(store)
    says(store, "YES")
    assert words(store) == [("out", "keyword", "applied"), ("in", "keyword", "applied")]
    word(store, State.OUT)
    says(store, "yes")
    assert out(store)
    start(store)
    assert not out(store)


def test_help_is_only_content(store: Store) -> None:
    store.receive("k", said("m", body="HELP", content={"opt_out": "help"}))
    assert (words(store), out(store)) == ([], False)


# Vendors


def test_a_vendor_that_refuses_for_it_has_told_us(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, Rejected("no", code="X610", because="opted_out"))
    id_ = attempt.due.message_id
    assert (store.status(id_), store.attempts(id_)[0]["error_reason"]) == ("failed", "opted_out")
    found = row(store)
    assert (found["state"], found["source"], found["detail"]) == ("out", "vendor", "X610")
    assert (found["message_id"], found["attempt_id"]) == (id_, attempt.id)
    assert (found["our_address"], found["connection"]) == (OURS, CONNECTION.id)
    assert told(store) == ["contact.opted_out"]
    assert store.status(store.accept(provider="vendor")) == "rejected"
    store.settle(attempt, Rejected("no", code="X610", because="opted_out"))  # T3 is repeated
    assert words(store) == [("out", "vendor", "applied")]


def test_an_ordinary_refusal_says_nothing_of_the_person(store: Store) -> None:
    store.settle(store.begun(), Rejected("a bad number", code="X211"))
    assert (words(store), out(store)) == ([], False)


def test_a_callback_tells_it_too(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, "V1")
    store.reports(opted_out(key="c1", attempt_id=attempt.id, provider_message_id="V1"))
    found = row(store)
    assert (found["source"], found["detail"], found["attempt_id"]) == ("vendor", "X610", attempt.id)
    assert found["inbox_id"] == store.value("SELECT id FROM inbox")
    store.reports(opted_out(key="c1", attempt_id=attempt.id, provider_message_id="V1"))
    assert words(store) == [("out", "vendor", "applied")]


def test_a_callback_that_came_before_its_attempt_was_known_counts_then(store: Store) -> None:
    attempt = store.begun()
    store.reports(opted_out(provider_message_id="V1"))
    assert not out(store)
    store.settle(attempt, "V1")
    assert out(store)


def test_a_foreign_callback_blocks_nobody(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, "V1")
    store.reports(
        opted_out(attempt_id=attempt.id, provider_message_id="V1", recipient=person(9)),
        opted_out(attempt_id=attempt.id, provider_message_id="V2"),
        opted_out(provider_message_id="V1", account="AC2"),
        opted_out(provider_message_id="V3", recipient=person(9)),
    )
    assert store.verdicts() == ["foreign", "foreign", "foreign", "parked"]
    assert (out(store), out(store, person(9)), words(store)) == (False, False, [])


def test_a_late_refusal_of_an_older_message_does_not_undo_a_start(store: Store) -> None:
    attempt = store.begun()
    store.settle(attempt, "V1")
    store.change("UPDATE attempts SET started_at = started_at - 1000")
    stop(store)
    start(store)
    store.reports(opted_out(provider_message_id="V1"))
    assert not out(store)
    assert words(store)[-1] == ("out", "vendor", "older")


def test_a_provider_that_reports_at_once_tells_it_too(store: Store) -> None:
    from gateway.store.reports import REPORT, Report

    attempt = store.begun()
    store.settle(attempt, "V1")
    store.do(REPORT, Report(TENANT, CONNECTION.id, (opted_out(provider_message_id="V1"),)))
    assert out(store)


def test_a_preference_that_a_vendor_passes_on_counts(store: Store) -> None:
    def tell(kind: str, key: str, **more: Any) -> None:
        wish = Engagement(dedupe_key=key, kind=kind, recipient=PERSON, **more)
        store.receive(new_id("k"), wish)

    tell("unsubscribed", "e1", channel=Channel.WHATSAPP)
    assert out(store, channel="whatsapp") and not out(store)
    tell("resubscribed", "e2", channel=Channel.WHATSAPP)
    assert not out(store, channel="whatsapp")
    tell("unsubscribed", "e1", channel=Channel.WHATSAPP)  # the same word again
    tell("unsubscribed", "e3")  # of no channel
    tell("opened", "e4", channel=Channel.WHATSAPP)
    assert not out(store, channel="whatsapp")
    assert len(words(store)) == 2


# A person's addresses


def test_a_person_is_blocked_by_every_address_of_theirs(store: Store) -> None:
    store.receive("k", chat("m1", PERSON, USER))
    store.receive("k2", chat("m2", USER, PERSON, body="STOP"))
    for address in (PERSON, USER):
        assert out(store, address, "whatsapp")
        assert row(store, address, "whatsapp")["state"] == "out"
    wanted = Wanted(TENANT, "whatsapp", (OURS,), USER, our_address=OURS)
    new = new_message(to=USER, channel="whatsapp")
    store.accepted(NewMessage(new.row, wanted))
    assert store.status(new.row["id"]) == "rejected"
    assert not out(store, OTHER_NUMBER, "whatsapp")


def test_an_address_that_is_learned_later_is_blocked_too(store: Store) -> None:
    store.receive("k", chat("m1", PERSON, body="STOP"))
    assert not out(store, USER, "whatsapp")
    store.receive("k2", chat("m2", USER, PERSON, ours="+15005550007"))
    assert out(store, USER, "whatsapp")
    store.receive("k3", chat("m3", OTHER_NUMBER, USER))
    assert out(store, OTHER_NUMBER, "whatsapp")


def test_any_address_lets_the_person_in_again(store: Store) -> None:
    store.receive("k", chat("m1", PERSON, USER, body="STOP"))
    store.receive("k2", chat("m2", USER, body="START"))
    states = [r.state for r in store.rows("SELECT state FROM opt_outs ORDER BY address")]
    assert not out(store, PERSON, "whatsapp") and not out(store, USER, "whatsapp")
    assert states == ["in", "in"]
    assert told(store) == ["contact.opted_out", "contact.opted_in"]


def test_an_operator_may_name_any_address_of_a_person(store: Store) -> None:
    store.receive("k", chat("m1", PERSON, USER))
    assert word(store, State.OUT, USER, "whatsapp")["address"] == USER
    assert out(store, PERSON, "whatsapp")
    assert word(store, State.IN, PERSON, "whatsapp")["state"] == "in"
    assert not out(store, USER, "whatsapp")
    with store.database.read() as tx:
        found = opt_out_edits.history(tx, TENANT, "whatsapp", [PERSON], None, 10)
        wanted = {"channel": "whatsapp"}
        (listed, _) = opt_out_edits.listed(tx, TENANT, wanted, None, 10, names=[PERSON])
    assert [(r["address"], r["state"]) for r in found] == [(PERSON, "in"), (USER, "out")]
    assert listed["state"] == "in"


def test_nobody_is_joined_by_text_messages_or_across_tenants(store: Store) -> None:
    store.receive("k", chat("m1", PERSON, USER, body="STOP"))
    assert not out(store, USER) and not out(store, USER, "whatsapp", "another")


def test_the_case_of_a_mail_address_makes_no_other_person(store: Store) -> None:
    word(store, State.OUT, "Ada@example.com", "email")
    assert out(store, "ada@example.com", "email") and out(store, "ADA@example.com", "email")
    word(store, State.IN, "ADA@example.com", "email")
    assert not out(store, "Ada@example.com", "email")


def test_the_index_knows_the_channels_on_which_people_have_several_addresses() -> None:
    assert {name for name in ALIASED if f"'{name}'" in opt_outs.JOINED} == ALIASED


@pytest.mark.parametrize("table", ["conversations", "conversation_aliases"])
def test_a_person_is_found_without_reading_every_conversation(store: Store, table: str) -> None:
    only = opt_outs.JOINED if table == "conversations" else "TRUE"
    sql = (
        "WITH w (tenant_id, channel, address) AS (VALUES ('default', 'whatsapp', 'x')) "
        f"SELECT t.address FROM w JOIN {table} AS t ON t.tenant_id = w.tenant_id "
        f"AND t.channel = w.channel AND t.address = w.address AND {only}"
    )
    if store.database.sqlite:
        plan = " ".join(str(r[3]) for r in store.rows(f"EXPLAIN QUERY PLAN {sql}"))
    else:
        with store.database.write() as tx:
            tx.run("SET LOCAL enable_seqscan = off")
            plan = " ".join(str(r[0]) for r in tx.run(f"EXPLAIN {sql}").fetchall())
    assert f"ix_{table}_person" in plan


def test_where_nobody_opted_out_an_index_is_asked_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    word(store, State.OUT, channel="whatsapp")
    start(store)
    asked: list[str] = []
    with store.database.read() as tx:
        real = tx.run
        monkeypatch.setattr(tx, "run", lambda sql, v=(): asked.append(sql) or real(sql, v))
        people = [(TENANT, "sms", person(n)) for n in range(500)]
        assert opt_outs.blocked(tx, people) == {}
    assert len(asked) == 1


def test_many_keys_are_looked_up_and_no_table_is_read_whole(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    plans: list[str] = []
    with database.read() as tx:
        real = tx.run

        def run(sql: str, values: Any = ()) -> Any:
            plans.extend(str(r[3]) for r in real(f"EXPLAIN QUERY PLAN {sql}", values).fetchall())
            return real(sql, values)

        tx.run = run  # type: ignore[method-assign]
        keys = [(TENANT, "sms", person(n)) for n in range(LARGEST)]
        assert select(tx, opt_outs_table, opt_outs.KEY, keys, ("state",)) == []
    database.close()
    assert [plan for plan in plans if plan.startswith("SCAN t")] == []
    assert any(plan.startswith("SEARCH t USING") for plan in plans)


# Operators


def test_an_operator_blocks_and_lets_in(store: Store) -> None:
    view = word(store, State.OUT)
    assert (view["state"], view["source"], view["detail"]) == ("out", "api", "they called")
    assert out(store)
    assert word(store, State.OUT)["since"] == view["since"]
    assert word(store, State.IN)["state"] == "in"
    assert not out(store)
    assert told(store) == ["contact.opted_out", "contact.opted_in"]
    assert [verdict for *_, verdict in words(store)] == ["applied", "repeated", "applied"]


def test_nobody_is_let_in_of_whom_nothing_is_known(store: Store) -> None:
    assert word(store, State.IN) is None
    assert (store.count("opt_outs"), words(store)) == (0, [])


def test_an_operator_takes_a_block_over(store: Store) -> None:
    stop(store)
    assert word(store, State.OUT)["source"] == "api"
    says(store, "yes")
    assert out(store)


def test_the_same_word_is_taken_once_though_its_commit_was_unknown(store: Store) -> None:
    blocked = operator(TENANT, "sms", PERSON, State.OUT, Source.API, None)
    store.do(EDIT, blocked)
    word(store, State.IN)
    (view,) = store.do(EDIT, blocked)
    assert view is not None and view["state"] == "in"
    with store.database.read() as tx:
        assert opt_out_edits.landed(tx, [blocked])
        assert not opt_out_edits.landed(
            tx, [operator(TENANT, "sms", "x", State.IN, Source.CLI, "")]
        )


def test_lists_go_on_where_they_ended(store: Store) -> None:
    for number in range(7):
        word(store, State.OUT, person(number))
    word(store, State.IN, person(3))
    seen: list[str] = []
    place = None
    while True:
        with store.database.read() as tx:
            rows = opt_out_edits.listed(tx, TENANT, {"state": "out"}, place, 2)
        if not rows:
            break
        seen += [r["address"] for r in rows]
        place = (rows[-1]["updated_at"], rows[-1]["channel"], rows[-1]["address"])
    assert sorted(seen) == [person(n) for n in (0, 1, 2, 4, 5, 6)]


@pytest.fixture
def two(store: Store, url: str) -> Iterator[list[Store]]:
    """Two processes on the same database."""
    made = [store, Store(Database(url))]
    yield made
    made[1].database.close()


def test_two_processes_that_hear_of_the_same_people_agree(two: list[Store]) -> None:
    ready = Barrier(2)

    def hear(store: Store, place: int) -> None:
        ready.wait()
        for round_ in range(15):
            numbers = range(20) if place else range(19, -1, -1)
            store.receive(
                f"k{place}-{round_}",
                *(
                    said(
                        f"m{place}-{round_}-{n}",
                        from_address=person(n),
                        body="STOP" if (round_ + place) % 2 else "START",
                    )
                    for n in numbers
                ),
            )

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(hear, store, place) for place, store in enumerate(two)]:
            done.result()
    store = two[0]
    assert store.count("opt_outs") == 20
    assert store.count("opt_out_events") == 2 * 15 * 20
    for number in range(20):
        newest = store.rows(
            "SELECT state, said_at FROM opt_out_events WHERE address = ? AND verdict <> 'older' "
            "ORDER BY said_at DESC LIMIT 1",
            person(number),
        )[0]
        assert row(store, person(number))["said_at"] == newest.said_at


def test_a_pool_or_no_address_of_ours_is_no_hindrance(store: Store) -> None:
    store.receive("k", said("m", body="STOP", to_address=None, pool="MG1"))
    assert row(store)["our_address"] is None
    connection = type(CONNECTION)(
        id="c1", tenant_id=TENANT, family="test", senders={Channel.SMS: Sender(pool="MG1")}
    )
    store.accept(to=person(2), from_address=None)
    (due,) = store.claim()
    attempt = store.begin(due, connection)
    assert attempt is not None
    store.settle(attempt, Rejected("x", code="X610", because="opted_out"))
    assert row(store, person(2))["our_address"] is None
