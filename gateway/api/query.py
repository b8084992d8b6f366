"""The parameters of a query, held to those that an operation has: one that is ignored would give
something else than was asked for, or send what was only to be tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from gateway.api.problems import unprocessable

NONE = "is no parameter here; there are none"
TOLD = 5  # unknown names that a problem has
LONGEST = 64  # characters of such a name


def only(connection: HTTPConnection, known: Sequence[str]) -> None:
    """Refuses a query with other names than these, or with a name twice.

    Raises:
        Problem: 422, by the names.
    """
    if not connection.scope["query_string"]:  # of nearly all: to read none costs as much as one
        return
    given = Counter(name for name, _ in connection.query_params.multi_items())
    if unknown := [name for name in given if name not in known]:
        fix = f"is no parameter here; known are {', '.join(known)}" if known else NONE
        raise unprocessable((name[:LONGEST], fix) for name in unknown[:TOLD])
    if repeated := [name for name, times in given.items() if times > 1]:
        raise unprocessable((name, "must be given once") for name in repeated)
