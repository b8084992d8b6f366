"""What is told to whoever sent a webhook that is not taken, and what to the log. Says nothing that
helps somebody who guesses.
"""

from __future__ import annotations

import json

TITLES = {
    401: "The request is not signed",
    403: "The signature does not hold",
    404: "There is no such webhook",
    405: "Webhooks are POST requests",
    408: "The request took too long",
    413: "The request is too large",
    415: "The body is compressed",
    503: "Cannot be taken now",
}
DETAILS = {
    401: "The vendor's signature is missing.",
    403: "Nothing proves that the vendor sent it here; the gateway's log has the reason.",
    404: "No webhook has this name, or it is not set up.",
    405: "Send it by POST.",
    408: "The body did not come in time.",
    413: "The body is larger than a webhook's may be.",
    415: "Send it as it is, without Content-Encoding.",
    503: "It may not be stored; send it again later.",
}
CLOSE = (b"connection", b"close")

Spoken = tuple[int, list[tuple[bytes, bytes]], bytes]


class Refused(Exception):
    """An answer other than the vendor's: a status, and what to tell and to log. `why`: what is not
    logged yet. `rest`: some of the body is unread, and the connection ends with the answer."""

    def __init__(
        self,
        status: int,
        verdict: str,
        *headers: tuple[bytes, bytes],
        kind: str = "about:blank",
        why: str = "",
        rest: bool = False,
    ) -> None:
        super().__init__(verdict)
        self.status = status
        self.verdict = verdict
        self.headers = headers
        self.kind = kind
        self.why = why
        self.rest = rest


def problem(refused: Refused) -> Spoken:
    """The answer, by RFC 9457: a status, its headers and the body."""
    told = {
        "type": refused.kind,
        "title": TITLES[refused.status],
        "status": refused.status,
        "detail": DETAILS[refused.status],
    }
    body = json.dumps(told).encode()
    headers = [(b"content-type", b"application/problem+json"), *refused.headers]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Signature"))
    return refused.status, [*headers, (b"content-length", str(len(body)).encode())], body
