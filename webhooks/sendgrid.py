"""SendGrid's Event Webhook: batches of what became of emails, signed with a key of the account.

The signature is over the timestamp and the body exactly as it came. One event that cannot be read
does not lose the others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.domain import (
    Answer,
    Channel,
    Engagement,
    Event,
    Fake,
    Notice,
    Simulated,
    Status,
    StatusUpdate,
    Unrecognised,
    VendorError,
    Verified,
    WebhookRequest,
)
from gateway.errors import Malformed, SettingsError, clean
from webhooks import _sendgrid_signature
from webhooks._forms import read_json
from webhooks._sendgrid_signature import SIGNATURE, TIMESTAMP

if TYPE_CHECKING:
    pass

PUBLIC, PRIVATE = "SENDGRID_WEBHOOK_PUBLIC_KEY", "SENDGRID_WEBHOOK_DEVELOPMENT_KEY"

MOST = 5000  # events of a batch
ID = re.compile(r"[!-~]{1,200}")
ATTEMPT_ID = re.compile(r"att_[0-9A-Za-z]{20,40}")
IN_MILLISECONDS = 10**11

# "Event Webhook Reference", event. What is processed is in SendGrid's queue, and not sent yet.
STATES: Mapping[str, Status] = {
    "processed": Status.ACCEPTED,
    "delivered": Status.DELIVERED,
    "bounce": Status.BOUNCED,
    "dropped": Status.FAILED,
}
DONE: Mapping[str, str] = {
    "deferred": "delayed",
    "open": "opened",
    "click": "clicked",
    "spamreport": "complained",
    "unsubscribe": "unsubscribed",
    "group_unsubscribe": "unsubscribed",  # of one group: a doubt ends in a block
    "group_resubscribe": "resubscribed",
}
# "dropped", reason: what SendGrid keeps lists of, and therefore does not send; and what it says of
# the person, on the same lists, which an earlier email brought them to ("Suppressions").
DROPPED: Mapping[str, tuple[str, str, str | None]] = {
    "bounced address": ("dropped:bounced", "rejected", "bounced"),
    "unsubscribed address": ("dropped:unsubscribed", "opted_out", "unsubscribed"),
    "spam reporting address": ("dropped:spam_report", "rejected", "complained"),
    "invalid": ("dropped:invalid", "rejected", "bounced"),
    "spam content": ("dropped:content", "rejected", None),
}
UNLISTED = ("dropped", "rejected", None)


class SendgridWebhookSettings(BaseModel):
    """What the webhook needs to know."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, hide_input_in_errors=True)
    required: ClassVar[tuple[str, ...]] = (PUBLIC,)

    public_key: str = Field("", alias="SENDGRID_WEBHOOK_PUBLIC_KEY")
    development_key: SecretStr = Field(
        SecretStr(""), alias="SENDGRID_WEBHOOK_DEVELOPMENT_KEY", exclude=True
    )


