"""The command line as a person uses it: real processes in a folder of their own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests import forked
from tests.running import Client, eventually

GATEWAY = ("-m", "gateway.cli")
PATIENCE = 30.0
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "PYTHONPATH",
    "PYTHONPYCACHEPREFIX",
    "PYTHONDONTWRITEBYTECODE",
)


@dataclass
class Done:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    def field(self, name: str) -> str:
        """The value beside a name in two columns."""
        found = [line for line in self.out.splitlines() if line.startswith(name + " ")]
        return found[0].removeprefix(name).strip()


@dataclass
class Desk:
    """A folder to work in, with the variables of one's shell."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return {**kept, "PYTHONUNBUFFERED": "1", **self.variables, **more}

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return forked.start(
            [*GATEWAY, *arguments],
            cwd=self.folder,
            env=self.environment(**more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, said: str = "", **more: str) -> Done:
        process = self.start(*arguments, **more)
        out, err = process.communicate(said, timeout=PATIENCE)
        return Done(process.returncode, out, err)


@dataclass
class Running:
    """A command that runs on, and what it has said so far."""

    desk: Desk
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        for stream, lines in (
            (self.process.stdout, self.lines),
            (self.process.stderr, self.errors),
        ):
            self.threads.append(threading.Thread(target=lines.extend, args=(stream,), daemon=True))
            self.threads[-1].start()

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def wait_for(self, text: str) -> str:
        """Waits until it says something; the line."""

        def look() -> str | None:
            assert self.process.poll() is None, "".join([*self.lines, *self.errors])
            return next((line for line in list(self.lines) if text in line), None)

        return eventually(look, text, PATIENCE) or ""

    def after(self, name: str) -> str:
        """What stands beside a name in what it said first."""
        return self.wait_for(f"  {name} ").split(name, 1)[1].strip()

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self.close()
        return code

    def close(self) -> None:
        """Ends it if it has not ended, and reads all that it said."""
        if self.process.poll() is None:
            self.process.kill()
        for thread in self.threads:
            thread.join(PATIENCE)
        with self.process:
            pass


@dataclass
class Served(Running):
    """A gateway that serves."""

    @property
    def url(self) -> str:
        return self.after("page").rstrip("/")

    @property
    def curl(self) -> list[str]:
        """The words of the `curl` to be pasted."""
        self.wait_for("simulate chat")
        text = self.said
        start = text.index("curl ")
        return shlex.split(text[start : text.index("\n\n", start)].replace("\\\n", ""))

    @property
    def api(self) -> Client:
        return Client(self.url, (self.desk.folder / "data" / "development-key").read_text().strip())


@contextmanager
def serving(desk: Desk, *arguments: str, ready: str = "webhooks", **more: str) -> Iterator[Served]:
    """A gateway for the time of the block, on a free port."""
    served = Served(desk, desk.start("serve", "--port", "0", *arguments, **more))
    try:
        served.wait_for(ready)
        yield served
    finally:
        served.close()
