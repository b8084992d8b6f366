"""What is not kept for ever goes, a piece at a time, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app import kept
from gateway.domain import Status
from gateway.settings import Environment
from gateway.store import retention
from gateway.store.retention import PRUNE, Kept
from tests.running import eventually, in_thread, variables
from tests.stored import DAY, HOUR, Store, person, update

MONTH = Kept(DAY, 30 * DAY, 30 * DAY)


def verdicts(store: Store) -> dict[str, int]:
    """How many receipts there are of each verdict."""
    rows = store.rows("SELECT verdict, COUNT(*) AS many FROM receipts GROUP BY verdict")
    return {row.verdict: row.many for row in rows}


def told(store: Store) -> None:
    """One receipt of each kind: of an attempt, of nobody we know, of another account."""
    attempt = store.begun()
    store.settle(attempt, "SM1")
    store.reports(
        update(Status.DELIVERED, attempt_id=attempt.id),
        update(Status.SENT, attempt_id=attempt.id),
        update(Status.DELIVERED, provider_message_id="SM9"),
        update(Status.DELIVERED, attempt_id=attempt.id, account="AC9"),
    )


def grow_old(store: Store, days: int) -> None:
    """Lets receipts have come so many days ago."""
    store.change("UPDATE receipts SET received_at = received_at - ?", days * DAY)


def test_words_about_nobody_are_forgotten_and_those_about_us_are_not(store: Store) -> None:
    told(store)
    all_ = {"applied": 1, "kept": 1, "parked": 1, "foreign": 1}
    assert verdicts(store) == all_
    grow_old(store, 29)
    store.do(PRUNE, MONTH)
    assert verdicts(store) == all_
    grow_old(store, 2)
    assert store.do(PRUNE, MONTH) == [2]
    assert verdicts(store) == {"applied": 1, "kept": 1}


def test_they_go_in_pieces(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PIECE", 2)
    store.reports(*(update(Status.SENT, provider_message_id=f"SM{n}") for n in range(5)))
    grow_old(store, 31)
    assert [store.do(PRUNE, MONTH)[0] for _ in range(4)] == [2, 2, 1, 0]


def test_each_kind_is_found_by_an_index_of_its_own(store: Store) -> None:
    known = {
        "parked": ("ix_receipts_parked", "ix_receipts_missed"),
        "foreign": ("ix_receipts_foreign",),
    }
    for verdict, indexes in known.items():
        sql = f"SELECT id FROM receipts WHERE verdict = '{verdict}' AND received_at < 1 LIMIT 9"
        if store.database.sqlite:
            plan = store.rows(f"EXPLAIN QUERY PLAN {sql}")
        else:
            with store.database.write() as tx:
                tx.run("SET LOCAL enable_seqscan = off")
                plan = tx.run(f"EXPLAIN {sql}").fetchall()
        assert any(index in str(plan) for index in indexes)


@pytest.mark.parametrize(
    ("inbox", "receipts", "loose"), [("30d", "72h", 30 * DAY), ("90m", "72h", 72 * HOUR)]
)
def test_none_is_forgotten_before_its_attempt_is_given_up(
    tmp_path: Path, inbox: str, receipts: str, loose: int
) -> None:
    given = {"INBOX_RETENTION": inbox, "RECEIPT_TIMEOUT": receipts}
    environment = Environment(variables(tmp_path, **given))
    assert kept(environment.settings).loose == loose


def test_a_gateway_forgets_by_itself(store: Store, url: str, tmp_path: Path) -> None:
    told(store)
    grow_old(store, 31)
    with in_thread(variables(tmp_path, url)):
        eventually(lambda: len(verdicts(store)) < 4, "some to go")
    assert verdicts(store) == {"applied": 1, "kept": 1}


def numbers(store: Store) -> list[int]:
    """The events that there are."""
    return [row.id for row in store.rows("SELECT id FROM events ORDER BY id")]


def test_events_go_by_their_numbers_and_the_newest_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PIECE", 4)
    for number in range(5):
        store.accept(to=person(number))
    all_ = numbers(store)
    assert len(all_) > 8
    old, young = all_[:6], all_[6:]
    store.change("UPDATE events SET created_at = created_at - ? WHERE id <= ?", 2 * DAY, old[-1])
    assert [store.do(PRUNE, MONTH)[0] for _ in range(3)] == [4, 2, 0]
    assert numbers(store) == young
    store.change("UPDATE events SET created_at = created_at - ?", 2 * DAY)
    while store.do(PRUNE, MONTH)[0]:
        pass
    assert numbers(store) == all_[-1:]


def test_events_of_a_clock_that_was_ahead_hold_up_no_others(store: Store) -> None:
    for number in range(5):
        store.accept(to=person(number))
    all_ = numbers(store)
    store.change("UPDATE events SET created_at = created_at - ?", 2 * DAY)
    store.change("UPDATE events SET created_at = created_at + ? WHERE id <= ?", 400 * DAY, all_[3])
    assert store.do(PRUNE, MONTH) == [len(all_) - 1]
    assert numbers(store) == all_[-1:]


def test_raw_requests_go_when_they_are_old_and_not_before(store: Store) -> None:
    for name in ("old", "waits", "ahead", "young"):
        store.receive(name)
    ids = {row.key: row.id for row in store.rows("SELECT key, id FROM inbox")}
    for key, moved in (("old", 31), ("waits", 31)):
        earlier = f"{int(ids[key][4:], 16) - (moved * DAY << 80):032x}"
        store.change(
            "UPDATE inbox SET received_at = received_at - ?, id = ? WHERE key = ?",
            *(moved * DAY, f"inb_{earlier}", key),
        )
    ahead = f"inb_{int(ids['ahead'][4:], 16) + (90 * DAY << 80):032x}"
    store.change("UPDATE inbox SET id = ? WHERE key = 'ahead'", ahead)
    store.change("UPDATE inbox SET state = 'pending' WHERE key = 'waits'")

    def kept_keys() -> set[str]:
        return {row.key for row in store.rows("SELECT key FROM inbox")}

    assert store.do(PRUNE, MONTH) == [1]
    assert kept_keys() == {"waits", "ahead", "young"}
    store.change("UPDATE inbox SET received_at = received_at - ? WHERE key = 'ahead'", 31 * DAY)
    assert store.do(PRUNE, MONTH) == [1]
    assert kept_keys() == {"waits", "young"}
    assert store.do(PRUNE, MONTH) == [0]
