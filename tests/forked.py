"""Processes of the gateway that start with everything imported: `python -m tests.forked SOCKET`.

A process without threads forks for each, so that a start costs none of the seconds that imports
take. What is forked is a child of the test as any other: it has its own environment, folder and
files, and is signalled and waited for. Where that cannot be (not on Linux), Python starts as ever.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import random
import runpy
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "gateway.cli",
    "gateway.commands.tree",
    "gateway.app",
    "gateway.asgi",
    "gateway.catalog",
    "gateway.store.database",
    "alembic.command",
    "boto3",
    "psycopg",
    "sqlmodel",
    "twilio.rest",
    "uvicorn",
)
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER in linux/prctl.h
LENGTH = struct.Struct("!I")
PATIENCE = 60.0


def start(
    argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], **how: Any
) -> subprocess.Popen[Any]:
    """Starts Python with `-m` or `-c` and arguments."""
    kind = subprocess.Popen if "LD_PRELOAD" in env or not _adopts() else Forked
    return kind([sys.executable, *argv], cwd=cwd, env=dict(env), **how)


class Forked(subprocess.Popen[Any]):
    """A process that is forked instead of executed."""

    def _execute_child(self, args: Sequence[str], *rest: Any) -> None:
        cwd, env, pipes = rest[4], rest[5], rest[9:15]  # their order is that of CPython since 3.7
        given = [
            own if number == -1 else number
            for own, number in enumerate((pipes[0], pipes[3], pipes[5]))
        ]
        self.pid = _origin().fork({"argv": args[1:], "cwd": str(cwd), "env": env}, given)
        self._child_created = True
        self._close_pipe_fds(*pipes)


class Origin:
    """The process that forks."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.forked", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        self._socket = ours
        ours.settimeout(PATIENCE)

    def fork(self, wanted: Mapping[str, Any], files: Sequence[int]) -> int:
        """The id of a new process, which is a child of this one."""
        said = json.dumps(wanted).encode()
        socket.send_fds(self._socket, [LENGTH.pack(len(said))], list(files))
        self._socket.sendall(said)
        (pid,) = LENGTH.unpack(_exactly(self._socket, LENGTH.size))
        return int(pid)

    def end(self) -> None:
        """Ends it, not what it forked."""
        self._socket.close()
        self._process.wait(PATIENCE)


@cache
def _origin() -> Origin:
    origin = Origin()
    atexit.register(origin.end)
    return origin


@cache
def _adopts() -> bool:
    """Whether orphans below this process become its children, which Linux can be asked for."""
    if not sys.platform.startswith("linux"):
        return False
    return ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0) == 0


def _exactly(connection: socket.socket, length: int) -> bytes:
    got = b""
    while len(got) < length:
        if not (more := connection.recv(length - len(got))):
            raise EOFError
        got += more
    return got


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Forks for whatever is asked for. Returns in the new processes only: what one is to do."""
    while True:
        head, files, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
        if not head:
            sys.exit()
        wanted = json.loads(_exactly(connection, LENGTH.unpack(head)[0]))
        read, write = os.pipe()
        if (between := os.fork()) == 0:
            if (pid := os.fork()) == 0:
                os.close(read)
                os.close(write)
                connection.close()
                return {**wanted, "files": files}
            os.write(write, LENGTH.pack(pid))
            os._exit(0)
        os.close(write)
        os.waitpid(between, 0)  # from here on the test is the parent of what was forked
        connection.sendall(os.read(read, LENGTH.size))
        for number in (read, *files):
            os.close(number)


def _become(wanted: Mapping[str, Any]) -> None:
    """Does what Python does with its arguments."""
    for own, given in enumerate(wanted["files"]):
        os.dup2(given, own)
        os.close(given)
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    random.seed()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, write_through=True)
    how, what, *arguments = wanted["argv"]
    sys.argv = ["-c" if how == "-c" else what, *arguments]
    if how == "-m":
        sys.modules.pop(what, None)  # it is run anew, as the main one
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})


def main() -> None:
    """Imports everything, and forks until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the tests' Ctrl+C ends the tests, which end this
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    wanted = _serve(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _become(wanted)


if __name__ == "__main__":
    main()
