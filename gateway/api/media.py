"""`GET /api/media/{id}`: files that people sent, served so that no browser runs them."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from gateway.api.context import Context
from gateway.api.operation import Operation
from gateway.api.problems import Problem, not_found
from gateway.api.reading import id_of
from gateway.media import INLINE, UNKNOWN
from gateway.store import queries
from gateway.store.keys import Identity

SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, max-age=3600",
}


async def show(request: Request, context: Context, identity: Identity) -> Response:
    """The bytes of one file."""
    id_ = id_of(request, "file")
    row = await context.reader.call(queries.media_file, identity.tenant_id, id_)
    if row is None:
        raise not_found("file")
    if row["state"] == "pending":
        raise Problem(503, "The file has not been fetched yet.", headers={"retry-after": "2"})
    if row["state"] != "stored":
        raise Problem(410, f"The file could not be fetched: {row['detail']}.")
    path = context.folder.path(identity.tenant_id, row["id"])
    if not path.is_file():
        raise Problem(410, "The file is no longer kept.")
    kind = row["content_type"] if row["content_type"] in INLINE else UNKNOWN
    place = "inline" if kind != UNKNOWN else "attachment"
    name = quote(row["filename"] or row["id"], safe="")
    headers = {**SAFE, "content-disposition": f"{place}; filename*=UTF-8''{name}"}
    return FileResponse(path, media_type=kind, headers=headers)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/media/{id}",
        handler=show,
        summary="Get a file that a person sent",
        answer="application/octet-stream",
        errors=(404, 410),
        tag="Media",
    ),
)
