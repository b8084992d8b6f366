"""What AWS brings of WhatsApp, piece by piece: types, ids, codes, and what nobody would send."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from gateway.cases import described
from gateway.domain import (
    Engagement,
    Event,
    InboundMessage,
    MediaReference,
    MessageType,
    Notice,
    Status,
    StatusUpdate,
    Unrecognised,
)
from gateway.errors import REASONS, Malformed
from tests.sns_signing import NOW, confirmation, hook, notification, request, said as sms, source
from tests.webhook_cases import events_of
from tests.whatsapp_entries import (
    ARN,
    ATTEMPT,
    CONTEXT,
    HEX,
    META_ID,
    OURS,
    PERSON,
    POOL,
    SEND_ID,
    TEMPLATE,
    USER,
    change,
    contact,
    event,
    failed,
    happened,
    message,
    said,
    status,
)
from webhooks import _sns_whatsapp_tables as tables
from webhooks._sns_kinds import read
from webhooks.aws_sns import AwsSnsWebhook
from webhooks.aws_whatsapp import AwsWhatsappWebhook, AwsWhatsappWebhookSettings

pytestmark = pytest.mark.anyio


def all_of(inner: Any) -> list[Event]:
    """The events of what is published."""
    return list(read(json.dumps(inner), NOW, "k" * 64))


def heard(type_: str = "text", **more: Any) -> InboundMessage:
    """The message of a type."""
    (one,) = all_of(said(type_, **more))
    assert isinstance(one, InboundMessage)
    return one


def update(*statuses: dict[str, Any], **more: Any) -> StatusUpdate:
    """What became of a message."""
    (one,) = all_of(happened(*statuses, **more))
    assert isinstance(one, StatusUpdate)
    return one


def test_a_text_is_as_it_was_written() -> None:
    one = heard(text={"body": "  line\r\n\x00 two  "})
    assert one.body == "  line\r\n\ufffd two  "
    assert (one.from_address, one.to_address, one.pool) == (PERSON, OURS, POOL)
    assert (one.name, one.provider_message_id) == ("Ada", "wamid.in0001")
    assert heard(text={"body": ""}).body == ""


@pytest.mark.parametrize("kind", tables.FILES)
def test_each_file_has_a_reference_with_the_number_that_may_ask_for_it(kind: str) -> None:
    file = {"id": "7788", "mime_type": "Application/PDF", "filename": "a b.pdf", "caption": "see"}
    one = heard(kind, **{kind: {**file, "url": "https://lookaside.example/x"}})
    assert one.type is tables.FILES[kind]
    assert one.body == "see"
    assert one.media == (
        MediaReference(
            reference=f"{POOL}/7788", content_type="application/pdf", filename="a b.pdf"
        ),
    )
    assert one.content == ({"voice": True} if kind == "voice" else {})


@pytest.mark.parametrize("id_", [None, "", 7, "../x", "a/b", "a" * 101])
def test_a_file_without_an_id_that_can_be_asked_for_is_none(id_: Any) -> None:
    assert heard("image", image={"id": id_, "caption": "see"}).media == ()


def test_flags_of_files_are_kept() -> None:
    assert heard("audio", audio={"id": "1", "voice": True}).content == {"voice": True}
    assert heard("audio", audio={"id": "1", "voice": False}).content == {}
    assert heard("sticker", sticker={"id": "1", "animated": True}).content == {"animated": True}


def test_a_place_that_is_none_keeps_its_name() -> None:
    place = {"latitude": "north", "longitude": 1e9, "name": "Pole"}
    one = heard("location", location=place)
    assert (one.type, one.content) == (MessageType.LOCATION, {"name": "Pole"})
    whole = heard("location", location={"latitude": 0, "longitude": -180.0})
    assert whole.content == {"latitude": 0, "longitude": -180.0, "name": None, "address": None}


def test_choices_are_read_as_those_of_other_vendors_are() -> None:
    for sort, word in (("button_reply", "button"), ("list_reply", "list")):
        one = heard("interactive", interactive={"type": sort, sort: {"id": "x", "title": "Ten"}})
        assert (one.type, one.body) == (MessageType.INTERACTIVE, "Ten")
        assert one.content == {"kind": word, "id": "x", "title": "Ten"}
    pressed = heard("button", button={"payload": "{no json", "text": "Yes"})
    assert (pressed.type, pressed.body) == (MessageType.BUTTON, "Yes")
    assert pressed.content == {"kind": "button", "id": "{no json", "title": "Yes"}
    assert heard("interactive").content == {}
    assert heard("interactive", interactive={"type": "new"}).content == {"kind": "new"}


@pytest.mark.parametrize(
    ("answer", "data"),
    [('{"a": 1}', {"a": 1}), ('["b"]', ["b"]), ("no json", "no json"), ({"c": 2}, {"c": 2})],
)
def test_a_form_s_answer_may_be_of_any_shape(answer: Any, data: Any) -> None:
    reply = {"name": "flow", "body": "Sent", "response_json": answer}
    one = heard("interactive", interactive={"type": "nfm_reply", "nfm_reply": reply})
    assert one.content == {"kind": "flow", "name": "flow", "data": data}
    assert one.body == "Sent"


def test_a_reaction_names_its_target_and_may_be_taken_back() -> None:
    one = heard("reaction", reaction={"message_id": "wamid.x", "emoji": "👍"})
    assert (one.body, one.reply_to) == ("👍", "wamid.x")
    assert one.content == {"target": "wamid.x", "emoji": "👍", "removed": False}
    for gone in ({"emoji": ""}, {}, {"emoji": None}):
        taken = heard("reaction", reaction={"message_id": "wamid.x", **gone})
        assert taken.content == {"target": "wamid.x", "emoji": "", "removed": True}
        assert taken.body == ""


def test_people_s_cards_are_kept_and_named() -> None:
    cards = [{"name": {"formatted_name": "Ann"}}, {"name": {"formatted_name": "Bob"}}, 7]
    one = heard("contacts", contacts=cards)
    assert (one.body, one.content) == ("Ann, Bob", {"contacts": cards[:2]})


def test_what_the_network_says_is_told_apart() -> None:
    moved = {"type": "user_changed_number", "body": "A to B", "wa_id": "15550009"}
    one = heard("system", system=moved)
    assert (one.type, one.body) == (MessageType.SYSTEM, "A to B")
    assert (one.new_address, one.aliases) == ("+15550009", ("+15550009",))
    other = heard("system", system={"type": "customer_identity_changed"}, identity={"hash": "h"})
    assert other.content == {"kind": "customer_identity_changed", "identity": {"hash": "h"}}
    assert (other.new_address, other.aliases) == (None, ())
    welcome = heard("request_welcome")
    assert (welcome.type, welcome.content) == (MessageType.SYSTEM, {"kind": "request_welcome"})


def test_what_changes_an_earlier_message_names_it() -> None:
    gone = heard("revoke", revoke={"original_message_id": "wamid.x"})
    assert (gone.type, gone.content) == (MessageType.DELETION, {"target": "wamid.x"})
    image = {"type": "image", "image": {"id": "9", "caption": "now"}}
    new = heard("edit", edit={"original_message_id": "wamid.x", "message": image})
    assert (new.type, new.body) == (MessageType.EDIT, "now")
    assert new.content == {"target": "wamid.x", "type": "image"}
    assert [file.reference for file in new.media] == [f"{POOL}/9"]


def test_what_nobody_can_pass_on_or_read_is_kept() -> None:
    errors = [{"code": 131051, "title": "Unknown", "error_data": {"details": "not supported"}}]
    one = heard("unsupported", errors=errors, unsupported={"type": "poll"})
    assert one.type is MessageType.UNSUPPORTED
    assert one.content == {
        "kind": "poll",
        "errors": [{"code": 131051, "title": "Unknown", "details": "not supported"}],
    }
    new = heard("hologram", hologram={"depth": 3})
    assert new.type is MessageType.UNKNOWN
    assert new.content == {"kind": "hologram", "value": {"depth": 3}}


def test_what_may_come_with_any_message_is_kept() -> None:
    one = heard(
        context={
            "id": "wamid.x",
            "frequently_forwarded": True,
            "referred_product": {"catalog_id": "c"},
        },
        referral={"headline": "Shoes", "video_url": "https://v.example", "source_id": 5, "x": {}},
        group_id="120363",
    )
    assert one.reply_to == "wamid.x"
    assert one.content == {
        "forwarded": True,
        "frequently_forwarded": True,
        "referred_product": {"catalog_id": "c"},
        "referral": {
            "headline": "Shoes",
            "video_url": "https://v.example",
            "source_id": 5,
            "media_url": "https://v.example",
        },
        "group_id": "120363",
    }


def people(entry: dict[str, Any], *contacts: dict[str, Any]) -> InboundMessage:
    """A message among some contacts."""
    (one,) = all_of(event(change(contacts=list(contacts), messages=[entry])))
    assert isinstance(one, InboundMessage)
    return one


def test_a_person_is_who_the_message_names_with_what_the_contacts_add() -> None:
    others = contact("Bob", "4915550003", user_id="DE.1"), contact(user_id=USER)
    one = people(message(), *others)
    assert (one.from_address, one.name, one.aliases) == (PERSON, "Ada", (USER,))
    hidden = message(**{"from": None}, from_user_id=USER)
    one = people(hidden, contact("Eve", None, user_id=USER))
    assert (one.from_address, one.name, one.aliases) == (USER, "Eve", ())
    one = people(message(**{"from": None}, from_user_id=USER), *others)
    assert (one.from_address, one.name, one.aliases) == (PERSON, "Ada", (USER,))
    one = people(message(**{"from": USER}), contact("Eve", None, user_id=USER))
    assert (one.from_address, one.name) == (USER, "Eve")
    one = people(message(**{"from": None}), contact())
    assert one.from_address == PERSON


def test_who_is_not_the_sender_lends_at_most_a_name() -> None:
    one = people(message(), contact("Diego", "12065550102", user_id=USER))
    assert (one.from_address, one.name, one.aliases) == (PERSON, "Diego", ())
    one = people(message(), contact("A", "12065550102"), contact("B", "12065550103"))
    assert (one.name, one.aliases) == (None, ())


def context(*numbers: dict[str, Any]) -> dict[str, Any]:
    """An event's context."""
    return {"context": {"MetaWabaIds": [], "MetaPhoneNumberIds": list(numbers)}}


