"""The command line within the test's own process, where the guard against the network holds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.commands.terminal import Failure
from gateway.commands.tree import app
from gateway.errors import SettingsError
from gateway.settings import Settings

VENDORS = ("TWILIO_", "AWS_", "CONSOLE_", "GATEWAY_")


@dataclass
class Typed:
    """What a command said and how it ended, as `main` would end it."""

    code: int
    out: str
    err: str


def type_in(
    patch: pytest.MonkeyPatch, folder: Path, variables: dict[str, str], *arguments: str
) -> Typed:
    """Runs a command in a folder with these variables and no other."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields or name.startswith(VENDORS):
            patch.delenv(name)
    for name, value in variables.items():
        patch.setenv(name, value)
    patch.chdir(folder)
    done = CliRunner().invoke(app, list(arguments))
    if isinstance(done.exception, (Failure, SettingsError)):
        code = 1 if isinstance(done.exception, Failure) else 2
        return Typed(code, done.stdout, done.stderr + str(done.exception))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Typed(done.exit_code, done.stdout, done.stderr)
