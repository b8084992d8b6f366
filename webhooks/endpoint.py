"""The webhooks' door: the only HTTP-aware module here.

Reads a bounded body in bounded time, lets an adapter prove who sent it, and hands the proof on;
what is not proved is answered 401 or 403, logged in one line, and nowhere stored. It never reads
the body itself, and never logs one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.domain import Admits, Answer, Clock, Verified, Webhook, WebhookRequest
from gateway.errors import (
    CannotVerifyNow,
    OutcomeUnknown,
    SignatureInvalid,
    StoreUnavailable,
    clean,
)
from gateway.patience import discard, within
from webhooks._refusals import CLOSE, Refused, Spoken, problem

log = logging.getLogger("gateway.webhooks")

RETRY_AFTER = "5"
SHARED = frozenset({"sms", "whatsapp"})  # routes by channel, whoever the vendor is
IDENTITY = "identity"  # the only coding of a body that is taken
LARGE_AT_ONCE = 4  # bodies in memory that are larger than others may be
LARGE_TIMEOUT = 60.0


class Disconnected(Exception):
    """The sender went away before it had sent everything."""


@lru_cache(maxsize=8)
def _split(origin: str) -> tuple[str, str]:
    prefix = urlsplit(origin).path.rstrip("/")
    return origin.rstrip("/").removesuffix(prefix), prefix


def public_url(origin: str, raw_path: bytes, raw_query: bytes) -> str:
    """The URL that the vendor was told to call: never from Host or forwarded headers.

    Path and query stay as they came, byte for byte: a signature covers their spelling. A path in
    the origin is put in front unless the request still has it.
    """
    base, prefix = _split(origin)
    path = raw_path.decode("latin-1")
    if prefix and path != prefix and not path.startswith(f"{prefix}/"):
        path = prefix + path
    query = f"?{raw_query.decode('latin-1')}" if raw_query else ""
    return f"{base}{path}{query}"


def folded(key: str) -> str:
    """A route's key as it is looked up: `-` and `_` are alike in a name, not in a connection."""
    name, slash, connection = key.partition("/")
    return f"{name.lower().replace('-', '_')}{slash}{connection}"


def _ignore(name: str, verdict: str) -> None:
    """Nobody counts."""


