"""The vendor on loopback is a witness: what it was sent is on disk before it answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from tests.outbound_cases import entry_of, message, provider

CALLBACK = "https://gateway.example.com/api/webhooks/twilio/{}?x=1"


def test_a_killed_vendor_has_written_down_every_request(tmp_path: Path) -> None:
    log = tmp_path / "vendor.log"
    command = [sys.executable, "-m", "tests.vendors", "--file", str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            asyncio.run(send_two(process.stdout.readline().strip()))
        finally:
            process.kill()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines == [
        {"attempt": "att_0a", "to": "+1555", "body": "Grüße\n👍"},
        {"attempt": "att_0b", "to": "+1555", "body": "Grüße\n👍"},
    ]


async def send_two(url: str) -> None:
    async with provider(entry_of("twilio"), url) as made:
        for name in ("att_0a", "att_0b"):
            callback = CALLBACK.format(name)
            await made.send(message(body="Grüße\n👍", to="+1555", callback_url=callback))
