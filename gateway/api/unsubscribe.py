"""`/unsubscribe/{token}`: where people leave by the address in an email's List-Unsubscribe (RFC
8058). It needs no key and sets no cookie. Only a POST changes anything: scanners follow links.
"""

from __future__ import annotations

import base64
import hashlib
import html
import logging
from collections.abc import Awaitable, Callable, Mapping
from email import message_from_bytes
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from gateway.api.auth import header
from gateway.api.context import Context, problem_of
from gateway.api.problems import Problem
from gateway.api.reading import body_of

log = logging.getLogger("gateway.unsubscribe")

PATH = "/unsubscribe/{token}"
FIELD, WORD = "List-Unsubscribe", "One-Click"
MOST = 8 * 1024  # bytes of a form with one field
STYLE = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem}"
    "button{font:inherit;padding:.5rem 1.2rem}"
)
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-robots-tag": "noindex",
}
BUTTON = (
    f'<form method="post"><input type="hidden" name="{FIELD}" value="{WORD}">'
    "<button>Unsubscribe</button></form>"
)
GONE = "This address does not lead anywhere: it is damaged, or the email is not kept any more."
TEXTS = {
    400: "Nothing was changed: the request did not ask to unsubscribe.",
    408: "Nothing was changed: the request did not arrive in time.",
    413: "Nothing was changed: the request is too large.",
    415: "Nothing was changed: the request is compressed.",
    503: "This cannot be done at the moment. Please try again in a few minutes.",
}


def endpoint(context: Context) -> Callable[[Request], Awaitable[Response]]:
    """Both of its methods."""

    async def answered(request: Request) -> Response:
        try:
            return await _answer(request, context)
        except Exception as error:
            problem = problem_of(error)
        text = TEXTS.get(problem.status, TEXTS[503])
        return _page(problem.status, text, headers=problem.headers)

    return answered


async def _answer(request: Request, context: Context) -> Response:
    body = None
    if request.method == "POST":
        body = await body_of(request, MOST, context.bounds.request_time)
    email = await context.unsubscribes.email_of(str(request.path_params["token"]))
    if email is None:
        return _page(404, GONE)
    who = f"<b>{html.escape(email['from_address'] or 'us')}</b>"
    if body is not None and not _one_click(body, header(request, b"content-type")):
        raise Problem(400)
    if body is not None:
        await context.unsubscribes.leave(email)
        log.info("%s: unsubscribed", email["id"])
    elif not await context.unsubscribes.left(email):
        return _page(200, f"Do you want no more email from {who}?", BUTTON)
    return _page(200, f"You are unsubscribed: {who} sends you no more email.")


def _one_click(body: bytes, kind: str) -> bool:
    """Whether a form has the field that RFC 8058 asks for, in either of its encodings."""
    if not kind.lower().startswith("multipart/form-data"):
        try:
            fields = parse_qsl(body.decode(errors="replace"), max_num_fields=10)
        except ValueError:
            return False
        return (FIELD, WORD) in fields
    form = message_from_bytes(
        b"Content-Type: " + kind.encode("latin-1") + b"\r\n\r\n" + body, policy=HTTP
    )
    return any(
        part.get_param("name", header="content-disposition") == FIELD
        and str(part.get_payload()).strip() == WORD
        for part in (form.iter_parts() if form.is_multipart() else ())
    )


def _page(
    status: int, text: str, more: str = "", *, headers: Mapping[str, str] | None = None
) -> Response:
    shown = PAGE.format(style=STYLE, text=text, more=more)
    return HTMLResponse(shown, status_code=status, headers={**(headers or {}), **HEADERS})


def told() -> dict[str, Any]:
    """The path as the OpenAPI document has it."""
    page = {"text/html": {"schema": {"type": "string"}}}
    form = {"schema": {
        "type": "object", "required": [FIELD], "properties": {FIELD: {"enum": [WORD]}},
    }}  # fmt: skip
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    answers = {
        "200": {"description": "A page for people", "content": page},
        "404": {"description": "The address is not ours", "content": {**page, **problem}},
        "503": {"description": "Not available at the moment", "content": page},
    }
    refused = {
        "400": {"description": "The form does not ask to unsubscribe", "content": page},
        "408": {"description": "The form did not arrive in time", "content": page},
        "413": {"description": "The form is too large", "content": page},
        "415": {"description": "The form is compressed", "content": page},
    }
    schema = {"type": "string", "pattern": r"^[A-Za-z0-9_-]+\.msg_[0-9A-Za-z]+\.[A-Za-z0-9_-]{43}$"}
    token = {"name": "token", "in": "path", "required": True, "schema": schema}
    shared = {"tags": ["Unsubscribe"], "security": [], "parameters": [token]}
    body = {"required": True, "content": {
        "application/x-www-form-urlencoded": form, "multipart/form-data": form,
    }}  # fmt: skip
    return {
        "get": {**shared, "summary": "Ask whether a person wants no more email; changes nothing",
                "responses": answers},
        "post": {**shared, "summary": "Unsubscribe the person of an email with one click (RFC "
                 "8058); the address stands in its List-Unsubscribe", "requestBody": body,
                 "responses": {**answers, **refused}},
    }  # fmt: skip


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Unsubscribe</title>
<meta name="viewport" content="width=device-width"><style>{style}</style>
<p>{text}</p>
{more}</html>"""
