"""A Twilio account on loopback, as far as its set-up goes: its numbers, services and senders, in
the shapes of Twilio's API reference, changed by the POSTs that change them there."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.running import ACCOUNT, OURS, TOKEN

SERVICE = "MG00000000000000000000000000000001"
NUMBER = "PN00000000000000000000000000000001"
REFUSED = {"code": 20003, "message": "Authenticate", "status": 401}
MISSING = {"code": 20404, "message": "The requested resource was not found", "status": 404}


def number(**more: Any) -> dict[str, Any]:
    """A number as it is bought: it answers with a greeting of Twilio's."""
    return {
        "sid": NUMBER,
        "account_sid": ACCOUNT,
        "phone_number": OURS,
        "friendly_name": "(555) 000-9999",
        "capabilities": {"voice": True, "sms": True, "mms": True, "fax": False},
        "sms_url": "https://demo.twilio.com/welcome/sms/reply",
        "sms_method": "GET",
        "sms_fallback_url": "",
        "sms_fallback_method": "POST",
        "sms_application_sid": "",
        "status_callback": "",
        "status": "in-use",
        **more,
    }


def service(**more: Any) -> dict[str, Any]:
    """A messaging service as the console makes it."""
    return {
        "sid": SERVICE,
        "account_sid": ACCOUNT,
        "friendly_name": "Support",
        "inbound_request_url": None,
        "inbound_method": "POST",
        "fallback_url": None,
        "fallback_method": "POST",
        "status_callback": None,
        "use_inbound_webhook_on_number": True,
        **more,
    }


@dataclass
class TwilioAccount:
    """What there is at Twilio, and what was asked of it."""

    account: dict[str, Any] = field(
        default_factory=lambda: {"sid": ACCOUNT, "status": "active", "type": "Full"}
    )
    numbers: list[dict[str, Any]] = field(default_factory=lambda: [number()])
    short_codes: list[dict[str, Any]] = field(default_factory=list)
    services: list[dict[str, Any]] = field(default_factory=lambda: [service()])
    pool: list[dict[str, Any]] = field(default_factory=lambda: [{"sid": NUMBER}])
    senders: list[dict[str, Any]] = field(default_factory=list)
    token: str = TOKEN
    ahead: timedelta = timedelta()  # of its clock
    broken: dict[str, int] = field(default_factory=dict)  # a path's part, and the status it gets
    posts: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, url: str, form: dict[str, str]) -> tuple[int, Any]:
        """What Twilio says."""
        parts = urlsplit(url)
        for part, status in self.broken.items():
            if part in parts.path:
                return status, {"message": "an error of Twilio's, about +15550100001"}
        if method == "POST":
            self.posts.append((parts.path, form))
        mine = f"/2010-04-01/Accounts/{ACCOUNT}"
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        pages = {
            f"{mine}.json": self.account,
            f"{mine}/IncomingPhoneNumbers.json": {
                "incoming_phone_numbers": found(self.numbers, "phone_number", query, "PhoneNumber")
            },
            f"{mine}/SMS/ShortCodes.json": {
                "short_codes": found(self.short_codes, "short_code", query, "ShortCode")
            },
            f"/v1/Services/{SERVICE}/PhoneNumbers": {"phone_numbers": self.pool, "meta": {}},
            f"/v1/Services/{SERVICE}/ShortCodes": {"short_codes": [], "meta": {}},
            f"/v1/Services/{SERVICE}/AlphaSenders": {"alpha_senders": [], "meta": {}},
            "/v2/Channels/Senders": {"senders": self.senders, "meta": {}},
        }
        for kind, rows in (
            ("IncomingPhoneNumbers", self.numbers),
            ("SMS/ShortCodes", self.short_codes),
        ):
            pages |= {f"{mine}/{kind}/{row['sid']}.json": row for row in rows}
        pages |= {f"/v1/Services/{row['sid']}": row for row in self.services}
        page = pages.get(parts.path)
        if page is None:
            return 404, MISSING
        if form:
            changed(page, form)
        return 200, page


def found(rows: list[dict[str, Any]], key: str, query: dict[str, str], name: str) -> list[Any]:
    """The rows of a list that its filter lets through: Twilio takes parts of numbers."""
    return [row for row in rows if query.get(name, "") in row[key]]


def changed(row: dict[str, Any], form: dict[str, str]) -> None:
    """Changes a resource by the fields of a form."""
    for name, value in form.items():
        key = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        assert key in row, f"there is no {name}"
        row[key] = value == "true" if isinstance(row[key], bool) else value


@contextmanager
def twilio_account(**more: Any) -> Iterator[TwilioAccount]:
    """An account behind a real socket."""
    account = TwilioAccount(**more)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = parse_qs(body, keep_blank_values=True, strict_parsing=True)
            self.answer({name: values[0] for name, values in form.items()})

        def answer(self, form: dict[str, str]) -> None:
            proof = base64.b64encode(f"{ACCOUNT}:{account.token}".encode()).decode()
            status, said = 401, REFUSED
            if self.headers["Authorization"] == f"Basic {proof}":
                status, said = account.answer(self.command, self.path, form)
            body = json.dumps(said).encode()
            self.send_response_only(status)
            moment = datetime.now(UTC) + account.ahead
            self.send_header("Date", format_datetime(moment, usegmt=True))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    account.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield account
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
