"""Failover from HTTP to the wire: two vendors on loopback, and what an operator sees of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.store import pins
from gateway.store.database import Database
from tests.aws_servers import LoopbackAws, refusal
from tests.families import Twilio
from tests.running import OURS, Client, eventually, in_thread, twilio, variables
from tests.vendors import LoopbackVendor, Reply

AWS_NUMBER = "+15550007777"
PERSON = "+15550100001"


@pytest.fixture
def aws() -> Iterator[LoopbackAws]:
    """An AWS on loopback."""
    with LoopbackAws() as made:
        yield made


def both(data: Path, url: str, vendor: LoopbackVendor, aws: LoopbackAws, **more: str) -> Any:
    """Two vendors with credentials, breakers that open early and are probed soon."""
    return variables(
        data,
        url,
        **{
            **twilio(vendor.url),
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_SMS_ORIGINATION_IDENTITY": AWS_NUMBER,
            "BREAKER_FAILURES": "3",
            "BREAKER_MESSAGES": "2",
            "BREAKER_OPEN_FOR": "300ms",
            "WORKER_POLL": "50ms",
            "RETRY_BASE": "10m",  # who waits for a retry does not get there
            **more,
        },
    )


def person(number: int) -> str:
    return f"+1555010{number:04d}"


def in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def sms(client: Client, name: str) -> dict[str, Any]:
    """How a provider of SMS is."""
    told = client.get("/health/messaging")["sms_providers"]
    return next(provider for provider in told if provider["name"] == name)


def attempts(message: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    """Who was asked, what came of it, and of which class."""
    return [
        (a["provider"], a["status"], a["error"] and a["error"]["class"])
        for a in message["attempts"]
    ]


def test_one_is_down_the_other_takes_over_and_it_comes_back(
    url: str, tmp_path: Path, vendor: LoopbackVendor, aws: LoopbackAws
) -> None:
    with in_thread(both(tmp_path, url, vendor, aws)) as client:
        first = client.send(to=person(0), body="well")
        assert client.until(first["id"], "accepted")["provider"] == "twilio"
        told = client.get("/health/messaging")
        assert [(p["name"], p["priority"]) for p in told["sms_providers"]] == [
            ("twilio", "PRIMARY"),
            ("aws_sns", "SECONDARY"),
        ]
        assert [p["name"] for p in told["whatsapp_providers"]] == ["twilio"]
        assert told["overall_status"] == "healthy"
        assert told["active_providers"] == {"sms": "twilio", "whatsapp": "twilio", "email": None}
        vendor.stop()
        sent = [client.send(to=person(n), body="down") for n in range(1, 4)]
        for one in sent:
            message = client.until(one["id"], "accepted")
            assert attempts(message)[-1] == ("aws_sns", "accepted", None)
            assert message["from"] == AWS_NUMBER
        assert attempts(client.message(sent[0]["id"]))[0] == ("twilio", "failed", "unreachable")
        eventually(lambda: not sms(client, "twilio")["is_healthy"], "the open breaker")
        told = client.get("/health/messaging")
        assert told["active_providers"]["sms"] == "aws_sns"
        assert told["overall_status"] in ("degraded", "unhealthy")  # nobody has WhatsApp now
        assert sms(client, "twilio")["last_error"].startswith("unreachable: ")
        assert sms(client, "twilio")["failure_count"] >= 3
        assert sms(client, "aws_sns")["circuit_breaker"] == "closed"
        vendor.start()
        number = iter(range(100, 10_000))

        def back() -> bool:
            sent.append(client.send(to=person(next(number)), body="again"))
            client.until(sent[-1]["id"], "accepted")
            return sms(client, "twilio")["circuit_breaker"] == "closed"

        eventually(back, "the breaker to close")
        last = client.send(to=person(9), body="as before")
        assert client.until(last["id"], "accepted")["provider"] == "twilio"
        whys = [a["why"] for one in sent for a in client.message(one["id"])["attempts"]]
        assert "probe" in whys
    database = Database(url)
    with database.read() as tx:
        kinds = [row["what"] for row in reversed(pins.switched(tx, "twilio", 100))]
    database.close()
    assert (kinds[0], kinds[-1]) == ("opened", "closed")
    assert "half_open" in kinds


def test_what_is_throttled_by_a_callback_goes_to_the_other_vendor(
    url: str, tmp_path: Path, vendor: LoopbackVendor, aws: LoopbackAws
) -> None:
    stand_in = Twilio(vendor)
    with in_thread(both(tmp_path, url, vendor, aws)) as client:
        first = client.until(client.send(to=person(1), body="hello")["id"], "accepted")
        (sent,) = stand_in.sent()
        assert stand_in.overflowed(sent, first["provider_message_id"]).to(client).ok
        eventually(lambda: aws.sent, "the text that AWS sends")
        message = client.until(first["id"], "accepted")
        assert attempts(message) == [
            ("twilio", "failed", "throttled"),
            ("aws_sns", "accepted", None),
        ]
        assert message["attempts"][1]["why"] == "failover from twilio (throttled: 30001)"
        assert message["from"] == AWS_NUMBER
    assert (vendor.count, len(aws.sent)) == (1, 1)


def test_it_is_told_what_a_message_waits_for(
    url: str, tmp_path: Path, vendor: LoopbackVendor, aws: LoopbackAws
) -> None:
    down = Reply(status=401, body=b'{"code": 20003, "status": 401, "message": "secret"}')
    vendor.always = down
    aws.errors["SendTextMessage"] = refusal("UnrecognizedClientException")
    with in_thread(both(tmp_path, url, vendor, aws, BREAKER_OPEN_FOR="1h")) as client:
        first = client.send(to=person(1), body="both refuse")
        told = client.get("/health/messaging")

        def shut() -> bool:
            nonlocal told
            told = client.get("/health/messaging")
            return told["active_providers"]["sms"] is None

        eventually(shut, "both breakers to open")
        assert told["overall_status"] == "unhealthy"
        waits = client.send(to=person(2), body="nobody may be asked")
        later = client.send(to=person(3), body="x", send_at=in_an_hour())
        scheduled = client.message(later["id"])
        assert scheduled["waiting_for"] == "schedule"
        assert scheduled["next_attempt_at"] == scheduled["send_at"]
        message = client.message(waits["id"])
        assert (message["status"], message["attempts"]) == ("queued", [])
        assert message["waiting_for"] == "breaker"
        assert message["next_attempt_at"] > message["created_at"]
        tried = client.message(first["id"])
        assert [a[0] for a in attempts(tried)] == ["twilio", "aws_sns"]
        assert tried["status"] == "queued"
        assert tried["waiting_for"] in ("retry", "breaker")


def test_an_answer_comes_from_the_number_that_the_person_wrote_to(
    url: str, tmp_path: Path, vendor: LoopbackVendor, aws: LoopbackAws
) -> None:
    with in_thread(both(tmp_path, url, vendor, aws)) as client:
        vendor.stop()
        mine = client.send(to=person(1), body="from Twilio's number", **{"from": OURS})
        theirs = client.send(to=person(2), body="from AWS's number", **{"from": AWS_NUMBER})
        assert client.until(theirs["id"], "accepted")["provider"] == "aws_sns"
        path = f"/api/conversations/{theirs['conversation_id']}/messages"
        answer = client.call("POST", path, json={"body": "and again"})
        assert answer.status_code == 202
        assert client.until(answer.json()["id"], "accepted")["from"] == AWS_NUMBER
        waits = client.message(mine["id"])
        assert (waits["status"], waits["provider"]) == ("queued", "twilio")
        vendor.start()
    assert [r.json["OriginationIdentity"] for r in aws.requests] == [AWS_NUMBER] * 2


def test_two_workers_of_two_processes_see_one_breaker(
    postgres_url: str, tmp_path: Path, vendor: LoopbackVendor, aws: LoopbackAws
) -> None:
    vendor.always = Reply(status=401, body=b'{"code": 20003, "status": 401, "message": "x"}')
    one, two = tmp_path / "one", tmp_path / "two"
    more = {"BREAKER_OPEN_FOR": "1h"}
    with (
        in_thread(both(one, postgres_url, vendor, aws, **more)) as here,
        in_thread(both(two, postgres_url, vendor, aws, **more)) as there,
    ):
        here.until(here.send(to=person(1), body="x")["id"], "accepted")
        for client in (here, there):
            eventually(lambda c=client: sms(c, "twilio")["circuit_breaker"] == "open", "the news")
        message = there.until(there.send(to=person(2), body="y")["id"], "accepted")
        assert attempts(message) == [("aws_sns", "accepted", None)]
    assert vendor.count == 1
