"""SendGrid's Inbound Parse: emails of people, posted as forms to an address that nobody else knows.

They are not signed unless a security policy says so; the secret stands in the URL, as its last
part or as the password before the host. It is in no request that is kept, and no email is read
here (`_mail_child`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.domain import (
    Answer,
    Event,
    Fake,
    Mail,
    Simulated,
    Verified,
    WebhookRequest,
)
from gateway.errors import Malformed, SettingsError, SignatureInvalid
from webhooks import _sendgrid_signature
from webhooks._mail_written import NOBODYS, form_of
from webhooks._sendgrid_signature import SIGNATURE, TIMESTAMP

SECRET, PUBLIC = "SENDGRID_INBOUND_SECRET", "SENDGRID_INBOUND_PUBLIC_KEY"
PRIVATE = "SENDGRID_INBOUND_DEVELOPMENT_KEY"
PROGRAM = Path(__file__).with_name("_mail_child.py")
FORM = "multipart/form-data"
SHORTEST = 32
FIT = re.compile(r"[A-Za-z0-9_.~-]+")


class SendgridInboundSettings(BaseModel):
    """What the webhook needs to know."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True)
    required: ClassVar[tuple[str, ...]] = (SECRET,)

    secret: SecretStr = Field(SecretStr(""), alias="SENDGRID_INBOUND_SECRET")
    public_key: str = Field("", alias="SENDGRID_INBOUND_PUBLIC_KEY")
    max_bytes: int = Field(
        30 * 1024 * 1024, alias="INBOUND_MAIL_MAX_BYTES", ge=1024, le=100 * 1024 * 1024
    )
    development_key: SecretStr = Field(
        SecretStr(""), alias="SENDGRID_INBOUND_DEVELOPMENT_KEY", exclude=True
    )


