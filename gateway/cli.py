"""`gateway …`: the command line. Its commands stand in `gateway.commands.tree`."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer import Typer


def main() -> None:
    """Runs a command: exit code 0 for done, 1 for failed, 2 for wrong usage or settings."""
    os.umask(0o077)  # what is written is for its owner only
    gc.disable()  # imports make nothing but what stays: to look through it takes a tenth of a start
    from gateway.commands.terminal import Failure, complain
    from gateway.errors import SettingsError

    commands = _commands(sys.argv[1:2])
    gc.freeze()
    gc.enable()
    try:
        commands()
    except SettingsError as error:
        complain(str(error))
        raise SystemExit(2) from None
    except Failure as failure:
        complain(str(failure))
        raise SystemExit(1) from None


def _commands(first: list[str]) -> Typer:
    """All commands, or those that run for long alone: making the others takes part of a start."""
    if first in (["serve"], ["worker"]):
        from gateway.commands.serve import commands

        return commands
    from gateway.commands.tree import app

    return app


if __name__ == "__main__":
    main()
