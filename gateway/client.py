"""The gateway's API from Python: sends, reads, and follows what happens.

Stands on `requests` alone and on nothing else of the gateway. Repeats a request only where that
cannot send twice: reads, and sends, which carry an `Idempotency-Key` of their own. Never shows the
key: not in a repr, an error or a log.
"""

from __future__ import annotations

import json
import logging
import random
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote, urlsplit

import requests

log = logging.getLogger("gateway.client")

TIMEOUT = 30.0  # seconds until an answer must have begun, and between its parts
CONNECT, SILENCE = 5.0, 40.0  # of a stream: it says something every 15 seconds
TRIES = 4
BACKOFF, LONGEST = 0.5, 30.0  # seconds before the first repetition, doubled each time; and at most
AGAIN = frozenset({429, 502, 503, 504})  # answers that say: later
EVENT_MOST = 32 * 1024 * 1024  # bytes
PAGE = 100

Json = dict[str, Any]


class ClientError(Exception):
    """The root of what a client raises. `retry_after` is in seconds, where the gateway said so."""

    again = False  # whether another try may go better
    retry_after: float | None = None


class NoAnswer(ClientError):
    """The gateway was not reached, or its answer did not come, or not whole. `found` is false where
    nobody listens."""

    again = True

    def __init__(self, text: str, *, found: bool = True) -> None:
        self.found = found
        super().__init__(text)


class Problem(ClientError):
    """The gateway said no: `status`, `title`, `detail`, and `errors` with `field` and `message`."""

    def __init__(self, status: int, body: Mapping[str, Any], retry_after: float | None) -> None:
        self.status = status
        self.type = str(body.get("type") or "about:blank")
        self.title = str(body.get("title") or "")
        self.detail = str(body.get("detail") or self.title)
        listed = body.get("errors")
        self.errors: list[Json] = [e for e in listed if isinstance(e, dict)] if listed else []
        self.retry_after = retry_after
        self.again = status in AGAIN
        super().__init__(self._text())

    def _text(self) -> str:
        fields = [f"  {e.get('field')}: {e.get('message')}" for e in self.errors]
        named = all(str(e.get("field")) in self.detail for e in self.errors)
        return "\n".join([f"{self.detail} ({self.status})", *([] if named else fields)])


class Unauthorized(Problem):
    """The key is unknown, revoked or expired: 401."""