ONE = {"metaPhoneNumberId": META_ID, "arn": f"{ARN}:phone-number-id/{HEX}"}
TWO = {"metaPhoneNumberId": "99", "arn": f"{ARN}:phone-number-id/beef"}


@pytest.mark.parametrize(
    ("numbers", "pool"),
    [
        ((ONE, TWO), POOL),
        ((TWO, ONE), POOL),
        ((TWO,), "phone-number-id-beef"),
        ((), None),
        ((TWO, {**TWO, "metaPhoneNumberId": "98"}), None),
        (({"metaPhoneNumberId": META_ID, "arn": "arn:aws:sns:eu-west-1:1:x"},), None),
        ((7, None, {}), None),
    ],
)
def test_the_number_at_aws_is_told_by_the_context(numbers: Any, pool: str | None) -> None:
    file = said("image", image={"id": "7"}) | context(*numbers)
    (one,) = all_of(file)
    assert isinstance(one, InboundMessage)
    assert one.pool == pool
    (media,) = one.media
    assert (media.reference, media.fetchable) == (f"{pool}/7" if pool else "7", bool(pool))


@pytest.mark.parametrize("word", tables.STATUSES)
def test_each_word_of_meta_s_means_a_status(word: str) -> None:
    one = update(status(word))
    assert (one.status, one.vendor_status) == (tables.STATUSES[word], word)
    assert (one.network_id, one.provider_message_id) == ("wamid.out0001", SEND_ID)
    assert (one.recipient, one.sender) == (PERSON, OURS)
    assert (one.error is not None) == (one.status is Status.FAILED)


