"""`gateway simulate chat`: plays a person in the terminal.

What the gateway sends to that person appears; what is typed comes in as a signed webhook.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.commands.client import Client, client
from gateway.commands.options import As, By, Key, Linger, Name, Ours, Person, Url
from gateway.commands.simulate import our_address
from gateway.commands.terminal import Failure, complain, say, visible
from gateway.commands.welcome import PERSON
from gateway.domain import Channel, InboundMessage

if TYPE_CHECKING:
    from gateway.commands.vendor import Vendor

BEYOND = 2**63 - 1  # no event has this number: the feed answers at once with its newest
ARRIVING = ("message.accepted", "message.sent", "message.delivered", "message.read")


def chat(
    sender: Person = PERSON,
    channel: By = Channel.SMS,
    to: Ours = None,
    name: Name = None,
    linger: Linger = 3.0,
    provider: As = "twilio",
    url: Url = None,
    key: Key = None,
) -> None:
    """Talk to the gateway as a person would; Ctrl-D ends it.

    \b
    Examples:
      gateway simulate chat
      gateway simulate chat --channel whatsapp --from +15551230002 --name Ada
      printf 'hi\\nSTOP\\n' | gateway simulate chat --linger 2
    """
    from gateway.commands.vendor import Vendor

    api = client(url, key)
    vendor = Vendor(api, provider)
    ours = vendor.ours(channel, to)
    phone = Phone(
        api=api,
        vendor=vendor,
        channel=channel,
        address=sender,
        ours=our_address(ours.address),
        pool=ours.pool,
        name=name,
    )
    phone.listen()
    with contextlib.suppress(KeyboardInterrupt):
        talk(phone, linger)
    if phone.failed:
        raise Failure("not everything that was said was taken")


def talk(phone: Phone, linger: float) -> None:
    """Reads what the person says, line by line, to the end of the input."""
    interactive = sys.stdin.isatty()
    if interactive:
        complain(f"you are {phone.address}, writing to {phone.ours}; Ctrl-D ends it")
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    for line in sys.stdin:
        if line.strip():
            phone.says(line.rstrip("\r\n"))
    if not interactive:
        time.sleep(linger)


@dataclass(kw_only=True)
class Phone:
    """Somebody with a phone."""

    api: Client
    vendor: Vendor
    channel: Channel
    address: str
    ours: str
    pool: str | None
    name: str | None
    failed: bool = False
    _seen: set[str] = field(default_factory=set)
    _ready: threading.Event = field(default_factory=threading.Event)
    _refusal: Failure | None = None

    def says(self, body: str) -> None:
        """Sends what was typed."""
        try:
            self.vendor.message(
                InboundMessage(
                    dedupe_key="",
                    channel=self.channel,
                    from_address=self.address,
                    to_address=self.ours,
                    pool=self.pool,
                    body=body,
                    name=self.name,
                )
            )
        except Failure as failure:
            self.failed = True
            complain(str(failure))

    def listen(self) -> None:
        """Begins to follow the feed; returns when nothing that comes can be missed.

        Raises:
            Failure: it cannot be followed at all.
        """
        threading.Thread(target=self._follow, name="feed", daemon=True).start()
        self._ready.wait()
        if self._refusal is not None:
            raise self._refusal

    def _follow(self) -> None:
        try:
            for frame in self.api.events(BEYOND):
                self._ready.set()
                self._hears(frame)
        except Failure as failure:
            if self._ready.is_set():
                complain(str(failure))
                return
            self._refusal = failure
            self._ready.set()

    def _hears(self, frame: dict[str, Any]) -> None:
        message = frame["data"].get("message")
        if frame["type"] not in ARRIVING or not message or message["id"] in self._seen:
            return
        if (message["channel"], message["to"]) != (self.channel.value, self.address):
            return
        if message["direction"] == "outbound":
            self._seen.add(message["id"])
            say(shown(message))


def shown(message: dict[str, Any]) -> str:
    """A message as it appears on the person's side."""
    files = [f"<{visible(file.get('url'))}>" for file in message["media"]]
    said = [visible(line) for line in (message["body"] or "").split("\n") if line]
    text = "\n    ".join([*said, *files]) or f"({visible(message['type'])})"
    return f"{visible(message['from'] or 'gateway')}: {text}"
