"""Reads the envelope that SNS posts, strictly, and makes of it the text that was signed.

Works on the raw object, never on a model of it, and believes nothing that is not signed: neither
a header nor `MessageAttributes`. What cannot be read is refused as unsigned.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from gateway.errors import SignatureInvalid

# SNS, "Verifying the signatures of Amazon SNS messages": what is signed, in this order.
NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
SIGNED = {
    "Notification": NOTIFICATION,
    "SubscriptionConfirmation": CONFIRMATION,
    "UnsubscribeConfirmation": CONFIRMATION,
}
OPTIONAL = frozenset({"Subject"})
PROOF = ("SignatureVersion", "Signature", "SigningCertURL")

MAX_DEPTH = 16
# The signed text has only line feeds between its fields. Where none but Message can hold one, no
# other cut of the same text is an envelope.
LINE = re.compile(r"[^\x00-\x1f\x7f]*")
MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")
# SNS, "Amazon SNS message delivery retries": an HTTP delivery is given up after 3,600 s.
OLDEST = timedelta(minutes=75)
NEWEST = timedelta(minutes=15)

Fields = dict[str, str]


def read(body: bytes) -> Fields:
    """The fields that are signed, and those that prove it.

    Raises:
        SignatureInvalid: it is not an envelope of SNS, or not of a form that SNS writes.
    """
    raw = _object(body)
    kind = raw.get("Type")
    signed = SIGNED.get(kind) if isinstance(kind, str) else None
    if signed is None:
        raise SignatureInvalid("the body is no envelope of SNS: Type is none of its three")
    if not raw.get("Signature"):
        raise SignatureInvalid("the envelope has no Signature", missing=True)
    fields = {name: _text(raw[name], name) for name in (*signed, *PROOF) if name in raw}
    for name in (*signed, *PROOF):
        if name not in fields and name not in OPTIONAL:
            raise SignatureInvalid(f"the envelope has no {name}")
    return fields


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        raw = _READ(body.decode())
    except (ValueError, RecursionError):
        raise SignatureInvalid("the body is no envelope of SNS", missing=True) from None
    if not isinstance(raw, dict) or "Type" not in raw:
        raise SignatureInvalid("the body is no envelope of SNS", missing=True)
    if any(not isinstance(value, str) and _deep(value) for value in raw.values()):
        raise SignatureInvalid("the envelope is too deep")
    return raw


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Nobody may verify the first of two fields and believe the last."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# `json.loads` and `json.dumps` make these anew for each call, which takes as long as the reading.
_READ = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse).decode
_WRITE = json.JSONEncoder(ensure_ascii=False).encode


def _deep(value: Any, depth: int = 0) -> bool:
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    return depth > MAX_DEPTH or any(_deep(item, depth + 1) for item in inner)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise SignatureInvalid(f"{name} is not a text")
    if name != "Message" and not value.isprintable() and LINE.fullmatch(value) is None:
        raise SignatureInvalid(f"{name} holds what SNS never writes there")
    return value


def signed_text(fields: Mapping[str, str]) -> bytes:
    """The text that was signed.

    Raises:
        SignatureInvalid: it holds half a surrogate pair, which nobody can have signed.
    """
    names = SIGNED[fields["Type"]]
    text = "".join([f"{name}\n{fields[name]}\n" for name in names if name in fields])
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise SignatureInvalid("the envelope holds half a character") from None


def signature(fields: Mapping[str, str]) -> bytes:
    """The bytes of the signature, from exact base64: each has one spelling only.

    Raises:
        SignatureInvalid: it is not base64.
    """
    try:
        given = fields["Signature"].encode("ascii")
        found = base64.b64decode(given, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        found = given = b""
    if not found or base64.b64encode(found) != given:
        raise SignatureInvalid("Signature is not base64")
    return found


def moment(fields: Mapping[str, str]) -> datetime:
    """When SNS says that it was published.

    Raises:
        SignatureInvalid: it is not a time.
    """
    text = fields["Timestamp"]
    try:
        if MOMENT.fullmatch(text) is not None:
            return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        pass
    raise SignatureInvalid("Timestamp is not a time")


def check_fresh(fields: Mapping[str, str], received_at: datetime) -> None:
    """Refuses what is older than any delivery of SNS, or not yet of this time."""
    published = moment(fields)
    if received_at - published > OLDEST:
        raise SignatureInvalid(
            f"Timestamp is more than {OLDEST.seconds // 60} minutes old: a repeated delivery, or "
            "this machine's clock is wrong"
        )
    if published - received_at > NEWEST:
        raise SignatureInvalid("Timestamp is in the future: is this machine's clock right?")


def key(fields: Mapping[str, str]) -> str:
    """Names the message in the inbox: SNS repeats a delivery under the same MessageId."""
    text = f"{fields['TopicArn']}\n{fields['MessageId']}"
    return hashlib.sha256(text.encode()).hexdigest()


def kept(fields: Mapping[str, str]) -> Fields:
    """The signed fields as the inbox keeps them.

    The signature and the URL that unsubscribes are gone. A token stays only where it is needed, to
    confirm, until it stands in the row of the subscription: the spool needs it. SubscribeURL would
    hold it again, so it ends at its query.
    """
    found = {name: fields[name] for name in SIGNED[fields["Type"]] if name in fields}
    if "SubscribeURL" in found:
        found["SubscribeURL"] = found["SubscribeURL"].partition("?")[0]
    if found["Type"] == "UnsubscribeConfirmation":
        del found["Token"]
    return found


def written(fields: Mapping[str, str]) -> bytes:
    """Kept fields as the inbox's body."""
    return _WRITE(fields).encode()