@pytest.mark.parametrize("word", sorted(tables.ASIDES))
def test_words_that_are_no_status_change_none(word: str) -> None:
    (one,) = all_of(happened(status(word)))
    assert isinstance(one, Engagement)
    assert (one.kind, one.provider_message_id) == (word, "wamid.out0001")


def test_a_word_of_tomorrow_is_kept() -> None:
    for word in ("in_orbit", "", None, 7, {"a": 1}):
        (one,) = all_of(happened(status(word=word)))  # type: ignore[arg-type]
        assert isinstance(one, Unrecognised)
        assert one.kind.startswith("status:")


CODES = {
    "throttled": (4, 80007, 130429, 131048, 131056, 131064, 132069, 133016),
    "unreachable": (1, 2, 131000, 131016, 131057),
    "opted_out": (131050,),
    "account_refused": (0, 3, 10, 190, 200, 250, 299, 368, 131005, 131031, 131042, 131045),
    "rejected": (100, 131026, 131021, 131047, 131049, 130472, 132001, 135000, 999999, 199, 300),
}


@pytest.mark.parametrize(("code", "reason"), [(c, r) for r in CODES for c in CODES[r]])
def test_each_code_has_its_class(code: int, reason: str) -> None:
    one = update(failed(code))
    assert one.error is not None
    assert (one.error.code, one.error.message, one.error.reason) == (str(code), "Why", reason)


