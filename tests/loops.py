"""The event loop of the tests: the product's, which by itself looks names up and connects without
asking Python's `socket`. Here it asks, so that whoever guards that module, or plays a resolver in
it, guards the loop as well."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvloop

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Loop(uvloop.Loop):
    """uvloop's, with names and connections by way of `socket`."""

    async def getaddrinfo(self, host: Any, port: Any, **named: int) -> Any:
        """What `socket` answers."""
        kinds = (named.get(name, 0) for name in ("family", "type", "proto", "flags"))
        return await self.run_in_executor(None, socket.getaddrinfo, host, port, *kinds)

    async def create_connection(  # type: ignore[override]
        self, made: Any, host: Any = None, port: Any = None, **named: Any
    ) -> Any:
        """A connection to this machine, and to none else."""
        if host is not None and host not in LOOPBACK:
            raise AssertionError(f"a test may not connect to {host}")
        return await super().create_connection(made, host, port, **named)


def new_loop() -> asyncio.AbstractEventLoop:
    """One for a runner."""
    return Loop()
