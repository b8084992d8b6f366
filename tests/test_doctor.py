"""`gateway doctor`: what it looks at, what it says, and that nothing stops it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.commands import asking
from gateway.commands.checkup import mounted
from tests.running import KEY, OURS, PUBLIC, TOKEN, in_thread, twilio, variables
from tests.twilio_account import SERVICE, TwilioAccount, number, service, twilio_account
from tests.typed import Typed, type_in
from tests.vendors import Fault, LoopbackVendor

HOOK = f"{PUBLIC}/api/webhooks/twilio#rc=3&rp=all"
TOLD = number(sms_url=HOOK, sms_method="POST", sms_fallback_url=HOOK)
BY_SERVICE = {"TWILIO_MESSAGING_SERVICE_SID": SERVICE}


@dataclass
class Report:
    """What doctor said as JSON, and how it ended."""

    code: int
    text: str

    @property
    def findings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.text)["findings"]
        return found

    def of(self, subject: str) -> list[dict[str, Any]]:
        """The findings about something."""
        return [finding for finding in self.findings if finding["subject"] == subject]

    def level(self, subject: str) -> str:
        """How bad the worst of these is."""
        levels = [finding["level"] for finding in self.of(subject)]
        return next(
            word for word in ("problem", "warning", "ok", "nothing") if word in [*levels, "nothing"]
        )

    def said(self, subject: str) -> str:
        """All that is said of something, with what to do."""
        return "\n".join(f"{finding['text']} -> {finding['fix']}" for finding in self.of(subject))


class Practice:
    """A folder with the variables of a gateway in production."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.patch, self.folder, self.data = patch, folder, folder / "data"

    def typed(self, *arguments: str, **more: str) -> Typed:
        return type_in(self.patch, self.folder, variables(self.data, **more), *arguments)

    def examine(self, **more: str) -> Report:
        done = self.typed("doctor", "--json", **more)
        assert done.err == ""
        return Report(done.code, done.out)

    def of_twilio(self, **there: Any) -> Report:
        """What is said of a Twilio account."""
        more = there.pop("more", {})
        with twilio_account(**there) as account:
            return self.examine(**{**twilio(account.url), "TWILIO_WHATSAPP_NUMBER": "", **more})


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Practice:
    return Practice(monkeypatch, tmp_path)


def test_a_gateway_on_one_s_own_machine_is_healthy(doctor: Practice) -> None:
    own = {"GATEWAY_ENV": "development", "PUBLIC_URL": "", "GATEWAY_API_KEY": ""}
    done = doctor.typed("doctor", MESSAGING_PROVIDER="", **own)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("Settings\n  ok       settings")
    told = " ".join(done.out.split())  # the columns are as wide as what stands in them
    assert "PUBLIC_URL not set: http://127.0.0.1:8000, which no vendor can call" in told
    assert done.out.endswith("\n0 to be fixed, 0 to be known.\n")


def test_a_running_gateway_is_found_at_its_address(doctor: Practice) -> None:
    assert doctor.typed("db", "upgrade").code == 0
    with in_thread(variables(doctor.data), working=False) as client:
        seen = {"PUBLIC_URL": client.url, "GATEWAY_ENV": "development"}
        report = doctor.examine(**seen)
    assert report.code == 0
    assert f"{client.url}/health answers as a gateway does" in report.said("PUBLIC_URL")
    assert "revision" in report.said("database")
    assert report.level("database") == "ok"


def test_another_server_at_the_address_is_told(doctor: Practice) -> None:
    with LoopbackVendor() as other:
        report = doctor.examine(PUBLIC_URL=other.url, GATEWAY_ENV="development")
    assert "answers 201, and not as a gateway does" in report.said("PUBLIC_URL")


