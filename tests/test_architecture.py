"""The house is built as it was drawn: who may import whom, and what stands where.

Every file of the three packages is looked at, so a new one is covered without being listed.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.catalog import CATALOG

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "providers", "webhooks")
ROOTS = (
    "gateway.catalog",
    "gateway.app",
    "gateway.asgi",
    "gateway.adapters",
    "gateway.settings",
    "gateway.cli",
    "gateway.commands",
)
COMPOSING = ("gateway.catalog", "gateway.app", "gateway.asgi", "gateway.adapters")
WEB = ("gateway.api", "gateway.web", "gateway.asgi", "webhooks.endpoint")
STORE_MAY = (
    "gateway.breaker",
    "gateway.domain",
    "gateway.errors",
    "gateway.clock",
    "gateway.money",
    "gateway.opt_outs",
    "gateway.quotas",
    "gateway.recipients",
    "gateway.routing",
    "gateway.status",
    "gateway.views",
    "gateway.windows",
    "gateway.words",
    "gateway.store",
)
SDKS = ("twilio", "boto3", "botocore", "aiosmtplib", "sendgrid")
DATABASES = ("sqlalchemy", "sqlmodel", "alembic", "sqlite3", "psycopg")
# A header that begins with X- is a fact of mail, whoever made it up.
VENDOR = re.compile(
    r"(?<![a-z])(?<!x-)(twilio|sendgrid|boto\d?|botocore|sns|ses)(?![a-z])", re.IGNORECASE
)
TIME_OF_DAY = {
    ("time", "time"), ("time", "time_ns"), ("time", "localtime"), ("time", "ctime"),
    ("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today"),
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """A module that a module imports; `early`: when it is itself imported."""

    module: str
    early: bool


@dataclass(frozen=True)
class Module:
    """One file."""

    name: str
    path: Path
    tree: ast.Module

    def within(self, *names: str) -> bool:
        """Whether it is one of these modules, or inside one of them."""
        return any(inside(self.name, name) for name in names)

    @property
    def imports(self) -> set[Import]:
        """Everything that it imports."""
        return set(_imports(self.tree, early=True))


def inside(module: str, package: str) -> bool:
    """Whether a module is this one or below it."""
    return module == package or module.startswith(f"{package}.")


def _imports(node: ast.AST, *, early: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        late = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            late = True
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, early) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, "imports are absolute"
            yield Import(str(child.module), early)
            yield from (Import(f"{child.module}.{a.name}", early) for a in child.names)
        else:
            yield from _imports(child, early=early and not late)


def modules() -> list[Module]:
    """Every file of the product."""
    found = []
    for path in sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Module(name, path, ast.parse(path.read_text())))
    return found


ALL = modules()
CORE = [m for m in ALL if m.within("gateway") and not m.within(*ROOTS)]
ADAPTERS = [m for m in ALL if m.within("providers", "webhooks") and m.name != "webhooks.endpoint"]
NAMES = {m.name for m in ALL}


def of(found: list[Module]) -> pytest.MarkDecorator:
    """Runs a test on each of these files."""
    return pytest.mark.parametrize("module", found, ids=lambda module: module.name)


def ours(module: Module) -> set[str]:
    """The modules of ours that a module imports; a name within one counts as the module."""
    found = {
        i.module
        for i in module.imports
        if inside(i.module, PACKAGES[0])
        or inside(i.module, PACKAGES[1])
        or inside(i.module, PACKAGES[2])
    }
    return {name if name in NAMES else name.rpartition(".")[0] for name in found} - {"gateway"}


def foreign(module: Module, *packages: str) -> set[str]:
    """Which of these packages a module imports."""
    return {p for p in packages for i in module.imports if inside(i.module, p)}


def test_there_is_something_to_look_at() -> None:
    assert {"gateway.worker", "gateway.store.batcher", "providers.twilio"} <= NAMES
    assert "gateway.domain" in ours(next(m for m in ALL if m.name == "gateway.worker"))


@of([m for m in ALL if m.name in ("gateway.domain", "gateway.errors")])
def test_words_and_errors_import_the_standard_library_and_errors_the_words(module: Module) -> None:
    ours_too = {"gateway.domain"} if module.name == "gateway.errors" else set()
    for imported in module.imports:
        root = imported.module.partition(".")[0]
        assert root in sys.stdlib_module_names or ours(module) <= ours_too, imported.module
    assert ours(module) <= ours_too


@of([m for m in ALL if m.name == "gateway.client"])
def test_the_client_stands_on_nothing_of_ours(module: Module) -> None:
    assert not ours(module)
    roots = {i.module.partition(".")[0] for i in module.imports}
    assert roots - sys.stdlib_module_names == {"requests"}


@of([m for m in ALL if not m.within("gateway.commands")])
def test_only_commands_use_the_client(module: Module) -> None:
    assert "gateway.client" not in ours(module)


@of(ADAPTERS)
def test_an_adapter_knows_the_words_the_errors_and_its_own_helpers(module: Module) -> None:
    package = module.name.partition(".")[0]
    for name in ours(module) - {"gateway.domain", "gateway.errors", package}:
        assert name.startswith(f"{package}._"), f"{module.name} imports {name}"
        others = {entry.name for entry in CATALOG} - {module.name.rpartition(".")[2]}
        mine = module.name.rpartition(".")[2].lstrip("_")
        for other in others:
            if not mine.startswith(other):
                helper = name.rpartition(".")[2].lstrip("_")
                assert not helper.startswith(other), f"{module.name} imports {name}"
    assert not foreign(module, "starlette", *DATABASES)


@of([m for m in ALL if m.within(*PACKAGES)])
def test_no_vendor_library_is_loaded_before_it_is_needed(module: Module) -> None:
    early = {i.module for i in module.imports if i.early}
    assert not [name for name in early for sdk in SDKS if inside(name, sdk)]


@of(CORE)
def test_the_core_knows_no_adapter_and_not_the_catalogue(module: Module) -> None:
    known = {n for n in ours(module) if not inside(n, "gateway") or n in COMPOSING}
    assert not known, f"{module.name} imports {known}"
    assert not foreign(module, *SDKS)


@of(CORE)
def test_the_core_names_no_vendor(module: Module) -> None:
    text = module.path.read_text()
    named = [f"line {text[: m.start()].count(chr(10)) + 1}: {m[0]}" for m in VENDOR.finditer(text)]
    assert not named


@of([m for m in ALL if m.within("gateway.store")])
def test_the_store_stands_on_the_words_only(module: Module) -> None:
    assert not [n for n in ours(module) if not any(inside(n, name) for name in STORE_MAY)]


@of([m for m in ALL if not m.within(*WEB, "gateway.commands")])
def test_the_web_framework_stays_at_the_door(module: Module) -> None:
    assert not foreign(module, "starlette", "uvicorn")
    if not module.within(*ROOTS):
        assert not [n for n in ours(module) if inside(n, "gateway.api")]


@of([m for m in ALL if not m.within("gateway.store", *ROOTS)])
def test_only_the_store_speaks_to_a_database(module: Module) -> None:
    assert not foreign(module, *DATABASES)


@of([m for m in ALL if m.name != "gateway.settings"])
def test_only_the_settings_read_the_environment(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("os", "environ"), ("os", "getenv")}
    assert not foreign(module, "dotenv", "os.environ", "os.getenv")


def times_of_day(node: ast.AST, function: str = "") -> Iterator[str]:
    """The functions in which the time of day is asked for."""
    for child in ast.iter_child_nodes(node):
        name = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else ""
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name):
            asked = (child.value.id, child.attr) in TIME_OF_DAY
            yield from [function] * asked
        yield from times_of_day(child, name or function)


@of([m for m in ALL if m.name != "gateway.clock"])
def test_only_the_clock_knows_the_time_of_day(module: Module) -> None:
    # An adapter that plays its vendor, to sign what is simulated, has that vendor's clock.
    playing = {"sign", "request"} if module.within("webhooks") else set()
    assert set(times_of_day(module.tree)) <= playing
    assert not foreign(module, "time.time", "time.time_ns")


@of([m for m in ALL if m.name in PACKAGES])
def test_a_package_imports_nothing_by_itself(module: Module) -> None:
    assert not module.imports


@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.name)
def test_one_search_finds_a_vendor_whole(entry: object) -> None:
    name = entry.name  # type: ignore[attr-defined]
    sides = {"providers": ("provider", "outbound"), "webhooks": ("webhook", "inbound")}
    for package, (side, cases) in sides.items():
        kind = getattr(entry, side)
        file, folder = ROOT / package / f"{name}.py", ROOT / "tests" / "cases" / name / cases
        if kind is None:
            assert not file.exists(), f"{file} is in no line of the catalogue"
            continue
        assert kind.__module__ == f"{package}.{name}"
        assert kind.name == name
        assert file.exists(), f"{file} is missing"
        assert any(folder.glob("*")), f"{folder} is missing or empty"


def test_what_is_in_no_line_of_the_catalogue_does_not_exist() -> None:
    known = {entry.name for entry in CATALOG}
    for package in ("providers", "webhooks"):
        files = {p.stem for p in (ROOT / package).glob("[!_]*.py")} - {"endpoint"}
        assert files <= known, f"{package}: {files - known} are not in the catalogue"
    cases = {p.name for p in (ROOT / "tests" / "cases").iterdir() if p.is_dir()}
    assert cases <= known, f"cases of {cases - known}, which are not in the catalogue"
