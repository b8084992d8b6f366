"""What goes into a table by the list comes out as it went in, on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy.exc import DBAPIError

from gateway.store.rows import insert, select, update
from tests.stored import Store

HARD = (
    "",
    " ",
    "NULL",
    "null",
    '"',
    "\\",
    '\\"',
    "\\x41",
    "{}",
    "{a,b}",
    ",",
    "a,b",
    "\n",
    "\r\n\t",
    "\x01\x1f\x7f",
    "\u00a0\u2028\u3000",
    "é€😀",
    "';--",
    "?",
    "%s",
    "$1",
)
TEXT = st.one_of(
    st.sampled_from(HARD),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=30),
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "said": st.one_of(st.none(), TEXT),
            "raw": st.one_of(st.none(), st.binary(max_size=30)),
            "small": st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
            "large": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        }
    ),
    min_size=1,
    max_size=70,
)
things = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("said", Text),
    Column("raw", LargeBinary),
    Column("small", Integer),
    Column("large", BigInteger),
)
COLUMNS = ("id", "said", "raw", "small", "large")


@pytest.fixture
def kept(store: Store) -> Iterator[Store]:
    """A database with a table of every kind of column."""
    with store.database.write() as tx:
        things.create(tx.connection)
    yield store
    with store.database.write() as tx:
        things.drop(tx.connection)


def stored(kept: Store, numbers: list[tuple[int]]) -> list[dict[str, object]]:
    """What stands in the table."""
    with kept.database.read() as tx:
        found = select(tx, things, ("id",), numbers, COLUMNS)
    return [{**row._mapping, "raw": None if row.raw is None else bytes(row.raw)} for row in found]


@given(rows=ROWS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_come_back_as_they_were_inserted_and_updated(
    kept: Store, rows: list[dict[str, object]]
) -> None:
    numbered = [{"id": n, **{c: row[c] for c in COLUMNS[1:]}} for n, row in enumerate(rows)]
    keys = [(number,) for number in range(len(rows))]
    with kept.database.write() as tx:
        tx.run("DELETE FROM things")
        insert(tx, things, numbered)
    assert stored(kept, keys) == numbered
    turned = [{**row, "id": number} for number, row in enumerate(reversed(numbered))]
    with kept.database.write() as tx:
        update(tx, things, ("id",), turned)
    assert stored(kept, keys) == turned


@pytest.mark.parametrize("said", HARD)
def test_a_text_that_could_end_a_list_stays_one(kept: Store, said: str) -> None:
    rows = [{"id": number, "said": text} for number, text in enumerate(("a", said, "b", said))]
    with kept.database.write() as tx:
        insert(tx, things, rows)
        found = select(tx, things, ("said",), [(said,)], ("id", "said"))
    assert [tuple(row) for row in found] == [(1, said), (3, said)]


def test_postgres_refuses_nul_and_says_so_as_before(kept: Store) -> None:
    rows = [{"id": 1, "said": "a"}, {"id": 2, "said": "b\0c"}]
    if kept.database.sqlite:
        with kept.database.write() as tx:
            insert(tx, things, rows)
        assert [row["said"] for row in stored(kept, [(1,), (2,)])] == ["a", "b\0c"]
        return
    for tried in (rows, [*rows, {"id": 3, "said": None}]):
        with pytest.raises(DBAPIError) as raised, kept.database.write() as tx:
            insert(tx, things, tried)
        assert "NUL" in str(raised.value.orig)
    assert stored(kept, [(1,), (2,), (3,)]) == []
