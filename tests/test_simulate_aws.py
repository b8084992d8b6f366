"""`gateway simulate … --provider aws`: signed envelopes of SNS without an account."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import requests

from gateway.commands.emulator import served as certificate_served
from gateway.domain import Channel, Simulated, Status, StatusUpdate
from tests.aws_account import AwsAccount, aws_account
from tests.aws_social import NUMBER, LoopbackSocial
from tests.commands import Desk, Served, serving
from tests.running import eventually, free_port
from tests.sns_signing import confirmation, headers, laid_out, signer, stamp
from webhooks.aws_ses import AwsSesWebhook

pytestmark = pytest.mark.anyio

PERSON, OURS = "+15551230001", "+15550000001"
SAYS = ("simulate", "inbound", "--to", OURS)
TOPIC = "arn:aws:sns:us-east-1:000000000000:gateway-development"


@pytest.fixture(scope="module")
def account() -> Iterator[AwsAccount]:
    with aws_account() as account:
        yield account


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, account: AwsAccount) -> Iterator[Served]:
    """A gateway on one's own machine that sends through AWS."""
    variables = {**account.variables, "AWS_SNS_TOPIC_ARNS": "", "AWS_EC2_METADATA_DISABLED": "true"}
    with serving(Desk(tmp_path_factory.mktemp("aws"), variables), "--dev") as served:
        yield served


@pytest.mark.parametrize("name", ["aws", "aws_sns", "aws-sns"])
def test_somebody_writes_an_sms_by_aws(served: Served, name: str) -> None:
    done = served.desk.run(*SAYS, "--body", f"hi {name} 🎉", "--provider", name)
    assert done.code == 0, done.err
    message = served.api.message(done.field("id"))
    assert (message["from"], message["to"], message["body"]) == (PERSON, OURS, f"hi {name} 🎉")
    assert (message["provider"], message["status"]) == ("aws_sns", "received")


def test_what_became_of_a_message_comes_by_aws(served: Served) -> None:
    sent = served.api.send(to=PERSON, body="through SNS")
    assert served.api.until(sent["id"], "accepted")["provider"] == "aws_sns"
    done = served.desk.run("simulate", "status", sent["id"], "delivered")
    assert done.code == 0, done.err
    assert "/api/webhooks/aws-sns" in done.err
    assert (done.field("was"), done.field("status")) == ("accepted", "delivered")


def test_a_chat_by_aws(served: Served) -> None:
    chat = ("simulate", "chat", "--to", OURS, "--linger", "0", "--provider", "aws")
    done = served.desk.run(*chat, "--from", "+15551230055", said="anybody there?\n")
    assert (done.code, done.err) == (0, "")
    found = served.api.get("/api/messages", **{"from": "+15551230055"})["items"]
    assert [message["body"] for message in found] == ["anybody there?"]


@pytest.mark.parametrize("name", ["aws", "aws_whatsapp", "aws-sns"])
def test_somebody_writes_by_whatsapp_through_aws(served: Served, name: str) -> None:
    whatsapp = (*SAYS, "--channel", "whatsapp", "--name", "Ada", "--provider", name)
    done = served.desk.run(*whatsapp, "--body", f"olá {name}")
    assert done.code == 0, done.err
    message = served.api.message(done.field("id"))
    assert (message["from"], message["to"], message["body"]) == (PERSON, OURS, f"olá {name}")
    assert (message["provider"], message["channel"]) == ("aws_whatsapp", "whatsapp")
    done = served.desk.run(*whatsapp, "--button", "Yes:confirm-7")
    pressed = served.api.message(done.field("id"))
    assert pressed["content"] == {"kind": "button", "id": "confirm-7", "title": "Yes"}
    thread = served.api.get(f"/api/conversations/{pressed['conversation_id']}")
    assert (thread["name"], thread["address"]) == ("Ada", PERSON)


def test_a_chat_by_whatsapp_through_aws(served: Served) -> None:
    chat = ("simulate", "chat", "--to", OURS, "--linger", "0", "--provider", "aws")
    more = ("--channel", "whatsapp", "--from", "+15551230056")
    done = served.desk.run(*chat, *more, said="one\ntwo\n")
    assert (done.code, done.err) == (0, "")
    found = served.api.get("/api/messages", **{"from": "+15551230056"})["items"]
    assert [message["body"] for message in found] == ["two", "one"]


