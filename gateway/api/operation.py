"""One operation of the API: what the router needs and what the OpenAPI document tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import BaseModel

from gateway.api.context import Handler

PAGE = ("limit", "cursor")  # what every list takes
Choices: TypeAlias = Mapping[str, tuple[str, ...]]  # of the query: what there is to choose from


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """A method and a path. `answer` is a schema of the document, or a media type; blank: none.
    `file` is a media type that it may have instead. `takes` are the media types of a body that is
    a file; `also` further good answers, by status; `choices` what there is to choose from in the
    query, by name."""

    method: str
    path: str
    handler: Handler
    summary: str
    answer: str
    status: int = 200
    file: str = ""
    body: type[BaseModel] | None = None
    bare: bool = False  # whether it may come without its body
    takes: tuple[str, ...] = ()
    also: tuple[tuple[int, str], ...] = ()
    query: tuple[str, ...] = ()
    choices: Choices = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # of the query: what must be there
    headers: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    tag: str = "Messages"