def test_every_class_of_a_failure_is_one_of_ours() -> None:
    assert {*tables.REASONS.values(), tables.OTHERWISE} <= {*REASONS.values(), "opted_out"}


def test_a_failure_without_a_code_is_final() -> None:
    one = update(status("failed"))
    assert one.error is not None
    assert (one.error.code, one.error.message, one.error.reason) == ("failed", None, "rejected")


@pytest.mark.parametrize(
    "data", ["some data", "att_", f"{ATTEMPT} ", f"x{ATTEMPT}", "", 7, None, "att_" + "a" * 41]
)
def test_what_is_handed_back_and_not_of_our_form_is_nobody_s(data: Any) -> None:
    assert update(status(biz_opaque_callback_data=data)).attempt_id is None
    assert update(status(biz_opaque_callback_data=ATTEMPT)).attempt_id == ATTEMPT


def test_an_envelope_s_id_counts_where_it_tells_of_one_message() -> None:
    same = all_of(happened(status("sent"), status("read")))
    assert {e.provider_message_id for e in same if isinstance(e, StatusUpdate)} == {SEND_ID}
    two = all_of(happened(status("sent", 1), status("sent", 2)))
    assert {e.provider_message_id for e in two if isinstance(e, StatusUpdate)} == {None}


def test_a_recipient_may_be_known_by_number_by_user_id_or_as_a_group() -> None:
    both = update(status(recipient_user_id=USER))
    assert (both.recipient, both.aliases) == (PERSON, (USER,))
    hidden = update(status(recipient_id=None, recipient_user_id=USER))
    assert (hidden.recipient, hidden.aliases) == (USER, ())
    group = update(status(recipient_type="group", recipient_id="120363"))
    assert (group.recipient, group.aliases) == (None, ())


def test_the_same_word_has_the_same_key_and_another_word_another() -> None:
    keys = {
        update(one).dedupe_key
        for one in (status("sent"), status("read"), status("read", timestamp="1"), failed(1))
    }
    assert len(keys) == 4
    assert update(status()).dedupe_key == update(status(), send_id=None).dedupe_key


@pytest.mark.parametrize("when", ["bogus", None, -1, True, 1e9, "99999999999", [], "1772366397.5"])
def test_a_time_that_is_none_is_the_envelope_s(when: Any) -> None:
    assert update(status(timestamp=when)).occurred_at == NOW
    assert heard(timestamp=when).occurred_at == NOW
    assert update(status(timestamp=1772366397)).occurred_at == datetime(
        2026, 3, 1, 11, 59, 57, tzinfo=UTC
    )


def test_a_wish_about_marketing_is_told_each_time() -> None:
    wish = {"wa_id": PERSON[1:], "category": "marketing_messages", "value": "stop"}
    for more, value in (({"timestamp": 1772366397}, "stop"), ({}, "resume")):
        entry = event(
            change("user_preferences", user_preferences=[{**wish, **more, "value": value}])
        )
        (one,) = all_of(entry)
        assert isinstance(one, Engagement)
        assert (one.kind, one.recipient) == (tables.WISHES[value], PERSON)
    odd = [{**wish, "value": "later"}, {**wish, "wa_id": None}, 7]
    found = all_of(event(change("user_preferences", user_preferences=odd)))
    assert [type(one) for one in found] == [Unrecognised] * 3


@pytest.mark.parametrize("field", tables.NOTICES)
def test_each_field_about_what_is_ours_is_a_notice(field: str) -> None:
    (one,) = all_of(event({"field": field, "value": {"event": "X"}}, time=1772366397))
    assert isinstance(one, Notice)
    assert one.kind == tables.NOTICES[field]
    assert (one.content["field"], one.content["detail"]) == (field, {"event": "X"})
    again = all_of(event({"field": field, "value": {"event": "X"}}, time=1772366397))[0]
    later = all_of(event({"field": field, "value": {"event": "X"}}, time=1772366398))[0]
    assert one.dedupe_key == again.dedupe_key != later.dedupe_key


