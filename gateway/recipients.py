"""Whom a stored message goes to beside the person that it is to: those who get a copy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.domain import Channel

COPIES = ("cc", "bcc")


def copies(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The addresses of a message's copies; nothing is read of what has none."""
    extra = row["extra"] if row["channel"] == Channel.EMAIL else None
    if not extra or not any(f'"{name}"' in extra for name in COPIES):
        return ()
    parts = json.loads(extra).get("email", {})
    return tuple(address for name in COPIES for address in parts.get(name, ()))


def count(row: Mapping[str, Any]) -> int:
    """How many people a message is written to, as vendors count them."""
    return 1 + len(copies(row))
