"""When a person may be written to freely: pure decisions over the windows of channels.

A window belongs to a number of ours and a person: it opens when they write. Times in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.domain import WINDOWS, Capabilities, Channel, MessageType
from gateway.errors import GatewayError

FREE = frozenset({MessageType.TEMPLATE, MessageType.REACTION})  # are said at any time


class WindowClosed(GatewayError):
    """A message that its person's network would refuse. `expired_at` is None where the person
    has never written."""

    def __init__(self, channel: Channel, expired_at: int | None) -> None:
        self.channel = channel
        self.expired_at = expired_at
        super().__init__(f"the window of {channel} is closed")


def length(channel: str) -> int:
    """How long a window of a channel is open; 0: it has none."""
    return WINDOWS.get(Channel(channel), 0) * 1000


def binding(
    channel: Channel, kind: MessageType, *, template: bool, able: Iterable[Capabilities]
) -> int:
    """The window that a message has to be in; 0: none. Where one of those that may send it has no
    windows, the message is not held to them."""
    if channel not in WINDOWS or template or kind in FREE:
        return 0
    return length(channel) if all(can.has_window for can in able) else 0


def expires(window: int, last_inbound_at: int | None) -> int | None:
    """Until when a window is, or was, open."""
    return last_inbound_at + window if window and last_inbound_at is not None else None
