"""How Twilio's messages are read."""

from __future__ import annotations

import base64

import pytest

from gateway.domain import (
    Channel,
    InboundMessage,
    MessageType,
)
from gateway.errors import Malformed
from tests.twilio_forms import (
    ACCOUNT,
    OURS,
    PERSON,
    REPLY,
    SID,
    SMS,
    one,
    signed,
    webhook,
)
from tests.webhook_cases import events_of

pytestmark = pytest.mark.anyio


async def test_new_fields_of_twilio_are_welcome() -> None:
    more = {"AFresh.Field": "x", "ParentMessageSid": SID, "ZNewer": "[]", "Toward": "1"}
    assert isinstance(await one({**dict(SMS), **more}), InboundMessage)
    assert isinstance(await one({**dict(REPLY), **more}), InboundMessage)


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("+15005550142", (Channel.SMS, "+15005550142")),
        ("72345", (Channel.SMS, "72345")),
        ("266696687", (Channel.SMS, "266696687")),
        ("RoyalMail", (Channel.SMS, "RoyalMail")),
        ("A&B Co.+1-2", (Channel.SMS, "A&B Co.+1-2")),
        ("whatsapp:+4915005550142", (Channel.WHATSAPP, "+4915005550142")),
        ("whatsapp:US.13491208655302741918", (Channel.WHATSAPP, "US.13491208655302741918")),
        ("whatsapp:BR.ENT.7", (Channel.WHATSAPP, "BR.ENT.7")),
        ("rcs:+15005550142", (Channel.RCS, "+15005550142")),
    ],
)
async def test_addresses_lose_their_prefix_and_nothing_else(
    sender: str, expected: tuple[Channel, str]
) -> None:
    event = await one({"From": sender, "Body": "x", "MessageSid": SID, "To": OURS})
    assert isinstance(event, InboundMessage)
    assert (event.channel, event.from_address) == expected


@pytest.mark.parametrize(
    "sender",
    [
        "",
        "+",
        "+0155",
        "+1 500 555",
        "+15005550142x",
        "+" + "1" * 17,
        "12",
        "1" * 16,
        "ABCDEFGHIJKL",
        "whatsapp:",
        "whatsapp:RoyalMail",
        "whatsapp:us.1",
        "whatsapp:US.",
        "whatsapp:US.a-b",
        "rcs:",
        "whatsapp:US." + "1" * 129,
        " +15005550142",
        "+15005550142\n",
        "+١٢٣٤٥٦٧",
        "---",
    ],
)
async def test_an_address_of_no_exact_form_is_malformed(sender: str) -> None:
    with pytest.raises(Malformed):
        await one({"From": sender, "Body": "x", "MessageSid": SID, "To": OURS})


@pytest.mark.parametrize("bad", ["SM 1", "SM-1", SID + "0", SID + "NumMedia0", "é", "SM1\n"])
async def test_an_id_of_no_exact_form_is_malformed(bad: str) -> None:
    for name in ("MessageSid", "AccountSid", "MessagingServiceSid"):
        with pytest.raises(Malformed):
            await one({"From": PERSON, "Body": "x", "MessageSid": SID, name: bad})


@pytest.mark.parametrize(
    "fields",
    [
        {"MessageSid": "SM1NumMedia0"},
        {"MessageSid": "SM", "N7NumMedia": "0"},
        {"MessageSid": SID, "AccountSid": "AC1ApiVersion"},
        {"MessageSid": SID, "From": "ShopFromCity", "To": OURS},
        {"MessageSid": SID, "From": "Shop", "Kiosk": "", "To": OURS},
        {"MessageSid": SID, "From": "rcs:" + PERSON, "To": "rcs:Un", "Xbox_agent": ""},
        {"SmsSid": SID, "FromzMessageSid": SID},
        {"MessageSid": SID, "FromZip": f"1MessageSid{SID}"},
        {"MessageSid": SID, f"AccountSid{ACCOUNT}ApiVersion": "2010-04-01"},
    ],
)
async def test_what_may_be_another_cut_of_the_same_text_is_malformed(
    fields: dict[str, str],
) -> None:
    with pytest.raises(Malformed):
        await one({"From": PERSON, "Body": "x", **fields})


