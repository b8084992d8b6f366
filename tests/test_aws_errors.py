"""What boto3's exceptions and AWS's codes mean: the tables are whole, and prove what they say."""

from __future__ import annotations

import inspect
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import botocore.exceptions
import pytest
import urllib3.exceptions
from botocore.parsers import ResponseParserError

from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    Throttled,
    Unreachable,
    Unsupported,
)
from providers._aws_errors import Tables, judge, unsigned, unwritten
from providers._aws_sns_tables import PUBLISH, TEXT
from providers._aws_topics import TABLES
from providers._aws_wire import CalledOff, Flight, TooLarge
from providers._retry_after import retry_after
from tests.aws_servers import model

CREDENTIALS = (AccountRefused, "credentials")
CONFIGURATION = (AccountRefused, "configuration")
FETCHED = (Unreachable, "credentials")
PARAMETERS = (Unsupported, "parameters")
LOST = (Ambiguous, "no_answer")

# Every exception of botocore, and what it means while no request of ours stands. One that a new
# botocore brings is missing here, and the first test below fails until somebody has decided.
BEFORE: dict[str, tuple[type[ProviderError], str]] = {
    # credentials
    "NoCredentialsError": CREDENTIALS,
    "PartialCredentialsError": CREDENTIALS,
    "NoAuthTokenError": CREDENTIALS,
    "UnknownTokenProviderError": CREDENTIALS,
    "UnknownCredentialError": CREDENTIALS,
    "RefreshWithMFAUnsupportedError": CREDENTIALS,
    "SSOError": CREDENTIALS,
    "SSOTokenLoadError": CREDENTIALS,
    "UnauthorizedSSOTokenError": CREDENTIALS,
    "LoginError": CREDENTIALS,
    "LoginRefreshRequired": CREDENTIALS,
    "LoginInsufficientPermissions": CREDENTIALS,
    "LoginTokenLoadError": CREDENTIALS,
    "LoginAuthorizationCodeError": CREDENTIALS,
    "CredentialRetrievalError": FETCHED,
    "TokenRetrievalError": FETCHED,
    "MetadataRetrievalError": FETCHED,
    # the connection family: by these requests credentials are fetched
    "HTTPClientError": FETCHED,
    "ConnectionClosedError": FETCHED,
    "ReadTimeoutError": FETCHED,
    "ResponseStreamingError": FETCHED,
    "ConnectionError": FETCHED,
    "ConnectTimeoutError": FETCHED,
    "EndpointConnectionError": FETCHED,
    "ProxyConnectionError": FETCHED,
    "SSLError": FETCHED,
    "ClientError": FETCHED,
    "EventStreamError": FETCHED,
    # configuration
    "BaseEndpointResolverError": CONFIGURATION,
    "NoRegionError": CONFIGURATION,
    "EndpointVariantError": CONFIGURATION,
    "UnknownEndpointError": CONFIGURATION,
    "UnknownFIPSEndpointError": CONFIGURATION,
    "InvalidRegionError": CONFIGURATION,
    "ProfileNotFound": CONFIGURATION,
    "ConfigParseError": CONFIGURATION,
    "ConfigNotFound": CONFIGURATION,
    "InvalidConfigError": CONFIGURATION,
    "InfiniteLoopConfigError": CONFIGURATION,
    "InvalidIMDSEndpointError": CONFIGURATION,
    "InvalidIMDSEndpointModeError": CONFIGURATION,
    "InvalidProxiesConfigError": CONFIGURATION,
    "InvalidRetryConfigurationError": CONFIGURATION,
    "InvalidMaxRetryAttemptsError": CONFIGURATION,
    "InvalidRetryModeError": CONFIGURATION,
    "InvalidDefaultsMode": CONFIGURATION,
    "InvalidEndpointConfigurationError": CONFIGURATION,
    "EndpointProviderError": CONFIGURATION,
    "EndpointResolutionError": CONFIGURATION,
    "UnknownEndpointResolutionBuiltInName": CONFIGURATION,
    "UnsupportedServiceProtocolsError": CONFIGURATION,
    "InvalidSTSRegionalEndpointsConfigError": CONFIGURATION,
    "ServiceNotInRegionError": CONFIGURATION,
    "DataNotFoundError": CONFIGURATION,
    "UnknownServiceError": CONFIGURATION,
    "UnknownRegionError": CONFIGURATION,
    "UnknownSignatureVersionError": CONFIGURATION,
    "UnsupportedSignatureVersionError": CONFIGURATION,
    "MissingDependencyException": CONFIGURATION,
    "MD5UnavailableError": CONFIGURATION,
    # parameters
    "ParamValidationError": PARAMETERS,
    "ValidationError": PARAMETERS,
    "MissingParametersError": PARAMETERS,
    "UnknownKeyError": PARAMETERS,
    "RangeError": PARAMETERS,
    "UnknownParameterError": PARAMETERS,
    "AliasConflictParameterError": PARAMETERS,
}
# What no call of ours can raise (paginators, waiters, S3, stubs, endpoint rules): in no table.
ELSEWHERE = (
    "ApiVersionNotFoundError",
    "AwsChunkedWrapperError",
    "BotoCoreError",
    "CapacityNotAvailableError",
    "ChecksumError",
    "FlexibleChecksumError",
    "IncompleteReadError",
    "InvalidChecksumConfigError",
    "InvalidDNSNameError",
    "InvalidEndpointDiscoveryConfigurationError",
    "InvalidExpressionError",
    "InvalidHostLabelError",
    "InvalidS3AddressingStyleError",
    "InvalidS3UsEast1RegionalEndpointConfigError",
    "MissingServiceIdError",
    "OperationNotPageableError",
    "PaginationError",
    "StubAssertionError",
    "StubResponseError",
    "UnStubbedResponseError",
    "UndefinedModelAttributeError",
    "UnknownClientMethodError",
    "UnknownServiceStyle",
    "UnseekableStreamError",
    "UnsupportedOutpostResourceError",
    "UnsupportedS3AccesspointConfigurationError",
    "UnsupportedS3ArnError",
    "UnsupportedS3ConfigurationError",
    "UnsupportedS3ControlArnError",
    "UnsupportedS3ControlConfigurationError",
    "WaiterConfigError",
    "WaiterError",
)

