"""What is shown to a person beside messages: that we have read theirs, and that we are writing.

Told to the vendor in the background, once, and never repeated: nothing depends on it, so a failure
is logged and changes no answer. Never holds more than a bounded number.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from gateway.domain import Channel, MarksRead, Provider
from gateway.errors import ProviderError
from gateway.routing import CHATS, Route

log = logging.getLogger("gateway.gestures")

AT_ONCE = 64  # gestures under way; what comes then is left out, as it would come late
GRACE = 1.0  # seconds that a gesture may exceed the time of its adapter

Row = Mapping[str, Any]


class Gestures:
    """Tells vendors what we do with messages of theirs."""

    def __init__(
        self, providers: Mapping[str, Provider], routes: Mapping[str, Route], *, within: float
    ) -> None:
        self._providers = providers
        self._routes = routes
        self._within = within + GRACE
        self._tasks: set[asyncio.Task[None]] = set()

    def can(self, row: Row, *, typing: bool = False) -> bool:
        """Whether somebody can show it for an inbound message."""
        return self._who(row, typing=typing) is not None

    def show(self, row: Row, *, typing: bool = False) -> None:
        """Shows that an inbound message was read, or that its answer is being written."""
        name = self._who(row, typing=typing)
        if name is None:
            return
        if len(self._tasks) >= AT_ONCE:
            log.info("%s: too many at once, nothing is shown", row["id"])
            return
        task = asyncio.create_task(self._show(name, row, typing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Ends what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _who(self, row: Row, *, typing: bool) -> str | None:
        """The provider of the account by which a message came in."""
        channel = Channel(row["channel"])
        if row["direction"] != "inbound" or not row["provider_message_id"] or channel not in CHATS:
            return None
        for name, route in self._routes.items():
            can = route.capabilities
            able = can.shows_typing if typing else can.marks_read
            if able and channel in can.channels and route.connection.id == row["connection"]:
                return name
        return None

    async def _show(self, name: str, row: Row, typing: bool) -> None:
        provider = self._providers[name]
        assert isinstance(provider, MarksRead)
        try:
            async with asyncio.timeout(self._within):
                await provider.mark_read(
                    row["provider_message_id"], typing=typing, ours=row.get("to_address")
                )
        except ProviderError as error:
            log.info("%s: not shown by %s: %s (%s)", row["id"], name, error.reason, error.code)
        except TimeoutError:
            log.info("%s: not shown by %s in time", row["id"], name)
        except Exception as error:
            log.warning("%s: %s raised what it may not (%s)", row["id"], name, type(error).__name__)
