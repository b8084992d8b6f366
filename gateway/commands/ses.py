"""`gateway ses`: the account of Amazon SES that sends email, and its senders.

Asks AWS, and makes an identity only where it is told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.commands.terminal import Failure, facts, say, table
from gateway.errors import ProviderError

if TYPE_CHECKING:
    from gateway.domain import Finding
    from providers._aws_ses_setup import Identity
    from providers.aws_ses import AwsSes

WITHIN = 30.0  # seconds

T = TypeVar("T")

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at the account of Amazon SES, and have a sender verified.",
)

Sender = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="An email address, or a whole domain.")
]


@commands.command("verify-sender")
def verify_sender(address: Sender) -> None:
    """Have SES verify an address or a domain, or show how far that is. Safe to run again. The exit
    code is 0 once it may send, and 1 before.

    \b
    Examples:
      gateway ses verify-sender example.com
      gateway ses verify-sender shop@example.com
    """
    name = _named(address)
    one = _asked(lambda ses: ses.verify_sender(name))
    _show(one)
    if not one.verified:
        raise typer.Exit(1)


@commands.command()
def status() -> None:
    """Show the account: sandbox, standing, quota, and whether AWS_SES_FROM_EMAIL may send. The exit
    code is 1 where something stops it from sending, and where AWS cannot be asked.

    \b
    Example:
      gateway ses status
    """
    from gateway.domain import Level

    found = _asked(_looked)
    table([(f.subject, f.level.value, f.text) for f in found], ("WHAT", "HOW", "TEXT"))
    for finding in found:
        if finding.fix:
            say(f"-> {finding.subject}: {finding.fix}")
    if any(finding.level is Level.PROBLEM for finding in found):
        raise typer.Exit(1)


async def _looked(ses: AwsSes) -> Sequence[Finding]:
    """What there is to tell, of an account that can be asked: nothing else is worth a table."""
    await ses.account()
    return await ses.check("")


def _named(text: str) -> str:
    """An address or a domain as SES has it: the domain in ASCII and small letters."""
    from gateway import addresses

    try:
        if "@" in text:
            return addresses.email(text)
        return addresses.email(f"x@{text}").removeprefix("x@")
    except addresses.AddressError:
        raise typer.BadParameter(f"{text!r} is neither an email address nor a domain") from None


def _asked(work: Callable[[AwsSes], Awaitable[T]]) -> T:
    try:
        return asyncio.run(_asking(work))
    except ProviderError as error:
        from providers._aws_ses_setup import fix_of

        fix = fix_of(error)
        raise Failure(f"SES: {error.text}" + (f": {fix}" if fix else "")) from None
    except TimeoutError:
        raise Failure(
            f"no answer from SES within {WITHIN:g} s: check AWS_REGION, AWS_ENDPOINT_URL and this "
            "machine's network"
        ) from None


async def _asking(work: Callable[[AwsSes], Awaitable[T]]) -> T:
    from gateway.adapters import adapters
    from gateway.commands import process
    from providers._http import Http
    from providers.aws_ses import AwsSes

    http = Http()
    made = adapters(process.beside(), http, keep=False)
    ses = made.providers.get(AwsSes.name)
    try:
        if not isinstance(ses, AwsSes):
            raise Failure(
                "SES is not set up: set AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
                "AWS_SES_FROM_EMAIL"
            )
        async with asyncio.timeout(WITHIN):
            return await work(ses)
    finally:
        for provider in made.providers.values():
            await provider.aclose()
        await http.aclose()


def _show(one: Identity) -> None:
    facts(
        [
            ("identity", one.name),
            ("may send", "yes" if one.verified else "not yet"),
            ("status", one.status),
            ("dkim", one.dkim),
        ]
    )
    if not one.domain and not one.verified:
        done = "SES has written to it" if one.new else "SES wrote to it when it was entered"
        say(f"\n{done}: follow the link in that email, then run this again.")
    if one.records and one.dkim != "SUCCESS":
        say("\nPublish these records in the DNS of the domain, then run this again:")
        table([(name, "CNAME", value) for name, value in one.records.items()],
              ("NAME", "TYPE", "VALUE"))  # fmt: skip
