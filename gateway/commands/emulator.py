"""Serves a certificate for as long as something signed with its key is posted, where a vendor's
would be fetched. Answers that one path, and listens on loopback only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HERE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Stand:
    """Whether the certificate is served; `reason` says why it is not."""

    reason: str = ""


@contextmanager
def served(url: str, pem: str) -> Iterator[Stand]:
    """Serves a certificate at its URL while the block runs, if that is possible here. It is not
    always needed: a gateway on the same data folder knows the certificate."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in HERE:
        yield Stand(f"AWS_SNS_EMULATOR_URL is not of this machine: {parts.scheme}://{parts.netloc}")
        return
    try:
        server = ThreadingHTTPServer(
            ("127.0.0.1", parts.port or 80), _answering(parts.path, pem.encode())
        )
    except ValueError:
        yield Stand("AWS_SNS_EMULATOR_URL has no port from 1 to 65535")
        return
    except OSError:
        yield Stand(f"somebody else listens on {parts.netloc}, where AWS_SNS_EMULATOR_URL is")
        return
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Stand()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answering(path: str, pem: bytes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The certificate, and nothing else."""
            found = self.path == path
            self.send_response_only(200 if found else 404)
            self.send_header("Content-Length", str(len(pem) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(pem)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler
