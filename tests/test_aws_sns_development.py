"""A developer's machine needs no AWS: key, certificate and topic are made once and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509

from gateway.adapters import DEVELOPMENT_SECRETS, adapters, development_secrets, private_file
from gateway.domain import Channel, InboundMessage, Simulated
from gateway.settings import Environment, variables_of
from providers._http import Http
from tests.running import KEY, in_thread
from tests.sns_signing import OURS, PERSON, TOPIC
from webhooks.aws_sns import AwsSnsWebhook, AwsSnsWebhookSettings

MADE = ("AWS_SNS_DEVELOPMENT_KEY", "AWS_SNS_DEVELOPMENT_CERTIFICATE")


def environment(data: Path, **more: str) -> Environment:
    """A developer's."""
    given = {"GATEWAY_ENV": "development", "DATA_DIR": str(data), "GATEWAY_API_KEY": KEY, **more}
    return Environment(given)


def webhook(data: Path, **more: str) -> AwsSnsWebhook:
    """The webhook that such an environment makes."""
    made = adapters(environment(data, **more), Http()).webhooks["aws_sns"]
    assert isinstance(made, AwsSnsWebhook)
    return made


def kept(data: Path) -> dict[str, Any]:
    """The file of secrets."""
    return dict(json.loads((data / DEVELOPMENT_SECRETS).read_text()))


def simulated(hook: AwsSnsWebhook, origin: str, body: str = "hi") -> Any:
    """A message of a person, as the tools make it."""
    message = InboundMessage(
        dedupe_key="", channel=Channel.SMS, from_address=PERSON, to_address=OURS, body=body
    )
    return hook.sign(Simulated(url=f"{origin}/api/webhooks/sms", message=message))


def test_secrets_are_made_once(tmp_path: Path) -> None:
    first = development_secrets(environment(tmp_path).settings)
    assert {"AWS_SNS_TOPIC_ARNS", "AWS_SNS_EMULATOR_URL", *MADE} <= set(first)
    assert development_secrets(environment(tmp_path).settings) == first == kept(tmp_path)
    assert (tmp_path / DEVELOPMENT_SECRETS).stat().st_mode & 0o077 == 0


def test_nothing_is_written_for_who_only_looks(tmp_path: Path) -> None:
    settings = environment(tmp_path / "data").settings
    assert set(MADE) <= set(development_secrets(settings, keep=False))
    assert not (tmp_path / "data").exists()
    kept_once = development_secrets(settings)
    assert development_secrets(settings, keep=False) == kept_once


def test_secrets_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / DEVELOPMENT_SECRETS
    private_file(file, "before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        private_file(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_an_older_file_stays_valid_and_gets_what_it_lacks(tmp_path: Path) -> None:
    older = {"CONSOLE_WEBHOOK_SECRET": "c" * 32, "TWILIO_AUTH_TOKEN": "t" * 32}
    (tmp_path / DEVELOPMENT_SECRETS).write_text(json.dumps(older))
    made = development_secrets(environment(tmp_path).settings)
    assert older.items() <= made.items()
    assert set(MADE) <= set(made)


def test_no_key_is_made_where_nothing_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = development_secrets(environment(tmp_path).settings)
    monkeypatch.setattr(AwsSnsWebhook, "development", lambda: pytest.fail("a key was made"))
    assert development_secrets(environment(tmp_path).settings) == before


def test_production_makes_no_secrets(tmp_path: Path) -> None:
    settings = Environment({"DATA_DIR": str(tmp_path), "MESSAGING_PROVIDER": "console"}).settings
    assert development_secrets(settings) == {}
    assert not (tmp_path / DEVELOPMENT_SECRETS).exists()


def test_what_is_made_is_a_whole_set_of_its_own() -> None:
    one, other = AwsSnsWebhook.development(), AwsSnsWebhook.development()
    assert all(one[name] != other[name] for name in MADE)
    certificate = x509.load_pem_x509_certificate(one[MADE[1]].encode())
    years = certificate.not_valid_after_utc.year - certificate.not_valid_before_utc.year
    assert years >= 10
    assert one["AWS_SNS_EMULATOR_URL"].startswith("http://127.0.0.1:")


def test_what_is_made_is_no_setting_of_anybody() -> None:
    assert not set(MADE) & set(variables_of(AwsSnsWebhookSettings))


@pytest.mark.parametrize(
    "more", [{}, {"AWS_SNS_TOPIC_ARNS": TOPIC}, {"AWS_SNS_EMULATOR_URL": "http://127.0.0.1:4571"}]
)
def test_a_simulated_message_is_taken_without_aws_and_without_an_emulator(
    sqlite_url: str, tmp_path: Path, more: Mapping[str, str]
) -> None:
    given = {**environment(tmp_path, **more).variables, "DATABASE_URL": sqlite_url}
    tools = webhook(tmp_path, **more)
    with in_thread(given) as client:
        made = simulated(tools, client.url)
        answer = requests.post(made.url, data=made.body, headers=dict(made.headers), timeout=20)
        assert answer.status_code == 200
        (message,) = client.get("/api/messages", direction="inbound")["items"]
    assert message["body"] == "hi"
    wanted = more.get("AWS_SNS_TOPIC_ARNS", kept(tmp_path)["AWS_SNS_TOPIC_ARNS"])
    assert json.loads(made.body)["TopicArn"] == wanted