async def test_short_ids_are_believed_where_no_other_cut_could_make_them() -> None:
    for sid in ("SM1", "SM_ctwa_1", "theMessageSid2"):
        event = await one({"From": PERSON, "Body": "x", "MessageSid": sid, "AccountSid": "acctid"})
        assert isinstance(event, InboundMessage)
        assert event.provider_message_id == sid


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, MessageType.TEXT),
        ({"MessageType": "video"}, MessageType.VIDEO),
        ({"MessageType": "hologram"}, MessageType.UNKNOWN),
        ({"MessageType": "unsupported"}, MessageType.UNSUPPORTED),
        ({"MediaUrl0": "x", "MediaContentType0": "Image/PNG"}, MessageType.IMAGE),
        ({"MediaUrl0": "x", "MediaContentType0": "audio/ogg"}, MessageType.AUDIO),
        ({"MediaUrl0": "x", "MediaContentType0": "text/vcard"}, MessageType.CONTACTS),
        ({"MediaUrl0": "x", "MediaContentType0": "application/pdf"}, MessageType.DOCUMENT),
        ({"MediaUrl0": "x"}, MessageType.DOCUMENT),
        ({"Latitude": "1", "Longitude": "2"}, MessageType.LOCATION),
        ({"Latitude": "nan", "Longitude": "2"}, MessageType.TEXT),
        ({"Latitude": "91", "Longitude": "2"}, MessageType.TEXT),
        ({"ButtonText": "Yes"}, MessageType.BUTTON),
        ({"ListId": "1"}, MessageType.INTERACTIVE),
    ],
)
async def test_the_type_is_what_twilio_says_or_what_the_fields_show(
    more: dict[str, str], expected: MessageType
) -> None:
    event = await one({**dict(REPLY), **more})
    assert isinstance(event, InboundMessage)
    assert event.type is expected


async def test_a_reaction_names_its_target_and_its_emoji() -> None:
    event = await one({**dict(REPLY), "MessageType": "reaction", "Body": "❤️"})
    assert isinstance(event, InboundMessage)
    assert event.type is MessageType.REACTION
    target = "SM" + "5" * 32
    assert dict(event.content) == {"target": target, "emoji": "❤️", "removed": False}


async def test_a_button_speaks_where_the_body_is_blank_but_not_on_sms() -> None:
    rich = await one({**dict(REPLY), "Body": "", "ButtonText": "Confirm"})
    plain = await one({**dict(SMS), "Body": "", "ButtonText": "Confirm"})
    assert isinstance(rich, InboundMessage)
    assert isinstance(plain, InboundMessage)
    assert (rich.body, plain.body) == ("Confirm", "")
    assert plain.type is MessageType.TEXT
    assert plain.content["title"] == "Confirm"


@pytest.mark.parametrize(
    ("body", "sms", "whatsapp"),
    [
        ("STOP", "stop", "stop"),
        (" stop\n", "stop", "stop"),
        ("Unsubscribe", "stop", "stop"),
        ("cancel", "stop", None),
        ("END", "stop", None),
        ("help", "help", None),
        ("UNSTOP", "start", "start"),
        ("start", "start", "start"),
        ("yes", None, None),
        ("Please stop by at 5", None, None),
        ("STOP!", None, None),
        ("", None, None),
    ],
)
async def test_only_a_whole_message_is_an_opt_out(
    body: str, sms: str | None, whatsapp: str | None
) -> None:
    for fields, expected in ((SMS, sms), (REPLY, whatsapp)):
        event = await one({**dict(fields), "Body": body})
        assert isinstance(event, InboundMessage)
        assert event.content.get("opt_out") == expected


