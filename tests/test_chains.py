"""Who sends on which channel, and in which order: from the settings alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters import adapters
from gateway.domain import Channel
from gateway.settings import Environment
from providers._http import Http
from tests.running import twilio, variables

TWILIO = {**twilio("http://127.0.0.1:9")}
AWS = {
    "AWS_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
}


def chains(folder: Path, **more: str) -> dict[str, list[str]]:
    """The chain of each channel that has one."""
    made = adapters(Environment(variables(folder, **more)), Http())
    return {
        channel.value: [route.name for route in chain]
        for channel, chain in made.chains.items()
        if chain and channel is not Channel.RCS
    }


@pytest.mark.parametrize(
    ("more", "sms"),
    [
        (TWILIO, ["twilio"]),
        ({**TWILIO, **AWS}, ["twilio", "aws_sns"]),
        ({**TWILIO, **AWS, "MESSAGING_PROVIDER": "aws"}, ["aws_sns", "twilio"]),
        ({**TWILIO, **AWS, "SMS_PROVIDERS": "aws"}, ["aws_sns"]),
        ({**TWILIO, **AWS, "SMS_PROVIDERS": "aws-sns, twilio"}, ["aws_sns", "twilio"]),
        ({**TWILIO, "SMS_PROVIDERS": "twilio,console,twilio"}, ["twilio", "console"]),
        ({**TWILIO, **AWS, "MESSAGING_PROVIDER": "console"}, ["console"]),
        ({**TWILIO, **AWS, "MESSAGING_PROVIDER": "", "GATEWAY_ENV": "development"}, ["console"]),
    ],
)
def test_the_named_come_first_then_whoever_has_credentials(
    tmp_path: Path, more: dict[str, str], sms: list[str]
) -> None:
    assert chains(tmp_path, **more)["sms"] == sms


def test_nobody_joins_a_channel_without_a_sender_there(tmp_path: Path) -> None:
    more = {**TWILIO, **AWS, "MESSAGING_PROVIDER": "aws", "TWILIO_WHATSAPP_NUMBER": ""}
    assert chains(tmp_path, **more) == {"sms": ["aws_sns", "twilio"]}
    more["TWILIO_WHATSAPP_NUMBER"] = "+15550008888"
    assert chains(tmp_path, **more)["whatsapp"] == ["twilio"]
