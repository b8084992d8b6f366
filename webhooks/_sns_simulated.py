"""Plays AWS: events as it would post them, signed with a development key.

Only for `gateway simulate` and tests; whoever calls says what time it is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import socket
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.domain import Channel, InboundMessage, Simulated, Status, StatusUpdate
from webhooks import _sns_ses_simulated, _sns_whatsapp_simulated
from webhooks._sns_envelope import signed_text
from webhooks._sns_sms_tables import STATUSES, WORDS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

TOPIC = "arn:aws:sns:us-east-1:000000000000:gateway-development"
NAME = "gateway development"
SINCE, UNTIL = datetime(2025, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, tzinfo=UTC)
PORTS = range(20_000, 32_000)  # below those that systems give out by themselves


def key_pair() -> tuple[str, str]:
    """A new key and its own certificate, as PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(SINCE)
        .not_valid_after(UNTIL)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def free_port() -> int:
    """A port of this machine on which nobody listens."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) != 0:
                return port


def certificate_path(certificate: str) -> str:
    """Where an emulator serves a certificate: each has a path of its own, as at AWS."""
    return f"/SimpleNotificationService-{hashlib.sha256(certificate.encode()).hexdigest()[:32]}.pem"


def message(simulated: Simulated, now: datetime) -> str:
    """What SNS would bring.

    Raises:
        ValueError: AWS has no way to say that.
    """
    if simulated.message is not None:
        facts = _said(simulated.message, now)
    elif simulated.status is not None:
        facts = _happened(simulated.status, now)
    else:
        raise ValueError("there is neither a message nor a status to simulate")
    return json.dumps(
        {name: value for name, value in facts.items() if value is not None}, ensure_ascii=False
    )


def _said(said: InboundMessage, now: datetime) -> dict[str, Any]:
    if said.channel is Channel.WHATSAPP:
        return _sns_whatsapp_simulated.said(said, now)
    if said.channel is Channel.EMAIL:
        return _sns_ses_simulated.said(said, now)
    if said.channel is not Channel.SMS or said.media:
        raise ValueError("AWS can be simulated with plain SMS, WhatsApp and email only")
    return {
        "originationNumber": said.from_address,
        "destinationNumber": said.to_address,
        "messageKeyword": said.content.get("keyword"),
        "messageBody": said.body,
        "inboundMessageId": said.provider_message_id or str(uuid.uuid4()),
        "previousPublishedMessageId": said.reply_to,
    }


def _happened(status: StatusUpdate, now: datetime) -> dict[str, Any]:
    if status.channel is Channel.WHATSAPP:
        return _sns_whatsapp_simulated.happened(status, now)
    if status.channel is Channel.EMAIL:
        return _sns_ses_simulated.happened(status, now)
    if status.channel not in (Channel.SMS, None):
        raise ValueError("AWS can be simulated with plain SMS, WhatsApp and email only")
    kind = _kind(status)
    return {
        "eventType": kind,
        "eventVersion": "1.0",
        "eventTimestamp": int(now.timestamp() * 1000),
        "isFinal": STATUSES[kind.partition("_")[2]] in (Status.DELIVERED, Status.FAILED),
        "originationPhoneNumber": status.sender,
        "destinationPhoneNumber": status.recipient,
        "messageId": status.provider_message_id or str(uuid.uuid4()),
        "messageType": "TRANSACTIONAL",
        "messageStatus": kind.partition("_")[2],
        "messageStatusDescription": status.error.message if status.error else None,
        "context": {"attempt_id": status.attempt_id} if status.attempt_id else {},
        "totalMessageParts": status.segments,
        "totalMessagePrice": float(status.cost.amount) if status.cost else None,
    }


def _kind(status: StatusUpdate) -> str:
    kind = status.error.code if status.error is not None else WORDS.get(status.status)
    if kind is None:
        raise ValueError(
            f"{status.status.value} cannot be simulated: AWS reports no such status of an SMS"
        )
    known = kind.startswith("TEXT_") and STATUSES.get(kind.removeprefix("TEXT_"))
    if known is not status.status:
        raise ValueError(
            f"{kind} cannot be simulated: it is no event type of AWS that means "
            f"{status.status.value}, such as {WORDS.get(status.status, 'TEXT_DELIVERED')}"
        )
    return kind


def notification(topic: str, text: str, now: datetime) -> dict[str, str]:
    """An envelope, not signed yet."""
    moment = now.astimezone(UTC)
    return {
        "Type": "Notification",
        "MessageId": str(uuid.uuid4()),
        "TopicArn": topic,
        "Message": text,
        "Timestamp": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
    }


def signed(fields: Mapping[str, str], key: RSAPrivateKey, url: str) -> bytes:
    """The same, signed as version 2 and laid out as SNS does."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

    proof = key.sign(signed_text(fields), PKCS1v15(), hashes.SHA256())
    envelope = {
        **fields,
        "SignatureVersion": "2",
        "Signature": base64.b64encode(proof).decode(),
        "SigningCertURL": url,
    }
    lines = (
        f"  {json.dumps(n)} : {json.dumps(v, ensure_ascii=False)}" for n, v in envelope.items()
    )
    return ("{\n" + ",\n".join(lines) + "\n}").encode()


def headers(fields: Mapping[str, str]) -> dict[str, str]:
    """The headers that SNS sends along; none of them is signed."""
    return {
        "content-type": "text/plain; charset=UTF-8",
        "user-agent": "Amazon Simple Notification Service Agent",
        "x-amz-sns-message-type": fields["Type"],
        "x-amz-sns-message-id": fields["MessageId"],
        "x-amz-sns-topic-arn": fields["TopicArn"],
    }