class Endpoint:
    """Takes the webhooks of every vendor.

    `hooks` maps a name, a family, a shared name such as `sms`, or `name/connection` to the
    webhooks that may claim its requests. `missing` maps a name that is switched off to the
    variable that it lacks. `receive` stores what was proved, and returns after the commit.
    `on_verdict` hears the webhook's name and a word: `taken`, `unsigned`, `wrong_signature`,
    `unclaimed`, `off`, `unknown`, `method`, `encoded`, `too_large`, `too_slow`, `unavailable`.
    """

    def __init__(
        self,
        *,
        hooks: Mapping[str, Sequence[Webhook]],
        missing: Mapping[str, str],
        receive: Callable[[Webhook, Verified], Awaitable[None]],
        origin: str,
        max_bytes: int,
        timeout: float,
        clock: Clock,
        on_verdict: Callable[[str, str], None] = _ignore,
    ) -> None:
        self._hooks = {folded(key): tuple(hooks[key]) for key in hooks if hooks[key]}
        # Asked once: whether something fits a protocol takes a tenth of a webhook to say.
        self._admitting = {
            key: hooks[0] for key, hooks in self._hooks.items() if isinstance(hooks[0], Admits)
        }
        self._missing = {folded(name): variable for name, variable in missing.items()}
        self._receive = receive
        self._origin = origin
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._clock = clock
        self._on_verdict = on_verdict
        self._large = 0

    def routes(self) -> list[Route]:
        """The routes, for a Starlette application; also under the public URL's own path, for a
        proxy that leaves it on."""
        prefix = _split(self._origin)[1]
        paths = (
            "/api/webhooks/{name}",
            "/api/webhooks/{name}/{connection}",
            "/api/sms/webhook/{name}",
            "/api/sms/webhook/{name}/{connection}",
        )
        prefixes = ("", prefix) if prefix else ("",)
        return [Route(before + path, self) for before in prefixes for path in paths]

    def exact(self) -> dict[tuple[str, str], ASGIApp]:
        """The paths that vendors are told to call, which a router need not look for."""
        prefix = _split(self._origin)[1]
        return {
            ("POST", f"{before}{path}{key.replace('_', sign)}"): self._at(key)
            for key in self._hooks
            if "/" not in key
            for sign in "-_"
            for path in ("/api/webhooks/", "/api/sms/webhook/")
            for before in {"", prefix}
        }

    def _at(self, key: str) -> ASGIApp:
        async def take(scope: Scope, receive: Receive, send: Send) -> None:
            await self._answer(key, scope, receive, send)

        return take

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        parameters = scope["path_params"]
        connection = parameters.get("connection")
        key = folded(parameters["name"] + (f"/{connection}" if connection else ""))
        await self._answer(key, scope, receive, send)

    async def _answer(self, key: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            key, hooks = self._known(key, scope["method"])
            request = self._head(scope)
            most = self._admitted(key, request)
            _check_coding(request)
            with self._room(request, most):
                body = await self._read(request, receive, most)
                webhook = await self._take(key, hooks, _whole(request, body))
        except Refused as refused:
            named = key if key in self._hooks or key in self._missing else "?"
            self._on_verdict(named, refused.verdict)
            if refused.why:
                log.warning("webhook %s refused (%d): %s", named, refused.status, refused.why)
            if refused.rest:
                await discard(receive, scope["headers"])
            await _send(send, *problem(refused))
        except Disconnected:
            return
        else:
            self._on_verdict(webhook.name, "taken")
            await _send(send, *_spoken(webhook.answer))

    def _known(self, key: str, method: str) -> tuple[str, tuple[Webhook, ...]]:
        """Whose address it is, without the secret that may be in it."""
        name = key.partition("/")[0]
        if key not in self._hooks and (name in self._admitting or name in self._missing):
            key = name
        hooks = self._hooks.get(key)
        if hooks is None:
            variable = self._missing.get(key)
            if variable is None:
                raise Refused(404, "unknown", CLOSE, why=self._others(), rest=True)
            log.warning("webhook %s is off: %s is not set", key, variable)
            raise Refused(403, "off", CLOSE, rest=True)
        if method != "POST":
            raise Refused(405, "method", (b"allow", b"POST"), CLOSE, rest=True)
        return key, hooks

    def _head(self, scope: Scope) -> WebhookRequest:
        """The request as far as it is read."""
        raw_path = scope.get("raw_path") or scope["path"].encode()
        return WebhookRequest(
            method=scope["method"],
            url=public_url(self._origin, raw_path, scope["query_string"]),
            headers=_headers(scope["headers"]),
            body=b"",
            received_at=self._clock.now(),
        )

    def _admitted(self, key: str, request: WebhookRequest) -> int:
        """How many bytes may come; of what is larger than others nothing is read before who
        posts it has shown that they may."""
        hook = self._admitting.get(key)
        if hook is None:
            return self._max_bytes
        try:
            return hook.admit(request)
        except SignatureInvalid as error:
            raise _unproved(key, error, rest=True) from None

    @contextmanager
    def _room(self, request: WebhookRequest, most: int) -> Iterator[None]:
        """Bounds what large bodies take of memory, all together."""
        declared = request.headers.get("content-length", "")
        small = declared.isdecimal() and int(declared[:20]) <= self._max_bytes
        large = most > self._max_bytes and not small
        if large and self._large >= LARGE_AT_ONCE:
            later = (b"retry-after", RETRY_AFTER.encode())
            why = f"{LARGE_AT_ONCE} others that are as large are being read"
            raise Refused(503, "unavailable", later, CLOSE, why=why, rest=True)
        self._large += large
        try:
            yield
        finally:
            self._large -= large

    async def _read(self, request: WebhookRequest, receive: Receive, most: int) -> bytes:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > most:
            raise _too_large(most, rest=True)
        timeout = self._timeout if most <= self._max_bytes else max(self._timeout, LARGE_TIMEOUT)
        try:
            return await within(timeout, _body(receive, most))
        except TimeoutError:
            why = f"the body took more than {timeout:g} seconds"
            raise Refused(408, "too_slow", CLOSE, why=why) from None

    async def _take(self, key: str, hooks: tuple[Webhook, ...], request: WebhookRequest) -> Webhook:
        webhook = self._claimant(hooks, request)
        try:
            verified = await webhook.verify(request)
            await self._receive(webhook, verified)
        except SignatureInvalid as error:
            also = self._off() if error.missing and key in SHARED else ""
            raise _unproved(key, error, also) from None
        except (CannotVerifyNow, StoreUnavailable, OutcomeUnknown) as error:
            log.error("webhook %s cannot be taken now: %s", key, clean(str(error)))
            kind = "outcome-unknown" if isinstance(error, OutcomeUnknown) else "about:blank"
            later = (b"retry-after", RETRY_AFTER.encode())
            raise Refused(503, "unavailable", later, kind=kind) from None
        return webhook

    def _claimant(self, hooks: tuple[Webhook, ...], request: WebhookRequest) -> Webhook:
        """Whose request it is. Where only one vendor comes, it says itself what is missing."""
        if len(hooks) == 1:
            return hooks[0]
        for webhook in hooks:
            if webhook.claims(request.headers):
                return webhook
        raise Refused(401, "unclaimed", why=_unclaimed(hooks, request) + self._off())

    def _others(self) -> str:
        """What is told of a request for none of them: not its path, which may hold a secret."""
        names = sorted({key.partition("/")[0] for key in (*self._hooks, *self._missing)})
        return f"no webhook has the name in its URL; there are {', '.join(names)}"

    def _off(self) -> str:
        """What else would be here if it were set up."""
        off = ", ".join(f"{name} ({variable})" for name, variable in self._missing.items())
        return f"; off for want of a variable: {off}" if off else ""


def _unproved(key: str, error: SignatureInvalid, also: str = "", *, rest: bool = False) -> Refused:
    log.warning("webhook %s refused (%d): %s%s", key, error.http_status, error.detail, also)
    verdict = "unsigned" if error.missing else "wrong_signature"
    closing = (CLOSE,) if rest else ()
    return Refused(error.http_status, verdict, *closing, rest=rest)


def _check_coding(request: WebhookRequest) -> None:
    """Refuses a body that is compressed: no vendor's documents say of which bytes its signature
    would be then, and none compresses what it posts."""
    coding = request.headers.get("content-encoding")
    if coding and coding.strip().lower() != IDENTITY:
        plain = (b"accept-encoding", IDENTITY.encode())
        why = "its body is compressed (Content-Encoding): no proxy may do that to a webhook"
        raise Refused(415, "encoded", plain, CLOSE, why=why, rest=True)


def _unclaimed(hooks: tuple[Webhook, ...], request: WebhookRequest) -> str:
    names: dict[str, list[str]] = {}
    for webhook in hooks:
        names.setdefault(webhook.claimed_by, []).append(webhook.name)
    headers = " or ".join(f"{header} ({', '.join(whose)})" for header, whose in names.items())
    url = clean(request.url.partition("?")[0])[:140]
    return f"a request for {url} has no signature header: {headers}"


def _too_large(limit: int, *, rest: bool) -> Refused:
    why = f"the body is larger than {limit} bytes"
    return Refused(413, "too_large", CLOSE, why=why, rest=rest)


def _whole(head: WebhookRequest, body: bytes) -> WebhookRequest:
    """The same with its body; `replace` takes three times as long."""
    return WebhookRequest(
        method=head.method,
        url=head.url,
        headers=head.headers,
        body=body,
        received_at=head.received_at,
    )


def _headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by lower-case name; repeated ones joined by a comma, as RFC 9110 has it."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
    if len(headers) == len(raw):
        return headers
    headers.clear()
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


async def _body(receive: Receive, limit: int) -> bytes:
    """The whole body, by what arrives: a declared length can lie or be absent."""
    chunks: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise Disconnected
        chunk = event.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit, rest=event.get("more_body", False))
        chunks.append(chunk)
        if not event.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


@lru_cache(maxsize=64)
def _spoken(answer: Answer) -> Spoken:
    headers = []
    if answer.content_type is not None:
        headers.append((b"content-type", answer.content_type.encode("latin-1")))
    if answer.status != 204:
        headers.append((b"content-length", str(len(answer.body)).encode()))
    return answer.status, headers, answer.body


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