def test_what_became_of_a_whatsapp_message_comes_by_aws(
    tmp_path: Path, account: AwsAccount
) -> None:
    with LoopbackSocial() as social:
        more = {"AWS_ENDPOINT_URL": social.url, "AWS_WHATSAPP_PHONE_NUMBER_ID": NUMBER}
        more["AWS_WHATSAPP_NUMBERS"] = f"+15550000002=phone-number-id-{'2' * 32}"
        more |= {"AWS_SNS_TOPIC_ARNS": "", "AWS_EC2_METADATA_DISABLED": "true"}
        with serving(Desk(tmp_path, {**account.variables, **more}), "--dev") as served:
            body = {"channel": "whatsapp", "body": "olá", "outside_window": "try"}
            sent = served.api.send(to=PERSON, **body)
            assert served.api.until(sent["id"], "accepted")["provider"] == "aws_whatsapp"
            for word in ("sent", "read"):
                done = served.desk.run("simulate", "status", sent["id"], word)
                assert done.code == 0, done.err
                assert "/api/webhooks/aws-whatsapp" in done.err
                assert done.field("status") == word
            (attempt,) = served.api.message(sent["id"])["attempts"]
            assert attempt["network_id"].startswith("wamid.")
            _says_to_each_number(served)


def _says_to_each_number(served: Served) -> None:
    """What is said to two numbers of the account are two conversations."""
    for ours in (OURS, "+15550000002"):
        whatsapp = ("--channel", "whatsapp", "--provider", "aws", "--to", ours, "--body", "hi")
        assert served.desk.run("simulate", "inbound", *whatsapp).code == 0
    found = served.api.get("/api/conversations", address=PERSON)["items"]
    assert sorted(thread["our_address"] for thread in found) == [OURS, "+15550000002"]


def test_what_aws_has_no_way_to_say_is_told(served: Served, tmp_path: Path) -> None:
    files = tmp_path / "a.png", tmp_path / "b.png"
    for file in files:
        file.write_bytes(b"\x89PNG\r\n\x1a\n")
    media = [word for file in files for word in ("--media", str(file))]
    desk = Desk(tmp_path, {"GATEWAY_ENV": "development"})
    done = desk.run(*SAYS, "--provider", "aws", *media)
    assert done.code == 1
    assert "plain SMS, WhatsApp and email only" in done.err
    done = desk.run(*SAYS, "--channel", "whatsapp", "--provider", "aws", *media)
    assert done.code == 1
    assert "it holds one" in done.err


def test_what_nobody_could_read_is_not_posted(served: Served) -> None:
    before = served.desk.run("inbox", "list").out
    done = served.desk.run(*SAYS, "--body", "hi", "--provider", "aws", "--from", "not a number;")
    assert done.code == 1
    assert "nothing was posted" in done.err
    assert "Traceback" not in done.err
    assert served.desk.run("inbox", "list").out == before


def test_a_provider_that_is_not_there_is_told(served: Served) -> None:
    done = served.desk.run(*SAYS, "--body", "hi", "--provider", "azure")
    assert done.code == 2
    assert "aws_whatsapp, console, sendgrid, sendgrid_inbound, twilio" in done.err


def test_production_can_sign_nothing_as_aws(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"MESSAGING_PROVIDER": "console", "AWS_SNS_TOPIC_ARNS": TOPIC})
    done = desk.run(*SAYS, "--body", "hi", "--provider", "aws")
    assert done.code == 1
    assert "in development only" in done.err


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[Served, Desk]]:
    """A gateway, and a desk with another data folder: its key is another one, so the gateway has
    to fetch the certificate from where both believe the stand-in for SNS to be."""
    shared = {"AWS_SNS_EMULATOR_URL": f"http://127.0.0.1:{free_port()}"}
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    with serving(Desk(one, shared), "--dev") as served:
        yield served, Desk(other, {**shared, "GATEWAY_ENV": "development"})


def test_the_certificate_is_served_while_something_is_posted(
    elsewhere: tuple[Served, Desk],
) -> None:
    served, desk = elsewhere
    key = str(served.api.key)
    said = (*SAYS, "--body", "hi", "--provider", "aws", "--url", served.url, "--key", key)
    done = desk.run(*said)
    assert done.code == 0, done.err
    assert served.api.message(done.field("id"))["body"] == "hi"
    port = int(desk.variables["AWS_SNS_EMULATOR_URL"].rpartition(":")[2])
    with socket.socket() as tried:  # and not any longer
        assert tried.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_that_is_taken_is_told(elsewhere: tuple[Served, Desk]) -> None:
    served, desk = elsewhere
    port = int(desk.variables["AWS_SNS_EMULATOR_URL"].rpartition(":")[2])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        taken.settimeout(0.1)
        said = (*SAYS, "--body", "hi", "--provider", "aws", "--url", served.url)
        done = desk.run(*said)
    assert done.code == 1
    assert f"somebody else listens on 127.0.0.1:{port}" in done.err


