"""Email by SMTP, against aiosmtpd: each step's answers, and what is known when a line is lost."""

from __future__ import annotations

import asyncio
import email
import email.policy
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.breaker import Sign, sign_of
from gateway.domain import (
    Channel,
    MessageType,
    OutboundEmail,
    OutboundMedia,
    OutboundMessage,
    Sender,
)
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    Breaker,
    ProviderError,
    Rejected,
    SenderRefused,
    SettingsError,
    Throttled,
    Unreachable,
    Unsupported,
)
from gateway.settings import Environment
from providers.smtp import Smtp
from tests.smtp_servers import PASSWORD, USER, End, key_and_certificate, smtp_server

pytestmark = pytest.mark.anyio


def made(port: int, *, timeout: float = 5.0, **more: str) -> Smtp:
    variables = {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(port),
        "SMTP_FROM_EMAIL": "shop@example.com",
        **more,
    }
    return Smtp(Environment(variables).fill(Smtp.Settings), timeout=timeout)


@asynccontextmanager
async def smtp(port: int, **more: Any) -> AsyncIterator[Smtp]:
    provider = made(port, **more)
    try:
        yield provider
    finally:
        await provider.aclose()


def mail(number: int = 1, **more: Any) -> OutboundMessage:
    parts = more.pop("email", {})
    return OutboundMessage(
        **{
            "message_id": f"msg_{number}",
            "attempt_id": f"att_{number}",
            "channel": Channel.EMAIL,
            "type": MessageType.EMAIL,
            "to": "ada@example.com",
            "sender": Sender(address="shop@example.com"),
            "subject": "Hello",
            "body": f"text {number}",
            "email": OutboundEmail(message_id=f"<att_{number}@example.com>", **parts),
            **more,
        }
    )