async def test_what_advanced_opt_out_says_stands_above_the_keyword() -> None:
    event = await one({**dict(SMS), "Body": "ARRET", "OptOutType": "STOP"})
    other = await one({**dict(SMS), "Body": "STOP", "OptOutType": "PAUSE"})
    assert isinstance(event, InboundMessage)
    assert isinstance(other, InboundMessage)
    assert (event.content["opt_out"], event.content["opt_out_type"]) == ("stop", "STOP")
    assert (other.content.get("opt_out"), other.content["opt_out_type"]) == (None, "PAUSE")


FILE = f"/2010-04-01/Accounts/{ACCOUNT}/Messages/{SID}/Media/ME{'7' * 32}"


@pytest.mark.parametrize(
    ("url", "fetchable"),
    [
        ("https://api.twilio.com" + FILE, True),
        ("http://127.0.0.1:9" + FILE, True),
        ("http://api.twilio.com" + FILE, False),
        ("https://api.twilio.com.evil.example" + FILE, False),
        ("https://api.twilio.com@evil.example" + FILE, False),
        ("https://api.twilio.com:444" + FILE, False),
        ("https://apiXtwilio.com" + FILE, False),
        ("https://api.twilio.com" + FILE + "?x", False),
        ("https://api.twilio.com" + FILE + "\n", False),
        ("https://api.twilio.com" + FILE.replace("Media/", "Media/../"), False),
        ("https://api.twilio.com" + FILE.upper(), False),
        ("cat.jpg", False),
    ],
)
async def test_only_the_vendors_own_media_urls_are_fetched(url: str, fetchable: bool) -> None:
    hook = webhook(TWILIO_API_URL="http://127.0.0.1:9/")
    request = signed([*SMS, ("MediaUrl0", url)])
    (event,) = await events_of(hook, request)
    assert isinstance(event, InboundMessage)
    (file,) = event.media
    assert file.fetchable is fetchable
    assert file.reference == (f"{ACCOUNT}/{SID}/ME{'7' * 32}" if fetchable else url)


async def test_media_come_in_the_order_of_their_numbers_whatever_nummedia_says() -> None:
    files = [(f"MediaUrl{n}", f"https://x.example/{n}") for n in (10, 2, 0, 9)]
    for claim in ("0", "a", "-1", "", "99"):
        pairs = [(n, v) for n, v in SMS if n != "NumMedia"] + [("NumMedia", claim), *files]
        event = await one(pairs)
        assert isinstance(event, InboundMessage)
        assert [file.reference[-2:].lstrip("/") for file in event.media] == ["0", "2", "9", "10"]


async def test_additions_of_a_shape_of_their_own_do_not_lose_the_message() -> None:
    deep = "[" * 100_000
    for text_ in ("{", deep, "[NaN]", '{"a": 1e999}', "\ufffd"):
        event = await one(
            {**dict(SMS), "AddOns": text_, "ChannelMetadata": '{"a": "\\ud800\\u0000"}'}
        )
        assert isinstance(event, InboundMessage)
        assert "addons" not in event.content
        assert event.content["channel_metadata"] == {"a": "\ufffd\ufffd"}


async def test_a_base64_body_stays_and_is_decoded_beside_it() -> None:
    said = "A long message that a carrier cut in the middle of “a torn character” … and more"
    torn = base64.b64encode(said.encode()[:72]).decode()
    event = await one({**dict(SMS), "Body": torn})
    assert isinstance(event, InboundMessage)
    assert event.body == torn
    assert said.startswith(event.content["decoded"])
    for body in ("a" * 64, "B" * 60 + "====", base64.b64encode(b"\x00\x01" * 40).decode(), said):
        other = await one({**dict(SMS), "Body": body})
        assert isinstance(other, InboundMessage)
        assert "decoded" not in other.content


async def test_ids_of_other_people_are_aliases_only_in_their_exact_form() -> None:
    more = {"WaId": "15005550777", "ExternalUserId": "whatsapp:foo_bar"}
    event = await one({**dict(REPLY), **more})
    assert isinstance(event, InboundMessage)
    assert event.aliases == ("+15005550777",)
