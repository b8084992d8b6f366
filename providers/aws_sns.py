"""SMS through AWS: Amazon SNS `Publish`, or End User Messaging SMS once there is an identity of
our own to send from.

One sending request of boto3 for each message, after its file is where AWS reads it; what AWS cannot
do is refused before that.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, field_validator

from gateway.domain import (
    Capabilities,
    Change,
    Channel,
    Connection,
    Finding,
    MessageType,
    OutboundMessage,
    Receipt,
    Sender,
    VendorTemplate,
)
from gateway.errors import Ambiguous, Unsupported
from providers import _aws_bucket, _aws_setup
from providers._aws import SEATS, Aws, AwsAccount
from providers._aws_media import WEB, Bucket, place
from providers._aws_sns_tables import PUBLISH, TEXT
from providers._aws_topics import Topics

# "Publish", PhoneNumber and MessageAttributes; "SendTextMessage", MessageBody and TimeToLive
LIMIT = 1600  # bytes of a Publish, characters of a text message
VALIDITY = (5, 259200)
NUMBER = re.compile(r"\+?[0-9]{3,15}")
SENDER_ID = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9-]{3,11}")
IDENTITY = re.compile(r"[A-Za-z0-9_:/+-]{1,256}")
MESSAGE_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
PHONE = re.compile(r"\+?[\d\s().-]+")

TENANT = "default"

# What a message goes out from where nothing is configured: AWS has a number for it, or none.
ANY = "aws"

NO_SENDER = "no such sender: use a number, or 3 to 11 letters, digits and hyphens"
FILES = frozenset({MessageType.IMAGE, MessageType.AUDIO, MessageType.VIDEO, MessageType.DOCUMENT})
SMS = frozenset({Channel.SMS})
# The field that a refusal is about, by its code.
AT = {name: name for name in ("template", "html", "type", "media")}
AT |= dict.fromkeys(("empty", "text", "too_long"), "body")


def normalised(value: object) -> object:
    """A number without decoration; anything else as it is."""
    if not isinstance(value, str):
        return value
    bare = value.strip()
    return re.sub(r"[^+\d]", "", bare) if PHONE.fullmatch(bare) else bare


def listed(value: object) -> object:
    """A comma-separated list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


class AwsSnsSettings(AwsAccount):
    """What the environment says of SMS through AWS."""

    # Who only receives sets the topics, and other products have files, too.
    shared: ClassVar[tuple[str, ...]] = (
        *AwsAccount.shared,
        "AWS_SNS_TOPIC_ARNS",
        "AWS_SNS_DEAD_LETTER_ARN",
        "AWS_MEDIA_BUCKET",
    )

    sender_id: str = Field("", alias="AWS_SNS_SMS_SENDER_ID")
    older_sender_id: str = Field("", alias="AWS_SNS_SENDER_ID")
    sms_type: str = Field("Transactional", alias="AWS_SNS_SMS_TYPE")
    max_price: str = Field("", alias="AWS_SNS_SMS_MAX_PRICE")
    india_entity_id: str = Field("", alias="AWS_SMS_INDIA_ENTITY_ID")
    india_template_id: str = Field("", alias="AWS_SMS_INDIA_TEMPLATE_ID")
    identity: Annotated[str, BeforeValidator(normalised)] = Field(
        "", alias="AWS_SMS_ORIGINATION_IDENTITY"
    )
    configuration_set: str = Field("", alias="AWS_SMS_CONFIGURATION_SET")
    media_bucket: str = Field("", alias="AWS_MEDIA_BUCKET")
    topic_arns: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        (), alias="AWS_SNS_TOPIC_ARNS"
    )
    dead_letter_arn: str = Field("", alias="AWS_SNS_DEAD_LETTER_ARN")

    @field_validator("sender_id", "older_sender_id")
    @classmethod
    def _a_sender_id(cls, value: str) -> str:
        if value and not SENDER_ID.fullmatch(value):
            raise ValueError("must have 3 to 11 letters, digits and hyphens, one of them a letter")
        return value

    @field_validator("sms_type")
    @classmethod
    def _a_type(cls, value: str) -> str:
        if value.capitalize() not in ("Transactional", "Promotional"):
            raise ValueError("must be Transactional or Promotional")
        return value.capitalize()

    @field_validator("max_price")
    @classmethod
    def _a_price(cls, value: str) -> str:
        if value and not re.fullmatch(r"\d{1,2}(\.\d{1,5})?", value):
            raise ValueError("must be a price in US dollars such as 0.50, below 100")
        return value if "." in value or not value else f"{value}.00"

    @field_validator("india_entity_id", "india_template_id")
    @classmethod
    def _an_id(cls, value: str) -> str:
        if value and not re.fullmatch(r"\S{1,50}", value):
            raise ValueError("must be the id that the operator's registry gave, without spaces")
        return value

    @field_validator("identity", "configuration_set")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if value and not IDENTITY.fullmatch(value):
            raise ValueError("must be a number, an id, a name or an ARN of AWS, without spaces")
        return value

    @field_validator("media_bucket")
    @classmethod
    def _a_bucket(cls, value: str) -> str:
        value = value.removeprefix("s3://").rstrip("/")
        if value and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
            raise ValueError("must be the name of an S3 bucket")
        return value

    @property
    def sender(self) -> Sender:
        """What messages go out from where they name nothing. An id of AWS's (a pool, a phone
        number's id, an ARN) is a pool to us: it tells no address."""
        own = self.identity or self.sender_id or self.older_sender_id
        if not own:
            return Sender(pool=ANY)
        if NUMBER.fullmatch(own):
            longer = len(own) > 8 and not own.startswith("+")  # a short code has no country
            return Sender(address=f"+{own}" if longer else own)
        return Sender(address=own) if SENDER_ID.fullmatch(own) else Sender(pool=own)


