"""Where the commands find a running gateway, and how its errors become theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gateway.commands.lock import found
from gateway.commands.process import beside
from gateway.commands.terminal import Failure, visible
from gateway.commands.welcome import KEY_FILE, reachable

if TYPE_CHECKING:
    import requests

    from gateway.client import Client as Api
    from gateway.settings import Environment

TRIES, BACKOFF = 2, 0.2  # somebody waits at a terminal
TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True)
class Client:
    """A gateway at an address, with a key. `origin` is what it believes its own address to be."""

    env: Environment
    url: str
    origin: str
    key: str | None = field(repr=False)

    @cached_property
    def _api(self) -> Api:
        from gateway.client import Client as Api

        if self.key is None:
            raise Failure(
                "there is no key to use: give --key or set GATEWAY_API_KEY "
                "(`gateway keys create NAME` makes one)"
            )
        try:
            return Api(self.url, self.key, timeout=TIMEOUT, tries=TRIES, backoff=BACKOFF)
        except ValueError as error:
            raise Failure(f"the gateway at {self.url} cannot be asked: {error}") from None

    def get(self, path: str, **query: str) -> Any:
        """What the API answers to a GET."""
        with _told():
            return self._api.call("GET", path, query=query)

    def send(self, **fields: Any) -> Any:
        """Sends a message."""
        with _told():
            return self._api.send(**fields)

    def upload(self, data: bytes, content_type: str, filename: str, channel: str) -> Any:
        """Keeps a file to be sent on a channel."""
        with _told():
            return self._api.upload(data, content_type, filename=filename, channel=channel)

    def events(self, after: int | None) -> Iterator[dict[str, Any]]:
        """The frames of the feed, from now on or after a number, without an end.

        Raises:
            Failure: it cannot be opened, or the key holds no more.
        """
        with _told():
            yield from self._api.events(after)

    def post_unsigned(self, path: str, body: bytes, headers: dict[str, str]) -> requests.Response:
        """A webhook, as a vendor posts it: without our key.

        Raises:
            Failure: there is no answer.
        """
        from gateway.client import ask, quiet_session

        more = {"data": body, "timeout": TIMEOUT}
        with _told(), quiet_session() as session:
            return ask(session, "POST", self.url, path, headers, more)


@contextmanager
def _told() -> Iterator[None]:
    """Says in a command's words what the client raises."""
    from gateway.client import ClientError, NoAnswer

    try:
        yield
    except NoAnswer as error:
        fix = "" if error.found else ": start it with `gateway serve`, or give --url"
        raise Failure(f"{error}{fix}") from None
    except ClientError as error:
        text = "\n".join(visible(line) for line in str(error).splitlines())
        raise Failure(text) from None


def client(url: str | None, key: str | None) -> Client:
    """A client of the gateway that is named, or else of the one that runs here."""
    env = beside()
    settings = env.settings
    serving = found(settings.data_dir)
    here = serving.url if serving is not None else reachable(settings)
    there = (url or here).rstrip("/")
    origin = serving.origin if serving is not None else settings.origin
    if there != here:  # another gateway: it believes in its PUBLIC_URL, or in where it listens
        origin = settings.public_url or there
    return Client(env=env, url=there, origin=origin, key=key or _own_key(env))


def _own_key(env: Environment) -> str | None:
    static = env.settings.gateway_api_key
    if static is not None:
        return static.get_secret_value()
    path = env.settings.data_dir / KEY_FILE
    if env.settings.development and path.is_file():
        return path.read_text().strip()
    return None