class SendgridWebhook:
    """One account's events."""

    name = "sendgrid"
    spoken = frozenset({"event", "type", "status", "bounce_classification", "asm_group_id"})
    Settings = SendgridWebhookSettings
    kept_headers = frozenset({TIMESTAMP})
    claimed_by = "X-Twilio-Email-Event-Webhook-Signature"
    answer = Answer(status=204)

    @staticmethod
    def development() -> dict[str, str]:
        """A pair of keys for a developer's machine, as variables."""
        public, private = _sendgrid_signature.key_pair()
        return {PUBLIC: public, PRIVATE: private}

    def __init__(self, settings: SendgridWebhookSettings, *, connection: str = "sendgrid") -> None:
        """Reads the keys: several, by commas, while one is changed for another.

        Raises:
            SettingsError: there is none, or one cannot be read.
        """
        self._settings = settings
        self._connection = connection
        self._keys = _sendgrid_signature.public_keys(settings.public_key, PUBLIC)
        if not self._keys:
            raise SettingsError(f"{PUBLIC} is not set; SendGrid's events cannot be verified.")

    def claims(self, headers: Mapping[str, str]) -> bool:
        """Whether a request says that SendGrid signed it."""
        return SIGNATURE in headers or TIMESTAMP in headers

    async def verify(self, request: WebhookRequest) -> Verified:
        """Proves that SendGrid signed it, within the time in which it repeats.

        Raises:
            SignatureInvalid: it is not signed, or not by a key of ours, or too old.
        """
        number = _sendgrid_signature.verified_by(request, self._keys, PUBLIC)
        key = hashlib.sha256(request.body).hexdigest()  # repetitions may have another timestamp
        headers = {n: v for n, v in request.headers.items() if n != SIGNATURE}
        return Verified(
            webhook=self.name,
            connection=self._connection,
            request=replace(request, headers=headers),
            key=key,
            verdict=f"sendgrid key {number + 1}",
        )

    def parse(self, request: Verified) -> Sequence[Event]:
        """Reads the events of a batch, in whatever order they stand.

        Raises:
            Malformed: it is not JSON, or no list of events.
        """
        try:
            found = read_json(request.request.body)
        except ValueError as error:
            raise Malformed(f"the batch cannot be read: {error}") from None
        listed = [found] if isinstance(found, dict) else found
        if not isinstance(listed, list) or len(listed) > MOST:
            raise Malformed(f"the batch is no list of at most {MOST} events")
        events: list[Event] = []
        for number, facts in enumerate(listed):
            events += _read(facts, f"{request.key}:{number}", request.request.received_at)
        return events

    def sign(self, simulated: Simulated) -> WebhookRequest:
        """Makes the request that SendGrid would send, with the development key.

        Raises:
            ValueError: there is no such key, or SendGrid has no way to say that.
        """
        import json

        update = simulated.status
        word = next((w for w, s in STATES.items() if update and s is update.status), None)
        if update is None or word is None or word == "dropped":
            raise ValueError(
                "SendGrid can be simulated for what became of an email only: accepted, delivered "
                "or bounced"
            )
        now = datetime.now(UTC)  # the sender's own clock; `verify` reads none
        stamp = str(int(now.timestamp()))
        event = {
            "email": update.recipient,
            "timestamp": int(stamp),
            "event": word,
            "sg_event_id": hashlib.sha256(f"{update.dedupe_key}{word}".encode()).hexdigest()[:22],
            "sg_message_id": f"{update.provider_message_id or 'simulated'}.filter0001.0",
            **({"attempt_id": update.attempt_id} if update.attempt_id else {}),
        }
        body = json.dumps([event], separators=(",", ":")).encode() + b"\r\n"
        return WebhookRequest(
            method="POST",
            url=simulated.url,
            headers={
                "content-type": "application/json;charset=utf-8",
                **self._proof(body, stamp),
            },
            body=body,
            received_at=now,
        )

    def resign(self, request: Verified, fake: Fake) -> WebhookRequest:
        """Makes a request of the inbox anew, with other facts and the development key.

        Raises:
            ValueError: there is no such key, or its body is no JSON.
        """
        import json

        raw = request.request
        try:
            found = read_json(raw.body)
        except ValueError:
            raise ValueError("its body is no JSON: what is private in it is not known") from None
        body = json.dumps(fake("events", found)).encode()
        stamp = str(int(raw.received_at.timestamp()))
        headers = {
            "content-type": "application/json;charset=utf-8",
            **self._proof(body, stamp),
        }
        return replace(raw, headers=headers, body=body)

    def _proof(self, body: bytes, stamp: str) -> dict[str, str]:
        private = self._settings.development_key.get_secret_value()
        return _sendgrid_signature.headers(_sendgrid_signature.private_key(private), body, stamp)


def _read(facts: Any, key: str, received_at: datetime) -> Iterator[Event]:
    """One event; what cannot be read is kept as such."""
    kind = facts.get("event") if isinstance(facts, dict) else None
    if not isinstance(kind, str):
        yield Unrecognised(dedupe_key=f"un:{key}", kind="no event")
        return
    word = kind.strip().lower()
    if word == "account_status_change":
        told = str(facts.get("type") or "")[:100]
        yield Notice(
            dedupe_key=f"no:{key}", kind="account.updated", content={"status": told},
            occurred_at=_moment(facts.get("timestamp")) or received_at,
        )  # fmt: skip
    elif word in STATES:
        yield from _state(word, facts, key, received_at)
    elif word in DONE:
        yield _engaged(DONE[word], facts, key, received_at)
    else:
        yield Unrecognised(dedupe_key=f"un:{key}", kind=f"event:{word[:40]}")


