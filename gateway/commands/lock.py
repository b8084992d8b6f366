"""One serving process beside an embedded database, and where the one that serves is found."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.commands.terminal import Failure

NOTE = "serving.json"


@contextlib.contextmanager
def held(database: Path, command: str) -> Iterator[None]:
    """Holds the lock beside a database for as long as the block runs. The system frees it when
    the process ends, however it ends.

    Raises:
        Failure: another process holds it.
    """
    path = database.with_name(database.name + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(_refusal(database, os.read(handle, 32).decode(), command)) from None
        os.truncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
    finally:
        os.close(handle)


def _refusal(database: Path, process: str, command: str) -> str:
    who = f"process {process}" if process.isdigit() else "another process"
    if command == "worker":
        return (
            f"{who} already serves {database}, and `gateway serve` does the worker's work too. "
            "Nothing is to be started; for several processes use PostgreSQL (DATABASE_URL)."
        )
    return (
        f"{who} already serves {database}. Stop it first, or give this one its own DATA_DIR; "
        "for several processes use PostgreSQL (DATABASE_URL)."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """Where a gateway listens, what it believes to be its own address, and how it runs."""

    pid: int
    url: str
    origin: str
    env: str


@contextlib.contextmanager
def noted(data_dir: Path, serving: Serving) -> Iterator[None]:
    """Leaves a note for the other commands for as long as the block runs. Holds no secret."""
    path = data_dir / NOTE
    draft = path.with_suffix(f".{serving.pid}")
    draft.write_text(json.dumps(asdict(serving)))
    draft.replace(path)
    try:
        yield
    finally:
        if serving == found(data_dir):
            path.unlink(missing_ok=True)


def found(data_dir: Path) -> Serving | None:
    """The note of a gateway that serves, if there is one and its process lives."""
    note = None
    try:
        note = Serving(**json.loads((data_dir / NOTE).read_text()))
        os.kill(note.pid, 0)
    except PermissionError:  # another user's process: alive
        pass
    except (OSError, ValueError, TypeError):
        return None
    return note
