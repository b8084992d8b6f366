"""How many bytes of files the messages that are being sent may have in memory at once: emails, and
others by a provider that reads them.

Who has to wait for room has not begun: nothing of it is read, and nothing was written. Messages
with little never wait for those with much. Reads no file, and knows no vendor.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import replace

from gateway.domain import LARGEST_EMAIL, LARGEST_FILE, Channel, OutboundMessage
from gateway.errors import NO_ROOM, ProviderError, StoreUnavailable
from gateway.outgoing import file_urls
from gateway.own_files import OwnFiles, own_id
from gateway.store.claims import Due
from gateway.store.ledger import MessageKey

MEBI = 1 << 20
LITTLE = MEBI  # bytes of a message's files that count as little
FOR_LITTLE = 16 * MEBI  # for all messages with little together
FOR_MUCH = 64 * MEBI  # for all others
PRESUMED = MEBI // 4  # of files on the web, as nobody knows how large they are before they are read
PICTURE = MEBI  # the same of a message that is no email
WAITING = 2  # messages that wait for each, in their seats; the others wait in the queue
AGAIN = 1000  # milliseconds in the queue, at least, and at most
LATEST = 60_000
PACE = 200 * MEBI  # bytes a second: faster than this the queue is not asked for those who waited
LEARNT = 4096  # messages of which is known what they need


class Space:
    """So many bytes, for who comes first. A message with more than all of it goes alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[bool]]] = deque()

    def taken(self, size: int) -> bool:
        """Takes so much if it is free and nobody waits for it."""
        if self._waiting or not self._fits(size):
            return False
        self._used += size
        return True

    def _fits(self, size: int) -> bool:
        return self._used + size <= self._size or self._used == 0

    async def wait(self, size: int, within: float) -> bool:
        """Takes so much, in its turn and in so many seconds; whether it could."""
        if self.taken(size):
            return True
        if len(self._waiting) >= WAITING or within <= 0:
            return False
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        came = False
        try:
            await asyncio.wait((turn,), timeout=within)
            came = turn.done() and turn.result()
        finally:
            if not came:
                self._gone(size, turn)
        return came

    def _gone(self, size: int, turn: asyncio.Future[bool]) -> None:
        """Nobody waits for this turn any more."""
        if turn.done():
            if turn.result():
                self.give(size)
            return
        self._waiting.remove((size, turn))
        self._admit()

    def give(self, size: int) -> None:
        """Gives so much back."""
        self._used -= size
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            self._used += size
            turn.set_result(True)

    def close(self) -> None:
        """Nobody waits any more."""
        while self._waiting:
            self._waiting.popleft()[1].set_result(False)


class Load:
    """The room that one message has, until nobody holds it any more."""

    def __init__(self, loads: Loads, key: MessageKey, size: int, most: int) -> None:
        self._loads = loads
        self._key = key
        self._most = most
        self._holders = 1
        self.size = size

    def hold(self) -> None:
        """One more holds it."""
        self._holders += 1

    def free(self) -> None:
        """One has done with it."""
        self._holders -= 1
        if self._holders == 0:
            self._loads.space(self.size).give(self.size)

    def grown(self, error: ProviderError | None) -> bool:
        """Whether it has now the room that its files were found to need, which is known from now
        on. Nothing was sent."""
        if error is None or error.code != NO_ROOM or not error.size:
            return False
        needed = min(error.size, self._most)
        self._loads.learn(self._key, needed)
        if needed <= self.size or not self._loads.space(needed).taken(needed):
            return False
        self._loads.space(self.size).give(self.size)
        self.size = needed
        return True


def roomy(message: OutboundMessage, load: Load | None) -> OutboundMessage:
    """The same message, which says how much room its files have."""
    return message if load is None else replace(message, room=load.size)


class Loads:
    """Room for the files of messages in this process."""

    def __init__(self, own_files: OwnFiles | None = None) -> None:
        self._own_files = own_files
        self._little, self._much = Space(FOR_LITTLE), Space(FOR_MUCH)
        self._learnt: OrderedDict[MessageKey, int] = OrderedDict()
        self._next = 0
        self._closed = False

    def space(self, size: int) -> Space:
        """Where a message with so much has its room."""
        return self._little if size <= LITTLE else self._much

    async def take(self, due: Due, within: float) -> Load | int:
        """Room for a message with files, once there is some; or, if there is none in so many
        seconds, in how many milliseconds it is asked for again."""
        most = LARGEST_EMAIL if _email(due) else LARGEST_FILE
        size = await self._size(due, most)
        room = self.space(size)
        if await room.wait(size, 0 if self._closed else within):
            return Load(self, due.key, size, most)
        return 0 if self._closed else self._again(size)

    def _again(self, size: int) -> int:
        """Those who are turned away come back one after the other, or a long queue of them would
        be claimed and given back without an end."""
        now = int(asyncio.get_running_loop().time() * 1000)
        self._next = max(self._next + size * 1000 // PACE, now + AGAIN)
        self._next = min(self._next, now + LATEST)
        return self._next - now

    async def _size(self, due: Due, most: int) -> int:
        """What its files will take. No vendor takes more than the most."""
        known = self._learnt.get(due.key)
        if known is not None:
            return known
        urls = file_urls(due.message)
        own = [id_ for url in urls if (id_ := own_id(url)) is not None]
        presumed = 0
        if len(own) < len(urls):
            presumed = PRESUMED if _email(due) else PICTURE
        return min(presumed + await self._own(due.tenant_id, own, most), most)

    async def _own(self, tenant_id: str, ids: list[str], most: int) -> int:
        if not ids or self._own_files is None:
            return 0
        try:
            sizes = await self._own_files.sizes(tenant_id, ids)
        except StoreUnavailable:
            return most
        return sum(sizes.get(id_, 0) for id_ in ids)

    def learn(self, key: MessageKey, size: int) -> None:
        """What a message was found to need."""
        self._learnt[key] = size
        if len(self._learnt) > LEARNT:
            self._learnt.popitem(last=False)

    def close(self) -> None:
        """Nobody waits any more: the process is being stopped."""
        self._closed = True
        self._little.close()
        self._much.close()


def _email(due: Due) -> bool:
    return bool(due.message["channel"] == Channel.EMAIL)
