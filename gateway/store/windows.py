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
    bound = {item.row["id"]: item for item in items if item.window}
    if not bound:
        return {}
    places = {id_: _places(item) for id_, item in bound.items()}
    known = conversations.standing(tx, [key for keys in places.values() for key in keys])
    refused: dict[str, WindowClosed] = {}
    for id_, item in bound.items():
        heard = [known[key]["last_inbound_at"] for key in places[id_] if key in known]
        last = max((at for at in heard if at is not None), default=None)
        until = windows.expires(item.window, last)
        if until is None or until <= max(tx.now, item.row["send_at"] or 0):
            refused[id_] = WindowClosed(Channel(item.row["channel"]), until)
    return refused


def _places(item: NewMessage) -> list[Key]:
    """Where the person's words to this number of ours may stand: under the number as well, where
    it is a pool's."""
    want, ours = item.wanted, item.row["from_address"]
    places = want.places()
    if ours is not None and ours not in want.our_keys:
        places.append((want.tenant_id, want.channel, ours, want.address))
    return places
