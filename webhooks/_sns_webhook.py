"""Signed envelopes of SNS: whatever AWS tells by topics, and its subscriptions.

The webhooks of AWS's products are this one, each under the name of its product. Believes no header,
visits no URL that was not built from an allow-listed topic, and never one of an
UnsubscribeConfirmation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.domain import Answer, Event, Fake, Handshake, Simulated, Verified, WebhookRequest
from gateway.errors import Malformed, Rejected, SettingsError, SignatureInvalid, Unreachable
from webhooks import (
    _sns_certificates,
    _sns_confirm,
    _sns_envelope,
    _sns_http,
    _sns_kinds,
    _sns_simulated,
)
from webhooks._forms import read_json, storable
from webhooks._sns_certificates import Certificates
from webhooks._sns_confirm import AccessKey, Credentials, NotAllowed
from webhooks._sns_topics import (
    Topic,
    check_certificate_url,
    check_subscribe_url,
    confirmable,
    confirming,
    emulator_origin,
    topics,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

TOPICS, EMULATOR = "AWS_SNS_TOPIC_ARNS", "AWS_SNS_EMULATOR_URL"
KEY, CERTIFICATE = "AWS_SNS_DEVELOPMENT_KEY", "AWS_SNS_DEVELOPMENT_CERTIFICATE"

TYPE = "x-amz-sns-message-type"
RAW = "x-amz-sns-rawdelivery"
ALGORITHMS = {"1": "sha1", "2": "sha256"}
CONFIRM_WITHIN = 30.0


class SnsSettings(BaseModel):
    """What the webhook needs to know. What development makes for itself is no setting of anybody:
    it is excluded from what is documented."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True)
    required: ClassVar[tuple[str, ...]] = (TOPICS,)
    development_only: ClassVar[tuple[str, ...]] = (EMULATOR,)

    topic_arns: str = Field("", alias="AWS_SNS_TOPIC_ARNS")
    emulator_url: str = Field("", alias="AWS_SNS_EMULATOR_URL")
    region: str = Field("", alias="AWS_REGION")
    key_id: str = Field("", alias="AWS_ACCESS_KEY_ID")
    secret: SecretStr = Field(SecretStr(""), alias="AWS_SECRET_ACCESS_KEY")
    session: SecretStr = Field(SecretStr(""), alias="AWS_SESSION_TOKEN")
    endpoint: str = Field("", alias="AWS_ENDPOINT_URL")
    env: Literal["development", "production"] = Field("production", alias="GATEWAY_ENV")
    development_key: SecretStr = Field(SecretStr(""), alias="AWS_SNS_DEVELOPMENT_KEY", exclude=True)
    development_certificate: str = Field("", alias="AWS_SNS_DEVELOPMENT_CERTIFICATE", exclude=True)


