"""`?dry_run=true`: what would become of a message. Nothing is stored, and no vendor is asked."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway import segments
from gateway.api.context import Context
from gateway.api.problems import unprocessable
from gateway.api.reading import answer
from gateway.api.templates import refusal
from gateway.clock import show, to_ms
from gateway.domain import WINDOWS, Channel
from gateway.drafts import Draft
from gateway.money import shown
from gateway.routing import PROBE, READY, Pick
from gateway.store.accepts import NewMessage
from gateway.store.claims import names
from gateway.store.keys import Identity
from gateway.store.rehearsals import Known, known

QUERY = ("dry_run",)
GOOD = ((200, "With dry_run=true: what would become of it; nothing is stored or sent"),)


def asked(request: Request) -> bool:
    """Whether a request is only a rehearsal."""
    if not request.scope["query_string"]:  # of nearly all: to read none costs as much as one
        return False
    text = request.query_params.get("dry_run", "false")
    if text not in ("true", "false"):
        raise unprocessable([("dry_run", "must be true or false")])
    return text == "true"


async def rehearse(context: Context, identity: Identity, draft: Draft) -> Response:
    """What would become of a message; problems are those that it would have."""
    new = await context.outbound.prepared(draft, identity.tenant_id)
    now = to_ms(context.clock.now())
    found: Known = await context.reader.call(known, new, now)
    if found.refused is not None:
        raise await refusal(context, found.refused)
    row = new.row
    return answer(
        {
            "normalised": {"to": row["to_address"], "from": row["from_address"]},
            "channel": row["channel"],
            "type": row["type"],
            "segments": _segments(new),
            "route": (route := _route(context, new)),
            "price": _price(context, new, route, now),
            "window": _window(new, found, now),
            "opt_out": {"state": found.state.value, "since": show(found.since)},
        }
    )


def _segments(new: NewMessage) -> dict[str, Any] | None:
    if new.row["segments"] is None:
        return None
    return asdict(segments.explained(new.row["body"]))


def _window(new: NewMessage, found: Known, now: int) -> dict[str, Any]:
    """The window at the time of the sending; a channel that has none is always open."""
    until, then = found.expires_at, max(now, new.row["send_at"] or 0)
    free = Channel(new.row["channel"]) not in WINDOWS
    return {"open": free or (until is not None and until > then), "expires_at": show(until)}


def _route(context: Context, new: NewMessage) -> list[dict[str, Any]]:
    """The chain as it would be asked at this moment, and those of it that would not be."""
    board, row, fit = context.board, new.row, new.route
    while (unfit := board.unfit(row, fit, taker=new.taker)) is not None:
        fit = ",".join(name for name in names(fit) if name != unfit[0])
    found = board.pick(row, fit)
    chosen = found.provider if isinstance(found, Pick) else None
    order = board.order(row["channel"], names(fit))
    entries = [(name, None if name == chosen else _why_not(context, row, name)) for name in order]
    others = (r for r in context.chains.get(Channel(row["channel"]), ()) if r.name not in order)
    entries += [(r.name, board.why_never(row, r, chosen or order[0])) for r in others]
    return [
        {"provider": name, "position": place, "would_be_asked": name == chosen, "why_not": why}
        for place, (name, why) in enumerate(entries, 1)
    ]


def _price(
    context: Context, new: NewMessage, route: list[dict[str, Any]], now: int
) -> dict[str, Any] | None:
    """What it would cost at who would be asked, or else at the first, by the list of prices."""
    asked = next((step for step in route if step["would_be_asked"]), route[0])
    at = max(now, new.row["send_at"] or 0)
    cost = context.estimates.of(new.row, asked["provider"], at).cost
    if cost is None:
        return None
    return {"amount": shown(cost.amount), "currency": cost.currency, "estimated": True}


def _why_not(context: Context, row: dict[str, Any], name: str) -> str:
    known_here = context.board.routes.get(name)
    key = context.board.sender(row, known_here).key if known_here is not None else ""
    word = context.board.may(name, key).word
    return "another_first" if word in (READY, PROBE) else word
