"""WhatsApp from the API to AWS's wire and back, as far as no other channel has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import Status
from tests.aws_social import NUMBER
from tests.families import PERSON, AwsWhatsapp
from tests.running import OURS, Client, eventually, in_thread, variables

USER = "US.13491208655302741918"


@dataclass
class Scene:
    """A gateway and its AWS."""

    client: Client
    family: AwsWhatsapp

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What AWS was given."""
        return self.family.vendor.messages

    def wrote(self, id_: str = "wamid.1") -> dict[str, Any]:
        """A person has written; the conversation."""
        answer = self.family.said("hi", id_).to(self.client)
        assert answer.status_code == 200
        return dict(self.client.get("/api/conversations")["items"][0])

    def sent(self, **body: Any) -> dict[str, Any]:
        """What AWS was given for a message that answers the person."""
        self.family.said("hi", "wamid.1").to(self.client)
        made = self.client.send(to=PERSON, channel="whatsapp", **body)
        self.client.until(made["id"], "accepted")
        return self.messages[-1]


@pytest.fixture
def scene(url: str, tmp_path: Path) -> Iterator[Scene]:
    family = AwsWhatsapp()
    with family.vendor, in_thread(variables(tmp_path, url, **family.variables())) as client:
        yield Scene(client, family)
    assert family.vendor.refused == []


def test_both_directions_meet_in_one_conversation(scene: Scene) -> None:
    first = scene.client.send(to=PERSON, channel="whatsapp", body="Hello", outside_window="try")
    scene.client.until(first["id"], "accepted")
    there = scene.client.get(f"/api/conversations/{first['conversation_id']}")
    assert there["our_address"] is None
    assert scene.wrote()["id"] == first["conversation_id"]
    there = scene.client.get(f"/api/conversations/{first['conversation_id']}")
    assert (there["our_address"], there["address"], there["unread_count"]) == (OURS, PERSON, 1)
    assert scene.family.vendor.requests[0].json["originationPhoneNumberId"] == NUMBER


def test_what_only_whatsapp_has_goes_out_as_it_was_asked(scene: Scene) -> None:
    place = {"latitude": 37.78, "longitude": -122.39, "name": "Office"}
    assert scene.sent(type="location", content=place)["location"] == place
    buttons = [{"id": "yes", "title": "Yes"}]
    asked = scene.sent(body="Well?", content={"kind": "buttons", "buttons": buttons},
                       type="interactive", reply_to="wamid.9")  # fmt: skip
    assert asked["context"] == {"message_id": "wamid.9"}
    assert asked["interactive"]["action"] == {"buttons": [{"type": "reply", "reply": buttons[0]}]}
    made = scene.sent(template={"name": "order_1", "variables": ["Ada"]})
    assert made["template"]["components"][0]["parameters"] == [{"type": "text", "text": "Ada"}]
    content = {"target": "wamid.9", "emoji": ""}
    assert scene.sent(type="reaction", content=content)["reaction"]["message_id"] == "wamid.9"


def test_what_is_answered_may_be_named_by_our_id(scene: Scene) -> None:
    there = scene.wrote("wamid.7")
    (theirs,) = scene.client.get("/api/messages")["items"]
    quoted = scene.sent(body="Yes", reply_to=theirs["id"])
    assert quoted["context"] == {"message_id": "wamid.7"}
    ours = scene.client.get("/api/messages", direction="outbound")["items"][0]
    assert ours["reply_to"] == "wamid.7"  # as it is shown of what people say
    content = {"target": theirs["id"], "emoji": "👍"}
    reacted = scene.client.call(
        "POST",
        f"/api/conversations/{there['id']}/messages",
        json={"type": "reaction", "content": content},
    ).json()
    assert reacted["content"] == {"target": "wamid.7", "emoji": "👍"}
    scene.client.until(reacted["id"], "accepted")
    assert scene.messages[-1]["reaction"] == {"message_id": "wamid.7", "emoji": "👍"}


def test_a_message_of_ours_is_quoted_by_the_network_s_id_or_not_yet(scene: Scene) -> None:
    scene.wrote()
    ours = scene.client.send(to=PERSON, channel="whatsapp", body="Yes")
    accepted = scene.client.until(ours["id"], "accepted")
    also = {"type": "reaction", "content": {"target": ours["id"], "emoji": "x"}}
    for more, field in (({"reply_to": ours["id"]}, "reply_to"), (also, "content.target")):
        given = {"to": PERSON, "channel": "whatsapp", "body": "And", **more}
        answer = scene.client.call("POST", "/api/messages", json=given)
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error["field"] == field
        assert "it is accepted; try again in a moment" in error["message"]
    assert len(scene.messages) == 1
    family = scene.family
    family.happened(Status.SENT, family.sent()[0], accepted["provider_message_id"]).to(scene.client)
    known = scene.client.until(ours["id"], "sent")
    assert known["provider_message_id"] != accepted["provider_message_id"]
    again = scene.client.send(to=PERSON, channel="whatsapp", body="And", reply_to=ours["id"])
    assert again["reply_to"] == known["provider_message_id"]
    scene.client.until(again["id"], "accepted")
    assert scene.messages[-1]["context"] == {"message_id": known["provider_message_id"]}


