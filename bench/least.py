"""The least that can be done: what the gateway stores, and nothing else around it.

No settings, no tenants, no retries, no refusals with reasons: a signature or a key is checked, the
body is read, the same rows go into the same tables with the same indexes, in a group commit of the
same kind, and one request is made. What this cannot reach, no gateway in this language on these
libraries reaches; the distance between the two is what everything else costs.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlencode

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic_core import from_json, to_json

from bench.servers import ACCOUNT, ANSWER, KEY, NUMBER, ORIGIN, TOKEN, TOPIC, TWIML
from gateway.clock import new_id

Row = tuple[Any, ...]
Rows = dict[str, list[Row]]  # of a table
Asgi = Callable[..., Awaitable[None]]

STEP = 32  # rows of a statement
COLUMNS = {
    "inbox": "tenant_id id webhook connection key method url headers body verdict state "
    "received_at",
    "conversations": "tenant_id id channel our_key our_address address status unread_count "
    "last_message_at last_inbound_at created_at updated_at",
    "messages": "tenant_id id conversation_id direction channel type from_address to_address "
    "body status provider connection provider_message_id dedupe_key segments priority on_unknown "
    "created_at updated_at sent_at expires_at",
    "queue": "tenant_id message_id conversation_id route lane due_at expires_at attempts claims "
    "lease_token lease_until quarantined",
    "attempts": "tenant_id id message_id number provider connection account sender recipient "
    "status rank lease_token started_at",
    "events": "tenant_id type message_id conversation_id change created_at",
}
CHANGED = {
    "messages": "status provider_message_id segments sent_at updated_at",
    "attempts": "status provider_message_id rank segments finished_at",
}


class Writer:
    """A thread that commits what the loop has brought, together."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._staged: list[tuple[Rows, asyncio.Future[None]]] = []
        self._waiting: list[tuple[Rows, asyncio.Future[None]]] = []
        self._condition = threading.Condition()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, daemon=True).start()

    def write(self, rows: Rows) -> asyncio.Future[None]:
        """Ends after the commit."""
        future: asyncio.Future[None] = self._loop.create_future()
        if not self._staged:
            self._loop.call_soon(self._hand_over, 1)
        self._staged.append((rows, future))
        return future

    def _hand_over(self, seen: int) -> None:
        if len(self._staged) > seen:  # a turn of the loop that brings more
            self._loop.call_soon(self._hand_over, len(self._staged))
            return
        with self._condition:
            self._waiting += self._staged
            self._staged.clear()
            self._condition.notify()

    def _work(self) -> None:
        open_ = sqlite3.connect(self._path, isolation_level=None, cached_statements=500)
        for pragma in ("synchronous=FULL", "cache_size=-32768", "wal_autocheckpoint=32000"):
            open_.execute(f"PRAGMA {pragma}")
        while True:
            with self._condition:
                while not self._waiting:
                    self._condition.wait()
                taken, self._waiting = self._waiting, []
            open_.execute("BEGIN IMMEDIATE")
            for table, names in COLUMNS.items():
                _insert(open_, table, names, [r for rows, _ in taken for r in rows.get(table, ())])
            for table, names in CHANGED.items():
                changed = [r for rows, _ in taken for r in rows.get(f"changed {table}", ())]
                _update(open_, table, names, changed)
            done = [(r[0],) for rows, _ in taken for r in rows.get("changed messages", ())]
            gone = "DELETE FROM queue WHERE tenant_id = 'default' AND message_id = ?"
            open_.executemany(gone, done)
            open_.execute("COMMIT")
            self._loop.call_soon_threadsafe(_resolve, [future for _, future in taken])


