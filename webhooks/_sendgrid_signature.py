"""The signature of what SendGrid posts: ECDSA over a timestamp and the body exactly as it came."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from gateway.domain import WebhookRequest
from gateway.errors import SettingsError, SignatureInvalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"

# Failed posts are repeated for 24 hours; whether each is signed anew is not documented.
OLDEST, NEWEST = timedelta(hours=25), timedelta(minutes=15)


def key_pair() -> tuple[str, str]:
    """A new key: its public half as SendGrid shows it, and itself, in base64."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(public).decode(), base64.b64encode(private).decode()


def public_keys(text: str, variable: str) -> list[EllipticCurvePublicKey]:
    """Several keys, by commas, while one is changed for another.

    Raises:
        SettingsError: one cannot be read.
    """
    return [_public(each.strip(), variable) for each in text.split(",") if each.strip()]


def _public(text: str, variable: str) -> EllipticCurvePublicKey:
    """A key as SendGrid shows it: its SPKI in base64."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SettingsError(
            f"{variable} must be the verification key that SendGrid shows, in base64."
        )
    return key


def private_key(text: str) -> EllipticCurvePrivateKey:
    """The key of a developer's machine.

    Raises:
        ValueError: there is none.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_private_key

    if not text:
        raise ValueError("SendGrid can be simulated in development only: nobody else has its key")
    made = load_der_private_key(base64.b64decode(text), None)
    if not isinstance(made, ec.EllipticCurvePrivateKey):
        raise ValueError("the development key is of another kind")
    return made


def headers(private: EllipticCurvePrivateKey, body: bytes, stamp: str) -> dict[str, str]:
    """The headers that prove a body."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    made = private.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
    return {TIMESTAMP: stamp, SIGNATURE: base64.b64encode(made).decode()}


def verified_by(
    request: WebhookRequest, keys: Sequence[EllipticCurvePublicKey], variable: str
) -> int:
    """Which of the keys signed it, within the time in which SendGrid repeats.

    Raises:
        SignatureInvalid: it is not signed, or not by one of them, or too old.
    """
    given, stamp = request.headers.get(SIGNATURE, ""), request.headers.get(TIMESTAMP, "")
    if not given or not stamp:
        lacking = SIGNATURE if not given else TIMESTAMP
        raise SignatureInvalid(f"the header {lacking} is missing", missing=True)
    if not re.fullmatch(r"\d{9,11}", stamp):
        raise SignatureInvalid("the timestamp is not a number of seconds")
    try:
        signature = base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        signature = b""
    if base64.b64encode(signature).decode() != given:  # its last bits may be anything, too
        raise SignatureInvalid("the signature is not base64")
    signed = stamp.encode() + request.body
    number = next((n for n, key in enumerate(keys) if _holds(key, signature, signed)), -1)
    if number < 0:
        raise SignatureInvalid(f"the signature is of no key in {variable}")
    _fresh(int(stamp), request.received_at)
    return number


def _holds(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _fresh(stamp: int, received_at: datetime) -> None:
    age = timedelta(seconds=received_at.timestamp() - stamp)
    if age > OLDEST:
        raise SignatureInvalid("it was signed more than 25 hours ago")
    if age < -NEWEST:
        raise SignatureInvalid("it was signed in the future: check this machine's clock")