@pytest.mark.parametrize(
    ("public", "level", "said"),
    [
        ("", "warning", "webhooks will be refused"),
        (PUBLIC, "problem", "does not resolve"),
        ("http://gateway.example.com", "problem", "is not https"),
        ("https://10.0.0.7", "problem", "10.0.0.7 is a private address"),
        ("https://gateway", "problem", "a name of this network only"),
        ("https://127.0.0.1:9", "problem", "cannot be reached from this machine"),
    ],
)
def test_an_address_that_vendors_cannot_call_is_told(
    doctor: Practice, public: str, level: str, said: str
) -> None:
    # The guard of the tests lets no connection out, so 10.0.0.7 cannot be reached here.
    report = doctor.examine(PUBLIC_URL=public)
    assert report.level("PUBLIC_URL") == level
    assert said in report.said("PUBLIC_URL")
    assert report.code == (1 if level == "problem" else 0)


def test_settings_that_cannot_be_read_name_the_variable(doctor: Practice) -> None:
    report = doctor.examine(WORKER_SEATS="many")
    assert report.code == 1
    assert [finding["subject"] for finding in report.findings] == ["settings"]
    assert report.said("settings").startswith("WORKER_SEATS: ")


def test_a_vendor_half_set_up_stops_no_other_look(doctor: Practice) -> None:
    report = doctor.examine(MESSAGING_PROVIDER="twilio", TWILIO_ACCOUNT_SID="")
    assert report.code == 1
    assert "TWILIO_ACCOUNT_SID is not set" in report.said("adapters")
    assert report.level("database") == report.level("API keys") == "ok"


def test_folders_that_cannot_be_written_are_told(doctor: Practice) -> None:
    (doctor.folder / "file").write_text("")
    spool = str(doctor.folder / "file" / "spool")
    report = doctor.examine(DATA_DIR=str(doctor.folder / "file"), SPOOL_DIR=spool)
    assert report.code == 1
    assert report.level("DATA_DIR") == report.level("SPOOL_DIR") == "problem"
    assert "cannot be written" in report.said("DATA_DIR")
    assert "set SPOOL_DIR to another folder" in report.said("SPOOL_DIR")
    assert "is a file and no folder" in report.said("DATA_DIR")
    assert report.level("database") == "problem"
    assert "set DATA_DIR" in report.said("database")


def test_looking_in_development_makes_no_secrets(doctor: Practice) -> None:
    own = {"GATEWAY_ENV": "development", "PUBLIC_URL": "", "MESSAGING_PROVIDER": ""}
    report = doctor.examine(**own)
    assert (report.code, report.level("aws_sns")) == (0, "ok")
    assert not doctor.data.exists()


@pytest.mark.parametrize("damaged", ["{bad", "[]", '{"TWILIO_AUTH_TOKEN": 7}', "\udcff"])
def test_damaged_secrets_of_development_are_told(doctor: Practice, damaged: str) -> None:
    doctor.data.mkdir()
    file = doctor.data / "development-secrets.json"
    file.write_bytes(damaged.encode(errors="surrogateescape"))
    own = {"GATEWAY_ENV": "development", "PUBLIC_URL": ""}
    report = doctor.examine(**own)
    assert f"{file} in DATA_DIR is damaged: delete it" in report.said("adapters")
    assert doctor.typed("webhooks", "list", **own).code == 2


@pytest.mark.parametrize(
    "url", ["https://user:hunter2@gw.example.com", "https://user:hunter/2@gw.example.com"]
)
def test_a_password_in_public_url_is_refused_and_not_shown(doctor: Practice, url: str) -> None:
    report = doctor.examine(PUBLIC_URL=url)
    assert report.code == 1
    assert "leave out what is before the @" in report.said("settings")
    assert "hunter" not in report.text
    done = doctor.typed("webhooks", "list", PUBLIC_URL=url)
    assert done.code == 2
    assert "hunter" not in done.out + done.err


def test_looking_leaves_nothing_behind(doctor: Practice) -> None:
    doctor.data.mkdir()
    report = doctor.examine()
    assert report.level("DATA_DIR") == "ok"
    assert list(doctor.data.iterdir()) == []


def test_a_database_of_another_version_is_told(doctor: Practice) -> None:
    doctor.data.mkdir()
    (doctor.data / "gateway.db").write_bytes(b"")
    report = doctor.examine()
    assert report.level("database") == "problem"
    assert "gateway db upgrade" in report.said("database")
    assert doctor.typed("db", "upgrade").code == 0
    assert doctor.examine().level("database") == "ok"