def test_a_template_is_told_in_the_words_of_our_own_list() -> None:
    names = {"message_template_id": 5, "message_template_name": "hi"}
    for field, value, told in (
        ("message_template_status_update", {**TEMPLATE, "reason": "SPAM"},
         {"id": "1689556908129835", "name": "greeting", "language": "pt_BR", "status": "paused",
          "reason": "SPAM", "category": "marketing"}),
        ("template_category_update", {**names, "new_category": "UTILITY"},
         {"id": "5", "name": "hi", "category": "utility"}),
        ("message_template_quality_update", {**names, "new_quality_score": "RED"},
         {"id": "5", "name": "hi", "quality": "red"}),
    ):  # fmt: skip
        (one,) = all_of(event({"field": field, "value": value}))
        assert isinstance(one, Notice)
        assert one.content["template"] == told


def test_an_entry_that_is_none_is_malformed_and_an_empty_one_unrecognised() -> None:
    for entry in (None, 7, "", "no json", "[]", '"text"', "9" * 5000):
        with pytest.raises(Malformed):
            all_of({"context": {}, "whatsAppWebhookEntry": entry})
    for empty in ({}, {"changes": []}, {"changes": "x"}, {"changes": [7]}):
        (one,) = all_of({"whatsAppWebhookEntry": empty})
        assert isinstance(one, Unrecognised)


def test_an_eventbridge_s_word_finds_a_message_by_what_sending_it_answered() -> None:
    facts = {"source": "aws.social-messaging", "detail-type": "WhatsApp Message Delivered"}
    detail = {"messageId": SEND_ID, "status": "delivered", "eventTimestamp": "1772366397"}
    (one,) = all_of({**facts, "detail": detail})
    assert isinstance(one, StatusUpdate)
    assert (one.status, one.provider_message_id) == (Status.DELIVERED, SEND_ID)
    (other,) = all_of({**facts, "detail": {**detail, "status": "pondered"}})
    assert isinstance(other, Unrecognised)


def variants() -> list[dict[str, Any]]:
    """An event of every sort."""
    from tests.whatsapp_entries import bodies

    return [one for one in bodies().values() if "whatsAppWebhookEntry" in one]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place within a value."""
    found = [path]
    if isinstance(value, dict):
        found += [p for name in value for p in places(value[name], (*path, name))]
    elif isinstance(value, list):
        found += [p for n, item in enumerate(value) for p in places(item, (*path, n))]
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A value with something else at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


ODD = [None, 7, -1, 1e308, True, "", "x" * 3000, "\x00", [], {}, [[]], [None], {"id": {}}, "ＡＢ"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_anything_in_any_place_is_read_or_malformed_and_can_be_stored(data: st.DataObject) -> None:
    inner = data.draw(st.sampled_from(variants()))
    entry = json.loads(inner["whatsAppWebhookEntry"])
    whole = {**inner, "whatsAppWebhookEntry": entry}
    path = data.draw(st.sampled_from([path for path in places(whole) if path]))
    made = replaced(whole, path, data.draw(st.sampled_from(ODD)))
    try:
        events = all_of(made)
    except Malformed:
        return
    assert events
    text = json.dumps([described(one) for one in events], allow_nan=False)
    assert "\\u0000" not in text
    assert all(getattr(one, "from_address", "x") for one in events)


async def test_each_product_s_name_stands_on_what_is_its_own() -> None:
    webhook = hook(source())
    named = AwsWhatsappWebhook(
        AwsWhatsappWebhookSettings.model_validate(
            {"AWS_SNS_TOPIC_ARNS": notification("")["TopicArn"]}
        ),
        fetch=source(),
    )
    assert isinstance(webhook, AwsSnsWebhook)
    for one, text, name in (
        (webhook, said(), "aws_whatsapp"),
        (webhook, sms("whatsAppWebhookEntry"), "aws_sns"),
        (webhook, sms('"whatsAppWebhookEntry"'), "aws_sns"),
        (webhook, 'not json "whatsAppWebhookEntry"', "aws_sns"),
        (named, said(), "aws_whatsapp"),
        (named, sms(), "aws_whatsapp"),
    ):
        assert (await one.verify(request(notification(text)))).webhook == name
    assert (await named.verify(request(confirmation()))).webhook == "aws_whatsapp"
    assert await events_of(named, request(notification(said()))) == await events_of(
        webhook, request(notification(said()))
    )
    assert CONTEXT["MetaWabaIds"]