class SnsWebhook:
    """One connection's topics. Each takes every kind of content, under whichever name."""

    name: str
    spoken = _sns_kinds.SPOKEN
    Settings = SnsSettings
    kept_headers: frozenset[str] = frozenset()  # none is signed, and one names the subscription
    claimed_by = "x-amz-sns-message-type"
    answer = Answer(status=200)

    @staticmethod
    def development() -> dict[str, str]:
        """A key, its certificate and a topic for a developer's machine, as variables."""
        key, certificate = _sns_simulated.key_pair()
        return {
            "GATEWAY_ENV": "development",
            TOPICS: _sns_simulated.TOPIC,
            EMULATOR: f"http://127.0.0.1:{_sns_simulated.free_port()}",
            KEY: key,
            CERTIFICATE: certificate,
        }

    def __init__(
        self,
        settings: SnsSettings,
        *,
        connection: str = "aws",
        fetch: _sns_http.Fetch = _sns_http.fetch,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._fetch = fetch
        self._topics = topics(settings.topic_arns, TOPICS)
        self._emulator = emulator_origin(settings.emulator_url, EMULATOR)
        if self._emulator and settings.env != "development":
            raise SettingsError(
                f"{EMULATOR} is for development only: unset it, or set GATEWAY_ENV=development."
            )
        ours = {url: self.certificate.encode()} if (url := self.certificate_url) else {}
        self._certificates = Certificates(fetch, ours)

    @property
    def certificate(self) -> str:
        """The development certificate, as PEM; blank in production."""
        return self._settings.development_certificate if self._emulator else ""

    @property
    def certificate_url(self) -> str:
        """The URL that simulated envelopes name for it; blank where nothing can be simulated."""
        if not self.certificate:
            return ""
        return self._emulator + _sns_simulated.certificate_path(self.certificate)

    def warm(self) -> None:
        """Loads what the first webhook needs. Fetches no certificate: SNS names it then."""
        if self._topics:
            _sns_http.warm()
            _sns_certificates.warm()

    def claims(self, headers: Mapping[str, str]) -> bool:
        """Whether a request says that SNS sent it."""
        return headers.get(TYPE) in _sns_envelope.SIGNED

    async def verify(self, request: WebhookRequest) -> Verified:
        """Proves that SNS signed it for a topic of ours, a short while ago.

        Raises:
            SignatureInvalid: it is not signed, or one of the checks fails; the text says which.
            CannotVerifyNow: the certificate is out of reach for a moment.
        """
        if RAW in request.headers:
            raise SignatureInvalid(
                "raw message delivery has no signature: switch it off for the subscription",
                missing=True,
            )
        fields = _sns_envelope.read(request.body)
        topic = self._topic(fields)
        genuine = check_certificate_url(fields["SigningCertURL"], topic, self._emulator)
        _sns_envelope.check_fresh(fields, request.received_at)
        algorithm = ALGORITHMS.get(version := fields["SignatureVersion"])
        if algorithm is None:
            raise SignatureInvalid("SignatureVersion is neither 1 nor 2")
        signature, text = _sns_envelope.signature(fields), _sns_envelope.signed_text(fields)
        if fields["Type"] == "SubscriptionConfirmation":
            check_subscribe_url(fields["SubscribeURL"], fields["Token"], topic, self._emulator)
        certificate = await self._certificates.at(fields["SigningCertURL"])
        certificate.check(request.received_at, topic.certificate_names if genuine else None)
        certificate.verify(version, signature, text)
        return self._verified(request, fields, f"sns rsa-{algorithm} v{version}")

    def _topic(self, fields: Mapping[str, str]) -> Topic:
        topic = self._topics.get(fields["TopicArn"])
        if topic is None:
            raise SignatureInvalid(f"the topic {fields['TopicArn']} is not in {TOPICS}")
        return topic

    def _verified(
        self, request: WebhookRequest, fields: Mapping[str, str], verdict: str
    ) -> Verified:
        headers = {n: v for n, v in request.headers.items() if n != "content-length"}
        kept = _sns_envelope.kept(fields)
        return Verified(
            webhook=self._named(fields),
            connection=self._connection,
            request=replace(request, headers=headers, body=_sns_envelope.written(kept)),
            key=_sns_envelope.key(fields),
            verdict=verdict,
            reading=kept,
        )

    def _named(self, fields: Mapping[str, str]) -> str:
        """Whose it is: its content tells, as any route takes every kind; else the route does."""
        notification = fields["Type"] == "Notification"
        return (_sns_kinds.product(fields["Message"]) if notification else None) or self.name

    def parse(self, request: Verified) -> Sequence[Event]:
        """Reads the events of an envelope: of its content, or of the subscription itself.

        Raises:
            Malformed: it is of a known kind, and not readable.
        """
        fields = _fields(request)
        try:
            published = _sns_envelope.moment(fields)
            if fields["Type"] == "Notification":
                return _sns_kinds.read(fields["Message"], published, request.key)
            return [_handshake(fields, published, request.key)]
        except (KeyError, SignatureInvalid):
            raise Malformed("the envelope is not whole") from None

    async def confirm(self, handshake: Handshake) -> str | None:
        """Confirms a subscription; the ARN that it has from then on, where AWS tells.

        Raises:
            Rejected: it is of no use to try again.
            Unreachable: it may work later.
        """
        arn, token, base = (
            str(handshake.content.get(name) or "")
            for name in ("topic_arn", "token", "subscribe_url")
        )
        topic = self._topics.get(arn)
        if topic is None:
            raise Rejected(f"the topic is not in {TOPICS}", code="topic_not_allowed")
        if not token or not confirmable(base, topic, self._emulator):
            raise Rejected("there is nothing to confirm it with", code="no_token")
        try:
            return await _sns_http.in_thread(
                lambda: self._confirm(topic, token, base), CONFIRM_WITHIN
            )
        except TimeoutError:
            raise Unreachable("no answer in time", code="timeout") from None

    def _confirm(self, topic: Topic, token: str, base: str) -> str | None:
        credentials = self._credentials
        if credentials is not None and base.startswith(topic.origin):
            try:
                return _sns_confirm.by_api(credentials, topic.region, topic.arn, token)
            except NotAllowed:
                pass  # the URL needs no credentials
        return _sns_confirm.by_url(self._fetch, confirming(base, topic, token))

    @property
    def _credentials(self) -> Credentials | None:
        """The explicit ones; else, where a region says that AWS is used, those of the machine."""
        endpoint = self._settings.endpoint or None
        secret = self._settings.secret.get_secret_value()
        if self._settings.key_id and secret:
            session = self._settings.session.get_secret_value() or None
            key = AccessKey(id=self._settings.key_id, secret=secret, session=session)
            return Credentials(key=key, endpoint=endpoint)
        return Credentials(key=None, endpoint=endpoint) if self._settings.region else None

    def sign(self, simulated: Simulated) -> WebhookRequest:
        """Makes the request that SNS would send, with the development key.

        Raises:
            ValueError: there is no such key, or AWS has no way to say that.
        """
        now = datetime.now(UTC)  # the sender's own clock; `verify` reads none
        text = _sns_simulated.message(simulated, now)
        if not self.certificate_url:
            raise ValueError("AWS can be simulated in development only: nobody else has its key")
        fields = _sns_simulated.notification(next(iter(self._topics)), text, now)
        return WebhookRequest(
            method="POST",
            url=simulated.url,
            headers=_sns_simulated.headers(fields),
            body=_sns_simulated.signed(fields, self._key, self.certificate_url),
            received_at=now,
        )

    def resign(self, request: Verified, fake: Fake) -> WebhookRequest:
        """Makes a request of the inbox anew, with other facts, with the development key.

        Raises:
            ValueError: there is no such key, or it is no notification.
        """
        raw, fields = request.request, _fields(request)
        if fields.get("Type") != "Notification":
            raise ValueError("it is about a subscription, whose token is a secret")
        if not self.certificate_url:
            raise ValueError("the variables of its cases have no key to sign with")
        faked: dict[str, str] = {
            name: fake(name, fields[name])
            for name in ("MessageId", "Subject", "Timestamp")
            if name in fields
        }
        made = {
            **faked,
            "Type": "Notification",
            "TopicArn": next(iter(self._topics)),
            "Message": _sns_kinds.faked(fields["Message"], fake),
        }
        return replace(
            raw,
            headers=_sns_simulated.headers(made),
            body=_sns_simulated.signed(made, self._key, self.certificate_url),
        )

    @cached_property
    def _key(self) -> RSAPrivateKey:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        pem = self._settings.development_key.get_secret_value().encode()
        return cast("RSAPrivateKey", load_pem_private_key(pem, None))


def _fields(request: Verified) -> dict[str, str]:
    """What is kept of an envelope: as it was just verified, or as the inbox has it."""
    if isinstance(request.reading, dict):
        return {name: storable(value) for name, value in request.reading.items()}
    try:
        found = read_json(request.request.body)
    except ValueError as error:
        raise Malformed(f"the envelope cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise Malformed("the envelope is not an object")
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _handshake(fields: Mapping[str, str], published: datetime, key: str) -> Handshake:
    content = {"topic_arn": fields["TopicArn"]}
    if fields["Type"] == "UnsubscribeConfirmation":
        return Handshake(
            dedupe_key=f"hs:{key}", kind="unsubscribed", content=content, occurred_at=published
        )
    if fields["Type"] != "SubscriptionConfirmation":
        raise Malformed("Type is none of SNS's three")
    base = fields["SubscribeURL"].partition("?")[0]
    return Handshake(
        dedupe_key=f"hs:{key}",
        kind="subscription",
        content={**content, "token": fields["Token"], "subscribe_url": base},
        occurred_at=published,
    )
