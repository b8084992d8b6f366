"""The failover of email as one story, from HTTP to the wire: SES refuses our credentials, SendGrid
takes over until it is down too, and an SMTP server delivers; the health says so each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.aws_account import KEY_ID, REGION, SECRET
from tests.families import AwsSes
from tests.outbound_cases import entry_of
from tests.running import Client, eventually, in_thread, variables
from tests.smtp_servers import Mailbox, smtp_server
from tests.vendors import LoopbackVendor, Reply

ADA = "ada@example.com"
DOWN = Reply(status=503, body=b"<html>away</html>")


@dataclass
class Scene:
    """A gateway with three ways to send email."""

    client: Client
    amazon: LoopbackVendor
    sendgrid: LoopbackVendor
    box: Mailbox

    def send(self, body: str, **more: Any) -> dict[str, Any]:
        """An email that is wanted again where its answer is lost."""
        return self.client.send(
            channel="email", to=ADA, subject="Hello", body=body, on_unknown="resend", **more
        )

    def health(self) -> dict[str, Any]:
        """What is told of email."""
        told = self.client.get("/health/messaging")
        states = {p["name"]: p for p in told["email_providers"]}
        return {"active": told["active_providers"]["email"], **states}


@pytest.fixture
def scene(url: str, tmp_path: Path) -> Iterator[Scene]:
    answers = [entry_of(name).data["answer"] for name in ("aws_ses", "sendgrid")]
    with (
        LoopbackVendor(answer=answers[0]) as amazon,
        LoopbackVendor(answer=answers[1]) as sendgrid,
        smtp_server() as box,
    ):
        given = {
            "MESSAGING_PROVIDER": "aws",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": amazon.url,
            "AWS_SES_FROM_EMAIL": "shop@example.com",
            "SENDGRID_API_KEY": "SG.recognisable-8c21",
            "SENDGRID_FROM_EMAIL": "shop@example.com",
            "SENDGRID_API_URL": sendgrid.url,
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(box.port),
            "SMTP_FROM_EMAIL": "shop@example.com",
            "BREAKER_FAILURES": "3",
            "BREAKER_OPEN_FOR": "1h",
            "RETRY_CAP": "200ms",
        }
        with in_thread(variables(tmp_path, url, **given)) as client:
            yield Scene(client, amazon, sendgrid, box)


def test_email_goes_on_whoever_fails(scene: Scene) -> None:
    told = scene.health()
    assert [told[name]["priority"] for name in ("aws_ses", "sendgrid", "smtp")] == [
        "PRIMARY",
        "SECONDARY",
        "TERTIARY",
    ]
    assert told["active"] == "aws_ses"

    # SES refuses us: its breaker opens at once, and SendGrid has the email.
    scene.amazon.always = AwsSes.unauthorised
    first = scene.client.until(scene.send("one")["id"], "accepted")
    assert first["provider"] == "sendgrid"
    (logged,) = scene.client.get("/api/communications", provider="sendgrid")["items"]
    assert (logged["message_id"], logged["attempts"]) == (first["id"], 2)
    ses, sendgrid = first["attempts"]
    assert (ses["provider"], ses["error"]["class"]) == ("aws_ses", "account_refused")
    assert sendgrid["why"].startswith("failover from aws_ses")
    eventually(lambda: scene.health()["active"] == "sendgrid")
    told = scene.health()
    assert (told["aws_ses"]["circuit_breaker"], told["aws_ses"]["is_healthy"]) == ("open", False)
    assert told["aws_ses"]["last_error"].startswith("account_refused")

    # The next one passes it over, and that costs no attempt.
    second = scene.client.until(scene.send("two")["id"], "accepted")
    assert [a["provider"] for a in second["attempts"]] == ["sendgrid"]
    assert second["attempts"][0]["passed_over"] == [
        {"provider": "aws_ses", "reason": "breaker_open"}
    ]
    assert len(scene.amazon.requests) == 1

    # SendGrid is down, too: SMTP delivers.
    scene.sendgrid.always = DOWN
    others = [scene.client.until(scene.send(f"more {n}")["id"], "accepted") for n in range(4)]
    assert {message["provider"] for message in others} == {"smtp"}
    eventually(lambda: scene.health()["active"] == "smtp")
    told = scene.health()
    assert [told[name]["circuit_breaker"] for name in ("aws_ses", "sendgrid", "smtp")] == [
        "open",
        "open",
        "closed",
    ]
    last = scene.client.until(scene.send("last")["id"], "accepted")
    assert [a["provider"] for a in last["attempts"]] == ["smtp"]
    assert len(scene.box.taken) == 5
