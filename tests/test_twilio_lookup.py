"""Reading Twilio's list of messages: what may be the one that is sought, what was said, and that
its API and its webhooks tell the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from gateway.catalog import CATALOG, Entry
from gateway.domain import (
    BACKFILL,
    LOOK_UP,
    Channel,
    InboundMessage,
    Listing,
    Record,
    Sender,
    Sought,
    Status,
    StatusUpdate,
    Unrecognised,
    Verified,
    WebhookRequest,
)
from gateway.errors import AccountRefused, Ambiguous, Malformed, Throttled, Unreachable
from gateway.lookups import MARGIN, Moment, window
from providers._http import Http
from providers._twilio_lookup import FEW, PAGES, TRIAL
from providers.twilio import Twilio, TwilioSettings
from tests.running import ACCOUNT, OURS, TOKEN, inbound_form, sid
from tests.twilio_messages import PERSON, ROOT, SERVICE, TwilioMessages, when
from tests.vendors import Fault, Reply
from webhooks._twilio_tables import STATUSES
from webhooks.twilio import TwilioWebhook, TwilioWebhookSettings

HOUR = timedelta(hours=1)
SOUGHT = Sought(
    channel=Channel.SMS, to=PERSON, sender=Sender(address=OURS), body="hi", media=0, age=5.0
)


@pytest.fixture
def vendor() -> Iterator[TwilioMessages]:
    """Twilio on loopback."""
    with TwilioMessages() as made:
        yield made


@pytest.fixture
async def twilio(vendor: TwilioMessages) -> AsyncIterator[Twilio]:
    """The provider, on it."""
    http = Http()
    settings = TwilioSettings.model_validate(
        {
            "TWILIO_ACCOUNT_SID": ACCOUNT,
            "TWILIO_AUTH_TOKEN": TOKEN,
            "TWILIO_PHONE_NUMBER": OURS,
            "TWILIO_API_URL": vendor.url,
        }
    )
    yield Twilio(settings, http=http, timeout=5)
    await http.aclose()


def ids(listing: Listing) -> list[str]:
    """The messages of a list, by their ids."""
    return [record.provider_message_id for record in listing.records]


def message_of(record: Record) -> Any:
    """A message as Twilio told it."""
    return json.loads(record.body)["message"]


pytestmark = pytest.mark.anyio


async def test_one_that_says_the_same_to_and_from_the_same_is_found(
    twilio: Twilio, vendor: TwilioMessages
) -> None:
    mine = vendor.add(body="hi")
    vendor.add(body="hi", to="+15550100002")
    vendor.add(body="hi", **{"from": "+15550007777"})
    vendor.inbound("hi")
    listing = await twilio.look_up(SOUGHT)
    assert ids(listing) == [mine["sid"]]
    assert listing.whole
    assert listing.vendor_time is not None
    assert abs(listing.vendor_time - datetime.now(UTC)) < timedelta(seconds=5)
    (record,) = listing.records
    assert when(record.created_at) == mine["date_created"]
    assert message_of(record) == mine
    assert record.url == f"{vendor.url}{mine['uri']}"
    assert TOKEN not in repr(record)
    (asked,) = vendor.asked
    query = parse_qs(urlsplit(asked).query)
    assert query == {"To": [PERSON], "From": [OURS], "PageSize": [str(FEW)]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hi", True),
        (TRIAL + "hi", True),
        ("hi ", False),
        (" hi", False),
        ("Hi", False),
        ("hi\n", False),
        ("hï", False),
        (TRIAL + "hi ", False),
        (None, False),
        ("", False),
    ],
)
async def test_a_text_is_the_same_only_byte_for_byte(
    twilio: Twilio, vendor: TwilioMessages, text: str | None, found: bool
) -> None:
    vendor.add(body=text)
    assert bool((await twilio.look_up(SOUGHT)).records) is found


@pytest.mark.parametrize("text", ["Ünïcode ☕ & = + %", "a\r\nb", 'q"uo\\te', "\u200b", " pad  "])
async def test_any_text_is_found_by_itself(
    twilio: Twilio, vendor: TwilioMessages, text: str
) -> None:
    vendor.add(body=text)
    assert len((await twilio.look_up(replace(SOUGHT, body=text))).records) == 1


async def test_a_service_is_known_by_its_id_and_not_by_the_number_that_it_picked(
    twilio: Twilio, vendor: TwilioMessages
) -> None:
    mine = vendor.add(messaging_service_sid=SERVICE, **{"from": "+15550003333"})
    early = vendor.add(messaging_service_sid=SERVICE, **{"from": None})
    vendor.add(messaging_service_sid="MG" + "1" * 32)
    vendor.add()
    sought = replace(SOUGHT, sender=Sender(pool=SERVICE))
    assert set(ids(await twilio.look_up(sought))) == {mine["sid"], early["sid"]}
    assert "From" not in vendor.asked[0]


async def test_a_number_is_enough_whatever_service_stands_beside_it(
    twilio: Twilio, vendor: TwilioMessages
) -> None:
    # "A unique default value is assigned if a Messaging Service is not used."
    mine = vendor.add(messaging_service_sid="MG" + "d" * 32)
    assert ids(await twilio.look_up(SOUGHT)) == [mine["sid"]]


async def test_whatsapp_has_its_prefix_on_both_sides(
    twilio: Twilio, vendor: TwilioMessages
) -> None:
    mine = vendor.add(to=f"whatsapp:{PERSON}", **{"from": f"whatsapp:{OURS}"})
    vendor.add()
    sought = replace(SOUGHT, channel=Channel.WHATSAPP)
    assert ids(await twilio.look_up(sought)) == [mine["sid"]]


async def test_as_many_files_belong_to_it(twilio: Twilio, vendor: TwilioMessages) -> None:
    vendor.add(num_media="1")
    two = vendor.add(num_media="2")
    assert ids(await twilio.look_up(replace(SOUGHT, media=2))) == [two["sid"]]


async def test_all_of_them_are_found_over_all_pages(twilio: Twilio, vendor: TwilioMessages) -> None:
    vendor.page = 2
    mine = [vendor.add()["sid"] for _ in range(5)]
    for _ in range(3):
        vendor.add(body="other")
    listing = await twilio.look_up(SOUGHT)
    assert sorted(ids(listing)) == mine
    assert listing.whole
    assert len(vendor.asked) == 4


async def test_what_was_there_before_is_not_read_to_its_end(
    twilio: Twilio, vendor: TwilioMessages
) -> None:
    vendor.page = 1
    mine = vendor.add()
    for hours in range(1, 20):
        date = when(vendor.now - hours * HOUR)
        vendor.add(date_created=date, date_sent=date)
    listing = await twilio.look_up(SOUGHT)
    assert ids(listing)[0] == mine["sid"]
    assert listing.whole
    assert len(vendor.asked) == 2


async def test_what_is_not_sent_yet_has_no_date_and_is_found(
    twilio: Twilio, vendor: TwilioMessages
) -> None:
    mine = vendor.add(date_sent=None)
    assert ids(await twilio.look_up(SOUGHT)) == [mine["sid"]]


async def test_too_many_to_be_sure_are_no_whole_list(
    twilio: Twilio, vendor: TwilioMessages
) -> None:
    vendor.page = 1
    for _ in range(PAGES + 1):
        vendor.add(body="other")
    listing = await twilio.look_up(SOUGHT)
    assert not listing.whole
    assert len(vendor.asked) == PAGES


@pytest.mark.parametrize(
    "more", [{"sid": "SM1"}, {"sid": None}, {"date_created": "yesterday"}, {"date_created": None}]
)
async def test_one_that_cannot_be_read_leaves_the_list_in_doubt(
    twilio: Twilio, vendor: TwilioMessages, more: dict[str, Any]
) -> None:
    vendor.add()
    vendor.add(**more)
    listing = await twilio.look_up(SOUGHT)
    assert not listing.whole


async def test_without_twilio_s_time_there_is_none(twilio: Twilio, vendor: TwilioMessages) -> None:
    vendor.dated = False
    vendor.add()
    assert (await twilio.look_up(SOUGHT)).vendor_time is None


REFUSALS: list[tuple[Any, type[Exception]]] = [
    (Reply(status=401, body=b'{"code": 20003}'), AccountRefused),
    (Reply(status=429, body=b'{"code": 20429}'), Throttled),
    (Reply(status=500, body=b"<html>"), Ambiguous),
    (Reply(status=307, headers={"Location": "http://127.0.0.1:1/"}), Ambiguous),
    (Reply(status=200, body=b"<html>"), Ambiguous),
    (Reply(status=200, body=b'{"messages": {}}'), Ambiguous),
    (Reply(status=200, body=b"[" * 100_000), Ambiguous),
    (Fault.DROP_AFTER, Ambiguous),
]


@pytest.mark.parametrize(("answer", "error"), REFUSALS)
async def test_an_answer_that_is_no_list_is_an_error(
    twilio: Twilio, vendor: TwilioMessages, answer: Any, error: type[Exception]
) -> None:
    for ask in (
        lambda: twilio.look_up(SOUGHT),
        lambda: twilio.history(vendor.now - HOUR, 10),
    ):
        vendor.lists = [answer, answer]  # the HTTP library asks again where a connection drops
        with pytest.raises(error):
            await ask()


async def test_a_vendor_that_is_away_is_unreachable(twilio: Twilio, vendor: TwilioMessages) -> None:
    vendor.stop()
    with pytest.raises(Unreachable):
        await twilio.look_up(SOUGHT)


@pytest.mark.parametrize(
    "following",
    [
        "https://evil.example/2010-04-01/Messages.json?Page=1",
        "//evil.example" + ROOT + ".json",
        f"/2010-04-01/Accounts/AC{2:032x}/Messages.json?Page=1",
        "@127.0.0.1:1/" + ROOT,
        7,
    ],
)
async def test_credentials_go_to_no_other_list(
    twilio: Twilio, vendor: TwilioMessages, following: object
) -> None:
    page = {"messages": [], "next_page_uri": following}
    vendor.lists.append(Reply(body=json.dumps(page).encode()))
    with pytest.raises(Ambiguous):
        await twilio.look_up(SOUGHT)
    assert len(vendor.requests) == 1


async def test_the_history_is_what_was_said_both_ways_since_then(
    twilio: Twilio, vendor: TwilioMessages
) -> None:
    long_ago = when(vendor.now - 3 * HOUR)
    vendor.inbound("too early", date_sent=long_ago, date_created=long_ago)
    told = [vendor.inbound("hello")["sid"], vendor.add(status="sent")["sid"]]
    listing = await twilio.history(vendor.now - HOUR, 10)
    assert sorted(ids(listing)) == told
    assert listing.whole
    (asked,) = vendor.asked
    (since,) = parse_qs(urlsplit(asked).query)["DateSent>"]
    assert abs(datetime.fromisoformat(since) - (vendor.now - HOUR)) < timedelta(seconds=5)


async def test_the_history_is_bounded_and_says_so(twilio: Twilio, vendor: TwilioMessages) -> None:
    vendor.page = 2
    told = []
    for minute in range(6):
        date = when(vendor.now - timedelta(minutes=minute))
        told.append(vendor.inbound("hello", date_sent=date, date_created=date)["sid"])
    listing = await twilio.history(vendor.now - HOUR, 5)
    assert ids(listing) == told[:5]  # the newest
    assert not listing.whole
    assert (await twilio.history(vendor.now - HOUR, 6)).whole


async def test_the_files_of_a_message_are_asked_for_by_themselves(
    twilio: Twilio, vendor: TwilioMessages
) -> None:
    vendor.picture("look", "image/png", "image/jpeg")
    vendor.inbound("no file")
    vendor.add(num_media="1")
    records = (await twilio.history(vendor.now - HOUR, 10)).records
    partial = [record for record in records if record.partial]
    assert [message_of(record)["body"] for record in partial] == ["look"]
    whole = await twilio.complete(partial[0])
    assert not whole.partial
    assert [file["content_type"] for file in json.loads(whole.body)["media"]] == [
        "image/png",
        "image/jpeg",
    ]


# What Twilio's API tells and what its webhooks tell are one.


@pytest.fixture
def hook() -> TwilioWebhook:
    """The webhook of the same account."""
    return TwilioWebhook(
        TwilioWebhookSettings.model_validate(
            {"TWILIO_ACCOUNT_SID": ACCOUNT, "TWILIO_AUTH_TOKEN": TOKEN}
        )
    )


def verified(body: bytes, kind: str, verdict: str, url: str = "https://x.example/") -> Verified:
    """A request, or a record, as it is read."""
    request = WebhookRequest(
        method="POST",
        url=url,
        headers={"content-type": kind},
        body=body,
        received_at=datetime.now(UTC),
    )
    return Verified(
        webhook="twilio", connection="twilio", request=request, key="k", verdict=verdict
    )


def posted(hook: TwilioWebhook, form: Mapping[str, str]) -> Any:
    """What a webhook says."""
    body = urlencode(form).encode()
    (event,) = hook.parse(verified(body, "application/x-www-form-urlencoded", "twilio hmac-sha1"))
    return event


def recorded(hook: TwilioWebhook, message: Any, media: Any = None, verdict: str = BACKFILL) -> Any:
    """What the API says."""
    said = {"message": message} | ({"media": media} if media is not None else {})
    (event,) = hook.parse(verified(json.dumps(said).encode(), "application/json", verdict))
    return event


@pytest.mark.parametrize("word", STATUSES)
@pytest.mark.parametrize("verdict", [BACKFILL, LOOK_UP])
def test_a_status_is_the_same_in_a_callback_and_in_a_list(
    hook: TwilioWebhook, word: str, verdict: str
) -> None:
    failed = STATUSES[word] in (Status.FAILED, Status.UNDELIVERED)
    message = TwilioMessages().add(
        status=word, error_code=30005 if failed else None, price="-0.0075", num_segments="2"
    )
    form = {
        "MessageSid": message["sid"],
        "MessageStatus": word,
        "AccountSid": ACCOUNT,
        "To": PERSON,
        "From": OURS,
        "Price": "-0.0075",
        "PriceUnit": "USD",
        "NumSegments": "2",
    }
    event = recorded(hook, message, verdict=verdict)
    assert isinstance(event, StatusUpdate)
    assert event.occurred_at is not None
    callback = posted(hook, form | ({"ErrorCode": "30005"} if failed else {}))
    assert replace(event, occurred_at=None) == callback
    assert (event.segments, event.cost is not None) == (2, True)


SAID: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "sms": ({"body": "Ünïcode ☕ & = + %\r\n two  spaces "}, {}),
    "blank": ({"body": ""}, {}),
    "stop": ({"body": "Stop"}, {}),
    "short code": ({"from": "72345"}, {}),
    "service": ({"messaging_service_sid": SERVICE}, {"MessagingServiceSid": SERVICE}),
    "long": ({"body": "x" * 1600, "num_segments": "11"}, {"NumSegments": "11"}),
    "failed": ({"error_code": 30004, "price": "-0.0075"}, {}),
    "whatsapp": (
        {"from": f"whatsapp:{PERSON}", "to": f"whatsapp:{OURS}"},
        {},
    ),
    "no number": ({"from": "whatsapp:US.13491208655302741918", "to": f"whatsapp:{OURS}"}, {}),
}


@pytest.mark.parametrize("which", SAID)
def test_a_message_is_the_same_in_a_webhook_and_in_a_list(hook: TwilioWebhook, which: str) -> None:
    told, more = SAID[which]
    message = TwilioMessages().inbound(**{"body": "hello", **told})
    form = inbound_form(
        message["sid"], message["body"], From=message["from"], To=message["to"], **more
    )
    event = recorded(hook, message)
    assert isinstance(event, InboundMessage)
    assert event.occurred_at is not None
    assert replace(event, occurred_at=None) == posted(hook, form)


def test_files_are_the_same_in_a_webhook_and_in_a_list(hook: TwilioWebhook) -> None:
    vendor = TwilioMessages()
    message = vendor.picture("look", "image/png", "text/vcard")
    base = f"https://api.twilio.com{ROOT}/{message['sid']}/Media"
    form = inbound_form(
        message["sid"],
        "look",
        NumMedia="2",
        MediaUrl0=f"{base}/{sid(1, 'ME')}",
        MediaContentType0="image/png",
        MediaUrl1=f"{base}/{sid(2, 'ME')}",
        MediaContentType1="text/vcard",
    )
    event = recorded(hook, message, vendor.media[message["sid"]])
    assert replace(event, occurred_at=None) == posted(hook, form)
    assert all(file.fetchable for file in event.media)


@pytest.mark.parametrize("file", [{"sid": "../../x"}, {"sid": None}, {}, "x"])
def test_a_file_without_an_exact_id_is_never_fetched(hook: TwilioWebhook, file: Any) -> None:
    message = TwilioMessages().inbound("look", num_media="1")
    assert not [f for f in recorded(hook, message, [file]).media if f.fetchable]


def test_one_that_is_still_coming_in_is_left_to_its_webhook(hook: TwilioWebhook) -> None:
    message = TwilioMessages().inbound("hello", status="receiving")
    assert isinstance(recorded(hook, message), Unrecognised)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"message": []}', b'{"message": {}}'])
def test_a_record_that_is_no_message_is_malformed(hook: TwilioWebhook, body: bytes) -> None:
    with pytest.raises(Malformed):
        hook.parse(verified(body, "application/json", BACKFILL))


def test_what_was_posted_is_never_read_as_a_record(hook: TwilioWebhook) -> None:
    body = json.dumps({"message": TwilioMessages().inbound("hello")}).encode()
    (event,) = hook.parse(verified(body, "application/json", "twilio hmac-sha1 token 1 of 1"))
    assert isinstance(event, Unrecognised)


# When a message may have been created, by a clock that is not ours.

LEASE = 60_000


@pytest.mark.parametrize("ahead", [0, 3_600_000, -3_600_000, 400])
@pytest.mark.parametrize("slow", [0.01, 8.0])
def test_the_window_holds_what_was_created_in_the_attempt_and_little_else(
    ahead: int, slow: float
) -> None:
    start = 1_800_000_000_123  # the attempt, by the database
    moment = Moment(now=start + 30_000, before=100.0, after=100.02)
    sent, heard = 100.1, 100.1 + slow
    for answered in (sent, heard):
        theirs = moment.now + (answered - 100.01) * 1000 + ahead
        vendor_time = int(theirs // 1000 * 1000)
        low, high = window(moment, sent, heard, vendor_time, LEASE)

        def offset(after: int) -> int:
            return int((start + after + ahead) // 1000 * 1000) - start

        assert low <= offset(0)
        assert offset(LEASE + MARGIN) <= high
        assert offset(-3000 - int(slow * 1000)) < low
        assert high < offset(LEASE + MARGIN + 3000 + int(slow * 1000))


@pytest.mark.parametrize("entry", [e for e in CATALOG if e.provider], ids=lambda e: e.name)
def test_a_provider_says_that_it_can_look_up_only_if_it_can(entry: Entry) -> None:
    can = entry.provider.capabilities.can_look_up  # type: ignore[union-attr]
    assert can is hasattr(entry.provider, "look_up")
    assert entry.webhook is not None or not can  # which reads what it finds
