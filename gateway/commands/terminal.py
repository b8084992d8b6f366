"""Plain text for the terminal: text from outside is shown with its control characters escaped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

JOINERS = "\u200c\u200d"  # they hold emoji and some scripts together


class Failure(Exception):
    """A command that could not do its work; the text says why and what helps. Exit code 1."""


def visible(text: object, *, lines: bool = False) -> str:
    """Text from outside, fit for a terminal: it cannot move the cursor, hide or turn a line.
    Line breaks stay where `lines` are wanted."""
    return "".join(
        c
        if c.isprintable() or c in JOINERS or (lines and c == "\n")
        else c.encode("unicode_escape").decode("ascii")
        for c in str(text)
    )


def say(text: str = "") -> None:
    """Prints a line, also on a terminal that does not know all of its characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    typer.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def complain(text: str) -> None:
    """Prints a line on stderr."""
    typer.echo(f"gateway: {visible(text, lines=True)}", err=True)


def table(rows: Sequence[Sequence[object]], heads: Sequence[str]) -> None:
    """Prints rows in columns, as wide as they need to be; nothing for no rows."""
    shown = [[visible("-" if cell in (None, "") else cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in [[*heads], *shown]) for n in range(len(heads))]
    for row in [[*heads], *shown]:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Prints names and values in two columns; what is not known is left out."""
    listed = [(name, value) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        say(f"{name.ljust(width)}  {visible(value)}")


def program() -> str:
    """How this program is called, to be pasted into a shell."""
    name = Path(sys.argv[0])
    if name.name != "gateway":
        return "python -m gateway.cli"
    found = shutil.which("gateway")
    return "gateway" if found and Path(found).resolve() == name.resolve() else str(name)