class AwsSns:
    """Sends SMS through one AWS account in one region."""

    name = "aws_sns"
    Settings = AwsSnsSettings
    capabilities = Capabilities(channels=SMS, seats=SEATS)

    @classmethod
    def variants(cls) -> Mapping[str, Capabilities]:
        """What it can, by how it is set up."""
        return {
            "by SNS": cls.capabilities,
            "with an identity": _able(""),
            "with a bucket, too": _able("AWS_MEDIA_BUCKET"),
        }

    @classmethod
    def connection(cls, settings: AwsSnsSettings) -> Connection:
        """The connection that the environment makes."""
        senders = {Channel.SMS: settings.sender}
        return Connection(id="aws", tenant_id=TENANT, family="aws", senders=senders)

    def __init__(
        self, settings: AwsSnsSettings, *, http: object = None, timeout: float = 10.0
    ) -> None:
        """Loads the SDK, and has its client make ready.

        Raises:
            SettingsError: a variable, the SDK or every credential is missing.
        """
        self._settings = settings
        self._timeout = timeout
        self._aws = Aws(settings, timeout=timeout)
        self._service = "pinpoint-sms-voice-v2" if settings.identity else "sns"
        self._client = self._aws.client(self._service)
        self._bucket: Bucket | None = None
        if settings.identity and settings.media_bucket:
            stand_in = bool(settings.endpoint_url)
            self._bucket = Bucket(self._aws, settings.media_bucket, TENANT, stand_in=stand_in)
        if settings.identity:
            self.capabilities = _able(settings.media_bucket)

    async def send(self, message: OutboundMessage) -> Receipt:
        """Hands one message to AWS, by one sending request."""
        self._check(message)
        clock = asyncio.get_running_loop().time
        ends = clock() + self._timeout
        if not self._settings.identity:
            fields, tables, name = self._published(message), PUBLISH, "publish"
        else:
            fields, tables, name = self._texted(message), TEXT, "send_text_message"
            if message.media and self._bucket is not None:
                fields["MediaUrls"] = await self._bucket.filled(message, self._timeout / 2)
                name = "send_media_message"
        method = getattr(self._client, name)
        return await self._aws.call(
            lambda _: receipt(method(**fields)), tables, within=ends - clock()
        )

    def foresee(self, message: OutboundMessage, listed: Sequence[VendorTemplate]) -> None:
        """Refuses what AWS's limits forbid."""
        self._check(message)

    async def check(self, webhook_url: str) -> Sequence[Finding]:
        """Looks at the account, its limits, its bucket and where its topics post."""
        found = await _aws_setup.check(self._aws, self._sms(), webhook_url)
        if self._bucket is None or not _aws_setup.usable(found):
            return found
        region = self._settings.region
        return [*found, *await _aws_bucket.check(self._aws, self._bucket, region, self.name)]

    async def install(self, webhook_url: str, *, apply: bool) -> Sequence[Change]:
        """Tells AWS where to post what comes in.

        Raises:
            ProviderError: AWS refused, or could not be asked.
        """
        return await _aws_setup.install(self._aws, self._sms(), webhook_url, apply=apply)

    def _sms(self) -> _aws_setup.Sms:
        settings = self._settings
        return _aws_setup.Sms(
            texting=bool(settings.identity),
            configuration_set=settings.configuration_set,
            topics=Topics(
                arns=settings.topic_arns,
                dead_letter=settings.dead_letter_arn,
                installed_by=_aws_setup.INSTALL,
            ),
        )

    async def aclose(self) -> None:
        """Ends what is under way."""
        await self._aws.aclose()

    def _check(self, message: OutboundMessage) -> None:
        """Refuses what AWS cannot do, before anything is written."""
        channel, can = message.channel, self.capabilities
        refusals = (
            (channel not in can.channels, "channel", f"no {channel}"),
            (message.template is not None, "template", "no templates"),
            (bool(message.html), "html", "no HTML"),
            (message.type not in can.types, "type", self._why_not(message)),
            (bool(message.media) and not can.media, "media", self._why_not(message)),
            (len(message.media) > max(can.max_media, 1), "media", "at most one file"),
            (not self._reads(message), "media", self._where()),
            (not (message.body.strip() or message.media), "empty", "nothing to send"),
            (not _utf8(message.body), "text", "a character that no wire carries"),
            (self._length(message.body) > LIMIT, "too_long", f"at most {LIMIT} {self._unit}"),
            (not self._can_be(message.sender), "sender", NO_SENDER),
        )  # fmt: skip
        for refused, code, text in refusals:
            if refused:
                raise Unsupported(f"AWS: {text}", code=code, field=AT.get(code, ""))

    def _reads(self, message: OutboundMessage) -> bool:
        bucket = self._bucket
        return bucket is None or all(f.read or bucket.reads(f.url) for f in message.media)

    @property
    def _unit(self) -> str:
        return "characters" if self._settings.identity else "bytes"

    def _length(self, body: str) -> int:
        return len(body) if self._settings.identity else len(body.encode("utf-8", "replace"))

    def _why_not(self, message: OutboundMessage) -> str:
        if not message.media:
            return f"no {message.type} messages"
        return "no files without AWS_SMS_ORIGINATION_IDENTITY and AWS_MEDIA_BUCKET"

    def _where(self) -> str:
        bucket = self._settings.media_bucket or "AWS_MEDIA_BUCKET"
        return f"files are sent from the web by https, or from s3://{bucket}/…"

    def _can_be(self, sender: Sender) -> bool:
        named = [name for name in (sender.address, sender.pool) if name and name != ANY]
        fits = IDENTITY if self._settings.identity else re.compile(
            rf"\+?[0-9]{{5,14}}|{SENDER_ID.pattern}"
        )  # fmt: skip
        return all(fits.fullmatch(name) for name in named)

    def _published(self, message: OutboundMessage) -> dict[str, Any]:
        """A "Publish", with the attributes of "Sending SMS messages to a phone number"."""
        settings = self._settings
        senders = [name for name in (message.sender.pool, message.sender.address) if name]
        numbers = [name for name in senders if NUMBER.fullmatch(name)]
        ids = [name for name in senders if name not in numbers and name != ANY]
        attributes = {
            "AWS.SNS.SMS.SMSType": settings.sms_type,
            "AWS.SNS.SMS.SenderID": ids[0] if ids else "",
            "AWS.MM.SMS.OriginationNumber": numbers[0] if numbers else "",
            "AWS.SNS.SMS.MaxPrice": settings.max_price,
            "AWS.MM.SMS.EntityId": settings.india_entity_id,
            "AWS.MM.SMS.TemplateId": settings.india_template_id,
        }
        return {
            "PhoneNumber": message.to,
            "Message": message.body,
            "MessageAttributes": {
                name: {
                    "DataType": "Number" if name.endswith("MaxPrice") else "String",
                    "StringValue": value,
                }
                for name, value in attributes.items()
                if value
            },
        }

    def _texted(self, message: OutboundMessage) -> dict[str, Any]:
        """A "SendTextMessage", or "SendMediaMessage", which knows neither a type nor a country."""
        settings, sender = self._settings, message.sender
        pool = sender.pool if sender.pool != ANY else None
        fields: dict[str, Any] = {
            "DestinationPhoneNumber": message.to,
            "OriginationIdentity": sender.address or pool or settings.identity,
            "MessageBody": message.body if message.body.strip() else None,
            "ConfigurationSetName": settings.configuration_set,
            "MaxPrice": settings.max_price,
            "TimeToLive": _validity(message.validity),
            # Every event about the message brings these back, also if our answer is lost.
            "Context": {"attempt_id": message.attempt_id, "message_id": message.message_id},
        }
        if not message.media:
            fields["MessageType"] = settings.sms_type.upper()
            fields["DestinationCountryParameters"] = _india(settings)
        return {name: value for name, value in fields.items() if value}


