"""The usual stack: FastAPI, one SQLModel session and one commit for each request.

As the frameworks' own tutorials do it: plain functions in the thread pool, a session from a
dependency, one table. It keeps no conversations, no queue and no events, and sends nothing.
"""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from sqlalchemy import Engine, event
from sqlmodel import Field, Session, SQLModel, create_engine
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

THREADS = 50  # more than AnyIO's 40
TWIML = '<?xml version="1.0" encoding="UTF-8"?><Response/>'


class Message(SQLModel, table=True):
    """The one table."""

    id: str = Field(default_factory=lambda: uuid.uuid4().hex, primary_key=True)
    direction: str
    channel: str = "sms"
    sender: str | None = None
    to: str = Field(index=True)
    body: str
    status: str
    provider_message_id: str | None = Field(default=None, unique=True)
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class NewMessage(BaseModel):
    """What is posted."""

    to: str
    body: str
    channel: str = "sms"


def engine_of(url: str) -> Engine:
    """Both databases with the durability that the gateway has, and with a connection for each
    thread of the pool: with the library's default of 15 it stands still at 64 clients, since
    requests that wait for a connection hold the threads that would give one back."""
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=THREADS)
    wait = {"check_same_thread": False, "timeout": 30}
    engine = create_engine(url, pool_size=THREADS, connect_args=wait)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def application(url: str, key: str, token: str, origin: str) -> FastAPI:
    """The application on one database."""
    engine = engine_of(url)
    SQLModel.metadata.create_all(engine, tables=[SQLModel.metadata.tables["message"]])
    app = FastAPI()
    validator = RequestValidator(token)
    bearer = HTTPBearer()

    def session() -> Iterator[Session]:
        with Session(engine) as made:
            yield made

    def caller(given: HTTPAuthorizationCredentials = Depends(bearer)) -> None:  # noqa: B008
        if not hmac.compare_digest(given.credentials, key):
            raise HTTPException(401)

    async def signed(request: Request) -> dict[str, str]:
        form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
        signature = request.headers.get("x-twilio-signature", "")
        if not validator.validate(origin + request.url.path, form, signature):
            raise HTTPException(403)
        return form

    def create(new: NewMessage, open_: Session = Depends(session)) -> Message:  # noqa: B008
        message = Message(
            direction="outbound", to=new.to, body=new.body, channel=new.channel, status="queued"
        )
        open_.add(message)
        open_.commit()
        open_.refresh(message)
        return message

    def receive(
        form: dict[str, str] = Depends(signed),  # noqa: B008
        open_: Session = Depends(session),  # noqa: B008
    ) -> Response:
        message = Message(
            direction="inbound",
            sender=form["From"],
            to=form["To"],
            body=form["Body"],
            status="received",
            provider_message_id=form["MessageSid"],
        )
        open_.add(message)
        open_.commit()
        return Response(TWIML, media_type="text/xml")

    def health() -> dict[str, str]:
        return {"status": "ok"}

    return _routed(app, create, receive, health, caller)


def _routed(app: FastAPI, create: Any, receive: Any, health: Any, caller: Any) -> FastAPI:
    app.post("/api/messages", status_code=202, dependencies=[Depends(caller)])(create)
    app.post("/api/webhooks/twilio")(receive)
    app.get("/health")(health)
    return app