class Client:
    """A gateway at a URL, with a key. `tries` is how often at most a request is made, `backoff` the
    seconds before it is made again. A session of one's own brings proxies and certificates."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = TIMEOUT,
        tries: int = TRIES,
        backoff: float = BACKOFF,
        session: requests.Session | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("url must be like https://gateway.example.com, without a password")
        if not key or not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError("key must be printable ASCII without spaces")
        self.url = url.rstrip("/")
        self._key = key
        self._timeout, self._tries, self._backoff = timeout, max(1, tries), backoff
        self._session = session or quiet_session()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes its connections."""
        self._session.close()

    # Fields of a message are those of POST /api/messages; `from_` is its `from`.

    def send(self, *, idempotency_key: str | None = None, **fields: Any) -> Json:
        """Sends a message. A key of your own makes it safe to call this again, too."""
        return self._sent("/api/messages", fields, idempotency_key)

    def send_sms(
        self, to: str, body: str = "", *, idempotency_key: str | None = None, **fields: Any
    ) -> Json:
        """Sends an SMS; with `media` an MMS."""
        fields |= {"channel": "sms", "to": to, "body": body}
        return self.send(idempotency_key=idempotency_key, **fields)

    def send_whatsapp(
        self, to: str, body: str = "", *, idempotency_key: str | None = None, **fields: Any
    ) -> Json:
        """Sends a WhatsApp message: a text, `media`, or a `template`."""
        fields |= {"channel": "whatsapp", "to": to, "body": body}
        return self.send(idempotency_key=idempotency_key, **fields)

    def send_email(
        self,
        to: str,
        subject: str,
        body: str = "",
        *,
        html: str | None = None,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Json:
        """Sends an email."""
        fields |= {"channel": "email", "to": to, "subject": subject, "body": body, "html": html}
        return self.send(idempotency_key=idempotency_key, **fields)

    def reply(
        self,
        conversation: str,
        body: str = "",
        *,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Json:
        """Answers in a conversation, from the address that the person wrote to."""
        path = f"/api/conversations/{_part(conversation)}/messages"
        return self._sent(path, {**fields, "body": body}, idempotency_key)

    def _sent(self, path: str, fields: Mapping[str, Any], key: str | None) -> Json:
        body = {name.rstrip("_"): _plain(v) for name, v in fields.items() if v is not None}
        made: Json = self.call("POST", path, body=body, idempotency_key=key or uuid.uuid4().hex)
        return made

    def get_message(self, id_: str) -> Json:
        """A message with its attempts."""
        found: Json = self.call("GET", f"/api/messages/{_part(id_)}")
        return found

    def list_messages(self, **filters: Any) -> Iterator[Json]:
        """Messages, newest first, page by page as they are taken: by `status`, `channel`, `to`,
        `from_`, … as in GET /api/messages."""
        return self._listed("/api/messages", filters)

    def conversations(self, **filters: Any) -> Iterator[Json]:
        """Conversations, the one last written in first."""
        return self._listed("/api/conversations", filters)

    def conversation_messages(self, conversation_id: str) -> Iterator[Json]:
        """The messages of a conversation, newest first."""
        return self._listed(f"/api/conversations/{_part(conversation_id)}/messages", {})

    def _listed(self, path: str, filters: Mapping[str, Any]) -> Iterator[Json]:
        query = {n.rstrip("_"): _plain(v) for n, v in filters.items() if v is not None}
        query.setdefault("limit", PAGE)
        while True:
            page = self.call("GET", path, query=query)
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def mark_read(self, id_: str) -> Json:
        """Marks an inbound message, or all of a conversation, as read."""
        kind = "conversations" if id_.startswith("conv_") else "messages"
        done: Json = self.call("POST", f"/api/{kind}/{_part(id_)}/read")
        return done

    def upload(
        self, data: bytes, content_type: str, *, filename: str | None = None, **query: Any
    ) -> Json:
        """Keeps a file to be sent: its `url` may stand in `media`. Not repeated by itself."""
        headers = self._headers({"content-type": content_type})
        more = {"data": data, "params": {"filename": filename, **query}, "timeout": self._timeout}
        kept: Json = _content(ask(self._session, "POST", self.url, "/api/media", headers, more))
        return kept

    def get_provider_health(self) -> Json:
        """How the providers are, by channel."""
        found: Json = self.call("GET", "/health/messaging")
        return found

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """What the API answers, for what has no method here.

        Raises:
            Problem: the gateway said no. NoAnswer: it said nothing.
        """
        more: dict[str, Any] = {"params": query, "timeout": self._timeout}
        headers = self._headers({"idempotency-key": idempotency_key})
        if body is not None:
            more["json"] = body
        safe = method == "GET" or idempotency_key is not None
        made, most = 0, self._tries if safe else 1
        while True:
            try:
                return _content(ask(self._session, method, self.url, path, headers, more))
            except ClientError as error:
                made += 1
                if not error.again or made >= most:
                    raise
                pause = self._pause(made - 1, error.retry_after)
            time.sleep(pause)

    def _headers(self, more: Mapping[str, str | None]) -> dict[str, str]:
        named = {name: value for name, value in more.items() if value is not None}
        return {"authorization": f"Bearer {self._key}", **named}

    def _pause(self, number: int, asked: float | None) -> float:
        """Seconds until the next try: as asked, else longer each time, and not all at once."""
        if asked is not None:
            return min(asked, LONGEST)
        longest: float = min(self._backoff * 2.0**number, LONGEST)
        return longest * random.uniform(0.5, 1.0)

    def events(self, after: int | None = None) -> Iterator[Json]:
        """Everything that happens, from now on or after the event of a number, without an end:
        dicts with `id`, `type`, `created_at` and `data`. A broken stream is opened again where it
        broke, with nothing lost and nothing twice. After `feed.reset`, load your state anew.

        Raises:
            Unauthorized: the key does not hold, or holds no more. Problem, NoAnswer: it could not
                be opened at all.
        """
        cursor, opened, failures = after, False, 0
        while True:
            wait = None
            try:
                for number, event in self._stream(cursor):
                    cursor, opened, failures = number, True, 0
                    if event is not None:
                        yield event
            except ClientError as error:
                if not opened or not (
                    error.again or (isinstance(error, Problem) and error.status >= 500)
                ):
                    raise
                wait = error.retry_after
            log.info("the event stream of %s broke; it is opened again", self.url)
            time.sleep(self._pause(min(failures, 10), wait))
            failures += 1

    def _stream(self, cursor: int | None) -> Iterator[tuple[int, Json | None]]:
        """One connection: where it stands each time, and what happened, if something did."""
        headers = self._headers(
            {
                "accept-encoding": "identity",
                "last-event-id": None if cursor is None else str(cursor),
            }
        )
        more = {"stream": True, "timeout": (CONNECT, SILENCE)}
        response = ask(self._session, "GET", self.url, "/api/events", headers, more)
        with response:
            if response.status_code != 200:
                raise problem_of(response)
            for block in _blocks(response, self.url):
                number = int(block.get("id", cursor or 0))
                event = json.loads(block["data"]) if "data" in block else None
                reset = event is not None and event["type"] == "feed.reset"
                if event is not None and not reset and cursor is not None and number <= cursor:
                    continue  # it has been told
                cursor = number
                yield number, event


def quiet_session() -> requests.Session:
    """A session that takes nothing from the environment: no proxy, and no .netrc in place of the
    key."""
    session = requests.Session()
    session.trust_env = False
    return session


def ask(
    session: requests.Session,
    method: str,
    url: str,
    path: str,
    headers: Mapping[str, str],
    more: Mapping[str, Any],
) -> requests.Response:
    """One request, and no other in its place: a redirect would take the key along.

    Raises:
        NoAnswer: there is none.
    """
    try:
        return session.request(
            method, url + path, headers=dict(headers), allow_redirects=False, **more
        )
    except requests.RequestException as error:
        raise _no_answer(url, error) from None


def problem_of(response: requests.Response) -> Problem:
    """What the gateway, or who stands before it, said instead of an answer."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {"title": "".join(c for c in response.reason or "" if c.isprintable())}
    asked = response.headers.get("Retry-After", "")
    retry_after = float(asked) if asked.isascii() and asked.isdigit() else None
    kind = Unauthorized if response.status_code == 401 else Problem
    return kind(response.status_code, body, retry_after)


def _content(response: requests.Response) -> Any:
    if not 200 <= response.status_code < 300:
        raise problem_of(response)
    try:
        return response.json()
    except ValueError:
        raise NoAnswer(f"what came back is not JSON ({response.status_code})") from None


def _no_answer(url: str, error: requests.RequestException) -> NoAnswer:
    """The error without its request, which holds the key."""
    if isinstance(error, requests.Timeout):
        return NoAnswer(f"the gateway at {url} did not answer in time")
    if isinstance(error, requests.ConnectionError):
        return NoAnswer(f"no gateway answers at {url}", found=False)
    return NoAnswer(f"the gateway at {url} cannot be asked: {type(error).__name__}")


def _blocks(response: requests.Response, url: str) -> Iterator[dict[str, str]]:
    """The fields of each block of a stream."""
    block: dict[str, str] = {}
    for line in _lines(response, url):
        if not line and block:
            yield block
            block = {}
        name, colon, value = line.partition(b":")
        if colon and name:
            block[name.decode()] = value.removeprefix(b" ").decode()


def _lines(response: requests.Response, url: str) -> Iterator[bytes]:
    """The lines of a stream, as they come."""
    size = None if getattr(response.raw, "chunked", False) else 1  # else it waits for its end
    rest = b""
    try:
        parts: Iterable[bytes] = response.iter_content(size)
        for part in parts:
            *lines, rest = (rest + part).split(b"\n")
            yield from lines
            if len(rest) > EVENT_MOST:
                raise NoAnswer(f"what comes from {url} is no event")
    except requests.RequestException as error:
        raise _no_answer(url, error) from None


def _part(text: str) -> str:
    """Text as a part of a path."""
    return quote(text, safe="")


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
