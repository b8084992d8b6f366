"""The settings: what is read, what is refused, and that no value is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.domain import Channel
from gateway.errors import SettingsError
from gateway.settings import LEAST, OR_NEVER, Environment, Settings, load, seconds
from providers.aws_sns import AwsSnsSettings
from providers.twilio import TwilioSettings
from webhooks._sns_envelope import NEWEST, OLDEST
from webhooks.aws_sns import AwsSnsWebhookSettings

SECRET = "a-secret-that-must-not-be-shown"


def core(**variables: str) -> object:
    return Environment(variables).settings


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30), ("500ms", 0.5), ("2s", 2), ("10m", 600), ("72h", 259_200), ("7d", 604_800)],
)
def test_a_duration_has_a_unit_or_is_in_seconds(text: str, value: float) -> None:
    assert seconds(text) == value
    assert Environment({"SEND_TIMEOUT": text}).settings.send_timeout == value


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1h30m", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        seconds(text)


def test_blank_is_unset() -> None:
    env = Environment({"MESSAGING_PROVIDER": "  ", "PORT": "", "DATABASE_URL": " "})
    assert env.settings == Environment({}).settings
    assert not env.has("MESSAGING_PROVIDER")


def test_what_is_not_given_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("PORT", "4242"),
        ("DATABASE_URL", " "),
        ("GATEWAY_ENV", "development"),
        ("AWS_REGION", "eu-west-1"),
        ("TWILIO_ACCOUNT_SID", "AC1"),
    ):
        monkeypatch.setenv(name, value)
    env = Environment({})
    assert (env.settings.port, env.settings.database_url) == (8000, None)
    assert not env.settings.development
    assert env.fill(AwsSnsSettings).region == ""


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_a_blank_variable_of_the_process_is_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank: str
) -> None:
    for name in ("GATEWAY_ENV", "DATABASE_URL", "PORT", "AWS_REGION"):
        monkeypatch.setenv(name, blank)
    env = load(tmp_path / ".env")
    assert (env.settings.database_url, env.settings.port) == (None, 8000)
    assert not env.settings.development
    assert not env.has("AWS_REGION")


@pytest.mark.parametrize("order", [1, -1])
def test_production_stays_where_another_spelling_says_development(order: int) -> None:
    spelled = [("GATEWAY_ENV", "production"), ("gateway_env", "development")]
    env = Environment(dict(spelled[::order]))
    assert not env.settings.development
    assert env.fill(AwsSnsWebhookSettings).env == "production"
    assert not Environment({"Gateway_Env": "development", "GATEWAY_ENV": " "}).settings.development


def test_unset_is_production() -> None:
    assert not Environment({}).settings.development


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "gateway.example.com"])
def test_development_listens_on_this_machine_only(host: str) -> None:
    with pytest.raises(SettingsError, match=r"^HOST must be a loopback address"):
        Environment({"GATEWAY_ENV": "development", "HOST": host})
    assert Environment({"GATEWAY_ENV": "production", "HOST": host}).settings.host == host


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY_ENV", SECRET),
        ("PORT", SECRET),
        ("PORT", "65536"),
        ("GATEWAY_API_KEY", SECRET),
        ("PUBLIC_URL", SECRET),
        ("PUBLIC_URL", f"https://example.com/?token={SECRET}"),
        ("PUBLIC_URL", f"https://user:{SECRET}@example.com"),
        ("PUBLIC_URL", f"https://user:{SECRET[:5]}/{SECRET[5:]}@example.com"),
        ("PUBLIC_URL", f"https://{SECRET}@example.com"),
        ("PUBLIC_URL", f"https://[{SECRET}"),
        ("PUBLIC_URL", f"https://{SECRET}\u2100.example.com"),
        ("PUBLIC_URL", f"https://example.com:{SECRET}"),
        ("PUBLIC_URL", "https://exämple.com"),
        ("PUBLIC_URL", "https://example.com/grüße"),
        ("PUBLIC_URL", "https://example.com:65536"),
        ("PUBLIC_URL", "https://example.com:0"),
        ("PUBLIC_URL", "https://example.com/a b"),
        ("PUBLIC_URL", "https://example.com/?"),
        ("TRUSTED_PROXIES", SECRET),
        ("SEND_TIMEOUT", SECRET),
        ("WORKER_SEATS", "0"),
        ("LOG_LEVEL", SECRET),
    ],
)
def test_an_error_names_the_variable_and_shows_no_value(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Environment({variable: value})
    assert str(caught.value).startswith(variable)
    assert value not in str(caught.value)
    assert SECRET[5:] not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_a_duration_that_is_too_short_or_endless_is_refused(name: str, least: str) -> None:
    variable = name.upper()
    assert getattr(Environment({variable: least}).settings, name) == seconds(least)
    for value in ("0", f"{seconds(least) * 0.9:.6f}", "3651d", "9" * 400):
        with pytest.raises(SettingsError, match=rf"^{variable}: must be from {least} to 3650d\.$"):
            Environment({variable: value})


def test_the_inbox_outlives_what_may_be_posted_again() -> None:
    # SNS envelopes are taken for 75 minutes, and from a clock that is 15 minutes ahead.
    with pytest.raises(SettingsError, match=r"^INBOX_RETENTION: must be from 90m"):
        Environment({"INBOX_RETENTION": "89m"})
    assert (OLDEST + NEWEST).total_seconds() <= seconds(LEAST["inbox_retention"])


def test_every_duration_has_bounds() -> None:
    described = {n for n, f in Settings.model_fields.items() if f.annotation is float}
    assert described == {*LEAST, *OR_NEVER}


@pytest.mark.parametrize(("name", "least"), OR_NEVER.items())
def test_what_may_be_switched_off_has_bounds_all_the_same(name: str, least: str) -> None:
    variable = name.upper()
    for value in ("0", least):
        assert getattr(Environment({variable: value}).settings, name) == seconds(value)
    for value in (f"{seconds(least) * 0.9:.6f}", "3651d"):
        with pytest.raises(SettingsError, match=rf"^{variable}: must be 0, or from {least} to"):
            Environment({variable: value})


def test_the_key_of_the_environment_loses_the_space_around_it() -> None:
    key = Environment({"GATEWAY_API_KEY": f" {SECRET * 2}\r\n"}).settings.gateway_api_key
    assert key is not None
    assert key.get_secret_value() == SECRET * 2


@pytest.mark.parametrize("odd", [" ", "\t", "\n", "\u00fc", "\u00a0", "\x7f", "\U0001f511"])
def test_a_key_that_no_header_can_carry_is_refused_at_the_start(odd: str) -> None:
    with pytest.raises(SettingsError, match=r"^GATEWAY_API_KEY: must be of ASCII") as caught:
        Environment({"GATEWAY_API_KEY": SECRET + odd + SECRET})
    assert SECRET not in str(caught.value)


def test_secrets_are_not_in_a_repr() -> None:
    env = Environment(
        {
            "GATEWAY_API_KEY": SECRET * 2,
            "DATABASE_URL": f"postgresql://user:{SECRET}@db/gateway",
            "TWILIO_AUTH_TOKEN": SECRET,
        }
    )
    assert SECRET not in repr(env.settings)
    assert SECRET not in repr(env.fill(TwilioSettings))


def test_lists_are_comma_separated() -> None:
    env = Environment({"SMS_PROVIDERS": " twilio, console ,"})
    assert env.settings.chain(Channel.SMS) == ("twilio", "console")
    assert env.settings.chain(Channel.EMAIL) == ()


@pytest.mark.parametrize(
    ("variables", "origin"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"HOST": "::1", "PORT": "8123"}, "http://[::1]:8123"),
        ({"PUBLIC_URL": "https://example.com/gateway/"}, "https://example.com/gateway"),
    ],
)
def test_the_origin_is_what_vendors_were_told(variables: dict[str, str], origin: str) -> None:
    assert Environment(variables).settings.origin == origin


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_gets_our_driver(scheme: str) -> None:
    env = Environment({"DATABASE_URL": f"{scheme}://user@db/gateway"})
    assert env.settings.store_url == "postgresql+psycopg://user@db/gateway"


def test_the_embedded_database_lies_in_the_data_folder(tmp_path: Path) -> None:
    env = Environment({"DATA_DIR": str(tmp_path)})
    assert env.settings.store_url == f"sqlite:///{tmp_path}/gateway.db"


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=1\nHOST=::1\nDATA_DIR='from file'\nLOG_LEVEL=\n")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("HOST", "localhost")
    settings = load(file, HOST="127.0.0.1").settings
    assert (settings.port, settings.host) == (2, "127.0.0.1")
    assert settings.data_dir == Path("from file")
    assert settings.log_level == "INFO"


def test_an_adapter_gets_its_own_variables_and_extras_give_way() -> None:
    env = Environment({"TWILIO_ACCOUNT_SID": "AC1", "PORT": "1"})
    extra = {"TWILIO_ACCOUNT_SID": "AC2", "TWILIO_AUTH_TOKEN": "made"}
    filled = env.fill(TwilioSettings, extra)
    assert filled.account_sid == "AC1"
    assert filled.auth_token.get_secret_value() == "made"


def test_with_sets_more_and_changes_nothing() -> None:
    env = Environment({"PORT": "0"})
    assert env.with_(PORT="8123").settings.port == 8123
    assert env.settings.port == 0
