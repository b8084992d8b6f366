"""The access log: method, route, status and time of each request. Never the URL: it may hold
addresses and ids."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("gateway.access")


class Access:
    """Logs at DEBUG; what failed here at INFO, beside what the log says of why."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on as it is."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception:
            status = status or 500
            raise
        finally:
            level = logging.INFO if status >= 500 else logging.DEBUG
            if log.isEnabledFor(level):
                took = (time.perf_counter() - started) * 1000
                route = getattr(scope.get("route"), "path", "(no route)")
                log.log(level, "%s %s %s %.1f ms", scope["method"], route, status or "gone", took)
