"""The only reader of the environment.

`load` reads the process's environment over an optional `.env` file; blank means unset, and only
a name in capital letters is a variable's. Adapters declare their own settings classes and `fill`
fills them, so a vendor's variables stand in the vendor's file. Settings hold what `Environment`
gives them, and nothing else. Errors name the variable and the fix, and never show a value.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from gateway.domain import Channel
from gateway.errors import SettingsError
from gateway.routing import Retry

S = TypeVar("S", bound=BaseModel)

UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LEAST = {  # below these a gateway is busy with nothing, or gives up what would have come
    "send_timeout": "100ms",
    "worker_poll": "50ms",
    "lease_time": "4s",
    "retry_base": "10ms",
    "retry_cap": "100ms",
    "breaker_open_for": "100ms",
    "receipt_timeout": "1m",
    "message_expiry": "1m",
    "request_timeout": "100ms",
    "shutdown_timeout": "1s",
    "events_stall": "100ms",
    "events_retention": "1h",
    "inbox_retention": "90m",  # as long as a vendor's envelope may be posted again
    "idempotency_retention": "1m",
}
OR_NEVER = {  # or 0, which switches it off
    "lookup_after": "100ms",
    "backfill_after": "1s",
    "media_retention": "1h",
}
MOST = "3650d"
UNBROKEN = re.compile(r"[^\s\\\x00-\x1f\x7f]+")
LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")


def seconds(value: object) -> float:
    """Reads a duration: a number of seconds, or a number with ms, s, m, h or d."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*", str(value))
    if match is None:
        raise ValueError("must be a duration such as 30, 30s, 10m, 72h or 7d")
    return float(match[1]) * UNITS[match[2] or ""]


