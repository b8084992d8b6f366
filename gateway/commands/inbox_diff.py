"""`gateway inbox replay --diff`: what this version reads in another way than it is stored.

Changes nothing. Text from outside is shown with its control characters escaped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from gateway.commands.terminal import Failure, say, visible

if TYPE_CHECKING:
    from gateway.adapters import Adapters
    from gateway.store.database import Database
    from gateway.store.inbox_diff import Difference

COLOURS = {"-": typer.colors.RED, "+": typer.colors.GREEN}


def show(
    database: Database, made: Adapters, rows: Iterable[dict[str, Any]], *, as_json: bool
) -> None:
    """Prints the differences of each request; as JSON, a line for each that has some.

    Raises:
        Exit: there are differences: exit code 1.
        Failure: some could not be read, as their adapter is off.
    """
    looked = different = off = 0
    for row in rows:
        looked += 1
        found = _found(database, made, row)
        off += found is None
        different += bool(found)
        if found:
            _print(row, found, as_json)
    if not as_json:
        say(f"{looked} read again, {different} in another way than they are stored.")
    if off:
        raise Failure(f"{off} could not be compared: their adapter is not set up")
    if different:
        raise typer.Exit(1)


def _found(database: Database, made: Adapters, row: dict[str, Any]) -> list[Difference] | None:
    from gateway.inbound import Inbound, verified
    from gateway.store.batcher import Batcher
    from gateway.store.inbox_diff import differences

    webhook = made.webhooks.get(row["webhook"])
    if webhook is None:
        return None
    inbound = Inbound(Batcher(database, lambda topics: None), made.connections)
    now = inbound.delivery(webhook, verified(row), None)
    with database.read() as tx:
        return differences(tx, row, now)


def _print(row: dict[str, Any], found: list[Difference], as_json: bool) -> None:
    if as_json:
        told = {"id": row["id"], "webhook": row["webhook"], "differences": list(map(asdict, found))}
        typer.echo(json.dumps(told))
        return
    say(f"{row['id']}  {visible(row['webhook'])}")
    for one in found:
        name = f"  {one.subject} {visible(one.key)}" if one.subject != "request" else "  request"
        if one.field is None:
            say(f"{name}: not stored yet")
            for field, value in one.today.items():
                _line("+", f"{field}: {_value(value)}")
        else:
            say(f"{name}: {one.field}")
            _line("-", _value(one.stored))
            _line("+", _value(one.today))


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _line(sign: str, text: str) -> None:
    say(typer.style(f"    {sign} {visible(text)}", fg=COLOURS[sign]))