def _able(bucket: str) -> Capabilities:
    """What End User Messaging SMS can do, with a bucket or without one."""
    return Capabilities(
        channels=SMS,
        media=SMS if bucket else frozenset(),
        max_media=1 if bucket else 0,
        holds_media=bool(bucket),
        media_from=(WEB, place(bucket, "{tenant}")) if bucket else (WEB,),
        types=frozenset({MessageType.TEXT}) | (FILES if bucket else set()),
        reports_delivery=True,
        seats=SEATS,
    )


def receipt(answer: Mapping[str, Any]) -> Receipt:
    """What AWS said when it took the message. It tells no segments, and no sender."""
    id_ = answer.get("MessageId")
    if not (isinstance(id_, str) and MESSAGE_ID.fullmatch(id_)):
        raise Ambiguous("a success without a readable id", code="http_200")
    return Receipt(provider_message_id=id_)


def _india(settings: AwsSnsSettings) -> dict[str, str]:
    ids = {"IN_ENTITY_ID": settings.india_entity_id, "IN_TEMPLATE_ID": settings.india_template_id}
    return {name: value for name, value in ids.items() if value}


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _validity(seconds: float | None) -> int | None:
    return None if seconds is None else min(max(math.ceil(seconds), VALIDITY[0]), VALIDITY[1])
