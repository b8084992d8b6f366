"""A database that was restored from a backup: what waits in it may have been sent since, and is not
sent again by itself."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.restores import FILE, Memory, Restores
from gateway.store import feed
from gateway.store.batcher import Batcher
from gateway.store.database import Database
from gateway.store.holds import FREE, HOLD, Free, Hold
from gateway.store.reader import Reader
from gateway.store.restores import (
    NAME,
    SETTLE,
    SUSPECT,
    TURN,
    Held,
    Mark,
    Standing,
    Suspect,
    Turn,
    standing,
    went_back,
)
from gateway.store.retention import PRUNE, Kept
from tests.commands import Desk
from tests.databases import Postgres
from tests.running import Client, eventually, following, in_thread, twilio, variables
from tests.stored import DAY, TENANT, Store, future, person
from tests.vendors import LoopbackVendor
from tests.working import until

NOW = Mark("db_1", 3, 100)


@pytest.mark.parametrize(
    ("known", "back"),
    [
        (None, False),  # a new disk
        (Mark("db_1", 3, 100), False),
        (Mark("db_1", 3, 99), False),
        (Mark("db_1", 3, 101), True),
        (Mark("db_1", 4, 1), True),  # a backup from before the last restore
        (Mark("db_1", 2, 5000), False),  # somebody else has seen to it
        (Mark("db_2", 9, 9000), False),  # another database
    ],
)
def test_a_database_has_gone_back_if_it_knows_less_than_we_do(
    known: Mark | None, back: bool
) -> None:
    assert went_back(known, NOW) is back


def stands(store: Store) -> Standing:
    """Where the database stands."""
    store.do(NAME, "db_of_the_test")
    with store.database.read() as tx:
        found = standing(tx)
    assert found is not None
    return found


def now(store: Store) -> Mark:
    """What is to be known of it."""
    return stands(store).mark


def a_moment_later(store: Store) -> None:
    """Waits for another millisecond, as ids tell no finer; and names the database before."""
    now(store)
    then = future(0)
    eventually(lambda: future(0) > then + 2, "the next moment")


def all_held(store: Store) -> int:
    """Holds everything that waits."""
    item: Suspect | None = Suspect(before=future(1000))
    count = 0
    while item is not None:
        held: Held = store.do(SUSPECT, item)[0]
        count, item = count + held.count, held.following
    return count


def test_what_waits_is_held_and_goes_when_it_is_released(store: Store) -> None:
    later = store.accept(to=person(1), send_at=future(DAY), expires_at=future(2 * DAY))
    queued = store.accept(to=person(2))
    assert all_held(store) == 2
    assert all_held(store) == 0
    for id_ in (later, queued):
        message = store.message(id_)
        assert (message["status"], message["error_code"]) == ("held", "restored")
    assert store.claim() == []
    assert store.do(FREE, Free(((TENANT, later), (TENANT, queued)))) == [2]
    assert [store.message(id_)["error_code"] for id_ in (later, queued)] == [None, None]
    assert [store.status(id_) for id_ in (later, queued)] == ["scheduled", "queued"]
    assert store.claimed() == [queued]


def test_what_was_claimed_is_held_as_well_for_it_may_have_been_sent(store: Store) -> None:
    id_ = store.accept()
    (due,) = store.claim()
    assert all_held(store) == 1
    assert store.status(id_) == "held"
    assert store.begin(due) is None  # whoever claimed it does not send it any more
    store.lapse()
    assert store.status(id_) == "held"


def test_what_was_being_sent_is_unknown_and_a_copy_of_it_is_held(store: Store) -> None:
    once, again = store.begun(to=person(1)), store.begun(to=person(2), on_unknown="resend")
    assert all_held(store) == 1
    assert store.status(once.due.message_id) == "unknown"
    assert store.status(again.due.message_id) == "held"
    store.settle(once, "SM1")
    store.settle(again, "SM2")  # a late answer counts all the same
    assert store.status(once.due.message_id) == "accepted"
    assert store.status(again.due.message_id) == "accepted"


def test_what_an_operator_holds_stays_held_by_the_operator(store: Store) -> None:
    id_ = store.accept()
    store.do(HOLD, Hold(((TENANT, id_),)))
    assert all_held(store) == 0
    assert store.message(id_)["error_code"] == "held"


def test_what_is_accepted_while_the_rest_is_held_goes_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.store.restores.PIECE", 1)
    for number in range(3):
        store.accept(to=person(number))
    a_moment_later(store)
    (held,) = store.do(SUSPECT, Suspect(before=future(0)))
    a_moment_later(store)
    assert (held.count, held.following is not None) == (1, True)
    after = store.accept(to=person(9))
    while held.following is not None:
        (held,) = store.do(SUSPECT, held.following)
    assert store.claimed() == [after]


def test_the_numbers_of_the_feed_go_on_behind_those_that_were_lost(store: Store) -> None:
    store.accept()
    mark = now(store)
    known = Mark(mark.name, mark.epoch, mark.number + 50)
    assert store.do(TURN, Turn(known), Turn(known)) == [True, False]  # two processes notice it
    store.accept(to=person(2))
    with store.database.read() as tx:
        oldest, newest, _ = feed.opening(tx, None)
        there = {n: feed.opening(tx, n)[2] for n in (mark.number, known.number, newest)}
    assert oldest <= mark.number
    assert newest > known.number + 1000  # nobody knows how many there were after that
    assert there == {mark.number: True, known.number: False, newest: True}
    assert now(store).epoch == mark.epoch + 1


def test_what_a_crash_left_unheld_is_held_by_whoever_looks_next(store: Store) -> None:
    id_ = store.accept()
    a_moment_later(store)
    assert store.do(TURN, Turn(None, sure=True)) == [True]  # and then the process was killed
    a_moment_later(store)
    store.accept(to=person(2))
    found = stands(store)
    assert (found.holding, found.held) == (True, 0)
    assert found.restored_at is not None
    store.do(SETTLE, None)
    assert stands(store).holding
    (held,) = store.do(SUSPECT, Suspect(found.restored_at))
    assert held.following is not None
    assert store.do(SUSPECT, held.following)[0].following is None
    assert (stands(store).holding, stands(store).held) == (False, 1)
    store.do(FREE, Free(((TENANT, id_),)))
    store.do(SETTLE, None)
    assert stands(store).restored_at is None


def test_one_that_has_not_gone_back_is_left_alone_unless_an_operator_says_so(store: Store) -> None:
    store.accept()
    mark = now(store)
    assert store.do(TURN, Turn(mark), Turn(None)) == [False, False]
    assert store.do(TURN, Turn(None, sure=True)) == [True]
    assert now(store).epoch == mark.epoch + 1


def test_the_newest_event_is_never_pruned_so_that_the_feed_never_seems_to_go_back(
    store: Store,
) -> None:
    store.accept()
    store.accept(to=person(2))
    mark = now(store)
    store.change("UPDATE events SET created_at = 1")
    store.do(PRUNE, Kept(DAY, DAY, DAY))
    assert now(store) == mark
    assert store.count("events") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": 1}'])
def test_a_memory_that_cannot_be_read_is_none(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(tmp_path / "spool")
    assert memory.read() is None
    memory.write(NOW)
    assert memory.read() == NOW
    assert [path.name for path in memory.path.parent.iterdir()] == [FILE]
    memory.path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert memory.read() is None
    assert "cannot be read" in caplog.text


@pytest.mark.anyio
async def test_a_database_that_goes_back_while_we_run_is_noticed_too(
    store: Store, tmp_path: Path
) -> None:
    batcher, reader = Batcher(store.database, lambda topics: None), Reader(store.database)
    batcher.start()
    turned: list[int] = []
    restores = Restores(batcher, reader, tmp_path, on_turn=turned.append, poll=0.02)
    id_ = store.accept()
    await restores.start()
    assert store.change("DELETE FROM events WHERE id > (SELECT MIN(id) FROM events)")
    await until(lambda: bool(turned))
    await restores.stop()
    await batcher.stop()
    reader.close()
    assert store.status(id_) == "held"


Copy = Callable[[str], str]


@pytest.fixture
def backup(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Copy:
    """Copies the database as it is; nobody may use it meanwhile. The URL of the copy."""
    if url.startswith("sqlite"):

        def copied(name: str) -> str:
            file = Path(url.removeprefix("sqlite:///"))
            shutil.copy(file, tmp_path / f"{name}.db")
            return f"sqlite:///{tmp_path / name}.db"

        return copied
    server: Postgres = request.getfixturevalue("postgres")
    return lambda name: server.copy(url)


@pytest.fixture
def settings(tmp_path: Path, vendor: LoopbackVendor) -> Callable[..., dict[str, str]]:
    """The settings of a gateway on one machine, whatever its database."""

    def made(url: str, **more: str) -> dict[str, str]:
        return variables(tmp_path / "data", url, **twilio(vendor.url), **more)

    return made


def ready(client: Client) -> dict[str, Any]:
    """What a load balancer hears."""
    return dict(client.stranger().get("/health/ready"))


def test_nothing_that_waited_in_a_backup_is_sent_twice(
    url: str,
    backup: Copy,
    settings: Callable[..., dict[str, str]],
    vendor: LoopbackVendor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with in_thread(settings(url), working=False) as client:
        ids = [client.send(to=person(n), body="once")["id"] for n in range(3)]
    old = backup("old")
    with in_thread(settings(url)) as client:  # life goes on after the backup
        for id_ in ids:
            client.until(id_, "accepted")
        with following(client, 0) as stream:
            eventually(lambda: stream.events, "the feed")
        seen = stream.events[-1]["id"]
        assert "restored" not in ready(client)
    assert vendor.count == 3
    caplog.clear()
    with in_thread(settings(old)) as client:  # the disk dies, and the backup is restored
        assert {client.message(id_)["status"] for id_ in ids} == {"held"}
        assert client.message(ids[0])["waiting_for"] == "operator"
        assert client.message(ids[0])["error"]["code"] == "restored"
        assert ready(client)["restored"]["held"] == 3
        new = client.send(to=person(9), body="new")["id"]
        client.until(new, "accepted")  # what is accepted now goes out at once
        assert vendor.count == 4
        with following(client, seen) as stream:
            eventually(lambda: stream.resets, "the reset")
        desk = Desk(tmp_path, settings(old))
        cancelled = client.call("POST", f"/api/messages/{ids[0]}/cancel")  # it has gone out
        assert cancelled.ok
        assert desk.run("queue", "release", ids[1]).code == 0
        client.until(ids[1], "accepted")
        eventually(lambda: ready(client)["restored"]["held"] == 1, "the count of what is held")
        assert desk.run("queue", "release", "--all").out == "1 released\n"
        client.until(ids[2], "accepted")
        eventually(lambda: "restored" not in ready(client), "the end of it")
    assert vendor.count == 6
    assert "the database was restored: 3 messages" in caplog.text
    with in_thread(settings(old)) as client:  # and the next start is one like any other
        waits = client.send(to=person(8), body="as ever")["id"]
        client.until(waits, "accepted")
        assert "restored" not in ready(client)


def test_another_database_is_not_taken_for_an_older_one(
    url: str,
    sqlite_file: Path,
    settings: Callable[..., dict[str, str]],
    vendor: LoopbackVendor,
    tmp_path: Path,
) -> None:
    other = f"sqlite:///{shutil.copy(sqlite_file, tmp_path / 'other.db')}"
    with in_thread(settings(other), working=False) as client:
        id_ = client.send(to=person(1), body="waits")["id"]
    with in_thread(settings(url)) as client:
        for number in range(5):
            client.until(client.send(to=person(number), body="x")["id"], "accepted")
    with in_thread(settings(other)) as client:
        client.until(id_, "accepted")


def test_where_nothing_is_known_an_operator_says_that_it_was_restored(
    url: str,
    settings: Callable[..., dict[str, str]],
    vendor: LoopbackVendor,
    tmp_path: Path,
) -> None:
    with in_thread(settings(url), working=False) as client:
        id_ = client.send(to=person(1), body="once")["id"]
    elsewhere = settings(url, DATA_DIR=str(tmp_path / "elsewhere"))
    done = Desk(tmp_path, elsewhere).run("db", "restored")
    assert (done.code, done.out.startswith("1 held.")) == (0, True), done.err
    with in_thread(elsewhere) as client:
        assert client.message(id_)["status"] == "held"
        assert ready(client)["restored"]["held"] == 1
        client.until(client.send(to=person(2), body="new")["id"], "accepted")
    with in_thread(settings(url)) as client:  # the machine of before knows more, and less
        assert client.message(id_)["status"] == "held"
        assert client.call("POST", f"/api/messages/{id_}/cancel").ok
    assert vendor.count == 1
    database = Database(url)
    assert Store(database).value("SELECT COUNT(*) FROM timelines") == 2
    database.close()