class SendgridInboundWebhook:
    """The emails of one account."""

    name = "sendgrid_inbound"
    Settings = SendgridInboundSettings
    kept_headers = frozenset({TIMESTAMP})
    claimed_by = "X-Twilio-Email-Event-Webhook-Signature"
    spoken: frozenset[str] = frozenset()
    answer = Answer(status=200)

    @staticmethod
    def development() -> dict[str, str]:
        """A secret for a developer's machine, and a key that stands for a policy as long as that
        secret is the one in use."""
        secret, (_, private) = secrets.token_urlsafe(32), _sendgrid_signature.key_pair()
        return {SECRET: secret, PRIVATE: f"{secret}:{private}"}

    def __init__(self, settings: SendgridInboundSettings, *, connection: str = "sendgrid") -> None:
        """Reads the secrets: several, by commas, while one is changed for another.

        Raises:
            SettingsError: there is none, or one is too short, or a key cannot be read.
        """
        self._settings = settings
        self._connection = connection
        given = [s.strip() for s in settings.secret.get_secret_value().split(",") if s.strip()]
        if not given or not all(len(s) >= SHORTEST and FIT.fullmatch(s) for s in given):
            raise SettingsError(
                f"{SECRET} must have at least {SHORTEST} characters of A-Z, a-z, 0-9, - and _; "
                "without it nobody could tell SendGrid's emails from others."
            )
        self._secrets = [each.encode() for each in given]
        self._keys = _sendgrid_signature.public_keys(settings.public_key, PUBLIC)
        belongs_to, _, self._private = settings.development_key.get_secret_value().partition(":")
        if not self._keys and given == [belongs_to]:
            self._keys = [_sendgrid_signature.private_key(self._private).public_key()]

    def claims(self, headers: Mapping[str, str]) -> bool:
        """Whether a request says that it is a signed form."""
        return SIGNATURE in headers and headers.get("content-type", "").lower().startswith(FORM)

    def admit(self, request: WebhookRequest) -> int:
        """How many bytes may come, before they do.

        Raises:
            SignatureInvalid: whoever calls does not know the secret.
        """
        offered = _offered(request)
        if not offered:
            raise SignatureInvalid("there is no secret in the URL", missing=True)
        if not any(hmac.compare_digest(s, each) for s in self._secrets for each in offered):
            raise SignatureInvalid(f"the secret in the URL is not one of {SECRET}")
        if self._keys and SIGNATURE not in request.headers:
            raise SignatureInvalid(f"the header {SIGNATURE} is missing", missing=True)
        return self._settings.max_bytes

    async def verify(self, request: WebhookRequest) -> Verified:
        """Proves that who posts knows the secret; and, with a policy, that SendGrid signed it.

        Raises:
            SignatureInvalid: one of them is missing, or does not hold.
        """
        self.admit(request)
        verdict = "sendgrid secret"
        if self._keys:
            number = _sendgrid_signature.verified_by(request, self._keys, PUBLIC)
            verdict = f"sendgrid secret and key {number + 1}"
        hidden = (SIGNATURE, "authorization")
        headers = {n: v for n, v in request.headers.items() if n not in hidden}
        return Verified(
            webhook=self.name,
            connection=self._connection,
            request=replace(request, url=_without_secret(request.url), headers=headers),
            key=hashlib.sha256(request.body).hexdigest(),
            verdict=verdict,
        )

    def parse(self, request: Verified) -> Sequence[Event]:
        """The email, to be read later.

        Raises:
            Malformed: it is no form.
        """
        kind = request.request.headers.get("content-type", "")
        if not kind.lower().startswith(FORM) or "boundary=" not in kind.lower():
            raise Malformed(f"it is no {FORM}")
        return [
            Mail(
                dedupe_key=f"ma:{request.key}",
                program=PROGRAM,
                order={"form": True, "content_type": kind[:500]},
                data=request.request.body,
                occurred_at=None,
            )
        ]

    def sign(self, simulated: Simulated) -> WebhookRequest:
        """Makes the request that SendGrid would send, with the development key.

        Raises:
            ValueError: there is no such key, or SendGrid has no way to say that.
        """
        now = datetime.now(UTC)  # the sender's own clock; `verify` reads none
        if simulated.message is None:
            raise ValueError("only an email can be simulated, and there is none")
        body, kind = form_of(simulated.message, now)
        password = base64.b64encode(b"gateway:" + self._secrets[0]).decode()
        return WebhookRequest(
            method="POST",
            url=simulated.url,
            headers={
                "content-type": kind,
                "authorization": f"Basic {password}",
                **self._proof(body, str(int(now.timestamp()))),
            },
            body=body,
            received_at=now,
        )

    def resign(self, request: Verified, fake: Fake) -> WebhookRequest:
        """Makes a request of the inbox anew: an email of nobody's, with the development key.

        Raises:
            ValueError: there is no such key.
        """
        raw = request.request
        body, kind = form_of(NOBODYS, raw.received_at)
        stamp = str(int(raw.received_at.timestamp()))
        return replace(
            raw,
            url=f"{raw.url}/{self._secrets[0].decode()}",
            headers={"content-type": kind, **self._proof(body, stamp)},
            body=body,
        )

    def _proof(self, body: bytes, stamp: str) -> dict[str, str]:
        key = _sendgrid_signature.private_key(self._private)
        return _sendgrid_signature.headers(key, body, stamp)


def _offered(request: WebhookRequest) -> list[bytes]:
    """What may be the secret: the last part of the path, and the password of Basic credentials."""
    found: list[bytes] = []
    try:
        last = urlsplit(request.url).path.rpartition("/")[2]
    except ValueError:
        last = ""
    if len(last) >= SHORTEST:
        found.append(last.encode("utf-8", "replace"))
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            found.append(base64.b64decode(given, validate=True).partition(b":")[2])
        except (binascii.Error, ValueError):
            found.append(b"")
    return found


def _without_secret(url: str) -> str:
    """The address without what only SendGrid is told."""
    parts = urlsplit(url)
    before, _, last = parts.path.rpartition("/")
    path = before if len(last) >= SHORTEST else parts.path
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{path}"
