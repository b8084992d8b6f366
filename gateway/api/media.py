"""`/api/media`: files that people sent, and files to be sent; served so that no browser runs them.
A link with a signature gives the same without a key."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Awaitable, Callable
from email.message import Message
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.auth import header
from gateway.api.context import Context, problem_of
from gateway.api.multipart import OneFile, boundary_of
from gateway.api.operation import Operation
from gateway.api.problems import Problem, not_found, unprocessable
from gateway.api.reading import LENGTH, answer, check_coding, filters_of, id_of
from gateway.api.serving import Shown, served, tag_of
from gateway.api.shapes import MAYBE, TEXT, TIME, object_of
from gateway.domain import Channel
from gateway.errors import GatewayError
from gateway.files import TooLarge, key_of
from gateway.kinds import UNKNOWN
from gateway.links import Verdict
from gateway.patience import discard, within
from gateway.store import queries
from gateway.store.keys import Identity
from gateway.thumbnails import KIND, PICTURES, thumbnail_key
from gateway.uploads import Offered, Refused

FORM = "multipart/form-data"
FORM_MORE = 16 * 1024  # bytes of a form beside its file
LONGEST = 600.0  # seconds for a whole upload
CHANNELS = (Channel.SMS, Channel.WHATSAPP, Channel.EMAIL)

Row = dict[str, Any]


async def show(request: Request, context: Context, identity: Identity) -> Response:
    """The bytes of one file."""
    return await _given(request, context, await _row(request, context, identity))


async def thumbnail(request: Request, context: Context, identity: Identity) -> Response:
    """A small picture of a picture."""
    row = await _row(request, context, identity)
    tenant_id, id_ = identity.tenant_id, row["id"]
    _stored(row)
    size = None
    if row["content_type"] in PICTURES:
        await _size(context, row)
        size = await context.thumbnails.size(tenant_id, id_)
    if size is None:
        raise Problem(415, "There is no thumbnail of this file.")
    name = f"{id_}-thumbnail.webp"
    shown = Shown(thumbnail_key(tenant_id, id_), size, KIND, name, f'"{id_}-thumbnail"')
    return served(request, context.files, shown)


async def _row(request: Request, context: Context, identity: Identity) -> Row:
    id_ = id_of(request, "file")
    row = await context.reader.call(queries.media_file, identity.tenant_id, id_)
    if row is None:
        raise not_found("file")
    return row


def _stored(row: Row) -> None:
    if row["state"] == "pending":
        raise Problem(503, "The file has not been fetched yet.", headers={"retry-after": "2"})
    if row["state"] in ("dropping", "gone"):
        raise Problem(410, "The file is no longer kept.")
    if row["state"] != "stored":
        raise Problem(410, f"The file could not be fetched: {row['detail']}.")


async def _size(context: Context, row: Row) -> int:
    """The bytes that are really there."""
    size = await context.files.size(key_of(row["tenant_id"], row["id"]))
    if size is None:
        raise Problem(410, "The file is no longer kept.")
    return size


async def _given(request: Request, context: Context, row: Row) -> Response:
    _stored(row)
    kind = row["content_type"] or UNKNOWN
    shown = Shown(
        key_of(row["tenant_id"], row["id"]),
        await _size(context, row),
        kind,
        row["filename"] or row["id"] + (mimetypes.guess_extension(kind) or ""),
        tag_of(row),
    )
    return served(request, context.files, shown)


def linked(context: Context) -> Callable[[Request], Awaitable[Response]]:
    """`/media/{id}`: a file for whoever has a link to it that we signed."""

    async def endpoint(request: Request) -> Response:
        try:
            return await _given(request, context, await _linked_row(request, context))
        except Exception as error:
            return problem_of(error).response()

    return endpoint


async def _linked_row(request: Request, context: Context) -> Row:
    id_ = id_of(request, "file")
    expires, signature = (request.query_params.get(n, "") for n in ("expires", "signature"))
    row = await context.reader.call(queries.linked_file, id_) if signature else None
    verdict = Verdict.WRONG
    if row is not None:
        verdict = await context.links.judge(row["tenant_id"], id_, expires, signature)
    if row is None or verdict is Verdict.WRONG:
        raise Problem(403, "This link does not hold.")
    if verdict is Verdict.OVER:
        raise Problem(410, "This link has ended.")
    return row


async def upload(request: Request, context: Context, identity: Identity) -> Response:
    """Takes a file: the body as it is, or the only part of a form."""
    channel, named = _asked(request)
    await check_coding(request)
    form = header(request, b"content-type").partition(";")[0].strip().lower() == FORM
    await _check_length(request, context.uploads.most + FORM_MORE * form)
    if context.uploads.turns.locked():
        await discard(request.receive, request.scope["headers"])
        raise Problem(503, "Too many uploads at once.", headers={"retry-after": "2"})
    try:
        async with context.uploads.turns, asyncio.timeout(LONGEST):
            pieces = _pieces(request, context.bounds.request_time)
            offered = await (_in_form if form else _bare)(request, pieces, named, channel)
            made = await context.uploads.take(offered, identity.tenant_id)
    except (Problem, GatewayError, TimeoutError) as error:
        problem = _problem(error, context.uploads.most)
        problem.headers["connection"] = "close"  # there may be more of the body
        raise problem from None
    return answer(made, 201, {"location": str(made["url"])})


def _problem(error: Exception, most: int) -> Problem:
    if isinstance(error, TooLarge):
        return Problem(413, f"At most {most} bytes.")
    if isinstance(error, Refused):
        return unprocessable([(error.field, error.text)])
    if isinstance(error, TimeoutError):
        return Problem(408, "The file did not arrive in time.")
    return problem_of(error)


def _asked(request: Request) -> tuple[Channel | None, str | None]:
    given = filters_of(request)
    channel = given.get("channel")
    if channel is not None and channel not in CHANNELS:
        raise unprocessable([("channel", f"must be {', '.join(CHANNELS[:-1])} or {CHANNELS[-1]}")])
    return Channel(channel) if channel else None, given.get("filename")


async def _check_length(request: Request, most: int) -> None:
    length = header(request, b"content-length")
    if length and (LENGTH.fullmatch(length) is None or int(length) > most):
        await discard(request.receive, request.scope["headers"])
        raise Problem(413, f"At most {most} bytes.", headers={"connection": "close"})


async def _pieces(request: Request, patience: float) -> AsyncIterator[bytes]:
    """The body as it comes; each piece has to come in its time."""
    more = True
    while more:
        try:
            part = await within(patience, _received(request))
        except TimeoutError:
            raise Problem(408, "The file did not arrive in time.") from None
        if part["type"] == "http.disconnect":
            raise Problem(400, "The file did not arrive whole.")
        more = part.get("more_body", False)
        if part.get("body"):
            yield part["body"]


async def _received(request: Request) -> Any:
    return await request.receive()


async def _bare(
    request: Request, pieces: AsyncIterator[bytes], named: str | None, channel: Channel | None
) -> Offered:
    said = Message()
    said["content-disposition"] = header(request, b"content-disposition")
    kind = header(request, b"content-type")
    return Offered(pieces, kind, named or said.get_filename(), channel)


async def _in_form(
    request: Request, pieces: AsyncIterator[bytes], named: str | None, channel: Channel | None
) -> Offered:
    file = OneFile(pieces, boundary_of(header(request, b"content-type")))
    await file.begin()
    return Offered(file.pieces(), file.content_type, named or file.filename, channel)


SHAPES: dict[str, Any] = {
    "File": object_of(
        {
            "id": TEXT,
            "url": TEXT,
            "content_type": TEXT,
            "size": {"type": "integer"},
            "filename": MAYBE,
            "sha256": TEXT,
            "created_at": TIME,
        }
    )
}
PART = ((206, "A part of it"), (304, "It has not changed"))
CONDITIONS = ("Range", "If-Range", "If-None-Match")
OPERATIONS = (
    Operation(
        method="POST",
        path="/api/media",
        handler=upload,
        summary="Upload a file to be sent",
        answer="File",
        status=201,
        takes=("application/octet-stream", FORM),
        query=("channel", "filename"),
        errors=(400, 408, 413, 415, 422),
        tag="Media",
    ),
    Operation(
        method="GET",
        path="/api/media/{id}",
        handler=show,
        summary="Get a file that a person sent, or that was uploaded",
        answer="application/octet-stream",
        also=PART,
        headers=CONDITIONS,
        errors=(404, 410, 416),
        tag="Media",
    ),
    Operation(
        method="GET",
        path="/api/media/{id}/thumbnail",
        handler=thumbnail,
        summary="Get a small picture (WebP, at most 320 pixels wide and high) of a picture",
        answer="image/webp",
        also=PART,
        headers=CONDITIONS,
        errors=(404, 410, 415, 416),
        tag="Media",
    ),
)
