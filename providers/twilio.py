"""Twilio Programmable Messaging: SMS, MMS and WhatsApp, through Twilio's SDK.

Every answer is judged from its status and body (`_twilio_answers`) before the SDK reads it. Makes
one POST for each message; what Twilio cannot do is refused before that.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import urljoin, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

from gateway.domain import (
    Change,
    Channel,
    Connection,
    FetchedMedia,
    Finding,
    Listing,
    OutboundMessage,
    Receipt,
    Record,
    Sender,
    Sought,
    VendorTemplate,
)
from gateway.errors import (
    Ambiguous,
    ProviderError,
    Rejected,
    SettingsError,
    Unreachable,
    Unsupported,
)
from providers import _twilio_content, _twilio_lookup, _twilio_setup
from providers._fetch import HOPS, REDIRECTS, described, fetch, refusal, too_large
from providers._twilio_answers import judge, receipt
from providers._twilio_message import CAPABILITIES, check, fields, said

if TYPE_CHECKING:
    from providers._http import Http

log = logging.getLogger(__name__)

# What Twilio said to the request of this task, past the SDK.
PAYLOAD: ContextVar[Mapping[str, Any]] = ContextVar("payload")

HOST = "api.twilio.com"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MEDIA_TIMEOUT = 60.0
EXTRA = "Twilio needs its extra: install messaging-gateway[twilio]."

# "Webhooks connection overrides": by default a callback is repeated once, and only if the
# connection failed. These stand in the fragment, which is neither sent nor signed.
RETRIES = "#rc=3&rp=all"

MEDIA = re.compile(r"(AC[0-9a-fA-F]{32})/([SM]M[0-9a-fA-F]{32})/(ME[0-9a-fA-F]{32})")
PHONE = re.compile(r"\+?[\d\s().-]+")


def normalised(value: object) -> object:
    """A sender as Twilio wants it, without a channel's prefix; numbers without decoration."""
    if not isinstance(value, str):
        return value
    bare = value.strip().removeprefix("whatsapp:").strip()
    return re.sub(r"[^+\d]", "", bare) if PHONE.fullmatch(bare) else bare


Number = Annotated[str, BeforeValidator(normalised)]


