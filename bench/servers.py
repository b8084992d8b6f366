"""The servers that are compared, each a process of its own: `python -m bench.servers NAME …`.

All run on uvicorn with uvloop, httptools and no access log, in one process. The gateway is
started as `gateway serve` starts it; only there can its worker be left out.
"""

from __future__ import annotations

import argparse
import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY = "bench-key-of-at-least-32-characters"
TOKEN = "5f0c1d2e3b4a59687716253443526170"
ACCOUNT = "AC" + "0" * 31 + "1"
NUMBER = "+15005550006"
ORIGIN = "https://gateway.bench.test"
TOPIC = "arn:aws:sns:us-east-1:210987654321:bench"
CERTIFICATE, VISITS = "certificate.pem", "visits"

TWIML = '<?xml version="1.0" encoding="UTF-8"?><Response/>'
ANSWER = {
    "id": "msg_01m8zq2x5v0a1b2c3d4e5f6g7h",
    "conversation_id": "conv_01m8zq2x5v0a1b2c3d4e5f6g7h",
    "direction": "outbound",
    "channel": "sms",
    "type": "text",
    "from": NUMBER,
    "to": "+15551230001",
    "body": "Your table is booked for eight o'clock this evening.",
    "content": {},
    "reply_to": None,
    "subject": None,
    "media": [],
    "status": "queued",
    "provider": "twilio",
    "provider_message_id": None,
    "segments": 1,
    "cost": None,
    "priority": "normal",
    "on_unknown": "hold",
    "error": None,
    "metadata": {},
    "created_at": "2030-01-31T09:00:00.000Z",
    "updated_at": "2030-01-31T09:00:00.000Z",
    "send_at": None,
    "expires_at": "2030-02-01T09:00:00.000Z",
    "sent_at": None,
    "delivered_at": None,
    "read_at": None,
}


def variables(
    data: Path,
    database: str | None,
    vendor: str | None,
    sns: str | None = None,
    second: str | None = None,
    chain: str | None = None,
) -> dict[str, str]:
    """The gateway's settings. Nobody answers at `vendor`'s default, and nobody asks there. A
    certificate that is not of Amazon's is believed in development only."""
    chosen = {
        "GATEWAY_ENV": "production",
        "GATEWAY_API_KEY": KEY,
        "DATA_DIR": str(data),
        "PUBLIC_URL": ORIGIN,
        "MESSAGING_PROVIDER": "twilio",
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TWILIO_PHONE_NUMBER": NUMBER,
        "TWILIO_API_URL": vendor or "http://127.0.0.1:9",
        "LOG_LEVEL": "WARNING",
        "EVENTS_MAX_CLIENTS": "5000",
        "EVENTS_MAX_CLIENTS_PER_KEY": "5000",
    }
    if database:
        chosen["DATABASE_URL"] = database
    if second and chain:
        chosen |= {"SMS_PROVIDERS": chain, "AWS_ENDPOINT_URL": second, "AWS_REGION": "us-east-1"}
        chosen |= {"AWS_ACCESS_KEY_ID": "AKIDBENCH", "AWS_SECRET_ACCESS_KEY": TOKEN}
        chosen["GATEWAY_ENV"] = "development"
    if sns:
        chosen |= {"AWS_SNS_TOPIC_ARNS": TOPIC, "AWS_SNS_EMULATOR_URL": sns}
        chosen["GATEWAY_ENV"] = "development"
    return chosen


def bare(given: argparse.Namespace) -> None:
    """Starlette alone: reads the body and gives an answer of the same size, from memory."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    async def message(request: Request) -> Response:
        await request.body()
        return JSONResponse(ANSWER, 202)

    async def webhook(request: Request) -> Response:
        await request.body()
        return Response(TWIML, media_type="text/xml")

    async def notification(request: Request) -> Response:
        await request.body()
        return Response()

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    _uvicorn(
        Starlette(
            routes=[
                Route("/api/messages", message, methods=["POST"]),
                Route("/api/webhooks/twilio", webhook, methods=["POST"]),
                Route("/api/webhooks/aws-sns", notification, methods=["POST"]),
                Route("/health", health),
            ]
        ),
        given.port,
    )


def usual(given: argparse.Namespace) -> None:
    """What the tutorials build."""
    from bench.usual import application

    url = given.database or f"sqlite:///{given.data / 'usual.db'}"
    _uvicorn(application(url, KEY, TOKEN, ORIGIN), given.port)


def least(given: argparse.Namespace) -> None:
    """What the gateway stores and sends, without what makes it a gateway."""
    from bench.least import application

    folder = given.certificates
    certificate = None if folder is None else folder / CERTIFICATE
    _uvicorn(application(given.data, given.vendor, certificate), given.port)


def gateway(given: argparse.Namespace) -> None:
    """The gateway itself; with `--idle` nothing is sent, so that accepts are all it does."""
    from gateway.app import Gateway
    from gateway.asgi import asgi
    from gateway.commands import server
    from gateway.settings import load
    from gateway.store import migrate

    listener = server.bound("127.0.0.1", given.port)
    places = (given.vendor, given.sns, given.second, given.chain)
    environment = load(None, **variables(given.data, given.database, *places))
    made = Gateway(environment=environment, working=not given.idle)
    if migrate.needed(made.database):
        migrate.upgrade(made.database)

    server.run(
        asgi(made),
        listener,
        stop_within=5.0,
        ready=server.settled,
        leaving=made.hub.end_streams,
    )


def certificates(given: argparse.Namespace) -> None:
    """Where SNS's certificates are: one and the same under every name. Notes who asks."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

    pem = (given.data / CERTIFICATE).read_bytes()
    visits = (given.data / VISITS).open("a", buffering=1)

    async def certificate(request: Request) -> Response:
        visits.write(f"{request.url.path}\n")
        return Response(pem)

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok")

    routes = [Route("/health", health), Route("/{name}.pem", certificate)]
    _uvicorn(Starlette(routes=routes), given.port)


def _settled() -> None:
    """What a start made stays: the collector need not look at it again."""
    gc.collect()
    gc.freeze()


def _uvicorn(app: Any, port: int) -> None:
    import uvicorn

    _settled()
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        backlog=2048,
    )


SERVERS: dict[str, Callable[[argparse.Namespace], None]] = {
    "bare": bare,
    "least": least,
    "gateway": gateway,
    "usual": usual,
    "certificates": certificates,
}


def main() -> None:
    """Serves one of them until it is stopped."""
    parser = argparse.ArgumentParser(description="One of the servers that are compared.")
    parser.add_argument("name", choices=SERVERS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--database", help="a PostgreSQL URL; else SQLite in --data")
    parser.add_argument("--vendor", help="where Twilio's API is")
    parser.add_argument("--sns", help="where certificates of SNS are")
    parser.add_argument("--certificates", type=Path, help="the folder of SNS's certificate")
    parser.add_argument("--second", help="where the APIs of AWS are, for a chain")
    parser.add_argument("--chain", help="the providers of SMS")
    parser.add_argument("--idle", action="store_true", help="without the worker")
    given = parser.parse_args()
    logging.basicConfig(level="WARNING")
    SERVERS[given.name](given)


if __name__ == "__main__":
    main()