def test_the_subscriptions_that_vendors_told_of_are_shown(
    elsewhere: tuple[Served, Desk],
) -> None:
    served, _ = elsewhere
    origin = served.desk.variables["AWS_SNS_EMULATOR_URL"]
    key, now = signer(), datetime.now(UTC)
    topic = {"TopicArn": TOPIC, "Timestamp": stamp(now)}
    leave = confirmation("UnsubscribeConfirmation", **topic)
    query = urlencode({"Action": "ConfirmSubscription", "TopicArn": TOPIC, "Token": leave["Token"]})
    enter = confirmation(number=2, **topic, SubscribeURL=f"{origin}/?{query}")
    assert TOPIC not in served.desk.run("webhooks", "list").out
    for fields, states in ((leave, ["unsubscribed"]), (enter, ["pending", "failed"])):
        fields["Timestamp"] = stamp(datetime.now(UTC))  # the newest word of the vendor counts
        with certificate_served(f"{origin}/SimpleNotificationService-0.pem", key.pem.decode()):
            body = laid_out(key.signed(fields, url=f"{origin}/SimpleNotificationService-0.pem"))
            hook = f"{served.url}/api/webhooks/aws-sns"
            answer = requests.post(hook, data=body, headers=headers(fields["Type"]), timeout=20)
        assert answer.status_code == 200
        eventually(lambda states=states: shown_state(served) in states, f"one of {states}")


def shown_state(served: Served) -> str:
    """What `gateway webhooks list` says of the topic."""
    lines = served.desk.run("webhooks", "list").out.splitlines()
    return next((line.split()[1] for line in lines if line.startswith(TOPIC)), "")


def test_only_its_own_path_is_served_and_only_on_this_machine() -> None:
    port = free_port()
    with certificate_served(f"http://127.0.0.1:{port}/one.pem", "PEM") as stand:
        assert stand.reason == ""
        assert urlopen(f"http://127.0.0.1:{port}/one.pem", timeout=5).read() == b"PEM"
        with pytest.raises(OSError, match="404"):
            urlopen(f"http://127.0.0.1:{port}/other.pem", timeout=5)
    for away in ("http://10.0.0.1:4571/one.pem", "https://127.0.0.1:4571/one.pem"):
        with certificate_served(away, "PEM") as stand:
            assert "is not of this machine" in stand.reason


def test_somebody_writes_an_email_and_it_is_shown_once_it_is_read(served: Served) -> None:
    email = ("simulate", "inbound", "--channel", "email", "--to", "shop@example.com")
    done = served.desk.run(*email, "--subject", "Grüße", "--body", "hi there")
    assert done.code == 0, done.err
    message = served.api.message(done.field("id"))
    told = (message["from"], message["to"], message["subject"], message["body"].strip())
    assert told == ("ada@example.com", "shop@example.com", "Grüße", "hi there")
    assert (message["provider"], message["email"]["dmarc"]) == ("aws_ses", "pass")
    wrong = served.desk.run(*email, "--from", "+15551230002", "--body", "x")
    assert (wrong.code, "email address" in wrong.err) == (2, True)


def test_somebody_with_an_international_address_writes_and_is_answered(served: Served) -> None:
    email = ("simulate", "inbound", "--channel", "email", "--to", "shop@example.com")
    done = served.desk.run(
        *email, "--from", "jörg@exämple.com", "--name", 'Jörg "J"', "--body", "é"
    )
    assert done.code == 0, done.err
    message = served.api.message(done.field("id"))
    assert (message["from"], message["body"].strip()) == ("jörg@xn--exmple-cua.com", "é")
    thread = served.api.get(f"/api/conversations/{message['conversation_id']}")
    assert (thread["name"], thread["address"]) == ('Jörg "J"', "jörg@xn--exmple-cua.com")
    (found,) = served.api.get("/api/conversations", address="jörg@EXÄMPLE.com")["items"]
    assert found["id"] == thread["id"]


async def test_ses_tells_what_became_of_an_email_as_it_would(served: Served) -> None:
    webhook = AwsSesWebhook(AwsSesWebhook.Settings.model_validate(AwsSesWebhook.development()))
    for status in (Status.SENT, Status.DELIVERED, Status.BOUNCED, Status.FAILED):
        told = StatusUpdate(
            dedupe_key="", status=status, vendor_status="", attempt_id=f"att_{'0' * 32}",
            provider_message_id="0100-1", channel=Channel.EMAIL, recipient="ada@example.com",
        )  # fmt: skip
        request = webhook.sign(Simulated(url="https://gw.test.example/", status=told))
        event = webhook.parse(await webhook.verify(request))[0]
        assert isinstance(event, StatusUpdate)
        assert (event.status, event.attempt_id) == (status, told.attempt_id)
    with pytest.raises(ValueError, match="simulated"):
        webhook.sign(Simulated(url="https://x/", status=replace(told, status=Status.READ)))
