"""What AWS's answers and boto3's exceptions mean: the tables, and the reading by them.

What AWS says of an error is never repeated, as it names the recipient, and what botocore says has
URLs in it. Only codes and the names of classes are kept, with our words.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeAlias

from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unreachable,
    Unsupported,
    used_up,
)
from providers._aws_wire import CalledOff, Flight
from providers._retry_after import retry_after

Kind: TypeAlias = type[ProviderError]
Verdict: TypeAlias = tuple[Kind, str]

LOST: Verdict = (Ambiguous, "no_answer")
CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{1,79}")
QUOTA, AGAIN = "daily_quota", 600.0  # seconds: the day rolls on, and frees a little all the time
OPTED_OUT = frozenset({"OptedOut", "DESTINATION_PHONE_NUMBER_OPTED_OUT"})


def _by_word(table: Mapping[Kind, str]) -> Mapping[str, Kind]:
    return {word: kind for kind, words in table.items() for word in words.split()}


# "Common Errors", which every API reference of AWS has, and the names that botocore knows beside
# them for the same (throttling: "Retry behavior" of the SDK reference guide).
COMMON = _by_word(
    {
        AccountRefused: """
            AccessDenied AccessDeniedException AuthFailure ExpiredToken ExpiredTokenException
            IncompleteSignature IncompleteSignatureException InvalidClientTokenId
            InvalidSignatureException MalformedQueryString MissingAuthenticationToken
            MissingAuthenticationTokenException NotAuthorized OptInRequired RequestExpired
            RequestTimeTooSkewed SignatureDoesNotMatch UnrecognizedClientException
            InvalidAction UnknownOperationException NotImplemented""",
        Rejected: """
            InvalidParameterCombination InvalidParameterValue InvalidQueryParameter
            MissingParameter SerializationException ValidationError ValidationException""",
        Throttled: """
            Throttling ThrottlingException Throttled ThrottledException RequestLimitExceeded
            RequestThrottled RequestThrottledException TooManyRequestsException SlowDown
            BandwidthLimitExceeded""",
        Ambiguous: """
            InternalError InternalFailure InternalServerError InternalServerException
            RequestTimeout RequestTimeoutException ServiceUnavailable ServiceUnavailableException
            """,
    }
)

# What boto3 raises before a request of ours stands: parameters, credentials, and the requests by
# which it fetches those. Nothing of a message was sent; subclasses inherit.
_UNSIGNED: Mapping[Verdict, str] = {
    (AccountRefused, "credentials"): """
        NoCredentialsError PartialCredentialsError NoAuthTokenError UnknownTokenProviderError
        UnknownCredentialError RefreshWithMFAUnsupportedError SSOError LoginError""",
    (AccountRefused, "configuration"): """
        BaseEndpointResolverError InvalidRegionError ProfileNotFound ConfigParseError
        ConfigNotFound InvalidConfigError InvalidIMDSEndpointError InvalidIMDSEndpointModeError
        InvalidProxiesConfigError InvalidRetryConfigurationError InvalidDefaultsMode
        InvalidSTSRegionalEndpointsConfigError ServiceNotInRegionError UnknownServiceError
        UnknownRegionError UnknownSignatureVersionError UnsupportedSignatureVersionError
        InvalidEndpointConfigurationError EndpointProviderError UnsupportedServiceProtocolsError
        MissingDependencyException MD5UnavailableError DataNotFoundError""",
    # The place where credentials come from did not give any: it may in a moment.
    (Unreachable, "credentials"): """
        CredentialRetrievalError TokenRetrievalError MetadataRetrievalError HTTPClientError
        ConnectionError ClientError""",
    (Unsupported, "parameters"): "ParamValidationError ValidationError MissingParametersError",
}
UNWRITABLE: Verdict = (Rejected, "text")  # half a surrogate pair, which no wire carries


@cache
def unsigned() -> Mapping[type[BaseException], Verdict]:
    """What each class means while no request of ours stands."""
    from botocore import exceptions  # type: ignore[import-untyped]

    known = {
        getattr(exceptions, name): verdict
        for verdict, names in _UNSIGNED.items()
        for name in names.split()
        if hasattr(exceptions, name)  # an older botocore has fewer
    }
    return {**known, UnicodeEncodeError: UNWRITABLE}


@cache
def unwritten() -> Mapping[type[BaseException], Verdict]:
    """What each class means once the request stands and before its first byte; subclasses
    inherit. After that byte every one of them is `Ambiguous`."""
    from botocore import exceptions
    from urllib3 import exceptions as library

    return {
        CalledOff: (Unreachable, "connect_timeout"),
        library.NameResolutionError: (Unreachable, "dns"),
        library.NewConnectionError: (Unreachable, "connect"),
        library.ConnectTimeoutError: (Unreachable, "connect_timeout"),
        library.TimeoutError: (Unreachable, "connect_timeout"),  # in the handshake
        library.SSLError: (Unreachable, "tls"),
        library.ProxyError: (Unreachable, "connect"),
        library.ProtocolError: (Unreachable, "connect"),  # reset in the handshake
        library.LocationValueError: (Unreachable, "url"),
        library.PoolError: (Unreachable, "connect"),
        # These speak of an answer, so something was written after all.
        library.ResponseNotChunked: LOST,
        library.ResponseError: LOST,
        library.MaxRetryError: LOST,
        library.HostChangedError: LOST,
        socket.gaierror: (Unreachable, "dns"),
        ssl.SSLError: (Unreachable, "tls"),
        TimeoutError: (Unreachable, "connect_timeout"),
        OSError: (Unreachable, "connect"),
        UnicodeEncodeError: UNWRITABLE,
        # What sends is ours, and raises none of these: where they come from, botocore has sent.
        exceptions.HTTPClientError: LOST,
        exceptions.ConnectionError: LOST,
    }


TEXTS: Mapping[Verdict, str] = {
    (AccountRefused, "credentials"): "there are no usable credentials: set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or give the machine a role",
    (AccountRefused, "configuration"): "boto3 cannot be used as it is configured",
    (Unreachable, "credentials"): "the credentials could not be fetched",
    (Unsupported, "parameters"): "boto3 refuses the message's parameters",
    UNWRITABLE: "the message cannot be written down",
}


def judge(error: BaseException, flight: Flight, tables: Tables) -> ProviderError:
    """Our error for what a call of boto3 raised. Whatever is in no table is `Ambiguous`."""
    if flight.status is not None:
        return _answered(error, flight, tables)
    if flight.written:
        from urllib3.exceptions import TimeoutError as LibraryTimeout

        late = isinstance(error, LibraryTimeout | TimeoutError)
        text = f"the request was written and no answer came ({type(error).__name__})"
        return Ambiguous(text, code="timeout" if late else LOST[1])
    response = getattr(error, "response", None)
    if not flight.signed and isinstance(response, Mapping):  # whoever gives out credentials
        kind = COMMON.get(_word(response.get("Error", {}).get("Code")), Unreachable)
        kind = kind if kind in (AccountRefused, Throttled) else Unreachable
        return kind(f"AWS gave no credentials ({type(error).__name__})", code="credentials")
    return _unsent(error, unwritten() if flight.signed else unsigned())


def _unsent(error: BaseException, table: Mapping[type[BaseException], Verdict]) -> ProviderError:
    found = (table[base] for base in type(error).__mro__ if base in table)
    verdict = next(found, LOST)
    texts = {Unreachable: "AWS could not be reached", Ambiguous: "boto3 failed"}
    text = TEXTS.get(verdict) or texts[verdict[0]]
    return verdict[0](f"{text} ({type(error).__name__})", code=verdict[1])


class Tables:
    """What the codes, and the reasons within them, of one API mean."""

    def __init__(
        self,
        codes: Mapping[Kind, str],
        reasons: Mapping[Kind, str] | None = None,
        meanings: Mapping[str, str] | None = None,
        daily: re.Pattern[str] | None = None,
    ) -> None:
        self.codes = {**COMMON, **_by_word(codes)}
        self.reasons = _by_word(reasons or {})
        self.meanings = meanings or {}
        self.daily = daily  # what AWS's text says where a code of throttling means the day's quota

    def told(self, kind: Kind, word: str, text: str, after: float | None) -> ProviderError:
        """The same, where the code alone does not tell all."""
        if kind is Throttled and self.daily is not None and self.daily.search(text):
            return used_up("AWS: the quota of 24 hours is used up", code=QUOTA, retry_after=AGAIN)
        return self.error(kind, word, after)

    def error(self, kind: Kind, word: str, after: float | None = None) -> ProviderError:
        """An error of AWS's in our words."""
        text = f"AWS: {self.meanings.get(word, 'see the API reference for ' + word)}"
        if word in OPTED_OUT:
            return Rejected(text, code=word, because="opted_out")
        return kind(text, code=word, retry_after=after if kind is Throttled else None)


