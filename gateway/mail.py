"""Emails that came in, read after the answer, and stored as what people said.

An email that its program cannot read in its time is tried again, and then kept as malformed: it
stays in the inbox, and others come past it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gateway import letters
from gateway.domain import Event, FileStore, KeptFile, Mail, Webhook
from gateway.errors import FilesUnavailable
from gateway.files import key_of
from gateway.inbound import Inbound, verified
from gateway.kinds import HEAD, kind_of
from gateway.letters import Enclosed, file_id
from gateway.mail_program import AT_ONCE, NotRead, Programs
from gateway.rounds import Rounds
from gateway.store import inbox_queries
from gateway.store.batcher import Batcher
from gateway.store.inbox import Delivery
from gateway.store.mail import READ, UNREAD, WANT, Read, Unread, Wanted, known
from gateway.store.reader import Reader

log = logging.getLogger("gateway.mail")

TRIES = 3
BEGUN = 6  # times at most: a restart in the middle is not the email's fault, and may be
LEASE = 60_000  # milliseconds
AGAIN = 2_000  # after the first try; then twice that
NO_ROOM = 60_000

Row = Mapping[str, Any]


class MailWorker:
    """Reads the emails that wait in the inbox, a few at a time."""

    def __init__(
        self,
        batcher: Batcher,
        reader: Reader,
        webhooks: Mapping[str, Webhook],
        inbound: Inbound,
        store: FileStore,
        *,
        programs: Programs | None = None,
        again: int = AGAIN,
        poll: float = 5.0,
        only_process: bool = False,
    ) -> None:
        self._batcher = batcher
        self._reader = reader
        self._webhooks = webhooks
        self._inbound = inbound
        self._store = store
        self._programs = programs or Programs()
        self._again = again
        self._begun = TRIES if only_process else 0
        self.rounds = Rounds("mail", self._turn, poll=poll)

    async def stop(self) -> None:
        """Ends; what is being read is read again later."""
        await self.rounds.stop()
        self._programs.close()

    async def _turn(self) -> bool:
        taken = await self._batcher.submit(WANT, Wanted(AT_ONCE, LEASE, self._begun))
        self._begun = 0  # from now on the leases are ours
        await asyncio.gather(*(self._take(one["id"], one["tries"]) for one in taken))
        return bool(taken)

    async def _take(self, id_: str, tries: int) -> None:
        row = await self._reader.call(inbox_queries.one, id_)
        if row is None:
            return
        webhook = self._webhooks.get(row["webhook"])
        if webhook is None:
            gone = Unread(id_, row["webhook"], "quarantined", "no such webhook")
            await self._batcher.submit(UNREAD, gone)
            return
        delivery = self._inbound.delivery(webhook, verified(row), None)
        try:
            if tries > BEGUN:
                raise NotRead("it was begun too often")
            done = await self._read(row, delivery)
        except NotRead as error:
            log.warning("%s: its email was not read: %s", id_, error)
            again = row["detail"] is not None  # it has failed before: a restart is not its fault
            final = tries >= BEGUN or (again and tries >= TRIES)
            detail = f"not read in {tries} tries: {error}"
            wait = self._again * 2 ** (tries - 1)
            state = "malformed" if final else "pending"
            await self._batcher.submit(UNREAD, Unread(id_, row["webhook"], state, detail, wait))
        except (FilesUnavailable, OSError) as error:
            log.error("%s: its email cannot be kept now: %s", id_, error)
            later = Unread(id_, row["webhook"], "pending", "no room", NO_ROOM, blameless=True)
            await self._batcher.submit(UNREAD, later)
        else:
            await self._batcher.submit(READ, Read(id_, done))

    async def _read(self, row: Row, delivery: Delivery) -> Delivery:
        """What a request says, its emails read."""
        if delivery.state != "pending":
            return delivery
        events: list[Event] = []
        for event in delivery.events:
            events += (
                await self._letters(row, delivery, event) if isinstance(event, Mail) else [event]
            )
        return replace(delivery, events=events, state="parsed", detail=None)

    async def _letters(self, row: Row, delivery: Delivery, mail: Mail) -> list[Event]:
        said = await self._programs.read(mail)
        people, files = letters.recipients(said), letters.enclosed(said)
        keys = [letters.dedupe_key(said, each) for each in people]
        there = await self._reader.call(known, row["connection"], keys)
        wanted = [each for each, key in zip(people, keys, strict=True) if key not in there]
        if not wanted:
            return []
        kept = [
            (file, await self._keep(delivery.tenant_id, file_id(row["id"], n), file))
            for n, file in enumerate(files)
        ]
        return [letters.message(mail, said, each, kept) for each in wanted]

    async def _keep(self, tenant_id: str, id_: str, file: Enclosed) -> KeptFile:
        kind = kind_of(file.data[:HEAD], file.kind)
        await self._store.put(key_of(tenant_id, id_), file.data, kind)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(file.data).hexdigest())
        return KeptFile(id=id_, content_type=kind, size=len(file.data), sha256=digest)