async def failure(provider: Smtp, message: OutboundMessage | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.send(message or mail())
    return caught.value


def read(content: bytes) -> Any:
    return email.message_from_bytes(content.replace(b"\r\n", b"\n"), policy=email.policy.default)


async def test_an_email_arrives_as_it_was_written() -> None:
    text = "Grüße\n.\n..two dots\nfrom: nobody\n" + "long " * 400 + "\nמה שלומך 👩‍👩‍👧\n"
    sent = mail(
        body=text,
        html="<p>Grüße</p>",
        subject="Ünïcode ✓ " * 12,
        email={
            "cc": ("b@example.com",),
            "bcc": ("secret@example.com",),
            "reply_to": "help@example.com",
            "headers": {"X-Order": "7", "X-Long": "y" * 300, "X-Name": "Jürgen"},
            "in_reply_to": "<" + "a" * 90 + "@mail.example.com>",
            "references": ("<r1@example.com>", "<" + "a" * 90 + "@mail.example.com>"),
            "unsubscribe_url": "https://gateway.example.com/unsubscribe/abc",
            "date": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        },
    )
    with smtp_server() as box:
        async with smtp(box.port, SMTP_FROM_NAME='The "Shop", Ltd.') as provider:
            receipt = await provider.send(sent)
    (envelope,) = box.taken
    assert envelope.mail_from == "shop@example.com"
    assert envelope.rcpt_tos == ["ada@example.com", "b@example.com", "secret@example.com"]
    assert isinstance(envelope.original_content, bytes)
    found = read(envelope.original_content)
    assert found.get_body(("plain",)).get_content() == text
    assert found.get_body(("html",)).get_content().strip() == "<p>Grüße</p>"
    assert found["Subject"] == "Ünïcode ✓ " * 12
    assert found["From"].addresses[0].display_name == 'The "Shop", Ltd.'
    assert (found["Cc"], found["Bcc"]) == ("b@example.com", None)
    assert b"secret@example.com" not in envelope.original_content
    assert found["X-Name"] == "Jürgen"
    assert found["X-Long"] == "y" * 300
    assert b"In-Reply-To: <" + b"a" * 90 + b"@mail.example.com>\r\n" in envelope.original_content
    assert found["References"].split() == [
        "<r1@example.com>",
        "<" + "a" * 90 + "@mail.example.com>",
    ]
    assert found["List-Unsubscribe"] == "<https://gateway.example.com/unsubscribe/abc>"
    assert found["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert found["Message-ID"] == "<att_1@example.com>"
    assert found["Date"].datetime == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert max(map(len, envelope.original_content.split(b"\r\n"))) <= 998
    assert receipt.provider_message_id == "att_1@example.com"


@pytest.mark.parametrize("body", [".", "..", ".\r\n.\r\n", "a\n.", "\n.\n", "." * 2000])
async def test_dots_neither_end_a_message_nor_get_lost(body: str) -> None:
    with smtp_server() as box:
        async with smtp(box.port) as provider:
            await provider.send(mail(body=body))
            await provider.send(mail(2))
    first, second = box.taken
    assert isinstance(first.original_content, bytes)
    assert isinstance(second.original_content, bytes)
    text = read(first.original_content).get_content()
    assert text.splitlines() == body.splitlines()
    assert read(second.original_content).get_content() == "text 2\n"


async def test_files_of_any_length_arrive_as_they_are() -> None:
    given = [bytes(range(256)) * 700, b"", b"x", b"y" * 57_000, b"z" * 57_001]

    def kept(data: bytes) -> OutboundMedia:
        async def read(most: int) -> bytes:
            return data

        return OutboundMedia(url="/api/media/med_1", content_type="text/plain", read=read)

    with smtp_server() as box:
        async with smtp(box.port) as provider:
            await provider.send(mail(email={"attachments": tuple(map(kept, given))}))
    (envelope,) = box.taken
    assert isinstance(envelope.original_content, bytes)
    parts = read(envelope.original_content).iter_attachments()
    assert [part.get_payload(decode=True) for part in parts] == given
    assert max(map(len, envelope.original_content.split(b"\r\n"))) <= 80


async def test_a_connection_is_used_again_and_lost_ones_are_made_anew() -> None:
    with smtp_server() as box:
        async with smtp(box.port) as provider:
            for number in range(5):
                await provider.send(mail(number))
            assert box.connections == 1
            box.plan["message"] = [End.AFTER_DOT]
            assert isinstance(await failure(provider), Ambiguous)
            await provider.send(mail(9))
            assert box.connections == 2
    assert len(box.taken) == 6


async def test_one_that_the_server_closed_meanwhile_loses_nothing() -> None:
    with smtp_server() as box:
        provider = made(box.port)
        await provider.send(mail(1))
        port = box.port
    with pytest.raises(Unreachable):  # the server is gone
        await provider.send(mail(2))
    assert port
    await provider.aclose()


async def test_many_at_once_arrive_once_each() -> None:
    with smtp_server() as box:
        async with smtp(box.port) as provider:
            receipts = await asyncio.gather(*(provider.send(mail(n)) for n in range(40)))
    texts = [read(e.original_content).get_content() for e in box.taken]  # type: ignore[arg-type]
    assert sorted(texts) == sorted(f"text {n}\n" for n in range(40))
    assert len({r.provider_message_id for r in receipts}) == 40


STEPS = [
    ("sender", "421 4.3.2 closing", Throttled, False),
    ("sender", "451 4.3.0 later", Throttled, False),
    ("sender", "550 5.1.8 no such sender", SenderRefused, False),
    ("sender", "553 5.7.1 not yours", SenderRefused, False),
    ("sender", "530 5.7.0 log in first", AccountRefused, False),
    ("recipient", "450 4.2.1 greylisted", Throttled, False),
    ("recipient", "550 5.1.1 no such user", Rejected, False),
    ("recipient", "553 5.1.3 bad address", Rejected, False),
    ("data", "451 4.3.0 later", Throttled, False),
    ("data", "554 5.6.0 no", Rejected, False),
    ("message", "451 4.7.1 later", Throttled, True),
    ("message", "550 5.7.1 spam", Rejected, True),
    ("message", "554 5.6.0 bad content", Rejected, True),
    ("message", "552 5.3.4 too big", Unsupported, True),
    ("message", "299 what", Ambiguous, True),
    ("message", End.AFTER_DOT, Ambiguous, True),
]


@pytest.mark.parametrize(("step", "answer", "kind", "whole"), STEPS, ids=str)
async def test_what_each_step_may_answer_is_in_its_class(
    step: str, answer: Any, kind: type[ProviderError], whole: bool
) -> None:
    with smtp_server() as box:
        box.plan[step] = [answer]
        async with smtp(box.port) as provider:
            failed = await failure(provider)
            assert type(failed) is kind
            assert len(box.seen) == int(whole)
            assert box.taken == []
            await provider.send(mail(2))  # and the next one goes through
    assert [e.rcpt_tos for e in box.taken] == [["ada@example.com"]]


async def test_greylisting_says_nothing_of_the_provider() -> None:
    with smtp_server() as box:
        box.plan["recipient"] = ["450 4.2.1 greylisted"]
        async with smtp(box.port) as provider:
            failed = await failure(provider)
    assert (failed.breaker, failed.code) == (Breaker.IGNORES, "450 4.2.1")


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("message", "550 5.4.5 Daily user sending limit exceeded"),
        ("recipient", "550 5.4.5 Daily SMTP relay sending limit exceeded"),
        ("message", "550 5.1.90 Your message can't be sent: you've reached your daily limit"),
        ("message", "454 Throttling failure: Daily message quota exceeded"),
        ("sender", "550 Daily sending quota exceeded"),
    ],
)
async def test_a_day_that_is_over_opens_the_breaker_and_holds_for_an_hour(
    step: str, answer: str
) -> None:
    with smtp_server() as box:
        box.plan[step] = [answer]
        async with smtp(box.port) as provider:
            failed = await failure(provider)
    assert (type(failed), failed.breaker) == (Throttled, Breaker.OPENS)
    assert failed.retry_after == 3600.0
    assert sign_of(failed) is Sign.REFUSED
    assert "you" not in failed.text


