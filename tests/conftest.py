"""What every test has: anyio on asyncio, and no network beyond this machine."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from gateway.store.database import Database
from tests.databases import Postgres, Wire, postgres_server, sqlite_copy, sqlite_template
from tests.families import AwsTopics
from tests.loops import LOOPBACK, new_loop
from tests.outbound_cases import entry_of
from tests.running import Client, in_thread, twilio, variables
from tests.stored import Store
from tests.vendors import LoopbackVendor

# Requests collected from public sources, beside the repository; where they are absent, the tests
# that run them are too.
COLLECTED = Path(__file__).parents[2] / "shared" / "wire" / "fixtures"
collect_ignore_glob = [] if COLLECTED.is_dir() else ["test_shared_*"]


def pytest_collection_finish() -> None:
    """Thousands of tests stay to the end: the collector need not look at each of them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """The event loop of asynchronous tests is that of the product."""
    return "asyncio", {"loop_factory": new_loop}


@pytest.fixture(autouse=True, scope="session")
def models_are_read_once() -> Iterator[None]:
    """AWS's models are large, and each test of an adapter has clients of its own."""
    from botocore.loaders import JSONFileLoader  # type: ignore[import-untyped]

    once = cache(partial(JSONFileLoader.load_file, JSONFileLoader()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda _, path: once(path))
        yield


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses connections to anything but this machine."""

    def guarded(real: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
                raise AssertionError(f"a test may not connect to {address[0]}")
            return real(self, address)

        return connect

    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))


@pytest.fixture(autouse=True)
def no_look_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knows no name but this machine's, as a resolver without a network would."""
    look_up = socket.getaddrinfo

    def guarded(host: Any, *rest: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name is not None and name not in LOOPBACK | {"0.0.0.0", "::"}:
            raise socket.gaierror(socket.EAI_NONAME, f"a test may not look up {name}")
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", guarded)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One real PostgreSQL for all tests."""
    folder = Path(mkdtemp(prefix="gateway-pg-"))  # short: its socket's path is bounded
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    with postgres_server(folder) as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to be copied."""
    return sqlite_template(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    """Every test that asks for a database runs on both."""
    return str(request.param)


@pytest.fixture
def url(dialect: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database of this test's own."""
    if dialect == "sqlite":
        yield sqlite_copy(request.getfixturevalue("sqlite_file"), tmp_path)
        return
    server = request.getfixturevalue("postgres")
    made = server.migrated()
    yield made
    server.give_back(made)


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A migrated PostgreSQL database of this test's own."""
    made = postgres.migrated()
    yield made
    postgres.give_back(made)


@pytest.fixture
def sqlite_url(sqlite_file: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test's own."""
    return sqlite_copy(sqlite_file, tmp_path)


@pytest.fixture
def wire(postgres: Postgres) -> Iterator[Wire]:
    """A wire to PostgreSQL that can be cut."""
    made = Wire(postgres)
    yield made
    made.close()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A migrated database of this test's own, on each engine in turn."""
    database = Database(url)
    yield Store(database)
    database.close()


@pytest.fixture
def vendor() -> Iterator[LoopbackVendor]:
    """A vendor on loopback, which says yes as Twilio does."""
    with LoopbackVendor() as made:
        yield made


@pytest.fixture
def client(url: str, tmp_path: Path, vendor: LoopbackVendor) -> Iterator[Client]:
    """A gateway that sends through Twilio, and fetches from it."""
    with in_thread(variables(tmp_path, url, **twilio(vendor.url))) as made:
        yield made


@pytest.fixture
def idle(url: str, tmp_path: Path, vendor: LoopbackVendor) -> Iterator[Client]:
    """The same without a worker: what is accepted stays queued."""
    with in_thread(variables(tmp_path, url, **twilio(vendor.url)), working=False) as made:
        yield made


@pytest.fixture
def amazon() -> Iterator[LoopbackVendor]:
    """Amazon SES, as far as it takes emails."""
    with LoopbackVendor(answer=entry_of("aws_ses").data["answer"]) as made:
        yield made


@pytest.fixture
def topics(amazon: LoopbackVendor) -> AwsTopics:
    """The topics by which it tells of them."""
    return AwsTopics(amazon)
