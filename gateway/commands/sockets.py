"""WebSockets on uvicorn, with bounds that it has not: on how much a client says, on what is kept
for one that does not read, and on how long it takes to go.

Logs nothing of a request: its URL and headers may hold what is secret.
"""

from __future__ import annotations

import logging
from typing import Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame

MESSAGE_MOST = 4096  # bytes of one message of a client's
PING = 20.0  # seconds between pings, and until one must be answered
SAID_MOST = 16 * 1024  # bytes that a client may send within SAID_WITHIN, pongs included
SAID_WITHIN = 30.0
PIECES = 16  # of one message
CLOSING = 2.0  # seconds that a client has to take leave

silent = logging.getLogger("gateway.sockets")
silent.setLevel(logging.WARNING)  # uvicorn writes the URL at INFO, websockets the key at DEBUG


class Frames(WebSocketsSansIOProtocol):
    """One client. Knows one message more than ASGI does: `gateway.frames`, bytes that are frames
    already, so that what a thousand clients get is framed once."""

    _since, _said = 0.0, 0

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.logger = silent
        self.conn.logger, self.conn.debug = silent, False

    def data_received(self, data: bytes) -> None:
        """Reads what a client says, as long as it is little."""
        if self.handshake_complete and not self._bears(len(data)):
            self._end(1008, "too much was said")
            self.transport.pause_reading()
            return
        super().data_received(data)
        if not self.handshake_initiated:  # no handshake: websockets has the answer, uvicorn waits
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def _bears(self, size: int) -> bool:
        now = self.loop.time()
        if now - self._since > SAID_WITHIN:
            self._since, self._said = now, 0
        self._said += size
        return self._said <= SAID_MOST

    def handle_connect(self, event: Any) -> None:
        """Begins a handshake; the stream learns what it may use."""
        super().handle_connect(event)
        if not self.close_sent:
            scope: dict[str, Any] = self.scope  # type: ignore[assignment]
            scope["gateway.transport"] = self.transport
            scope["extensions"]["gateway.frames"] = {}

    def handle_cont(self, event: Frame) -> None:
        """A message in pieces: websockets bounds their bytes, and empty ones have none."""
        if len(self.frames) >= PIECES:
            self._end(1008, "too many pieces")
            return
        super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answers a ping, unless its sender does not read."""
        answer = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(answer)

    def keepalive_timeout(self) -> None:
        """A client that is not there any more."""
        self.pong_timer = self.pending_ping_payload = None
        self._end(1011, "a ping was not answered")

    def handle_parser_exception(self) -> None:
        """What is no WebSocket, or too large a message."""
        super().handle_parser_exception()
        self.loop.call_later(CLOSING, self.transport.abort)

    def shutdown(self) -> None:
        """The server stops."""
        if not self.handshake_complete:
            super().shutdown()
            return
        self._end(1012, "the gateway stops; resume here or elsewhere")

    async def send(self, message: Any) -> None:
        """What the stream says. A close waits for nobody: the slow reader is who it is for."""
        kind = message["type"]
        if kind == "websocket.close" and self.handshake_complete:
            self._end(message["code"], message.get("reason") or "")
            return
        await self.writable.wait()
        if self.close_sent or self.disconnected:
            raise ClientDisconnected
        if kind == "gateway.frames":
            self.transport.write(message["data"])
        else:
            await super().send(message)
            if kind == "websocket.http.response.body" and not message.get("more_body"):
                self.handshake_complete = True  # refused, and no error: uvicorn would log one

    def _end(self, code: int, reason: str) -> None:
        """Takes leave: behind what is buffered, and with an end to the wait for an answer."""
        self.stop_keepalive()
        if self.close_sent or self.transport.is_closing():
            return
        try:
            self.conn.send_close(code, reason)
        except InvalidState:  # the client was first
            self.transport.close()
            return
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(CLOSING, self.transport.abort)