@pytest.mark.parametrize(
    ("step", "answer", "kind", "breaker"),
    [
        ("message", "421 4.7.28 unusual rate of mail", Throttled, Breaker.SUSTAINED),
        ("message", "454 Throttling failure: Maximum sending rate exceeded", Throttled,
         Breaker.SUSTAINED),
        ("recipient", "452 4.2.2 The recipient's inbox is out of storage", Throttled,
         Breaker.IGNORES),
        ("recipient", "452 4.2.1 Over the daily limit of that mailbox", Throttled, Breaker.IGNORES),
        ("message", "554 5.4.6 Message exceeded 50 hops", Rejected, Breaker.IGNORES),
    ],
)  # fmt: skip
async def test_what_is_about_a_rate_or_a_mailbox_is_no_end_of_a_day(
    step: str, answer: str, kind: type[ProviderError], breaker: Breaker
) -> None:
    with smtp_server() as box:
        box.plan[step] = [answer]
        async with smtp(box.port) as provider:
            failed = await failure(provider)
    assert (type(failed), failed.breaker) == (kind, breaker)


async def test_no_answer_after_the_dot_is_ambiguous_and_before_it_is_not() -> None:
    with smtp_server() as box:
        box.plan["message"] = [End.STALL]
        async with smtp(box.port, timeout=1.0) as provider:
            failed = await failure(provider)
    assert (type(failed), failed.code) == (Ambiguous, "timeout")


async def test_a_connection_that_is_lost_before_the_dot_is_known_to_have_sent_nothing() -> None:
    with smtp_server(largest=64 << 20) as box:
        box.plan["data"] = [End.BEFORE_DOT]
        async with smtp(box.port) as provider:
            failed = await failure(provider, mail(body="0123456789\n" * 500_000))
            await provider.send(mail(2))
    assert (type(failed), failed.code) == (Unreachable, "connection")
    assert len(box.taken) == 1


@pytest.mark.parametrize(
    ("before", "place"), [(1, "cc[0]"), (2, "cc[2]"), (3, "bcc[0]"), (4, "bcc[1]")]
)
async def test_a_refused_copy_stops_the_whole_email_and_tells_its_place(
    before: int, place: str
) -> None:
    copies = {"cc": ("b@x.co", "ada@example.com", "c@x.co"), "bcc": ("d@x.co", "e@x.co")}
    with smtp_server() as box:
        box.plan["recipient"] = [*["250 OK"] * before, "550 5.1.1 no such user"]
        async with smtp(box.port) as provider:
            failed = await failure(provider, mail(email=copies))
            box.plan["recipient"] = [*["250 OK"] * before, "450 4.2.1 greylisted"]
            later = await failure(provider, mail(email=copies))
    assert (type(failed), failed.reason, failed.code) == (Rejected, "rejected", "550 5.1.1")
    assert failed.text == f"{place} was refused: 5.1.1 no such user"
    assert (type(later), later.text) == (Throttled, f"{place} was refused: 4.2.1 greylisted")
    assert box.seen == []