def _answered(error: BaseException, flight: Flight, tables: Tables) -> ProviderError:
    """By AWS's code and its reason, then by the status alone."""
    response: Any = getattr(error, "response", None) or {}
    status = flight.status or 0
    code, reason = _word(response.get("Error", {}).get("Code")), _word(response.get("Reason"))
    after = retry_after(flight.headers.get("retry-after", ""), flight.headers.get("date", ""))
    if 400 <= status < 500 and status != 408:
        if code in tables.codes:
            kind = tables.reasons.get(reason) or tables.codes[code]
            text = str(response.get("Error", {}).get("Message") or "")
            return tables.told(_narrowed(kind, response), reason or code, text, after)
        if status == 401:
            return AccountRefused("AWS refuses the credentials", code="http_401")
        if status == 429:
            return Throttled("too many requests", code="http_429", retry_after=after)
    return Ambiguous(f"HTTP {status} proves nothing", code=code or f"http_{status}")


def _narrowed(kind: Kind, response: Mapping[str, Any]) -> Kind:
    """A resource that does not exist is the sender, unless it stands in every message."""
    if kind is SenderRefused and "configuration" in str(response.get("ResourceType", "")):
        return AccountRefused
    return kind


def _word(value: object) -> str:
    """A code or reason; empty for anything that does not look like one, such as "400"."""
    text = str(value or "")
    return text if CODE.fullmatch(text) else ""
