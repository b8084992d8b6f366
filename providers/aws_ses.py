"""Email through Amazon SES v2: one `SendEmail` for each message.

Every event about it brings our attempt back in its tags. What SES takes apart is given in parts;
what it would lose, such as the ids of a thread, goes as MIME of our own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from email.headerregistry import Address
from typing import Any, ClassVar

from pydantic import Field, field_validator

from gateway.domain import (
    LARGEST_EMAIL,
    Capabilities,
    Channel,
    Connection,
    Finding,
    MessageType,
    OutboundEmail,
    OutboundMessage,
    Receipt,
    Sender,
    VendorTemplate,
)
from gateway.errors import Ambiguous, ProviderError, SenderRefused, SettingsError, Unsupported
from providers import _aws_ses_setup
from providers._aws import SEATS, Aws, AwsAccount
from providers._aws_ses_setup import Account, Identity
from providers._aws_ses_tables import SEND
from providers._email import (
    AT,
    ONE_CLICK,
    Attachment,
    attachments,
    composed,
    encoded,
    files,
    mailbox,
    plain_of,
    storable,
)
from providers._email_addresses import bounced_by, one_line, our_address

TENANT = "default"
LARGEST = LARGEST_EMAIL  # SES takes 40 MB, and base64 adds a third
# "SendEmail", MessageId; "MessageTag", Name and Value; "MessageHeader", Value
MESSAGE_ID = re.compile(r"[A-Za-z0-9_.@-]{1,200}")
PRINTABLE = re.compile(r"[ -~]{0,870}")
HEADERS = 15
REFUSED = 400
VERIFY = "run `gateway ses verify-sender`"
UTF8 = "UTF-8"


class AwsSesSettings(AwsAccount):
    """What the environment says of email through AWS."""

    required: ClassVar[tuple[str, ...]] = ("AWS_REGION", "AWS_SES_FROM_EMAIL")
    joins: ClassVar[tuple[str, ...]] = (*AwsAccount.joins, "AWS_SES_FROM_EMAIL")
    shared: ClassVar[tuple[str, ...]] = (
        *AwsAccount.shared,
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    )

    from_email: str = Field("", alias="AWS_SES_FROM_EMAIL")
    from_name: str = Field("", alias="AWS_SES_FROM_NAME")
    daily_quota: int = Field(0, alias="AWS_SES_DAILY_QUOTA", ge=0, le=10**9)
    configuration_set: str = Field("", alias="AWS_SES_CONFIGURATION_SET")

    _an_address = field_validator("from_email")(our_address("AWS_SES_FROM_NAME", ascii_only=True))
    _a_line = field_validator("from_name")(one_line)

    @field_validator("configuration_set")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
            raise ValueError("must be the name of a configuration set: letters, digits, - and _")
        return value


class AwsSes:
    """Sends email through one AWS account in one region."""

    name = "aws_ses"
    Settings = AwsSesSettings
    capabilities = Capabilities(
        channels=frozenset({Channel.EMAIL}),
        media=frozenset({Channel.EMAIL}),
        max_media=20,
        html=True,
        types=frozenset({MessageType.EMAIL}),
        reports_delivery=True,
        replies=True,
        seats=SEATS,
    )

    @classmethod
    def connection(cls, settings: AwsSesSettings) -> Connection:
        """The connection that the environment makes."""
        senders = {Channel.EMAIL: Sender(address=settings.from_email)}
        return Connection(id="aws", tenant_id=TENANT, family="aws", senders=senders)

    def __init__(
        self, settings: AwsSesSettings, *, http: object = None, timeout: float = 10.0
    ) -> None:
        """Loads the SDK, and has its client make ready.

        Raises:
            SettingsError: a variable, the SDK or every credential is missing.
        """
        if not settings.from_email:
            raise SettingsError("AWS_SES_FROM_EMAIL is not set; SES cannot be used without it.")
        self._settings = settings
        self.capabilities = replace(self.capabilities, daily=settings.daily_quota or None)
        self._timeout = timeout
        self._aws = Aws(settings, timeout=timeout)
        self._client = self._aws.client("sesv2")

    async def send(self, message: OutboundMessage) -> Receipt:
        """Hands one email to SES, by one sending request."""
        check(message)
        clock = asyncio.get_running_loop().time
        ends = clock() + self._timeout
        attached = await attachments(message, limit=LARGEST, within=self._timeout / 2)
        fields = await self._fields(message, attached)
        sender = message.sender.address or ""
        return await self._aws.call(
            lambda _: self._sent(fields, sender), SEND, within=ends - clock()
        )

    def _sent(self, fields: Mapping[str, Any], sender: str) -> Receipt:
        """ "SendEmail", on a thread."""
        try:
            return receipt(self._client.send_email(**fields))
        except self._client.exceptions.MessageRejected as error:
            failed = unverified(error.response, sender)
            if failed is None:
                raise
        raise failed

    async def _fields(
        self, message: OutboundMessage, attached: Sequence[Attachment]
    ) -> dict[str, Any]:
        """A "SendEmail"."""
        parts = message.email or OutboundEmail()
        name = parts.from_name or self._settings.from_name
        fields: dict[str, Any] = {
            "FromEmailAddress": _written(mailbox(message.sender.address or "", name)),
            "Destination": {
                kind: list(people)
                for kind, people in (
                    ("ToAddresses", (message.to,)),
                    ("CcAddresses", parts.cc),
                    ("BccAddresses", parts.bcc),
                )
                if people
            },
            "ReplyToAddresses": [parts.reply_to] if parts.reply_to else None,
            "EmailTags": _tags(message, parts),
            "ConfigurationSetName": self._settings.configuration_set,
        }
        if _simple(parts):
            fields["Content"] = {"Simple": _in_parts(message, parts, attached)}
        else:
            fields["Content"] = {"Raw": {"Data": await composed(message, attached, from_name=name)}}
            del fields["ReplyToAddresses"]  # it stands in the headers
        return {name: value for name, value in fields.items() if value}

    def foresee(self, message: OutboundMessage, listed: Sequence[VendorTemplate]) -> None:
        """Refuses what SES could never take."""
        check(message)

    async def check(self, webhook_url: str) -> Sequence[Finding]:
        """Looks at the account and the sender, for `gateway doctor`."""
        told = self._settings
        return await _aws_ses_setup.check(
            self._aws, told.from_email, told.configuration_set, told.daily_quota
        )

    async def account(self) -> Account:
        """How the account stands."""
        return await _aws_ses_setup.account(self._aws)

    async def verify_sender(self, name: str) -> Identity:
        """Has SES verify an address or a domain, if it does not already."""
        return await _aws_ses_setup.made(self._aws, name)

    async def aclose(self) -> None:
        """Ends what is under way."""
        await self._aws.aclose()


def check(message: OutboundMessage) -> None:
    """Refuses what SES cannot do, before anything is written."""
    refusals = (
        (message.channel is not Channel.EMAIL, "channel", f"no {message.channel}"),
        (message.template is not None, "template", "no templates"),
        (message.type is not MessageType.EMAIL, "type", f"no {message.type} messages"),
        (not message.sender.address, "sender", "no address to send from"),
        (not (message.body.strip() or message.html or files(message)), "empty", "no text"),
        (not storable(message), "text", "a character that no wire carries"),
        (len(files(message)) > AwsSes.capabilities.max_media, "media", "too many files"),
    )
    for refused, code, text in refusals:
        if refused:
            raise Unsupported(f"SES: {text}", code=code, field=AT.get(code, ""))
    bounced_by(message, "SES")


def receipt(answer: Mapping[str, Any]) -> Receipt:
    """What SES said when it took the email: it is not sent yet."""
    id_ = answer.get("MessageId")
    if not (isinstance(id_, str) and MESSAGE_ID.fullmatch(id_)):
        raise Ambiguous("a success without a readable id", code="http_200")
    return Receipt(provider_message_id=id_)


def unverified(response: Mapping[str, Any], sender: str) -> ProviderError | None:
    """A "MessageRejected" that is about no message but about who is not verified: the sender, or,
    in the sandbox, somebody who gets it. Another provider may send it. Its text names them."""
    said = response.get("Error", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    text = str(said.get("Message") or "").lower()
    if status != REFUSED or "not verified" not in text:
        return None
    code, domain = "MessageRejected", sender.rpartition("@")[2].lower()
    named = re.findall(r"[^\s,:;<>]+", text.partition("identities failed")[2] or text)
    if {sender.lower(), domain} & {name.rstrip(".") for name in named}:
        return SenderRefused(f"SES: the sender is not verified: {VERIFY}", code=code)
    return Unsupported("SES: in the sandbox every recipient has to be verified, too", code=code)


def _simple(parts: OutboundEmail) -> bool:
    """Whether nothing is lost if SES writes the headers."""
    values = parts.headers.values()
    few = len(parts.headers) + (2 if parts.unsubscribe_url else 0) <= HEADERS
    return (
        few and not parts.in_reply_to and not parts.references
        and all(PRINTABLE.fullmatch(value) for value in values)
    )  # fmt: skip


def _in_parts(
    message: OutboundMessage, parts: OutboundEmail, attached: Sequence[Attachment]
) -> dict[str, Any]:
    text = message.body or plain_of(message.html or "")
    body = {"Text": {"Data": text, "Charset": UTF8}}
    if message.html:
        body["Html"] = {"Data": message.html, "Charset": UTF8}
    headers = [{"Name": name, "Value": value} for name, value in parts.headers.items()]
    if parts.unsubscribe_url:
        headers += [
            {"Name": "List-Unsubscribe", "Value": f"<{parts.unsubscribe_url}>"},
            {"Name": "List-Unsubscribe-Post", "Value": ONE_CLICK},
        ]
    simple: dict[str, Any] = {
        "Subject": {"Data": message.subject or "", "Charset": UTF8},
        "Body": body,
        "Headers": headers,
        "Attachments": [_attached(each) for each in attached],
    }
    return {name: value for name, value in simple.items() if value}


def _attached(each: Attachment) -> dict[str, Any]:
    return {
        "RawContent": each.data,
        "FileName": each.filename or "attachment",
        "ContentType": each.content_type,
        "ContentDisposition": "ATTACHMENT",
    }


def _tags(message: OutboundMessage, parts: OutboundEmail) -> list[dict[str, str]]:
    """The attempt, which every event brings back, and what the sender calls it."""
    ours = {"attempt_id": message.attempt_id, "message_id": message.message_id}
    theirs = {tag.replace(".", "_"): "true" for tag in parts.tags}
    return [{"Name": name, "Value": value} for name, value in {**theirs, **ours}.items()]


def _written(address: Address) -> str:
    """An address as SES takes it: the name in an encoded word where it is not ASCII."""
    if address.display_name.isascii():
        return str(address)
    return f"{encoded(address.display_name)} <{address.addr_spec}>"
