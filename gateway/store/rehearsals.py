"""What the database knows of a message that nobody has stored: the window, and the opt-out."""

from __future__ import annotations

from dataclasses import dataclass

from gateway import windows as times
from gateway.opt_outs import State
from gateway.store import opt_out_edits, opt_outs, windows
from gateway.store.accepts import NewMessage
from gateway.store.tx import Tx
from gateway.windows import WindowClosed


@dataclass(frozen=True, slots=True)
class Known:
    """`refused` is what accepting it would raise; `expires_at` is None where there is no window,
    or nobody wrote. Times in milliseconds."""

    refused: WindowClosed | None
    expires_at: int | None
    state: State
    since: int | None


def known(tx: Tx, new: NewMessage, now: int) -> Known:
    """Looks, and writes nothing."""
    row = new.row
    person = (row["tenant_id"], row["channel"], row["to_address"])
    out = opt_outs.blocked(tx, opt_outs.people_of(row["tenant_id"], row))
    word = opt_out_edits.one(tx, *person)
    last = windows.heard(tx, [new]).get(row["id"])
    return Known(
        windows.refusal(new, last, now),
        times.expires(times.length(row["channel"]), last),
        State.OUT if out else State.IN,
        word["since"] if word is not None else None,
    )
