"""WhatsApp through a whole gateway: posted by SNS over HTTP, stored, and shown by the API."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Connection
from tests.aws_social import NUMBER, LoopbackSocial
from tests.running import eventually, following
from tests.sns_played import Sns, playing
from tests.sns_signing import notification
from tests.stored import TENANT, Store
from tests.whatsapp_entries import (
    AT,
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

PATH = "/api/webhooks/aws-whatsapp"
AWS = Connection(id="aws", tenant_id=TENANT, family="aws")
LISTED = {"templateName": "greeting", "metaTemplateId": "1", "templateLanguage": "pt_BR"}
NUMBERS = itertools.count(1000)
OTHER = "+14255550150"
TRY = {"outside_window": "try"}


@pytest.fixture
def sns(url: str, tmp_path: Path) -> Iterator[Sns]:
    """A gateway on each database in turn."""
    with playing(url, tmp_path) as sns:
        yield sns


def post(sns: Sns, *events: dict[str, Any]) -> None:
    """Posts each in an envelope of its own."""
    for one in events:
        assert sns.post(notification(one, next(NUMBERS)), PATH).status_code == 200


def written(sns: Sns, send_id: str | None = SEND_ID, to: str = PERSON) -> tuple[str, str]:
    """A message of ours that went to AWS: its id, and that of its attempt."""
    store = Store(sns.database)
    id_ = store.accept(to=to, channel="whatsapp", connection="aws", from_address=OURS)
    (due,) = [due for due in store.claim() if due.message_id == id_]
    attempt = store.begin(due, AWS)
    assert attempt is not None
    if send_id is not None:
        store.settle(attempt, send_id)
    return id_, attempt.id


def shown(sns: Sns, id_: str) -> Any:
    """A message as the API shows it."""
    return sns.client.get(f"/api/messages/{id_}")


def inbound(sns: Sns) -> list[Any]:
    """What people said, oldest first."""
    return list(reversed(sns.client.get("/api/messages", direction="inbound")["items"]))


def conversations(sns: Sns) -> list[Any]:
    """Every conversation."""
    return list(sns.client.get("/api/conversations")["items"])


def verdicts(sns: Sns) -> list[str]:
    """What became of the callbacks."""
    return [row["verdict"] for row in sns.rows("SELECT verdict FROM receipts ORDER BY id")]


def test_a_person_s_message_opens_a_conversation_and_the_window(sns: Sns) -> None:
    with following(sns.client) as stream:
        post(sns, said(context={"id": "wamid.before", "forwarded": True}))
        eventually(lambda: "message.received" in stream.types())
    (one,) = inbound(sns)
    assert (one["from"], one["to"], one["body"]) == (PERSON, OURS, "Olá 👋")
    assert (one["channel"], one["type"], one["provider"]) == ("whatsapp", "text", "aws_whatsapp")
    assert one["provider_message_id"] == "wamid.in0001"
    assert (one["reply_to"], one["content"]) == ("wamid.before", {"forwarded": True})
    (thread,) = conversations(sns)
    assert (thread["address"], thread["our_address"], thread["name"]) == (PERSON, OURS, "Ada")
    assert thread["unread_count"] == 1
    assert thread["window_expires_at"] > thread["last_inbound_at"]


def test_several_messages_and_statuses_of_several_changes_all_count(sns: Sns) -> None:
    id_, _ = written(sns)
    both = change(
        contacts=[contact("Bob", OTHER[1:]), contact()],
        messages=[message(), message(number=2, **{"from": OTHER[1:]})],
        statuses=[status("sent", number=1, biz_opaque_callback_data="not ours")],
    )
    more = change(messages=[message(number=3, text={"body": "and more"})])
    post(sns, event(both, {"field": "tomorrow", "value": {"x": 1}}, more, messageId=SEND_ID))
    assert [m["provider_message_id"] for m in inbound(sns)] == [
        "wamid.in0001",
        "wamid.in0002",
        "wamid.in0003",
    ]
    assert {t["name"] for t in conversations(sns)} >= {"Ada", "Bob"}
    assert shown(sns, id_)["status"] == "sent"


def test_what_is_published_twice_counts_once(sns: Sns) -> None:
    id_, _ = written(sns)
    for _ in range(2):
        post(sns, said(), happened(status("sent")))
    assert len(inbound(sns)) == 1
    assert verdicts(sns) == ["applied"]
    assert shown(sns, id_)["status"] == "sent"


def test_either_id_and_our_own_find_the_attempt(sns: Sns) -> None:
    by_answer, _ = written(sns)
    by_ours, attempt = written(sns, "another-send-id", OTHER)
    by_network, _ = written(sns, "wamid.out0003", "+14255550151")
    post(
        sns,
        happened(status("sent")),
        happened(status("sent", 2, recipient_id=OTHER[1:], biz_opaque_callback_data=attempt),
                 send_id=None),
        happened(status("sent", 3, recipient_id="14255550151"), send_id=None),
    )  # fmt: skip
    assert [shown(sns, id_)["status"] for id_ in (by_answer, by_ours, by_network)] == ["sent"] * 3
    people = (PERSON[1:], OTHER[1:], "14255550151")
    for number, person in enumerate(people, 1):  # by now the network's id alone is enough
        post(sns, happened(status("read", number, recipient_id=person), send_id=None))
    for number, id_ in enumerate((by_answer, by_ours, by_network), 1):
        found = shown(sns, id_)
        assert (found["status"], found["provider_message_id"]) == ("read", f"wamid.out000{number}")
    (first,) = shown(sns, by_answer)["attempts"]
    assert (first["provider_message_id"], first["network_id"]) == (SEND_ID, "wamid.out0001")
    for id_ in (SEND_ID, "wamid.out0001"):
        (only,) = sns.client.get("/api/messages", provider_message_id=id_)["items"]
        assert only["id"] == by_answer
    (third,) = shown(sns, by_network)["attempts"]  # AWS answered with the network's own
    assert (third["provider_message_id"], third["network_id"]) == ("wamid.out0003", None)


def test_a_status_before_the_answer_waits_by_each_of_its_ids(sns: Sns) -> None:
    post(sns, happened(status("delivered", recipient_id=None), send_id=None))  # nobody's yet
    post(sns, happened(status("sent")))
    assert verdicts(sns) == ["parked", "parked"]
    id_, _ = written(sns)
    assert verdicts(sns) == ["applied", "applied"]
    assert shown(sns, id_)["status"] == "delivered"


def test_an_answer_that_was_lost_is_settled_by_our_own_id(sns: Sns) -> None:
    id_, attempt = written(sns, None)
    post(sns, happened(status("delivered", biz_opaque_callback_data=attempt)))
    found = shown(sns, id_)
    assert found["status"] == "delivered"
    assert found["attempts"][0]["provider_message_id"] == SEND_ID


def test_the_ids_of_a_message_are_of_no_other_one(
    sns: Sns, caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = written(sns)
    two, second = written(sns, "another-send-id")
    post(sns, happened(status("sent")))
    for wrong in (
        happened(status("read", biz_opaque_callback_data=second), send_id=None),
        happened(status("read", 9)),
        happened(status("read", 2, biz_opaque_callback_data=second, recipient_id="4915550003")),
    ):
        post(sns, wrong)
    assert verdicts(sns) == ["applied", "foreign", "foreign", "foreign"]
    assert (shown(sns, one)["status"], shown(sns, two)["status"]) == ("sent", "accepted")
    assert "changes nothing" in caplog.text


def test_an_envelope_s_id_is_of_none_of_several_messages(sns: Sns) -> None:
    id_, _ = written(sns)
    post(sns, happened(status("sent", 1), status("read", 2)))
    assert verdicts(sns) == ["parked", "parked"]
    assert shown(sns, id_)["status"] == "accepted"


def test_statuses_in_any_order_end_at_the_furthest(sns: Sns) -> None:
    id_, _ = written(sns)
    post(sns, happened(status("read"), status("delivered"), status("sent"), status("played")))
    found = shown(sns, id_)
    assert found["status"] == "read"
    assert None not in (found["sent_at"], found["delivered_at"], found["read_at"])


def test_a_failure_has_its_code_and_class_and_a_throttled_one_is_sent_again(sns: Sns) -> None:
    window, _ = written(sns)
    busy, _ = written(sns, "another-send-id")
    post(sns, happened(failed(131047)))
    post(sns, happened(failed(131056, 2), send_id="another-send-id"))
    found = shown(sns, window)
    assert (found["status"], found["error"]["code"]) == ("failed", "131047")
    assert found["error"]["message"] == "Why"
    assert found["attempts"][0]["error"]["class"] == "rejected"
    again = shown(sns, busy)
    assert (again["status"], again["attempts"][0]["error"]["class"]) == ("queued", "throttled")


@pytest.mark.parametrize("how", ["failure", "preference"])
def test_who_wants_no_marketing_has_opted_out(sns: Sns, how: str) -> None:
    written(sns)
    wish = {"wa_id": PERSON[1:], "category": "marketing_messages", "value": "stop"}
    if how == "failure":
        post(sns, happened(failed(131050)))
    else:
        post(sns, event(change("user_preferences", user_preferences=[wish])))
    (out,) = sns.client.get("/api/opt-outs")["items"]
    assert (out["channel"], out["address"], out["state"]) == ("whatsapp", PERSON, "out")
    assert out["source"] == "vendor"
    post(sns, event(change("user_preferences", user_preferences=[{**wish, "value": "resume"}])))
    (back,) = sns.client.get("/api/opt-outs", state="in")["items"]
    assert back["address"] == PERSON


def test_a_number_and_a_user_id_are_one_person(sns: Sns) -> None:
    post(sns, event(change(contacts=[contact(user_id=USER)], messages=[message()])))
    hidden = message(number=2, **{"from": None}, from_user_id=USER)
    post(sns, event(change(contacts=[contact("Ada", None, user_id=USER)], messages=[hidden])))
    (thread,) = conversations(sns)
    assert (thread["address"], thread["unread_count"]) == (PERSON, 2)
    assert [m["from"] for m in inbound(sns)] == [PERSON, USER]


def test_people_who_show_no_number_have_a_conversation(sns: Sns) -> None:
    hidden = message(**{"from": None}, from_user_id=USER)
    post(sns, event(change(contacts=[contact("Eve", None, user_id=USER)], messages=[hidden])))
    (thread,) = conversations(sns)
    assert (thread["address"], thread["name"]) == (USER, "Eve")
    id_, _ = written(sns, to=USER)
    post(sns, happened(status(recipient_id=None, recipient_user_id=USER)))
    assert shown(sns, id_)["status"] == "delivered"


def test_who_is_written_to_by_number_may_answer_by_another_name(sns: Sns) -> None:
    id_, _ = written(sns)  # in Brazil, WhatsApp leaves a digit of the number out
    post(sns, happened(status("sent", recipient_id="551155550142", recipient_user_id=USER)))
    assert shown(sns, id_)["status"] == "sent"
    post(sns, said(**{"from": "551155550142"}))
    hidden = message(number=2, **{"from": None}, from_user_id=USER)
    post(sns, event(change(contacts=[], messages=[hidden])))
    (thread,) = conversations(sns)
    assert (thread["address"], thread["unread_count"]) == (PERSON, 2)


def test_a_changed_number_is_answered_from_then_on(sns: Sns) -> None:
    post(sns, said())
    (before,) = conversations(sns)
    moved = {"type": "user_changed_number", "body": "A changed", "wa_id": OTHER[1:]}
    post(sns, said("system", 2, system=moved))
    post(sns, event(change(messages=[message(number=3, **{"from": OTHER[1:]})])))
    post(sns, event(change(messages=[message(number=4)])))  # late, from the old number
    (thread,) = conversations(sns)
    assert (thread["id"], thread["address"]) == (before["id"], OTHER)
    assert thread["unread_count"] == 4
    assert [m["type"] for m in inbound(sns)] == ["text", "system", "text", "text"]


def test_who_wrote_from_a_new_number_before_it_was_told_keeps_both_threads(sns: Sns) -> None:
    post(sns, said(), event(change(messages=[message(number=2, **{"from": OTHER[1:]})])))
    moved = {"type": "user_changed_number", "body": "A changed", "wa_id": OTHER[1:]}
    post(sns, said("system", 3, system=moved))
    assert {t["address"] for t in conversations(sns)} == {PERSON, OTHER}


def test_what_the_network_says_opens_no_window(sns: Sns) -> None:
    identity = {"type": "customer_identity_changed", "body": "Another phone"}
    post(sns, said("system", 1, system=identity))
    (thread,) = conversations(sns)
    assert (thread["last_inbound_at"], thread["window_expires_at"]) == (None, None)
    post(sns, said("reaction", 2, reaction={"message_id": "wamid.x", "emoji": "👍"}))
    opened = conversations(sns)[0]["window_expires_at"]
    assert opened is not None
    post(sns, said("system", 3, system=identity))
    assert conversations(sns)[0]["window_expires_at"] == opened


def test_what_we_said_by_another_application_stands_in_the_conversation(sns: Sns) -> None:
    post(sns, said())
    window = conversations(sns)[0]["window_expires_at"]
    echo = message(number=60, **{"from": OURS[1:]}, to=PERSON[1:], text={"body": "STOP"})
    with following(sns.client) as stream:
        post(sns, event(change("smb_message_echoes", message_echoes=[echo])))
        eventually(lambda: "message.sent" in stream.types())
    (ours,) = sns.client.get("/api/messages", direction="outbound")["items"]
    assert (ours["from"], ours["to"], ours["body"]) == (OURS, PERSON, "STOP")
    assert (ours["status"], ours["provider_message_id"]) == ("sent", "wamid.in0060")
    assert ours["sent_at"] is not None
    (thread,) = conversations(sns)
    assert (thread["unread_count"], thread["window_expires_at"]) == (1, window)
    assert ours["conversation_id"] == thread["id"]
    assert sns.rows("SELECT * FROM queue") == []
    assert sns.client.get("/api/opt-outs")["items"] == []
    assert shown(sns, ours["id"])["attempts"] == []


def test_an_echo_may_begin_a_conversation(sns: Sns) -> None:
    echo = message(number=60, **{"from": OURS[1:]}, to=None, to_user_id=USER)
    post(sns, event(change("smb_message_echoes", message_echoes=[echo])))
    (thread,) = conversations(sns)
    assert (thread["address"], thread["our_address"]) == (USER, OURS)
    assert (thread["unread_count"], thread["last_inbound_at"]) == (0, None)


def test_edits_and_deletions_name_what_they_change(sns: Sns) -> None:
    edit = {"original_message_id": "wamid.in0001", "message": {"type": "text",
            "text": {"body": "Olá!"}}}  # fmt: skip
    post(sns, said(), said("edit", 2, edit=edit))
    post(sns, said("revoke", 3, revoke={"original_message_id": "wamid.in0001"}))
    _, edited, deleted = inbound(sns)
    assert (edited["type"], edited["body"]) == ("edit", "Olá!")
    assert edited["content"] == {"target": "wamid.in0001", "type": "text"}
    assert (deleted["type"], deleted["content"]) == ("deletion", {"target": "wamid.in0001"})


def test_a_template_s_change_is_an_event_of_its_own_and_told_once(sns: Sns) -> None:
    news = event({"field": "message_template_status_update", "value": TEMPLATE}, time=AT)
    with following(sns.client) as stream:
        post(sns, news, news, said())
        eventually(lambda: "message.received" in stream.types())
        assert stream.types().count("template.updated") == 1
        (frame,) = [f for f in stream.events if f["type"] == "template.updated"]
    told = frame["data"]["template"]
    assert (told["name"], told["language"], told["status"]) == ("greeting", "pt_BR", "paused")
    (kept,) = sns.rows("SELECT * FROM notices")
    assert (kept["tenant_id"], kept["kind"]) == (TENANT, "template.updated")


def test_a_template_that_changed_is_listed_as_it_is_now(sqlite_url: str, tmp_path: Path) -> None:
    with LoopbackSocial() as social:
        account = {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": social.url}
        keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}
        number = {
            "AWS_WHATSAPP_PHONE_NUMBER_ID": NUMBER,
            "AWS_WHATSAPP_BUSINESS_ACCOUNT_ID": "waba-0123456789abcdef",
            "MESSAGING_PROVIDER": "aws",
        }
        news = event({"field": "message_template_status_update", "value": TEMPLATE}, time=AT)
        with playing(sqlite_url, tmp_path, **account, **keys, **number) as sns:

            def status() -> list[str]:
                return [one["status"] for one in sns.client.get("/api/templates")["items"]]

            social.listed = [{**LISTED, "templateStatus": "APPROVED"}]
            assert status() == ["approved"]
            social.listed = [{**LISTED, "templateStatus": "PAUSED"}]
            assert status() == ["approved"]  # as it was kept
            post(sns, news)
            eventually(lambda: status() == ["paused"], "the new list")


def test_who_wrote_to_another_number_of_ours_is_answered_from_that(
    sqlite_url: str, tmp_path: Path
) -> None:
    with LoopbackSocial() as social:
        more = {
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": social.url,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_WHATSAPP_PHONE_NUMBER_ID": NUMBER,
            "AWS_WHATSAPP_NUMBERS": f"{OURS}={POOL}",
            "WHATSAPP_PROVIDERS": "console,aws_whatsapp",  # who owns the number has it
        }
        with playing(sqlite_url, tmp_path, **more) as sns:
            post(sns, said())
            (thread,) = conversations(sns)
            path = f"/api/conversations/{thread['id']}/messages"
            answer = sns.client.call("POST", path, json={"body": "Hello", **TRY}).json()
            sns.client.until(answer["id"], "accepted")
            named = sns.client.send(
                channel="whatsapp", to=PERSON, body="Again", **{"from": OURS}, **TRY
            )
            sns.client.until(named["id"], "accepted")
    sent = [r.json["originationPhoneNumberId"] for r in social.requests]
    assert sent == [POOL, POOL]
    assert (answer["from"], answer["conversation_id"]) == (OURS, thread["id"])
    assert named["conversation_id"] == thread["id"]


def test_the_usual_number_may_be_named_where_it_is_listed(sqlite_url: str, tmp_path: Path) -> None:
    with LoopbackSocial() as social:
        more = {
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": social.url,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_WHATSAPP_PHONE_NUMBER_ID": POOL,
            "AWS_WHATSAPP_NUMBERS": f"{OURS}={POOL}",
            "WHATSAPP_PROVIDERS": "aws_whatsapp",
        }
        with playing(sqlite_url, tmp_path, **more) as sns:
            first = sns.client.send(channel="whatsapp", to=PERSON, body="Hello", **TRY)
            post(sns, said())
            named = sns.client.send(
                channel="whatsapp", to=PERSON, body="Hi", **{"from": OURS}, **TRY
            )
            sns.client.until(named["id"], "accepted")
            (thread,) = conversations(sns)
    assert [m["from"] for m in (first, named)] == [OURS, OURS]
    assert {m["conversation_id"] for m in (first, named)} == {thread["id"]}
    assert {r.json["originationPhoneNumberId"] for r in social.requests} == {POOL}


def test_what_nobody_knows_is_kept_and_the_rest_counts(sns: Sns) -> None:
    odd = [message(), {"id": "wamid.nobody", "type": "text"}, 7, message("hologram", 3, hologram=1)]
    post(sns, event(change(messages=odd), {"field": "new", "value": {}}, "odd"))
    assert [m["type"] for m in inbound(sns)] == ["text", "unknown"]
    post(sns, event({"field": "brand_new_field", "value": {"something": [1]}}))
    post(sns, {"context": {"MetaWabaIds": []}})
    states = [row["state"] for row in sns.rows("SELECT state FROM inbox ORDER BY id")]
    assert states == ["parsed", "unrecognised", "malformed"]


def test_a_file_waits_to_be_fetched_by_the_number_that_it_came_to(sns: Sns) -> None:
    image = {"id": "778899", "mime_type": "image/jpeg", "caption": "the cat"}
    post(sns, said("image", image=image))
    (one,) = inbound(sns)
    assert (one["type"], one["body"]) == ("image", "the cat")
    assert one["media"][0]["url"].startswith("/api/media/")
    (file,) = sns.rows("SELECT * FROM media")
    assert file["reference"] == "phone-number-id-0a1b2c3d4e5f60718293a4b5c6d7e8f9/778899"
