"""JSON that somebody sent, checked for what no database can hold and for what can be read in two
ways: a name that stands twice in an object, of which one reader believes the first and another the
last.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

from pydantic_core import from_json

from gateway.api.problems import Problem, unprocessable

BLANK = '""'  # how a field without a name is told
DEPTH = 64
BOM = b"\xef\xbb\xbf"  # that some programs begin a text with (RFC 8259, section 8.1)
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
NAMED = re.compile(rb'"[ \t\r\n]*:')  # how a name ends; and in a text, where the quote is escaped


def json_of(body: bytes, content_type: str) -> Any:
    """The JSON of a body.

    Raises:
        Problem: it is none, or not to be taken.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("application/json", "") and not kind.endswith("+json"):
        raise Problem(415, "Send JSON, with Content-Type: application/json.")
    _check_depth(body)
    body = body.removeprefix(BOM)
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        _check_leniently(body)
        raise Problem(400, f"The body is not JSON: {error}.") from None
    if b"\\u" in body or b"\x00" in body:
        _check_text(value, "")
    endless: list[float] = []
    names = _names(value, endless)
    if endless:
        _check_numbers(value, "")
    if len(NAMED.findall(body)) > names:  # a name came twice, or a text looks like a name
        ONCE.decode(body.decode())
    return value


def _check_leniently(body: bytes) -> None:
    """NaN and half of a surrogate pair are no JSON, but many programs write them: whoever did is
    told the field."""
    try:
        value = json.loads(body)
    except ValueError:
        return
    _check_text(value, "")
    _check_numbers(value, "")


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= DEPTH:
        return
    depth, quoted, escaped = 0, False, False
    for byte in body:
        if quoted:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                quoted = False
        elif byte == 0x22:
            quoted = True
        elif byte in b"[{":
            depth += 1
            if depth > DEPTH:
                raise unprocessable([("", f"JSON may be at most {DEPTH} levels deep")])
        elif byte in b"]}":
            depth -= 1


def _check_text(value: Any, path: str) -> None:
    if isinstance(value, str):
        if UNSTORABLE.search(value):
            raise unprocessable([(path, "must not hold NUL or half of a surrogate pair")])
    elif isinstance(value, dict):
        for name, inner in value.items():
            _check_text(name, _below(path, ascii(name)))
            _check_text(inner, _below(path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _check_text(inner, _below(path, str(place)))


def _below(path: str, name: str) -> str:
    return f"{path}.{name or BLANK}".lstrip(".")


def _check_numbers(value: Any, path: str) -> None:
    """The parser takes a number that is too large for infinity, which no JSON can tell."""
    if isinstance(value, float) and not isfinite(value):
        raise unprocessable([(path, "must be a finite number, below 1.8e308")])
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_numbers(inner, _below(path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _check_numbers(inner, _below(path, str(place)))


def _names(value: Any, endless: list[float]) -> int:
    """How many names its objects have; `endless` gets the numbers that are none."""
    names, parts = 0, value
    if isinstance(value, dict):
        names, parts = len(value), value.values()
    elif not isinstance(value, list):
        return 0
    for part in parts:
        kind = type(part)
        if kind is dict or kind is list:
            names += _names(part, endless)
        elif kind is float and not isfinite(part):
            endless.append(part)
    return names


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise unprocessable([(name or BLANK, "stands twice in one object")])
        seen.add(name)


ONCE = json.JSONDecoder(object_pairs_hook=_each_once, parse_int=str, parse_float=str, strict=False)
