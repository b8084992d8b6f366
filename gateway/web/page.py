"""Serves the page's shell. It holds no data and no key; what it shows comes from the API."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

FOLDER = Path(__file__).parent
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@lru_cache(maxsize=64)
def _file(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def _serving(name: str) -> Route:
    kind = TYPES[Path(name).suffix]

    async def endpoint(request: Request) -> Response:
        return Response(_file(name), media_type=kind, headers=HEADERS)

    return Route("/" if name == "index.html" else f"/{name}", endpoint)


def routes() -> list[BaseRoute]:
    """The shell and its parts."""
    names = sorted(p.name for p in FOLDER.iterdir() if p.suffix in TYPES)
    return [_serving(name) for name in names]
