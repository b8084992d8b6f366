"""The HTTP client of the commands that talk to a running gateway, and where they find it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.commands.lock import found
from gateway.commands.process import beside
from gateway.commands.terminal import Failure, visible
from gateway.commands.welcome import KEY_FILE, reachable

if TYPE_CHECKING:
    import requests

    from gateway.settings import Environment

TIMEOUT = 30.0
STREAM_TIMEOUT = 40.0  # a stream says something every 15 seconds


@dataclass(frozen=True, kw_only=True)
class Client:
    """A gateway at an address, with a key. `origin` is what it believes its own address to be."""

    env: Environment
    url: str
    origin: str
    key: str | None = field(repr=False)

    def get(self, path: str, **query: str) -> Any:
        """What the API answers to a GET."""
        return self._call("GET", path, params=query)

    def post(self, path: str, body: Any) -> Any:
        """What the API answers to a POST."""
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **more: Any) -> Any:
        response = self.request(method, path, headers=self._headers(), **more)
        if response.status_code >= 400:
            raise Failure(problem(response))
        return response.json()

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        """One request, without a key of its own.

        Raises:
            Failure: there is no answer.
        """
        import requests

        more.setdefault("timeout", TIMEOUT)
        try:
            return _session().request(method, self.url + path, allow_redirects=False, **more)
        except requests.RequestException as error:
            raise Failure(_unreachable(self.url, error)) from None

    def _headers(self) -> dict[str, str]:
        if self.key is None:
            raise Failure(
                "there is no key to use: give --key or set GATEWAY_API_KEY "
                "(`gateway keys create NAME` makes one)"
            )
        return {"authorization": f"Bearer {self.key}"}

    def events(self, after: int | None) -> Iterator[dict[str, Any]]:
        """The frames of the feed, from now on or after a number, until the stream ends.

        Raises:
            Failure: it cannot be opened, or breaks.
        """
        import requests

        headers = self._headers() | ({} if after is None else {"last-event-id": str(after)})
        response = self.request(
            "GET", "/api/events", headers=headers, stream=True, timeout=(5, STREAM_TIMEOUT)
        )
        with response:
            if response.status_code >= 400:
                raise Failure(problem(response))
            try:
                for line in response.iter_lines(chunk_size=1):
                    if line.startswith(b"data:"):
                        yield json.loads(line[5:])
            except requests.RequestException as error:
                raise Failure(_unreachable(self.url, error)) from None


def _session() -> requests.Session:
    import requests

    session = requests.Session()
    session.trust_env = False  # no proxy, and no .netrc in place of the key
    return session


def _unreachable(url: str, error: Exception) -> str:
    import requests

    if isinstance(error, requests.Timeout):
        return f"the gateway at {url} did not answer in time"
    if isinstance(error, requests.ConnectionError):
        return f"no gateway answers at {url}: start it with `gateway serve`, or give --url"
    return f"the gateway at {url} cannot be asked: {error}"


def problem(response: requests.Response) -> str:
    """An error of the API for people: its detail, and each field with its fix."""
    try:
        body = response.json()
        detail = body.get("detail") or body["title"]
    except (ValueError, KeyError, AttributeError):
        return f"{response.status_code} {visible(response.reason)}"
    fields = [f"  {e.get('field')}: {e.get('message')}" for e in body.get("errors", ())]
    named = all(str(e.get("field")) in detail for e in body.get("errors", ()))
    return "\n".join([f"{detail} ({response.status_code})", *([] if named else fields)])


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
