"""`gateway simulate`: signed webhooks as a vendor would post them, without a vendor."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.client import Client, client
from gateway.commands.options import (
    As,
    Button,
    By,
    Files,
    Key,
    Name,
    Ours,
    Person,
    Said,
    Subject,
    Url,
)
from gateway.commands.send import show
from gateway.commands.terminal import Failure, complain, facts, say
from gateway.commands.welcome import PERSON
from gateway.domain import Channel, InboundMessage, Status, StatusUpdate, VendorError

if TYPE_CHECKING:
    from gateway.commands.vendor import Posted

WRITER = "ada@example.com"

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Post signed webhooks to a running gateway, as a vendor would.",
)


class Reported(StrEnum):
    """What a vendor may say of a message."""

    ACCEPTED = "accepted"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    BOUNCED = "bounced"


@commands.command()
def inbound(
    sender: Person = PERSON,
    body: Said = "",
    channel: By = Channel.SMS,
    to: Ours = None,
    media: Files = None,
    button: Button = None,
    name: Name = None,
    subject: Subject = None,
    provider: As = "twilio",
    url: Url = None,
    key: Key = None,
) -> None:
    """Post what a person says. Emails come by SES, unless --provider says otherwise.

    \b
    Examples:
      gateway simulate inbound --channel sms --from +15551230001 --body "hi"
      gateway simulate inbound --channel whatsapp --name Ada --button "Yes:confirm-7"
      gateway simulate inbound --body "look" --media cat.png
      gateway simulate inbound --provider aws --to +15550000001 --body "hi"
      gateway simulate inbound --channel email --to shop@example.com --subject Hi --body "hi"
    """
    from gateway.commands.vendor import Vendor, typed

    if button is not None and channel is Channel.SMS:
        raise typer.BadParameter("an SMS has no buttons; add --channel whatsapp")
    if not (body or media or button):
        raise typer.BadParameter("say something: --body, --media or --button")
    if channel is Channel.EMAIL:
        sender, provider = _by_email(sender, provider)
    elif subject is not None:
        raise typer.BadParameter("only an email has a subject; add --channel email")
    api = client(url, key)
    vendor = Vendor(api, provider)
    ours = vendor.ours(channel, to)
    message = InboundMessage(
        dedupe_key="",
        channel=channel,
        from_address=sender,
        to_address=our_address(ours.address),
        pool=ours.pool,
        body=body or (button or "").partition(":")[0],
        content=pressed(button),
        media=vendor.files(media or ()),
        subject=subject,
        name=name,
    )
    report(api, vendor.message(typed(message)))


def _by_email(sender: str, provider: str) -> tuple[str, str]:
    """Who writes, and whose webhook brings it."""
    if sender != PERSON and "@" not in sender:
        raise typer.BadParameter("--from must be an email address such as ada@example.com")
    return (WRITER if sender == PERSON else sender), (
        "aws_ses" if provider == "twilio" else provider
    )


def report(api: Client, posted: Posted) -> None:
    """Prints what the gateway answered, and what it made of it."""
    from gateway.commands.vendor import stored

    complain(f"{posted.url} answered {posted.status}")
    kept = stored(api, posted)
    if kept is None and posted.provider_message_id is None:
        say("The gateway has it: see `gateway inbox list`.")
    elif kept is None:
        say(f"The gateway has it, with the vendor's id {posted.provider_message_id}.")
    else:
        show(kept)


def our_address(address: str | None) -> str:
    """Our address, which is needed."""
    if address is None:
        raise typer.BadParameter(
            "give our address: --to +15550000001 (none is configured for this channel)"
        )
    return address


def pressed(button: str | None) -> dict[str, Any]:
    """The content of a button's press."""
    if button is None:
        return {}
    title, _, payload = button.partition(":")
    return {"kind": "button", "title": title, "id": payload or None}


@commands.command()
def status(
    id_: Annotated[str, typer.Argument(metavar="MESSAGE", help="The id of a message we sent.")],
    reported: Annotated[Reported, typer.Argument(metavar="STATUS", help="What became of it.")],
    error: Annotated[str | None, typer.Option(help="The vendor's error code.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Post what became of a message, for its newest attempt, as that attempt's vendor would. An
    email that bounces does so for good, and its person is not written to again, unless the error
    says transient.

    \b
    Examples:
      gateway simulate status msg_01k… delivered
      gateway simulate status msg_01k… undelivered --error 30003
      gateway simulate status msg_01k… bounced --error bounce_transient:mailboxfull
    """
    from gateway.commands.vendor import Vendor

    api = client(url, key)
    message = api.get(f"/api/messages/{id_}")
    if not message["attempts"]:
        raise Failure(f"{id_} is {message['status']} and was not tried yet: nobody can report")
    attempt = message["attempts"][-1]
    posted = Vendor(api, attempt["provider"]).status(update(message, attempt, reported, error))
    complain(f"{posted.url} answered {posted.status}")
    facts([("id", id_), ("attempt", attempt["id"]), ("was", message["status"])])
    facts([("status", api.get(f"/api/messages/{id_}")["status"])])


def update(
    message: dict[str, Any], attempt: dict[str, Any], reported: Reported, error: str | None
) -> StatusUpdate:
    """What a vendor says of an attempt."""
    return StatusUpdate(
        dedupe_key="",
        status=Status(reported.value),
        vendor_status=reported.value,
        attempt_id=attempt["id"],
        provider_message_id=attempt["provider_message_id"],
        channel=Channel(message["channel"]),
        sender=attempt["from"],
        recipient=message["to"],
        error=VendorError(code=error) if error is not None else None,
    )