def _resolve(futures: Sequence[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _insert(open_: sqlite3.Connection, table: str, names: str, rows: Sequence[Row]) -> None:
    columns = names.split()
    one = f"({', '.join('?' * len(columns))})"
    for start in range(0, len(rows), STEP):
        piece = rows[start : start + STEP]
        marks = ", ".join([one] * len(piece))
        values = [value for row in piece for value in row]
        open_.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES {marks}", values)


def _update(open_: sqlite3.Connection, table: str, names: str, rows: Sequence[Row]) -> None:
    sets = ", ".join(f"{name} = ?" for name in names.split())
    key = "tenant_id = 'default' AND id" if table == "messages" else "id"
    changed = [(*row[1:], row[0]) for row in rows]
    open_.executemany(f"UPDATE {table} SET {sets} WHERE {key} = ?", changed)


class Least:
    """The application, on a database that has the gateway's tables."""

    def __init__(self, data: Path, vendor: str | None, certificate: Path | None) -> None:
        self._data = data
        self._vendor = vendor
        self._expected = f"Bearer {KEY}".encode()
        self._routes: dict[str, Asgi] = {
            "/health": self._health,
            "/api/messages": self._accept,
            "/api/webhooks/twilio": self._form,
            "/api/webhooks/aws-sns": self._envelope,
        }
        self._key: Any = None
        if certificate is not None:
            self._key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
        self._sending: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI application without any framework."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body = b""
        if scope["method"] == "POST":
            said = await receive()
            body = said["body"]
            while said["more_body"]:
                said = await receive()
                body += said["body"]
        await self._routes[scope["path"]](dict(scope["headers"]), body, send)

    async def _live(self, receive: Any, send: Any) -> None:
        import aiohttp

        self._writer = Writer(self._data / "gateway.db")
        jar = aiohttp.DummyCookieJar()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, cookie_jar=jar) as self._session:
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return

    async def _health(self, headers: Any, body: bytes, send: Any) -> None:
        await _answer(send, 200, b"ok", b"text/plain")

    async def _accept(self, headers: dict[bytes, bytes], body: bytes, send: Any) -> None:
        if not hmac.compare_digest(headers[b"authorization"], self._expected):
            raise ValueError("who is this?")
        asked = from_json(body)
        to, text, now = asked["to"], asked["body"], int(time.time() * 1000)
        message, conversation, attempt = new_id("msg"), new_id("conv"), new_id("att")
        begun = self._vendor is not None
        status = "sending" if begun else "queued"
        later = now + 86_400_000
        rows: Rows = {
            "conversations": [_conversation(conversation, to, now)],
            "messages": [
                (
                    *("default", message, conversation, "outbound", "sms", "text", NUMBER, to),
                    *(text, status, "twilio", "twilio", None, None, 1, "normal", "hold"),
                    *(now, now, None, later),
                )
            ],
            "queue": [
                (
                    *("default", message, conversation, "twilio", 2, now, later, int(begun), 0),
                    *((attempt, now + 60_000, 0) if begun else (None, 0, 0)),
                )
            ],
            "events": [
                ("default", "conversation.created", None, conversation, None, now),
                ("default", "message.queued", message, conversation, '{"status":"queued"}', now),
            ],
        }
        if begun:
            rows["attempts"] = [
                (
                    *("default", attempt, message, 1, "twilio", "twilio", ACCOUNT, NUMBER, to),
                    *("sending", 20, attempt, now),
                )
            ]
            sending = ("default", "message.sending", message, conversation, "{}", now)
            rows["events"].append(sending)
        await self._writer.write(rows)
        view = {**ANSWER, "id": message, "conversation_id": conversation, "to": to, "body": text}
        await _answer(send, 202, to_json(view), b"application/json")
        if begun:
            task = asyncio.create_task(self._send(message, conversation, attempt, to, text))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, message: str, thread: str, attempt: str, to: str, text: str) -> None:
        form = {"To": to, "From": NUMBER, "Body": text}
        form["StatusCallback"] = f"{ORIGIN}/api/webhooks/twilio?attempt={attempt}"
        credentials = base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
        headers = {
            "Authorization": f"Basic {credentials}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        url = f"{self._vendor}/2010-04-01/Accounts/{ACCOUNT}/Messages.json"
        data = urlencode(form).encode()
        async with self._session.post(url, data=data, headers=headers) as answer:
            sid = from_json(await answer.read())["sid"]
        now = int(time.time() * 1000)
        await self._writer.write(
            {
                "changed messages": [(message, "accepted", sid, 1, now, now)],
                "changed attempts": [(attempt, "accepted", sid, 30, 1, now)],
                "events": [("default", "message.accepted", message, thread, "{}", now)],
            }
        )

    async def _form(self, headers: dict[bytes, bytes], body: bytes, send: Any) -> None:
        form = {
            name: unquote_plus(value)
            for name, _, value in (pair.partition("=") for pair in body.decode().split("&"))
        }
        url = f"{ORIGIN}/api/webhooks/twilio"
        signed = url + "".join([name + form[name] for name in sorted(form)])
        digest = base64.b64encode(hmac.digest(TOKEN.encode(), signed.encode(), "sha1"))
        if not hmac.compare_digest(digest, headers[b"x-twilio-signature"]):
            raise ValueError("who is this?")
        sid = form["MessageSid"]
        await self._writer.write(_received(url, body, sid, form["From"], form["To"], form["Body"]))
        await _answer(send, 200, TWIML.encode(), b"text/xml")

    async def _envelope(self, headers: dict[bytes, bytes], body: bytes, send: Any) -> None:
        said = from_json(body)
        names = ("Message", "MessageId", "Timestamp", "TopicArn", "Type")
        signed = "".join([f"{name}\n{said[name]}\n" for name in names]).encode()
        if said["TopicArn"] != TOPIC:
            raise ValueError("whose is this?")
        self._key.verify(base64.b64decode(said["Signature"]), signed, PKCS1v15(), SHA256())
        inner = from_json(said["Message"])
        person, ours = inner["originationNumber"], inner["destinationNumber"]
        url = f"{ORIGIN}/api/webhooks/aws-sns"
        id_, text = said["MessageId"], inner["messageBody"]
        await self._writer.write(_received(url, body, id_, person, ours, text))
        await _answer(send, 200, b"", b"text/plain")


def _conversation(id_: str, address: str, now: int) -> Row:
    return ("default", id_, "sms", NUMBER, NUMBER, address, "open", 0, now, None, now, now)


def _received(url: str, body: bytes, sid: str, person: str, ours: str, text: str) -> Rows:
    raw, message, conversation = new_id("inb"), new_id("msg"), new_id("conv")
    now = int(time.time() * 1000)
    told = json.dumps({"status": "received"})
    return {
        "inbox": [
            (
                *("default", raw, "twilio", "twilio", sid, "POST", url, "{}", body),
                *("signed", "parsed", now),
            )
        ],
        "conversations": [_conversation(conversation, person, now)],
        "messages": [
            (
                *("default", message, conversation, "inbound", "sms", "text", person, ours),
                *(text, "received", "twilio", "twilio", sid, sid, 1, "normal", "hold"),
                *(now, now, now, None),
            )
        ],
        "events": [
            ("default", "conversation.created", None, conversation, None, now),
            ("default", "message.received", message, conversation, told, now),
            ("default", "conversation.updated", None, conversation, None, now),
        ],
    }


async def _answer(send: Any, status: int, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def application(data: Path, vendor: str | None, certificate: Path | None) -> Least:
    """The application on a new database with the gateway's tables."""
    from gateway.store import migrate
    from gateway.store.database import Database

    database = Database(f"sqlite:///{data / 'gateway.db'}")
    migrate.upgrade(database)
    database.close()
    return Least(data, vendor, certificate)
