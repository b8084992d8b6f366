"""The disk is full, below the database and below the spool: refused, spooled, and never lost.

| full | messages | webhooks |
|---|---|---|
| below the database | 503; nothing goes to the wire | spooled, 2xx; stored once there is room |
| below the spool, too | 503 | 503: the vendor repeats, if it was told to |
| while a message is being sent | the vendor's answer is kept, and stored once there is room | |

Once there is room everything goes on, without a restart. A limit on the size of files stands for a
full disk wherever the tests run; where they may mount one, it is a real one.
"""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest
import requests

from tests.databases import sqlite_copy
from tests.running import (
    Client,
    Process,
    eventually,
    free_port,
    inbound_form,
    sid,
    twilio,
    variables,
)
from tests.vendors import LoopbackVendor, Request

SPOOL = 64 * 1024  # what its first file takes at the start
LARGE = "x" * 20_000


class Disk(Protocol):
    """Where a gateway's data lies."""

    folder: Path

    def fill(self, process: Process) -> None:
        """The database has no room any more; the spool has what it took beforehand."""

    def fill_all(self, process: Process) -> None:
        """Nobody has."""

    def free(self, process: Process) -> None:
        """There is room again."""


@dataclass
class Limit:
    """A limit on the size of every file of the process: needs no rights. What goes beyond it fails
    with EFBIG, as Python ignores SIGXFSZ."""

    folder: Path

    def fill(self, process: Process) -> None:
        self._limit(process, SPOOL + 4096)

    def fill_all(self, process: Process) -> None:
        self._limit(process, 16)

    def free(self, process: Process) -> None:
        self._limit(process, resource.RLIM_INFINITY)

    def _limit(self, process: Process, most: int) -> None:
        assert process.process is not None
        pid = process.process.pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, hard))


@dataclass
class Mounted:
    """A small file system in memory."""

    folder: Path

    def fill(self, _: Process) -> None:
        with (self.folder / "ballast").open("ab", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(4096))

    fill_all = fill

    def free(self, _: Process) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)


def mount(folder: Path) -> bool:
    """Whether a file system could be mounted there."""
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, timeout=10).returncode == 0
    except OSError:
        return False


def unmount(folder: Path) -> None:
    """Ends it, whoever still looks into it."""
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, timeout=10, check=True)


def kinds() -> list[str]:
    """The disks that there may be here."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() != 0 or not mount(Path(folder)):
            return ["limit"]
        unmount(Path(folder))
    return ["limit", "mounted"]


@pytest.fixture(params=kinds())
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """An empty disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limit":
        yield Limit(folder)
        return
    assert mount(folder)
    yield Mounted(folder)
    unmount(folder)


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Somebody who reads, so that SQLite's log goes on and does not begin anew: in what a log has
    already there is room on a full disk, too."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        yield


@pytest.fixture
def process(
    disk: Disk, sqlite_file: Path, tmp_path: Path, vendor: LoopbackVendor
) -> Iterator[Process]:
    """`gateway serve` with database and spool on that disk."""
    own = {"SPOOL_MAX_BYTES": str(SPOOL), "WORKER_POLL": "50ms"}
    url = sqlite_copy(sqlite_file, disk.folder)
    made = Process(
        variables(disk.folder, url, **twilio(vendor.url), **own), free_port(), tmp_path / "log"
    )
    made.start()
    with reading(url):
        yield made
    assert made.process is not None
    if made.process.poll() is None:
        made.kill()


def ask(client: Client, number: int) -> requests.Response:
    """Asks for a message, as often as it takes, with the same key."""
    wanted = {"to": f"+1555010{number:04d}", "body": f"hello {number}"}
    return client.call(
        "POST", "/api/messages", json=wanted, headers={"Idempotency-Key": f"k{number}"}
    )


def post(client: Client, number: int) -> int:
    """Somebody writes a long message; the status of the answer."""
    form = inbound_form(sid(number), f"said {number}", Note=LARGE)
    return client.webhook("/api/webhooks/sms", form).status_code


def said(client: Client) -> list[str]:
    """What is known to have been said, oldest first."""
    found = client.get("/api/messages", direction="inbound", limit=100)["items"]
    return [message["body"] for message in found][::-1]


def sent(vendor: LoopbackVendor, number: int) -> int:
    """The vendor's count."""
    return sum(request.field("Body") == f"hello {number}" for request in vendor.requests)


def test_a_full_disk_refuses_loses_nothing_and_goes_on_once_there_is_room(
    disk: Disk, process: Process, vendor: LoopbackVendor
) -> None:
    client = process.client
    for number in range(8):  # what the database has written outgrows the spool
        client.until(ask(client, number).json()["id"], "accepted")
        assert post(client, number) == 200
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    waits = client.send(to="+15550109999", body="hello 99", send_at=soon)

    disk.fill(process)
    refused = ask(client, 100)
    assert refused.status_code == 503, refused.text
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert not any(looked(client) for _ in range(20))  # though claims of nothing succeed meanwhile
    codes = [post(client, number) for number in range(8, 10)]
    assert codes == [200] * 2
    disk.fill_all(process)
    codes += [post(client, number) for number in range(10, 13)]
    assert 503 in codes
    assert set(codes) == {200, 503}
    assert sent(vendor, 99) == 0  # nothing was on the wire that could not be written down

    disk.free(process)
    eventually(lambda: ready(client), "ready")
    eventually(lambda: post(client, 13) == 200, "a webhook that is taken")
    assert client.until(ask(client, 100).json()["id"], "accepted")
    assert client.until(waits["id"], "accepted")
    assert [sent(vendor, number) for number in (*range(8), 99, 100)] == [1] * 10
    taken = [f"said {n}" for n, code in enumerate([200] * 8 + codes) if code == 200] + ["said 13"]
    eventually(lambda: set(taken) <= set(said(client)), "all that was taken")
    found = said(client)
    assert [text for text in found if text in taken] == taken
    assert len(set(found)) == len(found)
    assert process.terminate() == 0


def looked(client: Client) -> bool:
    """Whether it is ready, a moment later."""
    time.sleep(0.05)
    return client.stranger().call("GET", "/health/ready").ok


def ready(client: Client) -> bool:
    """Whether it takes what comes, and holds nothing back."""
    answer = client.stranger().call("GET", "/health/ready")
    return answer.ok and not answer.json()["spool"]["webhooks"]


def test_an_answer_that_finds_the_disk_full_is_stored_once_there_is_room(
    disk: Disk, process: Process, vendor: LoopbackVendor
) -> None:
    client = process.client

    def full(_: Request) -> None:
        disk.fill(process)

    for number in range(8):
        client.until(ask(client, number).json()["id"], "accepted")
    vendor.witness = full
    id_ = ask(client, 8).json()["id"]
    eventually(lambda: "cannot store the outcome" in process.log.read_text(), "a full disk", 30)
    disk.free(process)
    assert client.until(id_, "accepted")["provider_message_id"]
    assert sent(vendor, 8) == 1
    assert process.terminate() == 0
