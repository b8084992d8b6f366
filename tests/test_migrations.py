"""The schema: made from nothing, agreeing with the tables, by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import OperationalError

from gateway.store import database
from gateway.store.database import Database
from gateway.store.migrate import current, head, needed, upgrade
from gateway.store.tables import Base
from tests.stored import Store, keyed, said


@pytest.fixture
def empty_url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a table."""
    if dialect == "sqlite":
        return f"sqlite:///{tmp_path / 'new.db'}"
    return str(request.getfixturevalue("postgres").empty())


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    """The same, open."""
    made = Database(empty_url)
    yield made
    made.close()


def test_a_new_database_is_brought_up_to_date(empty: Database) -> None:
    assert current(empty) is None
    assert needed(empty)
    assert upgrade(empty) == head() == current(empty)
    assert not needed(empty)
    assert Store(empty).accept()


def test_a_second_run_changes_nothing_and_keeps_every_row(empty: Database) -> None:
    upgrade(empty)
    store = Store(empty)
    store.settle(store.begun(idempotency=keyed("k")), "SM1")
    store.receive("k1", said("m1"))
    tables = [table.name for table in Base.metadata.sorted_tables]
    before = {name: store.rows(f"SELECT * FROM {name}") for name in tables}
    assert upgrade(empty) == head()
    assert {name: store.rows(f"SELECT * FROM {name}") for name in tables} == before


def same(object_: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    """Leaves out what is the migration library's own, and SQLite's index of words."""
    own = name is not None and (name == "alembic_version" or name.startswith("search_words"))
    return not (kind == "table" and own)


def test_the_migrations_make_what_the_tables_say(store: Store) -> None:
    with store.database.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": same}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_partial_indexes_are_partial_on_both(store: Store) -> None:
    if store.database.sqlite:
        sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND instr(sql, ' WHERE ') > 0"
    else:
        sql = "SELECT indexname FROM pg_indexes WHERE strpos(indexdef, ' WHERE ') > 0"
    found = {row[0] for row in store.rows(sql)}
    wanted = {
        index.name
        for table in Base.metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"]["where"] is not None
    }
    assert found == wanted
    assert found


def test_every_table_names_its_tenant_and_every_foreign_key_goes_through_it() -> None:
    for table in Base.metadata.tables.values():
        assert "tenant_id" in table.c
        for key in table.foreign_key_constraints:
            assert "tenant_id" in key.column_keys, table.name


def upgrade_there(url: str, ready: Any) -> None:
    """What each of several processes does at its start."""
    mine = Database(url)
    ready.wait()
    assert upgrade(mine) == head()
    mine.close()


def test_processes_that_start_at_the_same_moment_migrate_once(empty_url: str) -> None:
    spawn = get_context("spawn")
    ready = spawn.Barrier(3)
    processes = [spawn.Process(target=upgrade_there, args=(empty_url, ready)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    made = Database(empty_url)
    assert not needed(made)
    assert Store(made).value("SELECT COUNT(*) FROM alembic_version") == 1
    made.close()


def test_a_new_file_is_opened_by_many_at_the_same_moment(tmp_path: Path) -> None:
    def opened(url: str, ready: Barrier) -> None:
        new = Database(url)
        ready.wait()
        assert needed(new)
        new.close()

    for number in range(20):
        ready = Barrier(8)
        url = f"sqlite:///{tmp_path / str(number)}.db"
        with ThreadPoolExecutor(8) as pool:
            for ended in [pool.submit(opened, url, ready) for _ in range(8)]:
                ended.result()


def test_a_migration_waits_longer_for_its_turn_than_others_do(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "TIMEOUT", 0)
    one, two = Database(sqlite_url), Database(sqlite_url)
    with ThreadPoolExecutor(1) as pool:
        with one.write() as tx:
            tx.run("UPDATE alembic_version SET version_num = version_num")
            waits = pool.submit(upgrade, two)
            with pytest.raises(OperationalError, match="locked"), two.write():
                pass
            assert wait([waits], timeout=0.3).not_done
        assert waits.result(30) == head()
    with one.write(), pytest.raises(OperationalError, match="locked"), two.write():
        pass  # and what comes after it has no more patience than before
    one.close()
    two.close()


def test_a_migration_that_fails_leaves_nothing_behind(empty: Database) -> None:
    with empty.write() as tx:
        tx.run("CREATE TABLE media (in_the_way INTEGER)")
    with pytest.raises(Exception, match="media"):
        upgrade(empty)
    assert current(empty) is None
    with empty.write() as tx:
        tx.run("DROP TABLE media")
    assert upgrade(empty) == head()
