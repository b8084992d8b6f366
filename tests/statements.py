"""What a client says to PostgreSQL, read from the bytes of its connection ("Message Formats")."""

from __future__ import annotations

from collections.abc import Iterator

ENCRYPTION = (80877103, 80877104)  # SSLRequest and GSSENCRequest, which come before the start


class Statements:
    """One connection. Statements that were prepared are known by their names."""

    def __init__(self) -> None:
        self._rest = b""
        self._started = False
        self._prepared: dict[bytes, bytes] = {}

    def hear(self, data: bytes) -> list[bytes]:
        """The texts of the statements that these bytes bring to their end."""
        self._rest += data
        return [text for text in self._texts() if text]

    def _texts(self) -> Iterator[bytes]:
        while (message := self._message()) is not None:
            kind, body = message
            if kind == b"Q":
                yield body.rstrip(b"\x00")
            elif kind == b"P":
                name, text, *_ = body.split(b"\x00")
                self._prepared[name] = text
            elif kind == b"B":
                yield self._prepared.get(body.split(b"\x00")[1], b"")

    def _message(self) -> tuple[bytes, bytes] | None:
        head = 1 if self._started else 0
        if len(self._rest) < head + 4:
            return None
        end = head + int.from_bytes(self._rest[head : head + 4], "big")
        if len(self._rest) < end:
            return None
        kind, body = self._rest[:head], self._rest[head + 4 : end]
        self._rest = self._rest[end:]
        if not self._started:
            self._started = int.from_bytes(body[:4], "big") not in ENCRYPTION
        return kind, body
