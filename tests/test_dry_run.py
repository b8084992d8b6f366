"""What would become of a message, asked before it is sent."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.segments import explained
from tests.running import Client, inbound_form, sid
from tests.vendors import LoopbackVendor

PERSON, OURS = "+15550100007", "+15550008888"


def rehearsed(client: Client, path: str = "/api/messages", **body: Any) -> dict[str, Any]:
    """The answer to a rehearsal."""
    answer = client.call("POST", f"{path}?dry_run=true", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize(
    ("text", "count", "per_segment", "remaining", "costly"),
    [
        ("", 1, 160, 160, []),
        ("hi", 1, 160, 158, []),
        ("1 €", 1, 160, 156, [("€", 2, "EURO SIGN", "counts twice in GSM-7")]),
        ("a" * 161, 2, 153, 145, []),
        (
            "a" * 152 + "€" + "a" * 151,
            2,
            153,
            0,
            [("€", 152, "EURO SIGN", "counts twice in GSM-7")],
        ),
        ("“x“", 1, 70, 67, [("“", 0, "LEFT DOUBLE QUOTATION MARK", "not in GSM-7: forces UCS-2")]),
        ("€ 😀", 1, 70, 66, [("😀", 2, "GRINNING FACE", "not in GSM-7: forces UCS-2")]),
        ("😀" * 36, 2, 67, 61, [("😀", 0, "GRINNING FACE", "not in GSM-7: forces UCS-2")]),
    ],
)
def test_a_text_is_explained(
    text: str, count: int, per_segment: int, remaining: int, costly: list[Any]
) -> None:
    found = explained(text)
    assert (found.count, found.per_segment, found.remaining) == (count, per_segment, remaining)
    assert found.characters == len(text)
    assert [(c.character, c.position, c.name, c.why) for c in found.costly] == costly


def test_a_rehearsal_tells_all_and_leaves_nothing(client: Client, vendor: LoopbackVendor) -> None:
    told = rehearsed(client, to="+1 555 010 0007", body="10 €")
    assert told["normalised"]["to"] == PERSON
    assert (told["type"], told["price"]["currency"]) == ("text", "USD")
    assert (told["segments"]["count"], told["segments"]["encoding"]) == (1, "GSM-7")
    assert [c["name"] for c in told["segments"]["costly"]] == ["EURO SIGN"]
    (first,) = told["route"]
    assert first == {"provider": "twilio", "position": 1, "would_be_asked": True, "why_not": None}
    assert told["window"] == {"open": True, "expires_at": None}
    assert told["opt_out"] == {"state": "in", "since": None}
    assert client.get("/api/messages")["items"] == client.get("/api/conversations")["items"] == []
    assert vendor.count == 0


def test_a_rehearsal_has_the_problems_of_the_real_one(idle: Client) -> None:
    for body in (
        {"to": "nobody", "body": ""},
        {"to": PERSON, "body": "x", "channel": "whatsapp"},
        {"to": PERSON, "body": "x", "type": "order"},
        {"body": "x"},
    ):
        real = idle.call("POST", "/api/messages", json=body)
        told = idle.call("POST", "/api/messages?dry_run=true", json=body)
        assert (told.status_code, told.json()) == (real.status_code, real.json())
    body = {"to": PERSON, "body": "x"}
    assert idle.call("POST", "/api/messages?dry_run=maybe", json=body).status_code == 422
    assert idle.call("POST", "/api/messages?dry_run=false", json=body).status_code == 202


def test_an_answer_is_rehearsed_with_its_window_and_opt_out(idle: Client) -> None:
    chat = {"From": f"whatsapp:{PERSON}", "To": f"whatsapp:{OURS}", "WaId": PERSON[1:]}
    assert idle.webhook("/api/webhooks/whatsapp", inbound_form(sid(1), "STOP", **chat)).ok
    (there,) = idle.get("/api/conversations")["items"]
    told = rehearsed(idle, f"/api/conversations/{there['id']}/messages", body="hello")
    assert told["normalised"] == {"to": PERSON, "from": OURS}
    assert told["segments"] is None
    assert told["window"] == {"open": True, "expires_at": there["window_expires_at"]}
    assert told["opt_out"]["state"] == "out" and told["opt_out"]["since"] is not None
    stranger = {"to": "+15550100008", "channel": "whatsapp", "outside_window": "try"}
    assert rehearsed(idle, body="x", **stranger)["window"] == {"open": False, "expires_at": None}
    assert idle.get("/api/messages", direction="outbound")["items"] == []


def test_no_way_of_sending_takes_a_rehearsal_for_the_real_one(idle: Client) -> None:
    told = rehearsed(idle, "/api/sms/send", recipient_number=PERSON, message="hi")
    assert (told["normalised"]["to"], told["segments"]["count"]) == (PERSON, 1)
    body = {"to": PERSON, "body": "x"}
    many = idle.call("POST", "/api/sms/bulk?dry_run=true", json={"messages": [body]})
    assert (many.status_code, many.json()["errors"][0]["field"]) == (422, "dry_run")
    both = idle.call("POST", "/api/messages?dry_run=true&dry_run=false", json=body)
    assert both.status_code == 422
    assert idle.get("/api/messages")["items"] == []


def test_a_filter_that_is_given_twice_is_refused(idle: Client) -> None:
    answer = idle.call("GET", "/api/messages?status=failed&status=sent")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "status")