# Every exception of urllib3, and what it means before the first byte of our request.
BETWEEN: dict[str, tuple[type[ProviderError], str]] = {
    "NameResolutionError": (Unreachable, "dns"),
    "NewConnectionError": (Unreachable, "connect"),
    "ConnectTimeoutError": (Unreachable, "connect_timeout"),
    "TimeoutError": (Unreachable, "connect_timeout"),
    "ReadTimeoutError": (Unreachable, "connect_timeout"),  # of a handshake
    "SSLError": (Unreachable, "tls"),
    "ProxyError": (Unreachable, "connect"),
    "ProtocolError": (Unreachable, "connect"),
    "LocationValueError": (Unreachable, "url"),
    "LocationParseError": (Unreachable, "url"),
    "URLSchemeUnknown": (Unreachable, "url"),
    "ProxySchemeUnknown": (Unreachable, "url"),
    "PoolError": (Unreachable, "connect"),
    "RequestError": (Unreachable, "connect"),
    "EmptyPoolError": (Unreachable, "connect"),
    "FullPoolError": (Unreachable, "connect"),
    "ClosedPoolError": (Unreachable, "connect"),
    "HTTPError": LOST,
    "MaxRetryError": LOST,
    "HostChangedError": LOST,
    "ResponseError": LOST,
    "ResponseNotChunked": LOST,
    "DecodeError": LOST,
    "BodyNotHttplibCompatible": LOST,
    "IncompleteRead": LOST,
    "InvalidChunkLength": LOST,
    "InvalidHeader": LOST,
    "HeaderParsingError": LOST,
    "UnrewindableBodyError": LOST,
    "TimeoutStateError": LOST,
}
OTHERS: dict[type[BaseException], tuple[type[ProviderError], str]] = {
    CalledOff: (Unreachable, "connect_timeout"),
    TooLarge: LOST,
    TimeoutError: (Unreachable, "connect_timeout"),
    OSError: (Unreachable, "connect"),
    ConnectionRefusedError: (Unreachable, "connect"),
    ConnectionResetError: (Unreachable, "connect"),
    socket.gaierror: (Unreachable, "dns"),
    ssl.SSLError: (Unreachable, "tls"),
    ssl.SSLCertVerificationError: (Unreachable, "tls"),
    UnicodeEncodeError: (Rejected, "text"),
    ResponseParserError: LOST,
    RuntimeError: LOST,
    KeyError: LOST,
    ValueError: LOST,
    MemoryError: LOST,
}
SECRET = "s3cret https://user:s3cret@example.com"


def classes(module: Any, *roots: type[BaseException]) -> Iterator[type[BaseException]]:
    """The exceptions that a library defines."""
    for _, kind in inspect.getmembers(module, inspect.isclass):
        if issubclass(kind, roots) and kind.__module__ == module.__name__:
            yield kind


BOTOCORE = {kind.__name__: kind for kind in classes(botocore.exceptions, Exception)}
BOTOCORE = {n: kind for n, kind in BOTOCORE.items() if not issubclass(kind, Warning)}
URLLIB3 = {k.__name__: k for k in classes(urllib3.exceptions, urllib3.exceptions.HTTPError)}


