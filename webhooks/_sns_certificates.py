"""The certificates that SNS signs with: fetched once, kept parsed, a few at a time and a minute.

Whoever posts chooses part of the URL, and only a fetch tells a forged name. So fetches are counted
in three lanes a host (`Lanes`): forged names cannot use up those of a genuine one, which SNS
repeats. One under way is shared, a failure is remembered, what cannot be had is no forgery.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from gateway.errors import CannotVerifyNow, SignatureInvalid, WebhookError
from webhooks._sns_http import Fetch, Unanswered, in_thread
from webhooks._sns_lanes import Lanes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

KEPT = 32  # certificates; AWS has one or two a region at a time, and nobody else can add one
FAILED_FOR = 10.0  # seconds
REMEMBERED = 1024  # names that could not be had
KEY_BITS = (2048, 8192)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What of a certificate decides, read once."""

    names: frozenset[str]
    not_before: datetime
    not_after: datetime
    key: RSAPublicKey

    def check(self, at: datetime, names: frozenset[str] | None) -> None:
        """Refuses one that is not of this time, or has none of the names. None: any name."""
        if not self.not_before <= at <= self.not_after:
            raise SignatureInvalid("the signing certificate is not valid at this time")
        if names is not None and not self.names & names:
            raise SignatureInvalid(
                f"the signing certificate is not of {' or '.join(sorted(names))}"
            )

    def verify(self, version: str, signature: bytes, text: bytes) -> None:
        """Refuses a text that its key did not sign. SignatureVersion 1 is SHA-1, 2 is SHA-256.

        Raises:
            SignatureInvalid: the signature is wrong.
            CannotVerifyNow: this machine's OpenSSL does not do that at all.
        """
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        how = hashes.SHA1() if version == "1" else hashes.SHA256()  # noqa: S303 - SNS's default
        try:
            self.key.verify(signature, text, PKCS1v15(), how)
        except InvalidSignature:
            raise SignatureInvalid(f"Signature is wrong (SignatureVersion {version})") from None
        except UnsupportedAlgorithm:
            raise CannotVerifyNow(
                "OpenSSL here refuses SHA-1: set the topic's SignatureVersion to 2"
            ) from None


def read_certificate(pem: bytes) -> Certificate:
    """Reads a PEM file.

    Raises:
        SignatureInvalid: it is one that SNS cannot have signed with.
        Exception: it is no certificate.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    found = x509.load_pem_x509_certificate(pem)
    try:
        alternative = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = alternative.value.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        common = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [str(name.value) for name in common]
    key = found.public_key()
    if not isinstance(key, RSAPublicKey) or not KEY_BITS[0] <= key.key_size <= KEY_BITS[1]:
        raise SignatureInvalid("the signing certificate has no RSA key of 2048 bits or more")
    return Certificate(frozenset(names), found.not_valid_before_utc, found.not_valid_after_utc, key)


def warm() -> None:
    """Loads what reads certificates and proves signatures."""
    from cryptography import exceptions, x509  # noqa: F401
    from cryptography.hazmat.primitives import hashes  # noqa: F401
    from cryptography.hazmat.primitives.asymmetric import padding, rsa  # noqa: F401


Flight: TypeAlias = "asyncio.Task[Certificate]"


class Certificates:
    """The certificates of one webhook, by their whole URL. `ours` need not be fetched."""

    def __init__(self, fetch: Fetch, ours: Mapping[str, bytes]) -> None:
        self._fetch = fetch
        self._ours = ours
        self._kept: OrderedDict[str, Certificate] = OrderedDict()
        self._failed: OrderedDict[str, tuple[float, WebhookError]] = OrderedDict()
        self._flights: dict[str, Flight] = {}
        self._lanes = Lanes()

    async def at(self, url: str) -> Certificate:
        """The certificate that a URL, which was checked, leads to.

        Raises:
            CannotVerifyNow: it cannot be had at the moment.
            SignatureInvalid: what is there cannot be SNS's.
        """
        found = self._kept.get(url)
        if found is not None:
            self._kept.move_to_end(url)
            return found
        flight = self._flights.get(url)
        if flight is None or flight.get_loop() is not asyncio.get_running_loop():
            flight = self._depart(url)
        return await asyncio.shield(flight)

    def _depart(self, url: str) -> Flight:
        now = time.monotonic()
        until, failure = self._failed.get(url, (0.0, None))
        if failure is not None and now < until:
            raise failure.with_traceback(None)
        if url not in self._ours and not self._lanes.enter(url, now, failure is not None):
            raise CannotVerifyNow("too many certificates were asked for; SNS will repeat it")
        flight = asyncio.get_running_loop().create_task(self._land(url))
        self._flights[url] = flight
        flight.add_done_callback(lambda done: self._landed(url, done))
        return flight

    async def _land(self, url: str) -> Certificate:
        try:
            pem = self._ours[url] if url in self._ours else await self._fetched(url)
        except Unanswered as error:
            raise _not_had(str(error)) from None
        except Exception as error:
            raise _not_had(type(error).__name__) from None
        try:
            return read_certificate(pem)
        except SignatureInvalid:
            raise
        except Exception:  # the library has many; what comes from SNS's own host is no forgery
            raise _not_had("what is there is no certificate") from None

    async def _fetched(self, url: str) -> bytes:
        return await in_thread(lambda: self._fetch(url))

    def _landed(self, url: str, flight: Flight) -> None:
        if self._flights.get(url) is flight:
            del self._flights[url]
        if flight.cancelled():
            return
        failure = flight.exception()
        if failure is None:
            self._kept[url] = flight.result()
            _trim(self._kept, KEPT)
            self._failed.pop(url, None)
        elif isinstance(failure, WebhookError):
            self._failed[url] = (time.monotonic() + FAILED_FOR, type(failure)(failure.detail))
            _trim(self._failed, REMEMBERED)


def _not_had(reason: str) -> CannotVerifyNow:
    return CannotVerifyNow(f"the signing certificate cannot be had: {reason}")


def _trim(kept: OrderedDict[Any, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
