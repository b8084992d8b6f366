"""`.env.example` names every variable that is read, no other, and their true defaults."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.catalog import CATALOG
from gateway.settings import Environment, Settings, variables_of

FILE = Path(__file__).parent.parent / ".env.example"
LINE = re.compile(r"#([A-Z][A-Z0-9_]*)=(.*)")
COMMAND_LINE = {"GATEWAY_URL"}  # read by typer, for the commands that talk to a gateway
ADAPTERS = [a for entry in CATALOG for a in (entry.provider, entry.webhook) if a is not None]


def examples() -> dict[str, str]:
    """The variables of the file with their defaults."""
    found = [m for line in FILE.read_text().splitlines() if (m := LINE.fullmatch(line))]
    names = [match[1] for match in found]
    assert len(names) == len(set(names))
    return {match[1]: match[2] for match in found}


def test_every_variable_is_there_and_no_other() -> None:
    read = set(variables_of(Settings)) | COMMAND_LINE
    for adapter in ADAPTERS:
        read |= set(variables_of(adapter.Settings))
    assert set(examples()) == read


def test_every_variable_is_explained_in_the_line_before_it() -> None:
    lines = FILE.read_text().splitlines()
    for before, line in pairwise(lines):
        if LINE.fullmatch(line):
            assert before.startswith("# ")
            assert len(before) > 10


def test_nothing_is_set_by_a_copy_of_the_file() -> None:
    assert all(not line or line.startswith("#") for line in FILE.read_text().splitlines())


def test_the_defaults_of_the_core_are_true() -> None:
    assert Environment(examples()).settings == Environment({}).settings


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda a: a.__name__)
def test_the_defaults_of_an_adapter_are_true(adapter: Any) -> None:
    assert Environment(examples()).fill(adapter.Settings) == Environment({}).fill(adapter.Settings)