class TwilioSettings(BaseModel):
    """What the environment says of Twilio."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True)
    required: ClassVar[tuple[str, ...]] = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN")

    account_sid: str = Field("", alias="TWILIO_ACCOUNT_SID")
    auth_token: SecretStr = Field(SecretStr(""), alias="TWILIO_AUTH_TOKEN")
    phone_number: Number = Field("", alias="TWILIO_PHONE_NUMBER")
    whatsapp_number: Number = Field("", alias="TWILIO_WHATSAPP_NUMBER")
    messaging_service_sid: str = Field("", alias="TWILIO_MESSAGING_SERVICE_SID")
    api_url: str = Field(f"https://{HOST}", alias="TWILIO_API_URL")

    @field_validator("account_sid", "messaging_service_sid")
    @classmethod
    def _a_sid(cls, value: str) -> str:
        if (value := value.strip()) and not re.fullmatch(r"[A-Za-z0-9_]{1,64}", value):
            raise ValueError("must be a SID such as AC…, of letters and digits")
        return value

    @field_validator("api_url")
    @classmethod
    def _an_origin(cls, value: str) -> str:
        value = value.strip().rstrip("/")
        parts = urlsplit(value)
        secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        if not secure or not parts.hostname:
            raise ValueError("must be an https URL; http only for a loopback address")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must not have credentials, a query or a fragment")
        return value

    @property
    def signing_token(self) -> str:
        """The first of the tokens: the one that our own requests are made with."""
        tokens = (token.strip() for token in self.auth_token.get_secret_value().split(","))
        return next((token for token in tokens if token), "")


class Twilio:
    """Sends through one Twilio account."""

    name = "twilio"
    Settings = TwilioSettings
    capabilities = CAPABILITIES

    @classmethod
    def connection(cls, settings: TwilioSettings) -> Connection:
        """The connection that the environment makes."""
        senders = {}
        if settings.messaging_service_sid:
            senders[Channel.SMS] = Sender(pool=settings.messaging_service_sid)
        elif settings.phone_number:
            senders[Channel.SMS] = Sender(address=settings.phone_number)
        if settings.whatsapp_number:
            senders[Channel.WHATSAPP] = Sender(address=settings.whatsapp_number)
        return Connection(
            id="twilio",
            tenant_id="default",
            family="twilio",
            account=settings.account_sid,
            senders=senders,
        )

    def __init__(self, settings: TwilioSettings, *, http: Http, timeout: float) -> None:
        """Leaves the SDK for `warm`, or for the first send: it takes a tenth of a start.

        Raises:
            SettingsError: a variable, or the SDK, is missing.
        """
        given = (settings.account_sid, settings.signing_token)
        for variable, value in zip(settings.required, given, strict=True):
            if not value:
                raise SettingsError(f"{variable} is not set; Twilio cannot be used without it.")
        if find_spec("twilio") is None:
            raise SettingsError(EXTRA)
        self._settings = settings
        self._http = http
        self._timeout = timeout
        self._local = urlsplit(settings.api_url).hostname in LOOPBACK
        self._warned = False
        self._wire = _Wire(http, ":".join(given), timeout)

    @cached_property
    def _messages(self) -> Any:
        return _sdk(self._settings, self._wire).messages

    def warm(self) -> None:
        """Loads the SDK."""
        self._http.warm()
        _ = self._messages

    async def send(self, message: OutboundMessage) -> Receipt:
        """Creates one message at Twilio, by one POST."""
        check(message)
        asked = fields(message, self._callback(message.callback_url))
        PAYLOAD.set({})  # never a receipt of the message before
        try:
            await self._messages.create_async(**asked)
            return receipt(PAYLOAD.get())
        except ProviderError:
            raise
        except Exception as error:
            failure = Ambiguous(f"the SDK failed ({type(error).__name__})", code="sdk")
        raise failure

    def foresee(self, message: OutboundMessage, listed: Sequence[VendorTemplate]) -> None:
        """Refuses what Twilio's limits forbid. A list of content templates proves nothing: what is
        left open of one has a default there ("Using Variables with Content Templates")."""
        check(message)
        said(message)

    async def fetch_media(self, reference: str, limit: int) -> FetchedMedia:
        """Fetches a file of an inbound message: from the API, or from where the API sends us.

        Raises:
            Rejected: the reference is not one of this account, or the file is gone or too large.
        """
        url = self._media_url(reference)
        headers = {"Authorization": self._wire.authorization}
        try:
            answer = await self._http.request(
                "GET", url, headers=headers, timeout=MEDIA_TIMEOUT, limit=limit
            )
        except Ambiguous as error:  # reading twice harms nobody
            late = Unreachable(error.text, code=error.code)
            failure: ProviderError = late
            if error.code == "answer_too_large":
                failure = too_large(limit)
        else:
            if answer.status == 200:
                return described(answer.body, answer.headers)
            if answer.status in REDIRECTS:
                # Without credentials: the storage is another host, whoever it is.
                target = urljoin(url, answer.headers.get("Location", ""))
                return await fetch(target, limit=limit, timeout=MEDIA_TIMEOUT, hops=HOPS - 1)
            failure = refusal(answer.status, ours=True)
        raise failure

    async def look_up(self, sought: Sought) -> Listing:
        """Lists the messages that may be one whose answer was lost."""
        return await _twilio_lookup.look_up(self._mailbox(), sought)

    async def history(self, since: datetime, limit: int) -> Listing:
        """Lists what was sent and received since then, newest first."""
        return await _twilio_lookup.history(self._mailbox(), since, limit)

    async def complete(self, record: Record) -> Record:
        """Asks for the files of a message in the history."""
        return await _twilio_lookup.complete(self._mailbox(), record)

    def _mailbox(self) -> _twilio_lookup.Mailbox:
        return _twilio_lookup.Mailbox(
            http=self._http,
            authorization=self._wire.authorization,
            api_url=self._settings.api_url,
            sid=self._settings.account_sid,
        )

    async def mark_read(
        self, provider_message_id: str, *, typing: bool = False, ours: str | None = None
    ) -> None:
        """Shows that an answer is being written; there is no other way to mark as read."""
        if not typing:
            raise Unsupported("Twilio: marks as read only with a typing indicator", code="read")
        await _twilio_content.typing(self._desk(), provider_message_id)

    async def templates(self, anew: str = "") -> Sequence[VendorTemplate]:
        """The account's content templates."""
        return await _twilio_content.templates(self._desk())

    def _desk(self) -> _twilio_content.Desk:
        return _twilio_content.Desk(
            http=self._http,
            authorization=self._wire.authorization,
            api_url=self._settings.api_url,
            timeout=self._timeout,
        )

    async def check(self, webhook_url: str) -> Sequence[Finding]:
        """Looks at the account, its senders and where they post; changes nothing."""
        return await _twilio_setup.check(self._account(webhook_url), webhook_url)

    async def install(self, webhook_url: str, *, apply: bool) -> Sequence[Change]:
        """Tells Twilio where to post what comes in.

        Raises:
            ProviderError: Twilio refused, could not be asked, or could not call that URL.
        """
        return await _twilio_setup.install(self._account(webhook_url), webhook_url, apply=apply)

    def _account(self, webhook_url: str) -> _twilio_setup.Account:
        settings, parts = self._settings, urlsplit(webhook_url)
        public = parts.scheme == "https" and can_be_called(parts.hostname or "")
        return _twilio_setup.Account(
            http=self._http,
            authorization=self._wire.authorization,
            api_url=settings.api_url,
            sid=settings.account_sid,
            number=settings.phone_number,
            whatsapp=settings.whatsapp_number,
            service=settings.messaging_service_sid,
            overrides=RETRIES,
            reachable=self._local or public,
        )

    async def aclose(self) -> None:
        """Holds nothing: the session belongs to all."""

    def _media_url(self, reference: str) -> str:
        found = MEDIA.fullmatch(reference)
        if found is None or found[1] != self._settings.account_sid:
            raise Rejected("not a file of this account", code="reference")
        account, message, media = found.groups()
        path = f"/2010-04-01/Accounts/{account}/Messages/{message}/Media/{media}"
        return self._settings.api_url + path

    def _callback(self, url: str | None) -> str | None:
        """Where Twilio reports to; None where it could not, as it would refuse the message."""
        if not url:
            return None
        if self._local or can_be_called(urlsplit(url).hostname or ""):
            return url + RETRIES
        if not self._warned:
            self._warned = True
            log.warning("No status callbacks from Twilio: PUBLIC_URL is not a public address.")
        return None