async def test_nobody_listening_is_unreachable() -> None:
    with smtp_server() as box:
        port = box.port
    async with smtp(port) as provider:
        assert type(await failure(provider)) is Unreachable


async def test_a_login_is_made_once_and_a_wrong_one_is_about_us() -> None:
    with smtp_server(login=True) as box:
        async with smtp(box.port, SMTP_USER=USER, SMTP_PASSWORD=PASSWORD) as provider:
            await provider.send(mail(1))
            await provider.send(mail(2))
            assert (box.logins, len(box.taken)) == (1, 2)
        async with smtp(box.port, SMTP_USER=USER, SMTP_PASSWORD="wrong") as provider:
            failed = await failure(provider)
    assert type(failed) is AccountRefused
    assert "wrong" not in repr(failed) + str(failed)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A key and its certificate for 127.0.0.1."""
    key, cert = key_and_certificate()
    for name, text in (("key.pem", key), ("cert.pem", cert)):
        (tmp_path / name).write_bytes(text)
    return tmp_path / "cert.pem", tmp_path / "key.pem"


def serving(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.mark.parametrize(("how", "at_once"), [("starttls", False), ("tls", True)])
async def test_a_message_goes_over_tls(
    certificate: tuple[Path, Path], how: str, at_once: bool
) -> None:
    with smtp_server(tls=serving(certificate), at_once=at_once) as box:
        more = {"SMTP_TLS": how, "SMTP_CA_FILE": str(certificate[0])}
        async with smtp(box.port, **more) as provider:
            await provider.send(mail())
    assert len(box.taken) == 1


@pytest.mark.parametrize(("how", "at_once"), [("starttls", False), ("tls", True)])
async def test_a_certificate_that_nobody_vouches_for_is_refused(
    certificate: tuple[Path, Path], how: str, at_once: bool
) -> None:
    with smtp_server(tls=serving(certificate), at_once=at_once) as box:
        async with smtp(box.port, SMTP_TLS=how) as provider:
            failed = await failure(provider)
    assert (type(failed), failed.code) == (Unreachable, "tls")
    assert box.seen == []


async def test_nothing_goes_in_clear_where_starttls_is_wanted_and_not_offered() -> None:
    with smtp_server() as box:
        async with smtp(box.port, SMTP_TLS="starttls") as provider:
            failed = await failure(provider)
    assert (type(failed), failed.code) == (Unreachable, "starttls")
    assert box.seen == []


async def test_an_internationalised_address_goes_only_where_it_is_known() -> None:
    sent = mail(to="jürgen@example.com")
    with smtp_server(utf8=True) as box:
        async with smtp(box.port) as provider:
            await provider.send(sent)
    assert box.taken[0].rcpt_tos == ["jürgen@example.com"]
    with smtp_server() as box:
        async with smtp(box.port) as provider:
            failed = await failure(provider, sent)
    assert (type(failed), failed.code) == (Unsupported, "smtputf8")


async def test_what_is_larger_than_the_server_said_is_not_sent() -> None:
    with smtp_server(largest=2000) as box:
        async with smtp(box.port) as provider:
            failed = await failure(provider, mail(body="x" * 5000))
    assert (type(failed), failed.code) == (Unsupported, "too_large")
    assert box.seen == []


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"SMTP_USER": "me"}, "SMTP_PASSWORD"),
        ({"SMTP_PASSWORD": "secret"}, "SMTP_USER"),
        ({"SMTP_TLS": "maybe"}, "SMTP_TLS"),
        ({"SMTP_PORT": "0"}, "SMTP_PORT"),
        ({"SMTP_HOST": "smtp://mail"}, "SMTP_HOST"),
        ({"SMTP_FROM_EMAIL": "Shop <a@b.c>"}, "SMTP_FROM_EMAIL"),
        ({"SMTP_HOST": "m.example.com", "SMTP_TLS": "none", "SMTP_USER": "a", "SMTP_PASSWORD": "b"},
         "SMTP_TLS"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_named(more: dict[str, str], name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        made(25, **more)
