"""Twilio's messaging webhooks: inbound SMS, MMS, WhatsApp and RCS, and status callbacks.

Verifies X-Twilio-Signature itself, over the public URL and every field; reads nothing that was
not signed. Never asks Twilio anything, and never takes part of a URL from a header.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from typing import ClassVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.domain import (
    FETCHED,
    Answer,
    Event,
    Fake,
    Money,
    Simulated,
    StatusUpdate,
    Unrecognised,
    VendorError,
    Verified,
    WebhookRequest,
)
from gateway.errors import Malformed, SettingsError, SignatureInvalid, clean
from webhooks import _twilio_message, _twilio_resource, _twilio_simulated
from webhooks._forms import Form, read_form, read_json
from webhooks._twilio_exact import address, check, sid, whole
from webhooks._twilio_tables import REASONS, SPOKEN, STATUSES, TELLING

SIGNATURE = "x-twilio-signature"
SETTINGS = "x-twilio-webhooks-signature-settings"
API = "https://api.twilio.com"

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?]*)(.*)", re.DOTALL)
PORT = re.compile(r":[0-9]*$")
DEFAULT_PORTS = {"https": ":443", "http": ":80"}
BODY_HASH = re.compile(r"[?&]bodySHA256=([^&#]*)")
ATTEMPT = re.compile(r"[?&]attempt=([^&#]*)")
TOLD = frozenset({"attempt", "bodySHA256"})
ATTEMPT_ID = re.compile(r"att_[0-9A-Za-z]{20,40}")
PRICE = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?")
CURRENCY = re.compile(r"[A-Z]{3}")
HEX = "[0-9a-f]{32}"
WORD = re.compile(r"[a-z0-9_-]{1,40}")
SAID = ("Body", "NumMedia", "MessageType", "MediaUrl0", "Latitude", "ButtonText", "ListId")


class TwilioWebhookSettings(BaseModel):
    """What the webhook needs to know. `auth_token` may be several, comma-separated."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True)
    required: ClassVar[tuple[str, ...]] = ("TWILIO_AUTH_TOKEN",)

    account_sid: str = Field("", alias="TWILIO_ACCOUNT_SID")
    auth_token: SecretStr = Field(SecretStr(""), alias="TWILIO_AUTH_TOKEN")
    api_url: str = Field(API, alias="TWILIO_API_URL")


