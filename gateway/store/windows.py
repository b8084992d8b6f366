"""Which messages come to a closed window, asked in the transaction that would store them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway import windows
from gateway.domain import Channel
from gateway.store import conversations
from gateway.store.conversations import Key
from gateway.store.tx import Tx
from gateway.windows import WindowClosed

if TYPE_CHECKING:
    from gateway.store.accepts import NewMessage


def closed(tx: Tx, items: Sequence[NewMessage]) -> dict[str, WindowClosed]:
    """Those that are refused, by the message's id. What is sent later has to be in the window
    then. Where no message is held to a window, that is no look at all."""
    bound = [item for item in items if item.window]
    if not bound:
        return {}
    last = heard(tx, bound)
    found = {item.row["id"]: refusal(item, last.get(item.row["id"]), tx.now) for item in bound}
    return {id_: error for id_, error in found.items() if error is not None}


def heard(tx: Tx, items: Sequence[NewMessage]) -> dict[str, int]:
    """When the people of messages wrote last, where they did, by the message's id."""
    asked = {item.row["id"]: places(item) for item in items}
    known = conversations.standing(tx, [key for keys in asked.values() for key in keys])
    last: dict[str, int] = {}
    for id_, keys in asked.items():
        times = [known[key]["last_inbound_at"] for key in keys if key in known]
        if wrote := [at for at in times if at is not None]:
            last[id_] = max(wrote)
    return last


def refusal(item: NewMessage, last: int | None, now: int) -> WindowClosed | None:
    """Why a message is refused, whose person wrote last at that time."""
    until = windows.expires(item.window, last)
    if not item.window or (until is not None and until > max(now, item.row["send_at"] or 0)):
        return None
    return WindowClosed(Channel(item.row["channel"]), until)


def places(item: NewMessage) -> list[Key]:
    """Where the person's words to this number of ours may stand: under the number as well, where
    it is a pool's. Who wrote to one number has not written to another."""
    want, ours = item.wanted, item.row["from_address"]
    found = [] if item.apart else want.places()
    if ours is not None and (item.apart or ours not in want.our_keys):
        found.append((want.tenant_id, want.channel, ours, want.address))
    return found
