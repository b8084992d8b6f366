"""What only PostgreSQL does: statements on their way together, connections that went away while
they rested, and tables that grow faster than it looks."""

from __future__ import annotations

import asyncio
import threading
from itertools import count

import pytest
from sqlalchemy.exc import DBAPIError

from gateway.store import database as databases
from gateway.store.accepts import ACCEPT
from gateway.store.batcher import Batcher
from gateway.store.database import Database
from gateway.store.failures import settle_errors
from gateway.store.reader import Reader
from gateway.store.statistics import CHANGED, REFRESH
from gateway.store.tx import Tx
from tests.databases import Cut, Wire
from tests.stored import new_message, person

pytestmark = pytest.mark.anyio

GONE = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


def test_an_error_of_statements_that_went_together_is_one_of_the_database(
    postgres_url: str,
) -> None:
    made = Database(postgres_url)

    def wrong() -> None:
        with made.write() as tx, tx.together():
            tx.run("SELECT nothing_of_that_name")
            tx.run("SELECT 1")

    with pytest.raises(DBAPIError) as raised:
        wrong()
    assert settle_errors(raised.value) == "item"
    with made.write() as tx:
        assert tx.run("SELECT 1").scalar() == 1  # and the connection is as good as before
    made.close()


async def test_a_connection_that_is_lost_among_them_is_found_out_and_replaced(
    postgres_url: str, wire: Wire
) -> None:
    made = Database(wire.url(postgres_url))
    batcher = Batcher(made, lambda topics: None)
    batcher.start()
    await batcher.submit(ACCEPT, new_message())
    wire.only, wire.cut = b"INSERT INTO events", Cut.BEFORE_COMMIT
    await batcher.submit(ACCEPT, new_message(to=person(2)))
    assert wire.cuts == 1
    with made.read() as tx:
        assert tx.run("SELECT count(*) FROM messages").scalar() == 2
    await batcher.stop()
    made.close()


def test_a_connection_that_rested_is_asked_before_it_is_used(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "ASK_AFTER", -1.0)
    made, other = Database(postgres_url), Database(postgres_url)
    with made.read() as tx, made.write() as writing:
        assert tx.run("SELECT 1").scalar() == writing.run("SELECT 1").scalar() == 1
    with other.write() as tx:
        assert tx.run(GONE).scalar() == 2
    with made.read() as tx, made.write() as writing:
        assert tx.run("SELECT 1").scalar() == writing.run("SELECT 1").scalar() == 1
    made.close()
    other.close()


async def test_a_read_finds_new_connections_when_all_were_cut_a_moment_ago(
    postgres_url: str,
) -> None:
    made, other = Database(postgres_url), Database(postgres_url)
    reader, together = Reader(made), threading.Barrier(4)

    def read(tx: Tx) -> int:
        together.wait(10)  # so that each has a connection of its own
        return int(tx.run("SELECT 1").scalar())

    assert await asyncio.gather(*(reader.call(read) for _ in range(4))) == [1] * 4
    with other.write() as tx:
        assert tx.run(GONE).scalar() == 4
    assert await asyncio.gather(*(reader.call(read) for _ in range(4))) == [1] * 4
    reader.close()
    made.close()
    other.close()


async def test_a_table_that_grows_fast_is_looked_at_once_it_has_grown(postgres_url: str) -> None:
    made = Database(postgres_url)
    batcher = Batcher(made, lambda topics: None)
    batcher.start()
    numbers = count()

    async def grow() -> None:
        new = (new_message(to=person(next(numbers))) for _ in range(CHANGED + 50))
        await asyncio.gather(*(batcher.submit(ACCEPT, one) for one in new))

    def looks() -> int:
        """How often somebody asked for it; what the server does by itself is not counted."""
        with made.read() as tx:
            sql = "SELECT analyze_count FROM pg_stat_user_tables WHERE relname = 'messages'"
            return int(tx.run(sql).scalar())

    before = looks()
    async with asyncio.timeout(60):
        while looks() == before:  # the server counts changes within a second of a commit
            await grow()
            await asyncio.sleep(0.3)
            await batcher.submit(REFRESH, None)
    with made.read() as tx:
        known = tx.run("SELECT reltuples FROM pg_class WHERE relname = 'messages'").scalar()
    assert known > CHANGED
    async with asyncio.timeout(60):
        while await batcher.submit(REFRESH, None):  # the others that were counted since
            await asyncio.sleep(0.1)
    await batcher.stop()
    made.close()


def test_nothing_is_compiled_for_a_few_rows(postgres_url: str) -> None:
    made = Database(postgres_url)
    with made.write() as tx, made.read() as reading:
        assert [one.run("SHOW jit").scalar() for one in (tx, reading)] == ["off", "off"]
    made.close()