def test_a_database_of_a_later_version_is_told_and_left_alone(doctor: Practice) -> None:
    assert doctor.typed("db", "upgrade").code == 0
    with closing(sqlite3.connect(doctor.data / "gateway.db")) as file, file:
        file.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "by a later version" in doctor.examine().said("database")
    for command in (("db", "upgrade"), ("keys", "list"), ("worker",)):
        done = doctor.typed(*command)
        assert done.code == 1, command
        assert "by a later version" in done.err
        assert "gateway db upgrade" not in done.err
    assert "by a later version" in doctor.typed("db", "current").out


def test_postgresql_is_looked_at(doctor: Practice, postgres_url: str) -> None:
    report = doctor.examine(DATABASE_URL=postgres_url)
    assert report.said("database").startswith("PostgreSQL, at this version's revision")


def test_a_database_that_is_away_is_told_without_its_password(doctor: Practice) -> None:
    away = "postgresql://gateway:hunter2hunter2@127.0.0.1:1/gateway"
    report = doctor.examine(DATABASE_URL=away, GATEWAY_API_KEY="")
    assert report.level("database") == "problem"
    assert "hunter2" not in report.text


def test_an_api_that_nobody_can_call_is_told(doctor: Practice) -> None:
    report = doctor.examine(GATEWAY_API_KEY="")
    assert report.level("API keys") == "problem"
    assert "gateway keys create NAME" in report.said("API keys")
    doctor.typed("db", "upgrade")
    id_ = doctor.typed("keys", "create", "app").out.split("_")[1]
    assert doctor.examine(GATEWAY_API_KEY="").level("API keys") == "ok"
    doctor.typed("keys", "revoke", id_)
    assert doctor.examine(GATEWAY_API_KEY="").level("API keys") == "problem"


def test_the_console_in_production_is_told(doctor: Practice) -> None:
    assert "prints messages and sends nothing" in doctor.examine().said("sms")
    assert doctor.examine().level("sms") == "warning"


def test_a_twilio_account_as_it_should_be(doctor: Practice) -> None:
    report = doctor.of_twilio(numbers=[TOLD])
    ours = [f for f in report.findings if f["group"] == "Vendors"]
    assert [f["level"] for f in ours] == ["ok"] * 4
    subjects = ["twilio account", f"twilio {OURS}", "twilio status callbacks", "clock"]
    assert [f["subject"] for f in ours] == subjects


TROUBLE: list[tuple[dict[str, Any], str, str, str]] = [
    ({"token": "another"}, "twilio credentials", "problem", "the auth token is wrong"),
    ({"account": {"status": "suspended"}}, "twilio account", "problem", "it is suspended"),
    ({"account": {"status": "active", "type": "Trial"}}, "twilio account", "warning", "verified"),
    ({"numbers": []}, f"twilio {OURS}", "problem", "no such sender"),
    ({"numbers": [number()]}, f"twilio {OURS}", "problem", "SmsUrl is https://demo.twilio.com"),
    ({"numbers": [{**TOLD, "sms_method": "GET"}]}, f"twilio {OURS}", "problem", "SmsMethod is GET"),
    ({"numbers": [{**TOLD, "sms_fallback_url": ""}]}, f"twilio {OURS}", "warning", "not set"),
    (
        {"numbers": [{**TOLD, "capabilities": {"voice": True, "sms": False}}]},
        f"twilio {OURS}",
        "problem",
        "cannot send or receive SMS",
    ),
    ({"broken": {"IncomingPhone": 500}}, f"twilio {OURS}", "problem", "could not be asked"),
    ({"more": BY_SERVICE}, f"twilio {SERVICE}", "problem", "UseInboundWebhookOnNumber is true"),
    ({"more": BY_SERVICE, "pool": []}, f"twilio {SERVICE}", "problem", "has no sender"),
    ({"more": BY_SERVICE, "services": []}, f"twilio {SERVICE}", "problem", "no such sender"),
    ({"more": {"TWILIO_PHONE_NUMBER": ""}}, "twilio SMS", "warning", "no sender of SMS"),
    ({"more": {"TWILIO_PHONE_NUMBER": "ACME"}}, "twilio ACME", "ok", "nobody can answer"),
]  # fmt: skip


