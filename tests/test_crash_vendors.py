"""A vendor that stalls, drops, drips, or answers what it should not: from HTTP in to the wire.

The vendor counts its requests. Held messages are on the wire once where it may have been taken;
`resend` asks for one more. What was surely not taken is tried again, what was refused is not. A
callback for the attempt settles whatever is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.running import ACCOUNT, OURS, Client, eventually, in_thread, twilio, variables
from tests.vendors import Behaviour, Fault, LoopbackVendor, Reply, Request

YES = b'{"sid":"SM00000000000000000000000000000001","status":"queued"}'


@dataclass(frozen=True)
class Odd:
    """What a vendor does once, and what becomes of a message that is held, and of one that is not:
    the status and the number of requests."""

    does: Behaviour
    held: tuple[str, int] = ("unknown", 1)
    resent: tuple[str, int] = ("accepted", 2)


def refusal(status: int, code: int | None = None, **headers: str) -> Reply:
    """An error as Twilio writes it."""
    body = b'{"code":%d,"message":"no","status":%d}' % (code, status) if code else b"no"
    return Reply(status=status, body=body, headers=headers)


AGAIN = ("accepted", 2), ("accepted", 2)  # asked again, since nothing was taken
NEVER = ("failed", 1), ("failed", 1)
ODD: Mapping[str, Odd] = {
    "stalls": Odd(Fault.STALL),
    "drops the connection at once": Odd(Fault.DROP_BEFORE, ("unknown", 0), ("accepted", 1)),
    "drops it after the request": Odd(Fault.DROP_AFTER),
    "drips": Odd(Reply(status=201, body=YES, drip=0.2)),
    "stops in the middle": Odd(Reply(status=201, body=YES[:20], declared=len(YES), close=True)),
    "301": Odd(Reply(status=301, headers={"Location": "/elsewhere"})),
    "303": Odd(Reply(status=303, headers={"Location": "/elsewhere"})),
    "307": Odd(Reply(status=307, headers={"Location": "/elsewhere"})),
    "400 for the number": Odd(refusal(400, 21211), *NEVER),
    "429": Odd(refusal(429, 20429, **{"Retry-After": "1"}), *AGAIN),
    "500": Odd(refusal(500)),
    "503 with a code": Odd(refusal(503, 20503)),
    "garbage for an answer": Odd(b"\x00\xff garbage\r\n\r\n"),
    "a page for an answer": Odd(Reply(body=b"<html>It works!</html>")),
    "201 without an id": Odd(Reply(status=201, body=b'{"status":"queued"}')),
    "204": Odd(Reply(status=204)),
}
QUICK = ("stalls", "drips")  # then we are to lose patience soon


@pytest.mark.parametrize("name", ODD)
def test_a_vendor_that_does_this_gets_no_message_twice_and_loses_none(
    name: str, url: str, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    odd = ODD[name]
    own = {"SEND_TIMEOUT": "2s" if name in QUICK else "10s", "LOOKUP_AFTER": "0"}
    with in_thread(variables(tmp_path, url, **twilio(vendor.url), **own)) as client:
        for number, (policy, expected) in enumerate(
            (("hold", odd.held), ("resend", odd.resent)), 1
        ):
            vendor.plan.append(odd.does)
            body = f"{policy} {name}"
            id_ = client.send(to=f"+1555010{number:04d}", body=body, on_unknown=policy)["id"]
            message = client.until(id_, expected[0])
            eventually(lambda: not vendor.plan, "the vendor's fault")
            found = asked(vendor, body)
            assert len(found) == expected[1]
            assert {request.path.rpartition("/")[2] for request in found} <= {"Messages.json"}
            check(client, message, found)


def asked(vendor: LoopbackVendor, body: str) -> list[Request]:
    """The vendor's count."""
    return [request for request in vendor.requests if request.field("Body") == body]


def check(client: Client, message: dict[str, Any], found: list[Request]) -> None:
    """What the attempts say is what was on the wire; and the vendor has the last word."""
    first = message["attempts"][0]
    if message["status"] == "accepted":
        assert message["attempts"][-1]["status"] == "accepted"
        assert first["status"] in ("failed", "unknown")
    if len(found) < len(message["attempts"]) or message["status"] == "failed":
        return
    told = delivered(client, found[0], message["id"])
    attempt = told["attempts"][0]
    if first["status"] == "unknown":
        assert (told["status"], attempt["status"]) == ("delivered", "delivered")


def delivered(client: Client, request: Request, id_: str) -> dict[str, Any]:
    """The vendor says that the first request of a message arrived, though we had no answer."""
    (callback,) = request.form["StatusCallback"]
    parts = urlsplit(callback)
    form = {
        "MessageSid": f"SM{request.given or id_[-32:]}",
        "AccountSid": ACCOUNT,
        "From": OURS,
        "To": str(request.field("To")),
        "MessageStatus": "delivered",
    }
    assert client.webhook(f"{parts.path}?{parts.query}", form).ok
    return client.message(id_)


def test_an_account_that_is_refused_loses_no_message(
    url: str, tmp_path: Path, vendor: LoopbackVendor
) -> None:
    vendor.plan.append(refusal(401, 20003))
    own = {"BREAKER_OPEN_FOR": "200ms", "LOOKUP_AFTER": "0"}
    with in_thread(variables(tmp_path, url, **twilio(vendor.url), **own)) as client:
        ids = [client.send(to=f"+1555010{n:04d}", body=f"n{n}")["id"] for n in range(3)]
        for id_ in ids:
            assert client.until(id_, "accepted")
    bodies = [request.field("Body") for request in vendor.requests]
    assert len(bodies) == 4  # the one that was refused, once more
    assert set(bodies) == {"n0", "n1", "n2"}