def raised(kind: type[BaseException]) -> BaseException:
    """An exception of a class, whatever its constructor wants, with something to hide."""
    error = kind.__new__(kind)
    error.args = (SECRET,)
    return error


def flown(*, signed: bool = False, written: bool = False, status: int | None = None) -> Flight:
    flight = Flight()
    flight.signed, flight.written, flight.status = signed, written, status
    return flight


def verdict(error: BaseException, flight: Flight) -> tuple[type[ProviderError], str]:
    failed = judge(error, flight, PUBLISH)
    assert "s3cret" not in repr(failed)
    return type(failed), failed.code


def test_every_exception_of_botocore_was_thought_of() -> None:
    assert set(BOTOCORE) == {*BEFORE, *ELSEWHERE}


def test_every_exception_of_urllib3_was_thought_of() -> None:
    warnings = {n for n, kind in URLLIB3.items() if issubclass(kind, Warning)}
    assert set(URLLIB3) - warnings == set(BETWEEN)


@pytest.mark.parametrize("name", BEFORE)
def test_before_a_request_stands_nothing_was_sent(name: str) -> None:
    assert verdict(raised(BOTOCORE[name]), flown()) == BEFORE[name]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_no_call_of_ours_raises_proves_nothing(name: str) -> None:
    assert verdict(raised(BOTOCORE[name]), flown())[0] is Ambiguous


@pytest.mark.parametrize("name", BETWEEN)
def test_before_the_first_byte_nobody_was_reached(name: str) -> None:
    assert verdict(raised(URLLIB3[name]), flown(signed=True)) == BETWEEN[name]


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_other_errors_mean_what_is_written_here(kind: type[BaseException]) -> None:
    assert verdict(raised(kind), flown(signed=True)) == OTHERS[kind]


@pytest.mark.parametrize("kind", BOTOCORE.values(), ids=lambda kind: kind.__name__)
def test_an_exception_of_botocore_after_the_signature_proves_nothing(
    kind: type[BaseException],
) -> None:
    # What sends is ours, and raises none of these: where they come from, botocore has sent.
    assert verdict(raised(kind), flown(signed=True))[0] is Ambiguous


@pytest.mark.parametrize(
    "kind", [*BOTOCORE.values(), *URLLIB3.values(), *OTHERS], ids=lambda kind: kind.__name__
)
def test_once_something_was_written_every_error_is_ambiguous(kind: type[BaseException]) -> None:
    error = raised(kind)
    assert type(judge(error, flown(signed=True, written=True), PUBLISH)) is Ambiguous
    for status in (200, 301, 400, 404, 500):
        flight = flown(signed=True, written=True, status=status)
        assert type(judge(error, flight, PUBLISH)) is Ambiguous


def test_the_tables_hold_no_class_that_nobody_tests() -> None:
    assert {kind.__name__ for kind in unsigned()} <= {*BEFORE, "UnicodeEncodeError"}
    others = {kind.__name__ for kind in OTHERS} | set(BEFORE)
    assert {kind.__name__ for kind in unwritten()} <= {*BETWEEN, *others}


def client_error(code: str, **more: Any) -> Exception:
    error = {"Error": {"Code": code, "Message": SECRET}, "Message": SECRET, **more}
    return botocore.exceptions.ClientError(error, "Publish")


def answered(error: Exception, status: int, tables: Tables = PUBLISH, **headers: str) -> Any:
    flight = flown(signed=True, written=True, status=status)
    flight.headers = headers
    failed = judge(error, flight, tables)
    assert "s3cret" not in repr(failed)
    return failed


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("AccessDenied", 403, AccountRefused),
        ("ExpiredToken", 400, AccountRefused),
        ("Throttling", 400, Throttled),
        ("InternalFailure", 500, Unreachable),
        ("SomethingNew", 400, Unreachable),
    ],
)
def test_who_gives_out_credentials_may_refuse_and_nothing_of_ours_was_sent(
    code: str, status: int, expected: type[ProviderError]
) -> None:
    error = client_error(code, ResponseMetadata={"HTTPStatusCode": status})
    assert verdict(error, flown()) == (expected, "credentials")


def test_every_code_of_publish_is_in_the_table() -> None:
    errors = model("sns").operation_model("Publish").error_shapes
    assert {shape.metadata["error"]["code"] for shape in errors} <= set(PUBLISH.codes)
    assert "OptedOut" in PUBLISH.codes  # it is in the model, and not in that list


@pytest.mark.parametrize("operation", ["SendTextMessage", "SendMediaMessage"])
def test_every_code_of_a_text_is_in_the_table(operation: str) -> None:
    errors = model("pinpoint-sms-voice-v2").operation_model(operation).error_shapes
    assert {shape.name for shape in errors} <= set(TEXT.codes)


