"""Which requests of the inbox a command is about, and how they come out of it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from gateway.commands.terminal import Failure

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.store.database import Database

PAGE = 100


class State(StrEnum):
    """How well a request could be read."""

    PARSED = "parsed"
    PENDING = "pending"
    MALFORMED = "malformed"
    UNRECOGNISED = "unrecognised"
    QUARANTINED = "quarantined"
    ALL = "all"


def named(database: Database, id_: str) -> dict[str, Any]:
    """A request, whole.

    Raises:
        Failure: there is none of this id.
    """
    from gateway.store import inbox_queries

    with database.read() as tx:
        row = inbox_queries.one(tx, id_)
    if row is None:
        raise Failure(f"there is no {id_} in the inbox: see `gateway inbox list`")
    return row


def chosen(
    database: Database, ids: Sequence[str], state: State, since: datetime | None
) -> Iterator[dict[str, Any]]:
    """The requests of these ids; where there are none, those of a state since a time. Each once,
    also if what is done to it changes its state."""
    from gateway.clock import to_ms
    from gateway.store import inbox_queries

    if ids:
        yield from (named(database, id_) for id_ in ids)
        return
    start = to_ms(since) if since is not None else 0
    of, after = None if state is State.ALL else state.value, ""
    while True:
        with database.read() as tx:
            rows = inbox_queries.page(tx, of, after, PAGE, start)
        if not rows:
            break
        yield from rows
        after = rows[-1]["id"]


def moment_of(text: str) -> datetime:
    """A time, or so long ago."""
    from datetime import datetime, timedelta

    from gateway.clock import SystemClock
    from gateway.settings import seconds

    now = SystemClock().now()
    try:
        return now - timedelta(seconds=seconds(text))
    except (ValueError, OverflowError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = now.replace(tzinfo=None)
    if moment.tzinfo is None or moment > now:
        raise typer.BadParameter(
            "--since must be such as 2h, or a time of the past with its zone, such as "
            "2026-11-22T00:00Z"
        )
    return moment