def _state(word: str, facts: Mapping[str, Any], key: str, received_at: datetime) -> Iterator[Event]:
    status, error = STATES[word], _error(word, facts)
    if word == "bounce" and error is not None and error.reason != "rejected":
        status = Status.UNDELIVERED  # blocked: of this message, and not of the address
    update = StatusUpdate(
        dedupe_key=f"st:{_event_id(facts) or key}",
        status=status,
        vendor_status=word,
        attempt_id=_attempt(facts),
        provider_message_id=_message_id(facts),
        channel=Channel.EMAIL,
        recipient=_person(facts),
        error=error,
        occurred_at=_moment(facts.get("timestamp")) or received_at,
    )
    yield update
    if status is Status.BOUNCED:
        yield _engaged("bounced", facts, key, received_at)
    listed = _dropped(facts)[2] if word == "dropped" else None
    if listed is not None:
        yield replace(_engaged(listed, facts, key, received_at), earlier=True)


def _dropped(facts: Mapping[str, Any]) -> tuple[str, str, str | None]:
    reason = facts.get("reason")
    return DROPPED.get(reason.strip().lower() if isinstance(reason, str) else "", UNLISTED)


def _engaged(kind: str, facts: Mapping[str, Any], key: str, received_at: datetime) -> Engagement:
    names = ("url", "ip", "useragent", "response", "attempt", "type", "asm_group_id")
    told = {n: str(facts[n])[:2000] for n in names if isinstance(facts.get(n), str | int)}
    if facts.get("sg_machine_open") is True:
        told["machine"] = "true"
    return Engagement(
        dedupe_key=f"en:{kind}:{_event_id(facts) or key}",
        kind=kind,
        channel=Channel.EMAIL,
        attempt_id=_attempt(facts),
        provider_message_id=_message_id(facts),
        recipient=_person(facts),
        content=told,
        occurred_at=_moment(facts.get("timestamp")) or received_at,
    )


def _error(word: str, facts: Mapping[str, Any]) -> VendorError | None:
    """ "bounce" and "dropped": why. `type` is a bounce's own only there."""
    reason = facts.get("reason")
    text = clean(reason) if isinstance(reason, str) else None
    if word == "dropped":
        code, kind, _ = _dropped(facts)
        return VendorError(code=code, message=text, reason=kind)
    if word != "bounce":
        return None
    if str(facts.get("type")).lower() == "blocked":
        return VendorError(code="bounce_transient:blocked", message=text, reason="unreachable")
    sort = re.sub(r"[^a-z0-9]+", "_", str(facts.get("bounce_classification") or "").lower())[:40]
    return VendorError(
        code=f"bounce_permanent:{sort.strip('_') or 'bounce'}", message=text, reason="rejected"
    )


def _event_id(facts: Mapping[str, Any]) -> str | None:
    value = facts.get("sg_event_id")
    return value if isinstance(value, str) and ID.fullmatch(value) else None


def _message_id(facts: Mapping[str, Any]) -> str | None:
    """The id that the answer's header had: what stands before what each server adds."""
    value = facts.get("sg_message_id")
    if not isinstance(value, str):
        return None
    if value.strip().startswith(("filter", "recvd-")):
        return None  # of one that never got an id
    bare = re.split(r"\.(?:filter|recvd-|filterdrecv)", value.strip(), maxsplit=1)[0]
    return bare if ID.fullmatch(bare) else None


def _attempt(facts: Mapping[str, Any]) -> str | None:
    """Our attempt, as the custom arguments bring it back beside the event's own members."""
    value = facts.get("attempt_id")
    return value if isinstance(value, str) and ATTEMPT_ID.fullmatch(value) else None


def _person(facts: Mapping[str, Any]) -> str | None:
    value = facts.get("email")
    local, _, domain = value.strip().rpartition("@") if isinstance(value, str) else ("", "", "")
    return f"{local}@{domain.lower()}" if local and domain and len(domain) < 254 else None


def _moment(value: object) -> datetime | None:
    """Seconds, seconds in text, or milliseconds."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,14}(\.\d+)?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    seconds = value / 1000 if value > IN_MILLISECONDS else value
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
