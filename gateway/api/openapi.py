"""The OpenAPI 3.1 document and the page that shows it: made of the list of operations."""

from __future__ import annotations

import html
import re
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic.json_schema import models_json_schema

from gateway.api import unsubscribe
from gateway.api.links import links
from gateway.api.operation import Operation
from gateway.api.problems import TITLES
from gateway.api.routes import OPERATIONS, RESOURCES
from gateway.api.shapes import SHAPES, TEXT, enum_of, object_of, ref
from gateway.costs import By
from gateway.domain import Channel
from gateway.opt_outs import State, Why
from gateway.words import QUESTION

PARAMETERS: dict[str, Any] = {
    "state": {"type": "string", "enum": [*State, "all"], "default": "out"},
    "since": {"type": "string", "format": "date-time"},
    "until": {"type": "string", "format": "date-time"},
    "by": {"type": "string", "enum": [*By], "default": "provider"},
    "provider": {
        "type": "string",
        "description": "The name of an adapter, set up or not; a 422 lists them.",
    },
    "reason": {"type": "string", "enum": [*Why]},
    "format": {"type": "string", "enum": ["json", "csv"]},
    "interval": {"type": "string", "enum": ["hour", "day"], "default": "day"},
    "q": {"type": "string", "minLength": 1, "maxLength": QUESTION},
    "dry_run": {"type": "string", "enum": ["true", "false"], "default": "false"},
    "unread": {"type": "string", "enum": ["true", "false"]},
    "created_after": {"type": "string", "format": "date-time"},
    "created_before": {"type": "string", "format": "date-time"},
    "limit": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
    "after": {"type": "integer", "minimum": 0},
    "Idempotency-Key": {
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "pattern": "^[\\x20-\\x7e]+$",
    },
    "Last-Event-ID": {"type": "integer", "minimum": 0},
}


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The whole document."""
    bodies = [(o.body, "validation") for o in OPERATIONS if o.body is not None]
    _, made = models_json_schema(bodies, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    paths[unsubscribe.PATH] = unsubscribe.told()
    paths["/health"] = {"get": _health("Whether the process is alive")}
    paths["/health/ready"] = {"get": _health("Whether the database answers", 503)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Messaging Gateway",
            "version": _version(),
            "description": "Send and receive SMS and WhatsApp messages through one API.",
        },
        "paths": paths,
        "components": {
            "schemas": {**_shapes(), **made.get("$defs", {})},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _shapes() -> dict[str, Any]:
    own = (getattr(resource, "SHAPES", {}) for resource in RESOURCES)
    return {**SHAPES, **{name: shape for shapes in own for name, shape in shapes.items()}}


def _version() -> str:
    try:
        return version("messaging-gateway")
    except PackageNotFoundError:
        return "0"


def _operation(operation: Operation) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _id(operation),
        "tags": [operation.tag],
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.body is not None:
        content = {"application/json": {"schema": ref(operation.body.__name__)}}
        told["requestBody"] = {"required": not operation.bare, "content": content}
    if operation.takes:
        told["requestBody"] = {"required": True, "content": _file_in(operation.takes)}
    return told


def _id(operation: Operation) -> str:
    return f"{operation.handler.__module__.rpartition('.')[2]}_{operation.handler.__name__}"


def _file_in(kinds: tuple[str, ...]) -> dict[str, Any]:
    """A file as a body, or as the part of a form."""
    binary = {"type": "string", "format": "binary"}
    form = object_of({"file": binary})
    return {kind: {"schema": form if kind.startswith("multipart/") else binary} for kind in kinds}


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    for name in re.findall(r"\{(\w+)\}", operation.path):
        schema = enum_of(Channel) if name == "channel" else TEXT
        listed.append({"name": name, "in": "path", "required": True, "schema": schema})
    for place, names in (("query", operation.query), ("header", operation.headers)):
        for n in names:
            schema = PARAMETERS.get(n, TEXT)
            if n in operation.choices:
                schema = {"type": "string", "enum": [*operation.choices[n]]}
            told = {"name": n, "in": place, "schema": schema}
            listed.append({**told, "required": True} if n in operation.needs else told)
    return listed


def _responses(operation: Operation) -> dict[str, Any]:
    if not operation.answer:
        return {str(operation.status): {"description": "Done"}} | _problems(operation)
    if "/" in operation.answer:
        content: dict[str, Any] = {operation.answer: {}}
        if operation.answer == "application/octet-stream":
            content = {"*/*": {}}
    else:
        content = {"application/json": {"schema": ref(operation.answer)}}
    if operation.file:
        content[operation.file] = {}
    done: dict[str, Any] = {"description": "Done", "content": content}
    if operation.status == 101:
        done = {"description": "WebSocket frames follow: each is an event, as JSON text"}
    if operation.status == 201:
        done["headers"] = {"Location": {"schema": TEXT}}
    if operation.status == 202:
        done["headers"] = {
            "Location": {"schema": TEXT},
            "Idempotency-Replayed": {"schema": {"type": "string", "enum": ["true"]}},
        }
    if found := links(operation.answer, _id(operation), operation.path, operation.query):
        done["links"] = found
    also = {str(status): {"description": text} for status, text in operation.also}
    return {str(operation.status): done} | also | _problems(operation)


def _problems(operation: Operation) -> dict[str, Any]:
    return {str(status): _problem(status) for status in sorted({401, 422, 503, *operation.errors})}


def _problem(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": ref("Problem")}}
    return {"description": TITLES[status], "content": content}


def _health(summary: str, *errors: int) -> dict[str, Any]:
    schema = {
        "application/json": {"schema": object_of({"status": TEXT, "database": TEXT}, ("database",))}
    }
    return {
        "summary": summary,
        "tags": ["Health"],
        "security": [],
        "responses": {
            "200": {"description": "Yes", "content": schema},
            **{str(status): _problem(status) for status in errors},
        },
    }


def page() -> str:
    """The document for people, on one page, without scripts."""
    rows = []
    for operation in OPERATIONS:
        told = document()["paths"][operation.path][operation.method.lower()]
        names = ", ".join(p["name"] for p in told["parameters"])
        rows.append(
            f"<section><h2><b>{operation.method}</b> <code>{html.escape(operation.path)}</code>"
            f"</h2><p>{html.escape(operation.summary)}.</p>"
            + (f"<p>Parameters: <code>{html.escape(names)}</code></p>" if names else "")
            + (_fields(operation) if operation.body else "")
            + f"<p>Answers: <code>{', '.join(told['responses'])}</code></p></section>"
        )
    return PAGE.replace("{rows}", "".join(rows))


def _fields(operation: Operation) -> str:
    assert operation.body is not None
    schema = document()["components"]["schemas"][operation.body.__name__]
    required = schema.get("required", [])
    shown = [
        f"<code>{html.escape(name)}</code>{' (needed)' if name in required else ''}"
        for name in schema["properties"]
    ]
    return f"<p>Body: {', '.join(shown)}</p>"


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<title>Messaging Gateway: the API</title>
<meta name="viewport" content="width=device-width">
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
h2{font-size:1rem;margin:1.6rem 0 .2rem}b{display:inline-block;min-width:3.5rem}
p{margin:.2rem 0}code{background:#8881;padding:.1em .3em;border-radius:.2em}</style>
<h1>Messaging Gateway: the API</h1>
<p>The whole of it as OpenAPI 3.1: <a href="/openapi.json">/openapi.json</a>. Every request carries
<code>Authorization: Bearer gw_…</code>. Errors are <code>application/problem+json</code>.</p>
{rows}</html>"""
