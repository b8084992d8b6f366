"""What the README and the documents name is there: links, commands, paths, variables, codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer.main
from starlette.routing import compile_path

from gateway.api.routes import OPERATIONS
from gateway.catalog import CATALOG
from gateway.clock import SystemClock
from gateway.commands.tree import app
from gateway.domain import Status
from gateway.errors import REASONS
from gateway.settings import Settings, variables_of
from providers._twilio_answers import ERRORS
from tests.test_env_example import COMMAND_LINE, examples
from webhooks._twilio_tables import STATUSES
from webhooks.endpoint import Endpoint

ROOT = Path(__file__).parent.parent
DOCS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
ADAPTERS = [a for entry in CATALOG for a in (entry.provider, entry.webhook) if a is not None]
VARIABLES = {*variables_of(Settings), *COMMAND_LINE}.union(
    *(variables_of(adapter.Settings) for adapter in ADAPTERS)
)

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
COMMAND = re.compile(r"(?:^|[|;&/]\s*)gateway ((?:[a-z][a-z-]* ?){1,2})([^|;&\n]*)", re.MULTILINE)
OPTION = re.compile(r"(?<!\S)--[a-z][a-z-]*")
REQUEST = re.compile(r"(?:^|`|\s)(GET|POST|PUT|PATCH|DELETE) (/[^\s`|,;]+)")
PATH = re.compile(
    r"(?:^|[\s`(|\"]|https?://[^\s/`]+|\$B)(/(?:api|health)(?:/[\w{}.…-]+)*)", re.MULTILINE
)
VARIABLE = re.compile(r"(?<![\w$])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?!\w)")

OURS = {"error ignored terminating …": "psycopg"}  # lines of others

every_document = pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)


def code(path: Path) -> Iterator[str]:
    """What stands in a document as code: its blocks, then its spans."""
    text = path.read_text()
    for language, block in FENCE.findall(text):
        if language != "python":
            yield block
    yield from SPAN.findall(FENCE.sub("", text))


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.strip().replace(" ", "-")


def rows(path: Path, columns: int) -> Iterator[list[str]]:
    """The rows of a document's tables that have so many columns."""
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == columns:
            yield cells


@every_document
def test_every_link_and_image_leads_somewhere(path: Path) -> None:
    for target in LINK.findall(FENCE.sub("", path.read_text())):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file) if file else path
        assert found.is_file(), target
        if anchor:
            assert anchor in {slug(h) for h in HEADING.findall(found.read_text())}, target


def test_every_document_is_linked_from_the_readme() -> None:
    linked = set(LINK.findall(DOCS[0].read_text()))
    assert {f"docs/{path.name}" for path in DOCS[1:]} <= linked


@every_document
def test_every_command_and_its_options_exist(path: Path) -> None:
    for text in code(path):
        for words, rest in COMMAND.findall(text):
            check_command(words.split(), rest)


def check_command(words: list[str], rest: str) -> None:
    """A command of ours, as the command line knows it."""
    command = typer.main.get_command(app)
    for word in words:
        inner = getattr(command, "commands", None)
        if inner is None:
            break  # an argument
        assert word in inner, " ".join(words)
        command = inner[word]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    assert set(OPTION.findall(rest.partition("#")[0])) <= known, f"{words} {rest}"


def known_paths() -> list[re.Pattern[str]]:
    """Every path that the gateway answers on."""
    endpoint = Endpoint(
        hooks={},
        missing={},
        receive=None,  # type: ignore[arg-type]
        origin="http://localhost",
        max_bytes=1,
        timeout=1,
        clock=SystemClock(),
    )
    paths = [o.path for o in OPERATIONS] + [route.path for route in endpoint.routes()]
    return [compile_path(path)[0] for path in (*paths, "/health", "/health/ready")]


@every_document
def test_every_path_of_the_api_exists(path: Path) -> None:
    known = known_paths()
    for text in code(path):
        for found in PATH.findall(text):
            assert any(pattern.fullmatch(found) for pattern in known), found


@every_document
def test_every_request_has_its_method(path: Path) -> None:
    known = {(o.method, compile_path(o.path)[0]) for o in OPERATIONS}
    known |= {("GET", compile_path(path)[0]) for path in ("/health", "/health/ready")}
    for text in code(path):
        for method, target in REQUEST.findall(text):
            there = target.partition("?")[0]
            assert any(m == method and p.fullmatch(there) for m, p in known), (method, target)


@every_document
def test_every_variable_exists(path: Path) -> None:
    found = {name for text in code(path) for name in VARIABLE.findall(text)}
    assert {name for name in found if not name.startswith("EXAMPLE_")} <= VARIABLES


def test_every_variable_is_configured_once_with_its_default() -> None:
    listed = [
        (cells[0].strip("`"), cells[1])
        for cells in rows(ROOT / "docs" / "configuration.md", 3)
        if VARIABLE.fullmatch(cells[0].strip("`")) or cells[0].strip("`") in VARIABLES
    ]
    assert len(listed) == len({name for name, _ in listed})
    assert {name for name, _ in listed} == VARIABLES
    for name, default in examples().items():
        said = dict(listed)[name]
        assert (said == f"`{default}`") if default else said.startswith("unset"), name


def test_the_table_of_error_codes_is_that_of_the_adapter() -> None:
    names = {kind.__name__: kind for kind in REASONS}
    listed: dict[int, type] = {}
    for kind, word, _, codes in rows(ROOT / "docs" / "twilio.md", 4):
        if kind not in names:
            continue
        assert word == f"`{REASONS[names[kind]]}`"
        for number in codes.split():
            assert int(number) not in listed
            listed[int(number)] = names[kind]
    assert listed == dict(ERRORS)


def test_the_table_of_callbacks_is_that_of_the_adapter() -> None:
    listed: dict[str, str] = {}
    for words, status in rows(ROOT / "docs" / "twilio.md", 2):
        if all(word in STATUSES for word in words.split(", ")):
            listed |= dict.fromkeys(words.split(", "), status.split("`")[1])
    assert listed == {word: status.value for word, status in STATUSES.items()}


def test_every_line_of_the_log_that_is_explained_is_written() -> None:
    """Its fixed words stand in the code: what a line is made of at run time is left out."""
    section = (ROOT / "docs" / "operations.md").read_text().partition("## The log")[2]
    explained = [line for line in section.partition("\n## ")[0].splitlines() if line[:3] == "| `"]
    assert len(explained) > 30
    written = " ".join(
        re.sub(r'"\s+f?"', "", path.read_text())
        for package in ("gateway", "webhooks", "providers")
        for path in (ROOT / package).rglob("*.py")
    )
    for line in explained:
        first, *more = SPAN.findall(line.split(" | ")[0])
        for said in (first, *(text for text in more if " " in text)):
            words = re.split(
                r"…|twilio|media|/\w+\.json|\b(?:POST /|(?:att|med)_)\S*|\w+ by\b|[=()`]", said
            )
            for fixed in words:
                assert OURS.get(said, fixed.strip(" :/")) in written, said


def test_every_status_is_explained() -> None:
    table = [cells[0] for cells in rows(ROOT / "README.md", 2)]
    explained = {word for cell in table for word in SPAN.findall(cell)}
    assert {status.value for status in Status} <= explained


def test_pictures_are_whole() -> None:
    for path in (ROOT / "docs").glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    for path in (ROOT / "docs").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@every_document
def test_nothing_is_left_to_do_and_nobody_s_machine_is_named(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b(?:TODO|FIXME|XXX)\b", text)
    assert not re.search(r"(?<!\w)/(?:tmp|root|home|work)/", text)
