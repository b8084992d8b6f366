"""One file out of a form (`multipart/form-data`, RFC 7578), as it comes; never all at once."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from email.message import Message

from gateway.api.problems import Problem, unprocessable

HEAD_MOST = 8 * 1024  # bytes of a part's headers
BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,70}")


def boundary_of(content_type: str) -> bytes:
    """What stands between the parts of a form."""
    said = Message()
    said["content-type"] = content_type
    boundary = said.get_param("boundary")
    if not isinstance(boundary, str) or BOUNDARY.fullmatch(boundary) is None:
        raise unprocessable([("", "The form has no readable boundary.")])
    return boundary.encode()


class OneFile:
    """A form with one part, the file. `begin` reads up to the file, `pieces` gives its bytes."""

    def __init__(self, body: AsyncIterator[bytes], boundary: bytes) -> None:
        self._body = body
        self._held = b"\r\n"  # so that the first boundary looks like the others
        self._between = b"\r\n--" + boundary
        self.content_type: str | None = None
        self.filename: str | None = None

    async def begin(self) -> None:
        """Reads the headers of the part."""
        while b"\r\n\r\n" not in self._held:
            if len(self._held) > HEAD_MOST:
                raise unprocessable([("", "The form's headers are too long.")])
            await self._more()
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        before, found, head = head.partition(self._between + b"\r\n")
        if not found or before:
            raise unprocessable([("", "The form must begin with its boundary.")])
        self._described(head)

    def _described(self, head: bytes) -> None:
        said = Message()
        for line in head.decode("utf-8", "replace").split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip().lower() in ("content-type", "content-disposition"):
                said[name.strip()] = value.strip()
        self.filename = said.get_filename()
        self.content_type = said.get("content-type")
        if self.filename is None:
            raise unprocessable([("file", "is needed: the form has one part, with a file name")])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes of the file, up to the boundary that ends the form."""
        while self._between not in self._held:
            safe = len(self._held) - len(self._between)
            if safe > 0:
                yield self._held[:safe]
                self._held = self._held[safe:]
            await self._more()
        last, _, self._held = self._held.partition(self._between)
        if last:
            yield last
        while len(self._held) < 2:
            await self._more()
        if not self._held.startswith(b"--"):
            raise unprocessable([("file", "must be the only part of the form")])
        async for _ in self._body:
            pass  # what stands behind a form is nobody's

    async def _more(self) -> None:
        piece = await anext(self._body, None)
        if piece is None:
            raise Problem(400, "The form did not arrive whole.")
        self._held += piece
