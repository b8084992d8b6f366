"""The console's webhook, for development: our own JSON, signed with a shared secret.

Plays a vendor on a developer's machine and in tests. The signature covers the time, the URL and
the body; what is older or newer than five minutes is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.domain import Answer, Event, Fake, Simulated, Unrecognised, Verified, WebhookRequest
from gateway.errors import Malformed, SettingsError, SignatureInvalid
from webhooks import _console_events
from webhooks._forms import read_json

SIGNATURE = "x-gateway-signature"
TIMESTAMP = "x-gateway-timestamp"
SECONDS = re.compile(r"[0-9]{1,12}")
FRESH = 300
MAX_EVENTS = 1000


class ConsoleWebhookSettings(BaseModel):
    """The shared secret; several, comma-separated, while rotating."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True)
    required: ClassVar[tuple[str, ...]] = ("CONSOLE_WEBHOOK_SECRET",)

    secret: SecretStr = Field(SecretStr(""), alias="CONSOLE_WEBHOOK_SECRET")


class ConsoleWebhook:
    """A webhook whose vendor is a developer."""

    name = "console"
    spoken = _console_events.SPOKEN
    Settings = ConsoleWebhookSettings
    kept_headers: frozenset[str] = frozenset()
    claimed_by = "X-Gateway-Signature"
    answer = Answer(status=204)

    @staticmethod
    def development() -> dict[str, str]:
        """A random secret for a developer's machine, as variables."""
        return {"CONSOLE_WEBHOOK_SECRET": secrets.token_hex(16)}

    def __init__(self, settings: ConsoleWebhookSettings, *, connection: str = "console") -> None:
        given = settings.secret.get_secret_value().split(",")
        self._secrets = tuple(secret.strip().encode() for secret in given if secret.strip())
        if not self._secrets:
            raise SettingsError("CONSOLE_WEBHOOK_SECRET is blank: set it to a random secret.")
        self._connection = connection

    def claims(self, headers: Mapping[str, str]) -> bool:
        """Whether a request says that this gateway's tools signed it."""
        return SIGNATURE in headers

    async def verify(self, request: WebhookRequest) -> Verified:
        """Proves that a holder of the secret signed it a short while ago.

        Raises:
            SignatureInvalid: it is not signed, not by that secret, or not now.
        """
        given, stamp = request.headers.get(SIGNATURE), request.headers.get(TIMESTAMP)
        if not given or not stamp:
            raise SignatureInvalid(f"{SIGNATURE} or {TIMESTAMP} is missing", missing=True)
        text = _signed(stamp, request.url, request.body)
        number = self._holds(text, given)
        _fresh(stamp, request.received_at)
        return Verified(
            webhook=self.name,
            connection=self._connection,
            request=request,
            key=hashlib.sha256(text).hexdigest(),
            verdict=f"console hmac-sha256 secret {number} of {len(self._secrets)}",
        )

    def _holds(self, text: bytes, given: str) -> int:
        wanted = given.encode("utf-8", "replace")
        for number, secret in enumerate(self._secrets, 1):
            if hmac.compare_digest(_signature(secret, text), wanted):
                return number
        raise SignatureInvalid(f"{SIGNATURE} is wrong: is CONSOLE_WEBHOOK_SECRET the sender's?")

    def parse(self, request: Verified) -> Sequence[Event]:
        """Reads `{"message": …}`, `{"status": …}` or `{"events": […]}`.

        One event that cannot be read does not take the others of its batch with it.

        Raises:
            Malformed: it is none of these.
        """
        try:
            body = read_json(request.request.body)
        except ValueError as error:
            raise Malformed(f"the body cannot be read: {error}") from None
        if not isinstance(body, dict):
            raise Malformed("the body is not an object")
        if "events" not in body:
            return self._events(body, request, 0)
        items = body["events"]
        if not isinstance(items, list) or not 0 < len(items) <= MAX_EVENTS:
            raise Malformed(f"events is not a list of 1 to {MAX_EVENTS}")
        return [e for n, item in enumerate(items) for e in self._one_of_many(item, request, n)]

    def _one_of_many(self, item: object, request: Verified, number: int) -> Sequence[Event]:
        try:
            if not isinstance(item, dict):
                raise Malformed("an event is not an object")
            return self._events(item, request, number)
        except Malformed as error:
            key = f"un:{request.key}:{number}"
            return [Unrecognised(dedupe_key=key, kind="malformed", detail=error.detail)]

    def _events(self, item: dict[str, Any], request: Verified, number: int) -> Sequence[Event]:
        key = f"{request.key}:{number}"
        if len(item) != 1:
            raise Malformed("an event has exactly one member, its kind")
        kind, facts = next(iter(item.items()))
        if kind in ("message", "status") and not isinstance(facts, dict):
            raise Malformed(f"the {kind} is not an object")
        if kind == "message":
            return [_console_events.message(facts, key)]
        if kind == "status":
            return list(_console_events.status(facts, request.request.url, key))
        return [Unrecognised(dedupe_key=f"un:{key}", kind=kind[:40])]

    def resign(self, request: Verified, fake: Fake) -> WebhookRequest:
        """Makes a request of the inbox anew, with other facts and our own signature.

        Raises:
            ValueError: its body is no JSON.
        """
        raw = request.request
        try:
            found = read_json(raw.body)
        except ValueError:
            raise ValueError("its body is no JSON: what is private in it is not known") from None
        body = json.dumps(fake("body", found), ensure_ascii=False).encode()
        return self._request(raw.url, body, raw.received_at)

    def sign(self, simulated: Simulated) -> WebhookRequest:
        """Makes a request as this webhook takes it."""
        now = datetime.now(UTC)  # the sender's own clock; `verify` reads none
        return self._request(simulated.url, _console_events.body(simulated), now)

    def _request(self, url: str, body: bytes, now: datetime) -> WebhookRequest:
        stamp = str(int(now.timestamp()))
        text = _signed(stamp, url, body)
        return WebhookRequest(
            method="POST",
            url=url,
            headers={
                "content-type": "application/json",
                TIMESTAMP: stamp,
                SIGNATURE: _signature(self._secrets[0], text).decode(),
            },
            body=body,
            received_at=now,
        )


def _signed(stamp: str, url: str, body: bytes) -> bytes:
    """Neither a timestamp nor a URL holds a line feed, so this cannot be cut in another way."""
    if SECONDS.fullmatch(stamp) is None or "\n" in url:
        raise SignatureInvalid(f"{TIMESTAMP} is not a number of seconds")
    return f"{stamp}\n{url}\n".encode("utf-8", "surrogatepass") + body


def _signature(secret: bytes, text: bytes) -> bytes:
    return b"v1=" + hmac.digest(secret, text, "sha256").hex().encode()


def _fresh(stamp: str, received_at: datetime) -> None:
    if abs(received_at.timestamp() - int(stamp)) > FRESH:
        raise SignatureInvalid(
            f"{TIMESTAMP} is more than {FRESH} s away from this machine's time: check the clocks"
        )
