"""Statements over many rows at once: insert, update, select.

One statement for a list releases the interpreter once, where a statement per row would wait for
it again each time. SQLite gets the rows as VALUES, in texts of few sizes, which it keeps prepared;
PostgreSQL gets an array per column, in one text for every size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import BigInteger, Integer, LargeBinary, Table

from gateway.store.tx import Tx, Values

LARGEST = 256  # rows of one statement on SQLite: within its limit of parameters
STEP = 32  # sizes above it are multiples of it

Listed = tuple[str, Sequence[Any]]  # a list of rows in SQL, and its values


def _pieces(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    start = 0
    while start < len(rows):
        left = len(rows) - start
        size = left if left <= STEP else min(LARGEST, left - left % STEP)
        yield rows[start : start + size]
        start += size


@lru_cache(maxsize=1024)
def _marks(columns: int, rows: int) -> str:
    one = "(" + ", ".join("?" * columns) + ")"
    return ", ".join([one] * rows)


@lru_cache(maxsize=1024)
def _typed(table: Table, columns: tuple[str, ...], rows: int) -> str:
    """A list of rows whose first row tells the types."""
    kinds = ", ".join(f"CAST(? AS {table.c[column].type.compile()})" for column in columns)
    more = f", {_marks(len(columns), rows - 1)}" if rows > 1 else ""
    return f"(VALUES ({kinds}){more})"


def _array(table: Table, column: str) -> str:
    kind = table.c[column].type
    if isinstance(kind, BigInteger):
        return "bigint[]"
    if isinstance(kind, Integer):
        return "integer[]"
    return "bytea[]" if isinstance(kind, LargeBinary) else "text[]"


def _literal(table: Table, column: str, values: Sequence[Any]) -> Any:
    """A column's values as PostgreSQL reads an array ("Array Input and Output Syntax"). The driver
    would go through them one by one; it still does for what is of another type than the column."""
    kind = table.c[column].type
    try:
        if isinstance(kind, Integer):
            return f"{{{','.join(['NULL' if v is None else int.__repr__(v) for v in values])}}}"
        if isinstance(kind, LargeBinary):
            return f"{{{','.join([_hex(v) for v in values])}}}"
        return _texts(values)
    except (TypeError, AttributeError):
        return list(values)


def _texts(values: Sequence[str | None]) -> Any:
    if None in values:
        return f"{{{','.join(['NULL' if v is None else _quoted(v) for v in values])}}}"
    whole = "\0".join(values)  # type: ignore[arg-type]
    if whole.count("\0") >= len(values):
        return list(values)  # which the driver refuses: PostgreSQL keeps no NUL
    return _quoted(whole).replace("\0", '","').join("{}")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _hex(value: bytes | None) -> str:
    return "NULL" if value is None else f'"\\\\x{value.hex()}"'


@lru_cache(maxsize=1024)
def _arrays(table: Table, columns: tuple[str, ...]) -> str:
    casts = ", ".join(f"?::{_array(table, column)}" for column in columns)
    return f"SELECT * FROM unnest({casts})"


def _lists(
    tx: Tx, table: Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]
) -> Iterator[Listed]:
    """The rows as they stand in a WITH."""
    if tx.postgres:
        if rows:
            held = zip(columns, zip(*rows, strict=True), strict=True)
            yield f"({_arrays(table, columns)})", [_literal(table, c, v) for c, v in held]
        return
    for piece in _pieces(rows):
        yield _typed(table, columns, len(piece)), [value for row in piece for value in row]


def _inserts(
    tx: Tx, table: Table, columns: tuple[str, ...], held: Sequence[list[Any]]
) -> Iterator[Listed]:
    """The rows as an INSERT has them; `held` is what each column holds."""
    if tx.postgres:
        pairs = zip(columns, held, strict=True)
        yield _arrays(table, columns), [_literal(table, c, v) for c, v in pairs]
        return
    for piece in _pieces(list(zip(*held, strict=True))):
        yield f"VALUES {_marks(len(columns), len(piece))}", list(chain.from_iterable(piece))


def insert(tx: Tx, table: Table, rows: Sequence[Values], conflict: str = "") -> list[Any]:
    """Inserts rows that all have the same keys. `conflict` is an ON CONFLICT clause, which may
    end in RETURNING: then what it returns is the result."""
    if not rows:
        return []
    every = {name: [row[name] for row in rows] for name in rows[0]}
    held = {name: values for name, values in every.items() if values.count(None) < len(values)}
    columns = tuple(held)
    head = f"INSERT INTO {table.name} ({', '.join(columns)})"
    found: list[Any] = []
    for listed, values in _inserts(tx, table, columns, list(held.values())):
        result = tx.run(f"{head} {listed} {conflict}", values)
        if "RETURNING" in conflict:
            found.extend(result.fetchall())
    return found


def update(
    tx: Tx,
    table: Table,
    keys: tuple[str, ...],
    rows: Sequence[Values],
    *,
    only: str = "TRUE",
    how: Mapping[str, str] | None = None,
) -> int:
    """Sets, row by row, what each of `rows` holds beside its keys. Rows have the same keys in
    the same order. `only` narrows it and `how` gives a column another expression than its new
    value, with `t` the table and `v` the new values. Returns how many changed."""
    if not rows:
        return 0
    columns, how = tuple(rows[0]), how or {}
    sets = ", ".join(f"{c} = {how.get(c, 'v.' + c)}" for c in columns if c not in keys)
    match = " AND ".join(f"t.{key} = v.{key}" for key in keys)
    changed = 0
    for listed, values in _lists(tx, table, columns, [tuple(row.values()) for row in rows]):
        changed += tx.run(
            f"WITH v ({', '.join(columns)}) AS {listed} "
            f"UPDATE {table.name} AS t SET {sets} FROM v WHERE {match} AND {only}",
            values,
        ).rowcount
    return changed


def present(
    tx: Tx, table: Table, keys: tuple[str, ...], wanted: Sequence[tuple[Any, ...]]
) -> set[tuple[Any, ...]]:
    """Which of `wanted` stand in any row; a key with many rows costs as little as one with one."""
    found: set[tuple[Any, ...]] = set()
    names = ", ".join(f"w.{key}" for key in keys)
    match = " AND ".join(f"t.{key} = w.{key}" for key in keys)
    for listed, values in _lists(tx, table, keys, sorted(set(wanted))):
        rows = tx.run(
            f"WITH w ({', '.join(keys)}) AS {listed} "
            f"SELECT {names} FROM w WHERE EXISTS (SELECT 1 FROM {table.name} AS t WHERE {match})",
            values,
        ).fetchall()
        found.update(tuple(row) for row in rows)
    return found


def select(
    tx: Tx,
    table: Table,
    keys: tuple[str, ...],
    wanted: Sequence[tuple[Any, ...]],
    columns: Sequence[str],
    *,
    lock: bool = False,
    only: str = "TRUE",
) -> list[Any]:
    """The rows whose keys are among `wanted`, in the order of the keys. `lock` keeps them from
    other processes until the transaction ends; `only` narrows it, with `t` the table."""
    unique = sorted(set(wanted))
    found: list[Any] = []
    names = ", ".join(f"t.{column}" for column in columns)
    match = " AND ".join(f"t.{key} = w.{key}" for key in keys)
    order = ", ".join(f"t.{key}" for key in keys)
    tail = " FOR NO KEY UPDATE OF t" if lock and tx.postgres else ""
    # SQLite would read all of a table, in the order that is asked for, for more than some 200 keys;
    # after CROSS JOIN it looks each key up.
    join = "JOIN" if tx.postgres else "CROSS JOIN"
    for listed, values in _lists(tx, table, keys, unique):
        found += tx.run(
            f"WITH w ({', '.join(keys)}) AS {listed} "
            f"SELECT {names} FROM w {join} {table.name} AS t ON {match} AND {only} "
            f"ORDER BY {order}{tail}",
            values,
        ).fetchall()
    return found
