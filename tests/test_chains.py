"""Who sends on which channel, and in which order: from the settings alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters import adapters
from gateway.domain import Channel
from gateway.errors import SettingsError
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


NUMBER_ID = {"AWS_WHATSAPP_PHONE_NUMBER_ID": f"phone-number-id-{'0' * 32}"}


@pytest.mark.parametrize(
    ("more", "sms", "whatsapp"),
    [
        ({**AWS, "MESSAGING_PROVIDER": "aws"}, ["aws_sns"], []),
        ({**AWS, **NUMBER_ID, "MESSAGING_PROVIDER": "aws"}, ["aws_sns"], ["aws_whatsapp"]),
        ({**AWS, **NUMBER_ID, "MESSAGING_PROVIDER": "aws-whatsapp"}, ["aws_sns"], ["aws_whatsapp"]),
        ({**TWILIO, **AWS, **NUMBER_ID}, ["twilio", "aws_sns"], ["twilio", "aws_whatsapp"]),
        ({**TWILIO, **AWS, "AWS_MEDIA_BUCKET": "files"}, ["twilio", "aws_sns"], ["twilio"]),
        (
            {**TWILIO, **AWS, **NUMBER_ID, "WHATSAPP_PROVIDERS": "aws"},
            ["twilio", "aws_sns"],
            ["aws_whatsapp"],
        ),
    ],
)
def test_whatsapp_by_aws_is_there_where_its_number_is(
    tmp_path: Path, more: dict[str, str], sms: list[str], whatsapp: list[str]
) -> None:
    found = chains(tmp_path, **more)
    assert (found["sms"], found.get("whatsapp", [])) == (sms, whatsapp)


@pytest.mark.parametrize(
    ("more", "missing"),
    [
        ({**AWS, "MESSAGING_PROVIDER": "aws_whatsapp"}, "AWS_WHATSAPP_PHONE_NUMBER_ID"),
        ({**TWILIO, **AWS, "WHATSAPP_PROVIDERS": "aws-whatsapp"}, "AWS_WHATSAPP_PHONE_NUMBER_ID"),
        ({**TWILIO, **NUMBER_ID}, "AWS_REGION"),
        ({**TWILIO, **AWS, "AWS_WHATSAPP_BUSINESS_ACCOUNT_ID": "waba-1"}, "PHONE_NUMBER_ID"),
        ({"MESSAGING_PROVIDER": "aws"}, "AWS_REGION"),
        ({**NUMBER_ID, "MESSAGING_PROVIDER": "aws"}, "AWS_REGION"),
    ],
)
def test_whatsapp_by_aws_that_is_half_set_up_stops_the_start(
    tmp_path: Path, more: dict[str, str], missing: str
) -> None:
    with pytest.raises(SettingsError, match=missing):
        chains(tmp_path, **more)


def test_nobody_joins_a_channel_without_a_sender_there(tmp_path: Path) -> None:
    more = {**TWILIO, **AWS, "MESSAGING_PROVIDER": "aws", "TWILIO_WHATSAPP_NUMBER": ""}
    assert chains(tmp_path, **more) == {"sms": ["aws_sns", "twilio"]}
    more["TWILIO_WHATSAPP_NUMBER"] = "+15550008888"
    assert chains(tmp_path, **more)["whatsapp"] == ["twilio"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"SMS_PROVIDERS": "twilio, vonage"}, "SMS_PROVIDERS names 'vonage'; known are "),
        ({"EMAIL_PROVIDERS": "vonage"}, "EMAIL_PROVIDERS names 'vonage'; known are "),
        ({"MESSAGING_PROVIDER": "vonage"}, "MESSAGING_PROVIDER names 'vonage'; known are "),
        (
            {**AWS, "AWS_SECRET_ACCESS_KEY": "", "SMS_PROVIDERS": "aws"},
            "AWS_SECRET_ACCESS_KEY: is not set, but AWS_ACCESS_KEY_ID is",
        ),
        (
            {"AWS_SNS_EMULATOR_URL": "http://127.0.0.1:4571"},
            "AWS_SNS_EMULATOR_URL is for development only",
        ),
    ],
)
def test_what_stops_the_start_is_told_by_its_variable(
    tmp_path: Path, more: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        chains(tmp_path, **{**TWILIO, **more})
    assert str(caught.value).startswith(told)


def test_blanks_around_a_name_are_no_part_of_it(tmp_path: Path) -> None:
    assert chains(tmp_path, **{**TWILIO, "MESSAGING_PROVIDER": " Twilio "})["sms"] == ["twilio"]
