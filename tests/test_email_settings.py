"""What the settings of email may say: what no header carries stops the start, and names the
variable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway import catalog
from gateway.errors import SettingsError
from gateway.settings import Environment, variables_of
from tests.commands import Desk
from tests.smtp_servers import key_and_certificate

SETTINGS: tuple[Any, ...] = tuple(e.provider.Settings for e in catalog.CATALOG if e.provider)
NAMES = [(s, name) for s in SETTINGS for name in variables_of(s) if name.endswith("FROM_NAME")]
ADDRESSES = [(s, name) for s in SETTINGS for name in variables_of(s) if name.endswith("FROM_EMAIL")]
SMTP = {
    "MESSAGING_PROVIDER": "smtp",
    "SMTP_HOST": "127.0.0.1",
    "SMTP_PORT": "9",
    "SMTP_FROM_EMAIL": "shop@example.com",
    "GATEWAY_API_KEY": "a-secret-of-at-least-thirty-two-characters",
}


def filled(settings: Any, variable: str, value: str) -> Any:
    """What an adapter has of a variable."""
    field = next(n for n, f in settings.model_fields.items() if f.alias == variable)
    return getattr(Environment({variable: value}).fill(settings), field)


@pytest.mark.parametrize("odd", ["The\nShop", "The\r\nShop", "The\x00Shop", "The\x85Shop",
                                 "a\u2028b", "\x1b[1mShop", "x" * 201])  # fmt: skip
@pytest.mark.parametrize(("settings", "variable"), NAMES, ids=str)
def test_a_name_that_no_header_carries_is_refused(settings: Any, variable: str, odd: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable}: must be one line"):
        filled(settings, variable, odd)


@pytest.mark.parametrize(("settings", "variable"), NAMES, ids=str)
def test_a_name_may_be_of_any_script(settings: Any, variable: str) -> None:
    name = 'Müller & Söhne, "Bücher" 👩\u200d👧'
    assert filled(settings, variable, f" {name}\n") == name


@pytest.mark.parametrize(
    "odd", ["Shop <a@example.com>", "a@b@example.com", "a\x07@example.com", "a@exa\x85mple.com",
            "a@example", "a,b@example.com", "a@example.com\nBcc: b@example.com", "a@-ä-.example"]
)  # fmt: skip
@pytest.mark.parametrize(("settings", "variable"), ADDRESSES, ids=str)
def test_what_is_no_address_of_ours_is_refused(settings: Any, variable: str, odd: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable}: must be an email address"):
        filled(settings, variable, odd)


@pytest.mark.parametrize(("settings", "variable"), ADDRESSES, ids=str)
def test_the_domain_of_our_address_is_that_of_dns(settings: Any, variable: str) -> None:
    assert filled(settings, variable, "Shop@exÄmple.com\n") == "Shop@xn--exmple-cua.com"
    assert filled(settings, variable, "shop@EXAMPLE.test") == "shop@example.test"


def test_our_address_is_of_ascii_where_the_vendor_takes_no_other() -> None:
    wide = {"SMTP_FROM_EMAIL", "CONSOLE_FROM_EMAIL"}
    for settings, variable in ADDRESSES:
        if variable in wide:
            assert filled(settings, variable, "jörg@example.com") == "jörg@example.com"
        else:
            with pytest.raises(SettingsError, match=f"{variable}: must be an email address of"):
                filled(settings, variable, "jörg@example.com")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("hello", "holds no certificate"),
        ("", "holds no certificate"),
        ("key", "holds no certificate"),
        ("folder", "cannot be read"),
    ],
)
def test_a_file_of_certificates_that_cannot_be_used_stops_the_start(
    tmp_path: Path, written: str | None, said: str
) -> None:
    file = tmp_path / "ca.pem"
    if written == "folder":
        file.mkdir()
    elif written is not None:
        file.write_bytes(key_and_certificate()[0] if written == "key" else written.encode())
    environment = Environment({**SMTP, "SMTP_CA_FILE": str(file)})
    smtp = next(e.provider for e in catalog.CATALOG if e.name == "smtp")
    assert smtp is not None
    with pytest.raises(SettingsError, match="SMTP_CA_FILE: the file") as caught:
        smtp(environment.fill(smtp.Settings))
    assert said in str(caught.value)


def test_it_is_one_sentence_of_serve_and_of_doctor(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {**SMTP, "SMTP_CA_FILE": "nowhere.pem"})
    done = desk.run("serve", "--port", "0")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "SMTP_CA_FILE: the file cannot be read" in done.err
    told = desk.run("doctor")
    assert told.code == 1
    assert "SMTP_CA_FILE: the file cannot be read" in told.out
    named = desk.run("serve", "--port", "0", SMTP_CA_FILE="", SMTP_FROM_NAME="The\nShop")
    assert (named.code, named.err.count("\n")) == (2, 1)
    assert "SMTP_FROM_NAME: must be one line" in named.err
