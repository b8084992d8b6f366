"""Reading requests, bounded in size and time: plain values out of bodies, paths and queries."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.auth import header
from gateway.api.json_text import BLANK, UNSTORABLE
from gateway.api.names import Contradiction
from gateway.api.operation import PAGE, Choices
from gateway.api.problems import Problem, not_found, unprocessable
from gateway.api.schemas import DATE_TIME, in_utc
from gateway.clock import to_ms
from gateway.patience import discard, within
from gateway.words import QUESTION, Question, question

M = TypeVar("M", bound=BaseModel)

MOMENT = TypeAdapter(datetime)
ID = re.compile(r"[a-z]{1,16}_[0-9A-Za-z]{1,64}")
LIMIT_DEFAULT, LIMIT_MOST = 50, 200
BARE_OFFSET = re.compile(r" (\d\d:\d\d)$")  # a + of a query comes as a space
IDENTITY = "identity"  # the only coding of a body that is taken
LENGTH = re.compile(r"[0-9]{1,18}")  # of a body; more digits are more than any bound


async def body_of(request: Request, most: int, timeout: float) -> bytes:
    """The bytes of a request.

    Raises:
        Problem: 413 for too many, 408 for too slow, 415 for compressed ones.
    """
    await check_coding(request)
    length = header(request, b"content-length")
    if length and (LENGTH.fullmatch(length) is None or int(length) > most):
        await discard(request.receive, request.scope["headers"])
        raise Problem(413, f"At most {most} bytes.", headers={"connection": "close"})
    try:
        return await within(timeout, _read(request.receive, most))
    except TimeoutError:
        raise Problem(
            408, "The body did not arrive in time.", headers={"connection": "close"}
        ) from None
    except ClientDisconnect:
        raise Problem(400, "The body did not arrive whole.") from None


async def check_coding(request: Request) -> None:
    """Refuses a body that is compressed (RFC 9110, sections 12.5.3 and 15.5.16): what has a bound
    here could be a thousand times as large, and whoever stands before us could read another one.

    Raises:
        Problem: 415.
    """
    coding = header(request, b"content-encoding")
    if coding and coding.strip().lower() != IDENTITY:
        await discard(request.receive, request.scope["headers"])
        raise Problem(
            415,
            "Send the body as it is, without Content-Encoding: compressed ones are not taken.",
            headers={"accept-encoding": IDENTITY, "connection": "close"},
        )


async def _read(receive: Receive, most: int) -> bytes:
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        part = await receive()
        if part["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = part.get("body", b""), part.get("more_body", False)
        size += len(chunk)
        if size > most:
            raise Problem(413, f"At most {most} bytes.", headers={"connection": "close"})
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def validate(model: type[M], value: Any) -> M:
    """A request body as its model; 422 names the fields."""
    if not isinstance(value, dict):
        raise unprocessable([("", "The body must be a JSON object.")])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise unprocessable(_problems(error)) from None


def _problems(error: ValidationError) -> Iterator[tuple[str, str]]:
    """What is wrong, by field; fields that contradict each other are each named."""
    for each in error.errors(include_url=False, include_input=False):
        fault = each.get("ctx", {}).get("error")
        if isinstance(fault, Contradiction):
            yield from ((name, str(fault)) for name in fault.names)
        else:
            text = str(each["msg"]).removeprefix("Value error, ")
            yield ".".join(str(part) or BLANK for part in each["loc"]), text


def id_of(request: Request, what: str, name: str = "id") -> str:
    """The id of a path; 404 for what none of ours looks like."""
    text = str(request.path_params[name])
    if not is_id(text):
        raise not_found(what)
    return text


def is_id(value: object) -> bool:
    """Whether this looks like an id of ours."""
    return isinstance(value, str) and ID.fullmatch(value) is not None


def limit_of(request: Request) -> int:
    """`?limit=`."""
    text = request.query_params.get("limit", str(LIMIT_DEFAULT))
    if re.fullmatch("[0-9]{1,3}", text) is None or not 1 <= int(text) <= LIMIT_MOST:
        raise unprocessable([("limit", f"must be from 1 to {LIMIT_MOST}")])
    return int(text)


def cursor_of(request: Request) -> list[Any] | None:
    """`?cursor=`, as `next_cursor` gave it."""
    text = request.query_params.get("cursor")
    if text is None:
        return None
    try:
        value = from_json(base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)))
    except (ValueError, binascii.Error):
        value = None
    if not isinstance(value, list):
        raise unprocessable([("cursor", "must be a next_cursor that a list gave")])
    return value


def cursor_for(*parts: Any) -> str:
    """Where a list goes on."""
    return base64.urlsafe_b64encode(to_json(list(parts))).decode().rstrip("=")


def filters_of(request: Request) -> dict[str, str]:
    """The query's parameters but for those of the page, fit to be compared with stored text. Their
    names are those that the operation knows (`gateway.api.query`)."""
    given = dict(request.query_params)
    for name, text in given.items():
        if UNSTORABLE.search(text):
            raise unprocessable([(name, "must not hold NUL or half of a surrogate pair")])
    return {name: text for name, text in given.items() if name not in PAGE}


def moment_of(filters: dict[str, str], name: str) -> int | None:
    """A filter that is a moment, taken out of the others; in milliseconds."""
    text = filters.pop(name, None)
    if text is None:
        return None
    text = BARE_OFFSET.sub(r"+\1", text)
    try:
        if DATE_TIME.fullmatch(text) is None:
            raise ValueError
        when = datetime.fromisoformat(text.upper())
        return to_ms(in_utc(when, None))
    except ValueError:
        raise unprocessable(
            [(name, "must be a date and a time with an offset, such as 2030-01-31T09:00:00Z")]
        ) from None


def when_of(request: Request, name: str) -> int | None:
    """A day or a moment of the query, in milliseconds; one without an offset is in UTC."""
    text = request.query_params.get(name)
    if text is None:
        return None
    # A + of a query comes as a space, unless it was encoded.
    text = text[:10] + text[10:11] + text[11:].replace(" ", "+")
    try:
        if DATE_TIME.fullmatch(text) is None:
            text = f"{text}T00:00:00Z"  # a day
        when = MOMENT.validate_python(text)
        return to_ms(when if when.tzinfo else when.replace(tzinfo=UTC))
    except (ValidationError, OverflowError, ValueError):
        raise unprocessable(
            [(name, "must be a day such as 2030-01-31, or a time such as 2030-01-31T09:00:00Z")]
        ) from None


def question_of(filters: dict[str, str]) -> Question | None:
    """A filter that is words to look for, taken out of the others."""
    text = filters.pop("q", None)
    if text is None:
        return None
    if not 1 <= len(text) <= QUESTION:
        raise unprocessable([("q", f"must have 1 to {QUESTION} characters")])
    return question(text)


def one_of(filters: Mapping[str, str], name: str, words: Iterable[str]) -> None:
    """Checks a filter that is one of a few words."""
    chosen(filters, {name: tuple(words)})


def chosen(filters: Mapping[str, str], choices: Choices) -> None:
    """Checks the filters that are each one of a few words: another one would give nothing."""
    wrong = [name for name in choices if name in filters and filters[name] not in choices[name]]
    if wrong:
        raise unprocessable((name, f"must be {' or '.join(choices[name])}") for name in wrong)


def in_order(since: tuple[str, int | None], until: tuple[str, int | None]) -> None:
    """Checks that a time, of two by their names, does not end before it begins."""
    if since[1] is not None and until[1] is not None and since[1] >= until[1]:
        raise unprocessable([(since[0], f"must be before {until[0]}")])


class Json(Response):
    """JSON that is written already. Made without the framework's way through each header."""

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            *((name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await send({"type": "http.response.body", "body": self.body})


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer. Names of headers in lower case."""
    return Json(to_json(value), status, headers or {})
