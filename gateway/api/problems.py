"""Errors as RFC 9457 `application/problem+json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response

TITLES = {
    400: "Bad request",
    401: "Authentication is needed",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "The request took too long",
    409: "Conflict",
    410: "Gone",
    413: "The request is too large",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    422: "The request cannot be processed",
    426: "An upgrade is needed",
    429: "Too many requests",
    500: "Internal error",
    502: "A vendor refused what was asked of it",
    503: "Not available at the moment",
}


MOST, LONGEST = 100, 200  # fields that a problem names, and characters of one


class Problem(Exception):
    """An error that the caller is told."""

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        kind: str = "about:blank",
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.detail = detail
        self.kind = kind
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.more = dict(more or {})  # members of its own kind
        super().__init__(detail)

    def response(self) -> Response:
        """The answer."""
        body: dict[str, Any] = {
            "type": self.kind,
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail or TITLES.get(self.status, "Error"),
        }
        if self.errors:
            body["errors"] = [{"field": name, "message": text} for name, text in self.errors]
        body.update(self.more)
        return Response(
            to_json(body),
            status_code=self.status,
            media_type="application/problem+json",
            headers=self.headers,
        )


def unprocessable(errors: Iterable[tuple[str, str]]) -> Problem:
    """422, naming each field and its fix; what is about no field is only told."""
    listed = tuple((name[:LONGEST], text) for name, text in islice(errors, MOST))
    detail = "; ".join(f"{name} {text}" if name else text for name, text in listed[:5])
    return Problem(422, detail, errors=(error for error in listed if error[0]))


def not_found(what: str) -> Problem:
    """404, also for what belongs to another tenant."""
    return Problem(404, f"There is no such {what}.")