def names(value: object) -> object:
    """Reads a comma-separated list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _origin(url: str) -> str:
    """A URL to put paths behind, without a slash at its end. No error shows a part of it: what
    the standard library says would."""
    if "@" in url:  # in whichever part: a password with a slash in it ends what is read as a host
        raise ValueError("must not have a user or a password: leave out what is before the @")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must have a readable host, and a port from 1 to 65535 or none") from None
    if parts.scheme not in ("http", "https") or not host or not UNBROKEN.fullmatch(url):
        raise ValueError("must be a URL such as https://gateway.example.com")
    if not url.isascii():  # it stands in headers, and vendors sign what they make of it
        raise ValueError("must be of ASCII: write a domain beyond it as xn--…, and a path with %")
    if port == 0:
        raise ValueError("must have a port from 1 to 65535, or none")
    if "?" in url or "#" in url:
        raise ValueError("must not have a query or a fragment")
    return url.rstrip("/")


Duration = Annotated[float, BeforeValidator(seconds)]
Name = Annotated[str, StringConstraints(strip_whitespace=True)]
Names = Annotated[tuple[str, ...], BeforeValidator(names)]


class Settings(BaseModel):
    """What the core needs to know. Field names are the variables' names, in lower case."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    gateway_env: Literal["development", "production"] = "production"
    database_url: SecretStr | None = None
    data_dir: Path = Path("data")
    spool_dir: Path | None = None
    spool_max_bytes: int = Field(default=256 * 1024 * 1024, ge=64 * 1024, le=1024**4)
    public_url: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    gateway_api_key: SecretStr | None = None
    trusted_proxies: Names = ()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    messaging_provider: Name | None = None
    sms_providers: Names = ()
    whatsapp_providers: Names = ()
    email_providers: Names = ()
    default_region: str | None = None  # for numbers written without a country code
    prices_file: Path | None = None

    send_timeout: Duration = 10.0
    worker_seats: int = Field(default=256, ge=1, le=4096)
    worker_poll: Duration = 1.0
    lease_time: Duration = 60.0
    retry_base: Duration = 2.0
    retry_cap: Duration = 600.0
    retry_limit: int = Field(default=1000, ge=0, le=100_000)
    breaker_failures: int = Field(default=5, ge=1, le=10_000)
    breaker_messages: int = Field(default=3, ge=1, le=100)
    breaker_open_for: Duration = 60.0
    breaker_successes: int = Field(default=2, ge=1, le=100)
    receipt_timeout: Duration = 72 * 3600.0
    lookup_after: Duration = 30.0  # 0: never
    backfill_after: Duration = 300.0  # 0: never
    message_expiry: Duration = 24 * 3600.0
    media_max_bytes: int = Field(default=25 * 1024 * 1024, ge=1024, le=1024**3)
    media_store: str | None = None

    request_max_bytes: int = Field(default=1024 * 1024, ge=1024)
    webhook_max_bytes: int = Field(default=1024 * 1024, ge=1024)
    request_timeout: Duration = 10.0
    shutdown_timeout: Duration = 20.0

    events_max_clients: int = Field(default=1000, ge=1)
    events_max_clients_per_key: int = Field(default=200, ge=1)
    events_stall: Duration = 10.0
    events_retention: Duration = 7 * 86400.0
    inbox_retention: Duration = 30 * 86400.0
    idempotency_retention: Duration = 72 * 3600.0
    media_retention: Duration = 0.0  # 0: for ever

    @field_validator(*LEAST)
    @classmethod
    def _within_bounds(cls, value: float, info: ValidationInfo) -> float:
        least = LEAST[str(info.field_name)]
        if not seconds(least) <= value <= seconds(MOST):
            raise ValueError(f"must be from {least} to {MOST}")
        return value

    @field_validator(*OR_NEVER)
    @classmethod
    def _never_or_within_bounds(cls, value: float, info: ValidationInfo) -> float:
        least = OR_NEVER[str(info.field_name)]
        if value and not seconds(least) <= value <= seconds(MOST):
            raise ValueError(f"must be 0, or from {least} to {MOST}")
        return value

    @field_validator("gateway_api_key")
    @classmethod
    def _fit_for_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        text = value.get_secret_value().strip()
        if len(text) < 32:
            raise ValueError("must have at least 32 characters; unset it to use `gateway keys`")
        if re.fullmatch(r"[!-~]+", text) is None:
            raise ValueError("must be of ASCII letters, digits and signs, without spaces")
        return SecretStr(text)

    @field_validator("public_url")
    @classmethod
    def _an_origin(cls, value: str | None) -> str | None:
        return None if value is None else _origin(value.strip())

    @field_validator("media_store")
    @classmethod
    def _a_place(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[a-z0-9]+://[A-Za-z0-9._/-]+", value.strip()):
            raise ValueError("must be a place such as s3://bucket/prefix, or unset")
        return value.strip().rstrip("/") if value else None

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            try:
                ipaddress.ip_network(network, strict=False)
            except ValueError:
                raise ValueError("must be networks such as 10.0.0.0/8, by commas") from None
        return value

    @property
    def development(self) -> bool:
        """Whether conveniences of a developer's machine are on."""
        return self.gateway_env == "development"

    @cached_property
    def origin(self) -> str:
        """The address that vendors were told to call, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{self.port}"

    @property
    def reachable(self) -> str | None:
        """The same, where people's mail programs may be told it: they want https (RFC 8058), and
        reach no address that was never set. In development any will do."""
        told = (self.public_url or "").startswith("https://") or self.development
        return self.origin if told else None

    @cached_property
    def store_url(self) -> str:
        """The database's URL for SQLAlchemy. Holds a password: never printed."""
        if self.database_url is None:
            return f"sqlite:///{self.data_dir.resolve() / 'gateway.db'}"
        url = self.database_url.get_secret_value()
        for short in ("postgres://", "postgresql://"):
            if url.startswith(short):
                return "postgresql+psycopg://" + url[len(short) :]
        return url

    @property
    def retry(self) -> Retry:
        """How often, and when, a message is tried again."""
        return Retry(self.retry_base, self.retry_cap, self.retry_limit)

    @property
    def spool(self) -> Path:
        """The folder of the spool."""
        return self.spool_dir or self.data_dir / "spool"

    def chain(self, channel: Channel) -> tuple[str, ...]:
        """The names an operator gave for a channel, in order."""
        chains = {
            Channel.SMS: self.sms_providers,
            Channel.WHATSAPP: self.whatsapp_providers,
            Channel.EMAIL: self.email_providers,
        }
        return chains.get(channel, ())


class Environment:
    """The variables of this process over those of a `.env` file, with the core's own settings."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = {
            name: value for name, value in variables.items() if name.isupper() and value.strip()
        }
        self.settings = self._core()

    def _core(self) -> Settings:
        known = {
            name: self.variables[name.upper()]
            for name in Settings.model_fields
            if name.upper() in self.variables
        }
        try:
            settings = Settings.model_validate(known)
        except ValidationError as error:
            raise SettingsError(_sentence(error, Settings)) from None
        if settings.development and settings.host not in LOOPBACK:
            raise SettingsError(
                "HOST must be a loopback address in development (GATEWAY_ENV=development); "
                "set GATEWAY_ENV=production to listen on other addresses."
            )
        return settings

    def has(self, variable: str) -> bool:
        """Whether a variable is set and not blank."""
        return variable in self.variables

    def fill(self, model: type[S], extra: Mapping[str, str] | None = None) -> S:
        """Builds an adapter's settings from the variables that its fields name by alias."""
        wanted = {str(field.alias) for field in model.model_fields.values() if field.alias}
        values = {**(extra or {}), **self.variables}
        try:
            return model.model_validate({k: v for k, v in values.items() if k in wanted})
        except ValidationError as error:
            raise SettingsError(_sentence(error, model)) from None

    def with_(self, **more: str) -> Environment:
        """The same, with some variables set."""
        return Environment({**self.variables, **more})


def _sentence(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    parts = [str(part) for part in first["loc"]]
    if parts and (known := model.model_fields.get(parts[0])):  # what is unset comes by its field
        parts[0] = known.alias or parts[0]
    variable = ".".join(parts).upper()
    told = first["msg"].removeprefix("Value error, ")
    return f"{variable}: {told}." if variable else f"{told}."  # of several: it names them itself


def variables_of(model: type[BaseModel]) -> tuple[str, ...]:
    """The names of the variables that an operator may set for a settings class: not those that
    development makes for itself (`exclude=True`)."""
    fields = model.model_fields.items()
    return tuple(str(f.alias or name).upper() for name, f in fields if not f.exclude)


def load(env_file: Path | None = Path(".env"), **overrides: str) -> Environment:
    """Reads the environment. `overrides` win over it; a `.env` file gives way to it.

    Raises:
        SettingsError: a variable cannot be used; the text names it.
    """
    from dotenv import dotenv_values

    from_file = dotenv_values(env_file) if env_file is not None and env_file.is_file() else {}
    present = {name: value for name, value in from_file.items() if value is not None}
    return Environment({**present, **os.environ, **overrides})
