"""What makes the index of the search grow, beside everything else.

An accept does not wait for it. While others write, it takes a small share of the time and falls
behind; in quiet it catches up.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from gateway import words
from gateway.rounds import Rounds
from gateway.store import search_index
from gateway.store.batcher import Batcher
from gateway.store.reader import Reader
from gateway.store.search_index import ADD, FEED, PAST, Document, Found, Piece, Row

GATHER = 0.15  # seconds in which what came together is gathered
REST = 19  # of a piece's time that others have before the next one, while they write
LONGEST = 2.0  # seconds of a rest
REMEMBERED = 10_000  # conversations whose names are known to be in the index
UNWRITTEN = 20_000  # events of no interest until the place is written all the same


class Indexer:
    """Follows the feed, then what was stored before it."""

    def __init__(self, batcher: Batcher, reader: Reader, monotonic: Callable[[], float]) -> None:
        self._batcher = batcher
        self._reader = reader
        self._monotonic = monotonic
        self._seen = 0  # the last number looked at
        self._written = 0
        self._poked = False
        self._named: OrderedDict[search_index.Key, tuple[Any, ...]] = OrderedDict()
        self.rounds = Rounds("search", self.turn, poll=10.0)

    def poke(self) -> None:
        """Something was committed."""
        self._poked = True
        self.rounds.poke()

    async def turn(self) -> bool:
        """Adds one piece; whether there may be more."""
        if self._poked:
            self._poked = False
            await asyncio.sleep(GATHER)
        began = self._monotonic()
        found = await self._reader.call(search_index.following, self._seen)
        found = found or await self._reader.call(search_index.earlier)
        if found is None:
            return False
        if not self._worth_writing(found):
            return True
        added = await asyncio.to_thread(_documents, found)  # bodies may be long
        piece = Piece(found, added, self._terms(found))
        if await self._batcher.submit(ADD, piece):
            self._remember(found)
        else:
            self._seen = 0  # another process works on it, and knows where it stands
        if self._poked:
            await asyncio.sleep(min(LONGEST, REST * (self._monotonic() - began)))
        return True

    def _worth_writing(self, found: Found) -> bool:
        """Whether a piece changes anything; what does not is only looked at."""
        if found.name == PAST or found.messages or found.anew or found.since is None:
            return True
        number = int(found.place)
        if self._terms(found) or number - max(self._written, int(found.since)) > UNWRITTEN:
            return True
        self._seen = number
        return False

    def _terms(self, found: Found) -> tuple[tuple[search_index.Key, frozenset[str]], ...]:
        """The terms of conversations that are new or called otherwise."""
        return tuple(
            ((row["tenant_id"], row["id"]), frozenset(_terms_of(row)))
            for row in found.conversations
            if self._named.get((row["tenant_id"], row["id"])) != _name(row)
        )

    def _remember(self, found: Found) -> None:
        if found.name == FEED:
            self._seen = self._written = int(found.place)
        for row in found.conversations:
            self._named[row["tenant_id"], row["id"]] = _name(row)
            self._named.move_to_end((row["tenant_id"], row["id"]))
        while len(self._named) > REMEMBERED:
            self._named.popitem(last=False)


def _name(row: Row) -> tuple[Any, ...]:
    return row["name"], row["own_name"], row["address"], *row["aliases"]


def _terms_of(row: Row) -> set[str]:
    return words.terms_of((row["name"], row["own_name"]), (row["address"], *row["aliases"]))


def _documents(found: Found) -> tuple[Document, ...]:
    return tuple(
        Document(
            row["tenant_id"],
            row["id"],
            row["conversation_id"],
            " ".join(words.document(row)),
        )
        for row in found.messages
    )