@pytest.mark.parametrize(("there", "subject", "level", "said"), TROUBLE)
def test_trouble_at_twilio_is_told_with_what_to_do(
    doctor: Practice, there: dict[str, Any], subject: str, level: str, said: str
) -> None:
    report = doctor.of_twilio(**{"numbers": [TOLD], **there})
    assert report.level(subject) == level
    assert said in report.said(subject)
    assert all(f["fix"] for f in report.of(subject) if f["level"] != "ok")
    assert "+15550100001" not in report.text  # Twilio's own words are not repeated


def test_a_service_that_posts_here_is_well(doctor: Practice) -> None:
    urls = dict.fromkeys(("inbound_request_url", "fallback_url", "status_callback"), HOOK)
    there = service(use_inbound_webhook_on_number=False, **urls)
    report = doctor.of_twilio(services=[there], more=BY_SERVICE)
    assert report.level(f"twilio {SERVICE}") == "ok"


@pytest.mark.parametrize(
    ("sender", "level"),
    [
        ({"status": "ONLINE", "webhook": {"callback_url": HOOK}}, "ok"),
        ({"status": "ONLINE", "webhook": {"callback_url": "https://else.example.org"}}, "problem"),
        ({"status": "OFFLINE", "webhook": {"callback_url": HOOK}}, "problem"),
        ({"sender_id": "whatsapp:+15550007777"}, "warning"),
    ],
)
def test_a_whatsapp_sender_is_looked_at(
    doctor: Practice, sender: dict[str, Any], level: str
) -> None:
    senders = [{"sid": "XE1", "sender_id": "whatsapp:+15550008888", **sender}]
    more = {"TWILIO_WHATSAPP_NUMBER": "+15550008888"}
    report = doctor.of_twilio(numbers=[TOLD], senders=senders, more=more)
    assert report.level("twilio whatsapp:+15550008888") == level


@pytest.mark.parametrize(
    ("ahead", "level"),
    [
        (0, "ok"),
        (-25, "ok"),
        (90, "warning"),
        (-90, "warning"),
        (400, "problem"),
        (-400, "problem"),
    ],
)
def test_our_clock_is_held_against_the_vendor_s(doctor: Practice, ahead: int, level: str) -> None:
    report = doctor.of_twilio(numbers=[TOLD], ahead=timedelta(seconds=ahead))
    assert report.level("clock") == level


def test_a_vendor_that_does_not_answer_stops_nobody(
    doctor: Practice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "WITHIN", 0.5)
    with LoopbackVendor() as vendor:
        vendor.always = Fault.STALL
        report = doctor.examine(**twilio(vendor.url))
    assert "no answer within 0.5 s -> look at DNS" in report.said("twilio")
    assert report.level("database") == "ok"
    assert report.code == 1


def test_a_vendor_that_is_away_is_told(doctor: Practice) -> None:
    with twilio_account() as account:
        pass
    report = doctor.examine(**twilio(account.url))
    assert "could not be reached" in report.text


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_no_secret_is_shown_and_no_vendor_s_text_steers_the_terminal(
    doctor: Practice, as_json: tuple[str, ...]
) -> None:
    odd = number(sms_url="https://x\x1b[2J:sword@fish/swordfish@evil.example.org/")
    with twilio_account(numbers=[odd]) as account:
        done = doctor.typed("doctor", *as_json, **twilio(account.url))
    assert done.code == 1
    for secret in (TOKEN, KEY, "swordfish", "\x1b"):
        assert secret not in done.out
    assert "https://…@evil.example.org/" in done.out.replace("\\u2026", "…")


def test_a_network_file_system_is_seen(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    folder = tmp_path.resolve()
    table.write_text(
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"40 21 0:44 / {folder} rw shared:9 - nfs4 files:/export rw,vers=4.2\n"
    )
    assert mounted(folder / "gateway.db", table) == "nfs4"
    assert mounted(Path("/usr"), table) == "ext4"
    assert mounted(folder, tmp_path / "missing") is None


def test_the_account_of_the_tests_is_like_twilio_s() -> None:
    account = TwilioAccount()
    assert account.answer("GET", "/v1/Services/MGmissing", {})[0] == 404
