"""`gateway send`: one message through the API of a running gateway."""

from __future__ import annotations

import mimetypes
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.commands.client import Client, client
from gateway.commands.options import (
    By,
    Closed,
    Filled,
    Key,
    Lane,
    Links,
    Named,
    Sender,
    Subject,
    Tongue,
    Url,
    Wait,
    Within,
)
from gateway.commands.terminal import Failure, facts
from gateway.domain import Channel, Priority

FINAL = frozenset(
    {
        "delivered",
        "read",
        "failed",
        "undelivered",
        "bounced",
        "rejected",
        "canceled",
        "expired",
    }
)
ARRIVED = frozenset({"delivered", "read"})
PAUSE = 0.2  # seconds between looks at a message


def send(
    to: Annotated[str, typer.Argument(help="Who gets it, such as +15551230001.")],
    body: Annotated[str, typer.Argument(help="What it says.")] = "",
    channel: By = Channel.SMS,
    sender: Sender = None,
    media: Links = None,
    subject: Subject = None,
    priority: Lane = Priority.NORMAL,
    template: Named = None,
    var: Filled = None,
    language: Tongue = None,
    outside_window: Closed = False,
    wait: Wait = False,
    timeout: Within = 60.0,
    url: Url = None,
    key: Key = None,
) -> None:
    """Send a message.

    \b
    Examples:
      gateway send +15551230001 "Your table is ready"
      gateway send +15551230001 "Look" --media cat.png --wait
      gateway send +15551230001 --channel whatsapp --template order_ready --var 1=Ada
    """
    if template is None and (var or language):
        raise typer.BadParameter("--var and --language need --template")
    api = client(url, key)
    wanted = {
        "channel": channel.value,
        "to": to,
        "body": body,
        "from_": sender,
        "media": [_link(api, file, channel) for file in media or ()] or None,
        "subject": subject,
        "priority": priority.value,
        "template": _template(template, language, var or ()) if template else None,
        "outside_window": "try" if outside_window else None,
    }
    message = api.send(**wanted)
    if wait:
        message = followed(api, message["id"], timeout)
    show(message)
    if wait:
        expect_arrival(message, timeout)


def _link(api: Client, file: str, channel: Channel) -> str:
    """The URL of a file; one of this machine is uploaded first."""
    if "://" in file:
        return file
    path = Path(file)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read: {error.strerror}") from None
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    kept = api.upload(data, kind, filename=path.name, channel=channel.value)
    return str(kept["url"])


def _template(name: str, language: str | None, pairs: Sequence[str]) -> dict[str, Any]:
    parts = [pair.partition("=") for pair in pairs]
    if not all(mark for _, mark, _ in parts):
        raise typer.BadParameter("--var must be NAME=VALUE, such as 1=Ada")
    values = {key: value for key, _, value in parts}
    return {"name": name, "variables": values} | ({"language": language} if language else {})


def expect_arrival(message: dict[str, Any], timeout: float) -> None:
    """Fails for a message that has not arrived."""
    if message["status"] not in ARRIVED:
        late = "" if message["status"] in FINAL else f" after {timeout:g} seconds"
        raise Failure(f"the message is {message['status']}{late}")


def followed(api: Client, id_: str, timeout: float) -> Any:
    """A message once nothing more is to come, or when the time is over."""
    end = time.monotonic() + timeout
    while True:
        message = api.get(f"/api/messages/{id_}")
        if message["status"] in FINAL or time.monotonic() >= end:
            return message
        time.sleep(PAUSE)


def show(message: dict[str, Any]) -> None:
    """Prints a message's facts."""
    error = message.get("error") or {}
    cost = message.get("cost") or {}
    facts(
        [
            ("id", message["id"]),
            ("status", message["status"]),
            ("channel", message["channel"]),
            ("from", message["from"]),
            ("to", message["to"]),
            ("type", message["type"]),
            ("body", message["body"]),
            ("media", ", ".join(str(file.get("url")) for file in message["media"])),
            ("segments", message["segments"]),
            ("provider", message["provider"]),
            ("vendor's id", message["provider_message_id"]),
            ("cost", _money(cost) if cost else None),
            ("error", f"{error['code']}: {error['message'] or ''}" if error else None),
            ("conversation", message["conversation_id"]),
        ]
    )


def _money(cost: dict[str, Any]) -> str:
    told = f"{cost['amount']} {cost['currency']}"
    return f"{told} (estimated)" if cost.get("estimated") else told
