"""The options that several commands share, and how each explains itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.domain import Channel, Priority

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="GATEWAY_URL",
        help="Where the gateway is reached; else the one that runs here.",
        show_default=False,
        show_envvar=True,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="The API key; else GATEWAY_API_KEY, or in development the one that serve made.",
        show_default=False,
    ),
]
By = Annotated[Channel, typer.Option("--channel", help="How it travels.")]
Lane = Annotated[Priority, typer.Option("--priority", help="Its lane.")]
Subject = Annotated[str | None, typer.Option("--subject", help="Of an email.")]
Sender = Annotated[
    str | None, typer.Option("--from", help="One of our addresses; else the channel's own.")
]
Links = Annotated[
    list[str] | None,
    typer.Option("--media", help="A file, or an https URL of one; may be repeated."),
]
Named = Annotated[
    str | None, typer.Option("--template", help="A template that the provider knows.")
]
Filled = Annotated[
    list[str] | None,
    typer.Option("--var", metavar="NAME=VALUE", help="A value of the template; may be repeated."),
]
Tongue = Annotated[str | None, typer.Option("--language", help="The template's, such as en_US.")]
Closed = Annotated[
    bool, typer.Option("--outside-window", help="Send it also where the person's window is closed.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Follow it until it has arrived.")]
Within = Annotated[float, typer.Option("--timeout", help="Seconds to follow it at most.")]

Person = Annotated[str, typer.Option("--from", help="The person's address.")]
Ours = Annotated[
    str | None,
    typer.Option("--to", help="Our address; else the one we send from.", show_default=False),
]
Said = Annotated[str, typer.Option("--body", help="What the person says.")]
Name = Annotated[str | None, typer.Option("--name", help="What the person calls themselves.")]
Button = Annotated[
    str | None,
    typer.Option("--button", metavar="TITLE[:PAYLOAD]", help="A button that the person pressed."),
]
Files = Annotated[
    list[Path] | None, typer.Option("--media", help="A file to attach; may be repeated.")
]
As = Annotated[str, typer.Option("--provider", help="Whose webhook it is.")]
Linger = Annotated[
    float,
    typer.Option("--linger", help="Seconds to wait for answers when a piped input has ended."),
]
