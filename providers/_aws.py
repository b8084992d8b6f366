"""One AWS account as an adapter uses it: boto3's clients, and the threads that they wait on.

A call that finds no free thread waits for one inside its time, and is never queued unseen. A call
that was written and has no answer in time keeps its thread for as long again: the answer may
still come.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, ClassVar, Generic, NoReturn, TypeVar, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from gateway.errors import Ambiguous, ProviderError, SettingsError, Throttled, Unreachable
from providers._aws_errors import Tables, judge
from providers._aws_wire import FLIGHT, Flight, Wire
from providers._http import CONNECT_TIMEOUT

T = TypeVar("T")

SEATS = 32  # threads: boto3 takes a millisecond of the interpreter a request, so more send no more
CLOSING = 2.0  # seconds for threads that were cut off to come back
EXTRA = "AWS needs its extra: install messaging-gateway[aws]."
LOOPBACK = ("localhost", "127.0.0.1", "::1")
WORDS = {  # what the SDK reads by itself, and would refuse late and at length
    "defaults_mode": ("legacy", "auto", "standard", "in-region", "cross-region", "mobile"),
    "sts_regional_endpoints": ("legacy", "regional"),
}
CHATTY = ("boto3", "botocore", "urllib3")  # at DEBUG they log bodies, addresses and signatures


class AwsAccount(BaseModel):
    """What the environment says of the account, whichever of AWS's products is used.

    `joins`: what must be set for AWS to be set up without being named. `shared`: what other
    software is configured by too, and what therefore tells nothing by itself.
    """

    model_config = ConfigDict(
        frozen=True, populate_by_name=True, hide_input_in_errors=True, str_strip_whitespace=True
    )
    required: ClassVar[tuple[str, ...]] = ("AWS_REGION",)
    joins: ClassVar[tuple[str, ...]] = ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    shared: ClassVar[tuple[str, ...]] = ("AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")

    region: str = Field("", alias="AWS_REGION")
    access_key_id: str = Field("", alias="AWS_ACCESS_KEY_ID", repr=False)
    secret_access_key: SecretStr = Field(
        SecretStr(""), alias="AWS_SECRET_ACCESS_KEY", validate_default=True
    )
    session_token: SecretStr = Field(SecretStr(""), alias="AWS_SESSION_TOKEN")
    endpoint_url: str = Field("", alias="AWS_ENDPOINT_URL")

    @field_validator("region")
    @classmethod
    def _a_region(cls, value: str) -> str:
        if value and not re.fullmatch(r"[a-z]{2,4}(-[a-z]+)+-\d{1,2}", value):
            raise ValueError("must be a region such as eu-central-1")
        return value

    @field_validator("access_key_id")
    @classmethod
    def _a_key_id(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z0-9_]{1,128}", value):
            raise ValueError("must be the id of an access key, such as AKIA…")
        return value

    @field_validator("secret_access_key")
    @classmethod
    def _a_pair(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        secret, key_id = value.get_secret_value().strip(), info.data.get("access_key_id")
        if key_id and not secret:
            raise ValueError("is not set, but AWS_ACCESS_KEY_ID is: set both, or neither")
        if secret and not key_id:
            raise ValueError("is set, but AWS_ACCESS_KEY_ID is not: set both, or neither")
        return SecretStr(secret)

    @field_validator("endpoint_url")
    @classmethod
    def _an_origin(cls, value: str) -> str:
        value = value.rstrip("/")
        parts = urlsplit(value)
        host = parts.hostname or ""
        # A name without a dot is one of a private network, such as a container beside us.
        near = host in LOOPBACK or (host and "." not in host and ":" not in host)
        if value and not (host and (parts.scheme == "https" or (parts.scheme == "http" and near))):
            raise ValueError("must be an https URL; http only for this machine or a container")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must not have credentials, a query or a fragment")
        return value


class Aws:
    """The clients of one account, and a bounded number of threads to call them on."""

    def __init__(self, account: AwsAccount, *, timeout: float) -> None:
        """Loads the SDK, and finds the credentials.

        Raises:
            SettingsError: a variable, the SDK or every credential is missing.
        """
        if not account.region:
            raise SettingsError("AWS_REGION is not set; AWS cannot be used without it.")
        self._account = account
        self._timeout = timeout
        self._session, bundle = _session(account)
        try:
            self._wire = Wire(
                connect=min(CONNECT_TIMEOUT, timeout),
                read=2 * timeout,
                connections=SEATS,
                bundle=bundle,
            )
        except OSError:  # an error of TLS is one, too
            raise SettingsError(
                "AWS_CA_BUNDLE names no file of certificates that can be read: correct or unset it."
            ) from None
        self._threads = ThreadPoolExecutor(SEATS, thread_name_prefix="gateway-aws")
        self._free = asyncio.Semaphore(SEATS)
        self._flights: dict[asyncio.Future[Any], Flight] = {}
        self._making = Lock()
        self._closed = False

    def client(self, service: str, region: str | None = None, **more: Any) -> Any:
        """A client of boto3, with `more` of its configuration; making one takes up to 100 ms."""
        from botocore.config import Config  # type: ignore[import-untyped]
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

        config = Config(
            # Three of the SDK's defaults would send twice: none of its sends has a token.
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=min(CONNECT_TIMEOUT, self._timeout),
            read_timeout=self._timeout,
            max_pool_connections=SEATS,
            proxies={},
            tcp_keepalive=True,
            ignore_configured_endpoint_urls=True,  # ours is in AWS_ENDPOINT_URL, and in no file
            **more,
        )
        try:
            with self._making:  # sessions are not made for threads
                made = self._session.client(
                    service,
                    region_name=region or self._account.region,
                    endpoint_url=self._account.endpoint_url or None,
                    config=config,
                )
        except BotoCoreError as error:
            if FLIGHT.get(None) is not None:  # a call's, whose errors are judged
                raise
            _unusable(type(error).__name__)
        self._wire.attach(made)
        return made

    async def call(
        self, work: Callable[[Flight], T], tables: Tables, *, within: float | None = None
    ) -> T:
        """Runs one call of boto3 on a thread; `within` less than the usual time, if that is given.

        Raises:
            Throttled: no thread was free.
            Unreachable: nothing was written, and nothing will be.
            Ambiguous: something was, and no answer came; `late` may still bring it.
            ProviderError: what AWS said, by the tables.
        """
        if self._closed:
            raise Unreachable("the provider is closed", code="closed")
        loop = asyncio.get_running_loop()
        within = self._timeout if within is None else within
        ends = loop.time() + within
        await self._seat(within / 2)
        flight = Flight()
        landing = asyncio.wrap_future(self._threads.submit(_fly, flight, work, tables))
        self._flights[landing] = flight
        landing.add_done_callback(self._landed)
        try:
            await asyncio.wait({landing}, timeout=max(ends - loop.time(), 0.0))
        except asyncio.CancelledError:
            flight.hang_up()
            raise
        if landing.done():
            return _heard(landing.result())
        if flight.call_off():
            raise Unreachable("AWS could not be reached in time", code="connect_timeout")
        # It may drip for ever: at some time nobody listens any more, and the thread is free.
        loop.call_later(self._timeout, flight.hang_up)
        raise Ambiguous("no answer in time", code="timeout", late=cast(Any, Late(landing)))

    async def aclose(self) -> None:
        """Ends what is under way, and closes every connection. May be called twice."""
        if self._closed:
            return
        self._closed = True
        for flight in self._flights.values():
            flight.hang_up()
        if self._flights:
            await asyncio.wait(set(self._flights), timeout=CLOSING)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._wire.close()

    async def _seat(self, within: float) -> None:
        """Takes a thread; half of the time is left for what it is taken for."""
        try:
            async with asyncio.timeout(within):
                await self._free.acquire()
        except TimeoutError:
            full = True
        else:
            full = False
        if full:
            raise Throttled(f"all {SEATS} threads wait for AWS", code="no_seat")

    def _landed(self, landing: asyncio.Future[Any]) -> None:
        self._flights.pop(landing, None)
        self._free.release()


class Late(Generic[T]):
    """The answer of a call that outlived its time. Nobody has to wait for it."""

    def __init__(self, landing: asyncio.Future[Any]) -> None:
        self._landing = landing

    def __await__(self) -> Generator[Any, None, T]:
        return self._answer().__await__()

    async def _answer(self) -> T:
        return cast(T, _heard(await asyncio.shield(self._landing)))


def _fly(flight: Flight, work: Callable[[Flight], T], tables: Tables) -> T | ProviderError:
    """One call, on its thread. Gives its error back: raised, it would carry what was sent."""
    FLIGHT.set(flight)
    try:
        answer = work(flight)
    except ProviderError as error:
        return error.with_traceback(None)
    except Exception as error:
        return judge(error, flight, tables)
    finally:
        flight.land()
    if not flight.written:  # the mark is out of order, so nothing it says is true
        return Ambiguous("boto3 no longer sends by its event before-send", code="unmarked")
    return answer


def _heard(answer: T | ProviderError) -> T:
    if isinstance(answer, ProviderError):
        raise answer
    return answer


def _session(account: AwsAccount) -> tuple[Any, str]:
    """A session of our own, and the file of the authorities that it trusts."""
    try:
        import boto3  # type: ignore[import-untyped]
        from botocore.exceptions import BotoCoreError
        from botocore.httpsession import get_cert_path  # type: ignore[import-untyped]
        from botocore.session import Session  # type: ignore[import-untyped]
    except ImportError:
        raise SettingsError(EXTRA) from None
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    core = Session()
    try:
        made = boto3.Session(
            aws_access_key_id=account.access_key_id or None,
            aws_secret_access_key=account.secret_access_key.get_secret_value() or None,
            aws_session_token=account.session_token.get_secret_value() or None
            if account.access_key_id
            else None,
            region_name=account.region,
            botocore_session=core,
        )
        bundle = str(core.get_config_variable("ca_bundle") or get_cert_path(True))
        known = made.get_credentials() is not None
        _check_words(core)
    except BotoCoreError as error:
        _unusable(type(error).__name__)
    if not known:
        raise SettingsError(
            "AWS_ACCESS_KEY_ID is not set, and no other credentials of AWS were found: set it "
            "with AWS_SECRET_ACCESS_KEY, or give this machine a profile or a role."
        )
    return made, bundle


def _check_words(core: Any) -> None:
    for name, words in WORDS.items():
        if str(core.get_config_variable(name) or words[0]).lower() not in words:
            raise SettingsError(f"AWS_{name.upper()} must be one of {', '.join(words)}, or unset.")


def _unusable(name: str) -> NoReturn:
    raise SettingsError(
        f"AWS_PROFILE, another AWS_… variable or a file of AWS's settings is unusable ({name})."
    )