class TwilioWebhook:
    """One connection's webhooks."""

    name = "twilio"
    Settings = TwilioWebhookSettings
    spoken = SPOKEN
    kept_headers = frozenset({"i-twilio-idempotency-token", "x-home-region"})
    claimed_by = "X-Twilio-Signature"
    # Twilio, "How to respond to messages": TwiML without a verb says nothing to the person. Plain
    # text would be sent as a reply.
    answer = Answer(
        status=200,
        content_type="text/xml",
        body=b'<?xml version="1.0" encoding="UTF-8"?><Response/>',
    )

    @staticmethod
    def development() -> dict[str, str]:
        """Random credentials for a developer's machine, as variables."""
        return {
            "TWILIO_ACCOUNT_SID": "AC" + secrets.token_hex(16),
            "TWILIO_AUTH_TOKEN": secrets.token_hex(16),
        }

    def __init__(self, settings: TwilioWebhookSettings, *, connection: str = "twilio") -> None:
        tokens = settings.auth_token.get_secret_value().split(",")
        self._tokens = tuple(token.strip().encode() for token in tokens if token.strip())
        if not self._tokens:
            raise SettingsError(
                "TWILIO_AUTH_TOKEN is blank: set it to the Auth Token of the Twilio account."
            )
        self._account = settings.account_sid
        self._api = settings.api_url.rstrip("/") or API
        self._connection = connection
        bases = "|".join(sorted({re.escape(API), re.escape(self._api)}))
        self._ids_of = re.compile(
            rf"(?:{bases})/2010-04-01/Accounts/(AC{HEX})/Messages/([SM]M{HEX})/Media/(ME{HEX})"
        )

    def claims(self, headers: Mapping[str, str]) -> bool:
        """Whether a request says that Twilio signed it."""
        return SIGNATURE in headers

    async def verify(self, request: WebhookRequest) -> Verified:
        """Proves that a holder of the Auth Token signed the URL and every field.

        Raises:
            SignatureInvalid: nothing was signed, or not this.
        """
        given = request.headers.get(SIGNATURE)
        if not given:
            raise SignatureInvalid(
                f"X-Twilio-Signature is missing in a request for {shown(request.url)}", missing=True
            )
        form = signed_form(request)
        fields = form.joined if form is not None else ""
        wanted = given.encode("utf-8", "surrogatepass")
        for url in candidates(request.url):
            text = (url + fields).encode("utf-8", "surrogatepass")
            for number, token in enumerate(self._tokens, 1):
                if hmac.compare_digest(_signature(token, text), wanted):
                    return self._verified(request, form, fields, number)
        raise SignatureInvalid(self._why(request))

    def _verified(
        self, request: WebhookRequest, form: Form | None, fields: str, number: int
    ) -> Verified:
        named = (canonical(request.url) + fields).encode("utf-8", "surrogatepass")
        return Verified(
            webhook=self.name,
            connection=self._connection,
            request=request,
            key=hashlib.sha256(named).hexdigest(),
            verdict=f"twilio hmac-sha1 token {number} of {len(self._tokens)}",
            reading=form,
        )

    def _why(self, request: WebhookRequest) -> str:
        shared = (
            " It names a shared key (X-Twilio-Webhooks-Signature-Settings); only Auth Tokens are"
            " configured."
            if SETTINGS in request.headers
            else ""
        )
        return (
            f"X-Twilio-Signature is wrong for {shown(request.url)}.{shared} Is PUBLIC_URL the"
            " address that Twilio calls, and TWILIO_AUTH_TOKEN that account's?"
        )

    def parse(self, request: Verified) -> Sequence[Event]:
        """Reads the one event of a request, or of a message that Twilio's API told us of.

        Raises:
            Malformed: there is nothing to read, or it could be read in two ways.
        """
        raw = request.request
        if request.verdict in FETCHED:
            told, when = _twilio_resource.form_of(raw.body, self._api)
            return (_twilio_resource.dated(self._event(told, raw.url, request.key), when),)
        try:
            if is_json(raw.headers):  # Event Streams and the like; messages are always forms
                read_json(raw.body)
                return (Unrecognised(dedupe_key=f"un:{request.key}", kind="json"),)
            form = request.reading
            if not isinstance(form, Form):
                form = read_form(raw.body)
        except ValueError as error:
            raise Malformed(f"the body cannot be read: {error}") from None
        return (self._event(form, raw.url, request.key),)

    def _event(self, form: Form, url: str, key: str) -> Event:
        name = next((n for n in ("MessageSid", "SmsSid", "SmsMessageSid") if form.get(n)), None)
        if name is None:
            return Unrecognised(dedupe_key=f"un:{key}", kind=_other_kind(form))
        check(form)
        message_sid = sid(form, name) or ""
        status = form.text("MessageStatus") or form.text("SmsStatus") or "received"
        # A callback's field may stand beside SmsStatus=received, which only a message has.
        if form.get("SmsStatus") == "received" or status == "received":
            if form.get("SmsStatus") == "received" or any(field in form for field in SAID):
                return _twilio_message.read(form, self._ids_of, message_sid, key)
            return Unrecognised(dedupe_key=f"un:{key}", kind="message:empty")
        return _status(form, url, message_sid, status.strip().lower(), key)

    def sign(self, simulated: Simulated) -> WebhookRequest:
        """Makes the request that Twilio would send."""
        url, body = _twilio_simulated.post(simulated, self._account, self._api)
        text = (url + read_form(body).joined).encode()
        headers = {SIGNATURE: _signature(self._tokens[0], text).decode()}
        return _twilio_simulated.request(url, body, headers)

    def resign(self, request: Verified, fake: Fake) -> WebhookRequest:
        """Makes a request of the inbox anew, with other facts and our own signature.

        Raises:
            ValueError: its body is not a form.
        """
        raw = request.request
        if is_json(raw.headers) or BODY_HASH.search(raw.url):
            raise ValueError("it is no form: what is private in its JSON is not known")
        pairs = [(n, self._faked(n, value, fake)) for n, value in read_form(raw.body).pairs]
        body = urlencode(pairs).encode()
        text = (raw.url + read_form(body).joined).encode()
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            SIGNATURE: _signature(self._tokens[0], text).decode(),
        }
        return replace(raw, headers=headers, body=body)

    def _faked(self, name: str, value: str, fake: Fake) -> str:
        match = self._ids_of.fullmatch(value)
        if match is None:
            return str(fake(name, value))
        account, message, file = (fake("sid", part) for part in match.groups())
        return f"{API}/2010-04-01/Accounts/{account}/Messages/{message}/Media/{file}"


def _signature(token: bytes, text: bytes) -> bytes:
    return base64.b64encode(hmac.digest(token, text, "sha1"))


def is_json(headers: Mapping[str, str]) -> bool:
    """Whether the body says that it is JSON. Everything else is read as a form."""
    essence = headers.get("content-type", "").partition(";")[0].strip().lower()
    return essence == "application/json" or essence.endswith("+json")


def signed_form(request: WebhookRequest) -> Form | None:
    """What is signed besides the URL: a form's fields, or nothing (None) for JSON.

    Twilio, "Webhooks security": a JSON body is bound by its SHA-256 in the signed query. Without
    it nothing binds the body. A form without fields would make the same signature as the JSON of
    the same URL, so it is refused there.

    Raises:
        SignatureInvalid: the body cannot be bound to the signature.
    """
    hashes = BODY_HASH.findall(request.url)
    if is_json(request.headers):
        wanted = hashes[0].lower().encode("utf-8", "replace") if len(hashes) == 1 else b""
        found = hashlib.sha256(request.body).hexdigest().encode()
        if not hmac.compare_digest(found, wanted):
            raise SignatureInvalid("the JSON body is not the one whose bodySHA256 was signed")
        return None
    try:
        form = read_form(request.body)
    except ValueError as error:
        raise SignatureInvalid(f"the body cannot be checked: {error}") from None
    if hashes and not form.pairs:
        raise SignatureInvalid("the signed URL promises a body (bodySHA256) and there is none")
    return form