def test_an_id_of_ours_that_is_of_no_message_there_is_a_422(scene: Scene) -> None:
    scene.wrote("wamid.7")
    (theirs,) = scene.client.get("/api/messages")["items"]
    stranger = {"to": "+15550100009", "outside_window": "try"}
    for more, field in (
        ({"to": PERSON, "reply_to": "msg_0"}, "reply_to"),
        ({"to": PERSON, "reply_to": "msg_ "}, "reply_to"),
        ({**stranger, "reply_to": theirs["id"]}, "reply_to"),
        ({"to": PERSON, "type": "reaction", "content": {"target": "msg_0", "emoji": "x"}},
         "content.target"),
    ):  # fmt: skip
        for path in ("/api/messages", "/api/messages?dry_run=true"):
            given = {"channel": "whatsapp", "body": "x", **more}
            answer = scene.client.call("POST", path, json=given)
            assert [error["field"] for error in answer.json()["errors"]] == [field]
    waiting = scene.client.send(
        to=PERSON,
        channel="whatsapp",
        body="x",
        outside_window="try",
        send_at=(datetime.now(UTC) + timedelta(days=30)).isoformat(),
    )
    given = {"to": PERSON, "channel": "whatsapp", "body": "x", "reply_to": waiting["id"]}
    answer = scene.client.call("POST", "/api/messages", json=given)
    assert answer.status_code == 422 and "it is scheduled" in answer.text


def test_a_person_without_a_number_is_reached(scene: Scene) -> None:
    made = scene.client.send(to=USER, channel="whatsapp", body="Hello", outside_window="try")
    scene.client.until(made["id"], "accepted")
    assert scene.messages[-1]["recipient"] == USER
    assert "to" not in scene.messages[-1]


def test_what_breaks_a_limit_of_whatsapp_is_a_422_that_names_it(scene: Scene) -> None:
    there = scene.wrote()
    four = [{"id": str(n), "title": str(n)} for n in range(4)]
    long = [{"id": "1", "title": "Yes"}, {"id": "2", "title": "x" * 21}]
    for more, field in (
        ({"body": "x", "content": {"kind": "buttons", "buttons": four}}, "content.buttons"),
        ({"body": "x", "content": {"kind": "buttons", "buttons": long}}, "content.buttons.1.title"),
        ({"body": " ", "content": {"kind": "buttons", "buttons": four[:1]}}, "body"),
        ({"body": "x", "content": {"kind": ["buttons"], "buttons": four[:1]}}, "content.kind"),
    ):
        body = {"to": PERSON, "channel": "whatsapp", "type": "interactive", **more}
        answer = {"type": "interactive", **more}
        for path, given in (
            ("/api/messages", body),
            ("/api/messages?dry_run=true", body),
            (f"/api/conversations/{there['id']}/messages", answer),
        ):
            refused = scene.client.call("POST", path, json=given)
            assert refused.status_code == 422
            (error,) = refused.json()["errors"]
            assert error["field"] == field
    assert scene.client.get("/api/messages", direction="outbound")["items"] == scene.messages == []


def test_what_aws_cannot_send_is_a_422(scene: Scene) -> None:
    for more, field in (
        ({"type": "order", "body": "x"}, "type"),
        ({"type": "image", "media": ["https://example.com/a.png"]}, "media"),  # without a bucket
    ):
        body = {"to": PERSON, "channel": "whatsapp", **more}
        answer = scene.client.call("POST", "/api/messages", json=body)
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_message_is_shown_as_read_once(scene: Scene) -> None:
    there = scene.wrote()
    message = scene.client.get("/api/messages", direction="inbound")["items"][0]
    read = {"messaging_product": "whatsapp", "message_id": "wamid.1", "status": "read"}
    for _ in range(2):
        assert scene.client.call("POST", f"/api/messages/{message['id']}/read").status_code == 200
    eventually(lambda: scene.messages)
    assert scene.client.call("POST", f"/api/conversations/{there['id']}/read").status_code == 200
    assert scene.client.call("POST", f"/api/conversations/{there['id']}/typing").status_code == 202
    eventually(lambda: len(scene.messages) == 2)
    assert scene.messages == [read, {**read, "typing_indicator": {"type": "text"}}]


def test_the_newest_message_stands_for_those_before_it(scene: Scene) -> None:
    scene.wrote("wamid.1")
    there = scene.wrote("wamid.2")
    assert scene.client.call("POST", f"/api/conversations/{there['id']}/read").status_code == 200
    eventually(lambda: scene.messages)
    assert [said["message_id"] for said in scene.messages] == ["wamid.2"]


def test_a_read_receipt_that_aws_refuses_changes_nothing_here(scene: Scene) -> None:
    there = scene.wrote()
    scene.family.vendor.plan.append(scene.family.unauthorised)
    answer = scene.client.call("POST", f"/api/conversations/{there['id']}/read")
    assert (answer.status_code, answer.json()["unread_count"]) == (200, 0)
    eventually(lambda: scene.messages)
    assert scene.sent(body="still here")["text"]["body"] == "still here"
