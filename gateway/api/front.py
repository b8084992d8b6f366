"""The front of the application: the busiest routes without the router, and the access log.

A path that has no parameters is found in a table; everything else goes to the framework's router.
The log has method, route, status and time of each request, and never the URL: it may hold
addresses and ids.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.problems import Problem

log = logging.getLogger("gateway.access")

Exact = Mapping[tuple[str, str], ASGIApp]  # by method and path
BEGINS = ("http.response.start", "websocket.http.response.start", "websocket.accept")
UPGRADED = 101
Observe = Callable[[str, str, int, float], None]  # method, route, status, seconds


class Front:
    """Passes each request to the application that answers it."""

    def __init__(self, app: ASGIApp, exact: Exact, observe: Observe) -> None:
        self._app = app
        self._exact = exact
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. What failed here is logged at INFO, the rest at DEBUG.

        `observe` hears of it when its answer begins, however long a client then reads it; or at
        the end, with status 0, where nobody waited for an answer.
        """
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        found = None
        if scope["type"] == "http":
            found = self._exact.get((scope["method"], scope["path"]))
        started, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] in BEGINS and not status:
                status = message.get("status") or UPGRADED
                self._tell(scope, found is not None, status, time.perf_counter() - started)
            await send(message)

        try:
            if found is None:
                await self._app(scope, receive, noted)
            else:
                await found(scope, receive, noted)
        except Exception:
            if found is not None and not status:
                failed = Problem(500, "Something went wrong here; the log knows more.")
                await failed.response()(scope, receive, noted)
            status = status or 500
            raise
        finally:
            if not status:
                self._tell(scope, found is not None, 0, time.perf_counter() - started)
            level = logging.INFO if status >= 500 else logging.DEBUG
            if log.isEnabledFor(level):
                took = (time.perf_counter() - started) * 1000
                route = _route(scope, found is not None)
                log.log(level, "%s %s %s %.1f ms", _method(scope), route, status or "gone", took)

    def _tell(self, scope: Scope, exact: bool, status: int, seconds: float) -> None:
        self._observe(_method(scope), _route(scope, exact), status, seconds)


def _method(scope: Scope) -> str:
    """The request's method; only a GET becomes a WebSocket."""
    return str(scope.get("method", "GET"))


def _route(scope: Scope, exact: bool) -> str:
    """The route's path with its parameters' names, which is the path itself where it has none."""
    return str(scope["path"] if exact else getattr(scope.get("route"), "path", "(no route)"))
