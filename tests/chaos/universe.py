"""One universe: applications that send, people who answer, vendors, one or two processes, and a
monkey. All of it follows from one seed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from gateway.domain import Channel, InboundMessage, OnUnknown, Priority, StatusUpdate
from gateway.drafts import Draft
from gateway.outbound import Invalid
from gateway.store.holds import FREE, Free
from tests.chaos.chance import from_seed
from tests.chaos.engine import Clock, Engine
from tests.chaos.loop import Loop
from tests.chaos.monkey import AWAY, Monkey
from tests.chaos.rules import Rules
from tests.chaos.storage import Storage, Violation
from tests.chaos.vendors import MOODS, TENANT, Request, Truth, Vendor
from tests.chaos.writing import Weather

LONGEST = 4 * 3600.0  # virtual seconds in which everything ends
TAIL = 60  # lines of the trace that are printed


@dataclass(frozen=True)
class Figures:
    """What one universe was made of."""

    seed: int
    messages: int
    steps: int
    commits: int
    virtual: float
    trace: str
    events: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)


class Broken(Exception):
    """A universe in which a rule was broken."""

    def __init__(self, seed: int, step: int, error: BaseException, tail: list[str]) -> None:
        self.seed, self.step, self.tail = seed, step, tail
        what = f"{type(error).__name__}: {error}"
        super().__init__(f"seed {seed}, step {step}: {what}\n" + "\n".join(tail))


class Universe:
    """Runs `messages` messages to their ends."""

    def __init__(self, seed: int, messages: int) -> None:
        self.seed, self.messages = seed, messages
        self.luck = random.Random(seed)
        self.loop = Loop(random.Random(seed + 1))
        self.storage = Storage(self.loop.time)
        self.truth = Truth()
        self.rules = Rules(self.storage, self.truth, random.Random(seed + 2))
        self.weather = Weather(self.luck, self.luck.choice((0.0, 0.02, 0.06)))
        self.several = self.luck.random() < 0.5
        self.people = [f"+1555{n:07d}" for n in range(max(3, messages // self.luck.choice((2, 5))))]
        self.vendors = [
            Vendor(
                n,
                self.loop,
                self.luck,
                self.truth,
                names_attempts=self.luck.random() < 0.7,
                seats=self.luck.choice((None, None, 3)),
            )
            for n in range(self.luck.choice((1, 2, 3)))
        ]
        for vendor in self.vendors:
            vendor.post, vendor.arrived = self._post, self._arrived
        self.engines: list[Engine] = []
        self.events: Counter[str] = Counter()
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.calm = False
        self._hash = hashlib.blake2b(digest_size=16)
        self._work: set[asyncio.Task[Any]] = set()
        self.sent: list[str] = []
        self._talking: set[str] = set()

    def note(self, what: str, *more: object) -> None:
        """One line of the trace."""
        line = f"{self.loop.time():.3f} {what} {' '.join(map(str, more))}"
        self._hash.update(line.encode())
        self.tail.append(line)
        self.events[what] += 1

    def run(self) -> Figures:
        """To the end.

        Raises:
            Broken: a rule was broken.
        """
        with from_seed(self.seed, self.loop, self._logged):
            try:
                outcomes = self.loop.run(self._run())
            except Exception as error:
                raise Broken(self.seed, self.loop.steps, error, list(self.tail)) from error
            finally:
                self.loop.close()
                self.storage.close()
        return Figures(
            self.seed,
            len(self.rules.answered),
            self.loop.steps,
            self.rules.commits,
            self.loop.time(),
            self._hash.hexdigest(),
            self.events,
            self.weather.faults,
            sum((Counter(vendor.fates) for vendor in self.vendors), Counter[str]()),
            outcomes,
        )

    def _logged(self, record: logging.LogRecord) -> None:
        """What the product itself calls an error that it did not expect."""
        if record.exc_info and "raised what it may not" not in str(record.msg):
            error = Violation(f"the log says: {record.getMessage()}")
            error.__cause__ = record.exc_info[1]
            self.loop.failure = self.loop.failure or error

    def begin(self, work: Any) -> asyncio.Task[Any]:
        """Something that goes on outside of every process."""
        task: asyncio.Task[Any] = self.loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.loop.failure = self.loop.failure or task.exception()

    async def _run(self) -> Counter[str]:
        for _ in range(2 if self.several else 1):
            await self.start()
        beside = [
            self.begin(Monkey(self).plays()),
            self.begin(self._moods()),
            self.begin(self._words()),
        ]
        await self._applications()
        await asyncio.sleep(self.luck.choice((0.0, 20.0)))
        for task in beside:
            task.cancel()
        await self._rest()
        return self.rules.ended()

    async def _rest(self) -> None:
        """Lets everything end: no faults any more, one process that works, nothing held."""
        self.calm, self.weather.often = True, 0.0
        for vendor in self.vendors:
            vendor.steady = True
        for engine in self.engines:
            if engine.paused:
                self.loop.resume(engine)
        if not self.ready():
            await self.start()
        self.note("calm")
        while not self._at_rest():
            if self.loop.time() > LONGEST:
                raise Violation(f"never ends: {self._open()[:3]}")
            await asyncio.sleep(10.0)
            await self._free()

    async def _free(self) -> None:
        held = self.storage.rows("SELECT message_id FROM queue WHERE quarantined = 1")
        if held:
            self.events["freed"] += len(held)
            keys = tuple((TENANT, row[0]) for row in held)
            await self._ask(lambda engine: engine.does(FREE, Free(keys)))

    def _open(self) -> list[Any]:
        return self.storage.rows(
            "SELECT m.id, m.status, q.due_at, q.lease_until FROM messages AS m "
            "LEFT JOIN queue AS q ON q.message_id = m.id "
            "WHERE m.direction = 'outbound' AND (q.message_id IS NOT NULL "
            "OR m.status IN ('queued', 'sending', 'unknown', 'scheduled', 'held')) ORDER BY m.id"
        )

    def _at_rest(self) -> bool:
        posting = any(not task.done() for task in self._work)
        return not posting and not self._open() and not self.loop.expects

    # Processes

    async def start(self) -> Engine:
        """Starts a process, and waits until it works."""
        engine = Engine(
            self.loop,
            self.luck,
            self.storage,
            self.weather,
            self.rules,
            self.vendors,
            only=not self.several,
        )
        self.engines.append(engine)
        for one in self.engines:
            one.others = [other for other in self.engines if other is not one and not other.dead]
        self.note("start", len(self.engines))
        while not engine.ready:
            try:
                await engine.ask(engine.starts())
            except AWAY:
                engine.dies()
                return await self.start()
        return engine

    def ready(self) -> list[Engine]:
        """The processes that answer."""
        return [engine for engine in self.engines if engine.ready]

    async def _ask(self, work: Any) -> Any:
        """Asks any process until one answers."""
        while True:
            ready = self.ready()
            if ready:
                engine = self.luck.choice(ready)
                try:
                    return await engine.ask(work(engine))
                except AWAY:
                    self.events["repeated"] += 1
            await asyncio.sleep(self.luck.uniform(0.05, 1.0))

    async def _moods(self) -> None:
        while True:
            vendor = self.luck.choice(self.vendors)
            vendor.mood = self.luck.choices(list(MOODS), (6, 6, 2, 1, 2, 1))[0]
            self.note("mood", vendor.name, vendor.mood)
            await asyncio.sleep(self.luck.expovariate(0.2))

    # Applications

    async def _applications(self) -> None:
        left, tasks = self.messages, []
        while left:
            burst = min(left, self.luck.choice((1, 1, 5, 20, 100)))
            for _ in range(burst):
                left -= 1
                tasks.append(self.begin(self._application(self.messages - left)))
            await asyncio.sleep(self.luck.choice((0.0, 0.05, 0.5, 2.0)))
        await asyncio.gather(*tasks)

    def _draft(self, number: int) -> Draft:
        luck, now = self.luck, Clock(self.loop, 0.0).now()
        send_at = None
        if luck.random() < 0.05:
            send_at = now + timedelta(seconds=luck.choice((1, 10, 60)))
        expires_at = None
        if luck.random() < 0.05:
            expires_at = (send_at or now) + timedelta(seconds=luck.choice((5, 30)))
        return Draft(
            channel=Channel.SMS,
            to=luck.choice(self.people),
            body=f"message {number}",
            priority=luck.choice(tuple(Priority)),
            on_unknown=luck.choice(tuple(OnUnknown)),
            send_at=send_at,
            expires_at=expires_at,
        )

    async def _application(self, number: int) -> None:
        """Sends one message, and repeats itself with its key until it is answered."""
        draft = self._draft(number)
        key = f"key {number}" if self.luck.random() < 0.95 else None
        again = self.luck.choice((0, 0, 0, 0, 1))
        while True:
            try:
                async with asyncio.timeout(self.luck.choice((0.3, 5.0, 30.0, 30.0))):
                    accepted = await self._accepted(draft, key)
            except AWAY:
                if key is None:
                    return  # nobody was promised anything, and nobody repeats it
                continue
            except Invalid:
                self.note("refused", number)  # too late: its time was over before it was stored
                return
            id_ = str(accepted.view["id"])
            self.rules.promised(id_, draft.body, key)
            self.note("accepted", number, id_)
            self.sent.append(id_)
            if key is None or not again:
                return
            again -= 1

    async def _accepted(self, draft: Draft, key: str | None) -> Any:
        while True:
            ready = self.ready()
            if ready:
                engine = self.luck.choice(ready)
                try:
                    return await engine.ask(engine.accept(draft, key))
                except AWAY:
                    if key is None:
                        raise
                    self.events["repeated"] += 1
            await asyncio.sleep(self.luck.uniform(*((0.05, 1.0) if ready else (0.5, 4.0))))

    # People and vendors

    async def _words(self) -> None:
        """People say STOP and START."""
        number = 0
        while True:
            await asyncio.sleep(self.luck.expovariate(0.5))
            person = self.luck.choice(self.people)
            if person not in self._talking:
                number += 1
                self._talking.add(person)
                self.begin(self._says(number, person))

    async def _says(self, number: int, person: str) -> None:
        stops = person not in self.rules.stopped
        self.rules.stopped.pop(person, None)
        body = "STOP" if stops else "START"
        vendor = self.luck.choice(self.vendors)
        event = InboundMessage(
            dedupe_key=f"word {number}",
            channel=Channel.SMS,
            from_address=person,
            to_address=vendor.connection.senders[Channel.SMS].address,
            body=body,
        )
        await self._ask(lambda e: e.receive(vendor, event.dedupe_key, (event,)))
        self.note("said", person, body)
        self._talking.discard(person)
        if stops:
            self.rules.stopped[person] = self.storage.now()

    def _post(self, vendor: Vendor, key: str, update: StatusUpdate) -> None:
        self.begin(self._posts(vendor, key, update))

    async def _posts(self, vendor: Vendor, key: str, update: StatusUpdate) -> None:
        """A vendor repeats what was not answered, some of them for ever."""
        patient = self.luck.random() < 0.9
        while True:
            ready = self.ready()
            if ready:
                engine = self.luck.choice(ready)
                try:
                    async with asyncio.timeout(15):
                        await engine.ask(engine.receive(vendor, key, (update,)))
                    break
                except AWAY:
                    self.events["posted again"] += 1
            if not patient:
                return
            await asyncio.sleep(self.luck.uniform(0.1, 2.0))
        self.note("posted", key, update.status.value)
        self._heard(update)

    def _heard(self, update: StatusUpdate) -> None:
        if update.dedupe_key in self.truth.forged:
            return
        self.truth.taken[update.provider_message_id or ""].heard.add(update.status)

    def _arrived(self, request: Request) -> None:
        self.note("sent", request.vendor, request.attempt_id, request.fate.value)
        self.rules.arrived(request)