class _Wire:
    """The shared HTTP client in the shape of the SDK's `AsyncHttpClient`.

    The SDK's own one ignores its time-out, follows the environment's proxies and may repeat POSTs.
    """

    is_async = True

    def __init__(self, http: Http, credentials: str, timeout: float) -> None:
        self.authorization = f"Basic {b64encode(credentials.encode()).decode()}"
        self._http = http
        self._timeout = timeout

    async def request(
        self,
        method: str,
        url: str,
        params: object = None,
        data: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        auth: object = None,
        timeout: object = None,
        allow_redirects: bool = False,
    ) -> Any:
        """Makes the SDK's request; an answer that is no clear yes is raised as an error of ours."""
        from twilio.http.response import Response  # type: ignore[import-untyped]

        named = {**(headers or {}), "Authorization": self.authorization}
        answer = await self._http.request(
            method, url, headers=named, data=data, timeout=self._timeout
        )
        PAYLOAD.set(judge(answer))
        # The SDK gets an empty body, which it takes for an empty resource: reading it again, with
        # its dates, costs as much as the rest of the SDK, and could fail on a message that is sent.
        return Response(answer.status, "")


def _sdk(settings: TwilioSettings, wire: _Wire) -> Any:
    from twilio.rest import Client  # type: ignore[import-untyped]

    # The SDK would read TWILIO_REGION and TWILIO_EDGE from the environment, and change the host
    # by them; an environment of our own, and not an empty one, prevents that.
    client = Client(
        settings.account_sid,
        settings.signing_token,
        http_client=wire,
        environment={"TWILIO_ACCOUNT_SID": settings.account_sid},
    )
    client.api.base_url = settings.api_url
    return client


@lru_cache(maxsize=64)
def can_be_called(host: str) -> bool:
    """Whether Twilio could reach a host; its name must be public and without underscores."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        private = ("localhost", "local", "internal", "lan", "arpa", "test", "invalid", "example")
        return "." in host and "_" not in host and host.rpartition(".")[2] not in private
