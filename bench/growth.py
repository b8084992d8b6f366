"""How long lists and searches take while the store grows: the same questions over HTTP to a store
of each size, filled by SQL in bulk and indexed by the gateway's own code."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any
from urllib.parse import quote

from bench import load, machine
from bench.machine import Process, query
from bench.measure import Bench, Figure, Subject
from bench.servers import KEY, NUMBER

CHUNK = 1000  # rows in a transaction
THREAD = 10  # messages in a conversation
CLIENTS = 4
ASKED = 60  # different requests of a question
RARE = "wonderful"  # in one of 20,000 messages
COMMON = "booking"  # in one of two
AGENTS = 20
STATUSES = ("delivered", "delivered", "sent", "accepted", "received", "received", "read")
QUESTIONS = (
    "list",
    "open",
    "filter",
    "rare word",
    "common word",
    "begun word",
    "number",
    "conversations by word",
)

Row = dict[str, Any]


@dataclass(eq=False)
class Filled:
    """A store that is being filled: its conversations, and a few of their people."""

    database: Any
    size: int = 0
    place: int = 0
    conversations: list[str] = field(default_factory=list)
    people: list[str] = field(default_factory=list)
    luck: random.Random = field(default_factory=lambda: random.Random(1))
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        letters = "abcdefghiklmnoprstuvw"
        lengths = (self.luck.randint(2, 10) for _ in range(20_000))
        self.words = ["".join(self.luck.choices(letters, k=length)) for length in lengths]

    def grow(self, size: int) -> None:
        """Fills it up to so many messages."""
        while self.size < size:
            self._chunk(min(CHUNK, size - self.size))
        if not self.database.sqlite:
            with self.database.write() as tx:
                tx.run("SET LOCAL statement_timeout = 0")
                tx.run("ANALYZE")

    def _chunk(self, count: int) -> None:
        from gateway.store.batcher import Batcher
        from gateway.store.rows import insert
        from gateway.store.search_index import ADD
        from gateway.store.tables import conversations, messages

        made = [self._conversation(number) for number in range(max(1, count // THREAD))]
        with self.database.write() as tx:
            for row in made:
                row |= {"created_at": tx.now, "updated_at": tx.now, "last_message_at": tx.now}
                row["last_message_at"] += self.luck.randrange(1000)
            insert(tx, conversations, made)
            _labels(tx, made)
            rows = [self._message(made[n % len(made)], tx.now) for n in range(count)]
            insert(tx, messages, rows)
        self.size += count
        self.conversations += [row["id"] for row in made]
        self.people += [row["address"] for row in made]
        (done,), _ = Batcher(self.database, lambda topics: None).write(
            ADD, [self._piece(rows, made)]
        )
        assert done is True, done

    def _piece(self, rows: Sequence[Row], made: Sequence[Row]) -> Any:
        """What the gateway would make of them."""
        from gateway import words
        from gateway.store.search_index import FEED, Document, Found, Piece

        since, self.place = str(self.place) if self.place else None, self.place + 1
        documents = tuple(
            Document(r["tenant_id"], r["id"], r["conversation_id"], " ".join(words.document(r)))
            for r in rows
        )
        terms = tuple(
            ((r["tenant_id"], r["id"]), frozenset(words.terms_of((r["name"],), (r["address"],))))
            for r in made
        )
        return Piece(Found(FEED, since, str(self.place)), documents, terms)

    def _conversation(self, number: int) -> Row:
        from gateway.clock import new_id
        from gateway.store.conversations import COLUMNS

        luck, n = self.luck, len(self.conversations) + number
        named = luck.random() < 0.5
        return dict.fromkeys(COLUMNS) | {
            "tenant_id": "default",
            "id": new_id("conv"),
            "channel": "whatsapp" if luck.random() < 0.3 else "sms",
            "our_key": NUMBER,
            "our_address": NUMBER,
            "address": f"+1{2_010_000_000 + n * 7919 % 900_000_000}",
            "name": f"{luck.choice(self.words)} {luck.choice(self.words)}" if named else None,
            "status": "open" if luck.random() < 0.2 else "closed",
            "assignee": f"agent{luck.randrange(AGENTS)}" if luck.random() < 0.1 else None,
            "labels": '["vip"]' if luck.random() < 0.02 else None,
            "unread_count": 1 if luck.random() < 0.03 else 0,
        }

    def _message(self, conversation: Row, now: int) -> Row:
        from gateway.clock import new_id
        from gateway.outbound import EMPTY_ROW

        status = "failed" if self.luck.random() < 0.01 else self.luck.choice(STATUSES)
        ours, theirs = NUMBER, conversation["address"]
        inbound = status == "received"
        return EMPTY_ROW | {
            "tenant_id": "default",
            "id": new_id("msg"),
            "conversation_id": conversation["id"],
            "direction": "inbound" if inbound else "outbound",
            "channel": conversation["channel"],
            "type": "text",
            "from_address": theirs if inbound else ours,
            "to_address": ours if inbound else theirs,
            "body": self._body(),
            "status": status,
            "provider": "twilio",
            "priority": "normal",
            "on_unknown": "hold",
            "created_at": now,
            "updated_at": now,
        }

    def _body(self) -> str:
        luck = self.luck
        said = [self.words[int(len(self.words) * luck.random() ** 3)] for _ in range(10)]
        if luck.random() < 0.5:
            said[3] = COMMON
        if luck.random() < 1 / 20_000:
            said[5] = RARE
        return " ".join(said)

    def requests(self) -> Mapping[str, list[str]]:
        """The paths that are asked for, by question."""
        luck = self.luck
        ids = luck.choices(self.conversations, k=ASKED)
        people = [quote(each) for each in luck.choices(self.people, k=ASKED)]
        agents = [f"agent{n % AGENTS}" for n in range(ASKED // 3)]
        search = "/api/search?q="
        return {
            "list": ["/api/conversations"],
            "open": [f"/api/conversations/{id_}/messages" for id_ in ids],
            "filter": [
                *(f"/api/conversations?assignee={agent}&status=open" for agent in agents),
                *(f"/api/messages?to={person}" for person in people[: ASKED // 3]),
                "/api/conversations?unread=true",
                "/api/conversations?label=vip&status=closed",
                "/api/messages?status=failed&channel=whatsapp",
                "/api/messages?status=undelivered",
                "/api/messages?direction=inbound&channel=sms",
            ],
            "rare word": [search + RARE, f"{search}{RARE}%20{COMMON}"],
            "common word": [search + COMMON, f"{search}{COMMON}&channel=whatsapp"],
            "begun word": [search + COMMON[:length] for length in range(1, len(COMMON))],
            "number": [f"{search}{person[-7:]}&type=conversations" for person in people],
            "conversations by word": [
                f"{search}{COMMON}&type=conversations",
                *(f"{search}{luck.choice(self.words)}&type=conversations" for _ in range(5)),
            ],
        }


def _labels(tx: Any, made: Sequence[Row]) -> None:
    from gateway.store.conversation_tables import labels
    from gateway.store.rows import insert

    rows = [
        {"tenant_id": row["tenant_id"], "conversation_id": row["id"], "label": label}
        for row in made
        for label in json.loads(row["labels"] or "[]")
    ]
    insert(tx, labels, rows)


def get(path: str) -> bytes:
    """A GET as it stands on the wire."""
    lines = (f"GET {path} HTTP/1.1", "Host: bench.test", f"Authorization: Bearer {KEY}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def measure_growth(bench: Bench) -> list[Figure]:
    """The same questions to a store of each size."""
    return [figure for store in bench.plan.stores for figure in _growth(bench, store)]


def _growth(bench: Bench, store: str) -> Iterator[Figure]:
    from gateway.store.database import Database
    from gateway.store.migrate import upgrade

    subject = Subject("gateway", store)
    data = bench.folder / f"growth-{store}"
    data.mkdir()
    kept = str(data / "gateway.db")
    url, options = f"sqlite:///{kept}", []
    if store == "postgres":
        url = kept = bench.postgres("here").database()
        options = ["--database", url]
    database = Database(url)
    upgrade(database)
    filled = Filled(database)
    for size in bench.plan.sizes:
        filled.grow(size)
        database.forget()
        figure = Figure(subject=subject, clients=size)
        stored = query(kept, "SELECT count(*) FROM search_documents")
        if stored != size:
            figure.wrong.append(f"{stored} of {size} messages can be found")
        port = machine.free_port()
        command = [sys.executable, "-m", "bench.servers", "gateway", "--idle", *options]
        process = Process(
            [*command, "--port", str(port), "--data", str(data)],
            port,
            bench.cores.server,
            log=data / "log",
        ).start()
        try:
            _ask(bench, figure, process, filled.requests())
        finally:
            process.stop()
        yield figure
    database.close()


def _ask(bench: Bench, figure: Figure, process: Process, requests: Mapping[str, list[str]]) -> None:
    """Each question for a while, in turns."""
    for turn in range(bench.plan.fewer + 1):
        found: dict[str, float] = {}
        for name, paths in requests.items():
            run = load.closed(
                process.port,
                map(get, cycle(paths)),
                clients=CLIENTS,
                seconds=bench.plan.seconds,
                status=200,
            )
            bench.busiest = max(bench.busiest, run.cpu)
            found |= {
                f"{name} p50": run.quantile(0.5) * 1000,
                f"{name} p99": run.quantile(0.99) * 1000,
            }
            if run.bad or run.lost:
                figure.wrong.append(f"{run.bad + run.lost} of {name} failed: {run.example!r:.200}")
        if turn:  # the first is to warm up
            figure.turns.append(found)
