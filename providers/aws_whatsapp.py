"""WhatsApp through AWS End User Messaging Social, which passes WhatsApp's own objects on to Meta.

One sending request of boto3 for each message, after its file is where WhatsApp reads it; what
WhatsApp or AWS cannot do is refused before that.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator

from gateway.domain import (
    Capabilities,
    Channel,
    Connection,
    FetchedMedia,
    Finding,
    MessageType,
    OutboundMessage,
    Receipt,
    Sender,
    VendorTemplate,
)
from gateway.errors import Ambiguous, ProviderError, SettingsError, Unreachable, Unsupported
from providers import _aws_bucket, _aws_whatsapp_setup
from providers._aws import SEATS, Aws, AwsAccount
from providers._aws_media import WEB, Bucket, place
from providers._aws_whatsapp_listed import Listed
from providers._aws_whatsapp_media import Inbox
from providers._aws_whatsapp_objects import FILES, HEADED, file_kind, kind_of, seen, written
from providers._aws_whatsapp_tables import SOCIAL, TAKEN
from providers._aws_whatsapp_template import fits

# "SendWhatsAppMessage": originationPhoneNumberId, metaApiVersion; "ListWhatsAppMessageTemplates"
NUMBER_ID = re.compile(
    r"(?:arn:[a-z-]+:social-messaging:[a-z0-9-]+:\d{12}:phone-number-id/|phone-number-id-)?"
    r"([0-9a-fA-F]{32})"
)
ACCOUNT_ID = re.compile(
    r"waba-[0-9a-zA-Z]{1,110}|arn:[a-z-]+:social-messaging:[a-z0-9-]+:\d{12}:waba/[0-9a-zA-Z]+"
)
NAMED = re.compile(r"\s*(\+[1-9]\d{6,14})\s*=\s*(\S+)\s*")  # a number and its id
MESSAGE_ID = re.compile(r"[A-Za-z0-9._=+/-]{1,256}")
MEDIA_ID = re.compile(r"[A-Za-z0-9]{1,100}")

TENANT = "default"
WHATSAPP = frozenset({Channel.WHATSAPP})
AT = {"html": "html", "media": "media"}  # the field that a refusal is about
TYPES = frozenset(
    {
        MessageType.TEXT,
        MessageType.LOCATION,
        MessageType.CONTACTS,
        MessageType.INTERACTIVE,
        MessageType.REACTION,
        MessageType.TEMPLATE,
    }
)


class AwsWhatsappSettings(AwsAccount):
    """What the environment says of WhatsApp through AWS."""

    required: ClassVar[tuple[str, ...]] = (*AwsAccount.required, "AWS_WHATSAPP_PHONE_NUMBER_ID")
    joins: ClassVar[tuple[str, ...]] = (*AwsAccount.joins, "AWS_WHATSAPP_PHONE_NUMBER_ID")
    # Other products of AWS have the same keys, and files, too.
    shared: ClassVar[tuple[str, ...]] = (*AwsAccount.shared, *AwsAccount.joins, "AWS_MEDIA_BUCKET")

    phone_number_id: str = Field("", alias="AWS_WHATSAPP_PHONE_NUMBER_ID")
    numbers: str = Field("", alias="AWS_WHATSAPP_NUMBERS")
    business_account_id: str = Field("", alias="AWS_WHATSAPP_BUSINESS_ACCOUNT_ID")
    api_version: str = Field("v20.0", alias="AWS_WHATSAPP_API_VERSION")
    media_bucket: str = Field("", alias="AWS_MEDIA_BUCKET")

    @field_validator("phone_number_id")
    @classmethod
    def _a_number(cls, value: str) -> str:
        return _number_id(value) if value else ""

    @field_validator("numbers")
    @classmethod
    def _named(cls, value: str) -> str:
        pairs = [NAMED.fullmatch(each) for each in value.split(",") if each.strip()]
        named = {pair[1]: _number_id(pair[2]) for pair in pairs if pair is not None}
        if len(named) < len(pairs):
            raise ValueError("must be numbers with their ids: +15550001=phone-number-id-…, …")
        return ",".join(f"{number}={id_}" for number, id_ in named.items())

    @property
    def ids(self) -> dict[str, str]:
        """AWS's ids of the numbers that messages may name."""
        return dict(each.split("=", 1) for each in self.numbers.split(",") if each)

    @field_validator("business_account_id")
    @classmethod
    def _an_account(cls, value: str) -> str:
        if value and not ACCOUNT_ID.fullmatch(value):
            raise ValueError("must be the id that AWS gave the account, waba-…, or its ARN")
        return value

    @field_validator("api_version")
    @classmethod
    def _a_version(cls, value: str) -> str:
        if not re.fullmatch(r"v\d{1,3}\.\d{1,2}", value):
            raise ValueError("must be a version of Meta's API such as v20.0")
        return value

    @field_validator("media_bucket")
    @classmethod
    def _a_bucket(cls, value: str) -> str:
        value = value.removeprefix("s3://").rstrip("/")
        if value and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
            raise ValueError("must be the name of an S3 bucket")
        return value


