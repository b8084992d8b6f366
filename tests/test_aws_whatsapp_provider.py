"""WhatsApp through AWS: what is done before and beside the one sending request, checked by
botocore's model of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.domain import Level, OutboundMedia, VendorTemplate
from gateway.errors import (
    AccountRefused,
    Ambiguous,
    ProviderError,
    Rejected,
    SenderRefused,
    SettingsError,
    Throttled,
    Unreachable,
    Unsupported,
)
from gateway.settings import Environment
from providers._aws_whatsapp_tables import SOCIAL, TAKEN
from providers.aws_whatsapp import AwsWhatsapp
from tests.aws_servers import files_of_others, model, s3_error
from tests.aws_social import NUMBER, LoopbackSocial, refusal
from tests.outbound_cases import entry_of, provider, usual
from tests.vendors import Fault, LoopbackVendor, Reply

pytestmark = pytest.mark.anyio

SETUP = entry_of("aws_whatsapp")
JPEG = b"\xff\xd8\xff\xe0 a picture"
WEBP = b"RIFF\0\0\0\0WEBP"
FILE = "https://files.example.com/a.jpg"
THERE = "s3://gateway-media/default/a.jpg"
OFFICE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
OPERATIONS = (
    "SendWhatsAppMessage",
    "PostWhatsAppMessageMedia",
    "ListWhatsAppMessageTemplates",
    "GetWhatsAppMessageTemplate",
)
SECOND, SECOND_ID = "+15550002222", f"phone-number-id-{'2' * 32}"


@pytest.fixture
def aws() -> Iterator[LoopbackSocial]:
    with LoopbackSocial() as made:
        yield made
    assert made.refused == []


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackVendor]:
    with files_of_others(monkeypatch, "image/jpeg", JPEG) as made:
        yield made


def picture(**more: Any) -> dict[str, Any]:
    return {"type": "image", "body": "Look", "media": [{"url": FILE}], **more}


async def failure(aws: LoopbackSocial, **fields: Any) -> ProviderError:
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        with pytest.raises(ProviderError) as caught:
            await made.send(usual(SETUP, **fields))
    return caught.value


# --- files


async def test_a_file_is_at_whatsapp_before_the_one_sending_request(
    aws: LoopbackSocial, web: LoopbackVendor
) -> None:
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        receipt = await made.send(usual(SETUP, **picture()))
    assert receipt.provider_message_id
    put, posted, sent = aws.requests
    assert (put.method, put.path) == ("PUT", "/gateway-media/default/outbound/msg_1/0.jpg")
    assert aws.files == {put.path: ("image/jpeg", JPEG)}
    ((id_, source),) = aws.media.items()
    key = put.path.removeprefix("/gateway-media/")
    assert source == {"bucketName": "gateway-media", "key": key}
    assert posted.json["originationPhoneNumberId"] == NUMBER
    assert sent.json["originationPhoneNumberId"] == NUMBER
    assert aws.messages[0]["image"] == {"id": id_, "caption": "Look"}
    assert aws.deleted == []


async def test_a_file_of_our_own_needs_no_web(aws: LoopbackSocial) -> None:
    async def read(most: int) -> bytes:
        assert most >= len(JPEG)
        return JPEG

    ours = OutboundMedia(url="http://127.0.0.1:9/link", content_type="image/jpeg", read=read)
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        await made.send(replace(usual(SETUP, **picture()), media=(ours,)))
    assert list(aws.files.values()) == [("image/jpeg", JPEG)]
    assert len(aws.messages) == 1


@pytest.mark.parametrize(
    ("kind", "url", "data", "ending"),
    [
        ("sticker", "a.webp", WEBP, "webp"),
        ("audio", "a.ogg", b"OggS", "ogg"),
        ("audio", "a.mp4", b"\0\0\0\x18ftypmp42", None),
        ("video", "a.mp4", b"\0\0\0\x18ftypmp42", "mp4"),
        ("document", "a.pdf", b"%PDF-1.7", "pdf"),
        ("document", "a.docx", b"PK\3\4", "docx"),
        ("document", "a.zip", b"PK\3\4", None),
        ("image", "a.gif", b"GIF89a", None),
        ("sticker", "a.png", b"\x89PNG\r\n\x1a\n", None),
    ],
)
async def test_each_type_takes_the_files_that_whatsapp_takes(
    kind: str, url: str, data: bytes, ending: str | None, aws: LoopbackSocial, web: LoopbackVendor
) -> None:
    web.always = Reply(headers={"Content-Type": "application/octet-stream"}, body=data)
    fields = {"type": kind, "media": [{"url": f"https://files.example.com/{url}"}]}
    if ending is None:
        failed = await failure(aws, **fields)
        assert (type(failed), failed.code, aws.count) == (Unsupported, "media_type", 0)
        return
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        await made.send(usual(SETUP, **fields))
    assert [path.rpartition(".")[2] for path in aws.files] == [ending]


@pytest.mark.parametrize(
    ("flags", "size", "taken"),
    [
        (None, 99, True),
        (None, 101, False),
        (0x02, 499, True),
        (0x02, 501, False),
        (0x10, 101, False),
    ],
)
async def test_a_sticker_that_moves_may_be_larger(
    flags: int | None, size: int, taken: bool, aws: LoopbackSocial, web: LoopbackVendor
) -> None:
    head = WEBP + (b"VP8 " if flags is None else b"VP8X\x0a\0\0\0" + bytes((flags,)))
    web.always = Reply(body=head.ljust(size << 10, b"\0"))
    fields = {"type": "sticker", "media": [{"url": "https://files.example.com/a.webp"}]}
    if taken:
        async with provider(SETUP, aws.url, timeout=30.0) as made:
            await made.send(usual(SETUP, **fields))
        assert len(aws.messages) == 1
    else:
        failed = await failure(aws, **fields)
        assert (type(failed), failed.code, aws.count) == (Unsupported, "too_large", 0)


def test_the_sizes_are_those_of_the_documentation() -> None:
    mega = 1 << 20
    limits = {kind.value: set(taken.limits.values()) for kind, taken in TAKEN.items()}
    assert limits == {
        "audio": {16 * mega},
        "image": {5 * mega},
        "video": {16 * mega},
        "document": {16 * mega},
        "sticker": {100 << 10},
    }
    assert OFFICE in TAKEN[next(k for k in TAKEN if k.value == "document")].endings


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal("ThrottledRequestException", 429), Throttled),
        (refusal("ResourceNotFoundException", 404), SenderRefused),
        (refusal("AccessDeniedByMetaException", 403), AccountRefused),
        (refusal("InvalidParametersException"), Rejected),
        (refusal("DependencyException", 502), Unreachable),
        (Reply(body=b"{}"), Unreachable),
    ],
)
async def test_a_file_that_whatsapp_did_not_get_is_known_to_be_unsent(
    answer: Reply, kind: type[ProviderError], aws: LoopbackSocial, web: LoopbackVendor
) -> None:
    aws.errors["PostWhatsAppMessageMedia"] = answer
    failed = await failure(aws, **picture())
    assert (type(failed), failed.sent_nothing, aws.messages) == (kind, True, [])


async def test_the_file_of_a_message_that_was_refused_is_taken_back(aws: LoopbackSocial) -> None:
    aws.plan.append(refusal("InvalidParametersException"))
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        with pytest.raises(Rejected):
            await made.send(usual(SETUP, **picture(media=[{"url": THERE}])))
        async with asyncio.timeout(20):
            while aws.deleted != list(aws.media):
                await asyncio.sleep(0.01)


async def test_the_file_of_a_message_that_may_be_sent_stays(aws: LoopbackSocial) -> None:
    aws.plan.append(Fault.DROP_AFTER)
    assert type(await failure(aws, **picture(media=[{"url": THERE}]))) is Ambiguous
    assert (len(aws.media), aws.deleted) == (1, [])


async def test_what_whatsapp_does_not_take_is_refused_before_its_file_is_fetched(
    aws: LoopbackSocial, web: LoopbackVendor
) -> None:
    failed = await failure(aws, **picture(body="0" * 1025))
    assert (type(failed), failed.code) == (Unsupported, "too_long")
    assert (web.count, aws.connections) == (0, 0)


async def test_without_a_bucket_there_are_no_files() -> None:
    async with provider(SETUP, "http://127.0.0.1:9", AWS_MEDIA_BUCKET=" ") as made:
        assert (made.capabilities.media, made.capabilities.max_media) == (frozenset(), 0)
        with pytest.raises(Unsupported, match="AWS_MEDIA_BUCKET"):
            await made.send(usual(SETUP, **picture()))


# --- files of people


REFERENCE = f"{NUMBER}/1234567"


@pytest.mark.parametrize("ending", [".jpg", ""])
async def test_a_persons_file_comes_by_way_of_the_bucket_and_does_not_stay_there(
    ending: str, aws: LoopbackSocial
) -> None:
    data = JPEG + bytes(3 << 19)  # several ranges
    aws.sent_in["1234567"] = ("image/jpeg", ending, data)
    aws.files["/gateway-media/default/inbound/12345678.jpg"] = ("image/jpeg", b"another")
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        file = await made.fetch_media(REFERENCE, 4 << 20)
    assert (file.data, file.content_type) == (data, "image/jpeg")
    assert list(aws.files) == ["/gateway-media/default/inbound/12345678.jpg"]
    asked = aws.requests[0].json
    assert asked["destinationS3File"] == {"bucketName": "gateway-media", "key": "default/inbound/"}


async def fetch_failure(aws: LoopbackSocial, reference: str = REFERENCE) -> ProviderError:
    aws.sent_in.setdefault("1234567", ("image/jpeg", ".jpg", JPEG))
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        with pytest.raises(ProviderError) as caught:
            await made.fetch_media(reference, 100)
    return caught.value


async def test_a_file_that_is_too_large_is_not_read(aws: LoopbackSocial) -> None:
    aws.sent_in["1234567"] = ("image/jpeg", ".jpg", bytes(101))
    assert type(await fetch_failure(aws)) is Rejected
    assert aws.files == {}
    assert [r.method for r in aws.requests] == ["POST", "GET", "DELETE"]


@pytest.mark.parametrize(
    "reference", [f"phone-number-id-{'0' * 32}/1", "1234567", f"{NUMBER}/", f"{NUMBER}/../x"]
)
async def test_a_file_of_another_number_is_not_asked_for(
    reference: str, aws: LoopbackSocial
) -> None:
    assert type(await fetch_failure(aws, reference)) is Rejected
    assert aws.connections == 0


@pytest.mark.parametrize(
    ("operation", "answer", "kind"),
    [
        ("GetWhatsAppMessageMedia", refusal("ResourceNotFoundException", 404), Rejected),
        ("GetWhatsAppMessageMedia", refusal("InvalidParametersException"), Rejected),
        ("GetWhatsAppMessageMedia", refusal("ThrottledRequestException", 429), Throttled),
        ("GetWhatsAppMessageMedia", refusal("DependencyException", 502), Unreachable),
        ("s3", s3_error("AccessDenied", 403), AccountRefused),
        ("s3", s3_error("SlowDown", 503), Unreachable),
        ("s3", Reply(headers={"Content-Type": "application/xml"}, body=b"<ListBucketResult/>"),
         Unreachable),
    ],
)  # fmt: skip
async def test_a_file_that_cannot_be_had_says_whether_it_may_be_later(
    operation: str, answer: Reply, kind: type[ProviderError], aws: LoopbackSocial
) -> None:
    aws.errors[operation] = answer
    assert type(await fetch_failure(aws)) is kind


async def test_without_a_bucket_no_files_of_people_are_fetched() -> None:
    async with provider(SETUP, "http://127.0.0.1:9", AWS_MEDIA_BUCKET=" ") as made:
        assert not made.capabilities.fetches_media
        with pytest.raises(Unsupported, match="AWS_MEDIA_BUCKET"):
            await made.fetch_media(REFERENCE, 100)


# --- read, typing, templates


@pytest.mark.parametrize("typing", [False, True])
async def test_a_message_is_marked_as_read_by_whatsapps_own_object(
    typing: bool, aws: LoopbackSocial
) -> None:
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        await made.mark_read("wamid.1", typing=typing)
    shown = {"typing_indicator": {"type": "text"}} if typing else {}
    read = {"messaging_product": "whatsapp", "message_id": "wamid.1", "status": "read"}
    assert aws.messages == [{**read, **shown}]


async def test_a_read_receipt_that_fails_says_why(aws: LoopbackSocial) -> None:
    aws.plan.append(refusal("ThrottledRequestException", 429))
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        with pytest.raises(Throttled):
            await made.mark_read("wamid.1")


def listed(number: int) -> dict[str, Any]:
    return {
        "templateName": f"order_{number}",
        "metaTemplateId": str(number + 1),
        "templateStatus": "APPROVED",
        "templateLanguage": "en_US",
        "templateCategory": "UTILITY",
    }


LISTS, WORDS = "/v1/whatsapp/template/list", "/v1/whatsapp/template"


def asked(aws: LoopbackSocial, path: str) -> list[str]:
    """What was asked for at a path."""
    return [r.path for r in aws.requests if r.path.partition("?")[0] == path]


async def test_templates_are_listed_page_by_page(aws: LoopbackSocial) -> None:
    aws.listed = [listed(number) for number in range(201)]
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        found = await made.templates()
    assert (len(found), len(asked(aws, LISTS))) == (201, 3)
    assert found[0] == VendorTemplate(
        name="order_0", language="en_US", status="approved", category="utility", id="1"
    )


async def test_no_more_than_a_thousand_templates_are_listed(aws: LoopbackSocial) -> None:
    aws.listed = [listed(number) for number in range(1500)]
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        assert len(await made.templates()) == 1000
    assert len(asked(aws, LISTS)) == 10


HEADER = {"type": "HEADER", "format": "TEXT", "text": "For {{1}}"}
BODY = {"type": "BODY", "text": "Hi {{1}}, it is {{2}}"}
LINKS = [{"type": "QUICK_REPLY", "text": "No"}, {"type": "URL", "url": "https://example.com/{{1}}"}]
CODE = [{"type": "COPY_CODE", "example": "ABC"}]


@pytest.mark.parametrize(
    ("told", "body", "variables"),
    [
        ([HEADER, BODY, {"type": "BUTTONS", "buttons": LINKS}], "Hi {{1}}, it is {{2}}",
         ("header", "1", "2", "button.1")),
        ([{"type": "body", "text": "Hi {{ name }}"}, {"type": "buttons", "buttons": CODE}],
         "Hi {{ name }}", ("name", "button.0")),
        ([{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "Hi"}, 7, {}], "Hi", ()),
        ([{"type": "BODY", "text": ["x"]}, {"type": "BUTTONS", "buttons": [None]}], "", ()),
        ("nonsense", "", ()),
    ],
)  # fmt: skip
async def test_a_template_has_its_words_and_what_it_leaves_open(
    told: Any, body: str, variables: tuple[str, ...], aws: LoopbackSocial
) -> None:
    aws.listed, aws.words["1"] = [listed(0)], {"name": "order_0", "components": told}
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        (found,) = await made.templates()
    assert (found.body, found.variables) == (body, variables)


async def test_words_are_asked_for_a_few_at_a_time_and_kept(aws: LoopbackSocial) -> None:
    aws.listed = [listed(number) for number in range(50)]
    aws.listed[1]["templateStatus"] = "PAUSED"
    for number in range(50):
        aws.words[str(number + 1)] = {"components": [{"type": "BODY", "text": f"No {number}"}]}
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        first, second, third = [await made.templates() for _ in range(3)]
        aws.listed[0]["templateStatus"] = "PENDING"
        changed = await made.templates()
    assert [sum(bool(one.body) for one in found) for found in (first, second)] == [40, 49]
    assert (third, third[1].body, changed[0].body) == (second, "", "")
    assert len(asked(aws, WORDS)) == 49


async def test_where_words_may_not_be_asked_for_templates_are_listed_without(
    aws: LoopbackSocial,
) -> None:
    aws.listed = [listed(number) for number in range(3)]
    aws.errors["GetWhatsAppMessageTemplate"] = refusal("AccessDeniedException", 403)
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        assert [one.body for one in await made.templates()] == ["", "", ""]
    assert len(asked(aws, WORDS)) == 1


async def test_without_the_account_templates_are_not_listed(aws: LoopbackSocial) -> None:
    async with provider(SETUP, aws.url, timeout=30.0, AWS_WHATSAPP_BUSINESS_ACCOUNT_ID=" ") as made:
        assert not made.capabilities.lists_templates
        with pytest.raises(Unsupported, match="AWS_WHATSAPP_BUSINESS_ACCOUNT_ID"):
            await made.templates()
    assert aws.count == 0


# --- further numbers

ANOTHER = {"AWS_WHATSAPP_NUMBERS": f"{SECOND}={SECOND_ID.upper().replace('PHONE-NUMBER-ID-', '')}"}


async def test_what_is_said_from_another_number_goes_out_by_its_id(
    aws: LoopbackSocial, web: LoopbackVendor
) -> None:
    aws.sent_in["1234567"] = ("image/jpeg", ".jpg", JPEG)
    async with provider(SETUP, aws.url, timeout=30.0, **ANOTHER) as made:
        await made.send(usual(SETUP, **picture(), sender={"address": SECOND}))
        await made.mark_read("wamid.1", ours=SECOND)
        await made.fetch_media(f"{SECOND_ID}/1234567", 4 << 20)
        second = [r.json["originationPhoneNumberId"] for r in aws.requests if r.method == "POST"]
        aws.requests.clear()
        await made.send(usual(SETUP, body="Hi", sender={"address": "+15550009999"}))
        await made.mark_read("wamid.1", ours=None)
        usual_one = [r.json["originationPhoneNumberId"] for r in aws.requests]
    assert (second, usual_one) == ([SECOND_ID] * 4, [NUMBER] * 2)


@pytest.mark.parametrize("given", ["+15550002222", f"15550002222={SECOND_ID}", "+15550002222=7291"])
def test_further_numbers_are_listed_with_their_ids(given: str) -> None:
    environment = Environment({"GATEWAY_ENV": "development", "AWS_WHATSAPP_NUMBERS": given})
    with pytest.raises(SettingsError, match="AWS_WHATSAPP_NUMBERS"):
        environment.fill(AwsWhatsapp.Settings)


async def test_the_doctor_sees_an_id_that_is_of_another_number(aws: LoopbackSocial) -> None:
    async with provider(SETUP, aws.url, timeout=30.0, **ANOTHER) as made:
        _, wrong, *_ = await made.check("")
        aws.number["phoneNumber"]["displayPhoneNumber"] = "+1 555-000-2222"
        _, right, *_ = await made.check("")
    assert (wrong.level, "AWS_WHATSAPP_NUMBERS" in wrong.fix) == (Level.PROBLEM, True)
    assert "+15550009999" in wrong.text
    assert right.level == Level.OK


# --- set-up


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_error_of_the_service_is_in_the_table(operation: str) -> None:
    shapes = model("socialmessaging").operation_model(operation).error_shapes
    assert {shape.error_code for shape in shapes} - set(SOCIAL.codes) == set()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("976c72a700aac43eaf573ae050000000", NUMBER),
        (NUMBER.replace("c", "C"), NUMBER),
        (f"arn:aws-us-gov:social-messaging:us-gov-west-1:123456789012:phone-number-id/{'F' * 32}",
         f"phone-number-id-{'f' * 32}"),
        ("+15550001111", None),
        ("729112345678901", None),
        (f"{NUMBER}0", None),
    ],
)  # fmt: skip
def test_a_numbers_id_is_read_in_each_of_its_forms(given: str, read: str | None) -> None:
    environment = Environment({"GATEWAY_ENV": "development", "AWS_WHATSAPP_PHONE_NUMBER_ID": given})
    if read is None:
        with pytest.raises(SettingsError, match="AWS_WHATSAPP_PHONE_NUMBER_ID"):
            environment.fill(AwsWhatsapp.Settings)
    else:
        assert environment.fill(AwsWhatsapp.Settings).phone_number_id == read


async def test_the_doctor_sees_the_number_and_where_its_account_posts(aws: LoopbackSocial) -> None:
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        number, account, _ = await made.check("https://gateway.example.com/api/webhooks/aws")
    assert (number.level, "+1 555-000-9999" in number.text) == (Level.OK, True)
    assert (account.level, ":gateway-inbound" in account.text) == (Level.OK, True)


async def test_the_doctor_says_what_is_wrong(aws: LoopbackSocial) -> None:
    aws.errors["GetLinkedWhatsAppBusinessAccountPhoneNumber"] = refusal(
        "ResourceNotFoundException", 404
    )
    aws.account["eventDestinations"] = []
    async with provider(SETUP, aws.url, timeout=30.0) as made:
        number, account, _ = await made.check("")
        aws.account["registrationStatus"] = "INCOMPLETE"
        _, incomplete, _ = await made.check("")
        aws.errors["GetLinkedWhatsAppBusinessAccount"] = refusal("AccessDeniedException", 403)
        _, unseen, _ = await made.check("")
    assert (number.level, "AWS_WHATSAPP_PHONE_NUMBER_ID" in number.fix) == (Level.PROBLEM, True)
    assert (account.level, "event destination" in account.text) == (Level.PROBLEM, True)
    assert (incomplete.level, unseen.level) == (Level.PROBLEM, Level.WARNING)
    aws.errors["GetLinkedWhatsAppBusinessAccountPhoneNumber"] = Reply(status=500, body=b"{}")
    aws.number["phoneNumber"]["qualityRating"] = "RED"
    async with provider(SETUP, aws.url, timeout=30.0, AWS_WHATSAPP_BUSINESS_ACCOUNT_ID=" ") as made:
        away, unset, *_ = await made.check("")
        del aws.errors["GetLinkedWhatsAppBusinessAccountPhoneNumber"]
        poor, *_ = await made.check("")
    assert {away.level, unset.level, poor.level} == {Level.WARNING}
    assert "RED" in poor.text
