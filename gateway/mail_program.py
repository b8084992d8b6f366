"""Runs the program that reads an email, apart; ends it where it takes too long or says too much.

It gets nothing of ours but the email: no environment, no open file. What it says is believed as
little as the email.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.domain import Mail
from gateway.errors import GatewayError

AT_ONCE = 2
SECONDS = 5.0
LARGER = 4  # than the email: a character of one byte may become three, and stand there twice
TOO_MUCH = 1000  # no exit code of a process
LINE = 16 * 1024 * 1024  # bytes of what it says beside the files


class NotRead(GatewayError):
    """An email could not be read this time."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a program said of an email, and the bytes of the files one after the other."""

    facts: dict[str, Any]
    files: memoryview


class Programs:
    """Reads emails, a few at a time."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gateway-mail")
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    async def read(self, mail: Mail) -> Said:
        """What an email says.

        Raises:
            NotRead: its program was ended, or failed.
        """
        loop = asyncio.get_running_loop()
        code, made = await loop.run_in_executor(self._threads, self._run, mail)
        if code == TOO_MUCH:
            raise NotRead("killed: it said too much")
        if code != 0:
            raise NotRead("killed: it took too long" if code < 0 else f"failed with {code}")
        line, _, rest = made.partition(b"\n")
        try:
            facts = _storable(json.loads(line))
        except (ValueError, RecursionError):
            facts = None
        if not isinstance(facts, dict):
            raise NotRead("said nothing that can be read")
        return Said(facts, memoryview(rest))

    def _run(self, mail: Mail) -> tuple[int, bytes]:
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        command = (sys.executable, "-I", str(mail.program))
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=null, env={}) as child:  # noqa: S603 - ours
            self._running.add(child)
            end = threading.Timer(self._seconds, child.kill)
            end.start()
            try:
                if self._closed:
                    child.kill()
                return self._spoken(child, mail)
            finally:
                child.kill()
                end.cancel()
                self._running.discard(child)

    def _spoken(self, child: subprocess.Popen[bytes], mail: Mail) -> tuple[int, bytes]:
        told, said = child.stdin, child.stdout
        assert told is not None
        assert said is not None
        with suppress(BrokenPipeError):  # it has ended already, and says so by its code
            told.write(json.dumps(dict(mail.order)).encode() + b"\n")
            told.write(mail.data)
        with suppress(BrokenPipeError):
            told.close()
        most = LARGER * len(mail.data) + LINE
        made = said.read(most + 1)
        if len(made) > most:
            return TOO_MUCH, b""
        return child.wait(), made

    def close(self) -> None:
        """Ends what is being read."""
        self._closed = True
        for child in list(self._running):
            with suppress(ProcessLookupError):
                child.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _storable(value: Any) -> Any:
    """Text as databases and JSON take it: without NUL and lone surrogates."""
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_storable(each) for each in value]
    if isinstance(value, dict):
        return {_storable(name): _storable(each) for name, each in value.items()}
    return value