def _number_id(value: str) -> str:
    found = NUMBER_ID.fullmatch(value)
    if found is None:
        text = "must be the id that AWS gave the number: phone-number-id- and 32 characters, or"
        raise ValueError(f"{text} its ARN")
    return f"phone-number-id-{found[1].lower()}"


def able(bucket: str, *, lists: bool) -> Capabilities:
    """What can be done, with a bucket or without one."""
    return Capabilities(
        channels=WHATSAPP,
        media=WHATSAPP if bucket else frozenset(),
        max_media=1 if bucket else 0,
        holds_media=bool(bucket),
        media_from=(WEB, place(bucket, "{tenant}")) if bucket else (WEB,),
        templates=True,
        types=TYPES | (FILES if bucket else frozenset()),
        reports_delivery=True,
        fetches_media=bool(bucket),
        replies=True,
        names_later=True,
        user_ids=True,
        marks_read=True,
        shows_typing=True,
        lists_templates=lists,
        seats=SEATS,
    )


class AwsWhatsapp:
    """Sends WhatsApp messages from the numbers of one AWS account."""

    name = "aws_whatsapp"
    Settings = AwsWhatsappSettings
    capabilities = able("", lists=False)

    @classmethod
    def variants(cls) -> Mapping[str, Capabilities]:
        """What it can, by how it is set up."""
        return {"": able("", lists=True), "with a bucket": able("AWS_MEDIA_BUCKET", lists=True)}

    @classmethod
    def connection(cls, settings: AwsWhatsappSettings) -> Connection:
        """The connection that the environment makes. AWS's id stands for the number: what comes
        in names it, too."""
        own = settings.phone_number_id
        shown = next((number for number, id_ in settings.ids.items() if id_ == own), None)
        senders = {Channel.WHATSAPP: Sender(address=shown, pool=own)} if own else {}
        further = {Channel.WHATSAPP: {n: id_ for n, id_ in settings.ids.items() if id_ != own}}
        return Connection(
            id="aws", tenant_id=TENANT, family="aws", senders=senders, further=further
        )

    def __init__(
        self, settings: AwsWhatsappSettings, *, http: object = None, timeout: float = 10.0
    ) -> None:
        """Loads the SDK, and has its client make ready.

        Raises:
            SettingsError: a variable, the SDK or every credential is missing.
        """
        if not settings.phone_number_id:
            raise SettingsError(
                "AWS_WHATSAPP_PHONE_NUMBER_ID is not set; WhatsApp cannot be sent without it."
            )
        self._settings = settings
        self._ids = settings.ids
        self._timeout = timeout
        self._tasks: set[asyncio.Task[None]] = set()
        self._aws = Aws(settings, timeout=timeout)
        self._client = self._aws.client("socialmessaging")
        bucket, stand_in = settings.media_bucket, bool(settings.endpoint_url)
        self._bucket = Bucket(self._aws, bucket, TENANT, stand_in=stand_in) if bucket else None
        self._inbox = self._receiving(bucket, stand_in=stand_in) if bucket else None
        account = settings.business_account_id
        self._listed = Listed(aws=self._aws, social=self._client, account=account, timeout=timeout)
        self.capabilities = able(bucket, lists=bool(account))

    def _receiving(self, bucket: str, *, stand_in: bool) -> Inbox:
        return Inbox(
            aws=self._aws,
            social=self._client,
            s3=self._aws.client("s3", s3={"addressing_style": "path" if stand_in else "auto"}),
            numbers=frozenset((self._settings.phone_number_id, *self._ids.values())),
            bucket=bucket,
            folder=f"{TENANT}/inbound/",
        )

    async def send(self, message: OutboundMessage) -> Receipt:
        """Hands one message to AWS, by one sending request."""
        data, number = self._checked(message), self._number(message.sender.address)
        clock = asyncio.get_running_loop().time
        ends = clock() + self._timeout
        file = None
        if message.media:
            file = await self._uploaded(message, ends)
            data = written(message, file)
        try:
            return await self._aws.call(
                lambda _: receipt(self._sent(data, number)), SOCIAL, within=ends - clock()
            )
        except ProviderError as error:
            if file is not None and error.sent_nothing:
                self._beside(self._forgotten(file, number))  # the answer does not wait for it
            raise

    def foresee(self, message: OutboundMessage, listed: Sequence[VendorTemplate]) -> None:
        """Refuses what WhatsApp's limits forbid, and variables that a listed template has not."""
        self._checked(message)
        if message.template is not None:
            fits(message.template, listed)

    async def fetch_media(self, reference: str, limit: int) -> FetchedMedia:
        """Fetches a file that a person sent, by way of the bucket."""
        if self._inbox is None:
            raise Unsupported("AWS: no files without AWS_MEDIA_BUCKET", code="media")
        return await self._inbox.fetch(reference, limit)

    async def mark_read(
        self, provider_message_id: str, *, typing: bool = False, ours: str | None = None
    ) -> None:
        """Tells WhatsApp that a person's message was read, and that an answer is being written."""
        data = seen(provider_message_id, typing=typing)
        await self._aws.call(lambda _: self._sent(data, self._number(ours)), SOCIAL)

    async def templates(self, anew: str = "") -> Sequence[VendorTemplate]:
        """The templates of the business account, with their words as far as AWS tells them."""
        if not self._listed.account:
            text = "templates are listed once AWS_WHATSAPP_BUSINESS_ACCOUNT_ID is set"
            raise Unsupported(f"AWS: {text}", code="templates")
        return await self._listed.templates(anew)

    async def check(self, webhook_url: str) -> Sequence[Finding]:
        """Looks at the number, at where its account tells what comes in, and at the bucket."""
        settings = self._settings
        found = await _aws_whatsapp_setup.check(
            self._aws, settings.phone_number_id, self._ids, settings.business_account_id
        )
        if self._bucket is None:
            return found
        return [
            *found,
            *await _aws_bucket.check(self._aws, self._bucket, settings.region, self.name),
        ]

    async def aclose(self) -> None:
        """Ends what is under way."""
        await self._aws.aclose()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _number(self, address: str | None) -> str:
        """AWS's id of a number of ours; the usual one for what is not listed, as the usual number
        itself need not be."""
        return self._ids.get(address or "", self._settings.phone_number_id)

    def _checked(self, message: OutboundMessage) -> bytes:
        """What goes out, as far as it is known without a file's id; refused, if it cannot."""
        can, kind, count = self.capabilities, kind_of(message), len(message.media)
        sender = message.sender.pool
        refusals = (
            (message.channel not in can.channels, "channel", f"no {message.channel}"),
            (bool(message.html), "html", "no HTML"),
            (bool(count) and self._bucket is None, "media", "no files without AWS_MEDIA_BUCKET"),
            (count > 1, "media", "at most one file"),
            (bool(count) and kind not in FILES | HEADED, "media", f"no file in a {kind} message"),
            (not self._reads(message), "media", self._where()),
            (sender not in (None, self._settings.phone_number_id), "sender", "no such number"),
        )
        for refused, code, text in refusals:
            if refused:
                raise Unsupported(f"AWS: {text}", code=code, field=AT.get(code, ""))
        return written(message, "0" if count else None)

    def _reads(self, message: OutboundMessage) -> bool:
        bucket = self._bucket
        return bucket is None or all(f.read or bucket.reads(f.url) for f in message.media)

    def _where(self) -> str:
        return f"files are sent from the web by https, or from s3://{self._settings.media_bucket}/…"

    async def _uploaded(self, message: OutboundMessage, ends: float) -> str:
        """The id of a message's file at WhatsApp, which reads it from the bucket. Whatever fails
        here, nothing of the message was sent."""
        assert self._bucket is not None
        clock, taken = asyncio.get_running_loop().time, TAKEN[file_kind(message)]
        number = self._number(message.sender.address)  # Meta knows its files by the number
        [url] = await self._bucket.filled(message, self._timeout / 2, taken)
        source = {"bucketName": self._settings.media_bucket, "key": self._bucket.key(url)}
        try:
            return await self._aws.call(
                lambda _: _media_id(self._posted(source, number)),
                SOCIAL,
                within=(ends - clock()) / 2,
            )
        except Ambiguous as error:
            failure = Unreachable(error.text, code=error.code)
        raise failure

    async def _forgotten(self, file: str, number: str) -> None:
        """Takes a file back that no message has: WhatsApp would keep it for 30 days."""
        try:
            await self._aws.call(
                lambda _: self._client.delete_whatsapp_message_media(
                    mediaId=file, originationPhoneNumberId=number
                ),
                SOCIAL,
            )
        except ProviderError:
            return  # it ends by itself

    def _sent(self, data: bytes, number: str) -> Mapping[str, Any]:
        said: Mapping[str, Any] = self._client.send_whatsapp_message(
            originationPhoneNumberId=number,
            message=data,
            metaApiVersion=self._settings.api_version,
        )
        return said

    def _posted(self, source: Mapping[str, str], number: str) -> Mapping[str, Any]:
        said: Mapping[str, Any] = self._client.post_whatsapp_message_media(
            originationPhoneNumberId=number, sourceS3File=source
        )
        return said


def receipt(answer: Mapping[str, Any]) -> Receipt:
    """What AWS said when it took the message. What Meta says to it comes later."""
    id_ = answer.get("messageId")
    if not (isinstance(id_, str) and MESSAGE_ID.fullmatch(id_)):
        raise Ambiguous("a success without a readable id", code="http_200")
    return Receipt(provider_message_id=id_)


def _media_id(answer: Mapping[str, Any]) -> str:
    id_ = answer.get("mediaId")
    if not (isinstance(id_, str) and MEDIA_ID.fullmatch(id_)):
        raise Ambiguous("the file was taken without a readable id", code="media")
    return id_