def candidates(url: str) -> Iterator[str]:
    """The URLs that Twilio may have signed for this one: at most twelve.

    Twilio's own libraries disagree about ports (with or without), about the case of the scheme
    and about `'` and `%27`; each of their published vectors holds for one of these. Userinfo is
    part of what is signed, a fragment never is.
    """
    url = url.partition("#")[0]
    yield url
    match = URL.fullmatch(url)
    if match is None:
        return
    scheme, authority, rest = match.groups()
    bare = PORT.sub("", authority)
    other = bare if bare != authority else bare + DEFAULT_PORTS.get(scheme.lower(), "")
    seen = {url}
    for s in (scheme, scheme.lower()):
        for a in (authority, other):
            for r in (rest, rest.replace("'", "%27"), rest.replace("%27", "'")):
                if (candidate := f"{s}://{a}{r}") not in seen:
                    seen.add(candidate)
                    yield candidate


@lru_cache(maxsize=64)
def canonical(url: str) -> str:
    """One spelling for all the candidates of a URL, so that they share one inbox key."""
    match = URL.fullmatch(url.partition("#")[0])
    if match is None:
        return url
    scheme, authority, rest = match.groups()
    return f"{scheme.lower()}://{PORT.sub('', authority)}{rest.replace('%27', chr(39))}"


def shown(url: str) -> str:
    """A URL for the log: bounded, and without userinfo. Of its query only what is ours or Twilio's
    keeps its value: anything else may be a secret of whoever entered it, or about a person."""
    match = URL.fullmatch(url)
    if match is None:
        return "an unreadable URL"
    scheme, authority, rest = match.groups()
    path, mark, query = rest.partition("?")
    told = "&".join(_told(part) for part in query.split("&"))
    text = f"{scheme}://{authority.rpartition('@')[2]}{path}{mark}{told}"
    return text if len(text) <= 140 else text[:139] + "…"


def _told(part: str) -> str:
    name, mark, _ = part.partition("=")
    return part if name in TOLD or not part else f"{name}=…" if mark else "…"


def _other_kind(form: Form) -> str:
    """What a request without a message's sid is about.

    Raises:
        Malformed: about nothing at all.
    """
    if form.get("CallSid"):
        word = (form.get("CallStatus") or "").lower()
        return f"call:{word}" if WORD.fullmatch(word) else "call"
    subjects = [n for n, v in form.pairs if n.endswith("Sid") and n != "AccountSid" and v]
    if not subjects:
        raise Malformed("the form names no message")
    return f"other:{subjects[0].removesuffix('Sid').lower()[:40]}"


def _status(form: Form, url: str, message_sid: str, word: str, key: str) -> Event:
    status = STATUSES.get(word)
    if status is None:
        kind = f"status:{word}" if WORD.fullmatch(word) else "status:unreadable"
        return Unrecognised(dedupe_key=f"un:{key}", kind=kind)
    recipient, sender = address(form, "To"), address(form, "From")
    named = recipient or sender
    error, account = _error(form, word), sid(form, "AccountSid")
    # Whom it is about belongs to what it says: one about somebody else hides no true one.
    said = (message_sid, word, error.code if error else "", account, recipient and recipient.text)
    return StatusUpdate(
        dedupe_key="st:" + ":".join(part or "" for part in said),
        status=status,
        vendor_status=word,
        attempt_id=_attempt(form, url),
        provider_message_id=message_sid,
        account=account,
        channel=named.channel if named else None,
        sender=sender.text if sender else None,
        recipient=recipient.text if recipient else None,
        error=error,
        segments=_twilio_message.whole_number(form.get("NumSegments")),
        cost=_cost(form),
    )


def _error(form: Form, word: str) -> VendorError | None:
    """Why it failed. ErrorCode 0 is no error. (RawDlrDoneDate is no time of anything: it has no
    zone, and may lie before the message was sent.)"""
    code = clean(form.text("ErrorCode") or "")[:32]
    if not code.strip("0"):
        if word not in TELLING:
            return None
        code = word
    said = form.text("ErrorMessage") or form.text("ChannelStatusMessage")
    return VendorError(code=code, message=clean(said) if said else None, reason=REASONS.get(code))


def _cost(form: Form) -> Money | None:
    price, currency = form.get("Price") or "", (form.get("PriceUnit") or "").upper()
    if PRICE.fullmatch(price) is None or CURRENCY.fullmatch(currency) is None:
        return None
    return Money(amount=abs(Decimal(price)), currency=currency)


def _attempt(form: Form, url: str) -> str | None:
    """Our id of the attempt, out of the callback's URL. The URL is signed right before the first
    field, so it is held to the same rules as the fields are."""
    found = ATTEMPT.findall(url)
    if len(found) != 1 or ATTEMPT_ID.fullmatch(found[0]) is None:
        return None
    return found[0] if whole(form, "", found[0]) else None
