"""`/api/templates`: what may be said to people whose window is closed, as vendors list it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.context import Context
from gateway.api.operation import PAGE, Choices, Operation
from gateway.api.problems import Problem, unprocessable
from gateway.api.reading import answer, chosen, cursor_for, cursor_of, filters_of, limit_of
from gateway.api.shapes import MAYBE, TEXT, object_of, ref
from gateway.clock import show
from gateway.domain import Channel, VendorTemplate
from gateway.errors import Throttled, Unreachable
from gateway.store.keys import Identity
from gateway.templates import Found, Listed
from gateway.windows import WindowClosed, length

FILTERS = ("channel", "name", "status")  # a status is its vendor's own word
CHOICES: Choices = {"channel": tuple(Channel)}
OFFERED = 20  # templates that a refusal names
APPROVED = "approved"
AWAY = (Unreachable, Throttled)
TRY = 'add "outside_window": "try" to send it all the same'


async def index(request: Request, context: Context, identity: Identity) -> Response:
    """The templates of a channel."""
    filters = filters_of(request)
    chosen(filters, CHOICES)
    limit, start = limit_of(request), _start(request)
    found = await context.templates.found(Channel(filters.pop("channel", Channel.WHATSAPP)))
    if not found.answered:
        raise _problem(found)
    wanted = [one for one in found.items if _is(one.template, filters)]
    following = cursor_for(start + limit) if len(wanted) > start + limit else None
    items = [_view(one) for one in wanted[start : start + limit]]
    return answer({"items": items, "next_cursor": following, "stale": found.stale})


def _start(request: Request) -> int:
    cursor = cursor_of(request)
    if cursor is None:
        return 0
    if len(cursor) != 1 or type(cursor[0]) is not int or cursor[0] < 0:
        raise unprocessable([("cursor", "must be a next_cursor that this list gave")])
    return int(cursor[0])


def _is(template: VendorTemplate, filters: dict[str, str]) -> bool:
    named = filters.get("name") in (None, template.name, template.title)
    return named and filters.get("status") in (None, template.status)


def _problem(found: Found) -> Problem:
    """Why nobody listed anything: by our class of it, never in the vendor's words."""
    why = ", ".join(f"{name}: {error.reason}" for name, error in found.failed.items())
    away = any(isinstance(error, AWAY) for error in found.failed.values())
    headers = {"retry-after": "15"} if away else {}
    return Problem(503 if away else 502, f"No templates were listed ({why}).", headers=headers)


def _view(one: Listed) -> dict[str, Any]:
    template = one.template
    return {
        "provider": one.provider,
        **_offer(template),
        "title": template.title,
        "status": template.status,
        "category": template.category,
        "id": template.id,
    }


def _offer(template: VendorTemplate) -> dict[str, Any]:
    return {
        "name": template.name,
        "language": template.language,
        "body": template.body,
        "variables": list(template.variables),
    }


async def refusal(context: Context, closed: WindowClosed) -> Problem:
    """422 for what came to a closed window, with the templates that would do."""
    found = await context.templates.found(closed.channel)
    fit = [one.template for one in found.items if one.template.status == APPROVED]
    hours = length(closed.channel) // 3_600_000
    never, lately = "never written to this number", f"not written to this number for {hours} hours"
    text = f"is needed: the person has {never if closed.expired_at is None else lately}; or {TRY}"
    return Problem(
        422,
        f"template {text}",
        kind="/problems/window-closed",
        errors=[("template", text)],
        more={
            "window_expired_at": show(closed.expired_at),
            "templates": [_offer(template) for template in fit[:OFFERED]],
        },
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/templates",
        handler=index,
        summary="List the templates that the vendors of a channel know",
        answer="TemplateList",
        query=(*FILTERS, *PAGE),
        choices=CHOICES,
        errors=(422, 502),
        tag="Templates",
    ),
)
_TEXTS = {"type": "array", "items": TEXT}
OFFER = {"name": TEXT, "language": MAYBE, "body": TEXT, "variables": _TEXTS}
SHAPES = {
    "VendorTemplate": object_of(
        {
            "provider": TEXT,
            **OFFER,
            **dict.fromkeys(("title", "category", "id"), MAYBE),
            "status": TEXT,
        }
    ),
    "TemplateList": object_of(
        {
            "items": {"type": "array", "items": ref("VendorTemplate")},
            "next_cursor": MAYBE,
            "stale": {"type": "boolean"},
        }
    ),
}