def test_every_reason_of_a_text_exists() -> None:
    service = model("pinpoint-sms-voice-v2")
    known: set[str] = set()
    for name in ("AccessDenied", "Conflict", "ServiceQuotaExceeded", "Validation"):
        known |= set(service.shape_for(f"{name}ExceptionReason").enum)
    assert set(TEXT.reasons) <= known


def test_every_reason_of_a_refused_account_and_of_a_full_month_has_its_class() -> None:
    service = model("pinpoint-sms-voice-v2")
    for reason in service.shape_for("AccessDeniedExceptionReason").enum:
        assert TEXT.reasons[reason] is AccountRefused
    for reason in service.shape_for("ServiceQuotaExceededExceptionReason").enum:
        if reason.startswith(("MONTHLY_SPEND", "DAILY_")):
            assert reason in TEXT.reasons


REASONS: list[tuple[str, dict[str, str], type[ProviderError], str]] = [
    ("ConflictException", {"Reason": "DESTINATION_PHONE_NUMBER_OPTED_OUT"}, Rejected, ""),
    ("ConflictException", {"Reason": "NO_ORIGINATION_IDENTITIES_FOUND"}, SenderRefused, ""),
    ("ConflictException", {"Reason": "SOMETHING_NEW"}, Rejected, ""),
    ("ConflictException", {}, Rejected, "ConflictException"),
    ("ValidationException", {"Reason": "PRICE_OVER_THRESHOLD"}, Unsupported, ""),
    ("ValidationException", {"Reason": "OTHER"}, Rejected, ""),
    ("ServiceQuotaExceededException", {"Reason": "MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT"},
     AccountRefused, ""),
    ("ServiceQuotaExceededException", {"Reason": "MONTHLY_SPEND_LIMIT_REACHED_FOR_MEDIA"},
     Throttled, ""),
    ("ServiceQuotaExceededException", {"Reason": "DAILY_DESTINATION_CALL_LIMIT"}, Throttled, ""),
    ("AccessDeniedException", {"Reason": "ACCOUNT_DISABLED"}, AccountRefused, ""),
    ("AccessDeniedException", {}, AccountRefused, "AccessDeniedException"),
    ("ResourceNotFoundException", {"ResourceType": "phone-number"}, SenderRefused,
     "ResourceNotFoundException"),
    ("ResourceNotFoundException", {"ResourceType": "configuration-set"}, AccountRefused,
     "ResourceNotFoundException"),
    ("ThrottlingException", {}, Throttled, "ThrottlingException"),
    ("InternalServerException", {}, Ambiguous, "InternalServerException"),
    ("SomethingNew", {"Reason": "DESTINATION_PHONE_NUMBER_OPTED_OUT"}, Ambiguous, "SomethingNew"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "more", "expected", "told"), REASONS)
def test_a_text_is_refused_for_its_reason(
    code: str, more: dict[str, str], expected: type[ProviderError], told: str
) -> None:
    failed = answered(client_error(code, **more), 400, TEXT)
    assert (type(failed), failed.code) == (expected, told or more["Reason"])


@pytest.mark.parametrize("status", [200, 301, 304, 408, 500, 502, 503])
@pytest.mark.parametrize("code", ["OptedOut", "Throttling", "ExpiredToken", "InvalidParameter"])
def test_a_code_is_believed_only_where_aws_says_that_the_fault_is_ours(
    code: str, status: int
) -> None:
    assert type(answered(client_error(code), status)) is Ambiguous


@pytest.mark.parametrize("code", ["400", "", "<script>", "A" * 200, "a b", "x\n"])
def test_what_is_no_code_is_not_repeated(code: str) -> None:
    assert answered(client_error(code), 400).code == "http_400"


def test_throttling_says_when_to_come_back() -> None:
    waits = answered(client_error("Throttling"), 400, **{"retry-after": "7"})
    assert (type(waits), waits.retry_after) == (Throttled, 7.0)
    assert answered(client_error("OptedOut"), 400, **{"retry-after": "7"}).retry_after is None


@pytest.mark.parametrize("given", ["", "soon", "-1", "1e9", "99999999999", "Wed, 21 Oct 2026"])
def test_a_time_that_cannot_be_read_is_none(given: str) -> None:
    assert retry_after(given, "nonsense") is None


def test_the_codes_of_setting_up_are_in_its_table() -> None:
    service = model("sns")
    for operation in ("Subscribe", "SetTopicAttributes", "SetSubscriptionAttributes"):
        shapes = service.operation_model(operation).error_shapes
        assert {shape.metadata["error"]["code"] for shape in shapes} <= {
            *TABLES.codes,
            "ReplayLimitExceeded",
        }
