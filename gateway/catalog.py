"""THE one list: a name, its family, its provider class and its webhook class. And where
files may be kept, by the scheme of MEDIA_STORE.

An adapter that does not stand here does not exist: the application, the contract tests and the
documentation all start from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from providers._aws_store import S3Store
from providers.aws_ses import AwsSes
from providers.aws_sns import AwsSns
from providers.aws_whatsapp import AwsWhatsapp
from providers.console import Console
from providers.sendgrid import Sendgrid
from providers.smtp import Smtp
from providers.twilio import Twilio
from webhooks.aws_ses import AwsSesWebhook
from webhooks.aws_sns import AwsSnsWebhook
from webhooks.aws_whatsapp import AwsWhatsappWebhook
from webhooks.console import ConsoleWebhook
from webhooks.sendgrid import SendgridWebhook
from webhooks.sendgrid_inbound import SendgridInboundWebhook
from webhooks.twilio import TwilioWebhook


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One vendor product. `name` is also the name of its files and of its folder of cases."""

    name: str
    family: str
    provider: type[Any] | None
    webhook: type[Any] | None


# What comes by a route that several share is the first one's, unless its content tells.
CATALOG = (
    Entry(name="aws_sns", family="aws", provider=AwsSns, webhook=AwsSnsWebhook),
    Entry(name="aws_ses", family="aws", provider=AwsSes, webhook=AwsSesWebhook),
    Entry(name="aws_whatsapp", family="aws", provider=AwsWhatsapp, webhook=AwsWhatsappWebhook),
    Entry(name="console", family="console", provider=Console, webhook=ConsoleWebhook),
    Entry(name="sendgrid", family="sendgrid", provider=Sendgrid, webhook=SendgridWebhook),
    Entry(
        name="sendgrid_inbound",
        family="sendgrid",
        provider=None,
        webhook=SendgridInboundWebhook,
    ),
    Entry(name="smtp", family="smtp", provider=Smtp, webhook=None),
    Entry(name="twilio", family="twilio", provider=Twilio, webhook=TwilioWebhook),
)

STORES: dict[str, type[Any]] = {"s3": S3Store}


def entries(name_or_family: str) -> Iterator[Entry]:
    """The entries of a name or a family; `-` and `_` are alike."""
    wanted = plain(name_or_family)
    return (entry for entry in CATALOG if wanted in (entry.name, entry.family))


def providers() -> frozenset[str]:
    """The names of all that send."""
    return frozenset(entry.name for entry in CATALOG if entry.provider is not None)


def plain(name: str) -> str:
    """A name as it stands here."""
    return name.lower().replace("-", "_")


def known() -> str:
    """The names that may be given, for an error's text."""
    return ", ".join(sorted({name for entry in CATALOG for name in (entry.name, entry.family)}))


def senders() -> str:
    """The same, of those that send."""
    sending = [entry for entry in CATALOG if entry.provider is not None]
    return ", ".join(sorted({name for entry in sending for name in (entry.name, entry.family)}))
